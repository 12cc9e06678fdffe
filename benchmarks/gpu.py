"""The full CIFAR-10 model on one GPU: seconds an epoch and peak memory, in each precision.

The network of the paper, batches of 128, the whole step of ``DiffusionModel.fit`` (noise, forward,
backward, clip, optimizer, average), beside diffusers' network in a loop of PyTorch. Each contestant
in a process of its own, which has the GPU to itself, so one after the other.

    KERAS_BACKEND=jax python benchmarks/gpu.py             # or torch, or tensorflow
    KERAS_BACKEND=jax python benchmarks/gpu.py --images cifar10      # and an epoch of real images

A trial without a GPU, where float16 can take minutes a step:

    python benchmarks/gpu.py --batch 2 --steps 1 --rounds 2 --only "ours in bfloat16"

Each step is timed on noise, on which its time does not depend; with ``--images`` ours also trains
one epoch on them, in each precision from the same seed, and its mean loss shows how they compare.
Shown beside the memory and the time is what ``planner.plan.plan`` makes of them for a card that it
knows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import contestants
from machine import description, peak_memory

from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.planner.machines import MACHINES
from diffusion_walkthrough.planner.plan import plan

NAMES = (
    "ours",
    "ours in bfloat16",
    "ours in float16",
    "diffusers",
    "diffusers in bfloat16",
    "diffusers in float16",
    "diffusers compiled",
    "diffusers compiled, in bfloat16",
    "diffusers compiled, in float16",
)
IMAGES = 50_000
#: JAX would take three quarters of a card at once, and its peak would say nothing.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}


def peak_bytes(library: str) -> tuple[str, int]:
    """Where a library has its arrays, and the most bytes that were in use there."""
    if library == "jax":
        import jax

        device = jax.local_devices()[0]
        statistics_of_device = device.memory_stats() or {}
        if "peak_bytes_in_use" in statistics_of_device:
            return device.device_kind, statistics_of_device["peak_bytes_in_use"]
    elif library == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0), torch.cuda.max_memory_allocated()
    elif library == "tensorflow":
        import tensorflow as tf

        if cards := tf.config.list_physical_devices("GPU"):
            name = tf.config.experimental.get_device_details(cards[0])["device_name"]
            return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return "the processor", peak_memory()


def measure(name: str, batch: int, steps: int, rounds: int, data: str | None) -> dict[str, object]:
    """Train; returns device, seconds to the first step, seconds a step, peak, and of an epoch."""
    work = contestants.contestant(name, "train", "cifar10", batch)
    work(1)
    first = time.perf_counter() - contestants.START  # with all imports
    work(steps)
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work(steps)
        seconds.append((time.perf_counter() - begin) / steps)
    library = "torch"
    if name.startswith("ours"):
        import keras

        library = keras.backend.backend()
    device, peak = peak_bytes(library)
    found: dict[str, object] = {"device": device, "library": library, "first": first, "peak": peak}
    found["seconds"] = seconds
    if data and name.startswith("ours"):
        found.update(epoch(data, batch, contestants.precision_of(name)))
    return found


def epoch(data: str, batch: int, precision: str) -> dict[str, float]:
    """Train a fresh model on real images for an epoch: how many, its seconds, its mean loss."""
    from diffusion_walkthrough.data import load_images

    photographs = load_images(data)[0]
    steps = len(photographs) // batch
    work = contestants.ours_training("cifar10", batch, precision, photographs)
    work(1)
    begin = time.perf_counter()
    loss = work(steps)
    return {"images": steps * batch, "epoch": time.perf_counter() - begin, "loss": loss}


def cells_of(name: str, batch: int, found: dict) -> list[str]:
    """A line of the table."""
    seconds = found["seconds"]
    middle = statistics.median(seconds)
    cells = [name.replace("ours", f"ours ({found['library']})")]
    cells += [f"{1e3 * middle:.1f} ms ({1e3 * min(seconds):.1f}-{1e3 * max(seconds):.1f})"]
    cells += [f"{middle * IMAGES / batch:.0f} s", f"{found['first']:.0f} s"]
    cells += [f"{found['peak'] / 1e9:.2f} GB"]
    known = next((card for card in MACHINES if card in found["device"]), None)
    if known is None or not name.startswith("ours"):
        cells.append("")
    else:
        policy = contestants.policy_of(contestants.precision_of(name))
        planned = plan(DiffusionParameters.cifar10(), batch, policy, known)
        on_card = planned.memory.total - planned.memory.program  # without the driver's share
        cells.append(f"{1e3 * planned.seconds_per_step:.0f} ms, {on_card / 1e9:.2f} GB")
    if "loss" in found:
        cells.append(f"{found['images']} in {found['epoch']:.1f} s, loss {found['loss']:.4f}")
    else:
        cells.append("")
    return cells


def measured(name: str, options: argparse.Namespace) -> dict | str:
    """Measure a contestant in a process of its own; returns its last word if it was stopped."""
    words = [sys.executable, __file__, "--measure", name]
    for option in ("batch", "steps", "rounds", "images"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option}", str(value)]
    environment = {**ENVIRONMENT, **os.environ}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["without a word"]
        return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:200]
    return json.loads(done.stdout.splitlines()[-1])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="in a round: a call of fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--images", help="a data set's name or path, for an epoch of ours")
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.batch, options.steps, options.rounds) < 1:
        parser.error("--batch, --steps and --rounds are at least 1")
    if not any(options.only in name for name in NAMES):
        parser.error(
            f"no contestant's name contains {options.only!r}; there are: {', '.join(NAMES)}"
        )
    return options


def main() -> None:
    """Measure each contestant in a fresh process and print the table."""
    options = arguments()
    if options.measure:
        sizes = (options.batch, options.steps, options.rounds)
        print(json.dumps(measure(options.measure, *sizes, options.images)))
        return
    print(description())
    print(f"\nThe full CIFAR-10 model, batch {options.batch}, median of {options.rounds} rounds")
    print("| | a step (range) | an epoch | first step after | peak memory | plan | real images |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in NAMES:
        if options.only in name:
            found = measured(name, options)
            if isinstance(found, str):
                cells = [name, f"stopped: {found}", *[""] * 5]
            else:
                cells = cells_of(name, options.batch, found)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
