"""Machines to plan for: well-known ones by their published numbers, and this one, measured."""

from __future__ import annotations

import contextlib
import difflib
import functools
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

from diffusion_walkthrough.engine.cores import SideBySide, keep_operations_on_one_core, share_count
from diffusion_walkthrough.engine.precision import dtype_policy
from diffusion_walkthrough.planner.counting import Block, block_multiply_adds
from diffusion_walkthrough.unet import residual_block

keep_operations_on_one_core()

THIS_MACHINE = "this machine"
GB = 10**9
TERA = 10**12

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


def _processor(name: str, peak: float, memory: float, bandwidth: float, note: str) -> Machine:
    """A processor without 16-bit units, which converts half precision back and forth.

    That takes five times as long, as measured with float16 on a processor held to AVX2; bfloat16
    is taken to be no better.
    """
    peaks = {"float32": peak, **dict.fromkeys(("mixed_bfloat16", "mixed_float16"), peak / 5)}
    return Machine(name, 0.75 * memory, peaks, 0.5, bandwidth, note=note)


def _card(
    name: str, peaks: tuple[float, float, float], memory: float, bandwidth: float, note: str
) -> Machine:
    names = ("float32", "mixed_bfloat16", "mixed_float16")
    peak = dict(zip(names, peaks, strict=True))
    return Machine(name, 0.92 * memory, peak, 0.35, bandwidth, is_card=True, note=note)


# Processors: cores · clock · operations a clock, which are 32 in float32 with two AVX2 units, at
# the base clock. Cards: float32, bfloat16 and float16 as published, on tensor cores where there
# are any, without sparsity.
MACHINES = {
    machine.name: machine
    for machine in (
        _processor(
            "i5-5300U",
            2 * 2.3e9 * 32,
            8 * GB,
            25.6 * GB,
            "laptop of 2015, 2 cores at 2.3 GHz, taken with 8 GB",
        ),
        _processor(
            "i7-10700",
            8 * 2.9e9 * 32,
            16 * GB,
            45.8 * GB,
            "desktop of 2020, 8 cores at 2.9 GHz, taken with 16 GB",
        ),
        _card(
            "RTX 2060 SUPER",
            (7.18 * TERA, 7.18 * TERA, 57.4 * TERA),
            8 * GB,
            448 * GB,
            "8 GB; no units for bfloat16",
        ),
        _card(
            "K80",
            (2.8 * TERA, 2.8 * TERA, 2.8 * TERA),
            12 * GB,
            240 * GB,
            "one of the two chips of the card, 12 GB each; no units for 16 bits",
        ),
        _card(
            "T4",
            (8.1 * TERA, 8.1 * TERA, 65 * TERA),
            16 * GB,
            320 * GB,
            "16 GB; no units for bfloat16",
        ),
        _card(
            "H200",
            (495 * TERA, 989 * TERA, 989 * TERA),
            141 * GB,
            4800 * GB,
            "141 GB; float32 as TF32, which libraries use for convolutions",
        ),
    )
}


def find_machine(name: str) -> Machine:
    """Return a machine by its name; "this machine" is the one that runs this, with its free memory.

    Raises ValueError for an unknown name, with the nearest known one.
    """
    if name == THIS_MACHINE:
        note = f"{psutil.cpu_count()} processor cores"
        return Machine(THIS_MACHINE, free_memory(), note=note)
    if isinstance(name, str) and name in MACHINES:
        return MACHINES[name]
    names = [THIS_MACHINE, *MACHINES]
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.4)
    remedy = f"Did you mean {by_lower[near[0]]!r}?" if near else f"Use for example {names[0]!r}."
    known = ", ".join(map(repr, names))
    raise ValueError(f"device={name!r}: device must be one of {known}. {remedy}")


# ---------------------------------------------------------------------------------------------
# This machine: memory.
# ---------------------------------------------------------------------------------------------

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


# ---------------------------------------------------------------------------------------------
# This machine: speed.
# ---------------------------------------------------------------------------------------------


class _Probe(keras.Model):
    """A residual block that is trained on the same numbers each time, and fed nothing."""

    def __init__(self, block: Block, embedding_width: int, groups: int, dropout: float) -> None:
        super().__init__(name="probe")
        _, _, old_width, new_width, side = block
        x = keras.Input((side, side, old_width))
        embedding = keras.Input((embedding_width,))
        y = residual_block(x, embedding, new_width, groups, dropout)
        self.block = keras.Model([x, embedding], y)
        self.ask = SideBySide(self._ask)
        self.built = True

    def call(self, index: Any, training: bool | None = None) -> Any:
        """The block's result for as many images as there are indices, all of them alike."""
        x, embedding = (
            ops.ones((ops.shape(index)[0], *shape[1:])) * 0.5 for shape in self.block.input_shape
        )
        return self.ask(x, embedding, training=bool(training))

    def _ask(self, x: Any, embedding: Any, training: bool) -> Any:
        return self.block([x, embedding], training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """A loss that costs next to nothing."""
        return ops.mean(ops.cast(y_pred, "float32"))


class StepTimes(keras.callbacks.Callback):
    """The clock at the end of each step of a ``fit``."""

    def __init__(self) -> None:
        """Begin with no step."""
        super().__init__()
        self.clock: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the clock."""
        self.clock.append(time.perf_counter())

    def median(self, parts: int = 1) -> float:
        """The usual seconds from one step to the next, without the first, which compiles.

        The second is left out too where there are more: it still has things to get ready.

        Args:
            parts: in how many parts a step goes through its batch: Keras counts each as a step.
        """
        seconds = np.diff(self.clock[parts - 1 :: parts])
        return float(np.median(seconds[1:] if len(seconds) > 1 else seconds))


class _Patience(keras.callbacks.Callback):
    """Ends a probe after ``PROBE_SECONDS``, but not before its second step."""

    def __init__(self, times: StepTimes) -> None:
        super().__init__()
        self.times = times

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look how long it has taken since the first step, which compiled."""
        clock = self.times.clock
        if len(clock) > 1 and clock[-1] - clock[0] > PROBE_SECONDS:
            self.model.stop_training = True


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
    probe.compile("sgd", **_compile_options())
    times = StepTimes()
    index = np.zeros((images * PROBE_STEPS, 1), dtype="float32")
    probe.fit(index, batch_size=images, verbose=0, callbacks=[times, _Patience(times)])
    return images * operations / times.median()


def _compile_options() -> dict[str, Any]:
    """How DiffusionModel compiles its step: without XLA on TensorFlow."""
    return {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
