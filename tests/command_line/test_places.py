"""Models, runs and outputs are looked up, and a fault is told by the option that names them."""

import json
import os
import tracemalloc
import zipfile
from pathlib import Path

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


def test_a_folder_of_something_else_is_no_run_and_hides_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("torchproject", "digits"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    other = refused(capsys, "sample", "--model", "torchproject", "--out", "x.png")
    assert "--model torchproject is a folder without a model" in other
    assert places.model_place("digits") == places.PRETRAINED / "digits"
    with pytest.raises(FileNotFoundError, match="--parameters digits is a folder without"):
        places.model_place("digits", "--parameters")
    assert places.run_folder("digits/model") == Path("digits/model")
    (tmp_path / "digits" / "checkpoints" / ".lock").touch()
    with pytest.raises(FileNotFoundError, match="this run has saved no model yet"):
        places.model_place("digits")


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
    (tmp_path / "of_a_notebook").mkdir()
    (tmp_path / "of_a_notebook" / "checkpoint-000001.npz").touch()
    assert places.run_folder(str(tmp_path / "of_a_notebook")) == tmp_path / "of_a_notebook"


@pytest.mark.parametrize(
    "name",
    ["history.csv", "pictures/epoch-000010.png", "model", "model/thesis.txt"],
)
def test_a_folder_with_files_of_others_in_it_is_not_written_to(workshop, tmp_path, capsys, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("years of work")
    told = refused(capsys, *train_words(workshop, tmp_path, 1))
    assert f"a run would replace {name.partition('/thesis')[0]}" in told
    assert "Name a new folder, or move that away." in told
    assert (tmp_path / name).read_text() == "years of work"
    assert not (tmp_path / "resume").exists()


@pytest.mark.parametrize("name", ["model", "model/thesis.txt"])
def test_a_run_whose_model_is_of_others_is_told_before_it_goes_on(tmp_path, name):
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / ".lock").touch()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=f"a run would replace {name}, which none"):
        places.run_folder(str(tmp_path))


@pytest.mark.parametrize("begun", [".lock", "checkpoint-000001.npz"])
@pytest.mark.parametrize("resume", ["resume", "checkpoints"])
def test_a_run_that_has_begun_goes_on_in_its_folder(tmp_path, begun, resume):
    """Also one that was killed before its first checkpoint, when it had drawn a picture."""
    for name in (f"{resume}/{begun}", "pictures/epoch-000000.png", "history.csv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "model").mkdir()
    assert places.run_folder(str(tmp_path)) == tmp_path


def test_what_a_run_does_not_replace_may_be_in_its_folder(tmp_path):
    for name in ("resume/cv.pdf", "pictures/cat.png", "data.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert places.run_folder(str(tmp_path)) == tmp_path
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "resume").touch()
    with pytest.raises(NotADirectoryError, match="resume is a file, and not a folder"):
        places.run_folder(str(tmp_path / "new"))


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


def test_a_link_to_nowhere_is_told_before(capsys, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    begin = ["train", "--parameters", "digits", "--folder"]
    for folder in (tmp_path / "link", tmp_path / "link" / "run"):
        told = refused(capsys, *begin, folder)
        assert f"--folder: {tmp_path / 'link'} is a link to nowhere, which is not there." in told
    (tmp_path / "nowhere").mkdir()
    assert places.run_folder(str(tmp_path / "link")) == tmp_path / "link"
    assert list((tmp_path / "nowhere").iterdir()) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a place where nobody may write")
def test_a_place_where_even_root_cannot_write_is_told_before():
    with pytest.raises(
        PermissionError, match=r"--folder: nothing can be written in /proc \(.*\)\."
    ):
        places.run_folder("/proc/x")


# Runs that have begun --------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_left_to_who_knows_it(tmp_path):
    assert places.begun(tmp_path) is None
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "checkpoint-000003.npz").write_bytes(b"damaged")
    assert places.begun(tmp_path) is None


def described(folder, about):
    (folder / "resume").mkdir(exist_ok=True)
    path = folder / "resume" / "checkpoint-000001.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.json", about)


def test_a_checkpoint_is_looked_at_with_little_memory(tmp_path):
    described(tmp_path, '{"run": [' + "[]," * 5_000_000 + "[]]}")
    tracemalloc.start()
    assert places.begun(tmp_path) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize(
    "change",
    [{"epoch": "2"}, {"epoch": 1e999}, {"seed": []}, {"steps per epoch": None}, {"parameters": 3}],
)
def test_a_checkpoint_that_says_another_kind_of_thing_is_left_to_who_knows_it(tmp_path, change):
    run = {"parameters": DiffusionParameters.digits().to_dict(), "seed": 0, "steps per epoch": 4}
    run["number and shape of the images"] = [64, 8, 8, 1]
    about = {"epoch": 2, "run": run}
    described(tmp_path, json.dumps(about))
    assert places.begun(tmp_path).epochs == 2
    (about if "epoch" in change else run).update(change)
    described(tmp_path, json.dumps(about))
    assert places.begun(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_a_pipe_is_no_checkpoint(tmp_path):
    (tmp_path / "resume").mkdir()
    os.mkfifo(tmp_path / "resume" / "checkpoint-000001.npz")
    assert places.begun(tmp_path) is None
