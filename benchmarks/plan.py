"""Check plans against reality: the memory and the time of a training step, predicted and measured.

Each run trains in a process of its own for a few steps; its memory is the most that it has had in
the computer's (resident, as the system counts), its time the median from the end of one step to
that of the next.

    python benchmarks/plan.py              # all runs, about eight minutes on two cores
    python benchmarks/plan.py digits       # those whose name contains "digits"
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from machine import description, peak_memory
from networks import preset

from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters, save_parameters

DIGITS, MNIST, CIFAR10 = map(preset, ("digits", "mnist", "cifar10"))
SMALL_COLOUR = replace(
    CIFAR10, unet=replace(CIFAR10.unet, base_width=32, residual_blocks=1, groups=8)
)


@dataclass(frozen=True)
class Run:
    """One training run to plan and to measure.

    Attributes:
        name: what the table calls it.
        model: the whole model; batch, parts and precision are put in.
        batch: images a step.
        steps: how many are timed.
        parts: in how many parts a step goes through its batch.
        precision: of the network.
    """

    name: str
    model: DiffusionParameters
    batch: int
    steps: int
    parts: int = 1
    precision: str = "float32"

    @property
    def parameters(self) -> DiffusionParameters:
        """The model with everything put in."""
        training = replace(
            self.model.training,
            batch_size=self.batch,
            gradient_accumulation_steps=self.parts,
            precision=self.precision,
            decay_steps=None,
        )
        return replace(self.model, training=training)


RUNS = (
    Run("digits, the paper's batch", DIGITS, 128, 60),
    Run("digits, four times the batch", DIGITS, 512, 20),
    Run("mnist, a small batch", MNIST, 32, 20),
    Run("mnist", MNIST, 128, 8),
    Run("mnist in 16 bits", MNIST, 128, 8, precision="mixed_bfloat16"),
    Run("32×32, narrow", SMALL_COLOUR, 64, 8),
    Run("32×32, narrow, in 4 parts", SMALL_COLOUR, 256, 3, parts=4),
    Run("cifar10, a tiny batch", CIFAR10, 4, 4),
    Run("cifar10, a small batch", CIFAR10, 16, 3),
    Run("cifar10, the paper's batch", CIFAR10, 128, 2),
    Run("cifar10, the paper's batch in 8 parts", CIFAR10, 128, 2, parts=8),
    Run("cifar10 in 16 bits", CIFAR10, 16, 3, precision="mixed_bfloat16"),
)


def measure(path: Path, steps: int) -> dict[str, float]:
    """Train with the parameters of a file in this process: bytes at the most, seconds a step."""
    from diffusion_walkthrough.planner.machines import StepTimes
    from diffusion_walkthrough.training import DiffusionModel

    parameters = load_parameters(path)
    shape = ((steps + 2) * parameters.training.batch_size, *parameters.unet.image_shape)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    model = DiffusionModel(parameters, seed=0)
    model.compile()
    times = StepTimes()
    model.fit(images, epochs=1, verbose=0, callbacks=[times])
    seconds = times.median(parameters.training.gradient_accumulation_steps)
    return {"memory": peak_memory(), "seconds": seconds}


def measured(run: Run) -> dict[str, float]:
    """Measure a run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_parameters(run.parameters, Path(folder) / "run.json")
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(path), str(run.steps)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{run.name} could not be measured:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(run: Run) -> str:
    """A line of the table: predicted, measured, and how far off, for memory and time."""
    from diffusion_walkthrough.planner.plan import plan

    planned, found = plan(run.parameters), measured(run)
    memory = planned.memory.total
    cells = [run.name, f"{run.batch}" + (f" in {run.parts}" if run.parts > 1 else "")]
    for ours, theirs in ((memory / 1e9, found["memory"] / 1e9),):
        cells += [f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs - 1:+.0%}"]
    ours, theirs = planned.seconds_per_step, found["seconds"]
    cells += [f"{1000 * ours:.0f}", f"{1000 * theirs:.0f}", f"{ours / theirs - 1:+.0%}"]
    return "| " + " | ".join(cells) + " |"


def main(wanted: str = "") -> None:
    """Print the table, a line as soon as it is measured."""
    print(description(), flush=True)
    print("\n| run | batch | GB planned | measured | off | ms a step planned | measured | off |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for run in RUNS:
        if wanted in run.name:
            print(row(run), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main(*sys.argv[1:2])
