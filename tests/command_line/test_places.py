"""Models, runs and outputs are looked up, and a fault is told by the option that names them."""

import json
import os
import zipfile

import pytest

from command_line.lines import refused, train_words
from diffusion_walkthrough import checkpoints
from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.command_line import main, places
from diffusion_walkthrough.parameters import DiffusionParameters, save_parameters

# Models ----------------------------------------------------------------------------------------


def test_the_models_that_ship_are_those_of_checkpoints():
    assert places.PRETRAINED == checkpoints.PRETRAINED
    for name in checkpoints.pretrained_names():
        assert places.model_place(name) == checkpoints.PRETRAINED / name
    with pytest.raises(
        FileNotFoundError,
        match="ships \\(digits, digits-conditional, faces, faces-conditional, mnist\\)",
    ):
        places.model_place("features")


def test_a_fault_of_a_model_is_told_by_its_place(capsys, tmp_path, run):
    out = ["--out", tmp_path / "x.png"]
    assert "Did you mean 'digits'?" in refused(capsys, "sample", "--model", "digit", *out)
    empty = refused(capsys, "sample", "--model", tmp_path, *out)
    assert f"--model {tmp_path} is a folder without a model" in empty
    weights = next((run / "model").glob("weights*"))
    inside = refused(capsys, "sample", "--model", weights, *out)
    assert f"Did you mean the folder that it is in, {run / 'model'}?" in inside
    (tmp_path / "model").mkdir()
    save_parameters(DiffusionParameters.digits(), tmp_path / "model" / "parameters.json")
    half = refused(capsys, "sample", "--model", tmp_path / "model", *out)
    assert "holds parameters and no weights" in half
    (tmp_path / "a.keras").write_bytes(b"no model")
    damaged = refused(capsys, "sample", "--model", tmp_path / "a.keras", *out)
    assert "cannot be read as a model of this package" in damaged


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_told_before_anything_is_done(capsys, name):
    for words in (["--model", name, "--out", "x.png"], ["--model", "digits", "--out", name]):
        assert "must be a path, as text" in refused(capsys, "sample", *words)


def test_parameters_are_read_from_a_keras_file_without_keras(run, tmp_path, capsys):
    model = load_model(run / "model")
    save_model(model, tmp_path / "a.keras")
    assert places.parameters_of_model(tmp_path / "a.keras") == model.diffusion_parameters
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": []}}))
    other = refused(capsys, "sample", "--model", tmp_path / "b.keras", "--out", tmp_path / "x.png")
    assert "b.keras cannot be read as a model of this package" in other


def test_a_saved_model_is_no_folder_for_a_run(run, workshop, tmp_path, capsys):
    save_model(load_model(run / "model"), tmp_path / "mine")
    assert "is a saved model" in refused(capsys, *train_words(workshop, tmp_path / "mine", 2))


def test_the_model_of_a_run_stands_for_the_run(run, tmp_path):
    assert places.run_folder(str(run / "model")) == run
    assert places.run_folder(str(run)) == run
    assert places.run_folder(str(run / "resume")) == run
    named_so = tmp_path / "mine" / "resume"
    (named_so / "resume").mkdir(parents=True)
    assert places.run_folder(str(named_so)) == named_so
    assert places.run_folder(str(tmp_path / "model")) == tmp_path / "model"


# Places ----------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_is_told_before(capsys, tmp_path):
    begin = ["sample", "--model", "digits", "--out"]
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.png").mkdir()
    jpg = refused(capsys, *begin, "x.jpg")
    assert "must end in .png (one picture of all) or .npz (an array)." in jpg
    assert "is a folder. Name a file in it." in refused(capsys, *begin, tmp_path / "folder.png")
    assert "is a file, and not a folder" in refused(capsys, *begin, tmp_path / "file" / "x.png")
    assert "without the ~" in refused(capsys, *begin, "~no_such_person/x.png")
    assert "is a folder" in refused(capsys, *begin, tmp_path / "folder.png", "--overwrite")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may write anywhere")
def test_a_place_that_cannot_be_written_is_told_before(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert main(["sample", "--model", "digits", "--out", str(tmp_path / "x.png")]) == 1
    assert "nothing can be written in" in capsys.readouterr().err


# Runs that have begun --------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_left_to_who_knows_it(tmp_path):
    assert places.begun(tmp_path) is None
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "checkpoint-000003.npz").write_bytes(b"damaged")
    assert places.begun(tmp_path) is None
