"""What the results of ``time_to_quality.py`` say: scores, the best setting, the time to quality."""

from __future__ import annotations

import statistics
from dataclasses import asdict, fields
from typing import Any

from quality_run import RECIPES, Setting

Results = list[dict[str, Any]]

#: Of the marks that real digits reach, what is to be reached.
GOAL = 0.85


def setting_of(result: dict[str, Any]) -> Setting:
    """The setting of a trial or a run."""
    return Setting(**{field.name: result[field.name] for field in fields(Setting)})


def trials_of(results: Results, recipe: str) -> Results:
    """The trials of a recipe."""
    return [x for x in results if x["kind"] == "trial" and x["recipe"] == recipe]


def shares(look: list[float], real: list[float]) -> list[float]:
    """Precision and coverage as shares of what real digits reach."""
    return [mark / best for mark, best in zip(look[3:5], real, strict=True)]


def score(look: list[float], real: list[float]) -> float:
    """The smaller of the two shares: by it, settings are chosen."""
    return min(shares(look, real))


def chosen_setting(results: Results, recipe: str, real: list[float]) -> Setting:
    """The setting of the best trial; that which was published, if there is none."""
    tried = [setting_of(trial) for trial in trials_of(results, recipe)]
    published = Setting(recipe, RECIPES[recipe].rate, RECIPES[recipe].batch, falls=False)
    return best_of(results, tried, real) if tried else published


def best_of(results: Results, settings: list[Setting], real: list[float]) -> Setting:
    """The setting whose trial has the best score."""
    trials = [trial for setting in settings for trial in trials_of(results, setting.recipe)]
    own = [trial for trial in trials if setting_of(trial) in settings]
    return setting_of(max(own, key=lambda trial: score(trial["looks"][-1], real)))


def runs_of(results: Results, setting: Setting) -> Results:
    """All runs of a setting."""
    own = asdict(setting).items()
    return [x for x in results if x["kind"] == "run" and own <= x.items()]


def looks_of(results: Results, setting: Setting) -> dict[float, list[list[float]]]:
    """The looks of all runs of a setting, by the seconds planned, the fewest first."""
    looks: dict[float, list[list[float]]] = {}
    for result in runs_of(results, setting):
        for look in result["looks"]:
            looks.setdefault(look[0], []).append(look)
    return dict(sorted(looks.items()))


def median_look(looks: list[list[float]]) -> list[float]:
    """The median of each number of several looks."""
    return [statistics.median(values) for values in zip(*looks, strict=True)]


def is_reached(results: Results, setting: Setting, seconds: float, real: list[float]) -> bool:
    """Whether the medians of the runs that were planned for so many seconds reach the goal."""
    return score(median_look(looks_of(results, setting)[seconds]), real) >= GOAL


def time_to_quality(results: Results, setting: Setting, real: list[float]) -> float | None:
    """The seconds on the clock at the look from which on the goal stays reached, None without."""
    first = None
    for looks in reversed(looks_of(results, setting).values()):
        median = median_look(looks)
        if score(median, real) < GOAL:
            break
        first = median[1]
    return first
