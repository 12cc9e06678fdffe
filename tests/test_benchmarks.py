"""The benchmarks are run by hand: they find what they import, and their page is right."""

import ast
import importlib
import itertools
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from diffusion_walkthrough.data import load_images
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
    known = [result for result in results if "kind" in result]
    real = run.real_marks()
    rows = page.trial_table(known, real)[2:] + page.time_table(known, real)[2:]
    assert len(rows) >= len({table.setting_of(x) for x in known if x["kind"] != "order"})
    assert [row for row in rows if row not in README.splitlines()] == []
    assert not known or page.verdict(known, real) in README


def test_the_older_times_to_quality_are_those_of_the_page():
    """How many runs and parameters, and precision and recall at the end of each recipe's minute."""
    results = json.loads((FOLDER / "time_to_quality.json").read_text("utf-8"))
    older = [result for result in results if "kind" not in result]
    for recipe in {result["recipe"] for result in older}:
        runs = [result for result in older if result["recipe"] == recipe]
        precision, recall = np.median([run["looks"][-1][2:] for run in runs], axis=0)
        size = f" {len(runs)} | {runs[0]['parameters']:,} "
        end = f" {precision:.2f} / {recall:.2f} |"
        assert any(size in row and row.endswith(end) for row in README.splitlines()), recipe


@pytest.fixture
def quality(monkeypatch):
    """The modules of the time to quality, which find each other in their folder."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("quality_run", "quality_table", "quality_page", "time_to_quality")
    yield tuple(importlib.import_module(name) for name in names[:3])
    for name in (*names, "quality_variants", "recipes_keras", "machine", "results"):
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


def test_every_variant_is_a_model_of_its_own(quality):
    variants = importlib.import_module("quality_variants")
    assert variants.parameters_of("preset") == DiffusionParameters.digits()
    told = {
        (variants.parameters_of(name), str(variant)) for name, variant in variants.VARIANTS.items()
    }
    assert len(told) == len(variants.VARIANTS) == 27


def test_the_best_variant_comes_first(quality):
    variants = importlib.import_module("quality_variants")

    def result(name, seed, best):
        looks = {
            sampler: [18.0, 18.02, 200, best - 0.1 * place, 0.9, 2]
            for place, sampler in enumerate(variants.SAMPLERS)
        }
        known = {"variant": name, "seed": seed, "planned": 18.0, "looks": looks}
        return {**known, "first_step": 7.0, "parameters": 1234}

    results = [result("preset", 0, 0.7), result("v", 0, 0.8), result("v", 1, 0.9)]
    rows = variants.table(results, [1.0, 1.0])[2:]
    assert rows[0].startswith("| v | 18 | 2 | 1,234 | 7.0 s | 200 | 0.85 / 0.90 | 0.75 / 0.90 |")
    assert rows[0].endswith("| **0.85** |")
    assert rows[1].startswith("| preset |")
    assert rows[1].endswith("| 0.70 |")


def test_questions_about_little_noise_count_less(quality):
    recipes = importlib.import_module("recipes_keras")
    weighted = recipes.variant(0, DiffusionParameters.digits(), largest_snr=5.0).model
    images = load_images("digits")[0][:8]
    shown, made_of = weighted.questions(images, batch_size=8).batch(0, 0)
    snr = weighted.schedule.snr[shown[1]]
    assert min(snr) < 5 < max(snr)
    found = weighted.compute_loss(shown, made_of, np.zeros_like(images))  # to guess no noise
    expected = np.mean(np.mean(made_of["noise"] ** 2, axis=(1, 2, 3)) * np.minimum(1, 5 / snr))
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)
