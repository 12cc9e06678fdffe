"""Does the velocity draw better than the noise after equal seconds, and what does a reflow buy?

python benchmarks/flow_matching.py [--data digits faces] [--seconds 60] [--seeds 0 1 2]
python benchmarks/flow_matching.py --reflow [--steps 4000] [--pairs 8000]

The first trains one network per target and seed, all of the same size, for equal seconds: how long
a step takes is measured first, and the learning rate is planned to fall to 0 at the end. Each
target has the schedule on which it is usually trained. The second lets the model of faces that
ships make pairs, trains it on with these, and compares both in 1, 2, 4 and 20 evaluations. Digits
are judged by the Fréchet distance of their pixels, and by precision and coverage over those of
held-out digits; faces by the share of legal ones, and by how far off the nearest legal face is
(median). What has been measured is kept in ``flow_matching.json``, and only what is missing there
is run.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import keras
import machine
import numpy as np
from few_steps import DRAWN, MARKS, marks_of_digits, marks_of_faces
from results import read_results, write_results

import diffusion_walkthrough.flow_matching as flow
from diffusion_walkthrough import faces
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import DiffusionParameters, ScheduleParameters
from diffusion_walkthrough.training import DiffusionModel

RESULTS = Path(__file__).resolve().parent / "flow_matching.json"
#: What is asked for, and on which schedule.
TARGETS = {
    "noise": ("noise", "cosine"),
    "v": ("v", "cosine"),
    "v, straight path": ("v", "straight"),
    "flow": ("flow", "straight"),
}
#: How each is drawn: name, step and number of evaluations; None takes all steps.
WALKS: tuple[tuple[str, str, int | None], ...] = (
    ("ancestral", "ddpm", None),
    ("DDIM", "ddim", 20),
    ("DDIM", "ddim", 10),
)
EVALUATIONS = (1, 2, 4, 20)
PAIR_STEPS = 20  # evaluations to make one pair of a reflow
RATE = 1e-3  # learning rate of a network that has learned already


def preset(data: str) -> DiffusionParameters:
    """The settings of the data set, as the pages train on it."""
    return {"digits": DiffusionParameters.digits, "faces": DiffusionParameters.faces}[data]()


def settings(data: str, target: str, steps: int) -> DiffusionParameters:
    """The preset of the data set with another target, planned for so many steps."""
    base, (prediction, name) = preset(data), TARGETS[target]
    warmup = min(base.training.warmup_steps, steps // 10)
    training = dataclasses.replace(base.training, warmup_steps=warmup, decay_steps=steps)
    schedule = ScheduleParameters(name, base.schedule.timesteps)
    return dataclasses.replace(base, schedule=schedule, training=training, prediction=prediction)


def fitted(parameters: DiffusionParameters, asked: Any, seed: int, weights: Any = None) -> Any:
    """Train a model for its ``decay_steps``; returns it, and how many seconds that took."""
    keras.utils.set_random_seed(seed)
    model = DiffusionModel(parameters, seed=seed)
    if weights is not None:
        model.network.set_weights(weights)
    model.compile()
    steps, at_once = parameters.training.decay_steps, 50
    begin = time.perf_counter()
    if isinstance(asked, flow.PairQuestions):
        model.fit(asked, epochs=max(1, steps // len(asked)), verbose=0)
    else:
        model.fit(asked, steps_per_epoch=at_once, epochs=max(1, steps // at_once), verbose=0)
    return model, time.perf_counter() - begin


class Clock(keras.callbacks.Callback):
    """Notes when each epoch ends."""

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def steps_in(data: str, images: np.ndarray, seconds: float) -> int:
    """How many steps of training fit into so many seconds here, a multiple of 50, at least 50.

    By the median of three times 50 steps, after the first, which compiles.
    """
    model, clock = DiffusionModel(settings(data, "v", 200), seed=0), Clock()
    model.compile()
    model.fit(images, steps_per_epoch=50, epochs=4, callbacks=[clock], verbose=0)
    return max(50, 50 * round(seconds / float(np.median(np.diff(clock.ends)))))


def judged(data: str, drawn: np.ndarray) -> list[float]:
    """The marks of what was drawn, rounded."""
    marks = (marks_of_digits if data == "digits" else marks_of_faces)(drawn)
    return [round(float(mark), 4) for mark in marks]


def equal_seconds(
    data: str, target: str, seed: int, seconds: float, steps: int
) -> list[dict[str, Any]]:
    """Train on one target, and draw by each walk: a result for each."""
    model, took = fitted(settings(data, target, steps), load_images(data)[0], seed)
    found = []
    for name, step, count in WALKS:
        drawn = model.sample(DRAWN[data], seed=seed, step=step, steps=count)
        found.append({
            "kind": "equal", "data": data, "target": target, "seed": seed, "seconds": seconds,
            "steps": steps, "took": round(took, 1), "walk": name,
            "evaluations": count or len(model.schedule), "marks": judged(data, drawn),
            "machine": machine.description(),
        })  # fmt: skip
    return found


def few_evaluations(name: str, model: Any, seed: int) -> list[dict[str, Any]]:
    """Draw faces in 1, 2, 4 and 20 evaluations, and measure the bend of the walks."""
    schedule, random = model.schedule, np.random.default_rng(seed)
    z = random.standard_normal(model.shape_of(DRAWN["faces"])).astype("float32")
    shares = flow.share_of_noise(schedule, np.arange(len(schedule)))

    def velocity(x: np.ndarray, s: np.ndarray) -> np.ndarray:
        t = np.abs(shares - s[:, None]).argmin(axis=1).astype("int32")
        a, b = schedule.rates(t, x.ndim)
        guess = np.asarray(model.denoise((a + b) * x, t))
        return (x - guess) / shares[t].reshape(-1, 1, 1, 1)

    bend = round(flow.bend(flow.euler(velocity, z, 10)), 4)
    common = {"kind": "reflow", "data": "faces", "model": name, "seed": seed, "bend": bend}
    found = []
    for count in EVALUATIONS:
        drawn = model.sample(len(z), x_T=z, step="ddim", steps=count)
        off = float(np.median(faces.read(drawn).distance))
        marks = [*judged("faces", drawn), round(off, 4)]
        found.append({**common, "evaluations": count, "marks": marks})
    return found


def reflow(seed: int, steps: int, pairs: int) -> list[dict[str, Any]]:
    """Make pairs with the faces' model, train it on with these; both in few evaluations."""
    teacher = load_model("faces")
    z = np.random.default_rng(1000 + seed).standard_normal(teacher.shape_of(pairs), "float32")
    made = flow.Pairs(teacher.sample(pairs, x_T=z, step="ddim", steps=PAIR_STEPS), z)
    base = preset("faces")
    asked = flow.PairQuestions(made, teacher.schedule, base.training.batch_size, seed)
    steps = len(asked) * max(1, round(steps / len(asked)))  # whole epochs
    training = dataclasses.replace(base.training, learning_rate=RATE, decay_steps=steps)
    again = dataclasses.replace(base, training=training)
    student, _ = fitted(again, asked, seed, teacher.network.get_weights())
    names = (("before", teacher), ("after", student))
    found = itertools.chain(*(few_evaluations(name, model, seed) for name, model in names))
    planned = {"steps": steps, "pairs": pairs, "machine": machine.description()}
    return [{**result, **planned} for result in found]


def tables(results: list[dict[str, Any]]) -> str:
    """A row for each target and walk, or model and evaluations: means, and the extremes."""
    lines = []
    for kind, data in itertools.product(("equal", "reflow"), DRAWN):
        some = [r for r in results if (r["kind"], r["data"]) == (kind, data)]
        if not some:
            continue
        first = ("target", "walk") if kind == "equal" else ("model", "bend")
        marks = MARKS[data] if kind == "equal" else (*MARKS[data], "how far off")
        heads = [first[0], *first[1:], "evaluations", *marks]
        lines += [f"\n**{kind}, {data}**\n", _row(heads), _row(["---"] * len(heads))]
        groups: dict[Any, list[Any]] = {}
        for r in some:
            key = (r[first[0]], r.get("walk", ""), r["evaluations"])
            groups.setdefault(key, []).append(r)
        for (name, walk, count), runs in groups.items():
            second = walk or _spread([r["bend"] for r in runs])
            columns = zip(*(r["marks"] for r in runs), strict=True)
            lines.append(_row([name, second, str(count), *map(_spread, columns)]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(values: Any) -> str:
    values = np.array(values)
    return f"{values.mean():.2f} ({values.min():.2f}-{values.max():.2f})"


def chosen_by(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", nargs="*", choices=list(DRAWN))
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--reflow", action="store_true")
    parser.add_argument("--steps", type=int, default=4000, help="of training, for the reflow")
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    if chosen.reflow and chosen.data:
        parser.error("--reflow is about faces alone: leave --data out")
    return chosen


def main() -> None:
    """Run what is missing, and print the tables."""
    chosen = chosen_by()
    results, kind = read_results(chosen.results), "reflow" if chosen.reflow else "equal"
    for data in ["faces"] if chosen.reflow else chosen.data or list(DRAWN):
        known = {(r["data"], r.get("target"), r["seed"]) for r in results if r["kind"] == kind}
        targets = [None] if chosen.reflow else chosen.targets
        asked = itertools.product(chosen.seeds, targets)
        todo = [(seed, t) for seed, t in asked if (data, t, seed) not in known]
        steps = 0
        if todo and not chosen.reflow:
            steps = steps_in(data, load_images(data)[0], chosen.seconds)
        for seed, target in todo:
            if target is None:
                results += reflow(seed, chosen.steps, chosen.pairs)
            else:
                results += equal_seconds(data, target, seed, chosen.seconds, steps)
            write_results(chosen.results, results)
    for description in sorted({result["machine"] for result in results}):
        print(description)
    print(tables(results))


if __name__ == "__main__":
    main()
