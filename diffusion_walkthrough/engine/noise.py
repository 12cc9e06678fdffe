"""Noise for many images, some at a time: each gets the numbers that it would have got among all.

A seed stands for noise of one shape, ``(n, …)``. Whoever has no room for n images works with some
of them, and with the part of that noise that is theirs (:class:`NoiseOfPart`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.random import SeedGenerator

from diffusion_walkthrough import checks
from diffusion_walkthrough.data import check_image_range

#: For how many steps the noise of a walk is drawn at once.
STRIDE = 25

#: Keras keeps a generator's state in 32 bits there, one of which is the sign.
LARGEST_SEED_OF_PYTORCH = 2**31 - 1

#: How many images have noise of one seed, where there is one for each block of them.
BLOCK = 256


def generator_of(seed: Any) -> SeedGenerator:
    """A generator of seeds: as it is, or one that begins with a whole number; None begins anywhere.

    Raises TypeError or ValueError for a seed that is none of these.
    """
    if isinstance(seed, SeedGenerator):
        return seed
    seed = checks.seed("seed", seed)
    if seed is not None and keras.backend.backend() == "torch":
        checks.integer("seed", seed, 0, LARGEST_SEED_OF_PYTORCH)
    return SeedGenerator(seed)


@dataclasses.dataclass(frozen=True)
class NoiseOfPart:
    """Standard normal noise for some of ``n`` images.

    On TensorFlow no more is drawn than that; on JAX and PyTorch that of all n, of which the rest is
    dropped.
    """

    generator: SeedGenerator  # each draw takes its next seed
    n: int
    first: int = 0  # the number of the first of them, among the n

    def draw(self, shape: Sequence[int], *steps: int) -> Any:
        """Draw float32 noise ``(*steps, *shape)`` for images ``shape``, at most one number."""
        count, *rest = shape
        if count == self.n:
            return keras.random.normal((*steps, *shape), dtype="float32", seed=self.generator)
        if keras.backend.backend() == "tensorflow":
            return self._drawn_by_tensorflow(shape, *steps)
        whole = (*steps, self.n, *rest)
        noise = keras.random.normal(whole, dtype="float32", seed=self.generator)
        part = slice(self.first, self.first + count)
        return noise[:, part] if steps else noise[part]

    def _drawn_by_tensorflow(self, shape: Sequence[int], *steps: int) -> Any:
        """What ``keras.random.normal`` would draw for all, from the places where the part begins.

        TensorFlow counts: with each number of a counter, the Philox generator makes four others.
        """
        import tensorflow as tf

        seed = tf.cast(tf.math.floormod(self.generator.next(), tf.int32.max - 1), "int32")
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
        low, high = map(int, counter.numpy())
        numbers, parts = math.prod(shape[1:]), []
        for step in range(math.prod(steps)):
            begin = (step * self.n + self.first) * numbers
            at = low + (high << 64) + begin // 4
            noise = tf.raw_ops.StatelessRandomNormalV2(
                shape=[begin % 4 + math.prod(shape)],
                key=key,
                counter=tf.constant([at % 2**64, (at >> 64) % 2**64], "uint64"),
                alg=tf.random.Algorithm.PHILOX.value,
                dtype="float32",
            )
            parts.append(noise[begin % 4 :])
        return tf.reshape(tf.stack(parts), (*steps, *shape))


class NoiseInBlocks:
    """So many draws of noise for each of ``n`` images, which are asked for some at a time.

    A block of ``BLOCK`` images takes a seed for each draw, and then comes the next block.
    """

    def __init__(self, n: int, draws: int, seed: Any = None) -> None:
        """Draw nothing yet; ``seed`` is a number, None, or a ``SeedGenerator`` that goes on."""
        self.n, self.draws, self.generator = n, draws, generator_of(seed)
        self._begin = ops.convert_to_numpy(self.generator.state)

    def draw(self, number: int, first: int, shape: Sequence[int]) -> Any:
        """Draw number ``number`` for the images from ``first`` on, float32 ``(count, …)``."""
        last, parts = first + shape[0], []
        for block in range(first // BLOCK, -(-last // BLOCK)):
            start, end = block * BLOCK, min((block + 1) * BLOCK, self.n)
            place = np.array([0, block * self.draws + number])
            self.generator.state.assign((self._begin + place).astype(self._begin.dtype))
            part = NoiseOfPart(self.generator, end - start, max(first - start, 0))
            count = min(last, end) - max(first, start)
            parts.append(part.draw((count, *shape[1:])))
        return ops.concatenate(parts) if len(parts) > 1 else parts[0]


class WalkNoise:
    """All the noise of a walk: the start, and then z for each step, drawn ``STRIDE`` at a time."""

    def __init__(
        self, shape: Sequence[int], steps: int, seed: Any = None, shared_steps: int | None = None
    ) -> None:
        """Draw nothing yet: for images of a shape ``(batch, …)``, and so many steps.

        During the first ``shared_steps`` the batch has the same noise, and at the start too; None
        for not even that. ``seed`` is a number, None, a ``SeedGenerator`` that goes on, or a
        :class:`NoiseOfPart`.
        """
        if shared_steps is not None:
            checks.within("shared_noise_steps", shared_steps, 0, steps)
        self.shape, self.steps, self.shared = tuple(shape), steps, shared_steps
        whole = isinstance(seed, NoiseOfPart)
        self.source = seed if whole else NoiseOfPart(generator_of(seed), self.shape[0])

    def start(self, x_T: Any = None) -> Any:
        """``x_T`` if there is one, or else noise to start from; float32, of the shape."""
        if x_T is None:
            return self._normal(self.shared is not None)
        return ops.convert_to_tensor(checked_start(x_T, self.shape), dtype="float32")

    def strides(self) -> Iterator[tuple[int, Any]]:
        """The number of steps before each stride, and z of its steps, ``(steps, *shape)``."""
        for place in range(0, self.steps, STRIDE):
            count = min(STRIDE, self.steps - place)
            alike = min(max((self.shared or 0) - place, 0), count)
            lengths = [(True, alike), (False, count - alike)]
            parts = [self._normal(shared, steps) for shared, steps in lengths if steps]
            yield place, ops.concatenate(parts) if len(parts) > 1 else parts[0]

    def _normal(self, alike: bool, *steps: int) -> Any:
        if not alike:
            return self.source.draw(self.shape, *steps)
        one = NoiseOfPart(self.source.generator, 1).draw((1, *self.shape[1:]), *steps)
        return ops.broadcast_to(one, (*steps, *self.shape))


def checked_clean(images: Any) -> np.ndarray:
    """Clean images that a walk begins with, as float32.

    What was drawn may lie beyond [-1, 1] a little; whole numbers beyond it are pixels, and so is
    what lies beyond -10 and 10. Raises ValueError for these, and for NaN or infinity.
    """
    array = np.asarray(ops.convert_to_numpy(images))
    clean = array.astype("float32")
    if array.size and not (np.abs(clean) <= (1 if array.dtype.kind in "iu" else 10)).all():
        check_image_range(clean)
    return clean


def checked_start(x_T: Any, shape: Sequence[int]) -> np.ndarray:
    """The images to start from, as float32 of a shape.

    Raises:
        ValueError: if they have another shape, or are not all finite numbers.
    """
    start = np.asarray(ops.convert_to_numpy(x_T))
    if start.shape != tuple(shape):
        raise ValueError(
            f"x_T has shape {start.shape}, but shape = {tuple(shape)} is asked for; pass "
            "shape=x_T.shape."
        )
    is_number = start.dtype.kind in "fiu" or start.dtype.name == "bfloat16"
    with np.errstate(over="ignore"):
        start = start.astype("float32") if is_number else start
    if not (is_number and np.isfinite(start).all()):
        raise ValueError(
            f"x_T, of type {start.dtype}, must hold finite numbers: NaN or infinity at the start "
            "would be in all that is drawn from it. Start for example from q_sample(schedule, "
            "images, t, noise)."
        )
    return start
