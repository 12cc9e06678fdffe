"""Questions on their way to the training step, without waiting; and those about other data sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

#: How much of the questions is drawn at once, while the part before it is trained on.
CHUNK_BYTES = 32 * 2**20

#: At how many batches Keras may look before it begins, or more.
PEEKED = 4


class QuestionSet(keras.utils.PyDataset):
    """Batches of questions: what ``DiffusionModel.fit`` makes of images, and takes as it is.

    Attributes:
        epoch: whose questions come next, from 0.
        always_alike: whether each epoch has the same, as for a measurement.
    """

    def __init__(self, always_alike: bool = False) -> None:
        """Begin with the first epoch."""
        super().__init__()
        self.epoch, self.always_alike = 0, always_alike

    def on_epoch_end(self) -> None:
        """Let the next epoch have questions of its own."""
        self.epoch += not self.always_alike


class Share(QuestionSet):
    """The part of every batch that one of several processes is asked about.

    Together they take the steps of one process, at the same size of the whole batch.
    """

    def __init__(self, questions: QuestionSet, number: int, processes: int) -> None:
        """Take share ``number``, from 0, of as many as there are processes."""
        super().__init__(questions.always_alike)
        self.questions, self.number, self.processes = questions, number, processes

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self.questions)

    def __getitem__(self, number: int) -> Any:
        """This process's part of the batch of that number.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        self.questions.epoch = self.epoch
        return keras.tree.map_structure(self._part, self.questions[number])

    def _part(self, whole: np.ndarray) -> np.ndarray:
        if len(whole) % self.processes:
            raise ValueError(
                f"a batch of {len(whole)} images cannot be shared out evenly to {self.processes} "
                f"processes. Choose a batch_size and a number of images that {self.processes} "
                "divides."
            )
        size = len(whole) // self.processes
        return whole[self.number * size : (self.number + 1) * size]

    def on_epoch_end(self) -> None:
        """Let the next epoch have questions of its own."""
        super().on_epoch_end()
        self.questions.on_epoch_end()


def own_share(questions: QuestionSet) -> QuestionSet:
    """This process's :class:`Share`, if ``keras.distribution`` has several of them train on JAX."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return questions
    import jax

    if jax.process_count() == 1:
        return questions
    return Share(questions, jax.process_index(), jax.process_count())


def as_data_set(questions: Any, epochs: int) -> Any:
    """Hand questions to TensorFlow, many batches in one call.

    A plain ``PyDataset`` is asked batch by batch by a thread of Python, for which a step of a small
    network has to wait. Here one call draws many, while those before them are trained on.

    Args:
        questions: a ``training.Questions``; its ``epoch`` is where the run begins.
        epochs: how many epochs are to come.

    Returns:
        A ``tf.data.Dataset`` of all their batches, one epoch after the other.
    """
    import tensorflow as tf

    example = questions[0]
    flat = keras.tree.flatten(example)
    chunks = _chunks(questions, epochs, sum(np.asarray(part).nbytes for part in flat))

    def draw(place: Any) -> list[np.ndarray]:
        epoch, numbers = chunks[int(place)]
        batches = [keras.tree.flatten(questions.batch(epoch, n)) for n in numbers]
        sizes = np.array([len(batch[0]) for batch in batches], dtype="int64")
        return [sizes, *(np.concatenate(parts) for parts in zip(*batches, strict=True))]

    def load(place: Any) -> Any:
        types = [tf.int64, *(tf.as_dtype(np.asarray(part).dtype) for part in flat)]
        sizes, *whole = tf.numpy_function(draw, [place], types, stateful=False)
        for tensor, part in zip(whole, flat, strict=True):
            tensor.set_shape((None, *np.shape(part)[1:]))
        sizes.set_shape((None,))
        return sizes, tuple(whole)

    def cut(sizes: Any, whole: Any) -> Any:  # back into batches
        ends = tf.cumsum(sizes)
        parts = tf.data.Dataset.from_tensor_slices((ends - sizes, ends))
        return parts.map(
            lambda start, end: keras.tree.pack_sequence_as(example, [x[start:end] for x in whole])
        )

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    data = tf.data.Dataset.range(len(chunks)).map(load).prefetch(1).flat_map(cut)
    return data.with_options(options)


def _chunks(questions: Any, epochs: int, bytes_a_batch: int) -> list[tuple[int, range]]:
    """Which batches are drawn together: of each epoch from the present one on, some numbers."""
    steps, first = len(questions), questions.epoch
    at_once = max(1, min(CHUNK_BYTES // max(bytes_a_batch, 1), steps))
    starts = [(epoch, i) for epoch in range(epochs) for i in range(0, steps, at_once)]
    return [(first + epoch, range(i, min(i + at_once, steps))) for epoch, i in starts]


class QuestionsFromBatches(QuestionSet):
    """Questions about the batches of any data set, one after the other.

    Attributes:
        fault: what was wrong with the last batch, if anything was.
    """

    fault: ValueError | None = None
    _iterator: Iterator[Any]

    def __init__(
        self,
        batches: Iterable[Any],
        about: Callable[..., Any],
        steps_per_epoch: int | None = None,
        always_alike: bool = False,
        **options: Any,
    ) -> None:
        """Plan the questions.

        Args:
            batches: yields images ``(batch, height, width, channels)``, or tuples
                ``(images, labels)`` and ``(images, labels, sample_weight)``.
            about: checks images, labels and weights, all in NumPy, and makes questions of them:
                ``DiffusionModel.questions``.
            steps_per_epoch: how many batches an epoch has; None asks the data set.
            always_alike: whether to ask the same in every epoch.
            **options: as for ``training.Questions``. The size of the batches and their order are
                the data set's own affair.

        Raises:
            ValueError: if nobody says how many batches there are, or for what is wrong with the
                first of them.
        """
        super().__init__(always_alike)
        self.batches, self.about, self.options = batches, about, options
        self.steps = steps_per_epoch or _count(batches)
        self._seen: dict[tuple[int, int], Any] = {}  # Keras peeks at the first before it begins
        self._ask_at_once()

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.steps

    def __getitem__(self, number: int) -> Any:
        """The question about the batch of that number."""
        try:
            return self._ask(number)
        except ValueError as fault:
            self.fault = fault
            raise

    def _ask(self, number: int) -> Any:
        if (self.epoch, number) not in self._seen:
            self._seen = {key: batch for key, batch in self._seen.items() if key[0] == self.epoch}
            batch = self._read(number)
            if number < PEEKED:
                self._seen[self.epoch, number] = batch
        else:
            batch = self._seen[self.epoch, number]
        images, labels, weights = _taken_apart(batch)
        told = {"batch_size": max(len(images), 1), "shuffle": False, "steps_per_epoch": self.steps}
        told = {**self.options, **told, "always_alike": self.always_alike}
        return self.about(images, labels, weights, **told).batch(self.epoch, number)

    def _ask_at_once(self) -> None:
        """Ask about the first batch, so that what is wrong with it is said before a run begins."""
        told = {**self.options, "batch_size": 1, "shuffle": False}
        if isinstance(self.batches, keras.utils.PyDataset):
            self.about(*_taken_apart(self.batches[0]), **told)
            return
        self._begin_again()
        first = self._next()
        self.about(*_taken_apart(first), **told)
        self._iterator, self._at = itertools.chain([first], self._iterator), 0

    def _read(self, number: int) -> Any:
        """The batch of that number; in training, of a data set that is read in turn, the next."""
        if isinstance(self.batches, keras.utils.PyDataset):
            return self.batches[number]
        if self.always_alike and number != self._at:
            self._begin_again()
            for _ in range(number):
                self._next()
        return self._next()

    def _next(self) -> Any:
        for _ in range(2):
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._begin_again()
                continue
            self._at += 1
            return batch
        raise ValueError(
            "the data set has no more batches: it can be read only once. Pass one that can be read "
            "again, such as a tf.data.Dataset or a keras.utils.PyDataset, or images in one array."
        )

    def _begin_again(self) -> None:
        self._iterator, self._at = iter(self.batches), 0

    def on_epoch_end(self) -> None:
        """Let the next epoch have questions of its own, and perhaps another order."""
        super().on_epoch_end()
        if isinstance(self.batches, keras.utils.PyDataset):
            self.batches.on_epoch_end()


def _count(batches: Any) -> int:
    try:
        return len(batches)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"a {type(batches).__name__} does not say how many batches it has. Pass "
            "steps_per_epoch=…, or images in one array."
        ) from error


def _taken_apart(batch: Any) -> tuple[Any, Any, Any]:
    """A batch as images, labels and weights, in NumPy; None for what it does not have."""
    parts = [*batch] if isinstance(batch, (tuple, list)) else [batch]
    arrays = [None if p is None else keras.ops.convert_to_numpy(p) for p in parts]
    images, labels, weights = [*arrays, None, None, None][:3]
    return images, labels, weights
