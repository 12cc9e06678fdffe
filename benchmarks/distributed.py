"""What a second device is worth: the time of a training step on one and on two, same batch.

Each case trains in processes of its own, with a core and a thread for each device (on Linux; where
a process cannot be kept to a core, TensorFlow uses others too): one device alone; two of them in
one process (``MirroredStrategy`` on two logical processors); two processes that find each other
over the network, here on loopback (``MultiWorkerMirroredStrategy``). Two devices can at best take
half the time of one. One device with two cores is what the same cores do without any of it.

    python benchmarks/distributed.py                    # the digits, about six minutes
    python benchmarks/distributed.py --size mnist --batch-size 128
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from machine import description

#: The first is what the others are compared with.
CASES = ("one device", "two devices", "two processes", "one device, two cores")


def strategy_for(case: str, number: int, addresses: list[str]) -> Any:
    """Set devices, cores and threads as a case says; comes before TensorFlow is imported."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:2]
        is_narrow = case in ("one device", "two processes")
        os.sched_setaffinity(0, {cores[number % len(cores)]} if is_narrow else cores)
    if case == "two processes":
        task = {"type": "worker", "index": number}
        config = {"cluster": {"worker": addresses}, "task": task}
        os.environ["TF_CONFIG"] = json.dumps(config)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2 if "two cores" in case else 1)
    if case == "two devices":
        processor = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(processor, logical)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    if case == "two processes":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def measure(chosen: argparse.Namespace) -> float:
    """Train in this process; returns the median of the seconds a step."""
    strategy = strategy_for(chosen.case, chosen.number, chosen.addresses)
    from diffusion_walkthrough.machines import StepTimes
    from diffusion_walkthrough.parameters import DiffusionParameters
    from diffusion_walkthrough.training import DiffusionModel

    parameters = getattr(DiffusionParameters, chosen.size)()
    with strategy.scope():
        model = DiffusionModel(parameters, seed=0)
        model.compile()
    shape = (chosen.batch_size * chosen.steps, *parameters.unet.image_shape)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    times = StepTimes()
    model.fit(images, batch_size=chosen.batch_size, epochs=1, verbose=0, callbacks=[times])
    return times.median(1)


def free_addresses(count: int) -> list[str]:
    """Find free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def measured(case: str, chosen: argparse.Namespace) -> float:
    """Measure a case in fresh processes; returns the seconds a step of the slower one."""
    addresses = free_addresses(2 if case == "two processes" else 1)
    command = [sys.executable, __file__, "--measure", case, *_options(chosen)]
    running = [
        subprocess.Popen(
            [*command, "--number", str(number), "--addresses", *addresses],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(len(addresses))
    ]
    found = []
    for process in running:
        output, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{case} could not be measured:\n{errors[-2000:]}")
        found.append(float(output.splitlines()[-1]))
    return max(found)


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
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--addresses", nargs="*", default=[], help=argparse.SUPPRESS)
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
