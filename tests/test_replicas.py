"""On one device nothing is added and no seed is moved; two devices: tests/distributed."""

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.replicas import (
    ReplicaSeedGenerator,
    replica_count,
    sum_over_replicas,
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
