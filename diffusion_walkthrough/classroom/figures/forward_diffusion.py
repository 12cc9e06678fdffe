"""Pictures of chapter 01: what noise does to a digit and to a density, and two clues in one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

Array = NDArray[np.float64]

#: Noisy images on the page have one grey scale: -1.5 is black, 1.5 is white.
GREY_SCALE = 1.5

#: The published schedule, and one of few steps, each wide enough to draw.
PUBLISHED = NoiseSchedule(make_betas("linear", timesteps=1000))
COARSE = NoiseSchedule(make_betas("linear", timesteps=20))


def recipe(parts: Sequence[Array], titles: Sequence[str]) -> Figure:
    """Draw an image plus noise equals their sum: three pictures on one grey scale.

    Args:
        parts: the image times its factor, the noise times its factor, and their sum, each
            ``(height, width, 1)``.
        titles: one short text each.
    """
    figure, axes = plots.new_figure(5, width=6, height=2.2, width_ratios=[8, 1, 8, 1, 8])
    for axis, part, title in zip(axes[::2], parts, titles, strict=True):
        plots.draw_image(axis, part, title, GREY_SCALE)
    for axis, sign in zip(axes[1::2], "+=", strict=True):
        axis.set_axis_off()
        axis.text(0.5, 0.5, sign, fontsize=20, ha="center", va="center")
    return figure


def noised_digit(t: int) -> tuple[str, str]:
    """Lay out the same sum for the companion digit at step ``t``, as HTML, and say the numbers.

    The noise is the same for every ``t``, so that moving the slider changes only its share.

    Args:
        t: a step of the published schedule, from -1, the clean image, to 999.
    """
    digit, noise = _digit_and_noise()
    signal_rate = 1.0 if t < 0 else float(PUBLISHED.sqrt_alphas_cumprod[t])
    noise_rate = 0.0 if t < 0 else float(PUBLISHED.sqrt_one_minus_alphas_cumprod[t])
    picture = live.row(
        live.pixels(signal_rate * digit, f"{signal_rate:.3f} × digit", GREY_SCALE),
        live.sign("+"),
        live.pixels(noise_rate * noise, f"{noise_rate:.3f} × noise", GREY_SCALE),
        live.sign("="),
        live.pixels(signal_rate * digit + noise_rate * noise, f"x at t = {t}", GREY_SCALE),
    )
    left = live.gauge(signal_rate, f"the digit's factor: {signal_rate:.3f}")
    caption = f"t = {t}: {signal_rate:.3f} × digit + {noise_rate:.3f} × noise"
    return live.stack(picture, left), caption


@functools.cache
def _digit_and_noise() -> tuple[Array, Array]:
    """The companion digit and noise of its shape, looked up once: a slider must not wait."""
    digit, _ = companion_digit()
    return digit.astype(np.float64), np.random.default_rng(1).standard_normal(digit.shape)


def mean_and_spread(schedule: NoiseSchedule, start: float, walk: Array) -> Figure:
    """Draw walkers that all began at one place, with √ᾱ x_0 ± √(1-ᾱ) over them (Eq. 4).

    Args:
        schedule: the walk's noise schedule.
        start: where they all stood, at t = -1.
        walk: positions, ``(T, walkers)``; row t is where they stand at t.
    """
    figure, axes = plots.new_figure(height=2.8)
    t = np.arange(-1, len(schedule))
    paths = np.vstack([np.full((1, 40), start), walk[:, :40]])
    axes.plot(t, paths, color="#bbbbbb", linewidth=0.4)
    mean = np.append(1.0, schedule.sqrt_alphas_cumprod) * start
    spread = np.append(0.0, schedule.sqrt_one_minus_alphas_cumprod)
    axes.plot(t, mean, color=plots.BLUE)
    for sign in (-1, 1):
        axes.plot(t, mean + sign * spread, "--", color=plots.BLUE)
    end = len(schedule) * 1.01
    _name(axes, end, mean[-1] + spread[-1], "mean + spread")
    _name(axes, end, mean[-1], "mean √ᾱ x₀")
    _name(axes, end, mean[-1] - spread[-1], "mean − spread")
    axes.set_xlabel("t")
    axes.set_ylabel("x")
    return figure


def melting(schedule: NoiseSchedule, start: Array, walk: Array, walkers: int = 5) -> Figure:
    """Draw the one-dimensional world's density over all t, with walkers, between its two ends.

    Args:
        schedule: the walk's noise schedule.
        start: where the walkers stood at t = -1, ``(walkers,)``.
        walk: positions, ``(T, walkers)``; row t is where they stand at t.
        walkers: how many of them to draw on their way.
    """
    figure, axes = plots.new_figure(3, height=3.2, width_ratios=[1, 3.2, 1], sharey=True)
    x = np.linspace(-3, 3, 301)
    last = len(schedule) - 1
    ends = (axes[0], start, 1.0, -1), (axes[2], walk[-1], schedule.alphas_cumprod[-1], last)
    for axis, places, alpha_bar, t in ends:
        bars = {"bins": 100, "range": (-3, 3), "density": True, "color": "#bdbdbd"}
        axis.hist(places, orientation="horizontal", **bars)
        axis.plot(ONE_DIMENSIONAL_WORLD.noised(alpha_bar).pdf(x), x, color=plots.BLUE)
        axis.set_title("clean (t = −1)" if t < 0 else f"t = {t}")
        axis.set_xlabel("density")
        axis.set_xticks([0, 1] if t < 0 else [0, 0.4])
    times = np.unique(np.linspace(-1, last, 251).round().astype(int))
    shares = np.append(schedule.alphas_cumprod, 1.0)[times]  # the last entry is that of t = -1
    density = np.stack([ONE_DIMENSIONAL_WORLD.noised(share).pdf(x) for share in shares], axis=1)
    middle: Axes = axes[1]
    middle.pcolormesh(times, x, density, cmap="Blues", vmin=0, vmax=1, shading="nearest")
    paths = np.vstack([start[None, :walkers], walk[:, :walkers]])
    middle.plot(np.arange(-1, last + 1), paths, color="black", linewidth=0.5)
    middle.set_title(f"darker: denser. Lines: {walkers} walkers")
    middle.set_xlabel("t")
    middle.grid(False)
    axes[0].set_ylabel("x")
    axes[0].set_ylim(-3, 3)
    return figure


def two_clues(x: Array, clue_1: Array, clue_2: Array, x_0: float, x_t: float) -> Figure:
    """Draw where x_{t-1} may be by each of two clues, and by both; mark x_0 and x_t.

    Args:
        x: places, ``(n,)``, rising.
        clue_1: how plausible each place is, given x_0, ``(n,)``.
        clue_2: the same, given x_t.
        x_0: the clean value.
        x_t: the noisy value.
    """
    figure, axes = plots.new_figure(height=3.0)
    curves = (
        (clue_1, "clue 1", plots.BLUE, "--"),
        (clue_2, "clue 2", plots.ORANGE, ":"),
        (clue_1 * clue_2, "product", plots.GREEN, "-"),
    )
    for curve, label, colour, style in curves:
        peak = curve.max()
        axes.plot(x, curve / peak, style, color=colour)
        axes.text(x[curve.argmax()], 1.03, label, color=plots.ink(colour), ha="center")
    above: dict[str, Any] = {"bbox": {"color": "white", "pad": 1, "alpha": 0.7}}
    for place, label, colour in ((x_0, "x₀", plots.BLUE), (x_t, "x_t", plots.ORANGE)):
        axes.plot(place, 0, "^", color=colour, markersize=9, clip_on=False, zorder=3)
        axes.annotate(label, (place, 0), (0, 9), textcoords="offset points", ha="center", **above)
    axes.set_xlim(-2, 2)
    axes.set_ylim(0, 1.15)
    axes.set_xlabel("x one step earlier")
    axes.set_ylabel("plausibility (peak = 1)")
    return figure


def clues_of(x_0: float, x_t: float, t: int) -> tuple[str, str]:
    """Lay out the two clues about x_{t-1} and their product below each other, as HTML.

    Args:
        x_0: the clean value.
        x_t: the noisy value.
        t: a step of the schedule of 20 steps, from 1 on.

    Raises:
        ValueError: at t = 0, where x_{t-1} is x_0 itself.
    """
    if t < 1:
        raise ValueError(f"t = {t}: one step before the first is x_0 itself. Take t from 1 on.")
    x = np.linspace(-2.5, 2.5, 251)
    earlier, beta = COARSE.alphas_cumprod_prev[t], COARSE.betas[t]
    from_x_0 = _log_bell(x, np.sqrt(earlier) * x_0, 1 - earlier)
    from_x_t = _log_bell(np.sqrt(1 - beta) * x, x_t, beta)
    both = from_x_0 + from_x_t  # a product of bells is a sum of their logarithms
    marks = {"x₀": (x_0, 0.0), "x_t": (x_t, 0.0)}
    panels = (
        (from_x_0, "clue 1: it was made from x₀", {"x₀": marks["x₀"]}),
        (from_x_t, "clue 2: x_t was made from it", {"x_t": marks["x_t"]}),
        (both, "clue 1 × clue 2: the posterior", marks),
    )
    parts = [
        live.curves(x, {label: np.exp(log - log.max())}, label, named, (0, 1.05), (480, 104))
        for log, label, named in panels
    ]
    of_x_0, of_x_t = COARSE.posterior_mean_coef1[t], COARSE.posterior_mean_coef2[t]
    mean, spread = of_x_0 * x_0 + of_x_t * x_t, np.sqrt(COARSE.posterior_variance[t])
    caption = (
        f"t = {t}: their product has mean {of_x_0:.2f} × x₀ + {of_x_t:.2f} × x_t = {mean:.2f}, "
        f"spread {spread:.2f}"
    )
    return live.stack(*parts), caption


def four_journeys() -> Figure:
    """Draw four rows of noisy pictures, a to d, of which only three can come from Eq. 4."""
    times = [50, 200, 350, 600, 999]
    rng = np.random.default_rng(2)
    digit, _ = companion_digit()
    fresh = rng.standard_normal((len(times), *digit.shape))
    same = rng.standard_normal(digit.shape)
    kept = PUBLISHED.sqrt_alphas_cumprod[times]
    noise = PUBLISHED.sqrt_one_minus_alphas_cumprod[times]
    black = np.full_like(digit, -1.0)
    rows = (
        [k * digit + n * same for k, n in zip(kept, noise, strict=True)],
        [k * digit + n * own for k, n, own in zip(kept, noise, fresh, strict=True)],
        [k * digit + 0.15 * n * own for k, n, own in zip(kept, noise, fresh, strict=True)],
        [k * black + n * own for k, n, own in zip(kept, noise, fresh[::-1], strict=True)],
    )
    figure, axes = plots.new_figure(len(times), len(rows), width=5.2, height=4.4)
    for row, letter, images in zip(axes, "abcd", rows, strict=True):
        for axis, image, t in zip(row, images, times, strict=True):
            plots.draw_image(axis, image, f"t = {t}" if letter == "a" else "", GREY_SCALE)
        row[0].set_ylabel(letter, rotation=0, labelpad=12, va="center")
    return figure


def _name(axes: Axes, x: float, y: float, words: str) -> None:
    """Write a line's name to the right of its end."""
    axes.annotate(words, (x, y), va="center", annotation_clip=False)


def _log_bell(x: Array, mean: float, variance: float) -> Array:
    """The logarithm of a bell with peak 1: far out the bell itself would be rounded to 0."""
    return -((x - mean) ** 2) / (2 * variance)
