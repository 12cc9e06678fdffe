"""Pictures of chapter 08: what an epoch costs, where float16 ends, and what is lost there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.scaling_up import (
    FLOAT16_MAX,
    FLOAT16_MIN,
    HalfPrecisionAttention,
    half_precision_attention,
    operations_per_epoch,
)

Array = NDArray[Any]

SIDES = (8, 16, 32, 64, 128, 256)


def at_side(parameters: UNetParameters, side: int) -> UNetParameters:
    """The same network for images of another side; attention where a level still has its size."""
    sizes = {side // 2**level for level in range(len(parameters.width_multipliers))}
    kept = tuple(size for size in parameters.attention_sizes if size in sizes)
    return dataclasses.replace(parameters, image_size=side, attention_sizes=kept)


def duration(seconds: float) -> str:
    """A duration as one would say it, in the unit that fits: "12 minutes"."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{0 if seconds >= 9.5 * length else 1}f} {unit}"
    return f"{seconds:.0f} seconds"


def epoch_at_side(
    parameters: UNetParameters, side: int, images: int, speed: float
) -> tuple[Figure, str]:
    """Draw the operations of an epoch against the side of the images, and mark one side.

    Args:
        parameters: the network; its image size does not matter.
        side: the side to mark, in pixels.
        images: how many an epoch has.
        speed: operations a second, for the caption.
    """
    figure, axes = plots.new_figure(height=2.8)
    costs = [operations_per_epoch(at_side(parameters, s), images) for s in SIDES]
    cost = operations_per_epoch(at_side(parameters, side), images)
    axes.plot(SIDES, costs, marker="o")
    axes.plot([side], [cost], "o", color=plots.ORANGE, markersize=13, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(SIDES, [str(s) for s in SIDES])
    axes.set_xlabel("side of the images in pixels")
    axes.set_ylabel("operations an epoch")
    caption = (
        f"side {side}: {cost:.2e} operations an epoch, {duration(cost / speed)} at "
        f"{speed:.1e} operations a second"
    )
    return figure, caption


def shares_of_parts(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw which share each part of a network has, of its weights or its operations, say.

    Args:
        counts: under each title the count of each part, from the first to the last.
    """
    figure, axes = plots.new_figure(len(counts), height=3.0, squeeze=False, sharex=True)
    for axis, (name, parts) in zip(axes[0], counts.items(), strict=True):
        shares = np.array(list(parts.values())) / sum(parts.values())
        axis.barh(list(parts), 100 * shares, color=plots.BLUE)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_title(name)
        axis.set_xlabel("percent of all")
    return figure


def ruler(marks: Mapping[str, float]) -> Figure:
    """Draw numbers on a logarithmic ruler, with the part of it that float16 holds.

    Args:
        marks: numbers above 0, each under the words to write at it.
    """
    figure, axis = plots.new_figure(height=1.9)
    low = min(*marks.values(), FLOAT16_MIN) / 1000
    high = max(*marks.values(), FLOAT16_MAX) * 1000
    axis.axvspan(FLOAT16_MIN, FLOAT16_MAX, color=plots.SKY, alpha=0.35, lw=0)
    axis.text(1, 0.12, "float16", ha="center", va="center", color=plots.BLUE)
    for i, (words, value) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
        axis.plot([value, value], [0, 0.3 + 0.23 * (i % 3)], color=plots.GREY, lw=1)
        side, offset = ("left", 3) if value > 1 else ("right", -3)
        at, moved = (value, 0.3 + 0.23 * (i % 3)), (offset, 0)
        axis.annotate(words, at, moved, textcoords="offset points", ha=side, va="center", size=8)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_ylim(0, 1.05)
    axis.set_yticks([])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    return figure


def weight_map(axis: Axes, weights: Array, title: str) -> None:
    """Draw the weights of one image into axes, a row for each pixel; rows of NaN are orange."""
    colours = colormaps["gray"].with_extremes(bad=plots.ORANGE)
    shown = np.sqrt(np.asarray(weights, dtype=np.float32))  # so that small weights can be seen
    axis.imshow(shown, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)


def weight_maps(attentions: Sequence[HalfPrecisionAttention], titles: Sequence[str]) -> Figure:
    """Draw what each pixel looks at, for the first image of several attentions side by side.

    Args:
        attentions: from ``scaling_up.half_precision_attention``.
        titles: one short text each.
    """
    figure, axes = plots.new_figure(len(attentions), height=2.3, squeeze=False)
    for axis, attention, title in zip(axes[0], attentions, titles, strict=True):
        weight_map(axis, attention.weights[0], title)
    axes[0, 0].set_ylabel("pixel that looks")
    axes[0, 0].set_xlabel("pixel looked at")
    return figure


def attention_at(
    image: Array, brightest: float, normalized: bool = False, scaled: bool = False, seed: int = 1
) -> tuple[Figure, str]:
    """Draw the attention of an untrained float16 network to an image stored in some range.

    Args:
        image: one image in [-1, 1], ``(height, width, channels)``, sides divisible by 8.
        brightest: the number for white; black is 0.
        normalized: whether the network normalizes.
        scaled: whether queries are divided by √C.
        seed: of the network's weights.
    """
    pixels = (np.asarray(image)[None] + 1) / 2 * brightest
    attention = half_precision_attention(pixels, normalized, scaled, seed=seed)
    lost, of = attention.lost, attention.weights.shape[1]
    caption = (
        f"white = {brightest:g}: the largest score is {attention.largest_score:.1e}; "
        f"{lost * of:.0f} of {of} pixels lost to NaN"
    )
    if lost < 1:
        caption += f"; the others give {attention.largest_weight:.0%} to one pixel, on average"
    figure, axes = plots.new_figure(2, width=5.2, height=2.6)
    plots.draw_image(axes[0], np.asarray(image), f"stored as 0 … {brightest:g}")
    weight_map(axes[1], attention.weights[0], "who looks at whom")
    return figure, caption


def gradients(exact: Array, in_float16: Array, loss_scale: float) -> Figure:
    """Draw how large gradients are, as they are and with a scaled loss, on float16's ruler.

    Args:
        exact: gradients in float32, any shape; zeros are left out.
        in_float16: the same as they came out of float16 without scaling; the title says how many
            of them are 0.
        loss_scale: what the loss would be multiplied with.
    """
    sizes = np.abs(exact[exact != 0])
    figure, axis = plots.new_figure(height=2.5)
    axis.axvspan(FLOAT16_MIN, FLOAT16_MAX, color=plots.SKY, alpha=0.35, lw=0)
    axis.text(30, 0.9, "float16", color=plots.BLUE, transform=axis.get_xaxis_transform())
    bins = np.logspace(-13, 5, 73).tolist()
    axis.hist(sizes, bins, color=plots.ORANGE, alpha=0.9, label="as they are")
    words = f"loss times {loss_scale:,.0f}"
    axis.hist(loss_scale * sizes, bins, color=plots.BLUE, alpha=0.7, label=words)
    axis.set_xscale("log")
    axis.set_xlabel("size of the gradient")
    axis.set_ylabel("weights")
    axis.set_title(f"float16 without scaling turns {np.mean(in_float16 == 0):.0%} of them into 0")
    axis.legend(loc="upper left")
    return figure
