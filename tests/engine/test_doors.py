"""What Keras's methods are given, and what is said of what they cannot work with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from pocket import pocket_model
from scipy.sparse import csr_matrix
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine import doors
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import build_unet

IMAGES = load_images("digits")[0][:6]


# Kinds of images ---------------------------------------------------------------------------------


class LikeAnArray:
    """As HDF5's arrays and tables of pandas are."""

    shape = IMAGES.shape

    def __array__(self, dtype=None, copy=None):
        return IMAGES

    def __iter__(self):
        return iter(IMAGES)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES.astype("float64"),
        IMAGES.tolist(),
        list(IMAGES),
        tuple(IMAGES),
        LikeAnArray(),
        ops.convert_to_tensor(IMAGES),
    ],
    ids=["array", "float64", "numbers", "list", "tuple", "like an array", "tensor"],
)
def test_every_kind_of_array_is_taken(images):
    assert not doors.is_data_set(images)
    found = doors.as_images(images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, IMAGES)


def split_up(images):
    """An array of objects, each of which is an image."""
    apart = np.empty(len(images), object)
    apart[:] = [*images]
    return apart


def test_tensors_of_16_bits_are_taken_too():
    for kind in ("float16", "bfloat16"):
        found = doors.as_images(ops.cast(IMAGES, kind))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, IMAGES, atol=0.01)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, r"x=None: images must be an array .*load_images\('digits'\)\[0\]"),
        ("my/pictures", r"Load them first: load_images\('my/pictures'\)\[0\]"),
        (Path("pictures"), r"load_images\('pictures'\)\[0\]"),
        ({"image": IMAGES}, "images must be an array"),
        ((IMAGES, np.arange(6)), "a pair, as load_images returns: pass its first part as x"),
        ([IMAGES, np.arange(6)], "a pair, as load_images returns"),
        ((IMAGES, np.ones((6, 2))), "a pair, as load_images returns"),
        ((IMAGES.tolist(), [[3]] * 6), "a pair, as load_images returns"),
        ((IMAGES, None), "a pair, as load_images returns"),
        ((list(IMAGES), [0, 1, 2, 3, 4, 5]), "a pair, as load_images returns"),
        ((IMAGES, np.arange(6), np.ones(6)), "three parts: .* its third as sample_weight"),
        (
            ((IMAGES, np.ones((6, 1))), (IMAGES[:2], np.ones((2, 1)))),
            r"two pairs, to train on .*Take them apart: \(images, labels\), held_out = data",
        ),
        ([IMAGES[0], IMAGES[1, :4]], "cannot be made into one array.*image_size="),
        (csr_matrix(np.eye(6)), r"is sparse.* pass x\.toarray\(\)"),
        ((image for image in IMAGES), r"a data set of batches\. Pass one .*next\(iter\(data\)\)"),
        (np.ma.masked_less(IMAGES, 0), "images are masked in some places"),
        ([np.ma.masked_less(image, 0) for image in IMAGES], "images are masked in some places"),
        ([IMAGES[0], IMAGES[1], IMAGES[2, :4]], "cannot be made into one array.*image_size="),
        (IMAGES + 1j, "type complex64; they must be numbers"),
        (np.array(["a"]), "they must be numbers"),
        (IMAGES.copy, "Call it, and pass what it returns"),
        (np.array([{}]), r"np\.stack\(images\)"),
        (np.array([None]), "they must be numbers"),
        (object(), "they must be numbers|cannot be made into one array"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_array_is_refused_with_how_to_get_one(images, message):
    with pytest.raises(ValueError, match=message):
        doors.as_images(images)


@pytest.mark.parametrize(
    "images", [IMAGES.astype(object), split_up(IMAGES)], ids=["whole", "apart"]
)
def test_the_remedy_for_objects_makes_numbers_of_them(images):
    with pytest.raises(ValueError, match="type object; they must be numbers") as caught:
        doors.as_images(images)
    remedy = "images.astype('float32')" if images.ndim > 1 else "np.stack(images)"
    assert remedy in str(caught.value)
    np.testing.assert_array_equal(eval(remedy, {"np": np, "images": images}), IMAGES)


def test_two_or_three_images_are_no_parts():
    for n in (2, 3):
        for images in (list(IMAGES[:n]), tuple(IMAGES[:n, ..., 0]), IMAGES[:n].tolist()):
            assert len(doors.as_images(images)) == n


def test_a_sparse_matrix_is_no_data_set():
    assert not doors.is_data_set(csr_matrix(np.eye(6)))


# Shapes ------------------------------------------------------------------------------------------


def pixels(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


@pytest.mark.parametrize(
    ("shape", "wanted", "remedy"),
    [
        ((8, 8, 1), (8, 8, 1), "images[None]"),
        ((8, 8), (8, 8, 1), "images[None, ..., None]"),
        ((4, 8, 8), (8, 8, 1), "images[..., None]"),
        ((4, 8, 8), (8, 8, 3), "np.repeat(images[..., None], 3, axis=-1)"),
        ((4, 64), (8, 8, 1), "images.reshape(-1, 8, 8, 1)"),
        ((4, 1, 8, 8), (8, 8, 1), "np.moveaxis(images, 1, -1)"),
        ((4, 3, 8, 8), (8, 8, 3), "np.moveaxis(images, 1, -1)"),
        ((4, 8, 8, 3), (8, 8, 1), "images.mean(axis=-1, keepdims=True)"),
        ((4, 8, 8, 1), (8, 8, 3), "np.repeat(images, 3, axis=-1)"),
        ((4, 8, 8, 4), (8, 8, 3), "images[..., :3]"),
        ((2, 3, 8, 8, 1), (8, 8, 1), "images.reshape(-1, 8, 8, 1)"),
    ],
    ids=str,
)
def test_the_remedy_for_a_shape_makes_images_that_fit(shape, wanted, remedy):
    """What the message says is run, as whoever reads it would."""
    images = pixels(*shape)
    with pytest.raises(ValueError, match=r"images have shape .*this model needs \(n, ") as caught:
        doors.check_images(images, wanted)
    assert f" {remedy}" in str(caught.value)
    mended = eval(remedy, {"np": np, "images": images})
    doors.check_images(mended, wanted)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 1), r"a data set of them with \.batch\(32\)"),
        ((4, 8, 8, 3), r"or build a model with UNetParameters\(channels=3"),
        ((4, 28, 28, 1), r"load_images\(…, image_size=8\) resizes.*UNetParameters\(image_size=28"),
        ((4, 8, 12, 1), r"image_size=8\) cuts and resizes"),
        ((4, 3, 8, 8, 1), r"shape \(4, 3, 8, 8, 1\); this model needs \(n, 8, 8, 1\)"),
        ((5,), r"shape \(5,\).*such as enumerate makes, leave out the numbers"),
        ((4, 8, 8, 2), "has 1 channel.*leave out the others"),
    ],
)
def test_other_shapes_are_named_with_what_can_be_done(shape, message):
    with pytest.raises(ValueError, match=message):
        doors.check_images(pixels(*shape), (8, 8, 1))


@pytest.mark.parametrize("shape", [(0,), (0, 8, 8, 1), (0, 8, 8)])
def test_no_images_are_told_whatever_their_shape(shape):
    with pytest.raises(ValueError, match="There are no images"):
        doors.check_images(np.zeros(shape, "float32"), (8, 8, 1))


def test_images_in_the_place_of_labels_are_told_that_none_are_needed():
    with pytest.raises(ValueError, match=r"labels have the shape of the images.*Leave y out"):
        doors.as_labels(IMAGES, IMAGES)


def test_infinity_is_told_also_of_numbers_that_float32_cannot_hold():
    images = IMAGES.astype("float64")
    images[0, 0, 0, 0] = 1e39
    with pytest.raises(ValueError, match="NaN or infinity"):
        doors.check_images(doors.as_images(images), (8, 8, 1))


# Labels and weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [np.arange(6), list(range(6)), np.arange(6.0), np.ones((6, 2))])
def test_labels_are_whole_numbers(labels):
    found = doors.as_labels(labels, IMAGES)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)
    assert doors.as_labels(None, IMAGES) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(5), r"labels have shape \(5,\).*one number for each of the 6 images"),
        (np.arange(6) + 2**31, "labels must be whole numbers that int32 can hold"),
        (np.array([0, 1, 2, 3, 4, -(2**40)]), "whole numbers that int32 can hold"),
        (np.arange(6) + 0.5, "labels must be whole numbers"),
        (np.full(6, np.nan), "labels must be whole numbers"),
        (np.array(list("abcdef")), "type <U1"),
        (np.ma.masked_greater(np.arange(6), 2), "labels are masked in some places"),
    ],
)
def test_labels_that_would_become_others_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        doors.as_labels(labels, IMAGES)


@pytest.mark.parametrize("weights", [np.ones(6), [1, 1, 1, 1, 1, 1], np.ones((6, 1), bool)])
def test_weights_are_one_number_for_each_image(weights):
    found = doors.as_weights(weights, IMAGES)
    assert (found.dtype, found.shape) == (np.float32, (6,))
    assert (found == 1).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((6, 3)), r"weights have shape \(6, 3\), but must be \(6,\)"),
        (np.ones(7), "one number for each of the 6 images"),
        (np.full(6, np.nan), "sample_weight is NaN, infinite"),
        (np.full(6, 1e39), "sample_weight is NaN, infinite"),
        (["a"] * 6, "one number for each of the 6 images"),
        (np.ma.masked_greater(np.arange(6), 2), "weights are masked in some places"),
    ],
)
def test_weights_that_would_not_count_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        doors.as_weights(weights, IMAGES)


def test_an_image_counts_as_its_class_does_and_by_itself():
    labels = [0, 1, 2, 1]
    np.testing.assert_array_equal(doors.by_class(None, {1: 3.0}, labels), [1, 3, 1, 3])
    weights = doors.by_class([1, 2, 3, 4], {1: 3.0, 2: 0}, np.array(labels, "float32"))
    np.testing.assert_array_equal(weights, [1, 6, 0, 12])
    column = np.array(labels)[:, None]  # as keras.datasets.cifar10 has them
    np.testing.assert_array_equal(doors.by_class(None, {1: 3.0}, column), [1, 3, 1, 3])
    assert doors.by_class("as it is", None, None) == "as it is"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, {0: 1.0}, None), "class_weight needs to know each image's class: pass the labels"),
        ((None, [1.0, 2.0], [0, 1]), r"must be a dictionary.*Write \{0: 1\.0\}"),
        ((None, {0: 1.0}, np.eye(3)), r"labels have shape \(3, 3\).*labels\.argmax\(axis=-1\)"),
        ((None, {0: 1.0}, [[1, 2], [0, 1]]), r"shape \(2, 2\).*Choose the column, labels\[:, 0\]"),
        ((None, {0: 1.0}, ["a", "b"]), "of type <U1. Number the classes, for example with np.uni"),
        ((None, {0: 1.0}, [0.7, 1.7]), "labels must be whole numbers that int32 can hold"),
        ((None, {0: 1.0}, [np.nan, 1]), "labels must be whole numbers that int32 can hold"),
        ((None, {0: 1.0}, np.uint64([2**64 - 1, 1])), "labels must be whole numbers that int32"),
        ((None, {0: 1.0}, [None, 1]), "are of type object"),
        ((None, {0: 1.0}, {"digit": [0, 1]}), "labels are a dictionary with 'digit', but must be"),
        (([[1], [2, 3]], {0: 1.0}, [0, 1]), "weights of type list cannot be made into one array"),
        ((None, {"0": 1.0}, [0, 1]), "a label in class_weight='0'.*=0, without quotes"),
        ((None, {0.5: 1.0}, [0, 1]), "a label in class_weight=0.5"),
        ((None, {0: None}, [0, 1]), r"class_weight\[0\]=None.*of at least 0"),
        ((None, {0: float("nan")}, [0, 1]), r"class_weight\[0\]=nan"),
        ((None, {0: -1.0}, [0, 1]), r"class_weight\[0\]=-1.0"),
        ((np.ones(3), {0: 1.0}, [0, 1]), r"weights have shape \(3,\).*each of the 2 images"),
    ],
)
def test_class_weights_that_cannot_be_used_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        doors.by_class(*arguments)


# Networks ----------------------------------------------------------------------------------------

ONE = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, labels={"digit": 10}))
TWO = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, labels={"a": 2, "b": 3}))
LEARNED = dataclasses.replace(TINY, variance="learned", loss="kl")


def network(*asked: tuple, answer: object = 1) -> keras.Model:
    """A network that is shown inputs of some shapes; ``answer`` channels for each pixel."""
    inputs = [keras.Input(shape) for shape in asked]
    x = inputs[0]
    x = x if len(x.shape) == 4 else keras.layers.Reshape(GRAY)(x)
    for other in inputs[1:]:  # the oldest Keras has no network that leaves one out
        x = x + 0 * ops.sum(other)
    return keras.Model(inputs, keras.layers.Conv2D(answer, 1)(x))


GRAY, KNOWN = (8, 8, 1), (8, 8, 2)


@pytest.mark.parametrize(
    ("parameters", "asked", "answer"),
    [
        (TINY, (GRAY, ()), 1),
        (TINY, (GRAY, (1,)), 1),
        (TINY, ((None, None, 1), ()), 1),
        (TINY, ((8, 8), ()), 1),
        (TINY, (GRAY, (), ()), 1),
        (TINY, (GRAY, (), KNOWN), 1),
        (ONE, (GRAY, (), ()), 1),
        (ONE, (GRAY, (), (1,)), 1),
        (ONE, (GRAY, (), KNOWN, ()), 1),
        (TWO, (GRAY, (), (2,)), 1),
        (TWO, (GRAY, (), KNOWN, (None,)), 1),
        (LEARNED, (GRAY, ()), 2),
    ],
)
def test_a_network_that_is_shown_what_a_model_shows_is_taken(parameters, asked, answer):
    given = network(*asked, answer=answer)
    assert DiffusionModel(parameters, seed=0, network=given).network is given


@pytest.mark.parametrize(
    ("parameters", "asked", "answer", "said"),
    [
        (TINY, (GRAY,), 1, r"it is shown \(8, 8, 1\) and answers \(8, 8, 1\)"),
        (
            TINY,
            ((16, 16, 1), ()),
            1,
            r"must be shown x_t \(8, 8, 1\), t \(\) and answer \(8, 8, 1\)",
        ),
        (TINY, ((8, 8, 3), ()), 1, r"it is shown \(8, 8, 3\), \(\)"),
        (TINY, (GRAY, (5,)), 1, r"it is shown \(8, 8, 1\), \(5,\)"),
        (TINY, (GRAY, ()), 2, r"and answers \(8, 8, 2\)\. Build it with these shapes"),
        (LEARNED, (GRAY, ()), 1, r"and answer \(8, 8, 2\), as the parameters say"),
        (ONE, (GRAY, ()), 1, r"t \(\), labels \(\) and answer"),
        (TWO, (GRAY, (), ()), 1, r"labels \(2,\) and answer"),
    ],
)
def test_a_network_of_other_shapes_is_refused_with_both(parameters, asked, answer, said):
    with pytest.raises(ValueError, match=rf"^network=<Functional.*{said}"):
        DiffusionModel(parameters, seed=0, network=network(*asked, answer=answer))


def test_a_network_that_answers_twice_or_without_channels_is_refused():
    x_t, t = keras.Input(GRAY), keras.Input(())
    x = x_t + 0 * ops.sum(t)
    for answer in ([x, x], keras.layers.Reshape((8, 8))(x)):
        with pytest.raises(ValueError, match=r"and answers \(8, 8"):
            DiffusionModel(TINY, seed=0, network=keras.Model([x_t, t], answer))


class Unbuilt(keras.Model):
    """A model of no known shapes."""

    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "leave it out"),
        ("unet", "leave it out"),
        ([], "leave it out"),
        (build_unet, "leave it out"),
        (keras.layers.Dense(1), "leave it out"),
        (keras.Sequential([keras.layers.Dense(1)]), "leave it out"),
        (Unbuilt(), "leave it out"),
        (pocket_model(), "the network in it, which is its attribute network"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_functional_network_is_refused(value, said):
    with pytest.raises(TypeError, match=f"network must be a functional model.*{said}"):
        DiffusionModel(TINY, seed=0, network=value)


# Options and callbacks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": -1},
        {"epochs": 2.0},
        {"epochs": True},
        {"epochs": "3"},
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": "32"},
        {"steps_per_epoch": 0},
        {"steps": -1},
        {"validation_steps": 1.5},
        {"validation_batch_size": 0},
        {"initial_epoch": -1},
        {"validation_split": 1.0},
        {"validation_split": "0.2"},
        {"validation_split": float("nan")},
        {"shuffle": "no"},
        {"shuffle": 1},
        {"validation_freq": 0},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused_by_their_names(options):
    ((name, value),) = options.items()
    with pytest.raises((TypeError, ValueError), match=f"^{name}={value!r}: {name} must be "):
        doors.check_numbers(**options)


def test_numbers_that_can_be_are_not():
    doors.check_numbers(epochs=0, batch_size=np.int64(3), validation_split=0, shuffle=False)
    doors.check_numbers(epochs=None, steps_per_epoch=None)
    doors.check_numbers(validation_freq=[1, 3])


SETTERS = [
    keras.callbacks.ReduceLROnPlateau("loss"),
    keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3),
]


@pytest.mark.parametrize("callback", SETTERS, ids=lambda c: type(c).__name__)
def test_a_rate_that_changes_itself_cannot_be_set(callback):
    decay = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    with pytest.raises(ValueError, match=rf"{type(callback).__name__} sets .*warmup_steps=0"):
        doors.check_callbacks([callback], keras.optimizers.Adam(decay))
    doors.check_callbacks([callback], keras.optimizers.Adam(1e-3))
    doors.check_callbacks([keras.callbacks.History()], keras.optimizers.Adam(decay))


def test_a_backup_without_the_questions_is_told(tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.warns(UserWarning, match=r"those of its first epoch again\. Use ResumeTraining"):
        doors.check_callbacks([backup], None)


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match=r"Write EarlyStopping\(\), with parentheses"):
        doors.check_callbacks([keras.callbacks.EarlyStopping], None)
    with pytest.raises(TypeError, match=r"callbacks=3: .*keras\.callbacks\.Callback\. Leave it"):
        doors.check_callbacks([3], None)
