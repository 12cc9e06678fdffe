"""The benchmarks are run by hand: they find what they import, and their page is right."""

import ast
import importlib
import itertools
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.planner.counting import count_multiply_adds
from diffusion_walkthrough.training import learning_rate_schedule

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
README = (FOLDER / "README.md").read_text("utf-8")
PARTS = {"contestants", "machine", "networks", "recipes_keras", "recipes_torch", "results"}
PARTS |= {"quality_run", "quality_table", "quality_page"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_what_it_takes_from_the_package(path):
    taken = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("diffusion_walkthrough")
        for alias in node.names
    ]
    missing = [(a, b) for a, b in taken if not hasattr(importlib.import_module(a), b)]
    assert missing == []


def test_the_page_names_every_script():
    assert {path.stem for path in SCRIPTS} == PARTS | {
        line.split("`")[1].removesuffix(".py") for line in README.splitlines() if line[:3] == "| `"
    }


def test_the_network_for_mnist_is_the_one_of_the_tables(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    networks = importlib.import_module("networks")
    measured, own = networks.preset("mnist").unet, DiffusionParameters.mnist().unet
    assert round(count_multiply_adds(measured) / 1e6) == 190
    assert count_multiply_adds(measured) / count_multiply_adds(own) == pytest.approx(2.6, abs=0.05)
    assert networks.preset("mnist").prediction == "noise"
    assert networks.preset("mnist").training.ema_momentum == 0.995
    assert networks.preset("digits") == DiffusionParameters.digits()
    sys.modules.pop("networks")


def test_the_runs_in_16_bits_are_those_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    precision = importlib.import_module("precision")
    runs = json.loads((FOLDER / "precision.json").read_text("utf-8"))
    rows = precision.table(runs).splitlines()[2:]
    assert len(rows) == 6
    assert [row for row in rows if row not in README] == []
    sys.modules.pop("precision")


def test_the_times_to_quality_are_those_of_the_page(quality):
    """Every row that the results make, and the sentence about them."""
    run, table, page = quality
    results = json.loads((FOLDER / "time_to_quality.json").read_text("utf-8"))
    real = run.real_marks()
    rows = page.trial_table(results, real)[2:] + page.time_table(results, real)[2:]
    assert len(rows) >= len({table.setting_of(x) for x in results if x["kind"] != "order"})
    assert [row for row in rows if row not in README.splitlines()] == []
    assert page.verdict(results, real) in README


@pytest.fixture
def quality(monkeypatch):
    """The modules of the time to quality, which find each other in their folder."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("quality_run", "quality_table", "quality_page", "time_to_quality")
    yield tuple(importlib.import_module(name) for name in names[:3])
    for name in (*names, "recipes_keras", "machine", "results"):
        sys.modules.pop(name, None)


class Pretended:
    """A recipe that draws real digits, as many as it has learnt to, and noise for the others."""

    parameters = 7

    def __init__(self, pace):
        self.pace, self.learnt = pace, 0.0

    def train(self, images, share_of_rate):
        self.images, steps, share = images, 0, share_of_rate(0)
        while share is not None:
            self.learnt, steps = self.learnt + self.pace * share, steps + 1
            share = share_of_rate(steps)

    def draw(self, n, seed):
        random = np.random.default_rng(seed)
        images = random.permutation(self.images)[:n].copy()
        images[int(self.learnt * n) :] = random.uniform(-1, 1, images[0].shape)
        return images


@pytest.fixture
def pretended(quality, monkeypatch, tmp_path):
    """The script with two recipes that learn by a clock on which everything takes a second."""
    run, _, _ = quality
    script = importlib.import_module("time_to_quality")
    ticks = itertools.count()
    monkeypatch.setattr(run, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))

    def learns(best_batch, best_rate, pace):
        def make(seed, rate, batch):
            off = abs(np.log(batch / best_batch)) + abs(np.log(rate / best_rate))
            return Pretended(pace / (1 + off))

        return make

    for name, best, pace in (("ours", (64, 6e-3), 0.1), ("smalldiffusion", (32, 2.1e-3), 0.04)):
        faked = run.RECIPES[name]._replace(make=learns(*best, pace))
        monkeypatch.setitem(run.RECIPES, name, faked)
    monkeypatch.setattr(
        run.Setting, "make", lambda s, seed: run.RECIPES[s.recipe].make(seed, s.rate, s.batch)
    )
    calls = []

    def add(measured, work, *arguments):
        calls.append(arguments)
        measured.results.append(work(*arguments))

    monkeypatch.setattr(script.Measured, "add", add)
    return script, script.Measured(tmp_path / "results.json"), calls


NAMES = ["ours", "smalldiffusion"]


def test_six_trials_find_the_best_setting_and_are_not_run_twice(quality, pretended):
    _, table, _ = quality
    script, measured, calls = pretended
    real = quality[0].real_marks(5)
    orders = {"kind": "order", "recipe": "smalldiffusion", "channels_first": 3, "channels_last": 2}
    measured.results.append(orders)
    script.tune(measured, NAMES, 20.0, real)
    assert [len(table.trials_of(measured.results, name)) for name in NAMES] == [6, 6]
    chosen = [table.chosen_setting(measured.results, name, real) for name in NAMES]
    assert [(x.batch, x.rate, x.channels_last) for x in chosen] == [
        (64, 6e-3, False),
        (32, 2.1e-3, True),
    ]
    script.tune(measured, NAMES, 20.0, real)
    assert len(calls) == 12


def test_runs_become_shorter_until_the_goal_is_missed(quality, pretended):
    run, table, page = quality
    script, measured, calls = pretended
    real = run.real_marks(5)
    settings = [run.Setting("ours", 6e-3, 64, True), run.Setting("smalldiffusion", 7e-4, 32, True)]
    for setting in settings:
        measured.results.append(run.run("trial", setting, 0, 20.0, 0.0))
    script.run_missing(measured, NAMES, [1, 2, 3], 60.0, real)
    planned = {s.recipe: sorted(table.looks_of(measured.results, s)) for s in settings}
    for setting in settings:
        reached = [
            table.is_reached(measured.results, setting, seconds, real)
            for seconds in planned[setting.recipe]
        ]
        assert reached == [False] + [True] * (len(reached) - 1)
    assert planned["ours"][0] < planned["smalldiffusion"][0]
    count = len(calls)
    script.run_missing(measured, NAMES, [1, 2, 3], 60.0, real)
    assert len(calls) == count
    assert "times that" in page.section(measured.results, real)


def test_the_rate_by_the_clock_is_that_of_decay_steps(quality):
    run, _, _ = quality
    training = DiffusionParameters.digits().training
    by_steps = learning_rate_schedule(training)
    total, warm_up = training.decay_steps, training.warmup_steps / training.decay_steps
    assert run.RECIPES["ours"].warm_up == warm_up
    for step in (0, 50, 100, 500, 1000, total - 1):
        share = run.share_of_rate(step / total, warm_up, falls=True)
        np.testing.assert_allclose(share * 6e-3, by_steps(step), rtol=1e-4, atol=1e-9)
    assert run.share_of_rate(0.9, 0.0, falls=False) == 1.0
    published = run.RECIPES["ours"].rate, run.RECIPES["ours"].batch
    assert published == (training.learning_rate, training.batch_size)


def test_the_walks_in_fewer_steps_are_those_of_the_pages(monkeypatch):
    """All of them on the benchmarks' page, those of the faces in chapter 09 too."""
    monkeypatch.syspath_prepend(FOLDER)
    few_steps = importlib.import_module("few_steps")
    results = json.loads((FOLDER / "few_steps.json").read_text("utf-8"))
    rows = {data: few_steps.table(results, data).splitlines()[2:] for data in ("digits", "faces")}
    assert [row for row in rows["digits"] + rows["faces"] if row not in README.splitlines()] == []
    page = (FOLDER.parent / "notebooks" / "09_faster_sampling.ipynb").read_text("utf-8")
    text = "".join("".join(cell["source"]) for cell in json.loads(page)["cells"])
    shown = [row for row in text.splitlines() if row in rows["faces"]]
    assert len(shown) > 5
    assert text.count(" | 0.") >= len(shown)
    for name in ("few_steps", "machine", "results"):
        sys.modules.pop(name)


def test_the_targets_of_flow_matching_are_those_of_the_pages(monkeypatch):
    """All of them on the benchmarks' page, those of two walks and the reflow in chapter 11 too."""
    monkeypatch.syspath_prepend(FOLDER)
    script = importlib.import_module("flow_matching")
    results = json.loads((FOLDER / "flow_matching.json").read_text("utf-8"))
    rows = {row for row in script.tables(results).splitlines() if "(" in row}
    assert len(rows) > 15
    assert rows <= set(README.splitlines())
    page = (FOLDER.parent / "notebooks" / "11_flow_matching.ipynb").read_text("utf-8")
    lines = "".join("\n" + "".join(c["source"]) for c in json.loads(page)["cells"]).splitlines()
    shown = [row for row in lines if re.search(r"\(\d\.\d\d-\d\.\d\d\) \|$", row)]
    assert len(shown) == 8 + 8
    assert set(shown) <= rows
    with pytest.raises(SystemExit):
        script.chosen_by(["--reflow", "--data", "digits"])
    for name in ("flow_matching", "few_steps", "machine", "results"):
        sys.modules.pop(name)


def test_the_targets_of_flow_matching_are_trained_alike_and_tabled(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    script = importlib.import_module("flow_matching")
    made = {name: script.settings("digits", name, 500) for name in script.TARGETS}
    assert made["flow"].schedule.name == "straight"
    assert [p.prediction for p in made.values()] == ["noise", "v", "v", "flow"]
    assert len({p.training for p in made.values()}) == 1
    assert len({p.unet for p in made.values()}) == 1
    equal = {"kind": "equal", "data": "digits", "target": "flow", "walk": "DDIM", "evaluations": 10}
    after = {"kind": "reflow", "data": "faces", "model": "after", "evaluations": 1, "bend": 0.1}
    runs = [{**equal, "marks": [mark, 0.9, 0.8]} for mark in (0.2, 0.4)]
    rows = script.tables([*runs, {**after, "marks": [0.5, 0.3]}]).splitlines()
    assert "| flow | DDIM | 10 | 0.30 (0.20-0.40) | 0.90 (0.90-0.90) | 0.80 (0.80-0.80) |" in rows
    assert "| after | 0.10 (0.10-0.10) | 1 | 0.50 (0.50-0.50) | 0.30 (0.30-0.30) |" in rows
    for name in ("flow_matching", "few_steps", "machine", "results"):
        sys.modules.pop(name)
