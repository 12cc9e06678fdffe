"""Questions reach the training step whole and in order, and data sets are asked about too."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from pocket import pocket_model

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine import feeding
from diffusion_walkthrough.engine.feeding import QuestionsFromBatches, as_data_set
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.training import Questions

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")

SCHEDULE = NoiseSchedule(np.linspace(0.05, 0.3, 10))
IMAGES = load_images("digits")[0][:80]
LABELS, WEIGHTS = np.arange(80, dtype="int32"), np.linspace(0, 1, 80, dtype="float32")


def assert_same(ours: object, theirs: object) -> None:
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    for mine, other in pairs:
        mine, other = np.asarray(mine), np.asarray(other)
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


@on_tensorflow
@pytest.mark.parametrize("chunk", [1, 60_000, 2**25], ids=["one by one", "two", "all at once"])
@pytest.mark.parametrize(
    "options",
    [{}, {"labels": LABELS}, {"weights": WEIGHTS, "steps_per_epoch": 4}, {"mirror": True}],
    ids=str,
)
def test_tensorflow_gets_the_very_questions(chunk, options, monkeypatch):
    """Every batch of every epoch, the last one of a pass smaller, and from any epoch on."""
    monkeypatch.setattr(feeding, "CHUNK_BYTES", chunk)
    asked = Questions(IMAGES, SCHEDULE, 32, seed=5, **options)
    asked.epoch = 2
    data = as_data_set(asked, epochs=3)
    expected = [asked.batch(epoch, n) for epoch in (2, 3, 4) for n in range(len(asked))]
    found = list(data)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, tuple)
        assert_same(ours, theirs)


# Data sets ----------------------------------------------------------------------------------------


def about(images, labels, weights, **options):
    """What a model makes of a batch, without its checks."""
    return Questions(images, SCHEDULE, labels=labels, weights=weights, **options)


def from_batches(batches, **options):
    return QuestionsFromBatches(batches, about, seed=3, **options)


def batches_of(*arrays, size=32):
    parts = [[array[i : i + size] for i in range(0, 80, size)] for array in arrays]
    return [batch[0] if len(arrays) == 1 else batch for batch in zip(*parts, strict=True)]


class InOrder(keras.utils.PyDataset):
    """The batches by their numbers; each epoch begins with another one."""

    def __init__(self, batches):
        super().__init__()
        self.given, self.turned = batches, 0

    def __len__(self):
        return len(self.given)

    def __getitem__(self, number):
        return self.given[(number + self.turned) % len(self.given)]

    def on_epoch_end(self):
        self.turned += 1


class Again:
    """A data set that can be read again and again, as a ``tf.data.Dataset`` can."""

    def __init__(self, batches, length=True):
        self.given, self.reads = batches, 0
        if length:
            self.length = len(batches)

    def __len__(self):
        try:
            return self.length
        except AttributeError:
            raise TypeError("unknown length") from None

    def __iter__(self):
        self.reads += 1
        return iter(self.given)


@pytest.mark.parametrize("kind", [InOrder, Again])
def test_a_data_set_is_asked_about_batch_by_batch(kind):
    asked = from_batches(kind(batches_of(IMAGES)))
    assert len(asked) == 3
    for number, images in enumerate(batches_of(IMAGES)):
        (x_t, t), done = asked[number]
        np.testing.assert_array_equal(done["x_start"], images)
        assert len(x_t) == len(t) == len(images)


def test_labels_and_weights_come_with_the_images():
    asked = from_batches(Again(batches_of(IMAGES, LABELS, WEIGHTS)))
    for number, (_, labels, weights) in enumerate(batches_of(IMAGES, LABELS, WEIGHTS)):
        (_, _, told), _, counted = asked[number]
        np.testing.assert_array_equal(told, labels)
        np.testing.assert_array_equal(counted, weights)
    assert len(from_batches(Again(batches_of(IMAGES, LABELS)))[0]) == 2


def test_each_epoch_and_each_batch_has_noise_of_its_own_that_follows_the_seed():
    def noises(seed):
        asked = QuestionsFromBatches(InOrder(batches_of(IMAGES)), about, seed=seed)
        found = []
        for _ in range(2):
            found += [asked[number][1]["noise"][:16] for number in range(3)]
            asked.on_epoch_end()
        return found

    first = noises(3)
    for one, again in zip(first, noises(3), strict=True):
        np.testing.assert_array_equal(one, again)
    every = [*first, *noises(4)]
    for i, noise in enumerate(every):
        assert not any(np.array_equal(noise, other) for other in every[:i])


def test_the_first_batches_may_be_looked_at_before_they_are_trained_on():
    """Keras does: the batch must not be lost, nor another one be asked about."""
    asked = from_batches(Again(batches_of(IMAGES)))
    first = asked[0]
    assert_same(asked[0], first)
    for number, images in enumerate(batches_of(IMAGES)):
        np.testing.assert_array_equal(asked[number][1]["x_start"], images)


def test_an_epoch_of_fewer_steps_goes_on_in_the_data_set():
    asked = from_batches(Again(batches_of(IMAGES)), steps_per_epoch=2)
    found = []
    for _ in range(3):
        found += [asked[number][1]["x_start"] for number in range(2)]
        asked.on_epoch_end()
    for images, expected in zip(found, 2 * batches_of(IMAGES), strict=True):
        np.testing.assert_array_equal(images, expected)


def test_a_data_set_by_number_may_change_its_order_between_epochs():
    asked = from_batches(InOrder(batches_of(IMAGES)))
    asked.on_epoch_end()
    np.testing.assert_array_equal(asked[0][1]["x_start"], batches_of(IMAGES)[1])


def test_a_measurement_reads_from_the_start_each_time():
    asked = from_batches(Again(batches_of(IMAGES)), always_alike=True)
    first = [asked[number] for number in (0, 1, 2)]
    asked.on_epoch_end()
    for number in (0, 1, 2, 1):
        assert_same(asked[number], first[number])


def test_a_generator_says_how_long_an_epoch_is_and_may_run_out():
    with pytest.raises(ValueError, match=r"generator does not say.*steps_per_epoch"):
        from_batches(batch for batch in batches_of(IMAGES))
    with pytest.raises(ValueError, match=r"Again does not say.*steps_per_epoch"):
        from_batches(Again(batches_of(IMAGES), length=False))
    asked = from_batches((batch for batch in batches_of(IMAGES)), steps_per_epoch=2)
    for number in (0, 1):
        np.testing.assert_array_equal(asked[number][1]["x_start"], batches_of(IMAGES)[number])
    asked.on_epoch_end()
    np.testing.assert_array_equal(asked[0][1]["x_start"], batches_of(IMAGES)[2])
    with pytest.raises(ValueError, match="no more batches: it can be read only once"):
        asked[1]


# And all of it through fit ------------------------------------------------------------------------


def tensorflow_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(IMAGES).batch(32)


KINDS = {
    "by number": lambda: InOrder(batches_of(IMAGES)),
    "read in turn": lambda: Again(batches_of(IMAGES)),
    "tf.data": tensorflow_data,
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_sets_train_and_are_evaluated(kind):
    """Their questions are their own; losses, with weights that stay, agree from run to run."""
    if kind == "tf.data":
        pytest.importorskip("tensorflow")
    found = []
    for _ in range(2):
        model = pocket_model()
        model.compile()
        first = model.evaluate(KINDS[kind](), verbose=0)
        history = model.fit(KINDS[kind](), epochs=3, validation_data=KINDS[kind](), verbose=0)
        assert model.evaluate(KINDS[kind](), verbose=0) == pytest.approx(
            history.history["val_loss"][-1]
        )
        assert history.history["val_loss"][-1] < first
        assert len(set(history.history["loss"])) == 3
        found.append([first, *history.history["loss"]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@functools.cache
def still_model():
    """A model whose weights stay."""
    model = pocket_model()
    model.compile(keras.optimizers.SGD(0.0))
    return model


def test_a_generator_trains_for_as_many_steps_as_it_is_told():
    seen = []

    def endless():
        while True:
            for batch in batches_of(IMAGES):
                seen.append(len(batch))
                yield batch

    history = still_model().fit(endless(), steps_per_epoch=4, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2
    assert seen[:8] == [32, 32, 16, 32, 32, 16, 32, 32]
    with pytest.raises(ValueError, match="steps_per_epoch"):
        still_model().fit(endless(), verbose=0)


def test_weights_of_a_data_set_count():
    nothing = Again(batches_of(IMAGES, LABELS, 0 * WEIGHTS))
    assert still_model().evaluate(nothing, verbose=0) == 0
    assert still_model().fit(nothing, verbose=0).history["loss"] == [0]


@on_tensorflow
def test_a_run_of_very_many_epochs_is_fed_at_once():
    """Whoever stops early may ask for as many as there are."""
    asked = Questions(IMAGES, SCHEDULE, 32, seed=5)
    data = as_data_set(asked, epochs=10**9)
    assert [len(t) for (_, t), _ in data.take(4)] == [32, 32, 16, 32]
