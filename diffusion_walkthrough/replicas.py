"""Several devices: what a model must know when TensorFlow runs one copy of it on each.

Under the scope of a ``tf.distribute`` strategy every device (a *replica*) gets its share of each
batch and runs the same step on it; the gradients are then added up. Keras does that. Left to the
model is what each replica cannot see for itself: that its loss is only a share of the whole, that
the others draw random numbers too, and how long the gradient of the whole batch is. On one device,
and on JAX, where Keras shares out the arrays of a single step, all of this does nothing.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

#: How far apart the seeds of two replicas are: a prime, so that seeds in use rarely meet.
SEED_STRIDE = 1_000_003


def replica_count() -> int:
    """Count the copies of the model that work on one batch; more than one only on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def sum_over_replicas(values: list[Any]) -> list[Any]:
    """Add up each tensor over the replicas; every one of them gets the sums.

    ``None`` in the list stays ``None``.
    """
    if replica_count() == 1:
        return values
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:  # outside a step there is nothing to add up
        return values
    tensors = [value for value in values if value is not None]
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))
    return [None if value is None else next(sums) for value in values]


def values_of_replicas(variable: keras.Variable) -> list[np.ndarray]:
    """Read a variable of which each replica of this process keeps its own value."""
    value = variable.value
    values = getattr(value, "values", None) if keras.backend.backend() == "tensorflow" else None
    return [keras.ops.convert_to_numpy(v) for v in values or (value,)]


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A seed generator from which each replica draws numbers of its own.

    Keras's own gives the same numbers to all of them, so that the first image of every share of a
    batch would get the same noise. The first replica draws what a single device would.
    """

    def next(self, ordered: bool = True) -> Any:
        """Return the next seed, moved by the number of the replica that asks."""
        seed = super().next(ordered)
        if replica_count() == 1:
            return seed
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        number = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([SEED_STRIDE * number, tf.zeros_like(number)])
