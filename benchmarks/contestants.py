"""One contestant of ``speed.py``: a process that gets ready, and works when it is told to.

python benchmarks/contestants.py CONTESTANT TASK SIZE BATCH

It prints the seconds from its start to the end of the first piece of work, then answers each line
on its standard input, a number n, with the seconds that n pieces of work took, and at the end of
the input with its peak memory in bytes. A piece of work is a training step of the whole program
(noise drawn, forward, backward, clip, optimizer, average), or a walk from noise to images.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from machine import peak_memory

START = time.perf_counter()
Work = Callable[[int], Any]


def parameters(size: str) -> Any:
    """The model that is trained, digits, mnist or cifar10."""
    from networks import preset

    return preset(size)


@functools.lru_cache(maxsize=1)
def images(size: str, n: int) -> Any:
    """Noise in the shape and range of images: how long a step takes does not depend on them."""
    import numpy as np

    shape = (n, *parameters(size).unet.image_shape)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def precision_of(name: str) -> str:
    """The precision that a contestant's name ends in; float32 if it names none."""
    return next((p for p in ("bfloat16", "float16") if name.endswith(p)), "float32")


def policy_of(precision: str) -> str:
    """What ``TrainingParameters`` call a precision."""
    return precision if precision == "float32" else f"mixed_{precision}"


def ours_training(size: str, batch: int, precision: str, photographs: Any = None) -> Work:
    """``DiffusionModel.fit``, as the notebooks call it: n steps are an epoch of n batches.

    Of ``photographs``, where there are any, else of noise. The work returns the epoch's loss.
    """
    import dataclasses

    from diffusion_walkthrough.training import DiffusionModel

    preset = parameters(size)
    training = dataclasses.replace(preset.training, precision=policy_of(precision))
    model = DiffusionModel(dataclasses.replace(preset, training=training), seed=0)
    model.compile()

    def work(n: int) -> float:
        data = images(size, n * batch) if photographs is None else photographs[: n * batch]
        return model.fit(data, batch_size=batch, epochs=1, verbose=0).history["loss"][0]

    return work


def ours_sampling(size: str, batch: int, steps: int) -> Work:
    """``DiffusionModel.sample`` of a schedule with as many steps."""
    import dataclasses

    from diffusion_walkthrough.training import DiffusionModel

    preset = parameters(size)
    schedule = dataclasses.replace(preset.schedule, timesteps=steps)
    model = DiffusionModel(dataclasses.replace(preset, schedule=schedule), seed=0)

    def work(n: int) -> None:
        for seed in range(n):
            model.sample(batch, seed=seed)

    return work


def their_network(size: str) -> Any:
    """diffusers' UNet2DModel of the same architecture (see tests/parity/networks.py)."""
    import torch
    from diffusers import UNet2DModel

    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "parity"))
    import networks

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return UNet2DModel(**networks.configuration(parameters(size).unet))


class TheirTraining:
    """A training loop as diffusers' examples write it, with Adam, clipping and EMAModel.

    On the GPU, if PyTorch has one. In 16 bits by PyTorch's autocast, in float16 with its scaler.
    """

    def __init__(self, size: str, batch: int, compiled: bool, precision: str) -> None:
        """Build the network and everything around it."""
        import torch
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        self.size, self.batch, self.preset = size, batch, parameters(size)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = their_network(size).train().to(self.device)
        self.weights = list(self.network.parameters())
        self.predict = torch.compile(self.network) if compiled else self.network
        self.scheduler = DDPMScheduler(num_train_timesteps=self.preset.schedule.timesteps)
        self.optimizer = torch.optim.Adam(self.weights, lr=self.preset.training.learning_rate)
        self.average = EMAModel(self.weights) if self.preset.training.ema_momentum else None
        self.scaler = torch.amp.GradScaler(self.device, enabled=precision == "float16")
        self.autocast = torch.autocast(
            self.device, getattr(torch, precision), enabled=precision != "float32"
        )

    def __call__(self, n: int) -> None:
        """Train n steps, to the end of the last."""
        import torch

        data = torch.from_numpy(images(self.size, n * self.batch)).permute(0, 3, 1, 2).contiguous()
        for x in data.split(self.batch):
            self.step(x.to(self.device))
        if self.device == "cuda":
            torch.cuda.synchronize()  # the GPU has only been asked to begin

    def step(self, x: Any) -> None:
        """One step: noise, forward, backward, clip, optimizer, average."""
        import torch

        noise = torch.randn_like(x)
        t = torch.randint(0, self.preset.schedule.timesteps, (self.batch,), device=self.device)
        with self.autocast:
            answer = self.predict(self.scheduler.add_noise(x, noise, t), t).sample.float()
        self.scaler.scale(torch.nn.functional.mse_loss(answer, noise)).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.weights, self.preset.training.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average:
            self.average.step(self.weights)


def their_sampling(size: str, batch: int, steps: int, pipeline: bool, compiled: bool) -> Work:
    """diffusers' DDPMPipeline, or its network and scheduler in a bare loop."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler

    network = their_network(size).eval()
    scheduler = DDPMScheduler(num_train_timesteps=steps)
    scheduler.set_timesteps(steps)
    whole = DDPMPipeline(network, scheduler)
    whole.set_progress_bar_config(disable=True)
    predict = torch.compile(network) if compiled else network
    side, channels = parameters(size).unet.image_size, parameters(size).unet.channels

    def work(n: int) -> None:
        for _ in range(n):
            if pipeline:
                whole(batch_size=batch, num_inference_steps=steps, output_type="np")
                continue
            with torch.inference_mode():
                x = torch.randn(batch, channels, side, side)
                for t in scheduler.timesteps:
                    x = scheduler.step(predict(x, t).sample, t, x).prev_sample

    return work


def contestant(name: str, task: str, size: str, batch: int) -> Work:
    """Build what is to be timed; a task is "train", or "sample-50" for walks of 50 steps."""
    if name == "ours, operations divided":  # as TensorFlow does it, not the batch
        from diffusion_walkthrough.engine import cores

        cores.MOST_SHARES = 1
    if task == "train":
        if name.startswith("ours"):
            return ours_training(size, batch, precision_of(name))
        return TheirTraining(size, batch, "compiled" in name, precision_of(name))
    steps = int(task.removeprefix("sample-"))
    if name.startswith("ours"):
        return ours_sampling(size, batch, steps)
    return their_sampling(size, batch, steps, "pipeline" in name, "compiled" in name)


def main() -> None:
    """Get ready, then work by the line."""
    name, task, size, batch = sys.argv[1:]
    channel = os.fdopen(os.dup(1), "w")  # libraries print to the standard output now and then
    os.dup2(2, 1)
    work = contestant(name, task, size, int(batch))
    work(1)
    print(time.perf_counter() - START, file=channel, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        work(int(line))
        print(time.perf_counter() - begin, file=channel, flush=True)
    print(peak_memory(), file=channel, flush=True)


if __name__ == "__main__":
    main()
