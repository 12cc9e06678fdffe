"""Pictures of chapter 01: what noise does to a curve and to a digit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule

Array = NDArray[np.float64]


def density(points: Array | None = None) -> Figure:
    """Draw the density of the one-dimensional world, with a few of its points below it."""
    figure, axes = plots.new_figure(height=2.3)
    x = np.linspace(-2, 2, 400)
    axes.plot(x, ONE_DIMENSIONAL_WORLD.pdf(x))
    if points is not None:
        axes.plot(points, np.full(len(points), -0.06), "|", color=plots.ORANGE, alpha=0.6)
    axes.set_xlabel("x")
    axes.set_ylabel("density")
    return figure


def walkers(schedule: NoiseSchedule, walk: Array, times: Sequence[int]) -> Figure:
    """Draw histograms of a chain's walkers after some steps, under the exact densities.

    Args:
        schedule: the chain's noise schedule.
        walk: positions, ``(T + 1, walkers)``; row 0 is before any noise.
        times: after how many steps to look.
    """
    figure, axes = plots.new_figure(len(times), height=2.3, sharey=True, sharex=True)
    x = np.linspace(-4, 4, 400)
    for axis, steps in zip(axes, times, strict=True):
        alpha_bar = 1.0 if steps == 0 else schedule.alphas_cumprod[steps - 1]
        axis.hist(walk[steps], bins=80, range=(-4, 4), density=True, color=plots.SKY)
        axis.plot(x, ONE_DIMENSIONAL_WORLD.noised(alpha_bar).pdf(x), color=plots.BLUE)
        axis.set_title(f"after {steps} steps")
    return figure


def mean_and_spread(schedule: NoiseSchedule, walk: Array) -> Figure:
    """Draw walkers that all began at one place, with √ᾱ x_0 ± √(1-ᾱ) over them.

    Args:
        schedule: the chain's noise schedule.
        walk: positions, ``(T + 1, walkers)``, row 0 all the same.
    """
    figure, axes = plots.new_figure(height=2.8)
    steps = np.arange(1, len(schedule) + 1)
    axes.plot(walk[:, :40], color=plots.SKY, linewidth=0.4, alpha=0.6)
    mean = schedule.sqrt_alphas_cumprod * walk[0, 0]
    spread = schedule.sqrt_one_minus_alphas_cumprod
    axes.plot(steps, mean, color=plots.BLUE, label="mean √ᾱ x₀")
    for sign in (-1, 1):
        label = "mean ± √(1−ᾱ)" if sign == 1 else None
        axes.plot(steps, mean + sign * spread, "--", color=plots.ORANGE, label=label)
    axes.set_xlabel("steps of noise")
    axes.set_ylabel("x")
    axes.legend(loc="lower left", ncols=2, frameon=False)
    return figure


def noised_digit(schedule: NoiseSchedule, t: int) -> tuple[Figure, str]:
    """Draw the companion digit at step ``t`` beside its recipe, and say the numbers.

    The noise is the same for every ``t``, so that moving the slider changes only its share.
    """
    digit, _ = companion_digit()
    noise = np.random.default_rng(1).standard_normal(digit.shape)
    signal_rate = schedule.sqrt_alphas_cumprod[t]
    noise_rate = schedule.sqrt_one_minus_alphas_cumprod[t]
    figure, axes = plots.new_figure(3, height=2.3, width=6)
    plots.draw_image(axes[0], signal_rate * digit, f"{signal_rate:.3f} × digit", 1.5)
    plots.draw_image(axes[1], noise_rate * noise, f"{noise_rate:.3f} × noise", 1.5)
    plots.draw_image(axes[2], signal_rate * digit + noise_rate * noise, f"sum: x at t = {t}", 1.5)
    caption = (
        f"t = {t}: {signal_rate:.3f} of the digit plus {noise_rate:.3f} of the noise; "
        f"share of variance left from the digit {signal_rate**2:.4f}"
    )
    return figure, caption


def bayes(schedule: NoiseSchedule, x_start: float, x_t: float, t: int) -> Figure:
    """Draw where x_{t-1} may be: seen from x_0, seen from x_t, and both together.

    Raises:
        ValueError: at t = 0, where x_{t-1} is x_0 itself.
    """
    if t < 1:
        raise ValueError(f"t = {t}: one step before the first is x_0 itself. Take t from 1 on.")
    figure, axes = plots.new_figure(height=2.6)
    x = np.linspace(-2, 2, 2000)
    earlier, beta = schedule.alphas_cumprod_prev[t], schedule.betas[t]
    from_start = _log_bell(x, np.sqrt(earlier) * x_start, 1 - earlier)
    from_x_t = _log_bell(np.sqrt(1 - beta) * x, x_t, beta)
    for log_curve, label, style in (
        (from_start, "seen from x₀", "--"),
        (from_x_t, "seen from x_t", ":"),
        (from_start + from_x_t, "both: the posterior", "-"),
    ):
        axes.plot(x, np.exp(log_curve - log_curve.max()), style, label=label)
    axes.set_xlabel("x one step earlier")
    axes.set_ylabel("plausibility (peak = 1)")
    axes.legend(frameon=False)
    return figure


def _log_bell(x: Array, mean: float, variance: float) -> Array:
    """The logarithm of a bell with peak 1: far out the bell itself would be rounded to 0."""
    return -((x - mean) ** 2) / (2 * variance)
