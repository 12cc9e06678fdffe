"""The classifiers that ship: what they know, what they are not fooled by, and their files."""

import numpy as np
import pytest
from keras import ops
from scipy.ndimage import gaussian_filter

from diffusion_walkthrough import features as features_module
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import (
    density_coverage,
    flatten,
    frechet_distance,
    precision_recall,
    real_against_real,
)
from diffusion_walkthrough.features import (
    FOLDER,
    Classifier,
    build_classifier,
    classifier_names,
    load_classifier,
    load_features,
    recognized,
    save_classifier,
)
from train_features import Labelled, garbage, shuffled, train

TRAINING, _ = load_images("digits")
HELD_OUT, LABELS = load_images("digits", split="test")
DIGITS = load_classifier("digits")


# What they know ----------------------------------------------------------------------------------


def test_digits_that_it_has_not_seen_are_recognized():
    found = DIGITS.probabilities(HELD_OUT)["digit"]
    assert found.shape == (297, 11)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert np.mean(found.argmax(axis=1) == LABELS) > 0.98
    assert recognized(HELD_OUT, "digits") > 0.97


def test_the_one_for_mnist_knows_digits_of_another_hand():
    """scikit-learn's, made larger: not a pixel of them is MNIST's."""
    images, labels = load_images("digits", image_size=20)
    framed = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=-1)
    found = load_classifier("mnist").probabilities(framed)["digit"]
    assert np.mean(found.argmax(axis=1) == labels) > 0.8


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_what_is_no_digit_is_not_recognized(name):
    rng, size = np.random.default_rng(5), load_classifier(name).network.input_shape[1:]
    noise = rng.uniform(-1, 1, (300, *size))
    assert recognized(noise, name) < 0.01
    assert recognized(np.sign(noise), name) < 0.01
    assert recognized(np.full((1, *size), -1.0), name) == 0
    if name == "digits":
        turned = rng.permuted(HELD_OUT.reshape(297, -1), axis=1).reshape(HELD_OUT.shape)
        assert recognized(turned, name) < 0.01


# What the features are for -----------------------------------------------------------------------


def test_features_are_what_the_answer_is_made_of():
    rows = load_features("digits")(HELD_OUT)
    assert (rows.shape, rows.dtype) == ((297, 32), np.float32)
    kernel, bias = DIGITS.network.get_layer("digit").get_weights()
    logits = rows @ kernel + bias
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(DIGITS.probabilities(HELD_OUT)["digit"], expected, atol=1e-5)


def test_blur_is_precise_by_pixels_and_not_by_features():
    blurred = gaussian_filter(HELD_OUT, (0, 0.5, 0.5, 0), mode="nearest")
    by_pixels, by_features = (
        [precision_recall(TRAINING, x, features=features)[0] for x in (HELD_OUT, blurred)]
        for features in (flatten, load_features("digits"))
    )
    assert by_pixels[1] > by_pixels[0] + 0.02
    assert by_features[1] < by_features[0] - 0.1


def test_fading_raises_density_and_coverage_by_pixels_and_lowers_them_by_features():
    faded = 0.8 * HELD_OUT + 0.2 * TRAINING.mean(axis=0)
    for features, better in ((flatten, True), (load_features("digits"), False)):
        real, shown = (
            np.array(density_coverage(TRAINING, x, features=features)) for x in (HELD_OUT, faded)
        )
        assert np.all((shown > real + 0.05) if better else (shown < real - 0.05))


def test_smudges_of_the_right_covariance_deceive_the_pixels_alone():
    """Pixels' Fréchet distance sees mean and covariance, and nothing else."""
    pixels = flatten(TRAINING)
    random = np.random.default_rng(0)
    drawn = random.multivariate_normal(pixels.mean(axis=0), np.cov(pixels, rowvar=False), 700)
    smudges = drawn.reshape(-1, 8, 8, 1)
    floor = real_against_real(frechet_distance, TRAINING, 700, repeats=2).mean()
    assert frechet_distance(TRAINING, smudges) < 0.6 * floor
    features = load_features("digits")
    floor = real_against_real(frechet_distance, TRAINING, 700, repeats=2, features=features).mean()
    assert frechet_distance(TRAINING, smudges.clip(-1, 1), features) > 5 * floor
    assert recognized(smudges.clip(-1, 1), "digits") < 0.8


# How one asks ------------------------------------------------------------------------------------


def two_questions():
    """A classifier of 4x4 images in colour whose answers are known: its weights are set by hand."""
    network = build_classifier((4, 4, 3), {"hat": 2, "hair": 3})
    for name in ("hat", "hair"):
        kernel, bias = network.get_layer(name).get_weights()
        network.get_layer(name).set_weights([np.zeros_like(kernel), bias])
    return network


def answer(network, name, logits):
    kernel, _ = network.get_layer(name).get_weights()
    network.get_layer(name).set_weights([kernel, np.array(logits, "float32")])


def test_an_image_is_recognized_if_every_question_has_a_sure_answer():
    network, images = two_questions(), np.zeros((2, 4, 4, 3)) - 0.5
    answer(network, "hat", [9, 0, 0])
    answer(network, "hair", [0, 9, 0, 0])
    assert recognized(images, Classifier(network)) == 1
    answer(network, "hair", [0, 0, 0, 9])  # none of these
    assert recognized(images, Classifier(network)) == 0
    answer(network, "hair", np.log([0.6, 0.2, 0.1, 0.1]))
    assert recognized(images, Classifier(network), sure=0.59) == 1
    assert recognized(images, Classifier(network), sure=0.61) == 0


def test_many_images_are_asked_about_in_parts(monkeypatch):
    whole = DIGITS.features(HELD_OUT)
    monkeypatch.setattr(features_module, "_IMAGES_AT_ONCE", 100)
    np.testing.assert_allclose(DIGITS.features(HELD_OUT), whole, rtol=1e-4, atol=1e-4)


def test_it_is_loaded_once():
    assert load_classifier("digits") is load_classifier("digits")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load_features("digit"), ValueError, "name='digit'.*Did you mean 'digits'"),
        (lambda: load_features(3), TypeError, "name=3"),
        (lambda: recognized(HELD_OUT, "cats"), ValueError, "must be one of 'digits'"),
        (lambda: recognized(HELD_OUT, "digits", sure=90), ValueError, "sure=90.*from 0 to 1"),
        (lambda: recognized(HELD_OUT, "mnist"), ValueError, r"\(297, 8, 8, 1\).*\(n, 28, 28, 1\)"),
        (lambda: DIGITS.features(HELD_OUT[0]), ValueError, r"\(8, 8, 1\), but"),
        (lambda: DIGITS.features(HELD_OUT[:0]), ValueError, "no images"),
        (lambda: DIGITS.features(HELD_OUT / 2 + 0.5), ValueError, r"It looks like \[0, 1\]"),
    ],
)
def test_what_cannot_be_asked_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Their files -------------------------------------------------------------------------------------


def test_the_files_are_small_and_say_what_they_were_made_for():
    assert set(classifier_names()) >= {"digits", "mnist"}
    for name in classifier_names():
        assert (FOLDER / f"{name}.safetensors").stat().st_size < 200_000
        network = load_classifier(name).network
        assert network.get_layer("features").units == 32
        assert max(network.input_shape[1:3]) <= 28


def test_a_saved_classifier_is_loaded_as_it_was(tmp_path, monkeypatch):
    network = build_classifier((4, 4, 3), {"hat": 2, "hair": 3})
    save_classifier(network, tmp_path / "tiny.safetensors")
    monkeypatch.setattr(features_module, "FOLDER", tmp_path)
    assert classifier_names() == ("tiny",)
    images = np.random.default_rng(0).uniform(-1, 1, (5, 4, 4, 3))
    loaded, saved = load_classifier("tiny"), Classifier(network)
    assert {name: x.shape for name, x in loaded.probabilities(images).items()} == {
        "hat": (5, 3),
        "hair": (5, 4),
    }
    for name, expected in saved.probabilities(images).items():
        np.testing.assert_array_equal(loaded.probabilities(images)[name], expected)
    np.testing.assert_array_equal(loaded.features(images), saved.features(images))


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    whole = (FOLDER / "digits.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(features_module, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"half\.safetensors is damaged"):
        load_classifier("half")


@pytest.mark.parametrize(("side", "layers"), [(4, 0), (8, 1), (16, 2), (28, 3)])
def test_sides_are_halved_until_four_pixels_are_left(side, layers):
    network = build_classifier((side, side, 1), {"digit": 10})
    assert sum(layer.name.startswith("conv_") for layer in network.layers) == layers + 2
    assert network.get_layer("conv_out").output.shape[1:] == (4, 4, 32)


# How they are trained ----------------------------------------------------------------------------


def test_shuffled_images_have_the_same_blocks_in_another_order():
    images = np.random.default_rng(0).uniform(size=(3, 4, 6, 2))
    mixed = shuffled(images, 2, np.random.default_rng(1))
    assert not np.array_equal(mixed, images)
    assert not np.array_equal(mixed[0].argsort(axis=None), images[0].argsort(axis=None))
    for before, after in zip(images, mixed, strict=True):
        blocks = [
            sorted(x[i : i + 2, j : j + 2].tolist() for i in (0, 2) for j in (0, 2, 4))
            for x in (before, after)
        ]
        assert blocks[0] == blocks[1]


def test_a_third_of_the_garbage_is_noise():
    images = np.full((9, 4, 4, 1), 0.5, "float32")
    random = np.random.default_rng(0)
    assert (garbage(images, random) != 0.5).any(axis=(1, 2, 3)).tolist() == [True] * 3 + [False] * 6


def test_a_classifier_of_two_questions_learns_both():
    """Is the left half bright, and is the right? Both answers from one and the same features."""
    random = np.random.default_rng(0)
    labels = {name: random.integers(0, 2, 200) for name in ("left", "right")}
    halves = [np.broadcast_to(x[:, None, None, None], (200, 4, 2, 1)) for x in labels.values()]
    images = np.concatenate(halves, axis=2) * 1.6 - 0.8 + 0.1 * random.normal(size=(200, 4, 4, 1))
    network = train(Labelled(images.clip(-1, 1), labels), epochs=15)
    for name, logits in network(images.astype("float32")).items():
        assert logits.shape[1] == 3
        found = ops.convert_to_numpy(logits).argmax(axis=1)
        assert np.mean(found == labels[name]) > 0.95
