"""The merged operations compute what the plain ones do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.fused import normalized, normals, scaled, squared_norm
from diffusion_walkthrough.training import AveragingAdam


def test_the_squared_norm_is_that_of_numpy():
    x = np.random.default_rng(0).standard_normal((7, 5, 3)).astype("float32")
    expected = np.sum(x.astype("float64") ** 2)
    assert float(squared_norm(ops.convert_to_tensor(x))) == pytest.approx(expected, rel=1e-6)


def test_the_squared_norm_of_half_precision_does_not_overflow():
    x = ops.cast(ops.full((100,), 300.0), "float16")  # 300² is beyond float16's 65,504
    assert float(squared_norm(x)) == pytest.approx(9e6, rel=1e-6)


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_scaling_by_0_forgets_numbers_that_are_none(lost):
    x = ops.convert_to_tensor(np.array([1.0, lost], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(scaled(x, 0.0)), [0.0, 0.0])
    assert not np.isfinite(ops.convert_to_numpy(scaled(x, 0.5))[1])
    assert float(scaled(x, 0.5)[0]) == 0.5


def test_a_step_is_that_of_keras_adam():
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape).astype("float32") for shape in ((3, 4), (5,))]
    options = {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}
    ours = [keras.Variable(value) for value in start]
    theirs = [keras.Variable(value) for value in start]
    optimizers = AveragingAdam(**options), keras.optimizers.Adam(**options)
    for _ in range(5):
        gradients = [rng.standard_normal(value.shape).astype("float32") for value in start]
        for optimizer, weights in zip(optimizers, (ours, theirs), strict=True):
            optimizer.apply([ops.convert_to_tensor(g) for g in gradients], weights)
    for mine, other, first in zip(ours, theirs, start, strict=True):
        other = ops.convert_to_numpy(other.value)
        np.testing.assert_allclose(ops.convert_to_numpy(mine.value), other, rtol=2e-6, atol=1e-7)
        assert np.abs(other - first).min() > 1e-3


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_clipping_is_that_of_keras(size):
    """Also where there is nothing to clip."""
    rng = np.random.default_rng(2)
    gradients = [(size * rng.standard_normal(shape)).astype("float32") for shape in ((3, 4), (5,))]
    optimizer = AveragingAdam(global_clipnorm=0.5)
    optimizer.build([keras.Variable(g) for g in gradients])
    mine = optimizer._clip_gradients([ops.convert_to_tensor(g) for g in gradients])
    norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gradients))
    for clipped, gradient in zip(mine, gradients, strict=True):
        expected = gradient * min(1.0, 0.5 / norm)
        np.testing.assert_allclose(ops.convert_to_numpy(clipped), expected, rtol=1e-6)
    assert (norm > 0.5) == (size == 1.0)


def test_other_ways_of_clipping_still_clip():
    gradient = ops.convert_to_tensor(np.array([3.0, -4.0], "float32"))
    for options, expected in (({"clipvalue": 1.0}, [1.0, -1.0]), ({"clipnorm": 1.0}, [0.6, -0.8])):
        optimizer = AveragingAdam(**options)
        optimizer.build([keras.Variable(gradient)])
        (clipped,) = optimizer._clip_gradients([gradient])
        np.testing.assert_allclose(ops.convert_to_numpy(clipped), expected, rtol=1e-6)


def test_many_draws_in_one_call_are_those_of_as_many_calls():
    one, many = keras.random.SeedGenerator(4), keras.random.SeedGenerator(4)
    for count in (3, 3, 1):  # the second time without compiling anew
        expected = [keras.random.normal((2, 5), seed=one) for _ in range(count)]
        found = ops.convert_to_numpy(normals(count, (2, 5), many))
        np.testing.assert_array_equal(found, np.stack([ops.convert_to_numpy(z) for z in expected]))
    np.testing.assert_array_equal(*(ops.convert_to_numpy(g.state.value) for g in (one, many)))


# --- group normalization ------------------------------------------------------------------------


def np_normalized(x, gamma, beta, groups):
    """In float64, each group by itself."""
    grouped = x.astype("float64").reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean, variance = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((grouped - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape) * gamma + beta


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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's is written down")
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_gradient_of_normalization_is_that_of_finite_differences(groups):
    import tensorflow as tf

    point = features(groups)
    weights = np.random.default_rng(9).standard_normal(point[0].shape)

    def weighed(x, gamma, beta):
        return np.sum(weights * np_normalized(x, gamma, beta, groups))

    tensors = [tf.constant(v, "float32") for v in point]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = tf.reduce_sum(tf.constant(weights, "float32") * normalized(*tensors, groups, 1e-3))
    for which, found in enumerate(tape.gradient(loss, tensors)):
        expected = np.empty(point[which].shape)
        for at in np.ndindex(expected.shape):
            step = np.zeros_like(point[which])
            step[at] = 1e-5
            there, back = list(point), list(point)
            there[which], back[which] = point[which] + step, point[which] - step
            expected[at] = (weighed(*there) - weighed(*back)) / 2e-5
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
