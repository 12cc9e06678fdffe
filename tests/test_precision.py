"""Half precision: the network computes in it, and nothing else does."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from tiny import TINY

from diffusion_walkthrough.backward_sampling import p_sample_loop
from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.noise_schedule import extract
from diffusion_walkthrough.precision import bare_optimizer, dtype_policy
from diffusion_walkthrough.training import AveragingAdam, DiffusionModel, make_optimizer
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


def randomized(parameters, seed: int = 0) -> DiffusionModel:
    """A model with random weights of a size that leaves activations of about 1."""
    model = DiffusionModel(parameters, seed=seed)
    rng = np.random.default_rng(seed)
    shapes = [w.shape for w in model.network.get_weights()]
    scales = [np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.2 for shape in shapes]
    pairs = zip(shapes, scales, strict=True)
    model.network.set_weights([scale * rng.standard_normal(shape) for shape, scale in pairs])
    return model


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
        DiffusionModel(in_precision("mixed_bfloat16"))
        with dtype_policy("mixed_bfloat16"):
            DiffusionModel(in_precision("mixed_bfloat16"))
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
    schedule = DiffusionModel(TINY).schedule
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
    model = DiffusionModel(in_precision(precision))
    for error in (300.0, 1e-5):
        noise = np.zeros((2, 8, 8, 1), "float32")
        asked = (noise + np.float32(error), noise, noise, np.zeros(2, "int32"), noise)
        value = model.compute_loss(y_pred=asked)
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


@pytest.mark.parametrize("precision", needs_float16)
def test_the_sampler_works_in_float32_on_what_the_network_guesses(precision):
    """Steps back by NumPy in float64 from the same guesses give the same images."""
    model = randomized(in_precision(precision))
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def denoise(x_t, t):
        guess = model.denoise(x_t, t)
        for tensor in (x_t, guess):
            assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
        asked.append((numpy(x_t), numpy(guess)))
        return guess

    noise = np.random.default_rng(1).standard_normal((2, 8, 8, 1)).astype("float32")
    images = p_sample_loop(denoise, model.schedule, noise.shape, seed=0, variance="fixed_small")
    assert keras.backend.standardize_dtype(images.dtype) == "float32"
    x_t, guess = (value.astype("float64") for value in asked[-1])  # the last step adds no noise
    schedule = model.schedule
    x_start = (x_t - np.sqrt(1 - schedule.alphas_cumprod[0]) * guess) / np.sqrt(
        schedule.alphas_cumprod[0]
    )
    np.testing.assert_allclose(numpy(images), x_start.clip(-1, 1), atol=1e-5)


# Training -----------------------------------------------------------------------------------------


def test_keras_scales_the_loss_in_float16_only():
    for precision in ("float32", *HALVES):
        model = DiffusionModel(in_precision(precision))
        model.compile()
        scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scales == (precision == "mixed_float16")


@pytest.mark.parametrize("precision", needs_float16)
def test_a_step_of_the_published_optimizer_is_that_of_float32(precision):
    """Adam, clipping and averaging behind the loss scale; the norm is that of true gradients."""
    after, norms, momenta = {}, {}, {}
    for name in ("float32", precision):
        model = randomized(in_precision(name, ema_momentum=0.5, gradient_clip=0.1))
        model.compile()
        # In order: shuffled, each image would get other noise in each precision.
        history = model.fit(digits(32), batch_size=32, shuffle=False, verbose=0)
        norms[name] = history.history["gradient_norm"][0]
        after[name] = np.concatenate([np.ravel(w) for w in model.network.get_weights()])
        optimizer = bare_optimizer(model.optimizer)
        momenta[name] = np.concatenate([np.ravel(numpy(m.value)) for m in optimizer._momentums])
    tolerance = 0.003 if precision == "mixed_float16" else 0.02
    assert norms[precision] == pytest.approx(norms["float32"], rel=tolerance)
    before = np.concatenate(
        [np.ravel(w) for w in randomized(in_precision("float32")).network.get_weights()]
    )
    # Adam moves every weight by about the learning rate, also those with hardly any gradient, whose
    # sign is chance: a move counts as much as the gradient behind it.
    weighed = {name: np.abs(momenta["float32"]) * (after[name] - before) for name in after}
    size = np.linalg.norm(weighed["float32"])
    assert size > 0
    assert np.linalg.norm(weighed[precision] - weighed["float32"]) < 0.1 * size


def loss_scaled_steps(gradients: list[float]) -> tuple[AveragingAdam, float]:
    """Steps of the published optimizer behind Keras's loss scale, on one weight that is 1."""
    training = dataclasses.replace(TINY.training, ema_momentum=0.9)
    optimizer = keras.optimizers.LossScaleOptimizer(make_optimizer(training), initial_scale=8.0)
    weight = keras.Variable(1.0)
    optimizer.build([weight])
    trainable, variables = [weight.value], [v.value for v in optimizer.variables]
    for gradient in gradients:
        scaled = [ops.convert_to_tensor(np.float32(8.0 * gradient))]
        if BACKEND == "jax":
            trainable, variables = optimizer.stateless_apply(variables, scaled, trainable)
        else:
            optimizer.apply(scaled, [weight])
    if BACKEND == "jax":
        pairs = zip((weight, *optimizer.variables), (*trainable, *variables), strict=True)
        for variable, value in pairs:
            variable.assign(value)
    return optimizer.inner_optimizer, float(numpy(weight.value))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_loss_scaling_skips_enters_neither_tally_nor_average(bad):
    with_skip, weight = loss_scaled_steps([0.5, bad])
    without, expected = loss_scaled_steps([0.5])
    assert weight == expected < 1.0
    np.testing.assert_array_equal(numpy(with_skip.gradient_norms), [0.5, 1.0])
    assert int(with_skip.iterations) == 1
    averages = [float(numpy(o._model_variables_moving_average[0])) for o in (with_skip, without)]
    assert averages[0] == averages[1]
    assert numpy(with_skip.first_fault)[0] == 0


@pytest.mark.parametrize("precision", needs_float16)
def test_a_keras_file_goes_on_training_in_its_precision(tmp_path, precision):
    """Weights, moments, average and loss scale come back: the next step is the same."""
    model = randomized(in_precision(precision, ema_momentum=0.5))
    model.compile()
    model.fit(digits(64), batch_size=32, verbose=0)
    again = load_model(save_model(model, tmp_path / "model.keras"))
    for ours, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    for one in (model, again):
        one.seed_generator.state.assign(np.array([3, 0]))
        one.fit(digits(64), batch_size=32, shuffle=False, verbose=0)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", needs_float16)
def test_half_precision_learns_as_much(precision):
    """60 steps, far enough from the first loss of 1."""
    losses = {}
    for name in ("float32", precision):
        keras.utils.set_random_seed(0)
        model = DiffusionModel(in_precision(name), seed=0)
        model.compile()
        model.fit(digits(640), epochs=3, shuffle=False, verbose=0)
        losses[name] = model.evaluate(digits(640), verbose=0)
    assert losses["float32"] < 0.5
    assert losses[precision] == pytest.approx(losses["float32"], rel=0.05)
