"""The guard: a NaN or a wrong range stops training, and the message says what, where and when."""

from __future__ import annotations

import dataclasses
import time

import keras
import numpy as np
import pytest
from keras import ops
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.guarding import StepNotes, TrainingGuard
from diffusion_walkthrough.training import DiffusionModel

BACKEND = keras.backend.backend()
SEVERAL_STEPS = 1 if BACKEND == "torch" else 4  # in one execution, which PyTorch's Keras has not


def digits(n: int = 96) -> np.ndarray:
    return load_images("digits")[0][:n].copy()


class Batches(keras.utils.PyDataset):
    """Images in a data set, which fit cannot check in advance."""

    def __init__(self, images: np.ndarray, batch_size: int = 8) -> None:
        super().__init__()
        self.images, self.batch_size = images, batch_size

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        return (self.images[index * self.batch_size : (index + 1) * self.batch_size],)


def model_for(
    optimizer: object = None, steps_per_execution: int = 1, kind: type = DiffusionModel, **training
) -> DiffusionModel:
    keras.utils.set_random_seed(0)
    parameters = dataclasses.replace(TINY.training, **training)
    model = kind(dataclasses.replace(TINY, training=parameters), seed=0)
    model.compile(optimizer, steps_per_execution=steps_per_execution)
    return model


def weights(model: keras.Model) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in model.network.get_weights()])


def fit(model: DiffusionModel, images: np.ndarray, **options: object) -> keras.callbacks.History:
    return model.fit(Batches(images), shuffle=False, verbose=0, **options)


# Images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message", "steps_per_execution", "every"),
    [
        (1.5, r"from -1 to 1\.5", 1, 0),
        (np.nan, "NaN or infinity", SEVERAL_STEPS, 0),
        (255.0, "from -1 to 255", SEVERAL_STEPS, 3600),
    ],
)
def test_bad_images_are_named_with_the_step(bad, message, steps_per_execution, every):
    images = digits()
    images[6 * 8 + 3, 2, 2, 0] = bad  # in step 7
    model = model_for(steps_per_execution=steps_per_execution)
    guard = TrainingGuard(every=every)
    with pytest.raises(ValueError, match=f"step 7 of epoch 1, at the images.*{message}"):
        fit(model, images, epochs=2, callbacks=[guard])
    assert np.isfinite(weights(model)).all()
    assert np.abs(model.sample(2, seed=0)).max() <= 1


def test_the_guard_is_there_without_asking():
    with pytest.raises(ValueError, match=r"step 1 of epoch 1.*images / 127\.5 - 1"):
        fit(model_for(), 127.5 * (digits() + 1))


def test_images_from_0_to_1_are_known_when_an_epoch_has_shown_them_all():
    model = model_for()
    for validation_data in (None, digits(8)):
        with pytest.raises(ValueError, match=r"images \* 2 - 1"):
            fit(model, (digits() + 1) / 2, epochs=2, validation_data=validation_data)


def test_a_second_epoch_counts_its_own_steps():
    images, model = digits(), model_for()

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                images[2 * 8] = 2.0

    with pytest.raises(ValueError, match="step 3 of epoch 2"):
        fit(model, images, epochs=3, callbacks=[Spoil()])


# Numbers ------------------------------------------------------------------------------------------


class Overflowing(DiffusionModel):
    """The loss stays finite; its gradient, in the one image that is all -1, does not."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        answer, images = y_pred[:2]
        brightness = (ops.max(images) + 1) / 2
        return loss + ops.sqrt(brightness * (1 + ops.mean(answer)))  # infinitely steep at 0


@pytest.mark.parametrize(("steps_per_execution", "ema_momentum"), [(1, None), (SEVERAL_STEPS, 0.9)])
def test_a_gradient_is_named_and_its_step_changes_nothing(steps_per_execution, ema_momentum):
    images = digits()
    images[5 * 8 : 6 * 8] = -1.0  # step 6
    kept = model_for(steps_per_execution=1, kind=Overflowing, ema_momentum=None)
    fit(kept, images[: 5 * 8])
    model = model_for(steps_per_execution=steps_per_execution, kind=Overflowing)
    with pytest.raises(FloatingPointError, match=r"step 6 of epoch 1.*gradient of .*kernel is not"):
        fit(model, images[: 6 * 8])
    np.testing.assert_allclose(weights(model), weights(kept), atol=1e-6)


def test_an_answer_that_is_not_finite_is_told_from_weights_that_are_not():
    model = model_for()
    huge = [np.where(np.isfinite(w), 3e38, w) for w in model.network.get_weights()]
    model.network.set_weights(huge)
    with pytest.raises(FloatingPointError, match=r"step 1 of epoch 1.*network's answer is not"):
        fit(model, digits())


def test_a_loss_is_told_from_an_answer_and_a_weight_is_named():
    """The bias of the last layer, once so large that its square is past the end of float32."""
    model = model_for()
    values = model.network.get_weights()
    values[-1][:] = 1e25
    model.network.set_weights(values)
    with pytest.raises(FloatingPointError, match=r"answer is finite, the loss is inf"):
        fit(model, digits())
    values[-1][:] = np.nan
    model.network.set_weights(values)
    with pytest.raises(FloatingPointError, match="weight " + model.network.weights[-1].path):
        fit(model, digits())


def test_any_other_optimizer_is_watched_too():
    images = digits()
    images[5 * 8 : 6 * 8] = -1.0
    model = model_for(keras.optimizers.SGD(1e-3), kind=Overflowing)
    with pytest.raises(FloatingPointError, match=r"step 7 of epoch 1: the weight .*checkpoint"):
        fit(model, images)


def test_a_loss_of_ones_own_is_watched_too():
    class Own(DiffusionModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y_pred[0] - y_pred[4])) * np.float32("inf")

    model = Own(TINY, seed=0)
    model.compile()
    with pytest.raises(FloatingPointError, match=r"at step 1 of epoch 1.*the loss is (inf|nan)"):
        model.fit(load_images("digits")[0][:64], verbose=0)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch's convolutions take no float16 on a CPU")
def test_steps_that_loss_scaling_skips_are_no_fault_unless_they_never_end():
    fine = model_for(precision="mixed_float16")
    fine.optimizer.initial_scale = 2.0**26  # the first steps overflow, until the scale fits
    history = fit(fine, digits(32 * 8), epochs=2)
    assert np.isfinite(history.history["loss"]).all()
    assert float(ops.convert_to_numpy(fine.optimizer.dynamic_scale)) < 2.0**26
    hopeless = model_for(precision="mixed_float16", kind=Overflowing)
    before = weights(hopeless)
    with pytest.raises(FloatingPointError, match=r"from 32768 to 0\.5.*mixed_bfloat16"):
        fit(hopeless, np.full((160, 8, 8, 1), -1, "float32"), callbacks=[TrainingGuard(every=0)])
    np.testing.assert_array_equal(weights(hopeless), before)


# What it costs and leaves -------------------------------------------------------------------------


def test_nothing_is_added_to_the_logs_and_no_file_is_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = fit(model_for(), digits(), validation_data=digits(8))
    assert set(history.history) == {"loss", "val_loss", "learning_rate", "gradient_norm"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_looks_after_the_first_step_then_once_in_a_while_and_at_the_end(monkeypatch):
    looks = []

    class Counting(TrainingGuard):
        def look(self):
            looks.append(int(self.model.step_notes.read()[0][0]))
            super().look()

    clock = iter(np.arange(0, 1000, 0.25))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    fit(model_for(), digits(), callbacks=[Counting(every=1.0)])
    assert looks[0] == 1
    assert looks[-1] == 12
    assert 3 <= len(looks) < 8


def test_every_must_not_be_negative():
    with pytest.raises(ValueError, match=r"every = -1 seconds must be at least 0"):
        TrainingGuard(every=-1)


def test_notes_keep_the_first_bad_step():
    notes = StepNotes()
    good, bad = np.zeros((2, 4, 4, 1), "float32"), np.full((2, 4, 4, 1), 3.0, "float32")
    for images, loss in [(good - 0.5, 1.0), (good, np.inf), (bad, 2.0), (good, np.nan)]:
        notes.update_state(images, good + 1, np.array([loss, loss], "float32"))
    (values,) = notes.read()
    np.testing.assert_array_equal(values, [4, 0.5, 3, 2, 0, 0, 32, np.inf])
    notes.reset_state()
    assert notes.read()[0][3] == 0
    assert notes.result() == {}
