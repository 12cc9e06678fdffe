"""How good are digits and faces drawn in fewer evaluations of the network, by which walk?

python benchmarks/few_steps.py [--data digits faces] [--seeds 0 1 2]

The models that ship draw 297 digits or 300 faces by each walk with each seed. Digits are judged by
the Fréchet distance of their pixels to the training set, and by precision and coverage over those
of the 297 held-out digits; faces by the share of legal ones (``faces.read``). All walks of a seed
follow each other, so that a machine that slows down slows all of them. What has been measured is
kept in ``few_steps.json``, and only what is missing there is run.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
from results import read_results, write_results

from diffusion_walkthrough import faces
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import density_coverage, frechet_distance, precision_recall
from diffusion_walkthrough.faster_sampling import restart

RESULTS = Path(__file__).resolve().parent / "few_steps.json"
#: Where a walk begins: the digits' schedule ends at σ = 2,029, the faces' leaps from 16 to ∞.
FROM_80, FROM_15 = ({"spacing": "log_snr", "sigma_max": sigma} for sigma in (80, 15))

#: A restart: under noise of this σ, and back in so many steps.
RESTART_SIGMA, RESTART_STEPS = 0.4, 10

#: For each data set the walks: name, step, options, and in how many steps.
WALKS: dict[str, list[tuple[str, str, dict[str, Any], tuple[int, ...]]]] = {
    "digits": [
        ("ancestral", "ddpm", {}, (100, 20, 10)),
        ("ancestral, 3 restarts", "ddpm", {"restarts": 3}, (20,)),
        ("DDIM", "ddim", {}, (20, 10, 5)),
        ("DDIM, η = 1", "ddim", {"eta": 1.0}, (20, 10)),
        ("2M, even", "dpm++2m", {"sigma_max": 80}, (20, 10, 5)),
        ("2M, log SNR", "dpm++2m", FROM_80, (20, 10, 5)),
        ("Heun, log SNR", "heun", FROM_80, (10, 5)),
    ],
    "faces": [
        ("ancestral", "ddpm", {}, (250, 100, 50, 20)),
        ("ancestral, 3 restarts", "ddpm", {"restarts": 3}, (50, 20)),
        ("DDIM", "ddim", {}, (50, 20, 10)),
        ("DDIM, η = 1", "ddim", {"eta": 1.0}, (50, 20)),
        ("2M, even", "dpm++2m", {}, (20, 10)),
        ("2M, log SNR", "dpm++2m", FROM_15, (20, 10)),
        ("Heun, log SNR", "heun", FROM_15, (10,)),
    ],
}
DRAWN = {"digits": 297, "faces": 300}
MARKS = {"digits": ("Fréchet distance", "precision", "coverage"), "faces": ("legal",)}


def marks_of_digits(drawn: np.ndarray) -> list[float]:
    """Fréchet distance, and precision and coverage over those of held-out digits."""
    real, held_out = (load_images("digits", split=split)[0] for split in ("train", "test"))
    shares = [
        mark(real, drawn)[which] / mark(real, held_out)[which]
        for mark, which in ((precision_recall, 0), (density_coverage, 1))
    ]
    return [frechet_distance(real, drawn), *shares]


def marks_of_faces(drawn: np.ndarray) -> list[float]:
    """The share of legal faces."""
    return [float(faces.read(drawn).legal.mean())]


def count(walk: tuple[Any, ...], steps: int) -> int:
    """How often a walk asks: Heun's twice a step, but once in its last; restarts ask again."""
    _, step, options, _ = walk
    return (2 * steps - 1 if step == "heun" else steps) + RESTART_STEPS * options.get("restarts", 0)


def draw(
    model: Any, n: int, seed: int, step: str, steps: int, restarts: int = 0, **options: Any
) -> np.ndarray:
    """Draw by one walk, and restart so many times."""
    images = model.sample(n, seed=seed, step=step, steps=steps, **options)
    for number in range(1, restarts + 1):
        known = model.denoise, model.schedule, images, RESTART_SIGMA
        images = np.asarray(restart(*known, seed=seed + 1000 * number, steps=RESTART_STEPS))
    return images


def measure(model: Any, data: str, seed: int, walk: tuple[Any, ...], steps: int) -> dict[str, Any]:
    """Draw by one walk, and mark what was drawn; returns what goes into the file."""
    name, step, options, _ = walk
    draw(model, 2, 0, step, steps, **options)  # compiles
    begin = time.perf_counter()
    drawn = draw(model, DRAWN[data], seed, step, steps, **options)
    seconds = time.perf_counter() - begin
    marks = (marks_of_digits if data == "digits" else marks_of_faces)(drawn)
    return {
        "data": data,
        "walk": name,
        "evaluations": count(walk, steps),
        "seed": seed,
        "seconds": round(seconds, 2),
        "marks": [round(mark, 4) for mark in marks],
        "machine": machine.description(),
    }


def add_missing(path: Path, data_sets: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """Run what is not in the file yet; returns all there is."""
    results = read_results(path)
    known = {(r["data"], r["walk"], r["evaluations"], r["seed"]) for r in results}
    for data in data_sets:
        model = load_model(data)
        walks = [(walk, steps) for walk in WALKS[data] for steps in walk[3]]
        for seed, (walk, steps) in itertools.product(seeds, walks):
            if (data, walk[0], count(walk, steps), seed) not in known:
                results.append(measure(model, data, seed, walk, steps))
                write_results(path, results)
    return results


def table(results: list[dict[str, Any]], data: str) -> str:
    """Each walk in a row: the mean of its marks, in brackets the smallest and the largest."""
    heads = ["walk", "evaluations", "seconds", *MARKS[data]]
    rows = [heads, ["---"] * len(heads)]
    for key in ((walk[0], count(walk, steps)) for walk in WALKS[data] for steps in walk[3]):
        runs = [r for r in results if (r["data"], r["walk"], r["evaluations"]) == (data, *key)]
        marks = np.array([r["marks"] for r in runs])
        cells = [f"{m.mean():.2f} ({m.min():.2f}-{m.max():.2f})" for m in marks.T]
        seconds = f"{np.median([r['seconds'] for r in runs]):.1f}"
        rows.append([key[0], str(key[1]), seconds, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", nargs="*", choices=list(WALKS), default=list(WALKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    results = add_missing(chosen.results, chosen.data, chosen.seeds)
    for description in sorted({result["machine"] for result in results}):
        print(description)
    for data in chosen.data:
        print(f"\n**{DRAWN[data]} {data} by each walk**\n\n{table(results, data)}")


if __name__ == "__main__":
    main()
