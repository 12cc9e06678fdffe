"""Saving and loading models: nothing is lost, nothing is half-written, nothing needs explaining."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save
from tiny import SMALLEST_UNET

from diffusion_walkthrough import checkpoints, faces, features, training
from diffusion_walkthrough.checkpoints import (
    PRETRAINED,
    kept_model,
    load_model,
    model_of,
    pretrained_names,
    save_model,
)
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.features import load_classifier, recognized
from diffusion_walkthrough.files import writing
from diffusion_walkthrough.guidance import inpainting_network
from diffusion_walkthrough.parameters import (
    DiffusionParameters,
    ScheduleParameters,
    TrainingParameters,
    save_parameters,
)
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import build_unet

TINY = DiffusionParameters(
    schedule=ScheduleParameters(timesteps=10),
    unet=SMALLEST_UNET,
    training=TrainingParameters(warmup_steps=0, batch_size=4, ema_momentum=None),
)


def random_model(seed: int = 0, parameters: DiffusionParameters = TINY) -> DiffusionModel:
    """A model whose every weight is random, so that no prediction is 0 by construction."""
    model = DiffusionModel(parameters, seed=seed)
    rng = np.random.default_rng(seed)
    model.network.set_weights([rng.normal(size=w.shape) for w in model.network.get_weights()])
    return model


def prediction(model: DiffusionModel) -> np.ndarray:
    """Its network's answer, not compiled, which takes longer than all the rest of a test."""
    x_t = np.random.default_rng(5).standard_normal((3, 4, 4, 1)).astype("float32")
    return keras.ops.convert_to_numpy(model((x_t, np.array([0, 4, 9], "float32"))))


@pytest.fixture(scope="module")
def first() -> DiffusionModel:
    return random_model(1)


@pytest.fixture(scope="module")
def second() -> DiffusionModel:
    return random_model(2)


IN_A_NEW_PROCESS = """
import sys, numpy as np, keras
from diffusion_walkthrough.checkpoints import load_model
x_t = np.random.default_rng(5).standard_normal((3, 4, 4, 1)).astype("float32")
t = np.array([0, 4, 9], "float32")
guesses = [keras.ops.convert_to_numpy(load_model(p)((x_t, t))) for p in sys.argv[2:]]
np.save(sys.argv[1], np.stack(guesses))
"""


def test_a_new_process_predicts_the_same_to_the_bit(tmp_path, first):
    paths = [
        save_model(first, tmp_path / "folder"),
        save_model(first, tmp_path / "pickled", parameters_as="pickle"),
        save_model(first, tmp_path / "model.keras"),
    ]
    result = tmp_path / "guesses.npy"
    command = [sys.executable, "-c", IN_A_NEW_PROCESS, str(result), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = prediction(first)
    assert np.abs(expected).max() > 0.1
    for guess in np.load(result):
        np.testing.assert_array_equal(guess, expected)


def test_the_parameters_lie_beside_the_weights(tmp_path, first):
    path = save_model(first, tmp_path / "model")
    assert sorted(p.name for p in path.iterdir()) == ["parameters.json", "weights.safetensors"]
    path = save_model(first, tmp_path / "other", parameters_as="pickle")
    assert sorted(p.name for p in path.iterdir()) == ["parameters.pkl", "weights.safetensors"]
    assert load_model(path).diffusion_parameters == TINY


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_an_earlier_model_is_only_replaced_on_request(tmp_path, name, first, second):
    path = save_model(first, tmp_path / name)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_model(second, path)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))
    save_model(second, path, overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(second))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_a_failure_while_writing_leaves_the_earlier_model_alone(
    tmp_path, name, monkeypatch, first, second
):
    path = save_model(first, tmp_path / name)
    broken = second

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_weights", fail)
    monkeypatch.setattr(DiffusionModel, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(broken, path, overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@contextlib.contextmanager
def a_disk_that_takes(size: int) -> Iterator[None]:
    """No file may grow further, as if the disk were full."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_a_full_disk_leaves_the_earlier_model_and_says_what_to_do(tmp_path, name, first, second):
    path = save_model(first, tmp_path / name)
    said = rf"{name} could not be written \(File too large\).*What was there before is whole: make"
    with pytest.raises(OSError, match=said), a_disk_that_takes(2000):
        save_model(second, path, overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_with_other_files_is_never_replaced(tmp_path, first):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        save_model(first, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="digits"):
        load_model("digts")


@pytest.mark.parametrize("name", ["digits", "faces", "mnist"])
def test_a_model_that_ships_is_found_by_name_and_small_and_what_the_preset_trains(name):
    assert name in pretrained_names()
    assert load_model(name).diffusion_parameters == getattr(DiffusionParameters, name)()
    assert sum(file.stat().st_size for file in (PRETRAINED / name).iterdir()) < 5e6


def test_the_faces_that_ship_are_faces():
    """Not all of them: tools/train_model.py says how many with all 250 steps."""
    drawn = load_model("faces").sample(48, seed=3, steps=30)
    assert faces.read(drawn).legal.mean() > 0.3


def test_the_mnist_digits_that_ship_are_recognized():
    """Not all of them: tools/train_model.py says how many with all 250 steps."""
    drawn = load_model("mnist").sample(40, seed=3, steps=15)
    assert recognized(drawn, "mnist") > 0.5


def test_missing_and_doubled_files_are_named(tmp_path, first):
    path = save_model(first, tmp_path / "model")
    save_parameters(TINY, path / "parameters.pkl")
    with pytest.raises(ValueError, match="both"):
        load_model(path)
    (path / "parameters.pkl").unlink()
    (path / "parameters.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"parameters\.json"):
        load_model(path)
    save_parameters(TINY, path / "parameters.json")
    (path / "weights.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights\.safetensors or weights\.npz; .* both"):
        load_model(path)
    for name in ("weights.npz", "weights.safetensors"):
        (path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors"):
        load_model(path)


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_a_damaged_file_is_an_error(tmp_path, name, first):
    path = save_model(first, tmp_path / name)
    file = path / "weights.safetensors" if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)


def test_a_keras_file_with_numbers_that_are_not_finite_is_refused(tmp_path):
    model = random_model()
    model.network.set_weights([weight * np.nan for weight in model.network.get_weights()])
    with pytest.raises(ValueError, match=r"model\.keras .* weights that are not finite"):
        load_model(save_model(model, tmp_path / "model.keras"))


def changed(parameters, **changes):
    """Parameters with changes in a section, or in the whole: {"unet__groups": 4}."""
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            value = dataclasses.replace(getattr(parameters, section), **{field: value})
        parameters = dataclasses.replace(parameters, **{section: value})
    return parameters


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule__timesteps": 20}, "schedule.timesteps was 10 and is 20 now"),
        ({"schedule__name": "cosine"}, "schedule.name was 'linear' and is 'cosine' now"),
        ({"prediction": "x_start"}, "prediction was 'noise' and is 'x_start' now"),
        ({"loss": "kl", "variance": "learned"}, "variance was 'fixed_large' and is 'learned' now"),
        ({"unet__groups": 1}, "unet.groups was 2 and is 1 now"),
        ({"unet__image_size": 8}, "unet.image_size was 4 and is 8 now"),
        (
            {"unet__base_width": 8, "unet__residual_blocks": 2},
            "base_width was 4 .*; unet.residual_blocks was 1",
        ),
        ({"training__batch_size": 8, "loss": "kl", "pixel_levels": 17}, None),
        ({"training__precision": "mixed_bfloat16", "unet__dropout": 0.5}, None),
    ],
    ids=str,
)
def test_parameters_that_were_edited_beside_the_weights_are_noticed(tmp_path, first, changes, said):
    path = save_model(first, tmp_path / "model")
    edited = changed(TINY, **changes)
    save_parameters(edited, path / "parameters.json", overwrite=True)
    if said is None:  # nothing that the weights depend on
        assert load_model(path).diffusion_parameters == edited
    else:
        with pytest.raises(ValueError, match=f"edited after the weights were saved: .*{said}.*Put"):
            load_model(path)


@pytest.mark.parametrize(
    ("name", "missing"),
    [("no metadata", "schedule, unet, prediction, variance"), ("some", "schedule, variance")],
)
def test_weights_that_do_not_say_what_they_belong_to_are_warned_of(tmp_path, first, name, missing):
    path = save_model(first, tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_model(path)
    parameters = TINY.to_dict()
    meaning = {name: parameters[name] for name in ("unet", "prediction")}
    about = {"parameters": json.dumps(meaning)} if name == "some" else None
    file = path / "weights.safetensors"
    file.write_bytes(save(load_file(file), about))
    save_parameters(changed(TINY, schedule__timesteps=20), path / "parameters.json", overwrite=True)
    with pytest.warns(UserWarning, match=f"does not say for which {missing} its weights") as seen:
        load_model(path)
    assert len([w for w in seen if "does not say" in str(w.message)]) == 1
    assert seen[0].filename == __file__


OLD = Path(__file__).parent / "files" / "old"


@pytest.mark.parametrize("name", ["model", "model.keras", "bare.keras"])
def test_the_models_that_an_earlier_version_saved_predict_the_same(name):
    model = load_model(OLD / name)
    with np.load(OLD / "guess.npz") as saved:
        guess = keras.ops.convert_to_numpy(model((saved["x_t"], saved["t"])))
        np.testing.assert_allclose(guess, saved["noise"], rtol=0, atol=1e-6)
        assert np.abs(saved["noise"]).max() > 0.1


def test_an_old_folder_is_replaced_by_a_new_one(tmp_path, first):
    path = Path(shutil.copytree(OLD / "model", tmp_path / "model"))
    save_model(first, path, overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == ["parameters.json", "weights.safetensors"]
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))


# Only a model is ever replaced -------------------------------------------------------------------


def test_a_folder_of_the_name_of_a_keras_file_is_never_replaced(tmp_path, first):
    for place in ("run.keras", "empty.keras"):
        (tmp_path / place).mkdir()
    (tmp_path / "run.keras" / "precious").write_text("x")
    for place in ("run.keras", "empty.keras"):
        with pytest.raises(FileExistsError, match="name of its own"):
            save_model(first, tmp_path / place, overwrite=True)
    assert (tmp_path / "run.keras" / "precious").read_text() == "x"


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "parameters.json"])
def test_a_folder_in_the_place_of_one_of_its_files_is_never_replaced(tmp_path, first, name):
    (tmp_path / "model" / name).mkdir(parents=True)
    (tmp_path / "model" / name / "precious").write_text("x")
    with pytest.raises(FileExistsError, match=name):
        save_model(first, tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / name / "precious").read_text() == "x"


def test_a_file_in_the_place_of_the_folder_is_never_replaced(tmp_path, first):
    (tmp_path / "notes").write_text("x")
    with pytest.raises(FileExistsError, match="notes"):
        save_model(first, tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes").read_text() == "x"


def test_what_systems_and_jupyter_put_into_a_model_s_folder_stays_and_is_in_nobody_s_way(
    tmp_path, first, second
):
    path = save_model(first, tmp_path / "model")
    (path / ".DS_Store").write_text("x")
    (path / "Thumbs.db").write_text("x")
    (path / ".ipynb_checkpoints").mkdir()
    (path / ".ipynb_checkpoints" / "parameters-checkpoint.json").write_text("x")
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))
    save_model(second, path, overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(second))
    assert (path / ".ipynb_checkpoints" / "parameters-checkpoint.json").read_text() == "x"


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch, first):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save_model(first, "~/models/mine")
    assert (tmp_path / "models" / "mine").is_dir()
    np.testing.assert_array_equal(prediction(load_model("~/models/mine")), prediction(first))


def test_through_a_link_the_model_is_replaced_and_the_link_stays(tmp_path, first, second):
    place = save_model(first, tmp_path / "place")
    (tmp_path / "link").symlink_to(place, target_is_directory=True)
    save_model(second, tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(prediction(load_model(place)), prediction(second))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "place"]


def test_a_folder_does_not_bear_the_suffix_of_a_file(tmp_path, first):
    with pytest.raises(ValueError, match=r"model\.keras"):
        save_model(first, tmp_path / "model.h5")
    assert list(tmp_path.iterdir()) == []


def test_after_a_kill_between_the_two_renames_the_earlier_model_is_put_back(
    tmp_path, first, second
):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    left = f".~{writing._HOST}-{dead.pid}-1f2e3d4c-old-model"
    save_model(first, tmp_path / "model").rename(tmp_path / left)
    again = load_model(tmp_path / "model")
    np.testing.assert_array_equal(prediction(again), prediction(first))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    (tmp_path / "model").rename(tmp_path / left)
    with pytest.raises(FileExistsError, match="overwrite=True"):  # and is not overwritten unasked
        save_model(second, tmp_path / "model")
    np.testing.assert_array_equal(prediction(load_model(tmp_path / "model")), prediction(first))


@pytest.mark.parametrize("value", [None, 3, b"model", ""])
def test_what_can_be_no_path_is_refused(value, first):
    for door in (load_model, lambda path: save_model(first, path, overwrite=True)):
        with pytest.raises((TypeError, ValueError), match="must be a path, as text"):
            door(value)


@pytest.mark.parametrize("overwrite", ["no", 1, None])
def test_only_true_overwrites(tmp_path, first, overwrite):
    save_model(first, tmp_path / "model")
    with pytest.raises(TypeError, match="overwrite must be True or False"):
        save_model(first, tmp_path / "model", overwrite=overwrite)


def test_a_place_below_a_file_is_told(tmp_path, first):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file is a file, and not a folder"):
        save_model(first, tmp_path / "file" / "runs" / "model")


def test_a_pipe_by_the_name_of_a_model_is_told(tmp_path):
    os.mkfifo(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="is not a saved model"):
        load_model(tmp_path / "model.keras")


def test_a_model_that_was_compiled_and_not_trained_loads_without_a_warning(tmp_path):
    model = random_model(3)
    model.compile()
    save_model(model, tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(prediction(again), prediction(model))


def test_a_folder_of_something_else_hides_no_model_that_ships(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load_model("digits").diffusion_parameters == DiffusionParameters.digits()
    save_model(first, tmp_path / "digits" / "model")
    np.testing.assert_array_equal(prediction(load_model("digits")), prediction(first))


def test_a_run_is_named_by_its_folder_and_its_newest_model_is_loaded(tmp_path, first, second):
    (tmp_path / "run" / "resume").mkdir(parents=True)
    (tmp_path / "run" / "resume" / ".lock").touch()
    with pytest.raises(FileNotFoundError, match=r"run: this run has saved no model yet.*goes on"):
        load_model(tmp_path / "run")
    save_model(first, tmp_path / "run" / "model")
    np.testing.assert_array_equal(prediction(load_model(tmp_path / "run")), prediction(first))
    save_model(second, tmp_path / "run" / "model", overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(tmp_path / "run")), prediction(second))
    save_model(first, tmp_path / "run" / "model" / "model")  # a model is itself, whatever is in it
    found = load_model(tmp_path / "run" / "model")
    np.testing.assert_array_equal(prediction(found), prediction(second))


def test_the_model_of_a_run_that_was_killed_while_replacing_it_is_put_back(tmp_path, first):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    left = f".~{writing._HOST}-{dead.pid}-1f2e3d4c-old-model"
    save_model(first, tmp_path / "model").rename(tmp_path / left)
    np.testing.assert_array_equal(prediction(load_model(tmp_path)), prediction(first))


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_a_network_that_the_parameters_do_not_describe_is_not_saved(tmp_path, name):
    parameters = dataclasses.replace(TINY, unet=dataclasses.replace(SMALLEST_UNET, base_width=8))
    model = DiffusionModel(TINY, seed=0, network=DiffusionModel(parameters, seed=0).network)
    with pytest.raises(ValueError, match=r"could not build it again.*network\.save_weights"):
        save_model(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "model.keras"])
@pytest.mark.parametrize(
    "changes",
    [
        {"unet__groups": 1},
        {"unet__dropout": 0.5},
        {"training__precision": "mixed_bfloat16"},
        {"unet__width_multipliers": (1, 1), "unet__attention_sizes": (4,)},
    ],
    ids=str,
)
def test_a_network_of_as_many_weights_that_computes_something_else_is_not_saved(
    tmp_path, changes, name
):
    """It was saved, and another one was loaded in its place without a word."""
    parameters = TINY
    if "unet__width_multipliers" in changes:  # attention at another level of the same width
        levels = {"unet__width_multipliers": (1, 1), "unet__attention_sizes": (2,)}
        parameters = changed(TINY, **levels)
    network = DiffusionModel(changed(TINY, **changes), seed=0).network
    model = DiffusionModel(parameters, seed=0, network=network)
    with pytest.raises(ValueError, match=r"its weights.*not build it again.*network\.save_weights"):
        save_model(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_one_s_own_is_neither_saved_nor_copied_as_another(tmp_path):
    """By Keras's own ways, which know the parameters alone: it came back as the UNet of these."""
    unet = DiffusionModel(TINY, seed=0).network
    network = keras.Model(unet.inputs, unet.output * 2.0)
    model = DiffusionModel(TINY, seed=0, network=network)
    model.compile()
    path = tmp_path / "own.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    for keep in (
        lambda: model.save(path),
        lambda: model.fit(np.zeros((4, 4, 4, 1)), verbose=0, callbacks=[checkpoint]),
        lambda: keras.models.clone_model(model),
        lambda: copy.deepcopy(model),
    ):
        with pytest.raises(ValueError, match=r"would build another in its place\. Keep its"):
            keep()
    assert not path.exists()
    weights = keras.callbacks.ModelCheckpoint(tmp_path / "own.weights.h5", save_weights_only=True)
    model.fit(np.zeros((4, 4, 4, 1)), verbose=0, callbacks=[weights])
    DiffusionModel(TINY, network=network).load_weights(tmp_path / "own.weights.h5")


@pytest.mark.parametrize("name", ["model", "model.keras"])
@pytest.mark.parametrize("kind", ["of another model", "copied", "frozen"])
def test_a_network_that_was_given_and_is_described_is_saved(tmp_path, first, kind, name):
    network = first.network
    if kind != "of another model":
        network = keras.models.clone_model(network)
        network.set_weights(first.network.get_weights())
        network.trainable = kind != "frozen"
    seed = random.getstate()
    path = save_model(DiffusionModel(TINY, seed=0, network=network), tmp_path / name)
    assert random.getstate() == seed
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))


class Told(DiffusionModel):
    """A class of one's own that takes something else."""

    def __init__(self, parameters, word, **options):
        super().__init__(parameters, **options)
        self.word = word


class Doubled(DiffusionModel):
    """A class of one's own that builds another network, of as many weights."""

    def __init__(self, parameters, **options):
        unet = DiffusionModel(parameters).network
        network = keras.Model(unet.inputs, unet.output * 2.0)
        super().__init__(parameters, network=network, **options)


def test_a_class_that_takes_something_else_is_saved_with_a_network_that_was_given(tmp_path, first):
    """It was Python's own TypeError, for an argument that is missing."""
    model = Told(TINY, "so", seed=0, network=first.network)
    with pytest.warns(UserWarning, match="The model is a Told"):
        path = save_model(model, tmp_path / "model")
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))


def test_a_class_that_keras_could_not_build_again_is_not_begun_to_be_saved(tmp_path):
    """It was saved, and could not be loaded."""
    path = tmp_path / "model.keras"
    with pytest.raises(TypeError, match=r"a Told could not .*'word'.* def get_config\(self\)"):
        Told(TINY, "so", seed=0).save(path)
    assert not path.exists()

    class Whole(Told):
        def get_config(self):
            return {**super().get_config(), "word": self.word}

    Whole(TINY, "so", seed=0).save(path)
    assert keras.saving.load_model(path, custom_objects={"Whole": Whole}).word == "so"


def test_a_class_with_a_network_of_its_own_is_not_saved_as_a_folder_that_builds_another(tmp_path):
    with pytest.raises(ValueError, match=r"its weights.*not build it again"):
        save_model(Doubled(TINY, seed=0), tmp_path / "model")
    save_model(Doubled(TINY, seed=0), tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_while_another_process_replaces_a_model_the_error_says_where_it_is(tmp_path, first):
    left = f".~{writing._HOST}-{os.getppid()}-1f2e3d4c-old-model"
    save_model(first, tmp_path / "model").rename(tmp_path / left)
    with pytest.raises(FileNotFoundError, match=f"replacing it has put .* aside, as .*{left}"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"parameters.json": b'{"lr": 0.1}', "weights.npz": b"x"}, "parameters.json"),
        ({"parameters.json": b"not even JSON"}, "parameters.json"),
        ({"parameters.pkl": pickle.dumps({"lr": 0.1})}, "parameters.pkl"),
        ({"weights.npz": b"x"}, "weights.npz"),
        ({"weights.safetensors": b"x"}, "weights.safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_files_of_another_program_that_bear_our_names_are_never_replaced(
    tmp_path, first, files, named
):
    path = tmp_path / "model"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    with pytest.raises(FileExistsError, match=named):
        save_model(first, path, overwrite=True)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files


def test_a_keras_file_of_another_model_or_of_none_is_never_replaced(tmp_path, first):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    (tmp_path / "notes.keras").write_text("my notes")
    for name in ("other.keras", "notes.keras"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(FileExistsError, match=name):
            save_model(first, tmp_path / name, overwrite=True)
        assert (tmp_path / name).read_bytes() == before


def other_file(path, kind):
    """A file of somebody else, which nobody here can read."""
    layer = keras.layers.ReLU(max_value=np.inf) if kind == "infinity" else keras.layers.ReLU()
    model = keras.Sequential(
        [keras.Input((2,)), layer], name="n" * (2**20 if kind == "large" else 9)
    )
    model.save(path)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:-99])
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("thesis.txt", "On DiffusionModel")
    if kind == "ours inside":
        ours = '"class_name": "DiffusionModel", "registered_name": "diffusion_walkthrough>"'
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", f'{{"module": "m", {ours}, "config": Infinity}}')
    if kind == "beginning":
        path.write_bytes(b"PK")


@pytest.mark.parametrize(
    "kind", ["infinity", "large", "cut short", "zip", "ours inside", "beginning"]
)
def test_a_keras_file_that_cannot_be_read_is_not_ours_for_that(tmp_path, first, kind):
    path = tmp_path / "other.keras"
    other_file(path, kind)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"not a model alone \(look at 'other\.keras'\)"):
        save_model(first, path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", [".", "..", "../model", "link"])
def test_the_current_folder_is_no_place_for_a_model(tmp_path, first, monkeypatch, name, overwrite):
    """Replaced, it would be another one than that in which everything goes on."""
    here = tmp_path / "model" / ".inside" if name == ".." else tmp_path / "model"
    here.mkdir(parents=True)
    (here / "link").symlink_to(here, target_is_directory=True)
    monkeypatch.chdir(here)
    with pytest.raises(ValueError, match=r"a model needs a folder of its own.*Name another, such"):
        save_model(first, name, overwrite=overwrite)
    assert os.getcwd() == str(here)
    assert os.listdir() == ["link"]


@pytest.mark.parametrize("damage", [b"", None])
@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_a_damaged_model_may_be_replaced(tmp_path, name, damage, first):
    path = save_model(first, tmp_path / name)
    file = path / "weights.safetensors" if path.is_dir() else path
    file.write_bytes(file.read_bytes()[:999] if damage is None else damage)
    save_model(first, path, overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))


def test_an_empty_folder_may_be_replaced(tmp_path, first):
    (tmp_path / "model").mkdir()
    save_model(first, tmp_path / "model", overwrite=True)
    assert load_model(tmp_path / "model").diffusion_parameters == TINY


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_parameters_of_a_larger_network_than_the_file_holds_build_none(
    tmp_path, name, monkeypatch, first
):
    """The weights of an earlier version do not say what they were trained with."""
    path = Path(shutil.copytree(OLD / "model", tmp_path / "model"))
    if name == "model.keras":
        path = save_model(first, tmp_path / name)
        larger(path)
    else:
        wide = changed(load_model(path).diffusion_parameters, unet__base_width=4096)
        save_parameters(wide, path / "parameters.json", overwrite=True)

    def build(*_, **__):
        raise AssertionError("the network was built")

    monkeypatch.setattr(training, "build_unet", build)
    with pytest.raises(ValueError, match=r"it holds [\d,]+ numbers, and .* [\d,]{13}"):
        load_model(path)


def larger(path):
    """Let a .keras file ask for a wider network than it has the weights of."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["parameters"]["unet"]["base_width"] = 4096
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_keras_file_that_runs_code_is_not_opened_by_keras(tmp_path, monkeypatch):
    code = keras.layers.Lambda(lambda x: x, output_shape=(1,))
    keras.Sequential([keras.Input((1,)), code]).save(tmp_path / "a.keras")
    monkeypatch.setattr(keras.models, "load_model", None)
    with pytest.raises(ValueError, match="holds a Sequential, not a DiffusionModel"):
        load_model(tmp_path / "a.keras")


def test_a_class_of_ones_own_is_loaded_once_it_is_registered(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Mine(DiffusionModel):
        pass

    path = save_model(Mine(TINY, seed=1), tmp_path / "a.keras")
    assert type(load_model(path)) is Mine
    assert type(load_model(save_model(Mine(TINY, seed=1), path, overwrite=True))) is Mine


@pytest.fixture
def channels_first():
    """Keras's other order of the axes, as ``~/.keras/keras.json`` may ask for it."""
    before = keras.config.image_data_format()
    features._loaded.cache_clear()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.mark.usefixtures("channels_first")
def test_channels_are_last_whatever_keras_is_told():
    assert load_model("digits").sample(2, seed=0, steps=2).shape == (2, 8, 8, 1)
    model = DiffusionModel(TINY, network=inpainting_network(build_unet(TINY.unet)))
    known = np.zeros((2, 4, 4, 2), "float32")
    assert model.sample(2, steps=2, told=[known]).shape == (2, 4, 4, 1)
    model = DiffusionModel(TINY)
    model.compile()
    small, images = (load_images("digits", side)[0][:32] for side in (4, 8))
    assert np.isfinite(model.fit(small, verbose=0).history["loss"]).all()
    assert recognized(images, load_classifier("digits")) > 0.9


def test_a_folder_does_not_keep_a_class_of_ones_own_and_that_is_warned_of(tmp_path):
    class Mine(DiffusionModel):
        pass

    with pytest.warns(UserWarning, match=r"is a Mine, .*ends in \.keras.*or build a Mine"):
        path = save_model(Mine(TINY, seed=1), tmp_path / "a")
    assert type(load_model(path)) is DiffusionModel
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_model(Mine(TINY, seed=1), tmp_path / "a.keras")
        save_model(DiffusionModel(TINY, seed=1), tmp_path / "b")


def test_other_files_and_models_are_refused(tmp_path, first):
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(ValueError, match="not a saved model"):
        load_model(tmp_path / "notes.txt")
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="not a DiffusionModel"):
        load_model(tmp_path / "other.keras")
    with pytest.raises(TypeError, match="DiffusionModel"):
        save_model(other, tmp_path / "x")
    with pytest.raises(ValueError, match="parameters_as"):
        save_model(first, tmp_path / "x", parameters_as="yaml")


@pytest.mark.parametrize("name", ["model", "model.keras"])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_comes_back_in_its_own_precision(tmp_path, name, precision):
    if precision == "mixed_float16" and keras.backend.backend() == "torch":
        pytest.skip("PyTorch's convolutions take no float16 on a CPU")
    rules = dataclasses.replace(TINY.training, precision=precision)
    model = random_model(parameters=dataclasses.replace(TINY, training=rules))
    again = load_model(save_model(model, tmp_path / name))
    assert again.network.compute_dtype == precision.removeprefix("mixed_")
    np.testing.assert_array_equal(prediction(again), prediction(model))


@pytest.mark.parametrize("name", ["folder", "file.keras"])
def test_a_learned_variance_comes_back(tmp_path, name):
    parameters = dataclasses.replace(TINY, prediction="x_start", variance="learned", loss="kl")
    model = random_model(3, parameters)
    again = load_model(save_model(model, tmp_path / name))
    assert again.diffusion_parameters == parameters
    assert prediction(again).shape == (3, 4, 4, 2)
    np.testing.assert_array_equal(prediction(again), prediction(model))


def test_a_keras_file_asks_the_same_questions_when_it_is_evaluated(tmp_path):
    model = DiffusionModel(TINY, seed=3)
    model.compile(run_eagerly=True)
    again = load_model(save_model(model, tmp_path / "model.keras"))
    again.run_eagerly = True
    images = load_images("digits")[0][:64, 2:6, 2:6]
    losses = [m.evaluate(images, batch_size=32, verbose=0) for m in (model, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# By the name of a data set -----------------------------------------------------------------------


def test_the_model_of_a_data_set_is_the_one_that_ships(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    save_model(first, "digits")  # a folder of that name does not matter, nor what 05 has kept
    save_model(first, kept_model("digits"))
    assert (
        model_of("digits").diffusion_parameters
        == load_model(PRETRAINED / "digits").diffusion_parameters
    )


def test_the_model_of_other_data_is_the_one_that_was_kept(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my cats").mkdir()  # the folder of pictures, which is no model
    for data in ("cifar10", "my cats", tmp_path / "my cats", "some/where.npz"):
        save_model(first, kept_model(data), overwrite=True)
        np.testing.assert_array_equal(prediction(model_of(data)), prediction(first))
    assert kept_model("my cats") == kept_model(tmp_path / "my cats") == Path("my-models/my cats")
    assert kept_model("some/where.npz") == Path("my-models/where")


def test_without_a_model_the_error_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="Run chapter 05 with DATA = 'cifar10' first"):
        model_of("cifar10")


@pytest.mark.parametrize("name", ["folder", "file.keras"])
def test_a_model_that_is_told_labels_comes_back_with_them(tmp_path, name):
    told = dataclasses.replace(SMALLEST_UNET, labels={"hat": 3, "glasses": 2})
    model = random_model(3, dataclasses.replace(TINY, unet=told))
    again = load_model(save_model(model, tmp_path / name))
    assert again.diffusion_parameters == model.diffusion_parameters
    x_t = np.random.default_rng(5).standard_normal((3, 4, 4, 1)).astype("float32")
    shown = x_t, np.array([0, 4, 9], "float32"), np.array([[0, 1], [2, 0], [-1, -1]], "int32")
    answers = [keras.ops.convert_to_numpy(one(shown)) for one in (model, again)]
    np.testing.assert_array_equal(*answers)


def test_parameters_that_lost_or_found_labels_do_not_fit_the_weights(tmp_path):
    told = dataclasses.replace(TINY, unet=dataclasses.replace(SMALLEST_UNET, labels={"hat": 3}))
    for saved, edited in ((told, TINY), (TINY, told)):
        folder = save_model(DiffusionModel(saved), tmp_path / "model", overwrite=True)
        save_parameters(edited, folder / "parameters.json", overwrite=True)
        with pytest.raises(ValueError, match="parameters beside"):
            load_model(folder)
