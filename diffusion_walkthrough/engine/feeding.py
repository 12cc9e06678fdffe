"""Questions on their way to the training step, without waiting; and those about other data sets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.doors import as_images

#: How much of the questions is drawn at once, while the part before it is trained on.
CHUNK_BYTES = 32 * 2**20

NO_BATCHES = "the data set has no batches. Check how its images were selected."

#: At how many batches Keras may look before it begins, or more.
PEEKED = 4


class QuestionSet(keras.utils.PyDataset):
    """Batches of questions: what ``DiffusionModel.fit`` makes of images, and takes as it is.

    Attributes:
        epoch: whose questions come next, from 0.
        always_alike: whether each epoch has the same, as for a measurement.
    """

    def __init__(self, always_alike: bool = False, batch_size: int = 1, seed: int = 0) -> None:
        """Begin with the first epoch; TypeError or ValueError for a size or seed that cannot be."""
        super().__init__()
        self.epoch, self.always_alike = 0, always_alike
        self.batch_size = checks.integer("batch_size", batch_size, 1)
        self.seed = checks.integer("seed", seed, 0, checks.LARGEST_SEED)

    def __getitem__(self, number: int) -> Any:
        """Batch ``number`` of the present epoch; of several processes, this one's part of it."""
        return own_part(self.batch(self.epoch, number))

    def on_epoch_end(self) -> None:
        """Let the next epoch have questions of its own."""
        self.epoch += not self.always_alike


class CutAnew(QuestionSet):
    """The same questions, whatever the size of the batches in which they are asked.

    What is asked about an image depends on the batch in which it comes. For a measurement, that is
    always the batch of the questions given.
    """

    def __init__(self, asked: Any, batch_size: int, steps: int | None = None) -> None:
        """Cut a ``training.Questions`` into batches of another size, and so many an epoch."""
        super().__init__(asked.always_alike, batch_size)
        self.asked = asked
        self.batches = math.ceil(len(asked.images) / batch_size)
        self.steps = steps or self.batches

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.steps

    def batch(self, epoch: int, number: int) -> Any:
        """What is asked about the images of this batch, from one or more of the others'."""
        round_, place = divmod(epoch * self.steps + number, self.batches)
        first, size = place * self.batch_size, self.asked.batch_size
        last = min(first + self.batch_size, len(self.asked.images))
        parts = []
        for block in range(first // size, math.ceil(last / size)):
            part = slice(max(first - block * size, 0), last - block * size)
            asked = self.asked.batch(round_, block)
            parts.append(keras.tree.map_structure(lambda x, part=part: x[part], asked))
        return keras.tree.map_structure(lambda *some: np.concatenate(some), *parts)


def process_count() -> int:
    """Count the processes that train together on JAX (``keras.distribution``); else 1."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return 1
    import jax

    return jax.process_count()


def own_part(batch: Any) -> Any:
    """This process's part of a batch: together they take the steps of one process.

    Raises ValueError if the batch cannot be divided evenly.
    """
    processes = process_count()
    if processes == 1:
        return batch
    import jax

    def part_of(whole: np.ndarray) -> np.ndarray:
        if len(whole) % processes:
            raise ValueError(
                f"a batch of {len(whole)} images cannot be shared out evenly to {processes} "
                f"processes. Choose a batch_size and a number of images that {processes} divides."
            )
        return np.split(whole, processes)[jax.process_index()]

    return keras.tree.map_structure(part_of, batch)


def as_data_set(questions: Any, epochs: int) -> Any:
    """Hand questions to TensorFlow, many batches in one call.

    A plain ``PyDataset`` is asked batch by batch by a thread of Python, for which a step of a small
    network has to wait. Here one call draws many, while those before them are trained on.

    Returns a ``tf.data.Dataset`` of all batches of so many epochs of a ``training.Questions``, one
    after the other, from its ``epoch`` on.
    """
    import tensorflow as tf

    example, first, steps = questions[0], questions.epoch, len(questions)
    flat = [np.asarray(part) for part in keras.tree.flatten(example)]
    at_once = max(1, CHUNK_BYTES // max(sum(part.nbytes for part in flat), 1))
    chunks = math.ceil(steps / at_once)  # in an epoch

    def draw(place: Any) -> list[np.ndarray]:
        epoch, start = first + int(place) // chunks, int(place) % chunks * at_once
        numbers = range(start, min(start + at_once, steps))
        batches = [keras.tree.flatten(questions.batch(epoch, number)) for number in numbers]
        sizes = np.array([len(batch[0]) for batch in batches], dtype="int64")
        return [sizes, *(np.concatenate(parts) for parts in zip(*batches, strict=True))]

    def load(place: Any) -> Any:
        types = [tf.int64, *(part.dtype for part in flat)]
        sizes, *whole = tf.numpy_function(draw, [place], types, stateful=False)
        sizes.set_shape((None,))
        for tensor, part in zip(whole, flat, strict=True):
            tensor.set_shape((None, *part.shape[1:]))
        return sizes, tuple(whole)

    def cut(sizes: Any, whole: Any) -> Any:  # back into batches
        ends = tf.cumsum(sizes)
        return tf.data.Dataset.from_tensor_slices((ends - sizes, ends)).map(
            lambda start, end: keras.tree.pack_sequence_as(example, [x[start:end] for x in whole])
        )

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    data = tf.data.Dataset.range(epochs * chunks).map(load).prefetch(1).flat_map(cut)
    return data.with_options(options)


class QuestionsFromBatches(QuestionSet):
    """Questions about the batches of any data set, one after the other.

    Attributes:
        fault: what was wrong with the last batch, if anything was.
    """

    fault: ValueError | None = None
    _iterator: Iterator[Any]
    _read_any = False

    def __init__(
        self,
        batches: Any,
        about: Callable[..., Any],
        steps_per_epoch: int | None = None,
        always_alike: bool = False,
        **options: Any,
    ) -> None:
        """Plan the questions, and look at the first batch before a run begins.

        Args:
            batches: yields images ``(batch, height, width, channels)``, or tuples
                ``(images, labels)`` and ``(images, labels, sample_weight)``. A ``PyDataset`` is
                asked for a batch by its number, all else is read in turn.
            about: ``DiffusionModel.questions``: checks images, labels and weights, and makes
                questions of them.
            steps_per_epoch: how many batches an epoch has; None asks the data set.
            always_alike: whether to ask the same in every epoch.
            **options: as for ``training.Questions``, but for the size and order of the batches.

        Raises ValueError if nobody says how many batches there are, or for what is wrong with the
        first of them.
        """
        super().__init__(always_alike)
        self.batches, self.about = batches, about
        self.by_number = isinstance(batches, keras.utils.PyDataset)
        self.steps = steps_per_epoch or _count(batches)
        if not self.steps:
            raise ValueError(NO_BATCHES)
        told = {"steps_per_epoch": self.steps, "always_alike": always_alike, "shuffle": False}
        self.options = {**options, **told}
        self._seen: dict[tuple[int, int], Any] = {}  # Keras peeks at the first before it begins
        self._begin_again()
        first = batches[0] if self.by_number else self._next()
        self._questions_about(first)
        self._iterator, self._at = itertools.chain([first], self._iterator), 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.steps

    def __getitem__(self, number: int) -> Any:
        """The question about the batch of that number."""
        try:
            return own_part(self._questions_about(self._read(number)).batch(self.epoch, number))
        except ValueError as fault:
            self.fault = fault
            raise

    def _questions_about(self, batch: Any) -> Any:
        images, labels, weights = taken_apart(batch)
        images = as_images(images)
        told = {**self.options, "batch_size": max(len(images), 1)}
        return self.about(images, labels, weights, **told)

    def _read(self, number: int) -> Any:
        """The batch of that number; in training, of a data set that is read in turn, the next."""
        if self.by_number:
            return self.batches[number]
        if (self.epoch, number) in self._seen:
            return self._seen[self.epoch, number]
        if self.always_alike and number != self._at:
            self._begin_again()
            for _ in range(number):
                self._next()
        batch = self._next()
        if number == 0:
            self._seen = {}
        if number < PEEKED:
            self._seen[self.epoch, number] = batch
        return batch

    def _next(self) -> Any:
        batch = next(self._iterator, None)
        if batch is None and self._read_any:
            self._begin_again()
            batch = next(self._iterator, None)
        if batch is None and not self._read_any:
            raise ValueError(NO_BATCHES)
        if batch is None:
            raise ValueError(
                "the data set has no more batches: it can be read only once. Pass one that can be "
                "read again, a tf.data.Dataset or a keras.utils.PyDataset, or images in one array."
            )
        self._at, self._read_any = self._at + 1, True
        return batch

    def _begin_again(self) -> None:
        self._iterator, self._at = iter(self.batches), 0

    def on_epoch_end(self) -> None:
        """Let the next epoch have questions of its own, and perhaps another order."""
        super().on_epoch_end()
        if self.by_number and not self.always_alike:
            self.batches.on_epoch_end()


def _count(batches: Any) -> int:
    try:
        return len(batches)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"a {type(batches).__name__} does not say how many batches it has. Pass "
            "steps_per_epoch=… (validation_steps=… for what is held out, steps=… to evaluate), or "
            "images in one array."
        ) from error


def taken_apart(batch: Any) -> tuple[Any, Any, Any]:
    """Images, labels and weights of what Keras takes as a batch or as ``validation_data``.

    Raises ValueError for what has other parts.
    """
    if isinstance(batch, Mapping):
        names = [*batch]
        raise ValueError(
            f"a batch is a dictionary with {', '.join(map(repr, names[:8]))}, but must be images, "
            "or a tuple (images, labels) or (images, labels, sample_weight). Take it apart: "
            f"data.map(lambda batch: batch[{names[0] if names else 'image'!r}])."
        )
    parts = [*batch] if isinstance(batch, (tuple, list)) else [batch]
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"a batch has {len(parts)} parts, but must be images, or a tuple (images, labels) or "
            "(images, labels, sample_weight). Leave out the others; stack images to one array."
        )
    images, labels, weights = [*parts, None, None][:3]
    return images, labels, weights
