"""Pictures of chapter 10: marks against the scale, a world where guidance is exact, and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import live, plots

Array = NDArray[np.float64]

# Told apart by colour, dashes and marker, so that one of them is enough.
_LINES: tuple[dict[str, Any], ...] = (
    {"color": plots.BLUE, "linestyle": "-", "marker": "o"},
    {"color": plots.ORANGE, "linestyle": "--", "marker": "s"},
    {"color": "black", "linestyle": "-.", "marker": "^"},
    {"color": plots.PINK, "linestyle": ":", "marker": "D"},
    {"color": plots.GREEN, "linestyle": (0, (5, 1)), "marker": "v"},
)


def marks(
    scales: Sequence[float],
    panels: Mapping[str, Mapping[str, ArrayLike]],
    beside: Mapping[str, float] | None = None,
) -> Figure:
    """Draw marks against the scale of guidance: means, with the range of the seeds as a band.

    Args:
        scales: at which it was measured, rising.
        panels: by title, and by name, values ``(scales, seeds)``; names are shown if several.
        beside: by title, a value to compare with, such as that of real images, as a grey line.
    """
    figure, axes = plots.new_figure(len(panels), height=2.9, squeeze=False)
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for (name, values), line in zip(lines.items(), _LINES, strict=False):
            seeds = np.asarray(values, np.float64).reshape(len(scales), -1)
            axis.plot(scales, seeds.mean(axis=1), label=name, markersize=4, **line)
            band = seeds.min(axis=1), seeds.max(axis=1)
            axis.fill_between(scales, *band, color=line["color"], alpha=0.15, linewidth=0)
        axis.axvline(1, color=plots.GREY, linewidth=0.8, linestyle=":")
        if beside is not None and title in beside:
            axis.axhline(beside[title], color=plots.GREY, linewidth=1.2)
        axis.set_title(title, fontsize=9)
        if len(lines) > 1:
            axis.legend(fontsize=8)
    figure.supxlabel("guidance scale (1 is off)", fontsize=9)
    return figure


def world(
    classes: Mapping[str, Any], x: Array, panels: Mapping[str, tuple[Array, Array]]
) -> Figure:
    """Draw the densities of classes of numbers; and what was drawn, beside what it is held against.

    Args:
        classes: mixtures of Gaussians by name, drawn in the first panel.
        x: places in a row, ``(places,)``.
        panels: by title, drawn numbers ``(n,)``, and a density at x.
    """
    figure, axes = plots.new_figure(1 + len(panels), height=2.7, sharex=True, sharey=True)
    for (name, mixture), line in zip(classes.items(), _LINES, strict=False):
        style = {key: line[key] for key in ("color", "linestyle")}
        axes[0].plot(x, mixture.pdf(x), label=name, **style)
    axes[0].set_title("the classes", fontsize=9)
    axes[0].legend(fontsize=8)
    for axis, (title, (drawn, density)) in zip(axes[1:], panels.items(), strict=True):
        edges = np.linspace(x[0], x[-1], 61)
        axis.hist(drawn, edges, density=True, color=plots.SKY, label="drawn")
        axis.plot(x, density, color="black", linewidth=1.2, label="product")
        axis.set_title(title, fontsize=9)
    axes[-1].legend(fontsize=8)
    for axis in axes:
        axis.set_xlabel("x")
        axis.set_yticks([])
    return figure


def at_scale(drawn: Mapping[str, Mapping[float, Any]], scale: float) -> tuple[str, str]:
    """Lay out what is drawn with a scale of guidance, and say that in both conventions.

    Args:
        drawn: by name, and by scale, images ``(n, height, width, channels)``.
        scale: which.
    """
    rows = []
    for name, by_scale in drawn.items():
        images = by_scale[scale]
        enlarged = max(1, 640 // (len(images) * images.shape[2]))
        picture = plots.tile(images, columns=len(images), scale=enlarged)
        rows.append(live.pixels(picture / 127.5 - 1, name, size=picture.shape[1]))
    known: dict[float, str] = {0: "nothing is said", 1: "told, and guidance is off"}
    where = known.get(scale, "between untold and told" if scale < 1 else "guided")
    return live.stack(
        *rows
    ), f"s = {scale:g}, or w = {scale - 1:g} as Ho and Salimans count: {where}"


def with_holes(images: Any, known: Any, colour: Sequence[float] = (-0.2, 0.1, 0.5)) -> Array:
    """The images in colour, with what is not known painted over: ``(n, height, width, 3)``.

    Args:
        images: ``(n, height, width, 1 or 3)`` in [-1, 1].
        known: true where a pixel is known; broadcasts against the images.
        colour: red, green and blue in [-1, 1], of what is not.
    """
    images = np.asarray(images, np.float64)
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    return np.where(np.broadcast_to(known, images.shape), images, np.asarray(colour))


def from_sketch(sketch: Any, drawn: Mapping[int, Any], t: int, size: int = 88) -> tuple[str, str]:
    """Show a sketch, and beside it what becomes of it from under the noise of step t.

    Args:
        sketch: ``(height, width, channels)`` in [-1, 1].
        drawn: by step, images ``(n, height, width, channels)``.
        t: from which step.
        size: of each picture, in CSS pixels.
    """
    parts = [live.pixels(sketch, "sketch", size=size)]
    parts += [live.pixels(image, f"seed {seed}", size=size) for seed, image in enumerate(drawn[t])]
    return live.row(*parts), f"from step {t}"
