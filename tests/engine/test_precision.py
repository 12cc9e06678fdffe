"""Half precision: the network computes in it, and nothing else does."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from pocket import pocket_model
from tiny import TINY

from diffusion_walkthrough.backward_sampling import p_sample_loop
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine.optimizer import bare_optimizer
from diffusion_walkthrough.engine.precision import dtype_policy
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.noise_schedule import extract
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import attention_weights, normalize

BACKEND = keras.backend.backend()
HALVES = ["mixed_float16", "mixed_bfloat16"]
trains_float16 = pytest.mark.skipif(
    BACKEND == "torch", reason="PyTorch's convolutions take no float16 on a CPU"
)
needs_float16 = [pytest.param("mixed_float16", marks=trains_float16), "mixed_bfloat16"]


def in_precision(precision: str, parameters=TINY, **changes):
    training = dataclasses.replace(parameters.training, precision=precision, **changes)
    return dataclasses.replace(parameters, training=training)


def numpy(x: object) -> np.ndarray:
    return ops.convert_to_numpy(x)


def digits(n: int = 64) -> np.ndarray:
    return load_images("digits")[0][:n]


# Who decides --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", HALVES)
def test_the_parameters_decide_in_what_the_network_computes(precision):
    model = DiffusionModel(in_precision(precision))
    assert model.network.compute_dtype == precision.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.network.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("policy", "precision"),
    [("mixed_float16", "float32"), ("mixed_bfloat16", "mixed_float16")],
)
def test_another_global_policy_is_warned_of_and_not_followed(policy, precision):
    message = f"'{policy}'.*'{precision}'"
    with dtype_policy(policy):
        with pytest.warns(UserWarning, match=message) as seen:
            model = DiffusionModel(in_precision(precision))
        assert keras.config.dtype_policy().name == policy
    assert model.network.compute_dtype == precision.removeprefix("mixed_")
    assert seen[0].filename == __file__


def test_the_default_and_the_same_policy_are_not_warned_of():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pocket_model(precision="mixed_bfloat16")
        with dtype_policy("mixed_bfloat16"):
            pocket_model(precision="mixed_bfloat16")
    assert not [each for each in seen if issubclass(each.category, UserWarning)]


def test_the_policy_is_put_back_even_after_an_error():
    with contextlib.suppress(ZeroDivisionError), dtype_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise ZeroDivisionError
    assert keras.config.dtype_policy().name == "float32"


# What stays in float32 ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", HALVES)
def test_schedule_tables_and_noisy_images_are_float32(policy):
    """The noise of t = 0 is below the resolution of bfloat16 next to a bright pixel."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, 8, 8, 1)).astype("float32")
    noise = rng.standard_normal(images.shape).astype("float32")
    t = np.array([0, 3, 6, 9], "int32")
    schedule = pocket_model().schedule
    kept = schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    with dtype_policy(policy):
        table = extract(schedule.sqrt_alphas_cumprod, t, 4)
        x_t = q_sample(schedule, images, t, noise)
    assert keras.backend.standardize_dtype(table.dtype) == "float32"
    np.testing.assert_allclose(numpy(table), np.sqrt(kept), rtol=1e-6)
    expected = np.sqrt(kept) * images + np.sqrt(1 - kept) * noise
    np.testing.assert_allclose(numpy(x_t), expected, atol=1e-6)


@pytest.mark.parametrize("precision", HALVES)
def test_the_loss_is_float32(precision):
    """Errors of 300 have squares past the end of float16, and 1e-5 has one below its beginning."""
    model = pocket_model(precision=precision)
    for error in (300.0, 1e-5):
        noise = np.zeros((2, 8, 8, 1), "float32")
        shown, done = (noise, np.zeros(2, "int32")), {"x_start": noise, "noise": noise}
        value = model.compute_loss(shown, done, noise + np.float32(error))
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == pytest.approx(error**2, rel=1e-5)


@pytest.mark.parametrize("policy", HALVES)
def test_softmax_is_float32(policy):
    """4,096 pixels that all look alike have weights of 1/4096 each, which add up to 1."""
    dtype = policy.removeprefix("mixed_")
    queries = ops.cast(np.full((1, 4096, 4), 0.3, "float32"), dtype)
    weights = attention_weights(queries[:, :2], queries)
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    np.testing.assert_allclose(numpy(weights).sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "policy",
    [pytest.param("mixed_float16", id="float16"), pytest.param("mixed_bfloat16", id="bf16")],
)
def test_normalization_computes_its_statistics_in_float32(policy):
    """Squares of features around 300 are past the end of float16, and their variance is 4."""
    dtype = policy.removeprefix("mixed_")
    rng = np.random.default_rng(0)
    features = (300 + 2 * rng.integers(-1, 2, (2, 16, 16, 8))).astype("float32")
    with dtype_policy(policy):
        inputs = keras.Input((16, 16, 8), dtype=dtype)
        layer = keras.Model(inputs, normalize(inputs, 4))
    grouped = features.reshape(2, 256, 4, 2).astype("float64")
    mean, deviation = grouped.mean((1, 3), keepdims=True), grouped.std((1, 3), keepdims=True)
    expected = ((grouped - mean) / deviation).reshape(features.shape)
    result = numpy(ops.cast(layer(ops.cast(features, dtype)), "float32"))
    np.testing.assert_allclose(result, expected, atol=0.02)


@pytest.mark.parametrize("precision", HALVES)
def test_the_sampler_works_in_float32_on_what_the_network_guesses(precision):
    """The last step, which adds no noise, by NumPy in float64 from the same guess."""
    model, asked = pocket_model(precision=precision), []

    def denoise(x_t, t):
        guess, x_start = model.denoise.ask(x_t, t), model.denoise(x_t, t)
        for tensor in (x_t, guess, x_start):
            assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
        asked.append((numpy(x_t), numpy(guess)))
        return x_start

    images = p_sample_loop(denoise, model.schedule, (2, 8, 8, 1), seed=0, variance="fixed_small")
    assert keras.backend.standardize_dtype(images.dtype) == "float32"
    assert len(asked) == 10
    x_t, guess = (value.astype("float64") for value in asked[-1])
    alpha_bar = model.schedule.alphas_cumprod[0]
    x_start = (x_t - np.sqrt(1 - alpha_bar) * guess) / np.sqrt(alpha_bar)
    np.testing.assert_allclose(numpy(images), x_start.clip(-1, 1), atol=1e-5)


# Training -----------------------------------------------------------------------------------------


def test_keras_scales_the_loss_in_float16_only():
    for precision in ("float32", *HALVES):
        model = pocket_model(precision=precision)
        model.compile()
        scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scales == (precision == "mixed_float16")


def flat(weights) -> np.ndarray:
    return np.concatenate([np.ravel(numpy(w)) for w in weights])


@pytest.mark.parametrize("precision", HALVES)
def test_half_precision_takes_the_same_steps(precision):
    """The loss is scaled up before the gradients are found, and they are scaled down again."""
    moved = {}
    for name in ("float32", precision):
        model, optimizer = pocket_model(precision=name), keras.optimizers.SGD(0.1)
        start = flat(model.network.get_weights())
        scaling = name == "mixed_float16"
        model.compile(
            keras.optimizers.LossScaleOptimizer(optimizer, 1024.0) if scaling else optimizer
        )
        model.fit(digits(32), verbose=0)
        moved[name] = flat(model.network.get_weights()) - start
    size = np.linalg.norm(moved["float32"])
    assert size > 1e-3
    assert np.linalg.norm(moved[precision] - moved["float32"]) < 0.05 * size


@pytest.mark.parametrize("precision", HALVES)
def test_a_step_of_the_published_optimizer_is_that_of_float32(precision):
    """Adam, clipping and averaging behind the loss scale; the norm is that of true gradients."""
    moved, norms, means = {}, {}, {}
    for name in ("float32", precision):
        model = pocket_model(precision=name, ema_momentum=0.5, gradient_clip=0.1)
        start = flat(model.network.get_weights())
        model.compile()
        norms[name] = model.fit(digits(32), verbose=0).history["gradient_norm"][0]
        moved[name] = flat(model.network.get_weights()) - start
        means[name] = flat(bare_optimizer(model.optimizer).means)
    assert norms[precision] == pytest.approx(norms["float32"], rel=0.02)
    assert norms["float32"] > 0.2, "clipping at 0.1 must count"
    # Adam moves every weight by about the learning rate, also those with hardly any gradient, whose
    # sign is chance: a move counts as much as the gradient behind it.
    weighed = {name: np.abs(means["float32"]) * moved[name] for name in moved}
    size = np.linalg.norm(weighed["float32"])
    assert size > 0
    assert np.linalg.norm(weighed[precision] - weighed["float32"]) < 0.1 * size


def loss_after_30_steps(precision: str) -> float:
    keras.utils.set_random_seed(0)
    model = DiffusionModel(in_precision(precision), seed=0)
    model.compile()
    model.fit(digits(320), epochs=3, shuffle=False, verbose=0)
    return model.evaluate(digits(320), verbose=0)


@pytest.fixture(scope="module")
def loss_in_float32() -> float:
    return loss_after_30_steps("float32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", needs_float16)
def test_half_precision_learns_as_much(precision, loss_in_float32):
    """30 steps, far enough from the first loss of 1."""
    assert loss_in_float32 < 0.7
    assert loss_after_30_steps(precision) == pytest.approx(loss_in_float32, rel=0.05)
