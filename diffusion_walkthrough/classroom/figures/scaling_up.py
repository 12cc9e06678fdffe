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
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.planner.counting import operations_per_epoch
from diffusion_walkthrough.planner.machines import GB, MACHINES, THIS_MACHINE
from diffusion_walkthrough.planner.plan import Plan, duration as duration, plan
from diffusion_walkthrough.scaling_up import (
    FLOAT16_MAX,
    FLOAT16_MIN,
    HalfPrecisionAttention,
    at_side as at_side,
    half_precision_attention,
)

Array = NDArray[Any]

SIDES = (8, 16, 32, 64, 128, 256)
DEVICES = [THIS_MACHINE, *MACHINES]
#: What the menus offer: a whole run, and how many images its data set has to train on.
NETWORKS = {
    "digits": (DiffusionParameters.digits(), 1_500),
    "MNIST": (DiffusionParameters.mnist(), 60_000),
    "CIFAR-10": (DiffusionParameters.cifar10(), 50_000),
    "faces 256×256": (DiffusionParameters.celeba_hq_256(), 30_000),
}


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
    per_hour = 3600 * speed
    hours = axes.secondary_yaxis(
        "right", functions=(lambda n: n / per_hour, lambda h: h * per_hour)
    )
    hours.set_ylabel("hours at this speed")
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
        in_float16: the same, rounded to float16 without scaling; the title says how many of them
            are 0.
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
    axis.set_ylabel("how many")
    axis.set_title(f"without scaling, {np.mean(in_float16 == 0):.0%} of them are 0 in float16")
    axis.legend(loc="upper left")
    return figure


def plan_of(
    network: str,
    device: str,
    batch: int | None = None,
    precision: str | None = None,
    parts: int = 1,
) -> tuple[Figure, str]:
    """Draw what a run needs of a machine's memory, and say whether it fits and how long it takes.

    Args:
        network: one of ``NETWORKS``.
        device: as for ``planner.plan.plan``.
        batch: images a step; None takes the network's published number.
        precision: of the network; None takes its own.
        parts: in how many parts a step goes through its batch; at most as many as it has images.
    """
    run, images = NETWORKS[network]
    batch = batch or run.training.batch_size
    in_parts = {"batch_size": batch, "gradient_accumulation_steps": min(parts, batch)}
    training = dataclasses.replace(run.training, **in_parts)  # type: ignore[arg-type]
    run = dataclasses.replace(run, training=training)
    planned = plan(run, precision=precision, device=device, images=images)
    return memory_bar(planned), plan_in_words(planned)


def plan_in_words(planned: Plan) -> str:
    """Say in a sentence or two whether a run fits, how long it takes, and what would help."""
    needed, there = planned.memory.total / GB, planned.machine.memory / GB
    words = f"{needed:.1f} GB of {there:.1f}: {'fits' if planned.fits else 'does not fit'}. "
    words += f"An epoch takes {duration(planned.seconds_per_epoch)}."
    if not planned.fits:
        remedies = [f"{remedy.words} ({remedy.memory / GB:.1f} GB)" for remedy in planned.remedies]
        words += f" What would fit: {'; '.join(remedies) or 'nothing that was tried'}."
    return words


def memory_bar(planned: Plan) -> Figure:
    """Draw the parts of a plan's memory end to end, and where the machine's memory ends."""
    figure, axis = plots.new_figure(height=1.5)
    parts = {
        field.name.replace("_", " "): getattr(planned.memory, field.name) / GB
        for field in dataclasses.fields(planned.memory)
    }
    colours = (plots.GREY, plots.GREEN, plots.SKY, plots.BLUE)
    left = 0.0
    for (name, size), colour in zip(parts.items(), colours, strict=True):
        axis.barh([0], [size], left=left, color=colour, label=name)
        left += size
    limit = planned.machine.memory / GB
    axis.axvline(limit, color=plots.ORANGE, lw=3)
    axis.annotate(f"{planned.machine.name} ", (limit, 0.62), ha="right", va="center", size=9)
    axis.set_xlim(0, 1.15 * max(left, limit))
    axis.set_ylim(-0.5, 0.8)
    axis.set_yticks([])
    axis.set_xlabel("GB of memory")
    axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9)
    return figure


def loss_curves(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the loss of each epoch of several runs, each under its name."""
    figure, axis = plots.new_figure(height=2.4)
    for (name, loss), style in zip(losses.items(), ("-", "--", ":"), strict=False):
        axis.plot(range(1, len(loss) + 1), loss, style, label=name)
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure
