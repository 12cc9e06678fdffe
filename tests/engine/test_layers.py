"""Group normalization against float64, where its numbers are small and where they are large."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.engine.layers import GroupNormalization, normalized


def np_normalized(x, gamma, beta, groups, epsilon=1e-3):
    """In float64, each group by itself."""
    grouped = x.astype("float64").reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean, variance = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta


def np_gradients(weights, x, gamma, groups, epsilon=1e-3):
    """Those of sum(weights · normalized) with respect to x, gamma and beta, by the chain rule."""
    grouped = (len(x), -1, groups, x.shape[-1] // groups)
    values = x.astype("float64").reshape(grouped)
    mean, variance = (f(values, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    root = 1 / np.sqrt(variance + epsilon)
    unit = (values - mean) * root
    g = (weights * gamma).reshape(grouped)
    of_mean, of_spread = (np.mean(v, axis=(1, 3), keepdims=True) for v in (g, g * unit))
    of_x = root * (g - of_mean - unit * of_spread)
    others = tuple(range(x.ndim - 1))
    of_gamma = np.sum(weights * unit.reshape(x.shape), axis=others)
    return of_x.reshape(x.shape), of_gamma, np.sum(weights, axis=others)


def gradients(weights, x, gamma, beta, groups, epsilon=1e-3):
    """The same, by the backend."""
    point = [np.asarray(v, "float32") for v in (x, gamma, beta)]

    def weighed(x, gamma, beta):
        told = ops.convert_to_tensor(np.float32(weights))
        return ops.sum(told * normalized(x, gamma, beta, groups, epsilon))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(v) for v in point]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = weighed(*tensors)
        return [v.numpy() for v in tape.gradient(value, tensors)]
    if keras.backend.backend() == "jax":
        import jax

        return [np.asarray(v) for v in jax.grad(weighed, argnums=(0, 1, 2))(*point)]
    import torch

    tensors = [torch.tensor(v, requires_grad=True) for v in point]
    weighed(*tensors).backward()
    return [v.grad.numpy() for v in tensors]


def features(groups):
    rng = np.random.default_rng(groups)
    x = 1.5 + rng.standard_normal((2, 3, 2, 6)) * np.arange(1, 7)
    return x, rng.uniform(0.5, 2, 6), rng.standard_normal(6)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups_are_normalized_each_by_itself(groups):
    x, gamma, beta = features(groups)
    tensors = (ops.convert_to_tensor(v.astype("float32")) for v in (x, gamma, beta))
    found = ops.convert_to_numpy(normalized(*tensors, groups, 1e-3))
    np.testing.assert_allclose(found, np_normalized(x, gamma, beta, groups), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_chain_rule_is_that_of_finite_differences(groups):
    x, gamma, beta = features(groups)
    weights = np.random.default_rng(9).standard_normal(x.shape)
    point = [x, gamma, beta]
    for i, slope in enumerate(np_gradients(weights, x, gamma, groups)):
        for place in np.ndindex(slope.shape):
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in point]
                moved[i][place] += sign * 1e-5
                ends.append(np.sum(weights * np_normalized(*moved, groups)))
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope[place], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_gradient_is_that_of_the_chain_rule(groups):
    x, gamma, beta = features(groups)
    weights = np.random.default_rng(9).standard_normal(x.shape)
    expected = np_gradients(weights, x, gamma, groups)
    for found, slope in zip(gradients(weights, x, gamma, beta, groups), expected, strict=True):
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=2e-5)


FAR = [(1000, 1), (1000, 0.1), (1000, 0.01), (-5000, 1), (5000, 0.1)]


@pytest.mark.parametrize(("mean", "spread"), FAR)
def test_values_and_gradients_are_right_far_from_zero(mean, spread):
    rng = np.random.default_rng(0)
    x = rng.normal(mean, spread, (2, 8, 8, 6)).astype("float32")
    x[..., 3:] += 300 * np.sign(mean)  # the other group lies elsewhere
    gamma, beta, weights = rng.uniform(0.5, 2, 6), rng.standard_normal(6), rng.normal(size=x.shape)
    tensors = (ops.convert_to_tensor(np.float32(v)) for v in (x, gamma, beta))
    found = ops.convert_to_numpy(normalized(*tensors, 2, 1e-6))
    np.testing.assert_allclose(found, np_normalized(x, gamma, beta, 2, 1e-6), atol=1e-4)
    expected = np_gradients(weights, x, gamma, 2, 1e-6)
    for mine, exact in zip(gradients(weights, x, gamma, beta, 2, 1e-6), expected, strict=True):
        assert np.abs(mine - exact).max() < 1e-4 * np.abs(exact).max()


def test_a_middle_unlike_all_other_pixels_costs_few_digits():
    """The worst that can be: the pixel that is taken away is the only one far from the mean."""
    x = np.random.default_rng(0).normal(1000, 0.01, (2, 32, 32, 4)).astype("float32")
    x[:, 16, 16] = -1000
    tensors = (ops.convert_to_tensor(v) for v in (x, np.ones(4, "f4"), np.zeros(4, "f4")))
    found = ops.convert_to_numpy(normalized(*tensors, 2, 1e-6))
    expected = np_normalized(x, 1, 0, 2, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 4, 5, 6), (2, 3, 2, 2, 6)])
def test_the_layer_is_keras_layer(shape):
    """For rows, images and volumes."""
    x = np.random.default_rng(1).normal(2, 3, shape).astype("float32")
    ours, theirs = (
        kind(3, epsilon=1e-4) for kind in (GroupNormalization, keras.layers.GroupNormalization)
    )
    for layer in (ours, theirs):
        layer.build(shape)
        layer.set_weights([np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)])
    np.testing.assert_allclose(*(ops.convert_to_numpy(f(x)) for f in (ours, theirs)), atol=1e-5)


def test_in_half_precision_it_computes_in_float32():
    """Where the squares of the features are too large for 16 bits."""
    x = np.random.default_rng(1).normal(1000, 20, (2, 4, 5, 6)).astype("float16")
    layer = GroupNormalization(3, epsilon=1e-6, dtype="mixed_float16")
    found = ops.convert_to_numpy(layer(ops.convert_to_tensor(x)))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np_normalized(x, 1, 0, 3, 1e-6), atol=3e-3)
