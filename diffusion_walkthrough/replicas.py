"""Several devices: what a model must know when TensorFlow runs one copy of it on each.

Under the scope of a ``tf.distribute`` strategy every device (a *replica*) gets its share of each
batch and runs the same step on it; the gradients are then added up. Keras does that. Left to the
model is what each replica cannot see for itself: that its loss is only a share of the whole, that
the others draw random numbers too, and how long the gradient of the whole batch is. On one device,
and on JAX, where Keras shares out the arrays of a single step, all of this does nothing.

With ``MultiWorkerMirroredStrategy`` the devices belong to several processes (*workers*), often on
several machines. Each runs the same program on the same images; TensorFlow takes each worker's
share out of every batch, which is right only if all of them put the images in the same order.
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


def worker_count(strategy: Any = None) -> int:
    """Count the processes that train together (``MultiWorkerMirroredStrategy``); else 1.

    Args:
        strategy: a model's ``distribute_strategy``; None takes the one in force.
    """
    return len(_addresses_of_workers(strategy)) or 1


def is_first_worker(strategy: Any = None) -> bool:
    """Whether this process writes what all of them share; alone it does."""
    if worker_count(strategy) == 1:
        return True
    resolver = _strategy(strategy).cluster_resolver
    is_chief = resolver.task_type == "chief" or "chief" not in resolver.cluster_spec().as_dict()
    return is_chief and resolver.task_id == 0


def gather_from_workers(values: list[int], strategy: Any = None) -> list[list[int]]:
    """Let each worker know the whole numbers of all, in the order of the workers."""
    if worker_count(strategy) == 1:
        return [values]
    import tensorflow as tf

    strategy = _strategy(strategy)
    with strategy.scope():
        local = strategy.run(lambda: tf.constant([values], "int64"))
        gathered = strategy.gather(local, axis=0).numpy()
    return gathered[:: len(gathered) // worker_count(strategy)].tolist()


def share_order_of_images(model: Any) -> None:
    """Let all workers shuffle alike, so that their shares of a batch do not overlap.

    TensorFlow's global seed is set to a number that follows from the model's own, which is the same
    on all workers: a variable begins everywhere with the first worker's value.
    """
    if worker_count(getattr(model, "distribute_strategy", None)) == 1:
        return
    import tensorflow as tf

    state = keras.ops.convert_to_numpy(model.seed_generator.state.value)
    tf.random.set_seed(int(np.random.default_rng([int(n) for n in state]).integers(2**31)))


def _strategy(strategy: Any) -> Any:
    import tensorflow as tf

    return strategy or tf.distribute.get_strategy()


def _addresses_of_workers(strategy: Any) -> list[str]:
    if keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    strategy = _strategy(strategy)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return []
    cluster = strategy.cluster_resolver.cluster_spec().as_dict()
    return [*cluster.get("chief", []), *cluster.get("worker", [])]


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
