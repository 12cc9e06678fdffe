"""How fast are training and sampling, beside diffusers on PyTorch with the same network?

python benchmarks/speed.py [--tasks digits mnist cifar10 sample-50 …] [--rounds 5]

Each contestant is a process of its own. All are made ready first; then they work in turns, one
after the other in each round, so that a slow moment of the machine meets all of them, and the
median of the rounds counts. Needs PyTorch and diffusers: ``make bench`` runs it in the
environment of ``make parity``.

Shown for each: milliseconds a step (training) or seconds a walk (sampling), how many times as fast
ours is, the share of the convolution peak that this machine reached on a large convolution in
TensorFlow, peak memory, and the seconds from the start of the process to the end of the first step,
which contain all imports and all compilation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import machine

from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.planner.counting import count_multiply_adds

SCRIPT = Path(__file__).with_name("contestants.py")


class Task(NamedTuple):
    """What is timed, and how often in a round."""

    kind: str
    size: str
    batch: int
    repeats: int
    rivals: tuple[str, ...]


TRAINING = (
    "ours, operations divided",
    "diffusers",
    "diffusers compiled",
    "ours in bfloat16",
    "diffusers in bfloat16",
    "diffusers compiled, in bfloat16",
)
SAMPLING = ("ours, operations divided", "diffusers", "diffusers compiled", "diffusers pipeline")
TASKS = {
    "digits": Task("train", "digits", 128, 24, TRAINING),
    "mnist": Task("train", "mnist", 64, 8, TRAINING),
    "cifar10": Task("train", "cifar10", 16, 2, TRAINING),
    "sample-50": Task("sample-50", "digits", 64, 2, SAMPLING),
    "sample-1000": Task("sample-1000", "digits", 64, 1, SAMPLING),
    "sample-50-mnist": Task("sample-50", "mnist", 16, 1, SAMPLING),
    "sample-50-cifar10": Task("sample-50", "cifar10", 4, 1, SAMPLING),
}


class Contestant:
    """A process that gets ready at once, and works when it is told to."""

    def __init__(self, name: str, task: Task) -> None:
        """Start it, and wait until it has done its first piece of work."""
        what = [name, task.kind, task.size, str(task.batch)]
        self.command = [sys.executable, str(SCRIPT), *what]
        pipe = subprocess.PIPE
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        self.repeats = task.repeats
        self.first = self._answer()
        self.seconds: list[float] = []

    def _answer(self) -> float:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command[1:])} ended early; run it to see why.")
        return float(line)

    def work(self, count: bool = True) -> None:
        """One turn; a turn that does not count is there to warm up."""
        assert self.process.stdin is not None
        print(self.repeats, file=self.process.stdin, flush=True)
        seconds = self._answer() / self.repeats
        if count:
            self.seconds.append(seconds)

    def end(self) -> float:
        """Let it go; returns its peak memory in bytes."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        memory = self._answer()
        self.process.wait()
        return memory


def convolution_peak() -> float:
    """Operations a second of a 3×3 convolution of 128 channels in TensorFlow: the best of 5."""
    import tensorflow as tf

    x, w = tf.random.normal((16, 32, 32, 128)), tf.random.normal((3, 3, 128, 128))
    convolve = tf.function(lambda: tf.nn.conv2d(x, w, 1, "SAME"))
    convolve()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(4):
            convolve()
        seconds.append((time.perf_counter() - begin) / 4)
    return 2 * 9 * 128 * 128 * 16 * 32 * 32 / min(seconds)


def operations(task: Task) -> float:
    """Operations of a piece of work: three forward passes a step of training, T a walk."""
    unet = getattr(DiffusionParameters, task.size)().unet
    times = 3 if task.kind == "train" else int(task.kind.removeprefix("sample-"))
    return 2 * count_multiply_adds(unet) * task.batch * times


def run(name: str, task: Task, rounds: int, peak: float) -> None:
    """Time the contestants in turns and print their table."""
    contestants = {rival: Contestant(rival, task) for rival in ("ours", *task.rivals)}
    for turn in range(rounds + 1):
        for contestant in contestants.values():
            contestant.work(count=turn > 0)
    medians = {rival: statistics.median(c.seconds) for rival, c in contestants.items()}
    print(f"\n{name}: {task.size}, batch {task.batch}, median of {rounds} rounds")
    print("| | time (range) | ours is faster | share of peak | memory | first step after |")
    print("|---|---|---|---|---|---|")
    for rival, contestant in contestants.items():
        seconds = contestant.seconds
        low, middle, high = (f"{1e3 * s:.1f}" for s in (min(seconds), medians[rival], max(seconds)))
        share = operations(task) / medians[rival] / peak
        cells = [
            f"{middle} ms ({low}-{high})",
            f"{medians[rival] / medians['ours']:.2f} times",
            f"{100 * share:.0f} %",
            f"{contestant.end() / 2**30:.2f} GiB",
            f"{contestant.first:.0f} s",
        ]
        print(f"| {rival} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Run the tasks asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine.description())
    peak = convolution_peak()
    print(f"convolution peak: {peak / 1e9:.0f} GFLOP/s")
    for name in options.tasks:
        run(name, TASKS[name], options.rounds, peak)


if __name__ == "__main__":
    main()
