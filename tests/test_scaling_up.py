"""Costs against the backends' own counts, float16's NaN and its cures, gradients that vanish."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import ndtr, softmax

from diffusion_walkthrough import unet
from diffusion_walkthrough.data import check_image_range, companion_digit, load_images
from diffusion_walkthrough.parameters import (
    DiffusionParameters,
    ScheduleParameters,
    TrainingParameters,
    UNetParameters,
)
from diffusion_walkthrough.planner.counting import (
    attention_multiply_adds,
    blocks,
    count_multiply_adds,
    operations_per_epoch,
)
from diffusion_walkthrough.scaling_up import (
    FLOAT16_MAX,
    FLOAT16_MIN,
    MISTAKES,
    HalfPrecisionAttention,
    float16_gradients,
    half_precision_attention,
    original_attempt,
    training_gradients,
)
from diffusion_walkthrough.training import DiffusionModel

BACKEND = keras.backend.backend()
CIFAR10 = DiffusionParameters.cifar10().unet
WITHOUT_FLOAT16 = pytest.mark.skipif(
    BACKEND == "torch", reason="PyTorch's float16 convolutions do not train on a CPU"
)


# --- the attempt --------------------------------------------------------------------------------


def test_the_epoch_of_eight_days():
    attempt, paper = (operations_per_epoch(p, 50_000) for p in (original_attempt(), CIFAR10))
    assert f"{attempt:.2e}" == "1.10e+17"
    assert f"{paper:.2e}" == "1.87e+15"
    assert attempt / paper == pytest.approx(58.88, abs=0.01)
    speed = attempt / (8 * 24 * 3600)
    assert paper / speed / 3600 == pytest.approx(3.3, abs=0.05)


def test_the_ratio_without_any_attention_in_the_attempt():
    """The published 58.7 leaves out the attention in the middle too."""
    middle = attention_multiply_adds(256, side=32)
    without = count_multiply_adds(original_attempt()) - middle
    assert without / count_multiply_adds(CIFAR10) == pytest.approx(58.75, abs=0.005)


def test_the_attempts_attention_is_refused_and_said_what_to_do():
    attempt = original_attempt()
    assert attempt.level_sizes == (256, 128, 64, 32)
    with pytest.raises(ValueError, match=r"no level has side 16.*256, 128, 64, 32.*Choose"):
        dataclasses.replace(attempt, attention_sizes=(16,))
    attended = [block.part for block in blocks(attempt) if block.kind == "attention"]
    assert attended == ["middle"]
    assert dataclasses.replace(attempt, image_size=32, attention_sizes=(16,)) == CIFAR10


def test_the_attempts_images_are_refused():
    digit, _ = companion_digit()
    with pytest.raises(ValueError, match=r"from 0 to 255.*\[-1, 1\]"):
        check_image_range((digit + 1) * 127.5)


def test_every_mistake_says_what_happens_and_what_helps():
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) == 5
    for mistake in MISTAKES:
        assert all(len(text.split()) > 3 for text in dataclasses.astuple(mistake))


def test_the_numbers_in_the_mistakes_are_the_measured_ones():
    ratio = count_multiply_adds(original_attempt()) / count_multiply_adds(CIFAR10)
    assert f"{ratio:.0f} times" in MISTAKES[0].what_happens
    for mistake in MISTAKES[1:2]:
        assert "256, 128, 64 and 32" in mistake.name
    assert f"{np.finfo(np.float16).max:,.0f}" in MISTAKES[3].what_happens
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    assert f"{optimizer.initial_scale:,.0f}" in MISTAKES[4].what_happens


# --- attention in float16 -----------------------------------------------------------------------


def bright(n=8):
    """Digits enlarged eight times per side, dark on white paper, from 0 to 255."""
    images, _ = load_images("digits")
    return (1 - images[:n].repeat(8, axis=1).repeat(8, axis=2)) * 127.5


ATTEMPT = bright()
IN_RANGE = ATTEMPT / 127.5 - 1


def test_float16_ends_where_numpy_says():
    half = np.finfo(np.float16)
    assert (float(half.max), float(half.smallest_subnormal)) == (FLOAT16_MAX, FLOAT16_MIN)


def np_conv(x, kernel, stride):
    """A 3×3 convolution in float64; with stride 2 padded below and to the right only."""
    pad = (1, 1) if stride == 1 else (0, 1)
    padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::stride, ::stride], kernel)


def np_normalize(x, groups):
    if not groups:
        return x
    parts = np.split(x, groups, axis=-1)
    axes = (1, 2, 3)
    scaled = [(p - p.mean(axes, keepdims=True)) / p.std(axes, keepdims=True) for p in parts]
    return np.concatenate(scaled, axis=-1)


def np_scores(x, base_width, rng, groups):
    """The attempt's way down and its scores in float64, written from the description alone."""

    def glorot(*shape):
        places = 9 if len(shape) == 4 else 1
        limit = np.sqrt(6 / (places * shape[-2] + places * shape[-1]))
        return rng.uniform(-limit, limit, shape)

    def bend(h):
        return h / (1 + np.exp(-h))

    x = np_conv(x, glorot(3, 3, x.shape[-1], base_width), 1)
    for level, multiplier in enumerate([1, 2, 2, 2]):
        width = base_width * multiplier
        if level:
            x = np_conv(x, glorot(3, 3, x.shape[-1], x.shape[-1]), 2)
        for _ in range(2):
            h = np_conv(bend(np_normalize(x, groups)), glorot(3, 3, x.shape[-1], width), 1)
            h = np_conv(bend(np_normalize(h, groups)), glorot(3, 3, width, width), 1)
            x = h + (x if x.shape[-1] == width else x @ glorot(x.shape[-1], width))
    pixels = np_normalize(x, groups).reshape(len(x), -1, x.shape[-1])
    queries, keys = (pixels @ glorot(x.shape[-1], x.shape[-1]) for _ in range(2))
    return queries @ keys.transpose(0, 2, 1)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_scores_are_those_of_the_described_network(normalized):
    images = IN_RANGE[:2, :16, :16].astype(np.float64)
    found = half_precision_attention(images, normalized, base_width=16, seed=3)
    groups = 8 if normalized else None
    expected = np_scores(images, 16, np.random.default_rng(3), groups)
    assert found.exact_scores.shape == (2, 4, 4)
    off = np.abs(found.exact_scores - expected).max() / np.abs(expected).max()
    assert off < 0.02  # three digits at each of some twenty layers


def test_as_attempted_rows_are_lost_exactly_where_a_score_leaves_float16():
    attention = half_precision_attention(ATTEMPT, seed=1)
    assert attention.largest_score > 1e5
    assert attention.scores.dtype == np.float16
    largest = attention.exact_scores.max(axis=-1)
    lost = np.isnan(attention.weights).any(axis=-1)
    assert (lost == np.isposinf(attention.scores).any(axis=-1)).all()
    assert np.isnan(attention.weights[lost]).all()  # the whole row, whatever the processor
    assert lost[largest > 1.01 * FLOAT16_MAX].all()
    assert not lost[largest < 0.99 * FLOAT16_MAX].any()  # scores of −∞ do no harm
    assert (attention.exact_scores[~lost] < -1.01 * FLOAT16_MAX).any()
    assert attention.lost == lost.mean() > 0.1


@pytest.mark.parametrize("seed", range(4))
def test_each_cure_has_its_own_effect(seed):
    """Largest score, share lost, largest weight, each cure added to those before."""
    steps = [
        half_precision_attention(ATTEMPT, seed=seed),
        half_precision_attention(IN_RANGE, seed=seed),
        half_precision_attention(IN_RANGE, normalized=True, seed=seed),
        half_precision_attention(IN_RANGE, normalized=True, scaled=True, seed=seed),
    ]
    attempted, in_range, normalized, scaled = steps
    assert attempted.largest_weight > 0.95  # one pixel takes all, or is lost
    assert attempted.largest_score / in_range.largest_score > 1e4
    assert in_range.largest_weight < 0.1  # nearly all alike, 1/64
    assert normalized.largest_weight > 0.3
    assert scaled.largest_weight < 0.2
    assert normalized.largest_score / scaled.largest_score == pytest.approx(8, rel=0.01)  # √64
    assert [step.lost for step in steps[1:]] == [0, 0, 0]


def test_dividing_before_the_product_keeps_the_attempt_finite_and_no_more():
    scaled = half_precision_attention(ATTEMPT, scaled=True, seed=1)
    assert scaled.lost == 0  # divided after the product, a tenth of the rows would be lost
    assert scaled.largest_weight > 0.95


def test_a_softmax_in_float32_comes_too_late_for_the_attempt():
    late = half_precision_attention(ATTEMPT, float32_softmax=True, seed=1)
    assert late.weights.dtype == np.float32
    assert late.lost == half_precision_attention(ATTEMPT, seed=1).lost


def test_normalization_makes_the_size_of_scores_independent_of_the_range():
    def spread(white, **cures):
        return half_precision_attention(ATTEMPT / 255 * white, **cures).exact_scores.std()

    with_it = [spread(white, normalized=True) for white in (1, 255, 8000)]
    without = [spread(white) for white in (1, 16, 255)]
    assert max(with_it) / min(with_it) < 2
    assert max(without) / min(without) > 1e4


def test_with_all_cures_the_weights_are_the_packages_own():
    """A softmax of the float16 scores in float32, which sum to 1; in float16 they do not quite."""
    cures = {"normalized": True, "scaled": True}
    cured = half_precision_attention(IN_RANGE, float32_softmax=True, **cures)
    expected = softmax(cured.scores.astype(np.float64), axis=-1)
    np.testing.assert_allclose(cured.weights, expected, rtol=1e-5)
    in_half = half_precision_attention(IN_RANGE, **cures)

    def off(attention):
        return np.abs(attention.weights.astype(np.float64).sum(-1) - 1).max()

    assert off(cured) < 1e-5 < off(in_half)


def test_the_packages_attention_stays_finite_where_the_attempts_did_not():
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(100, 20, (2, 1, 6, 16)).astype(np.float16)
    q, k = (ops.convert_to_tensor(x) for x in (queries, keys))
    raw = ops.convert_to_numpy(ops.matmul(q, ops.transpose(k, (0, 2, 1))))
    assert np.isinf(raw).all()
    weights = ops.convert_to_numpy(unet.attention_weights(q, k))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_attention_summarizes_what_is_left():
    scores = np.array([[[1, 2], [3, 7e4]]], np.float32)
    weights = np.array([[[0.25, 0.75], [np.nan, np.nan]]], np.float16)
    attention = HalfPrecisionAttention(scores, scores, weights)
    assert (attention.largest_score, attention.lost) == (7e4, 0.5)
    assert attention.largest_weight == 0.75
    none_left = dataclasses.replace(attention, weights=np.full_like(weights, np.nan))
    assert none_left.lost == 1
    assert math.isnan(none_left.largest_weight)


# --- gradients in float16 -----------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [393_216, 25_165_824])
def test_as_many_gradients_vanish_as_the_bell_curve_says(numbers):
    errors = np.random.default_rng(0).standard_normal(200_000)
    found = float16_gradients(errors, numbers)
    assert found.dtype == np.float16
    expected = 2 * ndtr(FLOAT16_MIN / 2 * numbers / 2) - 1
    assert np.mean(found == 0) == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(len(errors)))
    scaled = float16_gradients(errors, numbers, loss_scale=2.0**15)
    assert np.mean(scaled == 0) < 1e-4
    exact = 2 / numbers * errors
    np.testing.assert_allclose(np.float64(scaled) / 2**15, exact, rtol=1e-2, atol=1e-11)


def test_the_gradient_is_that_of_the_mean_squared_error():
    rng = np.random.default_rng(1)
    guess, noise = rng.standard_normal((2, 5))
    for i in range(5):
        nudged = guess + 1e-6 * np.eye(5)[i]
        slope = (np.mean((nudged - noise) ** 2) - np.mean((guess - noise) ** 2)) / 1e-6
        assert float16_gradients(guess - noise, 5)[i] == pytest.approx(slope, abs=2e-3)


TINY_MODEL = DiffusionParameters(
    schedule=ScheduleParameters(timesteps=10),
    unet=UNetParameters(
        image_size=8,
        channels=1,
        base_width=8,
        width_multipliers=(1,),
        residual_blocks=1,
        attention_sizes=(),
        dropout=0.0,
        groups=4,
    ),
    training=TrainingParameters(warmup_steps=0, ema_momentum=None, horizontal_flip=False),
    variance="fixed_small",
)


@pytest.fixture(scope="module")
def model():
    """A tiny model with weights as if it had been trained: none of them almost zero."""
    network = DiffusionModel(TINY_MODEL, seed=0)
    rng = np.random.default_rng(0)
    weights = network.network.get_weights()
    network.network.set_weights([0.2 * rng.standard_normal(w.shape) for w in weights])
    return network


@pytest.fixture(scope="module")
def images():
    return load_images("digits")[0][:32]


def flat(network):
    return np.concatenate([np.ravel(w) for w in network.get_weights()])


def test_recorded_gradients_are_those_that_gradient_descent_follows(model, images):
    before = flat(model.network)
    (recorded,) = training_gradients(model, images, seed=4)
    np.testing.assert_array_equal(flat(model.network), before)  # left as it was
    other = DiffusionModel(TINY_MODEL, seed=4)
    other.network.set_weights(model.network.get_weights())
    other.compile(keras.optimizers.SGD(0.5))
    question = other.questions(images, batch_size=len(images))[0]
    keras.Model.train_on_batch(other, *question)  # the model's own would hide the images again
    np.testing.assert_allclose((before - flat(other.network)) / 0.5, recorded, atol=2e-5)
    assert np.abs(recorded).max() > 1e-2


def test_shares_divide_the_same_gradients(model, images):
    whole, tenth = training_gradients(model, images, shares=(1.0, 0.1))
    np.testing.assert_allclose(10 * tenth, whole, rtol=1e-3, atol=1e-6)


def test_shares_of_images_pick_parts_whose_gradients_have_the_wholes_mean(model, images):
    first = np.repeat([2.0, 0.0], len(images) // 2)
    whole, one, other = training_gradients(model, images, shares=(1.0, first, 2 - first))
    np.testing.assert_allclose((one + other) / 2, whole, rtol=1e-3, atol=1e-5)
    assert np.abs(one - whole).max() > 100 * np.abs((one + other) / 2 - whole).max()


@WITHOUT_FLOAT16
def test_small_gradients_vanish_in_float16_unless_the_loss_is_scaled(model, images):
    shares = (1.0, 1e-4)  # small on purpose: no weight's gradient shrinks with larger images
    exact = training_gradients(model, images, "float32", shares=shares)
    plain = training_gradients(model, images, "mixed_float16", scale_loss=False, shares=shares)
    scaled = training_gradients(model, images, "mixed_float16", shares=shares)
    assert np.mean(plain[0] == 0) < 0.02
    assert np.mean(plain[1] == 0) > 0.5
    assert np.mean(scaled[1] == 0) < 0.02
    off = np.linalg.norm(scaled - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert off.max() < 0.05


def loss_scaled_step(gradient, remembered):
    """The weight, at first 0, and the scale after one step of gradient descent."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    weight = keras.Variable(0.0)
    optimizer.build([weight])
    if remembered:
        gradient = gradient * 32_768
    tensor = ops.convert_to_tensor(gradient, "float32")
    if BACKEND != "jax":
        optimizer.apply([tensor], [weight])
        return float(weight.value), float(optimizer.dynamic_scale.value)
    # JAX keeps no state, so that the variables have to be handed over.
    state = [variable.value for variable in optimizer.variables]
    (new,), state = optimizer.stateless_apply(state, [tensor], [weight.value])
    names = [variable.path.split("/")[-1] for variable in optimizer.variables]
    return float(new), float(state[names.index("dynamic_scale")])


def test_the_first_scale_is_what_the_loss_is_multiplied_with():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    optimizer.build([keras.Variable(0.0)])
    assert float(ops.convert_to_numpy(optimizer.scale_loss(1.0))) == 32_768


def test_a_forgotten_scaling_makes_the_step_32768_times_too_small():
    assert loss_scaled_step(0.25, remembered=True) == (-0.25, 32_768)
    assert loss_scaled_step(0.25, remembered=False) == (-0.25 / 32_768, 32_768)


def test_a_step_with_nan_is_skipped_and_the_scale_halved():
    assert loss_scaled_step(math.nan, remembered=True) == (0, 16_384)
