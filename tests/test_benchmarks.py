"""The benchmarks' own parts: what they print about the machine, and the recipes they compare."""

import re
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import contestants
import distributed
import gpu
import machine
import precision
import recipes_keras
import time_to_quality as ttq


def test_the_description_says_what_was_measured_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    text = machine.description()
    memory = psutil.virtual_memory().total / 2**30
    assert f"{machine.usable_cores()} cores, {memory:.0f} GiB" in text
    assert f"python {sys.version.split()[0]}" in text
    assert re.search(r"keras \d+\.\d+", text)
    assert "OMP_NUM_THREADS=3" in text


def test_the_description_names_neither_the_machine_nor_a_path():
    text = machine.description()
    for name in {machine.platform.node(), str(Path.home()), str(Path.cwd())} - {"", "/"}:
        assert name not in text


# ---------------------------------------------------------------------------------------------
# time_to_quality
# ---------------------------------------------------------------------------------------------


def some_digits(count=2):
    return np.random.default_rng(0).uniform(-1, 1, (count, 8, 8, 1)).astype("float32")


def test_the_keras_recipe_marks_its_guess_and_draws():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    recipe = recipes_keras.keras_example(0)
    noise, guess = recipe.model(some_digits(), training=True)
    assert noise.shape == guess.shape == (2, 8, 8, 1)
    # The last convolution begins at (almost) zero: what is left is the noise, of variance 1.
    assert float(recipe.model.compute_loss(y_pred=(noise, guess))) == pytest.approx(1, abs=0.4)
    recipe.model.draw_steps = 2
    drawn = recipe.draw(2, seed=0)
    assert drawn.shape == (2, 8, 8, 1)
    assert np.abs(drawn).max() <= 1


class Drawer:
    """Draws something else for each seed."""

    def __init__(self):
        self.seeds = []

    def draw(self, n, seed, averaged=True):
        self.seeds.append(seed)
        return np.random.default_rng(seed).uniform(-1, 1, (n, 8, 8, 1))


def test_the_last_look_is_the_mean_of_several_drawings():
    recipe, held_out = Drawer(), some_digits(60)
    marks, count = ttq.repeated_quality(recipe, 5, held_out)
    each = [ttq.quality(Drawer().draw(60, seed), held_out) for seed in recipe.seeds]
    assert count == len(set(recipe.seeds)) == ttq.DRAWINGS
    assert np.std(each, axis=0).min() > 0
    np.testing.assert_allclose(marks, np.mean(each, axis=0), atol=1e-4)


def test_slow_drawings_end_the_last_look(monkeypatch):
    monkeypatch.setattr(ttq, "SECONDS_TO_DRAW", 0)
    recipe = Drawer()
    assert ttq.repeated_quality(recipe, 5, some_digits(20))[1] == len(recipe.seeds) == 1


@pytest.mark.parametrize("name", ttq.FOR_TORCH)
def test_a_torch_recipe_trains_and_draws(name):
    pytest.importorskip("torch", reason="PyTorch is not installed here")
    recipe = ttq.RECIPES[name](0)
    import torch

    images = torch.from_numpy(some_digits()).permute(0, 3, 1, 2)
    guess = recipe.network(images, torch.tensor([0, recipe.levels - 1]))
    assert guess.shape == images.shape
    before = [weight.detach().clone() for weight in recipe.network.parameters()]
    recipe.train(some_digits(), lambda step: step < 2)
    after = list(recipe.network.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    drawn = recipe.draw(2, seed=0)
    assert drawn.shape == (2, 8, 8, 1)
    assert np.abs(drawn).max() <= 1


def test_torch_recipes_noise_as_their_sources_say():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    images, noise = torch.ones(2, 1, 8, 8), torch.full((2, 1, 8, 8), 2.0)
    annotated = ttq.RECIPES["annotated, width 8"](0)
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 300))[[0, 299]]  # 22 % is left of the image
    expected = np.sqrt(signal) + 2 * np.sqrt(1 - signal)
    hidden = annotated.noised(images, torch.tensor([0, 299]), noise)[:, 0, 0, 0]
    np.testing.assert_allclose(hidden, expected, rtol=1e-5)
    small = ttq.RECIPES["smalldiffusion, batch 128"](0)
    hidden = small.noised(images, torch.tensor([0, 799]), noise)[:, 0, 0, 0]
    np.testing.assert_allclose(hidden, [1.02, 41], rtol=1e-4)


def test_the_clock_stands_still_while_somebody_looks(monkeypatch):
    now = iter(np.arange(0.0, 100.0, 3.0))  # each time anybody asks, three seconds have passed
    monkeypatch.setattr(ttq.time, "perf_counter", lambda: float(next(now)))
    seen = []

    def look(clock):
        ttq.time.perf_counter()  # looking takes time as well
        seen.append((clock.seconds, clock.steps))

    clock = ttq.Clock((5, 10, 1000), look)
    clock.start()
    going_on = [clock.after_step(step) for step in (1, 2, 3, 4)]
    assert clock.first_step == 3
    assert seen == [(6, 2), (12, 4)]
    assert all(going_on)
    clock.finish()  # a run that ends early is what it is at the last look
    assert seen == [(6, 2), (12, 4), (15, 4)]
    assert not clock.waiting


def test_the_table_says_whether_the_wanted_quality_is_reached():
    looks = [[seconds, 1, 0.5, 0.4] for seconds in ttq.SECONDS]
    run = {"recipe": "ours", "seed": 0, "looks": looks, "parameters": 1234, "first_step": 1.0}
    reached = ttq.table([run], [0.5, 0.44])
    assert "1,234" in reached
    assert "reached" in reached
    assert "missed" in ttq.table([run], [0.5, 0.45])
    assert "missed" in ttq.table([run], [0.56, 0.4])


# ---------------------------------------------------------------------------------------------
# precision, distributed
# ---------------------------------------------------------------------------------------------


def a_run(precision_name, seed, level):
    losses = [9.0] + [level + 0.1 * quarter for quarter in range(4)]
    run = {"precision": precision_name, "seed": seed, "steps": 60, "seconds": 1.0}
    return {**run, "loss": losses, "held_out": level}


def test_the_noise_of_float32_is_where_one_more_seed_would_lie():
    runs = [a_run("float32", seed, level) for seed, level in enumerate((1.0, 1.1, 1.2))]
    low, high = precision.noise(runs)
    # Three seeds: mean 1.1, deviation 0.1, and Student's 4.3027 for two degrees of freedom.
    width = 4.3027 * 0.1 * np.sqrt(4 / 3)
    np.testing.assert_allclose(low, 1.1 - width + np.array([0, 0.1, 0.2, 0.3, 0]), rtol=1e-4)
    np.testing.assert_allclose(high - low, 2 * width, rtol=1e-4)
    near, far = a_run("mixed_bfloat16", 0, 1.5), a_run("mixed_float16", 0, 1.7)
    rows = precision.table([*runs, near, far]).splitlines()
    assert [row.split(" | ")[7] for row in rows[5:7]] == ["yes", "**no**"]


def test_precision_trains_what_is_missing_and_draws_it(tmp_path, monkeypatch):
    path = tmp_path / "runs.json"
    wanted = [("float32", 0), ("float32", 1), ("mixed_float16", 0)]
    trained = []

    def train(name, seed, steps):
        trained.append((name, seed))
        return a_run(name, seed, 1.0 + 0.1 * seed)

    monkeypatch.setattr(precision, "train", train)
    precision.add_missing(path, wanted[:2], 60)
    runs = precision.add_missing(path, wanted, 60)
    assert trained == wanted
    assert [run["precision"] for run in runs] == ["float32", "float32", "mixed_float16"]
    precision.figure(runs, tmp_path / "runs.png")
    assert (tmp_path / "runs.png").stat().st_size > 5_000


def test_two_devices_are_compared_with_one():
    times = {"one device": [0.04, 0.05, 0.08], "two devices": [0.025, 0.02, 0.03]}
    rows = distributed.table(times).splitlines()
    assert rows[2] == "| one device | 50.0 (40.0-80.0) | 1.00 |"
    assert rows[3] == "| two devices | 25.0 (20.0-30.0) | 2.00 |"


# ---------------------------------------------------------------------------------------------
# speed and gpu
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", gpu.NAMES)
def test_a_contestants_name_says_its_precision(name):
    words = {"bfloat16": "bfloat16" in name, "float16": name.endswith(" float16")}
    expected = next((precision for precision, there in words.items() if there), "float32")
    assert contestants.precision_of(name) == expected


def test_a_line_about_a_gpu_shows_median_epoch_memory_and_plan():
    found = {"device": "NVIDIA H200", "library": "jax", "first": 56.2, "peak": 6.16e9}
    found |= {"seconds": [0.05, 0.04, 0.06], "images": 384, "epoch": 1.25, "loss": 0.5}
    cells = gpu.cells_of("ours in bfloat16", 128, found)
    assert cells[:5] == [
        "ours (jax) in bfloat16", "50.0 ms (40.0-60.0)", "20 s", "56 s", "6.16 GB"
    ]  # fmt: skip
    planned = gpu.plan(gpu.DiffusionParameters.cifar10(), 128, "mixed_bfloat16", "H200")
    on_card = planned.memory.total - planned.memory.program
    assert cells[5] == f"{1e3 * planned.seconds_per_step:.0f} ms, {on_card / 1e9:.2f} GB"
    assert cells[6] == "384 in 1.2 s, loss 0.5000"
    theirs = gpu.cells_of("diffusers", 128, {**found, "device": "the processor"})
    assert theirs[5] == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--steps", "0"], "at least 1"), (["--only", "our s"], "'our s'.*ours,")],
)
def test_what_cannot_be_measured_on_a_gpu_is_refused(monkeypatch, capsys, options, words):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    with pytest.raises(SystemExit):
        gpu.arguments()
    assert re.search(words, capsys.readouterr().err)
