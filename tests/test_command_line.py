"""The command line does what the same functions do in a notebook, and goes on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import TINY

from diffusion_walkthrough import command_line
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.command_line import main
from diffusion_walkthrough.data import load_images, to_uint8
from diffusion_walkthrough.evaluation import precision_recall
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters, save_parameters
from diffusion_walkthrough.planning import plan
from diffusion_walkthrough.training import DiffusionModel, ResumeTraining

pytestmark = pytest.mark.slow  # whole runs; nothing here depends on the backend

ROOT = Path(__file__).resolve().parent.parent
IMAGES = load_images("digits")[0][:64]


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
    callbacks = [ResumeTraining(workshop / "by_hand")]
    model.fit(IMAGES, epochs=2, verbose=0, callbacks=callbacks)
    for a, b in zip(weights(run), model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_leaves_history_pictures_and_checkpoints(run):
    header, *values = rows(run)
    assert header == ["epoch", "loss", "learning_rate", "gradient_norm"]
    assert [row[0] for row in values] == ["1", "2"]
    assert 0 < float(values[1][1]) < float(values[0][1]) < 2
    pictures = sorted(path.name for path in (run / "pictures").iterdir())
    assert pictures == ["epoch-000000.png", "epoch-000002.png"]
    with Image.open(run / "pictures" / pictures[1]) as picture:
        assert picture.size == (4 * 50 + 2, 4 * 50 + 2)  # 16 digits, each pixel 6 wide
    assert len(list((run / "checkpoints").iterdir())) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not known there")
def test_killed_the_same_line_goes_on(run, workshop, tmp_path, capsys):
    """The process kills itself while it writes the history of its first epoch."""
    folder = tmp_path / "run"
    code = (
        "import os, signal\nfrom diffusion_walkthrough import command_line\n"
        "write = command_line.write_file_atomically\n"
        "def write_and_die(path, content):\n    write(path, content)\n"
        "    if path.name == 'history.csv':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "command_line.write_file_atomically = write_and_die\n"
        f"command_line.main({train_words(workshop, folder, 2)!r})"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "model").exists()
    for words in (["--quiet"], []):  # goes on; and then has ended already
        assert main(train_words(workshop, folder, 2, *words)) == 0
        assert capsys.readouterr().out.startswith("2 epochs, loss ")
        assert rows(folder) == rows(run)
        for a, b in zip(weights(folder), weights(run), strict=True):
            np.testing.assert_array_equal(a, b)


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
    precision, recall = precision_recall(IMAGES, held_out)
    assert f"20 held-out images: precision {precision:.3f}, recall {recall:.3f}" in printed
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
        (["train", "--parameters", "digits", "--folder", "x", "--batch-size", "0"], "batch_size=0"),
        (["train", "--parameters", "celeba_hq_256", "--folder", "x"], "--data with a folder"),
        (["train", "--parameters", "digits", "--folder", "x", "--data", "digit"], "Did you mean"),
        (["sample", "--model", "digit", "--out", "x.png"], "Did you mean 'digits'"),
        (["sample", "--model", "digits", "--out", "x.jpg"], "must end in .png"),
        (["sample", "--model", "digits", "--out", "x.png", "-n", "0"], "at least 1"),
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
    with pytest.raises((ValueError, OSError)):
        main([*words, "--traceback"])


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
