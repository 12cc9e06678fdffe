"""Pictures of chapters 07 (what each mark counts, and makes of images) and 07b (windows)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.evaluation import ball_radii, nearest

Array = NDArray[np.float64]

_COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, "black")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-")
_SHAPES = ("o", "^", "s", "D", "v", "P")


def ways(cloud: Array, moved: Array, shown: int = 60) -> Figure:
    """Draw points in the plane, where they have been moved, and the way of some of them.

    Args:
        cloud: points ``(n, 2)``.
        moved: the same points afterwards, ``(n, 2)``.
        shown: how many of the ways to draw.
    """
    figure, axes = plots.new_figure(width=5.2, height=3.0)
    axes.plot(*cloud[:400].T, "o", color=plots.BLUE, markersize=2.5, label="before")
    axes.plot(*moved[:400].T, "^", color=plots.ORANGE, markersize=2.5, label="after")
    steps = (moved - cloud)[:shown].T
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003, "color": plots.GREY}
    axes.quiver(*cloud[:shown].T, *steps, **arrows)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", markerscale=2)
    return figure


def floor(counts: Sequence[int], floors: Any, others: Mapping[str, tuple[int, Any]]) -> Figure:
    """Draw what real images reach against real ones, over their number, on logarithmic axes.

    Args:
        counts: how many images on each side, ``(counts,)``.
        floors: what came out each time, ``(counts, repeats)``.
        others: by name, other values beside: how many images, and what came out each time.
    """
    figure, axes = plots.new_figure(width=6.2, height=3.0)
    floors = np.asarray(floors)
    axes.plot(counts, floors.mean(axis=1), color=plots.BLUE)
    axes.plot(counts, floors, "o", color=plots.BLUE, markersize=3, alpha=0.6)
    axes.text(counts[0] * 1.15, floors[0].max(), "real against real", color=plots.BLUE)
    for (name, (count, values)), shape in zip(others.items(), _SHAPES[1:], strict=False):
        axes.plot([count] * np.size(values), values, shape, color=plots.ORANGE, markersize=6)
        place = (count, float(np.mean(values)))
        last = count >= max(counts)
        shift, side = ((8, -3), "left") if last else ((-9, -6), "right")
        offset = {"xytext": shift, "textcoords": "offset points", "ha": side}
        axes.annotate(name, place, color=plots.ink(plots.ORANGE), **offset)
    axes.set(xscale="log", yscale="log", xlabel="images on each side", ylabel="Fréchet distance")
    axes.set_xticks(counts, [f"{count}" for count in counts])
    axes.set_yticks(ticks := [0.2, 0.5, 1, 2, 5], [f"{tick:g}" for tick in ticks])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    return figure


def balls(real: Array, drawn: Array, k: int = 3) -> Figure:
    """Draw what recall counts beside what coverage counts, for points in the plane.

    A ball that counts for coverage, one with a drawn point in it, has an edge.

    Args:
        real: points ``(n, 2)``.
        drawn: points ``(m, 2)``.
        k: to which nearest neighbour each ball reaches.
    """
    figure, (left, right) = plots.new_figure(2, height=3.6)
    _draw_balls(left, drawn, k, plots.ORANGE, np.zeros(len(drawn), bool))
    hit = (cdist(real, drawn) <= ball_radii(real, k)[:, np.newaxis]).any(axis=1)
    _draw_balls(right, real, k, plots.BLUE, hit)
    titles = ("recall: balls of the drawn", "coverage: balls of the real")
    for axis, title in zip((left, right), titles, strict=True):
        axis.plot(*real.T, "o", color=plots.BLUE, markersize=5, label="real")
        axis.plot(*drawn.T, "^", color=plots.ORANGE, markersize=7, label="drawn")
        axis.set(title=title, aspect="equal", xticks=[], yticks=[])
        everyone = np.concatenate([real, drawn])
        axis.set_xlim(everyone[:, 0].min() - 0.5, everyone[:, 0].max() + 0.5)
        axis.set_ylim(everyone[:, 1].min() - 0.5, everyone[:, 1].max() + 0.5)
    right.legend(loc="upper right")
    return figure


def _draw_balls(axes: Axes, points: Array, k: int, colour: str, edged: NDArray[np.bool_]) -> None:
    for (x, y), radius, edge in zip(points, ball_radii(points, k), edged, strict=True):
        axes.add_patch(Circle((x, y), radius, facecolor=colour, alpha=0.12, linewidth=0))
        if edge:
            axes.add_patch(Circle((x, y), radius, fill=False, edgecolor="black", linewidth=1.2))


def marks(values: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw each mark of each kind of images: a dot for each time, and a line at their mean.

    Args:
        values: by mark, by kind of images, what came out each time, ``(times,)``.
    """
    figure, axes = plots.new_figure(len(values), height=2.4, sharey=True, squeeze=False)
    for axis, (mark, by_kind) in zip(axes.flat, values.items(), strict=True):
        for row, (each, colour) in enumerate(zip(by_kind.values(), _COLOURS, strict=False)):
            shape = _SHAPES[row]
            axis.plot(each, [row] * np.size(each), shape, color=colour, markersize=5, alpha=0.7)
            axis.plot([np.mean(each)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2)
        axis.set_title(mark, fontsize=9)
        axis.margins(x=0.15)
    names = list(next(iter(values.values())))
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def distances(sets: Mapping[str, Any], high: float | None = None) -> Figure:
    """Draw how the distances to the nearest training image are spread, one outline a set.

    Args:
        sets: by name, distances ``(n,)``.
        high: the longest distance to show; that of the longest one if None.
    """
    figure, axes = plots.new_figure(width=6.2, height=2.6)
    high = max(float(np.max(each)) for each in sets.values()) if high is None else high
    for (name, each), colour, style in zip(sets.items(), _COLOURS, _STYLES, strict=False):
        options = {"histtype": "step", "linewidth": 2, "color": colour, "linestyle": style}
        axes.hist(each, bins=40, range=(0, high), density=True, label=name, **options)
    axes.set(xlabel="distance to the nearest training image", ylabel="density")
    axes.legend()
    return figure


def pairs(drawn: Any, training: Any, ratios: Any) -> Figure:
    """Draw suspicious images, each above the training image that it is nearest to.

    Args:
        drawn: images ``(n, height, width, channels)``.
        training: the nearest training images, of the same shape.
        ratios: how suspicious each is, ``(n,)``; 0 is a copy.
    """
    titles = [f"{ratio:.2f}" for ratio in ratios] + [""] * len(drawn)
    return plots.image_strip([*drawn, *training], titles, rows=2, labels=["drawn", "nearest"])


def shares_apart(drawn: Mapping[str, float], real: Sequence[Mapping[str, float]]) -> Figure:
    """Draw how far the shares of each attribute are off, above how far those of real images are.

    Args:
        drawn: by attribute, how far the drawn images are off, from 0 to 1.
        real: the same for several sets of real images, the floor.
    """
    figure, axes = plots.new_figure(height=0.24 * len(drawn) + 0.8)
    floors = np.array([[each[name] for name in drawn] for each in real])
    places, lengths = np.arange(len(drawn)), np.array([*drawn.values()])
    low, high = floors.min(axis=0), floors.max(axis=0)
    label, beyond = f"{len(floors)} sets of real ones", lengths > high
    axes.barh(places, high - low, left=low, height=0.5, color=plots.SKY, alpha=0.6, label=label)
    axes.barh(places, lengths, height=0.16, color=plots.ORANGE, label="drawn")
    options = {"color": plots.ORANGE, "markeredgecolor": "black", "label": "drawn: beyond them"}
    axes.plot(lengths[beyond], places[beyond], "D", **options)
    axes.set_yticks(places, [name.replace("_", " ") for name in drawn])
    axes.set(xlabel="how far the shares are apart", xlim=(0, None))
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[1:] + handles[:1], labels[1:] + labels[:1], loc="center left",
                bbox_to_anchor=(1.02, 0.5))  # fmt: skip
    return figure


def windows(times: Sequence[int], errors: Mapping[str, Any]) -> Figure:
    """Draw how far each window's guess is from the network's, over the step t.

    Args:
        times: the steps, ``(times,)``.
        errors: by window, mean squared distances ``(times,)``.
    """
    figure, axes = plots.new_figure(height=2.9)
    for (name, line), colour, style in zip(errors.items(), _COLOURS, _STYLES, strict=False):
        axes.plot(times, line, linestyle=style, color=colour, marker="o", markersize=3, label=name)
    axes.set(yscale="log", xlabel="t", ylabel="distance from the network's guess")
    axes.legend(title="window", loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def one_noise(by_window: Mapping[str, Any], network: Any, training: Any, window: str) -> Any:
    """Lay out what a window draws above what the network draws from the same noise.

    Args:
        by_window: by its name, the images ``(n, height, width, 1)`` that each window draws.
        network: those of the network, ``(n, height, width, 1)``.
        training: the images that they are made of.
        window: which to show.

    Returns:
        HTML, and a sentence: how alike they are, and how far from the training images.
    """
    drawn = by_window[window]
    far = nearest(drawn, training)[1].mean()
    caption = f"{window}: correlation with the network's pictures {alike(drawn, network):.2f}; "
    caption += f"{far:.1f} from the nearest training digit"
    rows = [
        live.pixels(plots.tile(images, columns=len(images)) / 127.5 - 1, name, 1, 50 * len(images))
        for images, name in ((drawn, f"drawn through {window}"), (network, "drawn by the network"))
    ]
    return live.stack(*rows), caption


def alike(images: Any, others: Any) -> float:
    """The mean correlation, pixel by pixel, of each image with its counterpart.

    Args:
        images: ``(n, ...)``, none of them of a single grey.
        others: of the same shape.
    """
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (images, others))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, axis=1) / lengths))


def rows(images: Mapping[str, Any]) -> Figure:
    """Draw images in rows under each other, each row under its name.

    Args:
        images: by name, ``(n, height, width, 1 or 3)``.
    """
    tiles = [plots.tile(row, columns=len(row), scale=6) for row in images.values()]
    side = 7.5 * tiles[0].shape[0] / tiles[0].shape[1]
    height = len(tiles) * (side + 0.3)
    figure, axes = plots.new_figure(rows=len(tiles), height=height, squeeze=False)
    for axis, (name, tile) in zip(axes.flat, zip(images, tiles, strict=True), strict=True):
        axis.imshow(tile, interpolation="nearest")
        axis.set_title(name, loc="left", fontsize=9)
        axis.set_axis_off()
    return figure
