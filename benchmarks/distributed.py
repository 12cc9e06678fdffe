"""What a second device is worth: the time of a training step on one and on two, same batch.

Each case trains in a process of its own, with a core and a thread for each device (on Linux; where
a process cannot be kept to a core, TensorFlow uses others too): one device alone; and two of them
(``MirroredStrategy`` on two logical processors), which can at best take half the time of one. One
device with two cores is what the same cores do without any of it.

    python benchmarks/distributed.py                    # the digits, about four minutes
    python benchmarks/distributed.py --size mnist --batch-size 128
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from machine import description

#: The first is what the others are compared with.
CASES = ("one device", "two devices", "one device, two cores")


def strategy_for(case: str) -> Any:
    """Set devices, cores and threads as a case says; comes before TensorFlow is imported."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:2]
        os.sched_setaffinity(0, cores[:1] if case == "one device" else cores)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2 if "two cores" in case else 1)
    if case == "two devices":
        processor = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(processor, logical)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return tf.distribute.get_strategy()


def measure(chosen: argparse.Namespace) -> float:
    """Train in this process; returns the median of the seconds a step."""
    strategy = strategy_for(chosen.case)
    from networks import preset

    from diffusion_walkthrough.planner.machines import StepTimes
    from diffusion_walkthrough.training import DiffusionModel

    parameters = preset(chosen.size)
    with strategy.scope():
        model = DiffusionModel(parameters, seed=0)
        model.compile()
    shape = (chosen.batch_size * chosen.steps, *parameters.unet.image_shape)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    times = StepTimes()
    model.fit(images, batch_size=chosen.batch_size, epochs=1, verbose=0, callbacks=[times])
    return times.median(1)


def measured(case: str, chosen: argparse.Namespace) -> float:
    """Measure a case in a fresh process; returns the seconds a step."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", case, *_options(chosen)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{case} could not be measured:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def _options(chosen: argparse.Namespace) -> list[str]:
    values = {"--size": chosen.size, "--batch-size": chosen.batch_size, "--steps": chosen.steps}
    return [str(word) for pair in values.items() for word in pair]


def table(times: Mapping[str, list[float]]) -> str:
    """Make a table: median and range of the rounds, and how many times as fast as the first."""
    lines = ["| | ms a step (range) | times as fast |", "|---|---|---|"]
    first = statistics.median(times[CASES[0]])
    for case, seconds in times.items():
        middle = statistics.median(seconds)
        spread = f"{1000 * min(seconds):.1f}-{1000 * max(seconds):.1f}"
        lines.append(f"| {case} | {1000 * middle:.1f} ({spread}) | {first / middle:.2f} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="digits", choices=["digits", "mnist", "cifar10"])
    parser.add_argument("--batch-size", type=int, default=128, help="of all devices together")
    parser.add_argument("--steps", type=int, default=40, help="of each round")
    parser.add_argument("--rounds", type=int, default=5, help="all cases in turn, so many times")
    parser.add_argument("--measure", dest="case", choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table, or, told a case, measure it."""
    chosen = arguments()
    if chosen.case:
        print(measure(chosen))
        return
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(chosen.rounds):
        for case in CASES:
            times[case].append(measured(case, chosen))
    print(description())
    print(f"\n**{chosen.size}, batch {chosen.batch_size}**, a core and a thread a device ", end="")
    print(f"(median of {chosen.rounds} rounds in turns of {chosen.steps} steps, range in brackets)")
    print("\n" + table(times))


if __name__ == "__main__":
    main()
