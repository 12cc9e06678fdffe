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
