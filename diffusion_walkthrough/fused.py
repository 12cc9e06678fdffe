"""What is computed in a single operation, or a single call, where Keras would need ten.

A training step of a small network is many short operations, each of which has to be handed out and
waited for; most of them belong to the optimizer, which has ten for each of its weights. TensorFlow
has operations that do more at once; other backends merge them by themselves, or compute the plain
formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def squared_norm(x: Any) -> Any:
    """Sum of the squares of all numbers of a tensor, as a float32 scalar."""
    x = ops.cast(x, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.nn.l2_loss(x)
    return ops.sum(ops.square(x))


def scaled(x: Any, factor: Any) -> Any:
    """Multiply a tensor by a scalar; a factor of 0 makes 0 of NaN and infinity too."""
    factor = ops.cast(factor, x.dtype)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.math.multiply_no_nan(x, factor)
    return ops.where(factor == 0, ops.zeros_like(x), x * factor)


def normalized(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
    """Bring each group of channels of each image to mean 0 and variance 1, then scale and shift it.

    On TensorFlow with a gradient that is written down, which takes fewer passes over the features.

    Args:
        x: float32 ``(batch, …, channels)``.
        gamma: what each channel is multiplied by, float32 ``(channels,)``.
        beta: what is added to it, float32 ``(channels,)``.
        groups: how many groups; must divide the number of channels.
        epsilon: is added to the variance.

    Returns:
        Same shape as ``x``.

    Source: Wu and He 2018 (arXiv 1803.08494), Eqs. 1-3.
    """
    if keras.backend.backend() != "tensorflow":
        return _normalized(x, gamma, beta, groups, epsilon)[0]
    import tensorflow as tf

    @tf.custom_gradient
    def with_gradient(x: Any, gamma: Any, beta: Any) -> tuple[Any, Callable[..., Any]]:
        y, mean, root = _normalized(x, gamma, beta, groups, epsilon)

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            return _gradient_of_normalized(upstream, x, gamma, mean, root)

        return y, gradient

    return with_gradient(x, gamma, beta)


def _normalized(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> tuple[Any, Any, Any]:
    """The result, and of each group the mean and 1/√variance, ``(batch, groups, 1)``."""
    grouped = (-1, groups, x.shape[-1] // groups)
    gamma, beta = ops.reshape(gamma, grouped[1:]), ops.reshape(beta, grouped[1:])
    of_channels = ops.mean(x, axis=_pixels(x)), ops.mean(ops.square(x), axis=_pixels(x))
    mean, square = (_over_group(ops.reshape(values, grouped)) for values in of_channels)
    root = ops.rsqrt(ops.maximum(square - ops.square(mean), 0.0) + epsilon)
    scale = root * gamma  # (batch, groups, channels of a group)
    return x * _for_pixels(scale, x) + _for_pixels(beta - mean * scale, x), mean, root


def _gradient_of_normalized(
    upstream: Any, x: Any, gamma: Any, mean: Any, root: Any
) -> tuple[Any, Any, Any]:
    """The gradients with respect to x, gamma and beta.

    With x̂ = root · (x - mean) and g = gamma · upstream, the one of x is
    root · (g - mean of g - x̂ · mean of x̂ g), the means taken over the group.
    """
    groups = mean.shape[1]
    grouped = (-1, groups, x.shape[-1] // groups)
    gamma = ops.reshape(gamma, grouped[1:])
    of_beta = ops.reshape(ops.sum(upstream, axis=_pixels(x)), grouped)  # for each image
    of_gamma = ops.reshape(ops.sum(upstream * x, axis=_pixels(x)), grouped)
    of_gamma = root * (of_gamma - mean * of_beta)
    share = gamma / math.prod(x.shape[1:-1])
    slope = root * root * _over_group(share * of_gamma)
    shift = mean * slope - root * _over_group(share * of_beta)
    of_x = upstream * _for_pixels(root * gamma, x)
    slope, shift = (ops.broadcast_to(v, ops.shape(of_beta)) for v in (slope, shift))
    of_x = of_x - x * _for_pixels(slope, x) + _for_pixels(shift, x)
    of_gamma, of_beta = (ops.reshape(ops.sum(v, axis=0), (-1,)) for v in (of_gamma, of_beta))
    return of_x, of_gamma, of_beta


def _pixels(x: Any) -> tuple[int, ...]:
    """The axes between the batch and the channels."""
    return tuple(range(1, len(x.shape) - 1))


def _over_group(values: Any) -> Any:
    """From ``(batch, groups, channels of a group)`` to their mean, ``(batch, groups, 1)``."""
    return ops.mean(values, axis=-1, keepdims=True)


def _for_pixels(values: Any, x: Any) -> Any:
    """From ``(batch, groups, channels of a group)`` to what fits all pixels of the images."""
    return ops.reshape(values, (-1, *(1 for _ in _pixels(x)), x.shape[-1]))


def adam_step(
    weight: Any,
    momentum: Any,
    velocity: Any,
    gradient: Any,
    rate: Any,
    step: Any,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> None:
    """Change a weight by one step of Adam, in one operation; for TensorFlow only.

    Args:
        weight: the variable, as its optimizer gets it (a ``tf.Variable``).
        momentum: the average of the gradients, a Keras variable.
        velocity: the average of their squares, a Keras variable.
        gradient: tensor of the same shape.
        rate: the learning rate.
        step: which step this is, from 1.
        beta_1: how much of the momentum stays.
        beta_2: how much of the velocity stays.
        epsilon: is added to the root of the velocity.

    Source: Kingma and Ba 2015 (arXiv 1412.6980), in the order of its section 2's last remark.
    """
    import tensorflow as tf

    step = tf.cast(step, weight.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=weight.handle,
        m=momentum.value.handle,
        v=velocity.value.handle,
        beta1_power=tf.pow(tf.constant(beta_1, weight.dtype), step),
        beta2_power=tf.pow(tf.constant(beta_2, weight.dtype), step),
        lr=tf.cast(rate, weight.dtype),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=tf.cast(gradient, weight.dtype),
    )


class _SeedAt(keras.random.SeedGenerator):
    """A seed generator that stands at a given state, which may be a tensor of a compiled call."""

    def __init__(self, state: Any) -> None:
        self._at = state

    def next(self, ordered: bool = True) -> Any:
        return self._at


def normals(count: int, shape: tuple[int, ...], generator: keras.random.SeedGenerator) -> Any:
    """Draw standard normal noise ``count`` times in one call.

    Args:
        count: how often, at least 1.
        shape: of each draw.
        generator: where the seeds come from; it moves on by ``count`` of them.

    Returns:
        float32 ``(count, *shape)``: what as many calls of ``keras.random.normal`` would give.
    """
    seeds = ops.stack([generator.next() for _ in range(count)])
    if keras.backend.backend() == "tensorflow":
        return _drawing_by_tensorflow(seeds.dtype)(seeds, shape)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(_draw, static_argnums=1)(seeds, tuple(shape))
    return _draw(seeds, shape)


def _draw(seeds: Any, shape: tuple[int, ...]) -> Any:
    return ops.stack([keras.random.normal(shape, seed=_SeedAt(seed)) for seed in seeds])


@functools.cache
def _drawing_by_tensorflow(dtype: Any) -> Callable[..., Any]:
    """Compile the drawing once; without XLA, which has normal numbers of its own."""
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec((None, 2), dtype), tf.TensorSpec((None,), "int32")],
        autograph=False,
    )
    def draw(seeds: Any, shape: Any) -> Any:
        def draw_once(seed: Any) -> Any:
            return keras.random.normal(shape, seed=_SeedAt(seed))

        return tf.map_fn(draw_once, seeds, fn_output_signature="float32")

    return draw
