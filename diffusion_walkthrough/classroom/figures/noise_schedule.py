"""Pictures of chapter 02: what a schedule leaves of an image, and how evenly it takes it away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import plots
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

#: Those that the page shows without a running kernel.
SHOWN_KINDS = ("linear, raw", "linear, scaled", "cosine")

_STYLES = ("-", "--", ":", "-.")


def ends_against_the_bell(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Draw where the one-dimensional world stands at T, over the bell that drawing starts from.

    Args:
        schedules: title of each picture, and its schedule.
    """
    figure, axes = plots.new_figure(len(schedules), height=2.3, sharey=True, squeeze=False)
    x = np.linspace(-3.5, 3.5, 400)
    for axis, (title, schedule) in zip(axes.flat, schedules.items(), strict=True):
        end = ONE_DIMENSIONAL_WORLD.noised(schedule.alphas_cumprod[-1])
        axis.fill_between(x, STANDARD_NORMAL.pdf(x), color=plots.GREY, alpha=0.3, label="the bell")
        axis.plot(x, end.pdf(x), label="where it ends")
        axis.set_title(title)
        axis.set_xlabel("x")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def noised_companion(alpha_bar: float) -> NDArray[np.float64]:
    """The companion digit with ᾱ = ``alpha_bar``, always with the same noise. Shape (8, 8, 1)."""
    digit, _ = companion_digit()
    noise = np.random.default_rng(6).standard_normal(digit.shape)
    return np.sqrt(alpha_bar) * digit + np.sqrt(1 - alpha_bar) * noise


def last_steps(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Draw the companion digit after the last step of each schedule, all with the same noise."""
    images = [noised_companion(schedule.alphas_cumprod[-1]) for schedule in schedules.values()]
    return plots.image_strip(images, list(schedules), value_range=1.5)


def worth_of_steps(
    left_open: Mapping[str, ArrayLike], recognized: Mapping[str, ArrayLike]
) -> Figure:
    """Draw how much is open in one dimension beside how many digits are recognized.

    Args:
        left_open: for each schedule, the share of x_0 that no guess can know, at places evenly
            spread over the way.
        recognized: likewise, the share of noised digits whose nearest clean one is their like.
    """
    figure, (left, right) = plots.new_figure(2, height=2.8)
    _draw_curves(left, left_open, "share of x₀ left open")
    _draw_curves(right, recognized, "share of digits recognized")
    right.set_ylim(0, 1.05)
    return figure


def two_views(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Draw ᾱ and the log signal-to-noise ratio of some schedules side by side."""
    figure, (left, right) = plots.new_figure(2, height=2.8)
    _draw_curves(left, {name: s.alphas_cumprod for name, s in schedules.items()}, "ᾱ")
    _draw_curves(right, {name: s.log_snr for name, s in schedules.items()}, "log SNR")
    right.axhline(0, color=plots.GREY, linewidth=0.8)
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


def _draw_curves(axes: Axes, curves: Mapping[str, ArrayLike], label: str) -> None:
    for style, (name, curve) in zip(_STYLES, curves.items(), strict=False):
        values = np.asarray(curve)
        share = (np.arange(len(values)) + 1) / len(values)
        axes.plot(share, values, style, label=name)
    axes.set_xlabel("share of the way, (t + 1) / T")
    axes.set_ylabel(label)
    axes.legend(frameon=False)


def small_and_large(alpha_bar: float, noisy: ArrayLike, means: ArrayLike) -> Figure:
    """Draw the noised digit beside an enlarged one and that one's block means.

    Args:
        alpha_bar: ᾱ of all three.
        noisy: the enlarged digit, noised, ``(h, w, 1)``.
        means: its block means, ``(8, 8, 1)``, drawn at the contrast that undoes √ᾱ.
    """
    figure, axes = plots.new_figure(3, height=2.7)
    plots.draw_image(axes[0], noised_companion(alpha_bar), "8 × 8, noised", 1.5)
    plots.draw_image(axes[1], noisy, "64 × 64, noised", 1.5)
    plots.draw_image(axes[2], means, "means of its 8 × 8 blocks", 1.5 * np.sqrt(alpha_bar))
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
    return figure


def schedule_at(kind: str, timesteps: int) -> tuple[Figure, str]:
    """Draw one schedule: its curve, the "signal left" gauge and the digit's last step.

    Args:
        kind: a key of :data:`KINDS`.
        timesteps: T.

    Returns:
        The figure, and a sentence with T, the schedule, the signal left and a verdict on it.
    """
    schedule = schedule_of(kind, timesteps)
    left = schedule.signal_left
    figure, (curve, gauge, last) = plots.new_figure(3, height=2.5, width_ratios=[3, 2, 2])
    share = np.arange(timesteps + 1) / timesteps
    curve.plot(share, np.append(1.0, schedule.sqrt_alphas_cumprod), marker="." * (timesteps <= 50))
    curve.set_ylim(0, 1.02)
    curve.set_xlabel("share of the way, (t + 1) / T")
    curve.set_ylabel("√ᾱ, factor of the digit")
    _draw_gauge(gauge, left)
    plots.draw_image(last, noised_companion(schedule.alphas_cumprod[-1]), "the last step", 1.5)
    caption = f"{kind}, T = {timesteps}: signal left at T {left:.2g}. {_verdict(left)}"
    return figure, caption


def schedule_of(kind: str, timesteps: int) -> NoiseSchedule:
    """The schedule of one of :data:`KINDS` with ``timesteps`` steps."""
    name, scaled = KINDS[kind]
    return NoiseSchedule(make_betas(name, timesteps, scaled=scaled))


def last_steps_grid(steps: Sequence[int]) -> Figure:
    """Draw the digit's last step for each of :data:`SHOWN_KINDS` (rows) at several T (columns)."""
    figure, axes = plots.new_figure(len(steps), len(SHOWN_KINDS), 5.0, 4.2, squeeze=False)
    for row, kind in zip(axes, SHOWN_KINDS, strict=True):
        for axis, timesteps in zip(row, steps, strict=True):
            schedule = schedule_of(kind, timesteps)
            image = noised_companion(schedule.alphas_cumprod[-1])
            plots.draw_image(axis, image, f"T = {timesteps}" * (kind == SHOWN_KINDS[0]), 1.5)
        row[0].set_ylabel(kind)
    return figure


def _draw_gauge(axes: Axes, signal_left: float) -> None:
    """A bar on a logarithmic scale from 1e-5 to 1; below 0.01 is right."""
    good = signal_left <= 0.01
    axes.axhspan(1e-5, 1e-2, color=plots.GREEN, alpha=0.15)
    axes.bar([0], [max(signal_left, 1e-5)], color=plots.GREEN if good else plots.ORANGE, width=0.5)
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 1)
    axes.set_xlim(-0.6, 0.6)
    axes.set_xticks([])
    axes.set_title(f"signal left: {signal_left:.2g}")


def _verdict(signal_left: float) -> str:
    if signal_left <= 0.01:
        return "As good as pure noise."
    if signal_left <= 0.1:
        return "A trace of the digit survives."
    return "The digit survives: this is not noise."
