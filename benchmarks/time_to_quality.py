"""How good are the digits that a minute of training on this machine can draw?

python benchmarks/time_to_quality.py [--recipes NAME ...] [--seeds 0 1 2] [--figure]

Each recipe trains from scratch on scikit-learn's 1,500 training digits, for 60 seconds by a clock
that runs while the model is built, compiled and trained, and stands still while images are drawn
and marked. After 5, 10, 20, 40 and 60 seconds, or at the end of the step that runs by then, 297
images are drawn and compared with the 297 held-out digits: precision and recall of Kynkäänniemi et
al. 2019 with k = 3, as in chapter 06. A single drawing tells recall within 0.03 only, so the last
look takes the mean over eight, or over as many as a minute allows. The mark to reach is that of
real digits: 297 training digits in place of the drawn ones.

"ours" is ``DiffusionParameters.digits()`` and ``DiffusionModel.fit``; the others are the published
recipes of ``recipes_keras.py`` and ``recipes_torch.py``, each on the platform it was published for
and in a process of its own. Those for PyTorch are left out where PyTorch is not installed (``make
parity`` installs it). What has been measured is kept in ``time_to_quality.json``, and only what is
missing there is run.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import machine
import numpy as np
from results import read_results, write_results

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import precision_recall

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "time_to_quality.json"
FIGURE = FOLDER / "time_to_quality.png"

SECONDS = (5, 10, 20, 40, 60)
K = 3
#: The last look draws this often, but begins no drawing after so many seconds.
DRAWINGS, SECONDS_TO_DRAW = 8, 60
#: Of the marks that real digits reach, what the model should reach after the last look.
WANTED = 0.9


class Recipe(Protocol):
    """What trains and draws."""

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""

    @property
    def averaged(self) -> Any:
        """False or None if the weights are not averaged."""

    def train(self, images: np.ndarray, after_step: Callable[[int], bool]) -> None:
        """Train until ``after_step``, told the number of steps, says False."""

    def draw(self, n: int, seed: int, averaged: bool = True) -> np.ndarray:
        """Draw images."""


def _ours(seed: int) -> Recipe:
    import keras
    import recipes_keras

    keras.utils.set_random_seed(seed)
    return recipes_keras.ours(seed)


def _keras_example(seed: int) -> Recipe:
    import keras
    import recipes_keras

    keras.utils.set_random_seed(seed)
    return recipes_keras.keras_example(seed)


def _annotated(dim: int) -> Callable[[int], Recipe]:
    def make(seed: int) -> Recipe:
        import recipes_torch
        import torch

        torch.manual_seed(seed)
        return recipes_torch.AnnotatedDiffusion(dim)

    return make


def _small(batch_size: int) -> Callable[[int], Recipe]:
    def make(seed: int) -> Recipe:
        import recipes_torch
        import torch

        torch.manual_seed(seed)
        return recipes_torch.SmallDiffusion(batch_size)

    return make


#: How each recipe is made from a seed. A recipe's library is imported only where it is made.
RECIPES: dict[str, Callable[[int], Recipe]] = {
    "ours": _ours,
    "Keras example": _keras_example,
    "annotated, width 8": _annotated(8),
    "annotated, width 28": _annotated(28),
    "smalldiffusion": _small(1024),
    "smalldiffusion, batch 128": _small(128),
}
#: Okabe & Ito's colours, which most colour-blind readers can tell apart.
COLOURS = dict(
    zip(RECIPES, ("#D55E00", "#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#E69F00"), strict=True)
)
FOR_TORCH = tuple(name for name in RECIPES if name.startswith(("annotated", "small")))


# ---------------------------------------------------------------------------------------------
# One run
# ---------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still while somebody looks, and says when the last look is over.

    Attributes:
        seconds: what the clock shows.
        steps: training steps so far.
        first_step: the seconds shown after the first step, compilation included.
        waiting: the looks still to come, in seconds.
    """

    def __init__(self, looks: tuple[float, ...], look: Callable[[Clock], None]) -> None:
        """Plan to call ``look`` once the clock shows each of ``looks`` seconds."""
        self.waiting, self.look = list(looks), look
        self.seconds, self.steps, self.first_step = 0.0, 0, 0.0

    def start(self) -> None:
        """Let the clock run."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Let the clock stand."""
        self.seconds += time.perf_counter() - self._since

    def after_step(self, steps: int) -> bool:
        """Look, if it is time to; says whether to train on."""
        self.stop()
        self.steps = steps
        self.first_step = self.first_step or self.seconds
        if self.waiting and self.seconds >= self.waiting[0]:
            self._look()
        self.start()
        return bool(self.waiting)

    def finish(self) -> None:
        """Stop; a run that ends before the last look is what it is at that look."""
        self.stop()
        while self.waiting:
            self._look()

    def _look(self) -> None:
        self.waiting.pop(0)
        self.look(self)


def quality(images: np.ndarray, held_out: np.ndarray) -> list[float]:
    """Precision and recall; 0 for images that are not finite."""
    if not np.isfinite(images).all():
        return [0.0, 0.0]
    return [round(value, 4) for value in precision_recall(held_out, images, k=K)]


def repeated_quality(recipe: Recipe, seed: int, held_out: np.ndarray) -> tuple[list[float], int]:
    """The mean over several drawings, and how many there were."""
    begin, marks = time.perf_counter(), list[list[float]]()
    while len(marks) < DRAWINGS and (not marks or time.perf_counter() - begin < SECONDS_TO_DRAW):
        drawn = recipe.draw(len(held_out), seed + 1000 * len(marks))
        marks.append(quality(drawn, held_out))
    return [round(value, 4) for value in np.mean(marks, axis=0).tolist()], len(marks)


def run(name: str, seed: int, looks: tuple[float, ...] = SECONDS) -> dict[str, Any]:
    """Train one recipe from scratch; returns what was measured, ready for JSON."""
    training, _ = load_images("digits", split="train")
    held_out, _ = load_images("digits", split="test")
    result: dict[str, Any] = {"recipe": name, "seed": seed, "looks": []}

    def look(clock: Clock) -> None:
        if clock.waiting:
            marks = quality(recipe.draw(len(held_out), seed), held_out)
        else:
            marks, result["drawings"] = repeated_quality(recipe, seed, held_out)
        result["looks"].append([round(clock.seconds, 2), clock.steps, *marks])
        if not clock.waiting and recipe.averaged:
            drawn = recipe.draw(len(held_out), seed, averaged=False)
            result["without_average"] = quality(drawn, held_out)

    RECIPES[name](seed)  # imports the library and wakes it up: not on the clock
    clock = Clock(looks, look)
    clock.start()
    recipe = RECIPES[name](seed)
    recipe.train(training, clock.after_step)
    clock.finish()
    result["parameters"] = recipe.parameters
    result["first_step"] = round(clock.first_step, 2)
    result["machine"] = machine.description()
    return result


def real_digits(repeats: int = 50) -> list[float]:
    """The mark to reach: precision and recall of training digits, mean over several draws."""
    training, _ = load_images("digits", split="train")
    held_out, _ = load_images("digits", split="test")
    generator = np.random.default_rng(0)
    marks = [
        precision_recall(held_out, generator.permutation(training)[: len(held_out)], k=K)
        for _ in range(repeats)
    ]
    return np.mean(marks, axis=0).tolist()


# ---------------------------------------------------------------------------------------------
# All runs, the table and the figure
# ---------------------------------------------------------------------------------------------


def add_missing(path: Path, names: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """Run what is not in the file yet, each run in a process of its own; returns all there is."""
    results = read_results(path)
    known = {(result["recipe"], result["seed"]) for result in results}
    context = multiprocessing.get_context("spawn")  # a backend must not be forked
    for seed in seeds:
        for name in names:
            if (name, seed) in known:
                continue
            print(f"training: {name}, seed {seed}", flush=True)
            with context.Pool(1) as pool:
                results.append(pool.apply(run, (name, seed)))
            write_results(path, results)
    return results


def marks_at(results: list[dict[str, Any]], look: int, which: int) -> tuple[float, float, float]:
    """The median, lowest and highest of several runs: 0 seconds, 1 steps, 2 precision, 3 recall."""
    values = [result["looks"][look][which] for result in results]
    return statistics.median(values), min(values), max(values)


def table(results: list[dict[str, Any]], best: list[float]) -> str:
    """Each recipe in a row: its size, its steps, and the medians of its marks at each look."""
    heads = ["recipe", "runs", "parameters", "first step", "steps"]
    heads += [f"{seconds} s" for seconds in SECONDS]
    heads += ["from … to, at the end", "at the end, weights not averaged"]
    rows = [heads, ["---"] * len(heads)]
    for name in RECIPES:
        runs = [result for result in results if result["recipe"] == name]
        if runs:
            rows.append(_row(name, runs))
    rows.append(["real digits", *[""] * (len(SECONDS) + 3), _both(best), "", ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", "Marks: precision / recall, medians of the runs. Recall counts only beside"]
    lines += ["precision: the balls around noise are so wide that all digits lie in them."]
    lines += [_verdict(results, best)]
    return "\n".join(lines)


def _both(marks: Any) -> str:
    return f"{marks[0]:.2f} / {marks[1]:.2f}"


def _row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    first = statistics.median(result["first_step"] for result in runs)
    steps = statistics.median(result["looks"][-1][1] for result in runs)
    cells = [name, str(len(runs)), f"{runs[0]['parameters']:,}", f"{first:.1f} s", f"{steps:.0f}"]
    for look in range(len(SECONDS)):
        cells.append(_both([marks_at(runs, look, which)[0] for which in (2, 3)]))
    ends = [[marks_at(runs, -1, which)[side] for which in (2, 3)] for side in (1, 2)]
    cells.append(f"{_both(ends[0])} … {_both(ends[1])}" if len(runs) > 1 else "")
    own = [result["without_average"] for result in runs if "without_average" in result]
    cells.append(_both(np.median(own, axis=0)) if own else "")
    return cells


def _verdict(results: list[dict[str, Any]], best: list[float]) -> str:
    runs = [result for result in results if result["recipe"] == "ours"]
    if not runs:
        return "Ours has not been run."
    shares = [marks_at(runs, -1, which)[0] / best[which - 2] for which in (2, 3)]
    kept = "reached" if min(shares) >= WANTED else "missed"
    return (
        f"Ours after {SECONDS[-1]} s, as a share of what real digits reach: precision "
        f"{shares[0]:.2f}, recall {shares[1]:.2f} (wanted: {WANTED:.2f} each; {kept})."
    )


def figure(results: list[dict[str, Any]], best: list[float], path: Path) -> None:
    """Two panels, precision and recall against seconds: median of the runs, and their range."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for panel, which, title in zip(panels, (2, 3), ("precision", "recall"), strict=True):
        for (name, colour), marker in zip(COLOURS.items(), "osD^vP", strict=True):
            runs = [result for result in results if result["recipe"] == name]
            if runs:
                _curve(panel, runs, which, color=colour, marker=marker, label=name)
        panel.axhline(best[which - 2], color="black", linestyle="--", label="real digits")
        panel.set(title=title, xscale="log", xlabel="seconds of training", ylim=(-0.03, 1.03))
        panel.set_xticks(SECONDS, [str(seconds) for seconds in SECONDS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of images")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _curve(panel: Any, runs: list[dict[str, Any]], which: int, **style: Any) -> None:
    """The marks over the seconds that the clock really showed: a look waits for a step's end."""
    looks = range(len(SECONDS))
    seconds = [marks_at(runs, look, 0)[0] for look in looks]
    marks = np.array([marks_at(runs, look, which) for look in looks])
    panel.plot(seconds, marks[:, 0], **style)
    panel.fill_between(seconds, marks[:, 1], marks[:, 2], color=style["color"], alpha=0.15)


def main() -> None:
    """Run what is missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipes", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", action="store_true", help=f"write {FIGURE.name} as well")
    chosen = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        print(f"PyTorch is not installed: {', '.join(FOR_TORCH)} left out (see make parity).")
        chosen.recipes = [name for name in chosen.recipes if name not in FOR_TORCH]
    results = add_missing(chosen.results, chosen.recipes, chosen.seeds)
    best = real_digits()
    for description in sorted({result["machine"] for result in results}):
        print(description)
    print(table(results, best))
    if chosen.figure:
        figure(results, best, FIGURE)


if __name__ == "__main__":
    main()
