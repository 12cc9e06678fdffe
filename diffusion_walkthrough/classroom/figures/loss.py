"""Pictures of chapters 04 and 04b: best guesses, bells that lie apart, what a loss is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import live, plots
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


def possible_pasts(
    x_start: Array, x_t: float, alpha_bar: float, answers: Array, costs: Array
) -> Figure:
    """Draw where a noisy value may have come from, and below it what each answer costs.

    Args:
        x_start: the clean values of all pairs whose noisy value fell close to ``x_t``.
        x_t: the noisy value, one number.
        alpha_bar: the share of variance that is signal.
        answers: clean values that one might name, ``(n,)``.
        costs: the mean squared miss of each, ``(n,)``.
    """
    figure, (top, bottom) = plots.new_figure(1, 2, height=3.9, sharex=True)
    grid = np.linspace(-1.2, 1.2, 500)
    exact = ONE_DIMENSIONAL_WORLD.posterior_pdf(grid, x_t, alpha_bar)
    top.hist(x_start, bins=80, range=(-1.2, 1.2), density=True, color=plots.SKY)
    top.plot(grid, exact, color=plots.BLUE)
    top.text(-1.2, 1.4, "where the pairs came from,\nand the exact density", color=plots.BLUE)
    top.set_ylabel("density")
    bottom.plot(answers, costs, color=plots.BLUE)
    best = int(np.argmin(costs))
    bottom.plot(answers[best], costs[best], "o", color=plots.BLUE)
    bottom.annotate(
        f"the cheapest answer, {answers[best]:.2f}",
        (answers[best], costs[best]),
        (0.45, 0.75 * float(np.max(costs))),
        arrowprops={"arrowstyle": "->", "color": plots.GREY},
    )
    mean = float(np.mean(x_start))
    for axis in (top, bottom):
        axis.axvline(mean, color=plots.GREY, linestyle="--")
    top.text(mean - 0.03, 2.25, f"their average, {mean:.2f}", color=plots.GREY, ha="right")
    bottom.set_ylabel("mean squared miss")
    bottom.set_xlabel("the clean value, and the answer that names it")
    return figure


def best_guesses(
    schedule: NoiseSchedule, times: Sequence[int], places: Array, averages: Sequence[ArrayLike]
) -> Figure:
    """Draw the average clean value behind each noisy one, on the exact curve.

    Args:
        schedule: the noise schedule.
        times: one ``t`` for each panel.
        places: noisy values, ``(n,)``.
        averages: for each panel the average clean value of the pairs near each place, ``(n,)``.
    """
    figure, axes = plots.new_figure(len(times), height=2.6, sharey=True)
    grid = np.linspace(places[0], places[-1], 300)
    for axis, t, means in zip(axes, times, averages, strict=True):
        exact = ONE_DIMENSIONAL_WORLD.expected_x_start(grid, schedule.alphas_cumprod[t])
        axis.plot(grid, exact, color=plots.BLUE, label="exact")
        axis.plot(places, means, "o", color=plots.ORANGE, markersize=4, label="averages")
        axis.set_title(f"t = {t}, √ᾱ = {schedule.sqrt_alphas_cumprod[t]:.2f}")
        axis.set_xlabel("the noisy value x_t")
    axes[0].set_ylabel("best guess of x₀")
    axes[0].legend(loc="upper left")
    return figure


def uphill(schedule: NoiseSchedule, times: Sequence[int]) -> Figure:
    """Draw the density of the noisy numbers, and under it where taking the best guess away leads.

    Each arrow runs from x_t to x_t - √(1-ᾱ) E[ε | x_t], which is √ᾱ E[x_0 | x_t].

    Args:
        schedule: the noise schedule.
        times: one ``t`` for each panel.
    """
    figure, axes = plots.new_figure(len(times), height=2.7, sharex=True)
    grid, starts = np.linspace(-1.9, 1.9, 500), np.linspace(-1.65, 1.65, 28)
    for axis, t in zip(axes, times, strict=True):
        alpha_bar = schedule.alphas_cumprod[t]
        density = ONE_DIMENSIONAL_WORLD.noised(alpha_bar).pdf(grid)
        removed = np.sqrt(1 - alpha_bar) * ONE_DIMENSIONAL_WORLD.expected_noise(starts, alpha_bar)
        depths = -density.max() * np.resize([0.08, 0.2, 0.32], len(starts))
        axis.plot(grid, density, color=plots.BLUE)
        axis.fill_between(grid, density, color=plots.SKY, alpha=0.4)
        axis.plot(starts, depths, "o", color="black", markersize=3)
        for start, gone, depth in zip(starts, removed, depths, strict=True):
            style = {"arrowstyle": "-|>", "color": "black", "mutation_scale": 7}
            style |= {"shrinkA": 0, "shrinkB": 0, "linewidth": 1.4}
            axis.annotate("", (start - gone, depth), (start, depth), arrowprops=style)
        axis.set_title(f"t = {t}, √ᾱ = {np.sqrt(alpha_bar):.2f}")
        axis.set_xlabel("the noisy value x_t")
        axis.set_yticks([])
    axes[0].set_ylabel("density of x_t")
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
    for bell, style, mean, name in (
        (first, "-", mean_1, "bell 1, the true one"),
        (second, "--", mean_2, "bell 2, the believed one"),
    ):
        (line,) = top.plot(x, bell, style, label=name)
        side = "left" if mean == max(mean_1, mean_2) else "right"
        _name_line(top, mean, float(bell.max()), name, line.get_color(), side)
    top.set_ylabel("density")
    bottom.plot(x, added, color=plots.GREEN)
    bottom.fill_between(x, added, color=plots.GREEN, alpha=0.25)
    bottom.set_ylabel("added to the KL")
    bottom.set_xlabel("x")
    return figure


def _name_line(axes: Any, x: float, y: float, name: str, colour: Any, side: str = "left") -> None:
    """Write a line's name in its colour beside a point of it; ``side`` is the text's near edge."""
    shift = 6 if side == "left" else -6
    axes.annotate(
        name,
        (x, y),
        (shift, 3),
        textcoords="offset points",
        color=plots.ink(colour),
        ha=side,
        fontsize=9,
    )


def _bell(x: Array, mean: float, variance: float) -> Array:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def weights(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Draw what the bound and what the simple loss multiply the squared noise error with.

    Args:
        schedules: a noise schedule for each panel, by its name.
    """
    figure, axes = plots.new_figure(len(schedules), height=2.8, sharey=True)
    for axis, (name, schedule) in zip(axes, schedules.items(), strict=True):
        t = np.arange(1, len(schedule))
        weight = ops.convert_to_numpy(variational_weight(schedule, t))
        axis.semilogy(t, weight, color=plots.BLUE, label="the bound")
        axis.semilogy(t, np.ones(len(t)), "--", color=plots.ORANGE, label="the simple loss")
        axis.plot(t[-1], weight[-1], "o", color=plots.BLUE, markersize=4)
        middle = len(t) // 2
        for height, line, colour in (
            (2.5 * weight[middle], "the bound, Eq. 12", plots.BLUE),
            (1.3, "the simple loss, Eq. 14", plots.ORANGE),
        ):
            axis.text(t[middle], height, line, color=plots.ink(colour), ha="center", fontsize=9)
        axis.set_title(name)
        axis.set_xlabel("t")
    axes[0].set_ylabel("weight of the noise error")
    return figure


#: How each line of the loss over t is drawn, and where its name stands: style, colour, the t and
#: the height of the text, and the t of the point on the line to which an arrow leads.
_LOSS_LINES = (
    ("--", plots.GREY, 62, 1.3, None),
    ("-", plots.BLUE, 1, 0.07, 12),
    (":", plots.BLUE, 64, 0.35, 57),
    ("-", plots.GREEN, 27, 0.004, None),
    (":", plots.GREEN, 8, 8.0, None),
)


def loss_over_t(times: ArrayLike, curves: Mapping[str, ArrayLike]) -> Figure:
    """Draw five losses against ``t``, on a logarithmic scale, each named beside its line.

    Args:
        times: where it was measured, ``(n,)``.
        curves: the losses by name, each ``(n,)``: of knowing nothing; of the network on training
            and on held-out images; of the memorizer on the same two.
    """
    figure, axes = plots.new_figure(height=4.2)
    times = np.asarray(times)
    for (name, values), look in zip(curves.items(), _LOSS_LINES, strict=True):
        style, colour, across, height, at = look
        values = np.maximum(np.asarray(values, dtype=np.float64), 1e-6)
        axes.semilogy(times, values, style, color=colour, marker="o", markersize=3, label=name)
        label = axes.text(across, height, name, color=plots.ink(colour))
        if at is not None:
            point = at, float(np.exp(np.interp(at, times, np.log(values))))
            arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.0}
            axes.annotate(
                "",
                point,
                (0.4, float(point[1] > height)),
                xycoords="data",
                textcoords=label,
                arrowprops=arrow,
            )
    axes.set_ylim(1e-3, 200)
    axes.set_xlabel("t")
    axes.set_ylabel("mean squared error of the noise")
    return figure


class _Asked(NamedTuple):
    """What somebody answered who was shown a noisy three; images ``(8, 8, 1)``."""

    x_t: Any
    noise: Any
    guess: Any
    implied: Any
    digit: Any
    loss: float
    silence: float  # the loss of answering 0
    image_error: float


def _ask(
    guess_noise: Callable[..., Any], schedule: NoiseSchedule, t: int, held_out: bool
) -> _Asked:
    """Show somebody the noisy three; the same noise for every ``t``, of mean square near 1."""
    digit = held_out_digit() if held_out else companion_digit()[0]
    noise = np.random.default_rng(18).standard_normal((1, *digit.shape)).astype("float32")
    step = np.array([t], "int32")
    x_t = q_sample(schedule, digit[None], step, noise)
    guess = guess_noise(x_t, step)
    implied = predict_x_start_from_noise(schedule, x_t, step, guess)
    images = [ops.convert_to_numpy(image)[0] for image in (x_t, noise, guess, implied)]
    loss, silence = float(squared_error(guess, noise)[0]), float(np.mean(noise**2))
    error = float(np.mean((images[3] - digit) ** 2))
    return _Asked(images[0], images[1], images[2], images[3], digit, loss, silence, error)


_PICTURES = ("x_t", "its noise", "guessed noise", "implied x₀", "the true x₀")


def guessed_noise_rows(
    guess_noise: Callable[..., Any], schedule: NoiseSchedule, times: Sequence[int]
) -> Figure:
    """Draw a row for each ``t``: a noisy three, its noise, the guess, the implied image, the three.

    Args:
        guess_noise: callable ``(x_t, t) -> noise``, a network's ``denoise.ask`` for example.
        schedule: the noise schedule.
        times: how much noise, one ``t`` for each row.
    """
    figure, axes = plots.new_figure(5, len(times), height=1.45 * len(times), squeeze=False)
    for row, t in zip(axes, times, strict=True):
        asked = _ask(guess_noise, schedule, t, held_out=False)
        for axis, picture, name in zip(row, asked[:5], _PICTURES, strict=True):
            value_range = 1.0 if name.endswith("x₀") else 2.0
            plots.draw_image(axis, picture, name if t == times[0] else "", value_range)
        row[0].set_ylabel(f"t = {t}\n√ᾱ = {schedule.sqrt_alphas_cumprod[t]:.2f}")
        row[2].set_xlabel(f"loss {asked.loss:.2f}")
        row[3].set_xlabel(f"error {asked.image_error:.2f}")
    return figure


def guessed_noise(
    guess_noise: Callable[..., Any], schedule: NoiseSchedule, t: int, held_out: bool = False
) -> tuple[str, str]:
    """Lay out a noisy three, its noise, the guess of it and the image it implies; say the loss.

    Args:
        guess_noise: callable ``(x_t, t) -> noise``, a network's ``denoise.ask`` for example.
        schedule: the noise schedule.
        t: how much noise.
        held_out: whether to take a three that is not among the training images.

    Returns:
        HTML of five pictures over a gauge of √ᾱ, and the caption.
    """
    asked = _ask(guess_noise, schedule, t, held_out)
    pictures = [
        live.pixels(picture, name, 1.0 if name.endswith("x₀") else 2.0)
        for picture, name in zip(asked[:5], _PICTURES, strict=True)
    ]
    left = schedule.sqrt_alphas_cumprod[t]
    caption = (
        f"t = {t}: loss {asked.loss:.3f} (always answering 0: {asked.silence:.3f}); squared error "
        f"of the implied image {asked.image_error:,.{3 if asked.image_error < 100 else 0}f}"
    )
    return live.stack(live.row(*pictures), live.gauge(left, f"√ᾱ = {left:.3f}")), caption


def steps_back(
    x: Array, panels: Mapping[str, tuple[Array, Array]], window: Sequence[Any]
) -> Figure:
    """Draw true steps back, each beside the bell of the same mean and variance.

    Args:
        x: places, ``(n,)``.
        panels: by title, the density of the true step back and that of the bell, each ``(n,)``.
        window: for each panel the lowest and the highest place to show.
    """
    figure, axes = plots.new_figure(len(panels), height=2.6)
    for axis, (title, (true, bell)), limits in zip(axes, panels.items(), window, strict=True):
        axis.plot(x, true, color=plots.BLUE, label="true")
        axis.plot(x, bell, "--", color=plots.ORANGE, label="bell")
        axis.set_title(title)
        axis.set_xlim(*limits)
        axis.set_yticks([])
        axis.set_xlabel("the number one step earlier")
    axes[0].set_ylabel("density")
    axes[0].legend(loc="upper left", fontsize=9)
    return figure


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
    bottom.bar(places, share, width=0.9 * width, color=plots.BLUE)
    bottom.set_ylabel("probability of the level")
    bottom.set_xlabel("value of the pixel")
    return figure


def bits_over_t(terms: ArrayLike, errors: ArrayLike) -> Figure:
    """Draw what each step adds to the bound, and how good the guess is after the bits so far.

    Args:
        terms: L_t in bits per dimension, averaged over images, ``(T,)``.
        errors: the mean squared error of the guessed clean image, ``(T,)``.
    """
    figure, (left, right) = plots.new_figure(2, height=2.9)
    terms, errors = np.asarray(terms), np.asarray(errors)
    left.semilogy(terms, marker="o", markersize=3)
    left.set_ylabel("bits per dimension")
    left.set_title("what step t adds to the bound")
    left.set_xlabel("t")
    # Whoever stands at t has been told the terms of all larger t.
    told = terms[::-1].cumsum()[::-1] - terms
    right.plot(told, errors, color=plots.BLUE, marker="o", markersize=3)
    for t in sorted({10, 50, 90} & set(range(len(terms)))):
        _name_line(right, told[t], errors[t], f"t = {t}", plots.GREY)
    right.set_ylabel("mean squared error")
    right.set_title("error of the guessed image")
    right.set_xlabel("bits per dimension paid so far")
    return figure


def held_out_digit() -> NDArray[np.float32]:
    """Pick a three that is not among the training images, float32 (8, 8, 1)."""
    images, labels = load_images("digits", split="test")
    return images[labels == 3][HELD_OUT_INDEX]
