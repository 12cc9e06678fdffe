"""What is computed in a single operation, or a single call, where Keras would need ten.

A training step of a small network is many short operations, each of which has to be handed out and
waited for; most of them belong to the optimizer, which has ten for each of its weights. TensorFlow
has operations that do more at once; other backends merge them by themselves, or compute the plain
formula.
"""

from __future__ import annotations

import functools
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
    seeds = [generator.next() for _ in range(count)]
    return _drawing(count, tuple(shape))(ops.stack(seeds))


@functools.lru_cache(maxsize=32)
def _drawing(count: int, shape: tuple[int, ...]) -> Callable[..., Any]:
    """Compile the drawing of some shape; without XLA, which has normal numbers of its own."""

    def draw(seeds: Any) -> Any:
        each = [keras.random.normal(shape, seed=_SeedAt(seeds[i])) for i in range(count)]
        return ops.stack(each)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(draw, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(draw)
    return draw
