"""Noise of a walk, and of some images among many: the same numbers, however few are drawn."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from keras.random import SeedGenerator

from diffusion_walkthrough.engine.noise import (
    BLOCK,
    LARGEST_SEED_OF_PYTORCH,
    STRIDE,
    NoiseInBlocks,
    NoiseOfPart,
    WalkNoise,
    checked_start,
    generator_of,
)


def numpy(x):
    return ops.convert_to_numpy(x)


# A part of the images ----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(), (1,), (3,)], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (4,), (5, 2, 1)], ids=str)
def test_a_part_has_the_numbers_that_it_has_among_all(steps, shape):
    """Also where a part does not begin with a multiple of four numbers, of which they are made."""
    seed, n = 12345, 11
    whole = keras.random.normal((*steps, n, *shape), seed=SeedGenerator(seed))
    whole = numpy(whole).reshape(-1, n, *shape)
    for first, count in ((0, 11), (0, 4), (4, 4), (8, 3), (3, 1), (5, 5)):
        part = NoiseOfPart(SeedGenerator(seed), n, first).draw((count, *shape), *steps)
        assert part.shape == (*steps, count, *shape)
        found = numpy(part).reshape(-1, count, *shape)
        np.testing.assert_array_equal(found, whole[:, first : first + count])


LARGEST_SEED = LARGEST_SEED_OF_PYTORCH if keras.backend.backend() == "torch" else 2**32 - 1


@pytest.mark.parametrize("seed", [0, 1, (LARGEST_SEED + 1) // 2, LARGEST_SEED])
def test_every_seed_can_be_shared_out_and_the_next_one_as_well(seed):
    whole, parted = SeedGenerator(seed), SeedGenerator(seed)
    for _ in range(3):
        expected = numpy(keras.random.normal((9, 3), seed=whole))
        found = NoiseOfPart(parted, 9, 5).draw((4, 3))
        np.testing.assert_array_equal(numpy(found), expected[5:])


def test_noise_is_float32_whatever_keras_s_default_is():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        for n in (2, 5):
            noise = NoiseOfPart(SeedGenerator(0), n).draw((2, 3))
            assert keras.backend.standardize_dtype(noise.dtype) == "float32"
    finally:
        keras.config.set_floatx(before)


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.5, "1"])
def test_a_seed_that_cannot_be_is_refused(seed):
    with pytest.raises((TypeError, ValueError), match="seed must be a whole number of at"):
        generator_of(seed)


def test_the_largest_seeds_are_drawn_from_or_refused_in_words():
    assert generator_of(2**31 - 1).state.shape == (2,)
    if keras.backend.backend() == "torch":  # where Keras has no room for them
        with pytest.raises(ValueError, match="whole number of at most 2147483647"):
            generator_of(2**31)
    else:
        assert generator_of(2**32 - 1).state.shape == (2,)


def test_numbers_of_numpy_and_generators_are_seeds():
    expected = keras.random.normal((3,), seed=SeedGenerator(5))
    for seed in (np.int64(5), np.uint8(5), SeedGenerator(5)):
        found = keras.random.normal((3,), seed=generator_of(seed))
        np.testing.assert_array_equal(numpy(found), numpy(expected))


# In blocks ---------------------------------------------------------------------------------------


def in_blocks(n, draws, size, seed):
    """What is drawn for n images, some at a time, ``(draws, n, 2)``."""
    noise = NoiseInBlocks(n, draws, seed)
    parts = []
    for first in range(0, n, size):
        shape = (min(size, n - first), 2)
        parts.append([numpy(noise.draw(i, first, shape)) for i in range(draws)])
    return np.concatenate(parts, axis=1)


def test_noise_in_blocks_is_that_of_one_block_after_the_other():
    n, draws, generator = 2 * BLOCK + 9, 3, SeedGenerator(3)
    sizes = [BLOCK, BLOCK, 9]
    expected = [
        [numpy(keras.random.normal((size, 2), seed=generator)) for _ in range(draws)]
        for size in sizes
    ]
    expected = np.concatenate(expected, axis=1)
    again = SeedGenerator(3)
    np.testing.assert_array_equal(in_blocks(n, draws, BLOCK, again), expected)
    np.testing.assert_array_equal(numpy(again.state.value), numpy(generator.state.value))
    for size in (100, 2 * BLOCK, n):
        np.testing.assert_array_equal(in_blocks(n, draws, size, 3), expected)


# A walk ------------------------------------------------------------------------------------------


def noises(noise):
    return np.concatenate([numpy(zs) for _, zs in noise.strides()])


def test_noise_is_drawn_for_the_start_and_then_for_a_stride_at_a_time():
    noise, generator = WalkNoise((2, 3), STRIDE + 4, seed=5), SeedGenerator(5)
    start = keras.random.normal((2, 3), seed=generator)
    expected = [keras.random.normal((n, 2, 3), seed=generator) for n in (STRIDE, 4)]
    np.testing.assert_array_equal(numpy(noise.start()), numpy(start))
    found = list(noise.strides())
    assert [place for place, _ in found] == [0, STRIDE]
    for (_, zs), z in zip(found, expected, strict=True):
        np.testing.assert_array_equal(numpy(zs), numpy(z))


@pytest.mark.parametrize("shared", [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 2 * STRIDE + 3])
def test_the_first_steps_share_their_noise_and_no_others(shared):
    noise = WalkNoise((3, 2), 2 * STRIDE + 3, 1, shared)
    assert np.ptp(numpy(noise.start()), axis=0).max() == 0
    spread = np.ptp(noises(noise), axis=1).min(axis=1)
    np.testing.assert_array_equal(spread == 0, np.arange(2 * STRIDE + 3) < shared)


def test_noise_is_standard_and_of_its_own_in_every_step_and_image():
    zs = noises(WalkNoise((40, 100), 60, seed=0))
    assert abs(zs.mean()) < 0.01
    assert abs(zs.std() - 1) < 0.01
    rows = zs.reshape(60 * 40, 100)
    assert np.abs(np.corrcoef(rows[:300]) - np.eye(300)).max() < 0.6
    assert len(np.unique(rows[:, :2], axis=0)) == len(rows)


@pytest.mark.parametrize(
    ("x_T", "message"),
    [
        (np.zeros((3, 2)), r"x_T has shape \(3, 2\), but shape = \(2, 2\).*shape=x_T.shape"),
        (np.array([[0, np.nan], [0, 0]]), "must hold finite numbers"),
        (np.array([[0, np.inf], [0, 0]]), "must hold finite numbers"),
        (np.full((2, 2), 1e39), "must hold finite numbers"),
        (np.zeros((2, 2), "complex64"), "type complex64, must hold finite numbers"),
        (np.zeros((2, 2), bool), "type bool"),
        ([["a", "b"], ["c", "d"]], "must hold finite numbers"),
    ],
    ids=["shape", "NaN", "infinity", "too large", "complex", "bool", "text"],
)
def test_a_start_that_is_no_image_is_refused(x_T, message):
    with pytest.raises(ValueError, match=message), np.errstate(over="ignore"):
        checked_start(x_T, (2, 2))
    assert checked_start([[1, 2], [3, 4]], (2, 2)).dtype == np.float32
