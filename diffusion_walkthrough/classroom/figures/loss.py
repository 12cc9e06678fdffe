"""Pictures of chapter 04: best guesses, bells that lie apart, and what a loss is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.data import companion_digit, load_images
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.loss import (
    discretized_gaussian_log_likelihood,
    predict_x_start_from_noise,
    squared_error,
    variational_weight,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule

Array = NDArray[np.float64]

#: A three that no training has seen: its place among the held-out digits.
HELD_OUT_INDEX = 0


def possible_pasts(x_start: Array, x_t: float, alpha_bar: float) -> Figure:
    """Draw where a noisy value may have come from: the found pasts under the exact posterior.

    Args:
        x_start: the clean values of all pairs whose noisy value fell close to ``x_t``.
        x_t: the noisy value, one number.
        alpha_bar: the share of variance that is signal.
    """
    figure, axes = plots.new_figure(height=2.5)
    grid = np.linspace(-1.2, 1.2, 500)
    exact = ONE_DIMENSIONAL_WORLD.posterior_pdf(grid, x_t, alpha_bar)
    axes.hist(x_start, bins=80, range=(-1.2, 1.2), density=True, color=plots.SKY)
    axes.plot(grid, exact, color=plots.BLUE, label="exact density of x₀")
    axes.axvline(x_t, color=plots.GREY, linestyle=":", label=f"x_t = {x_t}")
    mean = float(np.mean(x_start))
    axes.axvline(mean, color=plots.ORANGE, linestyle="--", label=f"their average, {mean:.2f}")
    axes.set_xlabel("the clean value x₀")
    axes.set_ylabel("density")
    axes.legend(loc="upper left")
    return figure


def best_guesses(
    schedule: NoiseSchedule, times: Sequence[int], averages: Sequence[tuple[Array, Array]]
) -> Figure:
    """Draw bin averages of the clean value over the noisy value, on the exact curve.

    Args:
        schedule: the noise schedule.
        times: one ``t`` for each panel.
        averages: for each panel the bins' centres and the average clean value in each.
    """
    figure, axes = plots.new_figure(len(times), height=2.6, sharey=True)
    for axis, t, (centres, means) in zip(axes, times, averages, strict=True):
        alpha_bar = schedule.alphas_cumprod[t]
        grid = np.linspace(centres[0], centres[-1], 300)
        exact = ONE_DIMENSIONAL_WORLD.expected_x_start(grid, alpha_bar)
        axis.plot(grid, exact, color=plots.BLUE, label="exact")
        axis.plot(centres, means, "o", color=plots.ORANGE, markersize=4, label="averages")
        axis.set_title(f"t = {t}")
        axis.set_xlabel("the noisy value x_t")
    axes[0].set_ylabel("best guess of x₀")
    axes[0].legend(loc="upper left")
    return figure


def two_bells(mean_1: float, variance_1: float, mean_2: float, variance_2: float) -> Figure:
    """Draw two bells, and below them what each place adds to KL(bell 1 ‖ bell 2)."""
    deviations = np.sqrt([variance_1, variance_2])
    low = min(mean_1 - 4 * deviations[0], mean_2 - 4 * deviations[1])
    high = max(mean_1 + 4 * deviations[0], mean_2 + 4 * deviations[1])
    x = np.linspace(low, high, 600)
    first, second = _bell(x, mean_1, variance_1), _bell(x, mean_2, variance_2)
    added = first * np.log(first / second)
    figure, (top, bottom) = plots.new_figure(1, 2, height=3.6, sharex=True)
    top.plot(x, first, label="bell 1, the true one")
    top.plot(x, second, "--", label="bell 2, the believed one")
    top.set_ylabel("density")
    top.legend()
    bottom.plot(x, added, color=plots.GREEN)
    bottom.fill_between(x, added, color=plots.GREEN, alpha=0.25)
    bottom.set_ylabel("added to the KL")
    bottom.set_xlabel("x")
    return figure


def _bell(x: Array, mean: float, variance: float) -> Array:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def weights(schedule: NoiseSchedule) -> Figure:
    """Draw what the bound and what the simple loss multiply the squared noise error with."""
    figure, axes = plots.new_figure(height=2.8)
    t = np.arange(1, len(schedule))
    weight = ops.convert_to_numpy(variational_weight(schedule, t))
    axes.semilogy(t, weight, label="the bound, Eq. 12")
    axes.semilogy(t, np.ones(len(t)), "--", label="the simple loss, Eq. 14")
    axes.set_xlabel("t")
    axes.set_ylabel("weight of the noise error")
    axes.legend(loc="center right")
    return figure


def loss_over_t(times: ArrayLike, curves: Mapping[str, ArrayLike]) -> Figure:
    """Draw the loss of several denoise functions against ``t``, on a logarithmic scale.

    Args:
        times: where it was measured, ``(n,)``.
        curves: the losses by name, each ``(n,)``.
    """
    figure, axes = plots.new_figure(height=3.4)
    for (name, values), style in zip(curves.items(), ("--", "-", ":", "-", ":"), strict=False):
        axes.semilogy(times, values, style, marker="o", markersize=3, label=name)
    axes.set_ylim(1e-4, 300)
    axes.set_xlabel("t")
    axes.set_ylabel("mean squared error of the noise")
    axes.legend(loc="upper right", fontsize=9)
    return figure


def guessed_noise(
    guess_noise: Callable[..., Any], schedule: NoiseSchedule, t: int, held_out: bool = False
) -> tuple[Figure, str]:
    """Draw a noisy three, its noise, the guess of it and the image it implies; say the loss.

    The noise is the same for every ``t``, a draw whose mean square happens to be close to 1.

    Args:
        guess_noise: callable ``(x_t, t) -> noise``, a network's ``denoise.ask`` for example.
        schedule: the noise schedule.
        t: how much noise.
        held_out: whether to take a three that is not among the training images.
    """
    digit = held_out_digit() if held_out else companion_digit()[0]
    noise = np.random.default_rng(18).standard_normal((1, *digit.shape)).astype("float32")
    step = np.array([t], "int32")
    x_t = q_sample(schedule, digit[None], step, noise)
    guess = guess_noise(x_t, step)
    loss = float(squared_error(guess, noise)[0])
    x_start = predict_x_start_from_noise(schedule, x_t, step, guess)
    pictures = [ops.convert_to_numpy(picture)[0] for picture in (x_t, noise, guess, x_start)]
    titles = [f"x_t, t = {t}", "its noise", "guessed noise", "implied x₀", "the true x₀"]
    figure, axes = plots.new_figure(5, height=1.9)
    for axis, picture, title in zip(axes, [*pictures, digit], titles, strict=True):
        value_range = 1.0 if title.endswith("x₀") else 2.0
        plots.draw_image(axis, picture, title, value_range)
    image_error = float(np.mean((pictures[3] - digit) ** 2))
    caption = (
        f"t = {t}: loss {loss:.3f} (always answering 0: {np.mean(noise**2):.3f}); "
        f"squared error of the implied image {image_error:,.{3 if image_error < 100 else 0}f}"
    )
    return figure, caption


def levels_of_a_bell(mean: float, deviation: float, levels: int = 17) -> Figure:
    """Draw which share of a bell each grey level gets: the area of its bin (Eq. 13)."""
    places = np.linspace(-1, 1, levels)
    log_share = discretized_gaussian_log_likelihood(places, mean, np.log(deviation), levels)
    share, width = np.exp(ops.convert_to_numpy(log_share)), 2 / (levels - 1)
    grid = np.linspace(-1 - width, 1 + 2.5 * deviation, 600)
    figure, (top, bottom) = plots.new_figure(1, 2, height=3.4, sharex=True)
    top.plot(grid, _bell(grid, mean, deviation**2))
    for edge in (places[1:] + places[:-1]) / 2:
        top.axvline(edge, color=plots.GREY, linewidth=0.6)
    top.set_ylabel("density")
    bottom.bar(places, share, width=0.9 * width, color=plots.ORANGE)
    bottom.set_ylabel("probability of the level")
    bottom.set_xlabel("value of the pixel")
    return figure


def bits_over_t(terms: ArrayLike, errors: ArrayLike) -> Figure:
    """Draw what each step adds to the bound, beside the error of the clean image guessed there.

    Args:
        terms: L_t in bits per dimension, averaged over images, ``(T,)``.
        errors: the mean squared error of the guessed clean image, ``(T,)``.
    """
    figure, (left, right) = plots.new_figure(2, height=2.9)
    left.semilogy(np.asarray(terms), marker="o", markersize=3)
    left.set_ylabel("bits per dimension")
    left.set_title("what step t adds to the bound")
    right.plot(np.asarray(errors), color=plots.ORANGE, marker="o", markersize=3)
    right.set_ylabel("mean squared error")
    right.set_title("error of the guessed image")
    for axis in (left, right):
        axis.set_xlabel("t")
    return figure


def held_out_digit() -> NDArray[np.float32]:
    """Pick a three that is not among the training images, float32 (8, 8, 1)."""
    images, labels = load_images("digits", split="test")
    return images[labels == 3][HELD_OUT_INDEX]
