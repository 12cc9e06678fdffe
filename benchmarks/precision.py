"""Do 2,000 steps in 16 bits go as those in float32 do?

The digits' model, its learning rate falling over all the steps, is trained on scikit-learn's
digits in each precision; float32 from several seeds, which tells how much a loss depends on chance.
A loss in 16 bits is within that noise if it lies in float32's 95 % prediction interval (Student's
t): where one more seed of float32 would lie. Finished runs are kept, and only missing ones run.

    python benchmarks/precision.py          # about 15 minutes on two cores; writes the figure
    python benchmarks/precision.py --steps 120 --results trial.json
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import description
from results import read_results, write_results

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import DiffusionParameters

RESULTS = Path(__file__).resolve().with_name("precision.json")
COLOURS = {"float32": "tab:blue", "mixed_bfloat16": "tab:orange", "mixed_float16": "tab:green"}
#: The curve is shown as means over this many stretches of equally many epochs.
STRETCHES = 4


def train(precision: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once: the loss of each epoch and of held-out digits, and seconds."""
    import keras

    from diffusion_walkthrough.training import DiffusionModel

    parameters = DiffusionParameters.digits()
    training = dataclasses.replace(parameters.training, precision=precision, decay_steps=steps)
    keras.utils.set_random_seed(seed)
    model = DiffusionModel(dataclasses.replace(parameters, training=training), seed=seed)
    model.compile()
    begin = time.perf_counter()
    history = model.fit(load_images("digits")[0], verbose=0).history
    seconds = time.perf_counter() - begin
    held_out = float(model.evaluate(load_images("digits", split="test")[0], verbose=0))
    run = {"precision": precision, "seed": seed, "steps": steps, "seconds": seconds}
    return {**run, "loss": history["loss"], "held_out": held_out}


def marks(run: dict[str, Any]) -> np.ndarray:
    """Mean losses of the stretches of a run, after its first epoch, and that of held-out digits."""
    parts = np.array_split(np.array(run["loss"][1:]), STRETCHES)
    return np.array([*(part.mean() for part in parts), run["held_out"]])


def noise(runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of where the marks of one more run like these lie, at 95 %."""
    from scipy.stats import t

    values = np.array([marks(run) for run in runs])
    count = len(values)
    width = t.ppf(0.975, count - 1) * values.std(axis=0, ddof=1) * np.sqrt(1 + 1 / count)
    return values.mean(axis=0) - width, values.mean(axis=0) + width


def table(runs: list[dict[str, Any]]) -> str:
    """Make a table of runs of equally many steps, and say which are within float32's noise."""
    low, high = noise([run for run in runs if run["precision"] == "float32"])
    names = [f"quarter {i + 1}" for i in range(STRETCHES)] + ["held out"]
    lines = ["| precision | seed | " + " | ".join(names) + " | within the noise | seconds |"]
    lines.append("|---" * (len(names) + 4) + "|")
    for run in runs:
        values = marks(run)
        is_inside = bool(((low <= values) & (values <= high)).all())
        verdict = "" if run["precision"] == "float32" else "yes" if is_inside else "**no**"
        cells = [run["precision"], run["seed"], *(f"{value:.4f}" for value in values)]
        lines.append(f"| {' | '.join(map(str, cells))} | {verdict} | {run['seconds']:.0f} |")
    ends = " | ".join(f"{a:.4f}-{b:.4f}" for a, b in zip(low, high, strict=True))
    return "\n".join([*lines, f"| float32's noise | | {ends} | | |"])


def figure(runs: list[dict[str, Any]], path: Path) -> None:
    """The loss against the step, each point the mean of about a twentieth of the run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    for run in runs:
        parts = np.array_split(np.arange(len(run["loss"])), min(20, len(run["loss"])))
        losses = [np.take(run["loss"], part).mean() for part in parts]
        steps = [(part.mean() + 0.5) * run["steps"] / len(run["loss"]) for part in parts]
        name = f"{run['precision']}, seed {run['seed']}"
        is_bold = run["precision"] != "float32"
        style = {"marker": ".", "linewidth": 1.6} if is_bold else {"linewidth": 0.9}
        panel.plot(steps, losses, color=COLOURS[run["precision"]], label=name, **style)
    panel.set(
        xlabel="step", ylabel="loss", yscale="log", title="The same training in 32 and 16 bits"
    )
    panel.yaxis.set_major_formatter("{x:.2g}")
    panel.yaxis.set_minor_formatter("{x:.2g}")
    panel.grid(alpha=0.3, which="both")
    panel.legend()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def add_missing(path: Path, wanted: list[tuple[str, int]], steps: int) -> list[dict[str, Any]]:
    """Train what the file of results lacks, keep it there, and return the wanted runs."""
    found = {(run["precision"], run["seed"], run["steps"]): run for run in read_results(path)}
    for precision, seed in wanted:
        if (precision, seed, steps) not in found:
            found[precision, seed, steps] = train(precision, seed, steps)
            write_results(path, found.values())
    return [found[precision, seed, steps] for precision, seed in wanted]


def main() -> None:
    """Run what is missing; print the table and draw the figure beside the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of float32")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    if len(chosen.seeds) < 2:
        parser.error(f"--seeds {chosen.seeds[0]} is one; noise needs at least two, say 0 1 2")
    wanted = [("float32", seed) for seed in chosen.seeds]
    wanted += [(name, chosen.seeds[0]) for name in COLOURS if name != "float32"]
    runs = add_missing(chosen.results, wanted, chosen.steps)
    print(description())
    print(f"\n**The digits, {chosen.steps} steps** (mean losses; the first epoch left out)\n")
    print(table(runs))
    figure(runs, chosen.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
