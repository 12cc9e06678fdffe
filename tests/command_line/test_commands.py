"""The command line does what the same functions do in a notebook, and goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from command_line.lines import IMAGES, ROOT, in_a_process, rows, train_words, weights
from diffusion_walkthrough import checkpoints, faces, training, unet
from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.command_line import main
from diffusion_walkthrough.data import load_images, to_uint8
from diffusion_walkthrough.engine.callbacks import SampleHistory
from diffusion_walkthrough.evaluation import density_coverage, precision_recall
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters, save_parameters
from diffusion_walkthrough.planner import counting
from diffusion_walkthrough.planner.plan import plan
from diffusion_walkthrough.training import DiffusionModel

# Training ----------------------------------------------------------------------------------------


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
    monkeypatch.setattr(checkpoints, "count_parameters", counting.count_parameters)
    assert main(train_words(workshop, tmp_path / "run", 1, "--quiet")) == 0
    assert "\n1 epoch, loss " in capsys.readouterr().out
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
    assert len(list((run / "resume").glob("*.npz"))) == 2


def test_jupyterlab_can_open_each_folder_of_a_run(run):
    """In its addresses, /checkpoints after a folder asks for something else."""
    folders = {path.name for path in run.rglob("*") if path.is_dir()}
    assert folders == {"model", "pictures", "resume"}


def test_a_run_that_version_0_1_began_goes_on_in_its_own_folder(run, workshop, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    os.symlink(run / "resume", folder / "checkpoints")
    assert main(train_words(workshop, folder, 2, "--quiet")) == 0
    assert "This run had ended already." in capsys.readouterr().out
    assert not (folder / "resume").exists()


def test_a_line_says_what_begins_what_has_ended_and_how_to_go_on(workshop, tmp_path, capsys):
    folder = tmp_path / "a run"
    for epochs, told in [
        (1, "The run has ended.\n1 epoch, loss "),
        (1, "This run had ended already.\n1 epoch, loss "),
        (2, "The run has ended.\n2 epochs, loss "),
    ]:
        assert main(train_words(workshop, folder, epochs, "--quiet")) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"64 images of {workshop / 'some.npz'}, 8x8, grey. {epochs} epo")
        assert told in printed
        assert f"sample --model '{folder}' --out '{folder}/drawn.png'" in printed
        assert f"the same line with --epochs and more than {epochs}." in printed
        assert (" 1 of them are done." in printed) == (epochs == 2)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not known there")
def test_killed_the_same_line_goes_on(run, workshop, tmp_path, capsys):
    """The process kills itself while it writes the history of its first epoch."""
    folder = tmp_path / "run"
    code = (
        f"import os, signal, sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from pocket import pocket_network\n"
        "from diffusion_walkthrough import training\n"
        "from diffusion_walkthrough.command_line import main, watching\n"
        "training.build_unet = lambda *_: pocket_network()\n"
        "write = watching.write_whole\n"
        "def write_and_die(path, content):\n    write(path, content)\n"
        "    if path.name == 'history.csv':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "watching.write_whole = write_and_die\n"
        f"main({train_words(workshop, folder, 2)!r})"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert main(["sample", "--model", str(folder), "--out", str(tmp_path / "a.png")]) == 2
    assert "has saved no model yet" in capsys.readouterr().err
    for words in (["--quiet"], []):  # goes on; and then has ended already
        assert main(train_words(workshop, folder, 2, *words)) == 0
        printed = capsys.readouterr().out
        assert printed.count("2 epochs, loss ") == 1
        assert ("had ended already" in printed) == (not words)
        assert rows(folder) == rows(run)
        for a, b in zip(weights(folder), weights(run), strict=True):
            np.testing.assert_array_equal(a, b)


def test_other_images_are_another_run(run, workshop, tmp_path, capsys):
    """As many, and of the same size: ``ResumeTraining`` looks closer than the line does."""
    np.savez(tmp_path / "others.npz", images=to_uint8(IMAGES[::-1]))
    words = ["--data", str(tmp_path / "others.npz"), "--quiet"]
    assert main(train_words(workshop, run, 2, *words)) == 2
    assert "checksum of some of the images" in capsys.readouterr().err


def test_epochs_of_some_steps_are_saved_one_by_one(workshop, tmp_path):
    folder = tmp_path / "run"
    assert main(train_words(workshop, folder, 3, "--steps-per-epoch", "1", "--quiet")) == 0
    assert [row[0] for row in rows(folder)] == ["epoch", "1", "2", "3"]
    names = sorted(path.name for path in (folder / "resume").glob("*.npz"))
    assert names == ["checkpoint-000002.npz", "checkpoint-000003.npz"]


def test_a_run_whose_learning_rate_falls_says_what_a_longer_one_needs(workshop, tmp_path, capsys):
    words = train_words(workshop, tmp_path / "run", 1, "--quiet", "--set", "decay_steps=8")
    assert main(words) == 0
    assert "with --epochs and up to 2, when" in capsys.readouterr().out
    words[words.index("--epochs") + 1] = "2"
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "rate is 0. For a longer run: the same line with --set decay_steps=16" in printed
    assert rows(tmp_path / "run")[-1][2] == "0.0"


def test_what_cannot_be_saved_on_the_way_ends_no_training(workshop, tmp_path, monkeypatch):
    """A picture's place is taken by a folder, a model's by a stranger who leaves later."""
    folder = tmp_path / "run"
    stranger = folder / "model" / "stranger.txt"
    draw = SampleHistory._draw

    def come_and_leave_before_the_end(self, epochs):
        if epochs == 0:
            (folder / "pictures" / "epoch-000001.png").mkdir(parents=True)
            stranger.parent.mkdir()
            stranger.write_text("mine")
        if epochs == 2:
            stranger.unlink()
        draw(self, epochs)

    monkeypatch.setattr(SampleHistory, "_draw", come_and_leave_before_the_end)
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


def test_a_run_that_is_moved_meanwhile_says_how_to_go_on(workshop, tmp_path, monkeypatch, capsys):
    folder, moved = tmp_path / "run", tmp_path / "elsewhere"
    draw = SampleHistory._draw

    def move(self, epochs):
        if epochs == 1:
            folder.rename(moved)
        draw(self, epochs)

    monkeypatch.setattr(SampleHistory, "_draw", move)
    line = train_words(workshop, folder, 2, "--quiet", "--pictures-every", "1")
    assert main(line) == 1
    told = capsys.readouterr().err
    assert f"--folder {folder} has gone since training began" in told
    assert "run it with its new --folder: it goes on from the last checkpoint." in told
    assert not folder.exists()
    assert main(train_words(workshop, moved, 2, "--quiet")) == 0


def test_control_c_says_how_to_go_on(workshop, tmp_path, monkeypatch, capsys):
    def interrupt(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionModel, "fit", interrupt)
    assert main(train_words(workshop, tmp_path / "run", 2)) == 130
    assert "The same line goes on from the last checkpoint." in capsys.readouterr().err


# Drawing ---------------------------------------------------------------------------------------


def test_the_size_of_a_batch_changes_no_image(run, tmp_path):
    drawn = {}
    for size in (2, 64):
        out = tmp_path / f"new folder {size}" / "drawn.npz"
        words = ["sample", "--model", str(run / "model"), "-n", "5", "--batch-size", str(size)]
        assert main([*words, "--quiet", "--seed", "3", "--restarts", "1", "--out", str(out)]) == 0
        drawn[size] = to_uint8(load_images(out)[0]).astype(int)
        assert [path.name for path in out.parent.iterdir()] == ["drawn.npz"]
    assert drawn[2].shape == (5, 8, 8, 1)
    assert len(np.unique(drawn[2].reshape(5, -1), axis=0)) == 5
    model = load_model(run / "model")
    expected = to_uint8(model.sample(5, seed=3, restarts=1)).astype(int)
    for found in drawn.values():
        assert np.abs(found - expected).max() <= 1, "but for rounding"
    assert np.abs(expected - to_uint8(model.sample(5, seed=3))).max() > 30, "not restarted"


def test_a_model_is_named_by_its_folder_its_run_or_its_file(run, tmp_path):
    save_model(load_model(run / "model"), tmp_path / "model.keras")
    drawn = []
    for i, place in enumerate((run / "model", run, tmp_path / "model.keras")):
        out = tmp_path / f"{i}.npz"
        assert main(["sample", "--model", str(place), "-n", "2", "--out", str(out)]) == 0
        drawn.append(to_uint8(load_images(out)[0]))
    np.testing.assert_array_equal(drawn[1], drawn[0])
    np.testing.assert_array_equal(drawn[2], drawn[0])


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_the_way_back_is_chosen_by_name(run, workshop, tmp_path, monkeypatch, command):
    asked = []

    def watch(self, n, seed, batch_size, **options):
        asked.append(options)
        return iter([np.zeros((n, 8, 8, 1), "float32")])

    monkeypatch.setattr(DiffusionModel, "drawn", watch)
    words = [command, "--model", str(run / "model"), "--quiet", "-n", "6"]
    words += ["--out", str(tmp_path / "a.npz")] if command == "sample" else []
    words += ["--data", str(workshop / "some.npz")] if command == "evaluate" else []
    few = ["--sampler", "dpm++2m", "--steps", "12", "--spacing", "log_snr", "--sigma-max", "80"]
    ways = [], ["--sampler", "ddim", "--steps", "5", "--eta", "0.5", "--restarts", "2"], few
    for way in ways:
        main([*words, *way, *(["--overwrite"] if command == "sample" else [])])
    assert asked == [
        {"step": "ddpm"},
        {"step": "ddim", "steps": 5, "eta": 0.5, "restarts": 2},
        {"step": "dpm++2m", "steps": 12, "spacing": "log_snr", "sigma_max": 80.0},
    ]


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
    def fail(self, n, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionModel, "drawn", fail)
    words = ["sample", "--model", str(run / "model"), "--out", str(tmp_path / "a.npz")]
    assert main(words) == 130
    assert list(tmp_path.iterdir()) == []


# Measuring and planning --------------------------------------------------------------------------


def test_evaluation_is_that_of_the_chapters(run, workshop, capsys):
    words = ["evaluate", "--model", str(run), "--data", str(workshop / "some.npz")]
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


# Parameters --------------------------------------------------------------------------------------


def test_a_first_file_of_parameters_can_be_trained_with(tmp_path, capsys):
    out = tmp_path / "new" / "my.json"
    words = ["params", "--set", "decay_steps=2160", "--set", "unet.width_multipliers=1,2"]
    assert main([*words, "--batch-size", "64", "--out", str(out)]) == 0
    assert f"train --parameters {out} --folder run" in capsys.readouterr().out
    found, digits = load_parameters(out), DiffusionParameters.digits()
    changes = {"decay_steps": 2160, "batch_size": 64}
    assert found.training == dataclasses.replace(digits.training, **changes)
    assert found.unet == dataclasses.replace(digits.unet, width_multipliers=(1, 2))


def test_parameters_are_fitted_to_ones_own_pictures(tmp_path, capsys):
    for i in range(3):
        Image.fromarray(to_uint8(faces.draw(3)[0][i])).save(tmp_path / f"{i}.png")
    words = ["params", "--data", str(tmp_path), "--image-size", "32", "--json"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)["parameters"]
    expected = DiffusionParameters.for_data("mine", (32, 32, 3))
    assert DiffusionParameters.from_dict(shown) == expected


def test_parameters_may_be_those_of_a_run(run, capsys):
    assert main(["params", "--parameters", str(run)]) == 0
    assert capsys.readouterr().out == f"{load_parameters(run / 'model' / 'parameters.json')}\n"


def test_parameters_that_are_there_stay_as_they_are(tmp_path, capsys):
    save_parameters(DiffusionParameters.faces(), tmp_path / "a.json")
    words = ["params", "--parameters", "digits", "--out", str(tmp_path / "a.json")]
    assert main(words) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    assert load_parameters(tmp_path / "a.json") == DiffusionParameters.faces()
    assert main([*words, "--overwrite"]) == 0
    assert load_parameters(tmp_path / "a.json") == DiffusionParameters.digits()


# For programs ------------------------------------------------------------------------------------


def test_each_command_answers_programs_in_json(run, workshop, tmp_path, capsys):
    data = ["--data", str(workshop / "some.npz")]
    drawing = ["--model", str(run), "-n", "6"]
    answers = {}
    for words in (
        train_words(workshop, tmp_path / "run", 1),
        ["sample", *drawing, "--out", str(tmp_path / "a.png")],
        ["evaluate", *drawing, *data],
        ["plan", "--parameters", "digits", "--device", "T4"],
        ["params", "--parameters", "digits"],
    ):
        assert main([*words, "--json"]) == 0
        printed = capsys.readouterr()
        assert printed.out.count("\n") == 1
        assert printed.err  # what is for people
        answers[words[0]] = json.loads(printed.out)
    assert all(answer["command"] == name for name, answer in answers.items())
    trained = answers["train"]
    assert (trained["epochs"], trained["images"], trained["ended_already"]) == (1, 64, False)
    assert trained["loss"] == pytest.approx(float(rows(tmp_path / "run")[1][1]))
    assert answers["sample"]["images"] == answers["evaluate"]["images"] == 6
    assert 0 <= answers["evaluate"]["held_out"]["precision"] <= 1
    planned = answers["plan"]
    assert planned["fits"] is True
    parts = [value for name, value in planned["memory"].items() if name != "total"]
    assert planned["memory"]["total"] == pytest.approx(sum(parts))
    assert DiffusionParameters.from_dict(answers["params"]["parameters"]).unet.image_size == 8


def test_names_that_a_terminal_cannot_show_end_no_run(workshop, tmp_path):
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    out = tmp_path / "Zürich.json"
    done = in_a_process("params", "--parameters", "digits", "--out", out, env=ascii_only)
    assert done.returncode == 0
    assert b"Z\\xfcrich" in done.stdout
    assert load_parameters(out) == DiffusionParameters.digits()


# Labels ----------------------------------------------------------------------------------------


def test_a_model_that_is_told_labels_is_trained_drawn_with_and_measured(
    workshop, tmp_path, monkeypatch, capsys
):
    (images, labels), (others, held_out) = (
        load_images("digits", split=s) for s in ("train", "test")
    )
    data = {"x_train": images[:64], "y_train": labels[:64], "x_test": others, "y_test": held_out}
    np.savez(tmp_path / "told.npz", **data)
    words = ["--data", str(tmp_path / "told.npz"), "--quiet", "--set", "labels={'digit': 10}"]
    folder = tmp_path / "run"
    assert main(train_words(workshop, folder, 1, *words)) == 0
    assert main(train_words(workshop, folder, 2, *words)) == 0
    assert rows(folder)[-1][0] == "2"
    asked = []
    original = DiffusionModel.drawn

    def watch(self, n, seed, **options):
        asked.append(options.get("labels"))
        return original(self, n, seed, **options)

    monkeypatch.setattr(DiffusionModel, "drawn", watch)
    line = ["sample", "--model", str(folder), "-n", "5", "--batch-size", "3", "--steps", "2"]
    line += ["--out", str(tmp_path / "a.npz"), "--labels", "7,1", "--guidance-scale", "2"]
    assert main(line) == 0
    assert [labels["digit"].tolist() for labels in asked] == [[7, 1, 7, 1, 7]]
    asked.clear()
    line = ["evaluate", "--model", str(folder), "--data", str(tmp_path / "told.npz"), "-n", "8"]
    assert main([*line, "--bits-per-dim", "--steps", "2", "--quiet"]) == 0
    assert np.concatenate(asked).tolist() == held_out[:8].tolist()
    assert "bits per dimension of 8" in capsys.readouterr().out
