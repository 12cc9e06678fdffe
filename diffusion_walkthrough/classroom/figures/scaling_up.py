"""Pictures of chapters 08 and 08b: what an epoch and a plan cost, and where float16 ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.planner.counting import operations_per_epoch
from diffusion_walkthrough.planner.machines import GB
from diffusion_walkthrough.planner.plan import Memory, Plan, duration as duration, plan
from diffusion_walkthrough.scaling_up import (
    FLOAT16_MAX,
    FLOAT16_MIN,
    HalfPrecisionAttention,
    at_side as at_side,
    half_precision_attention,
)

Array = NDArray[Any]

SIDES = (8, 16, 32, 64, 128, 256)
#: What the menus offer: a whole run, and how many images its data set has to train on.
NETWORKS = {
    "digits": (DiffusionParameters.digits(), 1_500),
    "MNIST": (DiffusionParameters.mnist(), 60_000),
    "CIFAR-10": (DiffusionParameters.cifar10(), 50_000),
    "faces 256×256": (DiffusionParameters.celeba_hq_256(), 30_000),
}


def epochs_by_side(parameters: UNetParameters, images: int, speed: float) -> Figure:
    """Draw how long an epoch takes for each side of the images, as bars with their durations.

    Args:
        parameters: the network; its image size does not matter.
        images: how many an epoch has.
        speed: operations a second.
    """
    seconds = [operations_per_epoch(at_side(parameters, s), images) / speed for s in SIDES]
    figure, axis = plots.new_figure(height=2.3)
    bars = axis.barh([f"{side} × {side}" for side in SIDES], np.array(seconds) / 86_400)
    axis.bar_label(bars, [duration(s) for s in seconds], padding=4)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, 1.12 * max(seconds) / 86_400)
    axis.set_xlabel("days an epoch, at this speed")
    return figure


def epoch_at_side(
    parameters: UNetParameters, side: int, images: int, speed: float, photograph: Array
) -> tuple[str, str]:
    """Show a photograph at a side, and how long an epoch of such would take beside all others.

    Args:
        parameters: the network; its image size does not matter.
        side: of the images, one of ``SIDES``.
        images: how many an epoch has.
        speed: operations a second.
        photograph: ``(32, 32, 3)`` in [-1, 1]; smaller sides show means of its pixels, larger ones
            repeat them.
    """
    costs = {s: operations_per_epoch(at_side(parameters, s), images) for s in SIDES}
    bars = [
        live.gauge(
            cost / max(costs.values()),
            f"{s} × {s}: {duration(cost / speed)}{' ◀' if s == side else ''}",
        )
        for s, cost in costs.items()
    ]
    caption = f"side {side}: {costs[side]:.1e} operations an epoch, {duration(costs[side] / speed)}"
    picture = live.pixels(resized(photograph, side), f"{side} × {side} pixels", size=168)
    return live.row(picture, f"<div>{live.stack(*bars)}</div>"), caption


def resized(image: Array, side: int) -> Array:
    """An image at another side, by means over squares of its pixels or by repeating them."""
    old = image.shape[0]
    if side >= old:
        return image.repeat(side // old, axis=0).repeat(side // old, axis=1)
    return image.reshape(side, old // side, side, old // side, -1).mean(axis=(1, 3))


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
    figure, axis = plots.new_figure(height=2.1)
    low = min(*marks.values(), FLOAT16_MIN) / 1000
    high = max(*marks.values(), FLOAT16_MAX) * 1000
    axis.axvspan(FLOAT16_MIN, FLOAT16_MAX, color=plots.SKY, alpha=0.35, lw=0)
    axis.text(1, 0.12, "float16", ha="center", va="center")
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
    axis.set_xlabel("size of a number")
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
) -> tuple[str, str]:
    """Show the attention of an untrained float16 network to an image stored in some range.

    Args:
        image: one image in [-1, 1], ``(height, width, channels)``, sides divisible by 8.
        brightest: the number for white; black is 0.
        normalized: whether the network normalizes.
        scaled: whether queries are divided by √C.
        seed: of the network's weights.
    """
    stored = (np.asarray(image)[None] + 1) / 2 * brightest
    attention = half_precision_attention(stored, normalized, scaled, seed=seed)
    lost, of = attention.lost, attention.weights.shape[1]
    caption = (
        f"white = {brightest:g}: the largest score is {attention.largest_score:.1e}; "
        f"{lost * of:.0f} of {of} pixels lost to NaN"
    )
    if lost < 1:
        caption += f"; the others give {attention.largest_weight:.0%} to one pixel, on average"
    shown = live.pixels(image, f"stored as 0 … {brightest:g}", size=208)
    seen = live.pixels(_in_colour(attention.weights[0]), "row i: whom pixel i looks at", size=208)
    return live.row(shown, seen), caption


def _in_colour(weights: Array) -> Array:
    """Weights as colours in [-1, 1], ``(pixels, pixels, 3)``, as :func:`weight_map` draws them."""
    grey = np.repeat(np.sqrt(np.asarray(weights, dtype=np.float32))[..., None], 3, axis=-1)
    return 2 * np.where(np.isnan(grey), to_rgb(plots.ORANGE), grey) - 1


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
    axis.text(30, 0.9, "float16", transform=axis.get_xaxis_transform())
    bins = np.logspace(-13, 5, 73).tolist()
    for factor, colour, words in (
        (1.0, plots.ORANGE, "as they are "),
        (loss_scale, plots.BLUE, f"loss times\n{loss_scale:,.0f} "),
    ):
        axis.hist(factor * sizes, bins, color=colour, alpha=0.8)
        at = float(np.quantile(factor * sizes, 0.1))
        height = axis.get_xaxis_transform()
        axis.text(at, 0.55, words, color="black", ha="right", transform=height)
    axis.set_xscale("log")
    axis.set_xlabel("size of the gradient")
    axis.set_ylabel("how many")
    lost = np.mean(in_float16 == 0)
    share = "nearly all" if 0.99 < lost < 1 else f"{lost:.0%}"
    axis.set_title(f"without scaling, {share} of them are 0 in float16")
    return figure


def plan_of(
    network: str,
    device: str,
    batch: int | None = None,
    precision: str | None = None,
    parts: int = 1,
) -> tuple[str, str]:
    """Show what a run needs of a machine's memory, and say whether it fits and how long it takes.

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
    return memory_strip(planned), plan_in_words(planned)


def plan_in_words(planned: Plan) -> str:
    """Say in a sentence or two whether a run fits, how long it takes, and what would help."""
    needed, there = planned.memory.total / GB, planned.machine.memory / GB
    words = f"{needed:.1f} GB of {there:.1f}: {'fits' if planned.fits else 'does not fit'}. "
    words += f"An epoch takes {duration(planned.seconds_per_epoch)}."
    if not planned.fits:
        remedies = [f"{remedy.words} ({remedy.memory / GB:.1f} GB)" for remedy in planned.remedies]
        words += f" What would fit: {'; '.join(remedies) or 'nothing that was tried'}."
    return words


_PARTS_OF_MEMORY = dict(
    zip(
        [field.name for field in dataclasses.fields(Memory)],
        (plots.GREY, plots.PINK, plots.BLUE, plots.SKY),
        strict=True,
    )
)


def memory_strip(planned: Plan, width: int = 560) -> str:
    """Show the parts of a plan's memory end to end, where the machine's ends, and the verdict."""
    needed, there = planned.memory, planned.machine.memory
    scale = width / (1.1 * max(needed.total, there))
    left, pieces, keys = 0.0, [], []
    for name, colour in _PARTS_OF_MEMORY.items():
        size = getattr(needed, name) * scale
        pieces.append(
            f'<rect x="{left:.1f}" y="8" width="{size:.1f}" height="30" fill="{colour}" '
            'stroke="white"/>'
        )
        said = f"{name.replace('_', ' ')} {getattr(needed, name) / GB:.2f} GB"
        keys.append(f'<span><span style="color:{colour}">■</span> {said}</span>')
        left += size
    end = there * scale
    pieces.append(f'<rect x="{end - 2:.1f}" y="0" width="4" height="46" fill="currentColor"/>')
    verdict = "✓ fits" if planned.fits else "✗ does not fit"
    said = f"{planned.machine.name}, memory for training ends at {there / GB:.1f} GB: {verdict}"
    strip = (
        f'<svg role="img" aria-label="{said}" width="{width}" height="46" '
        f'viewBox="0 0 {width} 46">{"".join(pieces)}</svg>'
    )
    ends = f"▮ <b>{said}</b>"
    return live.stack(strip, live.row(*keys), ends)


def memory_shares(plans: Mapping[str, Plan]) -> Figure:
    """Draw which share of a run's memory each part takes, one bar a run, each part named on it.

    Args:
        plans: a plan under the name of each run.
    """
    figure, axis = plots.new_figure(height=1.1 + 0.45 * len(plans))
    left = np.zeros(len(plans))
    for name, colour in _PARTS_OF_MEMORY.items():
        shares = [getattr(p.memory, name) / p.memory.total * 100 for p in plans.values()]
        words = name.replace("_", " ")
        bars = axis.barh(
            list(plans), shares, left=left, color=colour, edgecolor="white", label=words
        )
        said = [words if share > 12 else "" for share in shares]
        ink = "black" if colour == plots.SKY else "white"
        axis.bar_label(bars, said, label_type="center", color=ink, fontsize=9)
        left += shares
    totals = [f"{p.memory.total / GB:.1f} GB" for p in plans.values()]
    axis.bar_label(bars, totals, padding=4)
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.set_xlim(0, 116)
    axis.set_xlabel("percent of the memory of a training")
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
