"""On one device nothing is added and no seed is moved; two devices: tests/distributed."""

import keras
import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.replicas import (
    ReplicaSeedGenerator,
    gather_from_workers,
    is_first_worker,
    replica_count,
    sum_over_replicas,
    worker_count,
)


def test_one_device_is_one_replica():
    assert replica_count() == 1


def test_one_device_has_nothing_to_add():
    values = [ops.ones((2,)), None, ops.zeros((3, 1))]
    for value, total in zip(values, sum_over_replicas(values), strict=True):
        assert value is total


def test_one_device_draws_what_keras_draws():
    ours, keras_own = ReplicaSeedGenerator(7), keras.random.SeedGenerator(7)
    for _ in range(3):
        pair = [keras.random.normal((4,), seed=seed) for seed in (ours, keras_own)]
        np.testing.assert_array_equal(*(ops.convert_to_numpy(draws) for draws in pair))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
@pytest.mark.parametrize(
    ("tasks", "kind", "index", "count", "is_first"),
    [
        ({}, None, None, 1, True),
        ({"worker": ["a:1"]}, "worker", 0, 1, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 0, 2, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, 2, False),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 0, 3, False),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "chief", 0, 3, True),
    ],
)
def test_one_worker_is_the_first(tasks, kind, index, count, is_first):
    """Only the strategy's resolver counts; starting one would wait for the other processes."""
    import tensorflow as tf

    cluster = tf.train.ClusterSpec(tasks)
    make = tf.distribute.cluster_resolver.SimpleClusterResolver
    resolver = make(cluster, task_type=kind, task_id=index)
    kind_of_strategy = tf.distribute.MultiWorkerMirroredStrategy
    never_started = {"__init__": lambda self: None, "cluster_resolver": resolver}
    strategy = type("NeverStarted", (kind_of_strategy,), never_started)()
    assert (worker_count(strategy), is_first_worker(strategy)) == (count, is_first)


def test_a_process_alone_is_the_first_worker():
    assert worker_count() == 1
    assert is_first_worker()
    assert gather_from_workers([3, 4]) == [[3, 4]]
