"""After how many seconds of training are the digits nearly as good as real ones?

python benchmarks/time_to_quality.py --tune      # about 15 minutes on two cores
python benchmarks/time_to_quality.py [--recipes NAME …] [--seeds 1 2 3] [--longest 60] [--figure]

Each recipe trains from scratch on scikit-learn's 1,500 training digits. 297 drawn digits are
compared with the 297 held-out ones: precision of Kynkäänniemi et al. 2019, k = 3, and coverage of
Naeem et al. 2020, k = 5, each as a share of what 297 training digits reach in the place of the
drawn ones. The goal is ``GOAL`` of both.

"ours" is ``DiffusionParameters.digits()`` and ``DiffusionModel.fit``; the others are the published
recipes of ``recipes_keras.py`` and ``recipes_torch.py``, each on the platform it was published for.

Every learning rate falls to 0 at the end of the run, along half a cosine, by the clock
(``quality_run.py``), so that a run is planned for its seconds; published recipes keep theirs
constant, and do so here if that is better. ``--tune`` chooses for each recipe alike, in six trials
of 20 seconds (``settings_to_try``), and for PyTorch the faster order of axes before. Without it,
the chosen settings are trained in turns, with seeds of their own: for ``--longest`` seconds, and as
long as the goal is reached, anew for fewer. A recipe's time to quality is its shortest run that
reaches it. Where a constant rate was chosen, a single run is looked at after all these seconds.

What has been measured is kept in ``time_to_quality.json``, and only what is missing is run; what is
printed is the section of the page. PyTorch's recipes are left out where PyTorch is not installed
(``make parity`` installs it).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quality_page import figure, section
from quality_run import FOR_TORCH, LENGTHS, RECIPES, Setting, order, real_marks, run
from quality_table import best_of, chosen_setting, is_reached, score, trials_of
from results import read_results, write_results

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "time_to_quality.json"
FIGURE = FOLDER / "time_to_quality.png"

TRIAL, TRIAL_SEED = 20.0, 0
BATCHES = (128, 64, 32)
RATES = (1 / 3, 3)
#: A look begins no drawing after so many seconds: in a trial, and in a run.
DRAWING_IN_TRIAL, DRAWING = 15.0, 30.0


class Measured:
    """What has been measured, in its file; a new result is kept at once."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one."""
        self.path, self.results = path, read_results(path)

    def add(self, work: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        """Measure in a process of its own."""
        context = multiprocessing.get_context("spawn")  # a backend must not be forked
        with context.Pool(1) as pool:
            self.results.append(pool.apply(work, arguments))
        write_results(self.path, self.results)

    def has(self, **what: Any) -> bool:
        """Whether there is a result with these values."""
        return any(
            all(result.get(name) == value for name, value in what.items())
            for result in self.results
        )


def settings_to_try(
    recipe: str, channels_last: bool, best: Callable[[list[Setting]], Setting]
) -> Iterator[Setting]:
    """The six trials of a recipe, each after the one before; ``best`` says which was the best.

    Three batches at the published learning rate; a third of it and three times as much with the
    best of them; the best of these five with a constant rate.
    """
    rate = RECIPES[recipe].rate
    tried = [Setting(recipe, rate, batch, True, channels_last) for batch in BATCHES]
    yield from tried
    with_best_batch = best(tried)
    for factor in RATES:
        tried.append(dataclasses.replace(with_best_batch, rate=float(f"{factor * rate:.2g}")))
        yield tried[-1]
    yield dataclasses.replace(best(tried), falls=False)


def tune(measured: Measured, names: list[str], seconds: float, real: list[float]) -> None:
    """Run the trials that are missing, the recipes in turns."""
    tries = {}
    for name in names:
        if name in FOR_TORCH and not measured.has(kind="order", recipe=name):
            print(f"order of axes: {name}", flush=True)
            measured.add(order, name)
        orders = [x for x in measured.results if x["kind"] == "order" and x["recipe"] == name]
        is_last = any(x["channels_last"] < x["channels_first"] for x in orders)
        tries[name] = settings_to_try(name, is_last, lambda of: best_of(measured.results, of, real))
    while tries:
        for name in list(tries):
            setting = next(tries[name], None)
            if setting is None:
                del tries[name]
            elif not measured.has(kind="trial", **dataclasses.asdict(setting)):
                print(f"trial: {setting}", flush=True)
                measured.add(run, "trial", setting, TRIAL_SEED, seconds, DRAWING_IN_TRIAL)
                print(f"    {score(measured.results[-1]['looks'][-1], real):.2f} of real digits")


def next_length(
    measured: Measured, setting: Setting, seeds: list[int], longest: float, real: list[float]
) -> float | None:
    """The longest planned run that is missing, and has to be known; None if there is none."""
    lengths = [longest, *(seconds for seconds in LENGTHS[::-1] if seconds < longest)]
    what = {"kind": "run", **dataclasses.asdict(setting)}
    for seconds in lengths if setting.falls else lengths[:1]:
        if not all(measured.has(**what, planned=seconds, seed=seed) for seed in seeds):
            return seconds
        if not is_reached(measured.results, setting, seconds, real):
            return None
    return None


def run_missing(
    measured: Measured, names: list[str], seeds: list[int], longest: float, real: list[float]
) -> None:
    """Train the chosen settings, in turns, for ever fewer seconds while the goal is reached."""
    settings = [chosen_setting(measured.results, name, real) for name in names]
    while True:
        wanted = [(next_length(measured, s, _own(s, seeds), longest, real), s) for s in settings]
        if not any(seconds for seconds, _ in wanted):
            return
        for seed in seeds:
            for seconds, setting in wanted:
                if not seconds or seed not in _own(setting, seeds):
                    continue
                what = {"kind": "run", **dataclasses.asdict(setting)}
                if not measured.has(**what, planned=seconds, seed=seed):
                    print(f"{seconds:.0f} s, seed {seed}: {setting}", flush=True)
                    measured.add(run, "run", setting, seed, seconds, DRAWING)


def _own(setting: Setting, seeds: list[int]) -> list[int]:
    """One run is enough of what takes no step in a trial."""
    return seeds if RECIPES[setting.recipe].tuned else seeds[:1]


def main() -> None:
    """Run what is missing, print the section, draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="run the trials first, and only them")
    parser.add_argument("--recipes", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of the longest run")
    parser.add_argument("--trial", type=float, default=TRIAL, help="seconds of a trial")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", action="store_true", help=f"write {FIGURE.name} as well")
    chosen = parser.parse_args()
    names = chosen.recipes
    if importlib.util.find_spec("torch") is None:
        print(f"PyTorch is not installed: {', '.join(FOR_TORCH)} left out (see make parity).")
        names = [name for name in names if name not in FOR_TORCH]
    measured, real = Measured(chosen.results), real_marks()
    tuned = [name for name in names if RECIPES[name].tuned]
    if chosen.tune:
        tune(measured, tuned, chosen.trial, real)
    elif untried := [name for name in tuned if not trials_of(measured.results, name)]:
        parser.error(f"no trials of {', '.join(untried)} in {chosen.results.name}: --tune first")
    else:
        run_missing(measured, names, chosen.seeds, chosen.longest, real)
    print(section(measured.results, real))
    if chosen.figure:
        figure(measured.results, real, FIGURE)


if __name__ == "__main__":
    main()
