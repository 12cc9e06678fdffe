"""Saving and loading models: nothing is lost, nothing is half-written, nothing needs explaining."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from diffusion_walkthrough import checkpoints
from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import (
    DiffusionParameters,
    ScheduleParameters,
    TrainingParameters,
    UNetParameters,
    save_parameters,
)
from diffusion_walkthrough.training import DiffusionModel

TINY = DiffusionParameters(
    schedule=ScheduleParameters(timesteps=10),
    unet=UNetParameters(
        image_size=4,
        channels=1,
        base_width=4,
        width_multipliers=(1, 2),
        residual_blocks=1,
        attention_sizes=(),
        dropout=0.0,
        groups=2,
    ),
    training=TrainingParameters(warmup_steps=0, batch_size=4, ema_momentum=None),
)


def random_model(seed: int = 0, parameters: DiffusionParameters = TINY) -> DiffusionModel:
    """A model whose every weight is random, so that no prediction is 0 by construction."""
    model = DiffusionModel(parameters, seed=seed)
    rng = np.random.default_rng(seed)
    model.network.set_weights([rng.normal(size=w.shape) for w in model.network.get_weights()])
    return model


def prediction(model: DiffusionModel) -> np.ndarray:
    x_t = np.random.default_rng(5).standard_normal((3, 4, 4, 1)).astype("float32")
    return keras.ops.convert_to_numpy(model.denoise(x_t, np.array([0, 4, 9], "int32")))


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
t = np.array([0, 4, 9], "int32")
guesses = [keras.ops.convert_to_numpy(load_model(p).denoise(x_t, t)) for p in sys.argv[2:]]
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
    assert sorted(p.name for p in path.iterdir()) == ["parameters.json", "weights.npz"]
    path = save_model(first, tmp_path / "other", parameters_as="pickle")
    assert sorted(p.name for p in path.iterdir()) == ["parameters.pkl", "weights.npz"]
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

    monkeypatch.setattr(checkpoints.np, "savez", fail)
    monkeypatch.setattr(DiffusionModel, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(broken, path, overwrite=True)
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_failure_of_the_last_rename_puts_the_earlier_model_back(
    tmp_path, monkeypatch, first, second
):
    path = save_model(first, tmp_path / "model")

    def fail(*_args):
        raise OSError("no rename today")

    monkeypatch.setattr(checkpoints.os, "replace", fail)
    monkeypatch.setattr(checkpoints, "save_parameters", lambda *_: None)
    with pytest.raises(OSError, match="no rename"):
        save_model(second, path, overwrite=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(prediction(load_model(path)), prediction(first))


def test_a_folder_with_other_files_is_never_replaced(tmp_path, first):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        save_model(first, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="digits"):
        load_model("digts")


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
    (path / "weights.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.npz"):
        load_model(path)


def test_weights_that_do_not_fit_are_refused(tmp_path, first):
    path = save_model(first, tmp_path / "model")
    wider = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, base_width=8))
    save_parameters(wider, path / "parameters.json", overwrite=True)
    with pytest.raises(ValueError, match="does not fit"):
        load_model(path)


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_a_damaged_file_is_an_error(tmp_path, name, first):
    path = save_model(first, tmp_path / name)
    file = path / "weights.npz" if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)


def test_weights_that_are_not_finite_floats_are_refused(tmp_path, first):
    path = save_model(first, tmp_path / "model")
    arrays = first.network.get_weights()
    for change in (lambda a: a * np.nan, lambda a: a.astype("U"), lambda a: a.astype("int32")):
        changed = {f"{i:05d}": change(array) for i, array in enumerate(arrays)}
        np.savez(path / "weights.npz", **changed)
        with pytest.raises(ValueError, match="damaged"):
            load_model(path)


def test_weights_of_another_format_are_damaged_too(tmp_path, first):
    path = save_model(first, tmp_path / "model")
    raw = bytearray((path / "weights.npz").read_bytes())
    raw[raw.find(b"PK\1\2") + 10] = 99  # a compression that nobody has
    (path / "weights.npz").write_bytes(raw)
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)
    with (path / "weights.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)


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


def test_after_a_kill_between_the_two_renames_the_earlier_model_is_named(tmp_path, first):
    save_model(first, tmp_path / "model").rename(tmp_path / ".model-1f2e3d4c-old")
    with pytest.raises(FileNotFoundError, match=r"model-1f2e3d4c-old"):
        load_model(tmp_path / "model")


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


def test_the_keras_file_keeps_the_optimizer(tmp_path):
    model = random_model()
    model.compile()
    model.fit(np.zeros((8, 4, 4, 1), "float32"), batch_size=4, verbose=0)
    loaded = load_model(save_model(model, tmp_path / "model.keras"))
    assert int(loaded.optimizer.iterations) == 2
    np.testing.assert_array_equal(prediction(loaded), prediction(model))


@pytest.mark.parametrize("name", ["model", "model.keras"])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_comes_back_in_its_own_precision(tmp_path, name, precision):
    if precision == "mixed_float16" and keras.backend.backend() == "torch":
        pytest.skip("PyTorch's convolutions take no float16 on a CPU")
    training = dataclasses.replace(TINY.training, precision=precision)
    model = random_model(parameters=dataclasses.replace(TINY, training=training))
    again = load_model(save_model(model, tmp_path / name))
    assert again.network.compute_dtype == precision.removeprefix("mixed_")
    np.testing.assert_array_equal(prediction(again), prediction(model))


@pytest.mark.parametrize("name", ["folder", "file.keras"])
def test_a_learned_variance_comes_back(tmp_path, name):
    parameters = dataclasses.replace(TINY, prediction="x_start", variance="learned", loss="kl")
    model = DiffusionModel(parameters, seed=3)
    again = load_model(save_model(model, tmp_path / name))
    assert again.diffusion_parameters == parameters
    np.testing.assert_array_equal(again.sample(2, seed=0), model.sample(2, seed=0))


def test_a_keras_file_asks_the_same_questions_when_it_is_evaluated(tmp_path):
    model = DiffusionModel(TINY, seed=3)
    model.compile()
    again = load_model(save_model(model, tmp_path / "model.keras"))
    images = load_images("digits")[0][:64, 2:6, 2:6]
    losses = [m.evaluate(images, verbose=0) for m in (model, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
