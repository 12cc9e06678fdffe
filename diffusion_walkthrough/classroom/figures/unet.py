"""Pictures of chapter 03: the curve a network must imitate, its blocks, the U, and the 3 in it."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.data import from_uint8
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.planner.counting import count_parameters, parameters_by_part
from diffusion_walkthrough.predictions import predict_x_start_from_noise

Array = NDArray[Any]

_STYLES = ("-", "--", ":", "-.")

_COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK)


def perfect_guesses(schedule: NoiseSchedule, times: Sequence[int]) -> Figure:
    """Draw the best guess of the noise in the one-dimensional world, a curve for each step.

    Args:
        schedule: the noise schedule.
        times: the steps t to draw, each in 0 … T-1; at most four.
    """
    figure, axes = plots.new_figure(height=2.8)
    x = np.linspace(-2, 2, 801)
    for t, style, colour in zip(times, _STYLES, _COLOURS, strict=False):
        guess = ONE_DIMENSIONAL_WORLD.expected_noise(x, schedule.alphas_cumprod[t])
        axes.plot(x, guess, style, color=colour, label=f"t = {t}")
        end = np.flatnonzero(np.abs(guess) <= 3)[-1]
        axes.text(x[end] + 0.05, guess[end] - 0.25, f"t = {t}", color=plots.ink(colour))
    axes.axvline(0.5, color=plots.GREY, linewidth=1)
    axes.set_xlabel("noisy value x_t")
    axes.set_ylabel("best guess of the noise")
    axes.set_ylim(-3, 3.3)
    return figure


def waves(embedding: Array, reference: int) -> Figure:
    """Draw the timestep embedding as a map, and how far each step is from one of them.

    Args:
        embedding: ``(steps, width)``, sines in the left half and cosines in the right.
        reference: the step that the others are compared with.
    """
    figure, axes = plots.new_figure(2, height=2.9)
    picture = axes[0].imshow(
        embedding.T, aspect="auto", cmap="cividis", vmin=-1, vmax=1, interpolation="nearest"
    )
    figure.colorbar(picture, ax=axes[0], label="value")
    axes[0].set_xlabel("step t")
    axes[0].set_ylabel("number in the embedding")
    axes[0].grid(False)
    axes[1].plot(np.linalg.norm(embedding - embedding[reference], axis=1))
    axes[1].axvline(reference, color=plots.ORANGE, linestyle="--")
    axes[1].set_xlabel("step t")
    axes[1].set_ylabel(f"distance from t = {reference}")
    return figure


def residual_diagram() -> Figure:
    """Draw the residual block from left to right, and its bend, the SiLU function."""
    figure, (block, bend) = plots.new_figure(2, height=2.1, width_ratios=[3.6, 1])
    _draw_residual_block(block)
    x = np.linspace(-6, 4, 201)
    bend.plot(x, x / (1 + np.exp(-x)))
    bend.set_title("the bend, SiLU")
    bend.set_xlabel("in")
    bend.set_ylabel("out")
    return figure


def _draw_residual_block(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_xlim(-0.4, 9.6)
    axes.set_ylim(-1.5, 1.35)
    steps = ["normalize", "bend", "convolve", "+", "normalize", "bend", "convolve", "+"]
    places = [1.1, 2.3, 3.4, 4.35, 5.35, 6.55, 7.65, 8.6]
    for x, step in zip(places, steps, strict=True):
        if step == "+":
            axes.text(x, 0, "+", ha="center", va="center", fontsize=12, weight="bold")
        else:
            _draw_box(axes, x, 0, 1.05 if step == "normalize" else 0.95, step)
    halves = [0.2 if s == "+" else 0.53 if s == "normalize" else 0.48 for s in steps]
    ends = [-0.1, *(x + half for x, half in zip(places, halves, strict=True))]
    for end, x, half in zip(ends, places, halves, strict=False):
        _arrow(axes, (end, 0), (x - half, 0))
    _arrow(axes, (8.8, 0), (9.3, 0))
    axes.text(-0.15, 0, "x", ha="right", va="center")
    axes.text(9.35, 0, "out", va="center", fontsize=8)
    axes.plot([0.25, 0.25, 8.6], [0, 0.95, 0.95], color=plots.ORANGE)
    properties = {"arrowstyle": "->", "color": plots.ORANGE, "lw": 2}
    axes.annotate("", (8.6, 0.2), (8.6, 0.97), arrowprops=properties)
    axes.text(4.35, 1.05, "shortcut: x itself", ha="center", fontsize=8)
    _arrow(axes, (4.35, -0.95), (4.35, -0.2))
    axes.text(4.35, -1.3, "time: one number for each channel", ha="center", fontsize=8)


def looks(image: Array, weights: Array, chosen: Sequence[tuple[int, int]]) -> Figure:
    """Draw where some pixels of a coarse level look: each over its picture of attention.

    Args:
        image: ``(height, width, 1)`` in [-1, 1] or noisy.
        weights: ``(pixels, pixels)`` of a square level; row i is what pixel i looks at.
        chosen: rows and columns of pixels of that level.
    """
    side = math.isqrt(len(weights))
    figure, axes = plots.new_figure(len(chosen), 2, height=3.3, squeeze=False)
    for (row, column), above, below in zip(chosen, axes[0], axes[1], strict=True):
        plots.draw_image(above, image, f"pixel ({row}, {column})", value_range=1.5)
        scale = image.shape[0] / side
        corner = (column * scale - 0.5, row * scale - 0.5)
        _mark_square(above, *corner, scale)
        _draw_attention(below, weights[row * side + column].reshape(side, side))
        _mark_square(below, column - 0.5, row - 0.5, 1)
    axes[1, 0].set_ylabel("% of its look", fontsize=8)
    return figure


def _mark_square(axes: Axes, x: float, y: float, side: float) -> None:
    """Draw a light frame with a black rim, to be seen on any grey."""
    rim = [withStroke(linewidth=5, foreground="black")]
    axes.add_patch(Rectangle((x, y), side, side, fill=False, ec="white", lw=2.5, path_effects=rim))


def _draw_attention(axes: Axes, weights: Array) -> None:
    """Draw a square of weights, the larger the darker, with their percentages."""
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=max(0.25, weights.max()))
    for (row, column), weight in np.ndenumerate(weights):
        colour = "white" if weight > 0.72 * max(0.25, weights.max()) else "black"
        axes.text(
            column, row, f"{100 * weight:.0f}", ha="center", va="center", fontsize=8, color=colour
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def where_it_looks(image: Array, weights: Array, row: int, column: int) -> tuple[str, str]:
    """Show, as HTML, where one pixel of a coarse level looks, and say it.

    Args:
        image: ``(height, width, 1)``, what the network saw.
        weights: ``(pixels, pixels)`` of a square level; row i is what pixel i looks at.
        row: of the pixel, from 0 at the top.
        column: from 0 at the left.
    """
    side = math.isqrt(len(weights))
    one = weights[row * side + column].reshape(side, side)
    enlarged = 12 * image.shape[0] // side  # of each pixel of the level, in both pictures
    seen = _in_colour(image[..., 0] / 1.5, 12)
    looked = _in_colour(2 * one / max(0.25, one.max()) - 1, enlarged)
    for picture in (seen, looked):
        _frame(picture, row * enlarged, column * enlarged, enlarged)
    there = tuple(int(i) for i in np.unravel_index(one.argmax(), one.shape))
    place = "itself" if there == (row, column) else f"pixel {there}"
    caption = (
        f"Pixel ({row}, {column}) gives {place} the largest share of its look, {one.max():.0%}; "
        f"spread evenly, each would get {1 / one.size:.0%}."
    )
    pictures = [
        live.pixels(seen, "what the network sees; your pixel framed", size=190),
        live.pixels(looked, "where it looks: the lighter, the more", size=190),
    ]
    return live.row(*pictures), caption


def _in_colour(grey: Array, enlarged: int) -> Array:
    """Grey values in [-1, 1], ``(height, width)``, as enlarged pixels ``(…, …, 3)``."""
    pixels = np.clip(grey, -1, 1).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    return np.repeat(pixels[..., None], 3, axis=-1)


def _frame(picture: Array, top: int, left: int, side: int) -> None:
    """Paint a white frame with black rims into a picture, ``(height, width, 3)`` in [-1, 1]."""
    inside = picture[top : top + side, left : left + side]
    content = inside[4:-4, 4:-4].copy()
    inside[...] = -1.0
    inside[1:-1, 1:-1] = 1.0
    inside[3:-3, 3:-3] = -1.0
    inside[4:-4, 4:-4] = content


def influence(maps: Sequence[Array], titles: Sequence[str]) -> Figure:
    """Draw which pixels of a result change when one pixel of the input does.

    Args:
        maps: for each network the size of the change, ``(height, width)``.
        titles: a name for each.
    """
    figure, axes = plots.new_figure(len(maps), height=2.2)
    for axis, change, title in zip(axes, maps, titles, strict=True):
        felt = np.where(change > 0, 1.0, -1.0)
        plots.draw_image(axis, felt, f"{title}\n{np.count_nonzero(change)} pixels")
    return figure


def attention_bars(scaled: Array, unscaled: Array) -> Figure:
    """Draw how one pixel spreads its attention, with the scores divided by √C and without.

    Args:
        scaled: weights of one pixel over all pixels, with 1/√C.
        unscaled: the same without.
    """
    figure, axes = plots.new_figure(2, height=2.2, sharey=True)
    for axis, weights, title in zip(
        axes, (scaled, unscaled), ("scores divided by √C", "not divided"), strict=True
    ):
        axis.bar(np.arange(len(weights)), weights, color=plots.BLUE)
        axis.set_title(f"{title}: largest weight {weights.max():.2f}")
        axis.set_xlabel("pixel looked at")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("weight")
    return figure


def parts(parameters: UNetParameters) -> Figure:
    """Draw how many parameters each part of a UNet has, as bars in millions."""
    counts = parameters_by_part(parameters)
    figure, axes = plots.new_figure(height=0.24 * len(counts) + 0.7)
    names = list(counts)
    values = np.array([counts[name] for name in names]) / 1e6
    bars = axes.barh(names, values, color=[_part_colour(name) for name in names])
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)
    axes.set_xlabel("millions of parameters")
    return figure


def _part_colour(name: str) -> str:
    direction = name.split()[0]
    return {"down": plots.BLUE, "middle": plots.ORANGE, "up": plots.GREEN}.get(
        direction, plots.GREY
    )


class _Row(NamedTuple):
    """A result that is kept on the way down, and the block on the way up that receives it."""

    name: str  # of the kept result, as its layers' names begin
    words: str
    level: int
    side: int
    width: int
    up_name: str
    up_width: int
    attention: bool


def _rows(parameters: UNetParameters) -> list[_Row]:
    """All results that are kept, in the order in which an image meets them."""
    rows: list[_Row] = []
    last_width = parameters.base_width
    for level, (side, width) in enumerate(
        zip(parameters.level_sizes, parameters.level_widths, strict=True)
    ):
        attention = side in parameters.attention_sizes
        count, kind = parameters.residual_blocks, "attention" if attention else "residual"
        for i in range(count + 1):
            name = f"down-{level}-{kind}-{i - 1}"
            words = "block, attention" if attention else "block"
            if i == 0:
                name = "first" if level == 0 else f"down-{level - 1}-downsample"
                words = "first" if level == 0 else "halved"
            up_name = f"up-{level}-{kind}-{count - i}"
            rows.append(
                _Row(
                    name, words, level, side, width if i else last_width, up_name, width, attention
                )
            )
        last_width = width
    return rows


def _height(row: int, level: int) -> float:
    """Where a row stands: levels are a little apart."""
    return -row - 0.45 * level


def _bands(axes: Axes, parameters: UNetParameters, reach: float) -> None:
    """Draw the background of each level, and its side; the middle belongs to the last one."""
    per_level = parameters.residual_blocks + 1
    for level, side in enumerate(parameters.level_sizes):
        top = _height(level * per_level, level) + 0.5
        rows = per_level + (level == len(parameters.level_sizes) - 1)
        style: dict[str, Any] = {"facecolor": "#f2f2f2" if level % 2 else "#fafafa", "zorder": -2}
        axes.add_patch(Rectangle((-reach, top - rows), 2 * reach, rows, lw=0, **style))
        axes.text(-reach + 0.08, top - 0.08, f"side {side}", va="top", fontsize=8, weight="bold")


def diagram(parameters: UNetParameters) -> Figure:
    """Draw the U: every result that is kept on the way down, and the block that receives it.

    A box is the wider the more channels it has; hatched boxes have attention.
    """
    rows = _rows(parameters)
    figure, axes = plots.new_figure(height=0.47 * (len(rows) + 1) + 1.0)
    axes.set_axis_off()
    axes.set_xlim(-5.2, 5.2)
    _bands(axes, parameters, 5.2)
    heights = [_height(i, row.level) for i, row in enumerate(rows)]
    for y, row in zip(heights, rows, strict=True):
        _draw_row(axes, parameters, row, y)
    for above, below in itertools.pairwise(heights):
        _arrow(axes, (-2.9, above - 0.32), (-2.9, below + 0.32))
        words = "doubled" if above - below > 1.2 else ""
        _arrow(axes, (2.9, below + 0.32), (2.9, above - 0.32), words)
    bottom, last = heights[-1] - 1, rows[-1]
    words = f"middle: block, attention, block · {last.side}×{last.side}×{last.width}"
    _draw_box(axes, 0, bottom, 4.2, words, True)
    _arrow(axes, (-2.9, heights[-1] - 0.32), (-2.15, bottom))
    _arrow(axes, (2.15, bottom), (2.9, heights[-1] - 0.32))
    shape = f"{parameters.image_size}×{parameters.image_size}×{parameters.channels}"
    _arrow(axes, (-2.9, 0.95), (-2.9, 0.32), f"x_t {shape}")
    _arrow(axes, (2.9, 0.32), (2.9, 0.95), f"noise {shape}")
    axes.text(0, 0.72, "time t goes into every block", ha="center", fontsize=8)
    axes.set_ylim(bottom - 1.0, 1.05)
    kinds = [Patch(facecolor="#d5e8f5", edgecolor=plots.BLUE, label="without attention")]
    kinds.append(_hatched(label="with attention"))
    axes.legend(handles=kinds, loc="lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _draw_row(axes: Axes, parameters: UNetParameters, row: _Row, y: float) -> None:
    """Draw a kept result on the left, the block that receives it on the right, and the skip."""
    widest = max(parameters.level_widths)
    left, right = (1.8 + 1.3 * width / widest for width in (row.width, row.up_width))
    kept_with_attention = row.attention and row.words.startswith("block")
    shape = f"{row.side}×{row.side}×"
    _draw_box(axes, -2.9, y, left, f"{row.words} · {shape}{row.width}", kept_with_attention)
    words = "block, attention" if row.attention else "block"
    _draw_box(axes, 2.9, y, right, f"{words} · {shape}{row.up_width}", row.attention)
    _arrow(axes, (-2.9 + left / 2, y), (2.9 - right / 2, y), style="--")


def travel(
    network: keras.Model,
    parameters: UNetParameters,
    x_t: Array,
    t: int,
    noise: Array,
    maps: int = 6,
) -> Figure:
    """Draw what an image has become at each result of a network, in the places of the diagram.

    Of each result those channels that vary most are shown, each on a grey scale of its own.

    Args:
        network: of ``build_unet``.
        parameters: its sizes.
        x_t: one noisy image, ``(height, width, channels)``.
        t: its step.
        noise: what was really added, of the same shape.
        maps: how many channels of each result.
    """
    rows = _rows(parameters)
    names = [row.name for row in rows] + [row.up_name for row in rows] + ["middle-residual-1"]
    results = results_of(network, names, x_t, t)
    figure, axes = plots.new_figure(height=0.82 * (len(rows) + 2.2))
    axes.set_axis_off()
    axes.grid(False)
    _bands(axes, parameters, 5.2)
    for i, row in enumerate(rows):
        y = _height(i, row.level)
        _draw_maps(axes, results[row.name], -2.75, y, row.name, maps)
        _draw_maps(axes, results[row.up_name], 2.75, y, row.up_name, maps)
        _arrow(axes, (-0.55, y), (0.55, y), style="--")
    bottom = _height(len(rows), rows[-1].level)
    _draw_maps(axes, results["middle-residual-1"], 0, bottom, "middle-residual-1", maps)
    answer = ops.convert_to_numpy(network([x_t[None], np.array([t], "float32")]))[0]
    shown = {"x_t": x_t, "the noise that was added": noise, "last-conv: its guess": answer}
    for x, (name, image) in zip((-2.75, 0.0, 2.75), shown.items(), strict=True):
        _draw_map(axes, image[..., 0] / 2, x, 1.12, 1.0)
        axes.text(x, 1.68, name, ha="center", fontsize=8)
    axes.set_xlim(-5.2, 5.2)
    axes.set_ylim(bottom - 0.5, 1.95)
    return figure


def results_of(network: keras.Model, names: Sequence[str], x_t: Array, t: int) -> dict[str, Array]:
    """What a network has computed at the end of some of its parts, for one image.

    Args:
        network: of ``build_unet``.
        names: of layers, or what the names of a block's layers begin with.
        x_t: ``(height, width, channels)``.
        t: the step.

    Returns:
        For each name an array ``(height, width, channels)``.
    """
    inner = keras.Model(network.inputs, {name: _result(network, name) for name in names})
    computed = inner([x_t[None], np.array([t], "float32")])
    return {name: ops.convert_to_numpy(computed[name])[0] for name in names}


def _result(network: keras.Model, name: str) -> Any:
    """The tensor at the end of a layer, or of a block: where its shortcut is added."""
    layers = {layer.name: layer for layer in network.layers}
    if name in layers:
        return layers[name].output
    tensor = next(layers[f"{name}-{last}"].output for last in ("conv_2", "out")
                  if f"{name}-{last}" in layers)  # fmt: skip
    while True:
        user = next(op for op in network.operations if _uses(op, tensor))
        tensor = user.output
        if type(user).__name__ == "Add":
            return tensor


def _uses(operation: Any, tensor: Any) -> bool:
    inputs = getattr(operation, "input", None)
    return any(one is tensor for one in keras.tree.flatten(inputs))


def _draw_maps(axes: Axes, result: Array, x: float, y: float, name: str, maps: int) -> None:
    """Draw the channels that vary most in a row around a place, under the name."""
    spread = result.std(axis=(0, 1))
    most = np.sort(np.argsort(-spread)[:maps])
    side = 0.62
    for i, channel in enumerate(most):
        grey = (result[..., channel] - result[..., channel].mean()) / (2.5 * spread[channel] + 1e-9)
        _draw_map(axes, grey, x + (i - (len(most) - 1) / 2) * (side + 0.06), y - 0.12, side)
    height, _, channels = result.shape
    words = f"{name} · {height}×{height}×{channels}"
    axes.text(x, y + 0.24, words, ha="center", fontsize=7.5)


def _draw_map(axes: Axes, grey: Array, x: float, y: float, side: float) -> None:
    """Draw one map of values in [-1, 1] as a square around a place."""
    extent = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
    axes.imshow(
        grey, cmap="gray", vmin=-1, vmax=1, extent=extent, interpolation="nearest", aspect="auto"
    )
    axes.add_patch(Rectangle(extent[::2], side, side, fill=False, ec="#bbbbbb", lw=0.6))


def _draw_box(
    axes: Axes, x: float, y: float, width: float, text: str, attention: bool = False
) -> None:
    shape = "round,pad=0,rounding_size=0.08"
    style: dict[str, Any] = {"facecolor": "#d5e8f5", "edgecolor": plots.BLUE}
    if attention:
        style = {"facecolor": "#fbe7bf", "edgecolor": plots.ORANGE, "hatch": "//"}
    axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, boxstyle=shape, **style))
    background = {"facecolor": style["facecolor"], "edgecolor": "none", "pad": 1.0}
    axes.text(x, y, text, ha="center", va="center", fontsize=8, bbox=background)


def _hatched(label: str) -> Patch:
    return Patch(facecolor="#fbe7bf", edgecolor=plots.ORANGE, hatch="//", label=label)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    style: str = "-",
) -> None:
    properties = {"arrowstyle": "->", "color": plots.GREY, "linestyle": style, "lw": 1.2}
    axes.annotate("", end, start, arrowprops=properties)
    if text:
        axes.text(start[0] + 0.12, (start[1] + end[1]) / 2, text, va="center", fontsize=8)


def shape_of_a_unet(
    base_width: int, width_multipliers: tuple[int, ...], residual_blocks: int, image_size: int = 32
) -> tuple[str, str]:
    """Draw the U for a choice of sizes, as SVG, and say how many parameters it has and where.

    Attention is at side 16 if a level has it, as in the paper's model of CIFAR-10.

    Args:
        base_width: channels of the finest level, even.
        width_multipliers: the width of each level, in base widths.
        residual_blocks: blocks of each level on the way down.
        image_size: side of the images in pixels; three colours.
    """
    sizes = [image_size // 2**level for level in range(len(width_multipliers))]
    parameters = UNetParameters(
        image_size=image_size,
        base_width=base_width,
        width_multipliers=width_multipliers,
        residual_blocks=residual_blocks,
        attention_sizes=(16,) if 16 in sizes else (),
        groups=math.gcd(32, base_width // 2),
    )
    counts = parameters_by_part(parameters)
    largest = max(counts, key=lambda name: counts[name])
    total = count_parameters(parameters)
    caption = (
        f"{total:,} parameters; the largest part is “{largest}” with "
        f"{counts[largest] / total:.0%}; results handed across: "
        f"{len(sizes) * (residual_blocks + 1)}"
    )
    return _blocks_as_svg(parameters, counts), caption


def _blocks_as_svg(parameters: UNetParameters, counts: dict[str, int]) -> str:
    """The blocks of each level as bars, wider with more channels, and the level's parameters."""
    parts: list[str] = []
    top = 4.0
    for side, width in zip(parameters.level_sizes, parameters.level_widths, strict=True):
        colour = plots.ORANGE if side in parameters.attention_sizes else plots.BLUE
        long = 150 * math.sqrt(width / 1024)
        for x, count in ((170, parameters.residual_blocks), (430, parameters.residual_blocks + 1)):
            for block in range(count):
                parts.append(_bar(x, top + 9 * block, long, colour))
        height = 9 * (parameters.residual_blocks + 1)
        parts.append(_said(300, top + 10, f"{side}×{side}×{width}", "middle"))
        for x, anchor, way in ((4, "start", "down"), (596, "end", "up")):
            number = f"{counts[f'{way} {side}'] / 1e6:.2f} M"
            parts.append(_said(x, top + 10, number, anchor))
        top += height + 8
    parts += [_bar(300, top + 9 * i, 150 * math.sqrt(width / 1024), plots.ORANGE) for i in (0, 1)]
    parts.append(_said(596, top + 10, f"middle {counts['middle'] / 1e6:.2f} M", "end"))
    label = html.escape(
        "Way down on the left, way up on the right: a bar is a block, the wider the more channels, "
        "light (orange) with attention; beside each level its millions of parameters."
    )
    told = html.escape("; ".join(f"{name}: {count / 1e6:.2f} M" for name, count in counts.items()))
    return (
        f'<figure style="margin:0"><svg role="img" aria-label="{told}" width="600" '
        f'height="{top + 24:.0f}" viewBox="0 0 600 {top + 24:.0f}" font-size="11" '
        f'fill="currentColor">{"".join(parts)}</svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _bar(middle: float, top: float, long: float, colour: str) -> str:
    return (
        f'<rect x="{middle - long / 2:.1f}" y="{top:.1f}" width="{long:.1f}" height="7" rx="2" '
        f'fill="{colour}"/>'
    )


def _said(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def likely_steps(chances: dict[str, Array], true: dict[str, int]) -> Figure:
    """Draw how likely each step is, once some noisy thing has been seen.

    Args:
        chances: for each thing its ``(T,)`` chances, which sum to 1.
        true: the step that it was really made at, for those for which there is one.
    """
    figure, axes = plots.new_figure(len(chances), height=2.3, sharey=True)
    for axis, (name, chance) in zip(axes, chances.items(), strict=True):
        axis.bar(np.arange(len(chance)), chance, width=1.0, color=plots.BLUE)
        if name in true:
            axis.axvline(true[name], color=plots.ORANGE, linestyle="--")
            place = (true[name], 0.92)
            axis.annotate("true t ", place, xycoords=("data", "axes fraction"), ha="right")
        axis.set_title(name)
        axis.set_xlabel("step t")
    axes[0].set_ylabel("chance")
    return figure


def noise_taken_away(
    network: Callable[[Any], Any], schedule: NoiseSchedule, t: int, image_size: int = 32
) -> tuple[Figure, float]:
    """Draw a photograph, the same under noise, and what is left without the noise guessed in it.

    Args:
        network: ``[x_t, t]`` to a guess of the noise, for colour images of that size.
        schedule: the noise schedule.
        t: how much noise, in 0 … T-1.
        image_size: side of the photograph, which comes with scikit-learn.

    Returns:
        The figure, and the mean squared error of the guess.
    """
    square = Image.fromarray(load_sample_image("china.jpg")).crop((106, 0, 533, 427))
    small = square.resize((image_size, image_size), Image.Resampling.LANCZOS)
    photograph = from_uint8(np.asarray(small)[None])
    noise = np.random.default_rng(0).standard_normal(photograph.shape).astype(np.float32)
    step = np.array([t], dtype="int32")
    noisy = q_sample(schedule, photograph, step, noise)
    guess = network([noisy, ops.convert_to_tensor(step)])
    cleaned = predict_x_start_from_noise(schedule, noisy, step, guess)
    pictures = [ops.convert_to_numpy(x)[0] for x in (photograph, noisy, cleaned)]
    titles = ["the photograph", f"noise of t = {t}", "noise taken away"]
    error = np.mean(np.square(ops.convert_to_numpy(guess) - noise))
    return plots.image_strip(pictures, titles), float(error)
