"""Which other settings of ours come nearer to real digits in the same few seconds?

python benchmarks/quality_variants.py            # 54 runs of 18 seconds, and their drawings
python benchmarks/quality_variants.py [--only NAME …] [--seconds 10 18] [--seeds 0 1] [--table]

``DiffusionParameters.digits()`` is trained as ``time_to_quality.py`` trains it, the learning rate
falling to 0 by the clock, with something else in each variant: what the network is asked for, how
much a question counts, the optimizer, warm-up, averaging, the network, the steps. Each is drawn
from in four ways, since the best one can be another for another target; the clock stands still
meanwhile. Marks and goal are those of ``time_to_quality.py``.

A variant is sooner at the goal if it is there in a run of fewer ``--seconds``. With two seeds the
table is a sieve, no verdict: what is ahead of the preset by little may be so by chance.

Each run is a process of its own. Finished ones are kept in ``quality_variants.json``, and only
what is missing is run; the table, the best first, is Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, TypedDict

import machine
import numpy as np
from quality_page import both, markdown
from quality_run import RECIPES, Clock, marks, real_marks
from quality_table import GOAL, Results, median_look, score, shares
from time_to_quality import Measured

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import DiffusionParameters

RESULTS = Path(__file__).resolve().with_name("quality_variants.json")
SECONDS = 18.0
#: How often each sampler draws; its marks are the means.
DRAWINGS = 2


class Variant(TypedDict, total=False):
    """What is other than in the preset; of the first three, in that part of its parameters.

    ``warm_up`` is the share of the run in which the rate rises; ``optimizer`` and ``largest_snr``
    are options of ``recipes_keras.variant``.
    """

    unet: dict[str, Any]
    schedule: dict[str, Any]
    training: dict[str, Any]
    prediction: str
    largest_snr: float
    warm_up: float
    optimizer: dict[str, Any]


VARIANTS: dict[str, Variant] = {
    "preset": {},
    "v": {"prediction": "v"},
    "x_start": {"prediction": "x_start"},
    "flow": {"prediction": "flow"},
    "min-SNR 5": {"largest_snr": 5.0},
    "min-SNR 1": {"largest_snr": 1.0},
    "warm-up 0.03": {"warm_up": 0.03},
    "warm-up 0.2": {"warm_up": 0.2},
    "batch 64": {"training": {"batch_size": 64}},
    "batch 64, rate 4e-3": {"training": {"batch_size": 64, "learning_rate": 4e-3}},
    "rate 4e-3": {"training": {"learning_rate": 4e-3}},
    "rate 9e-3": {"training": {"learning_rate": 9e-3}},
    "β₂ 0.99": {"optimizer": {"beta_2": 0.99}},
    "β₂ 0.95": {"optimizer": {"beta_2": 0.95}},
    "Muon, rate 2e-3": {"optimizer": {"muon": True}, "training": {"learning_rate": 2e-3}},
    "average 0.99": {"training": {"ema_momentum": 0.99}},
    "no clipping": {"training": {"gradient_clip": None}},
    "width 12": {"unet": {"base_width": 12, "groups": 4}},
    "width 24": {"unet": {"base_width": 24}},
    "multipliers 1, 2": {"unet": {"width_multipliers": (1, 2)}},
    "multipliers 1, 4": {"unet": {"width_multipliers": (1, 4)}},
    "attention in the middle only": {"unet": {"attention_sizes": ()}},
    "T 50": {"schedule": {"timesteps": 50}},
    "T 200": {"schedule": {"timesteps": 200}},
    "v, batch 64": {"prediction": "v", "training": {"batch_size": 64}},
    "v, β₂ 0.95": {"prediction": "v", "optimizer": {"beta_2": 0.95}},
    "bfloat16": {"training": {"precision": "mixed_bfloat16"}},
}

#: Options of ``DiffusionModel.sample``.
SAMPLERS: dict[str, dict[str, Any]] = {
    "fixed_large": {"variance": "fixed_large"},
    "fixed_small": {"variance": "fixed_small"},
    "ddim": {"step": "ddim"},
    "dpm++2m, 25 steps": {"step": "dpm++2m", "steps": 25},
}


def parameters_of(name: str) -> DiffusionParameters:
    """What defines a variant's model and its training."""
    variant, preset = VARIANTS[name], DiffusionParameters.digits()
    return dataclasses.replace(
        preset,
        unet=dataclasses.replace(preset.unet, **variant.get("unet", {})),
        schedule=dataclasses.replace(preset.schedule, **variant.get("schedule", {})),
        training=dataclasses.replace(preset.training, **variant.get("training", {})),
        prediction=variant.get("prediction", preset.prediction),
    )


def run(name: str, seed: int, planned: float) -> dict[str, Any]:
    """Train a variant once for so many seconds; returns what was measured, ready for JSON.

    A look, one of each sampler, is as in ``quality_run.run``.
    """
    import keras
    import recipes_keras

    variant = VARIANTS[name]
    training, held_out = (load_images("digits", split=split)[0] for split in ("train", "test"))
    looks: dict[str, list[float]] = {}

    def make() -> recipes_keras.KerasRecipe:
        keras.utils.set_random_seed(seed)
        options = {"largest_snr": variant.get("largest_snr"), **variant.get("optimizer", {})}
        return recipes_keras.variant(seed, parameters_of(name), **options)

    def look(clock: Clock, at: float) -> None:
        for sampler, options in SAMPLERS.items():
            seeds = (seed + 1000 * drawing for drawing in range(DRAWINGS))
            drawn = (recipe.draw(len(held_out), own, **options) for own in seeds)
            found = np.mean([marks(images, held_out) for images in drawn], axis=0)
            begin = [at, round(clock.seconds, 2), clock.steps]
            looks[sampler] = [*begin, *found.round(4).tolist(), DRAWINGS]

    make()  # wakes the library up: not on the clock
    clock = Clock((planned,), look, variant.get("warm_up", RECIPES["ours"].warm_up), True)
    clock.start()
    recipe = make()
    recipe.train(training, clock.after_steps)
    found = {"variant": name, "seed": seed, "planned": planned, "looks": looks}
    found |= {"first_step": round(clock.first_step, 2), "parameters": recipe.parameters}
    return found | {"machine": machine.description()}


def run_missing(measured: Measured, names: list[str], seeds: list[int], planned: float) -> None:
    """Run what is missing, the variants in turns; one that fails is named, and left out."""
    for seed in seeds:
        for name in names:
            if measured.has(variant=name, seed=seed, planned=planned):
                continue
            print(f"{planned:.0f} s, seed {seed}: {name}", flush=True)
            try:
                measured.add(run, name, seed, planned)
            except Exception as error:  # one variant's mistake is not the others'
                print(f"    failed: {error!r}", flush=True)


def table(results: Results, real: list[float]) -> list[str]:
    """Every variant in a row, medians of its runs; the best first, what reaches the goal bold."""
    heads = ["variant", "seconds", "runs", "parameters", "first step", "steps", *SAMPLERS]
    rows = []
    for planned, name in dict.fromkeys((x["planned"], x["variant"]) for x in results):
        own = [x for x in results if (x["planned"], x["variant"]) == (planned, name)]
        looks = [median_look([x["looks"][sampler] for x in own]) for sampler in SAMPLERS]
        best = max(score(look, real) for look in looks)
        first = float(np.median([x["first_step"] for x in own]))
        cells = [name, f"{planned:g}", str(len(own)), f"{own[0]['parameters']:,}"]
        cells += [f"{first:.1f} s", f"{looks[0][2]:.0f}", *(both(shares(x, real)) for x in looks)]
        cells.append(f"**{best:.2f}**" if best >= GOAL else f"{best:.2f}")
        rows.append((planned, -best, cells))
    return markdown([[*heads, "the smaller, at best"], *(cells for *_, cells in sorted(rows))])


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", nargs="+", type=float, default=[SECONDS])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="run nothing, only print the table")
    chosen = parser.parse_args()
    measured, real = Measured(chosen.results), real_marks()
    for planned in [] if chosen.table else chosen.seconds:
        run_missing(measured, chosen.only, chosen.seeds, planned)
    print("```text", *sorted({x["machine"] for x in measured.results}), "```", "", sep="\n")
    print(f"Precision / coverage, as shares of real digits' {both(real)}:\n")
    print("\n".join(table(measured.results, real)))


if __name__ == "__main__":
    main()
