"""The command line does what the same functions do in a notebook, and goes on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from pocket import pocket_network
from tiny import TINY

from diffusion_walkthrough import command_line, faster_sampling, training, unet
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.command_line import main
from diffusion_walkthrough.data import load_images, to_uint8
from diffusion_walkthrough.engine.callbacks import SampleHistory
from diffusion_walkthrough.evaluation import density_coverage, precision_recall
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters, save_parameters
from diffusion_walkthrough.planner.plan import plan
from diffusion_walkthrough.training import DiffusionModel

ROOT = Path(__file__).resolve().parent.parent
IMAGES = load_images("digits")[0][:64]
SAMPLE = ["sample", "--model", "digits", "--out", "x.png"]


@pytest.fixture(scope="module", autouse=True)
def pocket():
    """Pocket networks, which are quickly traced, wherever a UNet would be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_unet", pocket_for_tiny)
        yield


def pocket_for_tiny(parameters, *others):
    return pocket_network() if parameters == TINY.unet else unet.build_unet(parameters, *others)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with the parameters of a tiny model and a few images."""
    folder = tmp_path_factory.mktemp("workshop")
    training = dataclasses.replace(TINY.training, ema_momentum=0.9)
    parameters = dataclasses.replace(TINY, training=training, pixel_levels=17)
    save_parameters(parameters, folder / "tiny.json")
    np.savez(folder / "some.npz", x_train=IMAGES, x_test=load_images("digits", split="test")[0])
    return folder


@pytest.fixture(scope="module")
def run(workshop):
    """A finished run of two epochs."""
    assert main(train_words(workshop, workshop / "run", epochs=2)) == 0
    return workshop / "run"


def train_words(workshop, folder, epochs, *more):
    words = ["train", "--parameters", workshop / "tiny.json", "--data", workshop / "some.npz"]
    words += ["--folder", folder, "--epochs", epochs, "--pictures-every", 2]
    words += ["--batch-size", 16, *more]
    return [str(word) for word in words]


def rows(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.reader(file))


def weights(folder):
    return load_model(folder / "model").network.get_weights()


def test_training_by_line_is_training_by_hand(run, workshop):
    parameters = load_parameters(workshop / "tiny.json")
    training = dataclasses.replace(parameters.training, batch_size=16)
    parameters = dataclasses.replace(parameters, training=training)
    keras.utils.set_random_seed(0)
    model = DiffusionModel(parameters, seed=0)
    model.compile()
    model.fit(IMAGES, epochs=2, verbose=0)
    for a, b in zip(weights(run), model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_unet_is_trained_in_the_same_way(workshop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "build_unet", unet.build_unet)
    assert main(train_words(workshop, tmp_path / "run", 1, "--quiet")) == 0
    assert capsys.readouterr().out.startswith("1 epochs, loss ")
    assert len(weights(tmp_path / "run")) > 30


def test_a_run_leaves_history_pictures_and_checkpoints(run):
    header, *values = rows(run)
    assert header == ["epoch", "loss", "learning_rate", "gradient_norm"]
    assert [row[0] for row in values] == ["1", "2"]
    assert 0 < float(values[1][1]) < float(values[0][1]) < 2
    pictures = sorted(path.name for path in (run / "pictures").iterdir())
    assert pictures == ["epoch-000000.png", "epoch-000002.png"]
    with Image.open(run / "pictures" / pictures[1]) as picture:
        assert picture.size == (4 * 50 + 2, 4 * 50 + 2)  # 16 digits, each pixel 6 wide
    assert len(list((run / "checkpoints").glob("*.npz"))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not known there")
def test_killed_the_same_line_goes_on(run, workshop, tmp_path, capsys):
    """The process kills itself while it writes the history of its first epoch."""
    folder = tmp_path / "run"
    code = (
        f"import os, signal, sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from pocket import pocket_network\n"
        "from diffusion_walkthrough import command_line, training\n"
        "training.build_unet = lambda *_: pocket_network()\n"
        "write = command_line.write_whole\n"
        "def write_and_die(path, content):\n    write(path, content)\n"
        "    if path.name == 'history.csv':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "command_line.write_whole = write_and_die\n"
        f"command_line.main({train_words(workshop, folder, 2)!r})"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "model").exists()
    for words in (["--quiet"], []):  # goes on; and then has ended already
        assert main(train_words(workshop, folder, 2, *words)) == 0
        printed = capsys.readouterr().out
        assert printed.count("2 epochs, loss ") == 1
        assert ("had ended already. For a longer one, add --epochs with" in printed) == (not words)
        assert rows(folder) == rows(run)
        for a, b in zip(weights(folder), weights(run), strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_seed_or_number_of_steps_is_another_run(run, workshop, capsys):
    for words, message in [
        (["--seed", "5"], "seed was 0 there and is 5 here"),
        (["--steps-per-epoch", "3"], "steps per epoch was 4 there and is 3 here"),
    ]:
        assert main(train_words(workshop, run, 2, *words)) == 2
        assert message in capsys.readouterr().err


def test_epochs_of_some_steps_are_saved_one_by_one(workshop, tmp_path):
    folder = tmp_path / "run"
    assert main(train_words(workshop, folder, 3, "--steps-per-epoch", "1", "--quiet")) == 0
    assert [row[0] for row in rows(folder)] == ["epoch", "1", "2", "3"]
    names = sorted(path.name for path in (folder / "checkpoints").glob("*.npz"))
    assert names == ["checkpoint-000002.npz", "checkpoint-000003.npz"]


def test_an_ended_run_whose_learning_rate_falls_says_what_a_longer_one_needs(
    workshop, tmp_path, capsys
):
    parameters = load_parameters(workshop / "tiny.json")
    decaying = dataclasses.replace(parameters.training, decay_steps=4)
    file = tmp_path / "decaying.json"
    save_parameters(dataclasses.replace(parameters, training=decaying), file)
    words = train_words(workshop, tmp_path / "run", 1, "--quiet")
    words[words.index("--parameters") + 1] = str(file)
    for _ in range(2):
        assert main(words) == 0
    assert "had ended already. Its learning rate falls to 0" in capsys.readouterr().out
    words[words.index("--epochs") + 1] = "2"
    assert main(words) == 2
    assert "the run is over: its 4 steps" in capsys.readouterr().err


def test_what_cannot_be_saved_on_the_way_ends_no_training(workshop, tmp_path, monkeypatch):
    """A picture's place is taken by a folder, a model's by a stranger who leaves later."""
    folder = tmp_path / "run"
    (folder / "pictures" / "epoch-000001.png").mkdir(parents=True)
    (folder / "model").mkdir()
    stranger = folder / "model" / "stranger.txt"
    stranger.write_text("mine")
    draw = SampleHistory._draw

    def leave_before_the_end(self, epochs):
        if epochs == 2:
            stranger.unlink()
        draw(self, epochs)

    monkeypatch.setattr(SampleHistory, "_draw", leave_before_the_end)
    words = train_words(workshop, folder, 2, "--quiet", "--pictures-every", "1")
    with pytest.warns(UserWarning, match="goes on without that") as caught:
        done = main(words)
    assert done == 0
    told = [str(w.message) for w in caught if "goes on without" in str(w.message)]
    assert len(told) == 2
    assert "epoch-000001.png" in told[0]
    assert "stranger.txt" in told[1]
    assert (folder / "pictures" / "epoch-000002.png").is_file()
    assert (folder / "model" / "parameters.json").is_file()


def test_names_that_a_terminal_cannot_show_end_no_run(workshop, tmp_path):
    words = ["plan", "--parameters", str(tmp_path / "Zürich.json")]
    save_parameters(TINY, words[-1])
    command = [sys.executable, "-m", "diffusion_walkthrough", *words, "--device", "Zürich"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=ascii_only)
    assert done.returncode == 2
    assert b"Z\\xfcrich" in done.stderr


def test_control_c_says_how_to_go_on(workshop, tmp_path, monkeypatch, capsys):
    def interrupt(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionModel, "fit", interrupt)
    assert main(train_words(workshop, tmp_path / "run", 2)) == 130
    assert "The same line goes on from the last checkpoint." in capsys.readouterr().err


# Drawing ---------------------------------------------------------------------------------------


def test_images_come_in_batches_that_do_not_repeat(run, tmp_path, monkeypatch):
    asked = []
    original = DiffusionModel.sample

    def watch(self, n, **options):
        asked.append(n)
        return original(self, n, **options)

    monkeypatch.setattr(DiffusionModel, "sample", watch)
    out = tmp_path / "new folder" / "drawn.npz"
    words = ["sample", "--model", str(run / "model"), "-n", "5", "--batch-size", "2", "--quiet"]
    assert main([*words, "--out", str(out)]) == 0
    assert asked == [2, 2, 1]
    images, _ = load_images(out)
    assert images.shape == (5, 8, 8, 1)
    assert len(np.unique(images.reshape(5, -1), axis=0)) == 5
    seed = keras.random.SeedGenerator(0)
    expected = np.concatenate([load_model(run / "model").sample(n, seed=seed) for n in (2, 2, 1)])
    np.testing.assert_array_equal(to_uint8(images), to_uint8(expected))
    assert [path.name for path in out.parent.iterdir()] == ["drawn.npz"]


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_the_way_back_is_chosen_by_name(run, workshop, tmp_path, monkeypatch, command):
    asked = []

    def watch(self, n, seed, **options):
        asked.append(options)
        return np.zeros((n, 8, 8, 1), "float32")

    monkeypatch.setattr(DiffusionModel, "sample", watch)
    words = [command, "--model", str(run / "model"), "--quiet", "-n", "4"]
    words += ["--out", str(tmp_path / "a.npz")] if command == "sample" else []
    words += ["--data", str(workshop / "some.npz")] if command == "evaluate" else []
    few = ["--sampler", "dpm++2m", "--steps", "10", "--spacing", "log_snr", "--sigma-max", "80"]
    ways = [], ["--sampler", "ddim", "--steps", "5", "--eta", "0.5"], few
    for way in ways:
        main([*words, *way, *(["--overwrite"] if command == "sample" else [])])
    assert asked == [
        {"step": "ddpm"},
        {"step": "ddim", "steps": 5, "eta": 0.5},
        {"step": "dpm++2m", "steps": 10, "spacing": "log_snr", "sigma_max": 80.0},
    ]


def test_the_names_in_the_help_are_those_there_are():
    assert tuple(faster_sampling.SAMPLERS) == command_line.SAMPLERS
    assert faster_sampling.SPACING_NAMES == command_line.SPACINGS


def test_few_steps_by_line_are_those_of_a_notebook(run, tmp_path):
    out = tmp_path / "a.npz"
    words = ["sample", "--model", str(run / "model"), "-n", "3", "--out", str(out), "--quiet"]
    assert main([*words, "--sampler", "heun", "--steps", "3", "--spacing", "karras"]) == 0
    seed = keras.random.SeedGenerator(0)
    model = load_model(run / "model")
    expected = model.sample(3, seed=seed, step="heun", steps=3, spacing="karras")
    np.testing.assert_array_equal(to_uint8(load_images(out)[0]), to_uint8(expected))


def test_a_picture_of_all_and_nothing_overwritten(run, tmp_path, capsys):
    words = ["sample", "--model", str(run / "model"), "-n", "3", "--out", str(tmp_path / "a.png")]
    assert main(words) == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * 50 + 2, 2 * 50 + 2)
    assert main([*words, "--seed", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    before = (tmp_path / "a.png").read_bytes()
    assert main([*words, "--seed", "1", "--overwrite"]) == 0
    assert (tmp_path / "a.png").read_bytes() != before


def test_an_interrupted_drawing_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(self, n, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionModel, "sample", fail)
    words = ["sample", "--model", str(run / "model"), "--out", str(tmp_path / "a.npz")]
    assert main(words) == 130
    assert list(tmp_path.iterdir()) == []


# Measuring and planning --------------------------------------------------------------------------


def test_evaluation_is_that_of_the_chapters(run, workshop, capsys):
    words = ["evaluate", "--model", str(run / "model"), "--data", str(workshop / "some.npz")]
    assert main([*words, "-n", "20", "--bits-per-dim", "--quiet"]) == 0
    printed = capsys.readouterr().out
    held_out = load_images("digits", split="test")[0][:20]
    keras.utils.set_random_seed(0)
    model = load_model(run / "model")
    model.compile()
    loss = model.evaluate(held_out, batch_size=64, verbose=0)
    assert f"loss of 20 held-out images: {loss:.4f}" in printed
    precision = precision_recall(IMAGES, held_out)[0]
    coverage = density_coverage(IMAGES, held_out)[1]
    assert f"20 held-out images: precision {precision:.3f}, coverage {coverage:.3f}" in printed
    assert "20 drawn images: precision 0." in printed
    bits = float(printed.split("held-out images: ")[-1].split()[0])
    assert 0 < bits < 20


def test_held_out_pictures_may_lie_in_a_folder_of_their_own(run, workshop, tmp_path, capsys):
    for i, image in enumerate(IMAGES[:6]):
        Image.fromarray(to_uint8(image[..., 0])).save(tmp_path / f"{i}.png")
    words = ["evaluate", "--model", str(run / "model"), "--data", str(workshop / "some.npz")]
    assert main([*words, "--held-out", str(tmp_path), "--quiet"]) == 0
    assert "loss of 6 held-out images" in capsys.readouterr().out


def test_a_plan_is_that_of_the_planner(workshop, capsys):
    words = ["plan", "--parameters", "cifar10", "--device", "T4", "--batch-size", "32"]
    assert main(words) == 0
    expected = str(plan(DiffusionParameters.cifar10(), batch_size=32, device="T4"))
    assert capsys.readouterr().out.strip() == expected.strip()


# Words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--parameters", "nowhere.json", "--folder", "x"], "There is no file nowhere"),
        (["train", "--parameters", "digit", "--folder", "x"], "Did you mean 'digits'?"),
        (["plan", "--parameters", "zzz"], "none of digits, mnist, cifar10, celeba_hq_256"),
        (["train", "--parameters", "digits", "--folder", "~no_such_person/x"], "home directory"),
        (["train", "--parameters", "celeba_hq_256", "--folder", "x"], "--data with a folder"),
        (["train", "--parameters", "digits", "--folder", "x", "--data", "digit"], "Did you mean"),
        (["sample", "--model", "digit", "--out", "x.png"], "Did you mean 'digits'"),
        (["sample", "--model", "digits", "--out", "x.jpg"], "must end in .png"),
        ([*SAMPLE, "--sampler", "dimm"], "Did you mean 'ddim'"),
        ([*SAMPLE, "--spacing", "kerras"], "Did you mean 'karras'"),
        ([*SAMPLE, "--sampler", "heun", "--eta", "1"], "heun_step has no option 'eta'"),
        ([*SAMPLE, "--sampler", "ddim", "--eta", "2"], "eta=2.0: eta must be a finite number from"),
        ([*SAMPLE, "--sigma-max", "5000"], "sigma_max=5000.0: sigma_max must be"),
        ([*SAMPLE, "--steps", "101"], "steps = 101 must be a whole number in 1 … 100"),
        (["evaluate", "--model", "digits", "--data", "nowhere.npz"], "There is no file or folder"),
    ],
)
def test_an_error_is_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1
    with pytest.raises((ValueError, TypeError, OSError, RuntimeError)):
        main([*words, "--traceback"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--batch-size", "0"], "--batch-size: 0 must be a whole number of at least 1"),
        (["train", "--epochs", "0"], "--epochs: 0 must be"),
        (["train", "--steps-per-epoch", "2.5"], "--steps-per-epoch: 2.5 must be"),
        (["train", "--pictures-every", "0"], "--pictures-every: 0 must be"),
        (["evaluate", "-n", "-39"], "-n/--n: -39 must be"),
        ([*SAMPLE, "-n", "0"], "-n/--n: 0 must be"),
        ([*SAMPLE, "--steps", "0"], "--steps: 0 must be a whole number of at least 1"),
        (["plan", "--images", "many"], "--images: many must be"),
    ],
)
def test_numbers_of_things_are_at_least_1(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_words_that_are_not_known_end_with_the_same_code(capsys):
    for words in ([], ["traim"], ["train"], ["plan", "--parameters", "digits", "--precision", "8"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "plan"])
def test_help_names_every_option_and_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert f"python -m diffusion_walkthrough {command} --" in printed
    actions = command_line._parser()._subparsers._group_actions[0].choices[command]._actions
    assert all(action.help for action in actions)


def test_help_needs_no_keras():
    code = (
        "import sys; from diffusion_walkthrough.command_line import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    print('keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("False\n")


def test_the_package_can_be_run():
    words = [sys.executable, "-m", "diffusion_walkthrough", "sample", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Draw images" in done.stdout
