"""Machines to plan for: well-known ones by their published numbers, and this one, measured."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.cores import SideBySide, prepare_processor, share_count
from diffusion_walkthrough.engine.precision import dtype_policy
from diffusion_walkthrough.planner.counting import Block, block_multiply_adds
from diffusion_walkthrough.unet import residual_block

prepare_processor()

THIS_MACHINE = "this machine"
GB = 10**9

#: How much is asked of a machine to see how fast it is.
PROBE_OPERATIONS = 1e10
PROBE_STEPS = 12
#: After so many seconds no further step is begun: without units for it, float16 takes hundreds.
PROBE_SECONDS = 3.0
MOST_PROBE_IMAGES = 1024


@dataclass(frozen=True)
class Machine:
    """What a plan has to know of a machine.

    Attributes:
        name: as one asks for it.
        memory: bytes that a training may use: on a processor of which the system also lives, on a
            card of which the driver keeps some.
        peak: published operations a second by precision, None for this machine: it is measured.
        efficiency: the share of the peak that convolutions of this kind are assumed to reach.
        bandwidth: published bytes a second between memory and processor; that of two channels of
            ordinary memory for this machine, where only the optimizer's share depends on it.
        is_card: whether it is a graphics card, with memory of its own.
        note: what the numbers stand for.
    """

    name: str
    memory: float
    peak: dict[str, float] | None = None
    efficiency: float = 1.0
    bandwidth: float = 25 * GB
    is_card: bool = False
    note: str = ""


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def _processor(
    name: str, about: str, cores: int, clock: float, memory: float, bandwidth: float
) -> Machine:
    """A processor without 16-bit units, which converts half precision back and forth.

    That takes five times as long, as measured with float16 on a processor held to AVX2; bfloat16
    is taken to be no better. Two AVX2 units do 32 operations in float32 a clock.
    """
    peak = cores * clock * 1e9 * 32
    peaks = dict(zip(PRECISIONS, (peak, peak / 5, peak / 5), strict=True))
    note = f"{about}, {cores} cores at {clock} GHz, taken with {memory} GB"
    return Machine(name, 0.75 * memory * GB, peaks, 0.5, bandwidth * GB, note=note)


def _card(
    name: str, teras: tuple[float, float, float], memory: float, bandwidth: float, note: str
) -> Machine:
    peaks = dict(zip(PRECISIONS, (peak * 1e12 for peak in teras), strict=True))
    return Machine(name, 0.92 * memory * GB, peaks, 0.35, bandwidth * GB, is_card=True, note=note)


# Processors: cores, base clock in GHz, GB of memory, GB a second. Cards: 10¹² operations a second
# in each of PRECISIONS as published, on tensor cores where there are any, without sparsity; GB of
# memory, GB a second.
_KNOWN = (
    _processor("i5-5300U", "laptop of 2015", 2, 2.3, 8, 25.6),
    _processor("i7-10700", "desktop of 2020", 8, 2.9, 16, 45.8),
    _card("RTX 2060 SUPER", (7.18, 7.18, 57.4), 8, 448, "8 GB; no units for bfloat16"),
    _card("K80", (2.8, 2.8, 2.8), 12, 240, "one of its two chips, 12 GB; no units for 16 bits"),
    _card("T4", (8.1, 8.1, 65), 16, 320, "16 GB; no units for bfloat16"),
    _card("H200", (495, 989, 989), 141, 4800, "141 GB; float32 as TF32, usual for convolutions"),
)
MACHINES = {machine.name: machine for machine in _KNOWN}


def find_machine(name: str) -> Machine:
    """Return a machine by its name; "this machine" is the one that runs this, with its free memory.

    Raises ValueError for an unknown name, with the nearest known one, and TypeError for no name.
    """
    if checks.choice("device", name, (THIS_MACHINE, *MACHINES)) in MACHINES:
        return MACHINES[name]
    return Machine(THIS_MACHINE, free_memory(), note=f"{psutil.cpu_count()} processor cores")


# This machine: memory ----------------------------------------------------------------------------

CGROUP = Path("/sys/fs/cgroup")


def free_memory(cgroup: Path = CGROUP) -> float:
    """Bytes that can still be used here: by the system's account, and by that of a container."""
    free = [float(psutil.virtual_memory().available)]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            limit_bytes = int((cgroup / limit).read_text("ascii"))
            folder = (cgroup / used).parent
            taken = int((cgroup / used).read_text("ascii")) - _file_cache(folder)
            free.append(float(max(limit_bytes - taken, 0)))
    return min(free)


def _file_cache(folder: Path) -> int:
    """Bytes of a container's account that only hold files and are given back when asked for."""
    for line in (folder / "memory.stat").read_text("ascii").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def most_memory(work: Callable[[], object]) -> int:
    """Call ``work`` and return the most bytes that this process held meanwhile.

    Resident memory, looked at a hundred times a second, so that a peak shorter than that may be
    missed. What ``work`` raises is raised here.
    """
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(*seen, process.memory_info().rss)


# This machine: speed -----------------------------------------------------------------------------


class _Probe(keras.Model):
    """A residual block that is trained on the same numbers each time, and fed nothing."""

    def __init__(self, block: Block, embedding_width: int, groups: int, dropout: float) -> None:
        super().__init__(name="probe")
        _, _, old_width, new_width, side = block
        x = keras.Input((side, side, old_width))
        embedding = keras.Input((embedding_width,))
        y = residual_block(x, embedding, new_width, groups, dropout)
        self.block = keras.Model([x, embedding], y)
        self.ask = SideBySide(self._ask, random=dropout > 0)
        self.built = True

    def call(self, index: Any, training: bool | None = None) -> Any:
        """The block's result for as many images as there are indices, all of them alike."""
        x, embedding = (
            ops.ones((ops.shape(index)[0], *shape[1:])) * 0.5 for shape in self.block.input_shape
        )
        y = self.ask(x, embedding, training=bool(training))
        self.add_loss(ops.mean(ops.cast(y, "float32")))  # which costs next to nothing
        return y

    def _ask(self, x: Any, embedding: Any, training: bool) -> Any:
        return self.block([x, embedding], training=training)


class StepTimes(keras.callbacks.Callback):
    """The clock at the end of each step of a ``fit``."""

    def __init__(self, patience: float = math.inf) -> None:
        """Begin with no step; ``patience`` seconds after the first, no further one is begun."""
        super().__init__()
        self.patience = patience
        self.clock: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the clock; one step from the first to the next there will be."""
        self.clock.append(time.perf_counter())
        if len(self.clock) > 1 and self.clock[-1] - self.clock[0] > self.patience:
            self.model.stop_training = True

    def median(self, parts: int = 1) -> float:
        """The usual seconds from one step to the next, without the first, which compiles.

        The second is left out too where there are more: it still has things to get ready.

        Args:
            parts: in how many parts a step goes through its batch: Keras counts each as a step.
        """
        seconds = np.diff(self.clock[parts - 1 :: parts])
        return float(np.median(seconds[1:] if len(seconds) > 1 else seconds))


@functools.lru_cache(maxsize=64)
def measured_speed(
    block: Block, embedding_width: int, groups: int, dropout: float, precision: str
) -> float:
    """Measure how many operations a second this machine does in training one residual block.

    Takes about a second, most of it to compile, or two steps where a step takes longer; asked
    again, it remembers.
    """
    operations = 6 * block_multiply_adds(block, embedding_width)  # for one image, there and back
    images = int(np.clip(PROBE_OPERATIONS / operations, 1, MOST_PROBE_IMAGES))
    images += -images % share_count()  # the shares of the cores are equal, as in large batches
    with dtype_policy(precision):
        probe = _Probe(block, embedding_width, groups, dropout)
    without_xla = keras.backend.backend() == "tensorflow"  # as DiffusionModel compiles its step
    probe.compile("sgd", jit_compile=False if without_xla else "auto")
    times = StepTimes(patience=PROBE_SECONDS)
    index = np.zeros((images * PROBE_STEPS, 1), dtype="float32")
    probe.fit(index, batch_size=images, verbose=0, callbacks=[times])
    return images * operations / times.median()
