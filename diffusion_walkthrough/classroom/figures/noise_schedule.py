"""Pictures of chapter 02: what a schedule leaves of an image, and how evenly it takes it away."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD, STANDARD_NORMAL
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

Array = NDArray[np.float64]

#: What the reader can choose, as arguments of :func:`make_betas`.
KINDS: dict[str, tuple[str, bool]] = {
    "linear, raw": ("linear", False),
    "linear, scaled": ("linear", True),
    "cosine": ("cosine", True),
    "sigmoid": ("sigmoid", True),
    "quad": ("quad", True),
    "warmup50": ("warmup50", True),
    "warmup10": ("warmup10", True),
    "const": ("const", True),
    "jsd": ("jsd", True),
}

#: The numbers of steps that the reader can choose, and that the gallery shows side by side.
STEPS = (2, 5, 10, 20, 50, 100, 200, 300, 500, 1000)

#: ᾱ at the places of each strip of the exercise; the image comes back in b.
STRIPS = {
    "a": (1.0, 0.02, 0.003, 0.001, 0.0),
    "b": (1.0, 0.6, 0.02, 0.75, 0.0),
    "c": (1.0, 0.97, 0.9, 0.8, 0.7),
    "d": (1.0, 0.85, 0.5, 0.15, 0.0),
}

_STYLES = ("-", "--", ":", "-.")
_COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK)


def noised_companion(alpha_bar: float) -> Array:
    """The companion digit with ᾱ = ``alpha_bar``, always with the same noise. Shape (8, 8, 1)."""
    digit, noise = _digit_and_noise()
    return np.sqrt(alpha_bar) * digit + np.sqrt(1 - alpha_bar) * noise


@functools.cache
def _digit_and_noise() -> tuple[Array, Array]:
    digit, _ = companion_digit()
    return digit.astype(np.float64), np.random.default_rng(18).standard_normal(digit.shape)


def schedule_of(kind: str, timesteps: int) -> NoiseSchedule:
    """The schedule of one of :data:`KINDS` with ``timesteps`` steps."""
    name, scaled = KINDS[kind]
    return NoiseSchedule(make_betas(name, timesteps, scaled=scaled))


def ends(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Draw where each schedule ends: the digit, and the one-dimensional world over the bell.

    Args:
        schedules: title of each column, and its schedule.
    """
    figure, axes = plots.new_figure(len(schedules), 2, height=3.9, squeeze=False)
    x = np.linspace(-3.2, 3.2, 400)
    for (above, below), (title, schedule) in zip(axes.T, schedules.items(), strict=True):
        alpha_bar = float(schedule.alphas_cumprod[-1])
        plots.draw_image(above, noised_companion(alpha_bar), title, 1.5)
        plots.draw_gauge(above, schedule.signal_left)
        end = ONE_DIMENSIONAL_WORLD.noised(alpha_bar)
        below.fill_between(x, STANDARD_NORMAL.pdf(x), color=plots.GREY, alpha=0.3, linewidth=0)
        below.plot(x, end.pdf(x), color=plots.BLUE)
        below.set_ylim(0, 0.82)
        below.set_xlabel("x")
    axes[1, -1].text(0.75, 0.62, "the end\nof the data", color=plots.BLUE, fontsize=8)
    axes[1, -1].text(1.5, 0.18, "the bell", color=plots.GREY, fontsize=8)
    axes[1, 0].set_ylabel("density")
    return figure


def along_the_way(schedules: Mapping[str, NoiseSchedule], columns: int = 7) -> Figure:
    """Draw the digit at evenly spread places of the way, a row for each schedule.

    The first column is the clean digit, the last one stands at T; all have the same noise.
    """
    figure, axes = plots.new_figure(columns, len(schedules), 7.5, 3.3, squeeze=False)
    figure.suptitle("share of the way; under each picture √ᾱ", fontsize=10)
    places = np.linspace(0, 1, columns)
    for place, axis in zip(places, axes[0], strict=True):
        axis.set_title(f"{place:.2f}")
    for row, (name, schedule) in zip(axes, schedules.items(), strict=True):
        alpha_bars = np.append(1.0, schedule.alphas_cumprod)
        for axis, place in zip(row, places, strict=True):
            alpha_bar = float(alpha_bars[round(place * len(schedule))])
            plots.draw_image(axis, noised_companion(alpha_bar), axis.get_title(), 1.5)
            plots.draw_gauge(axis, float(np.sqrt(alpha_bar)))
        row[0].set_ylabel(name)
    return figure


def spread_of_the_work(
    schedules: Mapping[str, NoiseSchedule], recognized: Mapping[str, ArrayLike]
) -> Figure:
    """Draw ᾱ of some schedules beside the share of digits that are recognized.

    Args:
        schedules: by name.
        recognized: for each of them, the share of noised digits whose nearest clean one is their
            like, at places evenly spread over the way.
    """
    figure, (left, right) = plots.new_figure(2, height=2.8)
    _draw_curves(left, {name: s.alphas_cumprod for name, s in schedules.items()}, "ᾱ")
    _draw_curves(right, recognized, "share of digits recognized")
    right.axhline(0.1, color=plots.GREY, linewidth=1, linestyle=":")
    right.text(0, 0.03, "blind guessing", fontsize=8, color=plots.GREY)
    for axis in (left, right):
        axis.set_ylim(0, 1.05)
    return figure


def strips() -> Figure:
    """Draw the four strips of the exercise, one of which no schedule can make."""
    figure, axes = plots.new_figure(5, len(STRIPS), 5.2, 4.4, squeeze=False)
    titles = ("clean", "¼", "½", "¾", "the end")
    for row, (letter, alpha_bars) in zip(axes, STRIPS.items(), strict=True):
        for axis, alpha_bar, title in zip(row, alpha_bars, titles, strict=True):
            plots.draw_image(axis, noised_companion(alpha_bar), title * (letter == "a"), 1.5)
        row[0].set_ylabel(letter, rotation=0, labelpad=12, fontsize=12)
    return figure


# -- the explorer --------------------------------------------------------------------------------


def schedule_at(kind: str, timesteps: int) -> tuple[str, str]:
    """Draw one schedule: its curve, the gauge, the digit's last step, and that of other T.

    Args:
        kind: a key of :data:`KINDS`.
        timesteps: T.

    Returns:
        HTML, and a sentence with T, the schedule, the signal left and a verdict on it.
    """
    schedule = schedule_of(kind, timesteps)
    left = schedule.signal_left
    places = np.unique(np.linspace(0, timesteps, 101).round().astype(int))
    way = np.append(1.0, schedule.sqrt_alphas_cumprod)[places]
    image = noised_companion(float(schedule.alphas_cumprod[-1]))
    picture = live.stack(
        live.row(
            live.curves(
                places / timesteps,
                {"√ᾱ": way},
                "√ᾱ along the way, from 0 (clean) to 1 (the last step)",
                marks={"": (1.0, left)},
                limits=(0.0, 1.0),
            ),
            live.pixels(image, "the last step", 1.5, size=140),
        ),
        live.gauge(left, f"signal left: {_number(left)}"),
        live.row(*(_last_step(kind, steps, steps == timesteps) for steps in STEPS)),
    )
    return picture, f"{kind}, T = {timesteps}: signal left {_number(left)}. {_verdict(left)}"


@functools.cache
def _last_step(kind: str, timesteps: int, chosen: bool) -> str:
    """A small last step for the gallery; the chosen one is pointed at."""
    image = noised_companion(float(schedule_of(kind, timesteps).alphas_cumprod[-1]))
    return live.pixels(image, f"{'▸ ' * chosen}T={timesteps}", 1.5, size=68)


def _number(signal_left: float) -> str:
    return f"{signal_left:.2g}" if signal_left >= 1e-4 or signal_left == 0 else "below 0.0001"


def _verdict(signal_left: float) -> str:
    if signal_left <= 0.01:
        return "As good as pure noise."
    if signal_left <= 0.1:
        return "A trace of the digit survives."
    return "The digit survives: this is not noise."


# -- page 02b ------------------------------------------------------------------------------------


def steps_on_the_ruler(
    log_snr: ArrayLike, left_open: ArrayLike, schedules: Mapping[str, NoiseSchedule]
) -> Figure:
    """Draw what no guess can know over log SNR, and below it where schedules put their steps.

    Args:
        log_snr: places on the ruler.
        left_open: there, the share of the variance of x_0 that the best guess leaves open.
        schedules: by name; one tick for every twentieth step.
    """
    figure, (above, below) = plots.new_figure(1, 2, height=3.4, sharex=True, height_ratios=[3, 1])
    above.plot(log_snr, left_open, color=plots.BLUE)
    above.set_ylabel("share left open")
    above.set_ylim(0, 1.03)
    for height, (name, schedule), colour in zip((1, 0), schedules.items(), _COLOURS, strict=False):
        ticks = schedule.log_snr[::20]
        below.plot(ticks, np.full(len(ticks), height), "|", markersize=13, color=colour)
        below.text(13.6, height, name, color=plots.ink(colour), va="center")
    below.set_ylim(-0.7, 1.7)
    below.set_xlim(14, -14)
    below.set_yticks([])
    below.grid(False)
    below.set_xlabel("log SNR: image on the left, noise on the right; a tick is every 20th step")
    return figure


def family(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Draw ᾱ of each schedule in a panel of its own, with the others in grey behind it.

    Args:
        schedules: at most eight, by name; the title adds each one's "signal left".
    """
    figure, axes = plots.new_figure(4, 2, height=3.8, sharex=True, sharey=True)
    curves = {name: np.append(1.0, s.alphas_cumprod) for name, s in schedules.items()}
    for axis, (name, schedule) in zip(axes.flat, schedules.items(), strict=False):
        for curve in curves.values():
            axis.plot(np.linspace(0, 1, len(curve)), curve, color="#cccccc", linewidth=0.8)
        axis.plot(np.linspace(0, 1, len(curves[name])), curves[name], color=plots.BLUE)
        axis.set_title(f"{name}\nsignal left {schedule.signal_left:.2g}")
        axis.set_xticks([0, 0.5, 1])
    for axis in axes[:, 0]:
        axis.set_ylabel("ᾱ")
    for axis in axes[-1]:
        axis.set_xlabel("share of the way")
    return figure


def small_and_large(alpha_bar: float, noisy: ArrayLike, means: ArrayLike) -> Figure:
    """Draw the noised digit beside an enlarged one and that one's block means.

    Args:
        alpha_bar: ᾱ of all three.
        noisy: the enlarged digit, noised, ``(h, w, 1)``.
        means: its block means, ``(8, 8, 1)``, drawn at the contrast that undoes √ᾱ.
    """
    figure, axes = plots.new_figure(3, height=2.85)
    plots.draw_image(axes[0], noised_companion(alpha_bar), "8 × 8, noised", 1.5)
    plots.draw_image(axes[1], noisy, "64 × 64, noised", 1.5)
    plots.draw_image(axes[2], means, "means of its 8 × 8 blocks", 1.5 * np.sqrt(alpha_bar))
    return figure


def shares_of_heaps(shares: Mapping[str, ArrayLike]) -> Figure:
    """Draw which share of some numbers lies in the left, the middle and the right heap.

    Args:
        shares: for each kind of numbers, at most three kinds, its three shares.
    """
    figure, axis = plots.new_figure(width=6.0, height=2.7)
    looks = ("#bbbbbb", ""), (plots.BLUE, ""), (plots.ORANGE, "//")
    for i, ((name, values), (colour, hatch)) in enumerate(zip(shares.items(), looks, strict=False)):
        heights = np.asarray(values)
        bars = axis.bar(np.arange(3) + 0.27 * (i - 1), heights, 0.25, color=colour, label=name)
        for bar in bars:
            bar.set(hatch=hatch, edgecolor="white", linewidth=0)
        axis.bar_label(bars, [f"{height:.2f}" for height in heights], fontsize=8, padding=1)
    axis.set_xticks(range(3), ["left heap", "middle heap", "right heap"])
    axis.grid(visible=False, axis="x")
    axis.set_ylabel("share of the walkers")
    axis.set_ylim(0, 0.57)
    axis.legend(frameon=False)
    return figure


def posterior_tables(schedule: NoiseSchedule, steps: int) -> Figure:
    """Draw β̃ beside β, and the two weights of Eq. 7, over the first ``steps`` steps."""
    figure, (left, right) = plots.new_figure(2, height=2.6)
    t = np.arange(steps)
    left.plot(t, schedule.betas[:steps], "--", label="β", color=plots.ORANGE)
    left.plot(t, schedule.posterior_variance[:steps], label="β̃", color=plots.BLUE)
    left.set_ylim(bottom=0)
    right.plot(t, schedule.posterior_mean_coef1[:steps], label="coef1, weight of x₀")
    right.plot(t, schedule.posterior_mean_coef2[:steps], "--", label="coef2, weight of x_t")
    for axis in (left, right):
        axis.set_xlabel("t")
        axis.legend(frameon=False)
    left.set_ylabel("variance")
    right.set_ylabel("weight in Eq. 7")
    return figure


# -- parts ---------------------------------------------------------------------------------------


def _draw_curves(axes: Axes, curves: Mapping[str, ArrayLike], label: str) -> None:
    """Draw curves over the share of the way, each with its name where it has fallen to a half."""
    for style, colour, (name, curve) in zip(_STYLES, _COLOURS, curves.items(), strict=False):
        values = np.asarray(curve)
        share = (np.arange(len(values)) + 1) / len(values)
        axes.plot(share, values, style, color=colour)
        half = int(np.argmax(values < 0.55))
        axes.text(share[half] + 0.03, values[half] + 0.03, name, color=plots.ink(colour))
    axes.set_xlabel("share of the way")
    axes.set_ylabel(label)
