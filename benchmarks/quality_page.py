"""The section of the page, and the figure, that ``time_to_quality.py`` makes of its results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from quality_run import LENGTHS, RECIPES, Setting
from quality_table import (
    GOAL,
    Results,
    chosen_setting,
    looks_of,
    median_look,
    runs_of,
    score,
    setting_of,
    shares,
    time_to_quality,
    trials_of,
)


def section(results: Results, real: list[float]) -> str:
    """What was measured, in Markdown: machine, orders of axes, trials, times, verdict."""
    machines = sorted({result["machine"] for result in results})
    parts = ["```text", *machines, "```", "", *_orders(results), ""]
    parts += [*trial_table(results, real), ""]
    if any(result["kind"] == "run" for result in results):
        parts += [*time_table(results, real), "", verdict(results, real)]
    return "\n".join(parts)


def markdown(rows: list[list[str]]) -> list[str]:
    """The lines of a table, the first of which heads it."""
    heads, *others = rows
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *others)]


def both(pair: Any) -> str:
    """Precision and coverage in a cell."""
    return f"{pair[0]:.2f} / {pair[1]:.2f}"


def _orders(results: Results) -> list[str]:
    return [
        f"{x['recipe']}, batch {x['batch']}: {x['channels_first']:.0f} ms a step in PyTorch's own "
        f"order of axes, {x['channels_last']:.0f} ms in `channels_last`."
        for x in results
        if x["kind"] == "order"
    ]


def trial_table(results: Results, real: list[float]) -> list[str]:
    """Every trial in a row, the best of each recipe in bold."""
    rows = [["recipe", "batch", "learning rate", "steps", "precision / coverage", "the smaller"]]
    for name in RECIPES:
        best = chosen_setting(results, name, real)
        for trial in trials_of(results, name):
            setting, look = setting_of(trial), trial["looks"][-1]
            rate = f"{setting.rate:g}, {'falling' if setting.falls else 'constant'}"
            smaller = f"{score(look, real):.2f}"
            smaller = f"**{smaller}**" if setting == best else smaller
            pair = both(shares(look, real))
            rows.append([name, str(setting.batch), rate, str(look[2]), pair, smaller])
    return markdown(rows)


def time_table(results: Results, real: list[float]) -> list[str]:
    """Every recipe in a row: what it is, its marks after so many seconds, its time to quality."""
    lengths = sorted({look[0] for x in results if x["kind"] == "run" for look in x["looks"]})
    heads = ["recipe", "runs", "parameters", "first step", "ms a step"]
    heads += [f"{seconds:.0f} s" for seconds in lengths]
    rows = [[*heads, "lowest … highest", f"{GOAL:.2f} of both after"]]
    for name in RECIPES:
        setting = chosen_setting(results, name, real)
        if runs := runs_of(results, setting):
            rows.append(_row(results, setting, runs, lengths, real))
    return markdown(rows)


def _row(
    results: Results, setting: Setting, runs: Results, lengths: list[float], real: list[float]
) -> list[str]:
    looks, seconds = looks_of(results, setting), time_to_quality(results, setting, real)
    first = statistics.median(run["first_step"] for run in runs)
    ends = [(run["looks"][-1], run["first_step"]) for run in runs]
    pace = statistics.median((end[1] - start) / max(end[2] - 1, 1) for end, start in ends)
    cells = [setting.recipe, str(len({run["seed"] for run in runs})), f"{runs[0]['parameters']:,}"]
    cells += [f"{first:.1f} s", f"{1000 * pace:.0f}"]
    for length in lengths:
        known = length in looks
        cells.append(both(shares(median_look(looks[length]), real)) if known else "")
    last = max(looks) if seconds is None else min(looks, key=lambda x: abs(x - seconds))
    of_runs = np.array([shares(look, real) for look in looks[last]])
    cells.append(f"{both(of_runs.min(axis=0))} … {both(of_runs.max(axis=0))}")
    reached = f"not within {max(looks):.0f} s" if seconds is None else f"{seconds:.1f} s"
    return [*cells, reached]


def verdict(results: Results, real: list[float]) -> str:
    """Ours beside the best other, in a sentence or two."""
    times: dict[str, float] = {}
    longest: dict[str, float] = {}
    for name in RECIPES:
        setting = chosen_setting(results, name, real)
        if looks := looks_of(results, setting):
            longest[name] = max(looks)
            seconds = time_to_quality(results, setting, real)
            times |= {} if seconds is None else {name: seconds}
    goal = f"{GOAL:.2f} of real digits' precision ({real[0]:.3f}) and coverage ({real[1]:.3f})"
    if "ours" not in times:
        return f"Ours does not reach {goal} within {longest.get('ours', 0):.0f} s."
    said, others = f"Ours reaches {goal} after {times['ours']:.1f} s", set(times) - {"ours"}
    if others:
        best = min(others, key=times.__getitem__)
        ratio = times[best] / times["ours"]
        return f"{said}, the best other, {best}, after {times[best]:.1f} s: {ratio:.1f} times that."
    least = min((seconds for name, seconds in longest.items() if name != "ours"), default=0.0)
    ratio = least / times["ours"]
    return f"{said}, none of the others within {least:.0f} s: more than {ratio:.1f} times that."


def figure(results: Results, real: list[float], path: Path) -> None:
    """Precision and coverage against seconds: medians of the runs and their range.

    A hollow mark is the recipe's best trial.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for panel, which, title in zip(panels, (0, 1), ("precision", "coverage"), strict=True):
        for name in RECIPES:
            _curve(panel, results, chosen_setting(results, name, real), real, which)
        panel.axhline(real[which], color="black", linestyle="--", label="real digits")
        goal = GOAL * real[which]
        panel.axhline(goal, color="gray", linestyle=":", label=f"the goal, {GOAL:.2f} of that")
        panel.set(title=title, xscale="log", xlabel="seconds of training", ylim=(-0.03, 1.03))
        panel.set_xticks(LENGTHS, [f"{seconds}" for seconds in LENGTHS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of images")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _curve(panel: Any, results: Results, setting: Setting, real: list[float], which: int) -> None:
    """A recipe's marks over the seconds that the clock really showed."""
    looks, recipe = looks_of(results, setting), RECIPES[setting.recipe]
    style = {"color": recipe.colour, "marker": recipe.marker}
    if looks:
        medians = np.array([median_look(x) for x in looks.values()])
        panel.plot(medians[:, 1], medians[:, 3 + which], label=setting.recipe, **style)
        marks = [[look[3 + which] for look in x] for x in looks.values()]
        low, high = [min(x) for x in marks], [max(x) for x in marks]
        panel.fill_between(medians[:, 1], low, high, color=recipe.colour, alpha=0.15)
        spread = np.abs(np.array([low, high]) - medians[:, 3 + which])
        panel.errorbar(
            medians[:, 1], medians[:, 3 + which], yerr=spread, fmt="none", ecolor=recipe.colour
        )
    trials = [x for x in trials_of(results, setting.recipe) if setting_of(x) == setting]
    for trial in trials:
        look = trial["looks"][-1]
        panel.plot(look[1], look[3 + which], fillstyle="none", linestyle="none", **style)
