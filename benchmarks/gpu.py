"""The full CIFAR-10 model on one GPU: seconds an epoch and peak memory, in each precision.

The network of the paper, batches of 128, the whole step of ``DiffusionModel.fit`` (noise, forward,
backward, clip, optimizer, average). Each precision in a process of its own. Noise takes the place
of the images, as how long a step takes does not depend on them.

    KERAS_BACKEND=jax python benchmarks/gpu.py        # or torch, or tensorflow
    python benchmarks/gpu.py --batch 16 --steps 3     # without a GPU: a trial on the processor
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys

from machine import description, peak_memory

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
IMAGES = 50_000
#: JAX would take three quarters of a card at once, and its peak would say nothing.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}


def peak_bytes(backend: str) -> tuple[str, int]:
    """Where the arrays are, and the most bytes that were in use there."""
    if backend == "jax":
        import jax

        device = jax.local_devices()[0]
        statistics = device.memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            return device.device_kind, statistics["peak_bytes_in_use"]
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0), torch.cuda.max_memory_allocated()
    elif backend == "tensorflow":
        import tensorflow as tf

        if cards := tf.config.list_physical_devices("GPU"):
            name = tf.config.experimental.get_device_details(cards[0])["device_name"]
            return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return "the processor, with all of its process", peak_memory()


def measure(precision: str, batch: int, steps: int) -> dict[str, object]:
    """Train a few steps; returns the device, seconds a step, peak memory and the last loss."""
    import keras
    import numpy as np

    from diffusion_walkthrough.machines import StepTimes
    from diffusion_walkthrough.parameters import DiffusionParameters
    from diffusion_walkthrough.training import DiffusionModel

    preset = DiffusionParameters.cifar10()
    training = dataclasses.replace(preset.training, precision=precision, batch_size=batch)
    model = DiffusionModel(dataclasses.replace(preset, training=training), seed=0)
    model.compile()
    shape = (batch * steps, *preset.unet.image_shape)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    model.fit(images[: 2 * batch], verbose=0)  # compiles
    times = StepTimes()
    # Reading the loss waits for the step: a GPU is only asked to begin it.
    wait = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: float(logs["loss"]))
    history = model.fit(images, epochs=1, verbose=0, callbacks=[wait, times]).history
    device, peak = peak_bytes(keras.backend.backend())
    loss = history["loss"][-1]
    return {"device": device, "seconds": times.median(), "peak": peak, "loss": loss}


def main() -> None:
    """Measure each precision in a fresh process and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40, help="at least 3")
    parser.add_argument("--measure", choices=PRECISIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 3:
        parser.error(f"--steps {options.steps} is too few for a median; ask for 3 or more")
    if options.measure:
        print(json.dumps(measure(options.measure, options.batch, options.steps)))
        return
    print(description())
    print(f"\n| precision, batch {options.batch} | device | ms a step | an epoch | peak memory |")
    print("|---|---|---|---|---|", flush=True)
    sizes = ["--batch", str(options.batch), "--steps", str(options.steps)]
    for precision in PRECISIONS:
        words = [sys.executable, __file__, *sizes, "--measure", precision]
        environment = {**ENVIRONMENT, **os.environ}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"| {precision} | stopped: {done.stderr.strip().splitlines()[-1][:200]} | | | |")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        epoch = found["seconds"] * IMAGES / options.batch
        cells = [precision, found["device"], f"{1e3 * found['seconds']:.0f}", f"{epoch:.0f} s"]
        print(f"| {' | '.join(cells)} | {found['peak'] / 1e9:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
