"""Pictures of chapter 03: the curve a network must imitate, its blocks, and the U."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.data import from_uint8
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.planner.counting import count_parameters, parameters_by_part
from diffusion_walkthrough.predictions import predict_x_start_from_noise

Array = NDArray[Any]

_STYLES = ("-", "--", ":", "-.")


def perfect_guesses(schedule: NoiseSchedule, times: Sequence[int]) -> Figure:
    """Draw the best guess of the noise in the one-dimensional world, a curve for each step.

    Args:
        schedule: the noise schedule.
        times: the steps t to draw, each in 0 … T-1.
    """
    figure, axes = plots.new_figure(height=2.8)
    x = np.linspace(-2, 2, 801)
    for t, style in zip(times, _STYLES, strict=False):
        guess = ONE_DIMENSIONAL_WORLD.expected_noise(x, schedule.alphas_cumprod[t])
        axes.plot(x, guess, style, label=f"t = {t}")
    axes.set_xlabel("noisy value x_t")
    axes.set_ylabel("best guess of the noise")
    axes.set_ylim(-3, 3)
    axes.legend(loc="upper left")
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
    figure.colorbar(picture, ax=axes[0])
    axes[0].set_xlabel("step t")
    axes[0].set_ylabel("number in the embedding")
    axes[0].grid(False)
    axes[1].plot(np.linalg.norm(embedding - embedding[reference], axis=1))
    axes[1].axvline(reference, color=plots.ORANGE, linestyle="--")
    axes[1].set_xlabel("step t")
    axes[1].set_ylabel(f"distance from t = {reference}")
    return figure


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
        scaled: weights of one pixel over all others, with 1/√C.
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


def diagram(parameters: UNetParameters) -> Figure:
    """Draw the U: for each level its side, its width, its blocks, and what is handed across.

    A box is the wider the more channels it has; hatched boxes have attention.
    """
    levels = len(parameters.level_sizes)
    figure, axes = plots.new_figure(height=0.72 * (levels + 1) + 0.5)
    axes.set_axis_off()
    axes.set_xlim(-5.2, 5.2)
    axes.set_ylim(-levels - 0.55, 0.95)
    for level in range(levels):
        _draw_level(axes, parameters, level)
    _draw_box(axes, 0, -levels, 3.0, "middle: block, attention, block", True)
    side, _ = _place(parameters, levels - 1)
    _arrow(axes, (-side, -levels + 0.7), (-1.6, -levels + 0.05))
    _arrow(axes, (1.6, -levels + 0.05), (side, -levels + 0.7))
    shape = f"{parameters.image_size}×{parameters.image_size}×{parameters.channels}"
    top, _ = _place(parameters, 0)
    _arrow(axes, (-top, 0.85), (-top, 0.3), f"x_t {shape}")
    _arrow(axes, (top, 0.3), (top, 0.85), f"noise {shape}")
    axes.text(0, 0.72, "time t goes into every block", ha="center", fontsize=8)
    kinds = [Patch(facecolor="#d5e8f5", edgecolor=plots.BLUE, label="residual blocks")]
    kinds.append(_hatched(label="with attention"))
    axes.legend(handles=kinds, loc="lower right", fontsize=8, bbox_to_anchor=(1.0, -0.02))
    return figure


def _place(parameters: UNetParameters, level: int) -> tuple[float, float]:
    """The distance of a level's boxes from the middle line, and their width, for drawing."""
    levels = len(parameters.level_sizes)
    share = parameters.level_widths[level] / max(parameters.level_widths)
    inward = 1.2 * level / max(levels - 1, 1)
    return 3.6 - inward, 1.3 + 1.5 * share


def _draw_level(axes: Axes, parameters: UNetParameters, level: int) -> None:
    """Draw both boxes of a level, the results handed across, and the way to the next level."""
    size, channels = parameters.level_sizes[level], parameters.level_widths[level]
    blocks, attention = parameters.residual_blocks, size in parameters.attention_sizes
    side, width = _place(parameters, level)
    label = f"{size}×{size}×{channels}"
    _draw_box(axes, -side, -level, width, f"{label}\n{_counted(blocks, 'block')}", attention)
    _draw_box(axes, side, -level, width, f"{label}\n{_counted(blocks + 1, 'block')}", attention)
    start, end = -side + width / 2 + 0.05, side - width / 2 - 0.05
    _arrow(axes, (start, -level), (end, -level), style="--")
    axes.text(0, -level + 0.06, _counted(blocks + 1, "result"), ha="center", fontsize=8)
    if level < len(parameters.level_sizes) - 1:
        below, _ = _place(parameters, level + 1)
        _arrow(axes, (-side, -level - 0.3), (-below, -level - 0.7))
        _arrow(axes, (below, -level - 0.7), (side, -level - 0.3))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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


def outlines(networks: Sequence[UNetParameters]) -> Figure:
    """Draw the outlines of several UNets side by side, each under its sizes and parameter count.

    A bar is a level, the finest on top, and the wider the more channels it has.
    """
    figure, axes = plots.new_figure(len(networks), height=1.9, squeeze=False)
    widest = max(max(network.level_widths) for network in networks)
    for axis, network in zip(axes[0], networks, strict=True):
        axis.set_axis_off()
        axis.set_xlim(-1.3 * widest, 1.3 * widest)
        axis.set_ylim(-max(len(n.level_sizes) for n in networks), 0.8)
        for level, (size, width) in enumerate(
            zip(network.level_sizes, network.level_widths, strict=True)
        ):
            for side in (-1, 1):
                left = side * 0.7 * widest - width / 2
                axis.barh(-level, width, 0.7, left, color=plots.BLUE)
            axis.text(0, -level, f"{size}", ha="center", va="center", fontsize=8)
        levels = "-".join(map(str, network.width_multipliers))
        shape = f"{network.base_width} · {levels} · {_counted(network.residual_blocks, 'block')}"
        axis.set_title(f"{shape}\n{count_parameters(network):,}", fontsize=8)
    return figure


def shape_of_a_unet(
    base_width: int, width_multipliers: tuple[int, ...], residual_blocks: int, image_size: int = 32
) -> tuple[Figure, str]:
    """Draw the U for a choice of sizes, and say how many parameters it has and where.

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
    return diagram(parameters), caption


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
