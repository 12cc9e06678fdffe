"""A plan before the wait: what a training run will need, before it starts.

:func:`plan` counts a network's parameters, operations and memory from its parameters alone, and
puts a machine's speed and memory beside them. Where the machine is too small it says what would
make the run fit; each remedy has been planned in its turn, and fits.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.planner.counting import (
    Block,
    block_multiply_adds,
    blocks,
    count_parameters,
    operations_per_epoch,
)
from diffusion_walkthrough.planner.machines import GB, Machine, find_machine, measured_speed

# Measured once, with TensorFlow, and the same for every network ----------------------------------

#: Python, TensorFlow and Keras loaded, before there is any network; a card's share of its driver.
PROGRAM_BYTES = 0.67 * GB
CARD_PROGRAM_BYTES = 0.6 * GB
#: The traced training step, for each variable that it changes, and what averaging it adds.
STEP_BYTES_PER_VARIABLE = 2.2e6
AVERAGE_BYTES_PER_VARIABLE = 1.0e6
#: How many times larger it is when a step goes in parts: it can change the weights, or wait.
STEP_IN_PARTS = 1.5
#: How often a kept number goes between memory and processor, there and back.
TRANSFERS_PER_KEPT_NUMBER = 8
#: The same for each weight: gradient, clipping, Adam's two averages, the weight, its average.
TRANSFERS_PER_WEIGHT = 16
#: Seconds to start the work of one layer, whatever its size: here, and on a named machine.
SECONDS_PER_LAYER = 1e-4

HALF_PRECISIONS = ("mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Memory:
    """What the memory goes to, in bytes.

    Attributes:
        program: the libraries and the traced step, whatever the batch.
        weights: the weights.
        training_state: for each weight its gradient and what the optimizer keeps.
        activations: what the way back needs of the way there, for the images of one part of a step.
    """

    program: float
    weights: float
    training_state: float
    activations: float

    @property
    def total(self) -> float:
        """All together."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Remedy:
    """A change that makes a run fit, in words and as parameters; the bytes that it then needs."""

    words: str
    parameters: DiffusionParameters
    memory: float
    seconds_per_epoch: float


@dataclass(frozen=True)
class Plan:
    """What a training run needs on a machine; ``print(plan)`` is a report.

    Attributes:
        run: the parameters that were planned, with batch size and precision as asked for.
        machine: where it is to run.
        images: how many an epoch has.
        parameters: how many numbers are learned.
        operations_per_step: multiplications and additions of one step.
        operations_per_epoch: those of one look at each image.
        memory: what it needs, in parts.
        seconds_per_step: how long a step takes.
        remedies: what would make it fit; empty if it fits, or if nothing tried is enough.
    """

    run: DiffusionParameters
    machine: Machine
    images: int
    parameters: int
    operations_per_step: int
    operations_per_epoch: int
    memory: Memory
    seconds_per_step: float
    remedies: tuple[Remedy, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.memory.total <= self.machine.memory

    @property
    def seconds_per_epoch(self) -> float:
        """How long one look at each image takes."""
        return self.seconds_per_step * self.images / self.run.training.batch_size

    def __str__(self) -> str:
        return "\n".join(_report(self))


def plan(
    parameters: DiffusionParameters,
    batch_size: int | None = None,
    precision: str | None = None,
    device: str = "this machine",
    images: int = 50_000,
) -> Plan:
    """Plan a training run: parameters, operations, memory and time, before anything is built.

    Memory is an estimate: the numbers that the way back needs are counted block by block, the
    program around them was measured once with TensorFlow. So is the time on a named machine:
    published peak speed times an assumed efficiency. The speed of this machine is measured, in a
    few seconds.

    Args:
        parameters: the whole run.
        batch_size: images a step; None takes the parameters'.
        precision: "float32", "mixed_bfloat16" or "mixed_float16"; None takes the parameters'.
        device: "this machine", or a name of ``planner.machines.MACHINES``.
        images: how many an epoch has.

    Raises:
        ValueError: for an unknown device, with the nearest known one, for ``images`` below 1, and
            as ``TrainingParameters`` does for a batch size or a precision that cannot be.
    """
    machine = find_machine(device)
    changes = {"batch_size": batch_size, "precision": precision}
    run = _changed(parameters, "training", **{k: v for k, v in changes.items() if v is not None})
    planned = _plan(run, machine, images)
    if planned.fits:
        return planned
    return dataclasses.replace(planned, remedies=tuple(_remedies(run, machine, images)))


def _plan(run: DiffusionParameters, machine: Machine, images: int) -> Plan:
    return Plan(
        run=run,
        machine=machine,
        images=images,
        parameters=count_parameters(run.unet, run.variance == "learned"),
        operations_per_step=operations_per_epoch(run.unet, run.training.batch_size),
        operations_per_epoch=operations_per_epoch(run.unet, images),
        memory=memory(run, machine.is_card),
        seconds_per_step=_seconds_per_step(run, machine),
    )


def _changed(run: DiffusionParameters, part: str, **changes: object) -> DiffusionParameters:
    return dataclasses.replace(run, **{part: dataclasses.replace(getattr(run, part), **changes)})


# Memory ------------------------------------------------------------------------------------------


def memory(run: DiffusionParameters, on_card: bool = False) -> Memory:
    """Estimate the memory of a training run, at its largest.

    Args:
        run: the whole run.
        on_card: whether the card's memory is meant; the program is then in the computer's.
    """
    training = run.training
    weights = 4 * count_parameters(run.unet, run.variance == "learned")
    averaged = training.ema_momentum is not None
    parts = training.gradient_accumulation_steps
    # The gradient, Adam's two averages, that of the weights, the sum of the parts' gradients.
    copies = 3 + averaged + (parts > 1)
    half = training.precision in HALF_PRECISIONS
    program = CARD_PROGRAM_BYTES
    if not on_card:
        of_step = STEP_BYTES_PER_VARIABLE + AVERAGE_BYTES_PER_VARIABLE * averaged
        of_step *= STEP_IN_PARTS if parts > 1 else 1
        program = PROGRAM_BYTES + of_step * count_variables(run)
    return Memory(
        program=program,
        weights=weights,
        training_state=copies * weights + half * weights / 2,  # the weights in 16 bits
        activations=training.batch_size // parts * activation_bytes(run),
    )


def activation_bytes(run: DiffusionParameters) -> float:
    """Count the bytes that the way back needs of the way there, for one image."""
    unet, half = run.unet, run.training.precision in HALF_PRECISIONS
    pieces = blocks(unet, run.variance == "learned")
    last = unet.image_size**2 * unet.level_widths[0] * _normalized(half)
    return sum(_kept_bytes(piece, half, unet.dropout) for piece in pieces) + last


def _normalized(half: bool) -> int:
    """Bytes for a number's normalization and bend: of each the result, and in half the input."""
    return 2 * 2 + 4 if half else 2 * 4


def _kept_bytes(block: Block, half: bool, dropout: float) -> float:
    """Bytes that the way back through a block needs, its own result included.

    On the way up that result is only passed on; it stands for the gradients that are on their way.
    """
    part, kind, old, new, side = block
    pixels, size = side**2, 2 if half else 4
    joined = size * old * pixels if part.startswith("up") else 0  # the way up joins two results
    if kind == "residual":
        first = old * pixels * _normalized(half)
        second = new * pixels * (_normalized(half) + (0 if half else 4))
        return first + second + new * pixels * (size + (dropout > 0)) + joined
    if kind == "attention":
        numbers = 6 * new * pixels  # queries (twice: scaled too), keys, values, their sum, result
        scores = pixels**2 * (4 + 2 if half else 4)
        return size * numbers + new * pixels * _normalized(half) + scores
    return size * new * pixels + joined


def count_variables(run: DiffusionParameters) -> int:
    """Count the variables that hold the network's weights: kernels, biases, and so on."""
    counts = {"convolution": 2, "dense": 2, "table": 1, "attention": 10}
    total = 2  # the normalization before the last convolution
    for block in blocks(run.unet):
        shortcut = 0 if block.old_width == block.new_width else 2
        total += 10 + shortcut if block.kind == "residual" else counts[block.kind]
    return total


# Time --------------------------------------------------------------------------------------------


def _seconds_per_step(run: DiffusionParameters, machine: Machine) -> float:
    """Estimate a step: arithmetic, traffic between memory and processor, and starting the work."""
    images = run.training.batch_size
    starts = SECONDS_PER_LAYER * count_variables(run) * run.training.gradient_accumulation_steps
    traffic = 4.0 * count_parameters(run.unet) * TRANSFERS_PER_WEIGHT
    if machine.peak is None:  # measured, together with the traffic of what is kept
        seconds = images * _measured_seconds_per_image(run)
    else:
        speed = machine.peak[run.training.precision] * machine.efficiency
        seconds = images * operations_per_epoch(run.unet, 1) / speed
        traffic += images * activation_bytes(run) * TRANSFERS_PER_KEPT_NUMBER
    return seconds + traffic / machine.bandwidth + starts


def _measured_seconds_per_image(run: DiffusionParameters) -> float:
    """Time one residual block of each level; the other blocks of the level run at its speed."""
    embedding = 4 * run.unet.base_width
    work: Counter[int] = Counter()
    typical: dict[int, Block] = {}
    for block in blocks(run.unet):
        side = block.side if block.side in run.unet.level_sizes else run.unet.image_size
        work[side] += 6 * block_multiply_adds(block, embedding)
        if block.kind == "residual":
            typical[side] = block  # the last one: on the way up, where most of the work is
    settings = (embedding, run.unet.groups, run.unet.dropout, run.training.precision)
    return sum(work[side] / measured_speed(typical[side], *settings) for side in work)


# What would make it fit --------------------------------------------------------------------------


Changes = Iterator[tuple[str, DiffusionParameters]]


def _remedies(run: DiffusionParameters, machine: Machine, images: int) -> Iterator[Remedy]:
    """Of each kind of change the smallest that fits."""
    for changes in (
        _in_parts(run),
        _smaller_batches(run),
        _in_half(run, machine),
        _fewer_blocks(run),
        _fewer_channels(run),
        _fewer_levels(run),
    ):
        for words, changed in changes:
            if memory(changed, machine.is_card).total <= machine.memory:
                planned = _plan(changed, machine, images)
                yield Remedy(words, changed, planned.memory.total, planned.seconds_per_epoch)
                break


def _in_parts(run: DiffusionParameters) -> Changes:
    batch = run.training.batch_size
    for parts in range(run.training.gradient_accumulation_steps + 1, batch + 1):
        if batch % parts == 0:
            words = f"gradient_accumulation_steps={parts}: {batch // parts} images at a time"
            yield words, _changed(run, "training", gradient_accumulation_steps=parts)


def _smaller_batches(run: DiffusionParameters) -> Changes:
    batch = run.training.batch_size
    while batch > 1:
        batch //= 2
        smaller = _changed(run, "training", batch_size=batch, gradient_accumulation_steps=1)
        yield f"batch_size={batch}", smaller


def _in_half(run: DiffusionParameters, machine: Machine) -> Changes:
    """The faster of the two first; where they are alike bfloat16, which needs no loss scaling."""
    if run.training.precision == "float32":
        peak = machine.peak or {}
        for precision in sorted(HALF_PRECISIONS, key=lambda name: -peak.get(name, 0)):
            yield f'precision="{precision}"', _changed(run, "training", precision=precision)


def _fewer_blocks(run: DiffusionParameters) -> Changes:
    for count in range(run.unet.residual_blocks - 1, 0, -1):
        yield f"residual_blocks={count}", _changed(run, "unet", residual_blocks=count)


def _fewer_channels(run: DiffusionParameters) -> Changes:
    groups = run.unet.groups  # they go on dividing the widths, if it is taken away again and again
    for width in range(run.unet.base_width - groups, groups, -groups):
        if width % 2 == 0:
            yield f"base_width={width}", _changed(run, "unet", base_width=width)


def _fewer_levels(run: DiffusionParameters) -> Changes:
    unet = run.unet
    for levels in range(len(unet.width_multipliers) - 1, 1, -1):
        kept = unet.width_multipliers[:levels]
        sizes = tuple(s for s in unet.attention_sizes if s in unet.level_sizes[:levels])
        fewer = _changed(run, "unet", width_multipliers=kept, attention_sizes=sizes)
        yield f"width_multipliers={kept}", fewer


# The report --------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A duration as one would say it, in the unit that fits: "12 minutes"."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{0 if seconds >= 9.5 * length else 1}f} {unit}"
    if seconds >= 0.95:
        return f"{seconds:.{0 if seconds >= 9.5 else 1}f} seconds"
    return f"{seconds * 1000:.0f} ms"


def _report(planned: Plan) -> Iterator[str]:
    run, machine, needed = planned.run, planned.machine, planned.memory
    parts = run.training.gradient_accumulation_steps
    batch = f"batches of {run.training.batch_size}"
    if parts > 1:
        batch += f" in {parts} parts of {run.training.batch_size // parts}"
    note = f" ({machine.note})" if machine.note else ""
    yield f"{batch} in {run.training.precision} on {machine.name}{note}"
    yield f"  parameters  {planned.parameters:,}"
    yield (
        f"  operations  {planned.operations_per_step:.2e} a step, "
        f"{planned.operations_per_epoch:.2e} an epoch of {planned.images:,} images"
    )
    for field in dataclasses.fields(needed):
        title = "  memory      " if field.name == "program" else " " * 14
        words = field.name.replace("_", " ")
        yield f"{title}{words:<15}{getattr(needed, field.name) / GB:6.2f} GB"
    verdict = "fits" if planned.fits else "DOES NOT FIT"
    total = f"{needed.total / GB:6.2f} GB of {machine.memory / GB:.2f}: {verdict}"
    yield f"{'':14}{'together':<15}{total}"
    yield (
        f"  time        {duration(planned.seconds_per_step)} a step, "
        f"{duration(planned.seconds_per_epoch)} an epoch"
    )
    how = "measured here" if machine.peak is None else "published peak, assumed efficiency"
    yield f"  (counted: parameters, operations; estimated: memory; speed: {how})"
    if planned.remedies:
        yield "  each of these alone would make it fit:"
    elif not planned.fits:
        yield "  nothing that was tried makes it fit: a larger machine, or smaller images"
    for remedy in planned.remedies:
        yield (
            f"    {remedy.words} ({remedy.memory / GB:.1f} GB, "
            f"{duration(remedy.seconds_per_epoch)} an epoch)"
        )
