"""Keras's files are looked at before Keras's own reader makes anything of them."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from diffusion_walkthrough import training  # registers its classes
from diffusion_walkthrough.files.keras_archives import (
    check_arrays,
    check_classes,
    known_class,
    read_config,
)

OLD = Path(__file__).parent / "old" / "model.keras"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model as Keras saves it, with the optimizer's numbers."""
    inside = keras.Input((2,))
    model = keras.Model(inside, keras.layers.Dense(3)(inside))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path, sum(v.numpy().size for v in (*model.variables, *model.optimizer.variables))


def test_the_numbers_of_a_saved_model_are_counted(saved):
    path, count = saved
    assert check_arrays(path, 9) == count


def test_a_model_of_ours_is_known_and_asks_for_nothing_else():
    config = read_config(OLD)
    assert known_class(config) is training.DiffusionModel
    check_classes(config)
    assert config["config"]["parameters"]["unet"]["image_size"] == 4


OPTIMIZERS = {
    "keras.optimizers": keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 10)),
    "loss scale": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
    "ours": training.AveragingAdam(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_may_be_asked_for(name):
    check_classes({"compile_config": {"optimizer": keras.optimizers.serialize(OPTIMIZERS[name])}})


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "Lambda", "module": "keras.layers"},
        {"class_name": "function", "module": "os"},
        {"class_name": "function", "module": "builtins", "registered_name": "function"},
        {"class_name": "Popen", "module": "subprocess"},
        {"class_name": "__lambda__", "config": {"value": "x"}},
        {"class_name": "__numpy__", "module": "keras.optimizers"},
        {"class_name": "Other", "registered_name": "diffusion_walkthrough>DiffusionModel"},
        {"class_name": ["list"], "module": "keras.optimizers"},
        {"class_name": "Adam", "module": ["keras.optimizers"]},
        {"class_name": "Adam", "module": "keras.optimizers.other"},
        {"class_name": "os", "module": "keras.src.backend.torch.optimizers.torch_adam.os"},
        {"class_name": None},
    ],
    ids=str,
)
def test_nothing_else_may_be(config):
    for whole in (config, {"config": [{"deeper": [config]}]}):
        with pytest.raises(ValueError, match=r"asks for .* which is no part of a model"):
            check_classes(whole)


def with_weights(path, change):
    with zipfile.ZipFile(OLD) as old:
        file = io.BytesIO(old.read("model.weights.h5"))
    with h5py.File(file, "a") as arrays:
        change(arrays)
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("config.json", "{}")
        new.writestr("model.weights.h5", file.getvalue())
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h5: h5.create_dataset("a", (2**30,), "f4"), "not stored as Keras stores"),
        (lambda h5: h5.create_dataset("a", data=np.zeros(9), chunks=(3,)), "not stored as Keras"),
        (lambda h5: h5.create_dataset("a", data=["x"]), "no array of numbers"),
        (lambda h5: h5.create_dataset("a", data=h5py.Empty("f4")), "no array of numbers"),
        (lambda h5: h5.update({"a": np.dtype("f4")}), "no array of numbers"),
        (lambda h5: h5.update({"a": h5py.SoftLink("/b")}), "'a' in it points to another place"),
        (lambda h5: h5.update({"a": h5py.ExternalLink("b.h5", "/")}), "points to another place"),
        (lambda h5: h5.update({"a": h5["/"]}), "more than 10000 parts"),
        (lambda h5: h5.create_dataset("a", data=np.array([1, np.nan])), "not finite"),
        (lambda h5: h5.create_dataset("a", data=np.array([1e39])), "not finite"),
        (lambda h5: h5.create_dataset("a", data=np.array([np.inf], "f2")), "not finite"),
    ],
)
def test_arrays_are_in_the_file_as_they_will_be_read(tmp_path, change, said):
    path = with_weights(tmp_path / "a.keras", change)
    with pytest.raises(ValueError, match=said):
        check_arrays(path, 10**6)


@pytest.mark.parametrize(
    ("count", "kind", "said"),
    [
        (10**6, "f4", "far more numbers than the 9 of its model"),
        (10**6, "i1", "far more numbers"),  # four million bytes, once they are float32
        (3 * 10**6, "f4", r"weights\.h5 has 12\d+ bytes, more than the 10240576"),
    ],
)
def test_far_more_than_the_model_needs_is_refused(tmp_path, count, kind, said):
    path = with_weights(tmp_path / "a.keras", lambda h5: h5.update({"a": np.zeros(count, kind)}))
    with pytest.raises(ValueError, match=said):
        check_arrays(path, 9)


def test_arrays_that_share_their_place_in_the_file_are_counted_each(tmp_path):
    def twice(h5):
        h5["a"] = np.zeros(50_000)
        for i in range(9):
            h5[f"b{i}"] = h5["a"]

    with pytest.raises(ValueError, match="larger than the file"):
        check_arrays(with_weights(tmp_path / "a.keras", twice), 10**6)


def test_members_are_ours_and_of_bounded_size(tmp_path, saved):
    path = tmp_path / "a.keras"
    for content, said in (("[]", "describes no model"), ("{", "not valid JSON")):
        with zipfile.ZipFile(path, "w") as new:
            new.writestr("config.json", content)
        with pytest.raises(ValueError, match=said):
            read_config(path)
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("config.json", json.dumps("x" * 2**20))
    with pytest.raises(ValueError, match="more than the"):
        read_config(path)
    path.write_bytes(saved[0].read_bytes())
    with zipfile.ZipFile(path, "a") as new:
        new.writestr("assets/a", "x")
    with pytest.raises(ValueError, match=r"holds 'assets/a'"):
        check_arrays(path, 10**6)
