"""Weights by name: what fits comes back to the bit, and what does not changes nothing."""

from __future__ import annotations

import json
import struct
import zipfile

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from diffusion_walkthrough.files import archives
from diffusion_walkthrough.files.weights import check_weights, load_weights, save_weights

PARAMETERS = {
    "schedule": {"name": "linear", "timesteps": 10, "beta_start": 1e-4},
    "unet": {"image_size": 4, "width_multipliers": [1, 2], "dropout": 0.1},
    "training": {"batch_size": 4},
    "prediction": "noise",
    "variance": "fixed_small",
    "loss": "mse",
}


def small_network(width: int = 3, names: tuple[str, str] = ("first", "last")) -> keras.Model:
    inside = keras.Input((2,))
    hidden = keras.layers.Dense(width, name=names[0])(inside)
    return keras.Model(inside, keras.layers.Dense(1, name=names[1])(hidden))


@pytest.fixture
def network() -> keras.Model:
    network = small_network()
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    return network


@pytest.fixture
def path(network, tmp_path):
    save_weights(network, tmp_path / "weights.safetensors", PARAMETERS)
    return tmp_path / "weights.safetensors"


@pytest.fixture
def old_path(network, tmp_path):
    arrays = {f"{i:05d}": array for i, array in enumerate(network.get_weights())}
    np.savez(tmp_path / "weights.npz", **arrays)
    return tmp_path / "weights.npz"


def assert_refused(network, path, match, parameters=PARAMETERS):
    """It is refused, and the network keeps what it has."""
    before = [np.copy(weight) for weight in network.get_weights()]
    with pytest.raises(ValueError, match=match) as caught:
        load_weights(network, path, parameters)
    assert str(path) in str(caught.value)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# What fits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["path", "old_path"])
def test_weights_come_back_to_the_bit(network, name, request):
    again = small_network()
    load_weights(again, request.getfixturevalue(name), PARAMETERS)
    for a, b in zip(again.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_file_says_what_is_in_it(network, path):
    assert sorted(load_file(path)) == ["first.bias", "first.kernel", "last.bias", "last.kernel"]
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
    assert (about["format"], about["version"]) == ("diffusion_walkthrough.weights", "1")
    saved = json.loads(about["parameters"])
    assert saved == {
        "schedule": PARAMETERS["schedule"],
        "unet": {"image_size": 4, "width_multipliers": [1, 2]},
        "prediction": "noise",
        "variance": "fixed_small",
    }


def test_the_order_in_the_file_does_not_matter(network, path):
    tensors = load_file(path)
    save_file(dict(reversed(tensors.items())), path, metadata={})
    again = small_network()
    load_weights(again, path, PARAMETERS)
    np.testing.assert_array_equal(again.get_weights()[0], network.get_weights()[0])


def test_numbers_without_axes_are_kept(tmp_path):
    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(), name="factor", initializer="ones")

        def call(self, x):
            return x * self.factor

    inside = keras.Input((2,))
    network = keras.Model(inside, Scale(name="scale")(inside))
    network.set_weights([np.float32(3)])
    save_weights(network, tmp_path / "a.safetensors", PARAMETERS)
    network.set_weights([np.float32(5)])
    load_weights(network, tmp_path / "a.safetensors", PARAMETERS)
    assert network.get_weights()[0] == 3


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_decimal_numbers_are_converted(network, path, dtype):
    save_file({name: array.astype(dtype) for name, array in load_file(path).items()}, path)
    again = small_network()
    load_weights(again, path, PARAMETERS)
    np.testing.assert_allclose(again.get_weights()[0], network.get_weights()[0], rtol=1e-3)
    assert again.get_weights()[0].dtype == np.float32


def test_two_weights_of_one_name_are_refused(tmp_path):
    class Twins(keras.Model):
        def __init__(self):
            super().__init__(name="twins")
            self.one, self.two = (
                keras.layers.Dense(1, name="same"),
                keras.layers.Dense(1, name="same"),
            )
            self.one.build((None, 2))
            self.two.build((None, 2))

    with pytest.raises(ValueError, match=r"two weights of the name same.kernel"):
        save_weights(Twins(), tmp_path / "a.safetensors", PARAMETERS)


# What does not -----------------------------------------------------------------------------------


def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    return path


def put(name, array):
    return lambda tensors: tensors.update({name: array})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("last.bias"), "does not fit .* it lacks last.bias. The two"),
        (lambda t: t.clear(), "lacks first.kernel, and 3 more"),
        (put("more.kernel", np.zeros(2, "f4")), "there is no place for more.kernel"),
        (put("last.bias", np.zeros(2, "f4")), r"last.bias has shape \(2,\), .* needs \(1,\)"),
        (put("first.kernel", np.zeros((3, 2), "f4")), r"has shape \(3, 2\), .* needs \(2, 3\)"),
        (put("last.bias", np.zeros(1, "i4")), "does not fit .*last.bias is of type I32"),
        (put("last.bias", np.full(1, np.nan, "f4")), "damaged .*1 of 1 numbers of last.bias"),
        (put("last.bias", np.full(1, -np.inf, "f2")), "damaged .*1 of 1 numbers of last.bias"),
        (put("last.bias", np.full(1, 1e39, "f8")), "damaged .*1 of 1 numbers of last.bias"),
    ],
)
def test_what_does_not_fit_is_named(network, path, change, match):
    assert_refused(network, changed(path, change), match)


def test_a_network_of_ones_own_is_told_from_that_of_the_file(path):
    assert_refused(small_network(names=("mine", "last")), path, "lacks mine.kernel")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prediction": "x_start"}, "prediction was 'noise' and is 'x_start' now"),
        ({"schedule": {**PARAMETERS["schedule"], "timesteps": 20}}, "timesteps was 10 and is 20"),
        ({"unet": {"image_size": 4, "width_multipliers": [1, 3]}}, r"was \[1, 2\] and is \[1, 3\]"),
        ({"unet": {"width_multipliers": [1, 2]}}, "unet.image_size was 4 and is None now"),
    ],
)
def test_other_parameters_are_said_before_anything_else(path, changes, match):
    edited = {**PARAMETERS, **changes}
    message = f"edited after the weights were saved: .*{match}.*Put back"
    assert_refused(small_network(width=5), path, message, edited)


def test_parameters_that_came_later_or_do_not_matter_may_differ(network, path):
    unet = {**PARAMETERS["unet"], "classes": 0, "dropout": 0.5}
    others = {**PARAMETERS, "unet": unet, "training": {"batch_size": 64}, "loss": "kl"}
    saved = network.get_weights()
    network.set_weights([weight + 1 for weight in saved])
    load_weights(network, path, others)
    for weight, value in zip(network.get_weights(), saved, strict=True):
        np.testing.assert_array_equal(weight, value)


# Files that are none -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["path", "old_path"])
@pytest.mark.parametrize("content", [b"", b"<!doctype html>" * 100, b"PK\x03\x04", None])
def test_what_is_no_such_file_is_damaged(network, name, content, request):
    path = request.getfixturevalue(name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert_refused(network, path, r"is damaged \(")


@pytest.mark.parametrize("meaning", ["{", "[" * 10**5, " " * (2**20 + 1), '{"a": 1, "a": 2}'])
def test_parameters_in_the_header_that_cannot_be_read_are_damaged(network, path, meaning):
    save_file(load_file(path), path, {"parameters": meaning})
    assert_refused(network, path, r"is damaged \(")


def test_a_header_that_lies_about_its_sizes_is_damaged_before_anything_is_read(network, path):
    header = {"first.kernel": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert_refused(network, path, "is damaged")


def test_an_old_file_whose_header_says_more_than_it_holds_is_damaged(network, old_path):
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**30,)}
    with zipfile.ZipFile(old_path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("00000", "00001", "00002", "00003"):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bytes(2**20))
    assert_refused(network, old_path, "damaged .*00000 says that it has 4294967424 bytes")


def test_an_old_file_that_would_inflate_is_damaged(network, old_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 10**5)
    np.savez_compressed(old_path, **{"00000": np.zeros(10**6, "f4")})
    assert_refused(network, old_path, "damaged .*unpacked, it would grow from")


def test_a_long_table_of_contents_is_not_read(network, path):
    path.write_bytes(struct.pack("<Q", 10**7) + b" " * 10**7)
    assert_refused(network, path, "damaged .*table of contents has 10000000 bytes")


# Before there is a network -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["path", "old_path"])
def test_a_file_is_compared_with_the_number_of_a_network_s_weights(name, request):
    path = request.getfixturevalue(name)
    check_weights(path, PARAMETERS, 2 * 3 + 3 + 3 + 1)
    with pytest.raises(ValueError, match=r"does not fit .*it holds 13 numbers, .* has 1,000,000\."):
        check_weights(path, PARAMETERS, 10**6)


def test_what_was_edited_is_said_before_there_is_a_network(path):
    with pytest.raises(ValueError, match="prediction was 'noise'"):
        check_weights(path, {**PARAMETERS, "prediction": "v"}, 10**12)


def test_errors_are_short_whatever_is_in_the_file(network, path):
    save_file({"a" * 10**5: np.zeros(1, "f4")}, path, {"parameters": json.dumps({"b" * 10**5: 1})})
    for parameters in (PARAMETERS, {**PARAMETERS, "b" * 10**5: 1}):
        with pytest.raises(ValueError, match=r"edited|lacks") as caught:
            load_weights(network, path, parameters)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: [b * np.nan for b in a], "damaged .*of 00000 are not finite"),
        (lambda a: [b.astype("f8") * 1e39 for b in a], "damaged .*of 00000 are not finite"),
        (lambda a: [b.astype("U") for b in a], "does not fit .*is of type U"),
        (lambda a: [b.astype("int32") for b in a], "does not fit .*is of type I32"),
        (lambda a: a[:-1], "does not fit .*lacks 00003"),
        (lambda a: [*a, a[0]], "does not fit .*no place for 00004"),
    ],
)
def test_old_files_are_looked_at_as_closely(network, old_path, change, match):
    arrays = change(network.get_weights())
    np.savez(old_path, **{f"{i:05d}": array for i, array in enumerate(arrays)})
    assert_refused(network, old_path, match)


def test_an_old_file_of_objects_runs_nothing(network, old_path):
    array = np.array([print], dtype=object)
    np.savez(old_path, **{f"{i:05d}": array for i in range(4)}, allow_pickle=True)
    assert_refused(network, old_path, "does not fit|damaged")


def test_an_old_file_of_another_compression_or_kind_is_damaged(network, old_path):
    raw = bytearray(old_path.read_bytes())
    raw[raw.find(b"PK\1\2") + 10] = 99  # a compression that nobody has
    old_path.write_bytes(raw)
    assert_refused(network, old_path, "damaged")
    with old_path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_refused(network, old_path, "damaged")
