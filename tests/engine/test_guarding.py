"""The guard: a NaN or a wrong range stops training, and the message says what, where and when."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest
from keras import ops
from pocket import pocket_network, pocket_parameters
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine.guarding import TrainingGuard
from diffusion_walkthrough.training import DiffusionModel

BACKEND = keras.backend.backend()
SEVERAL_STEPS = 1 if BACKEND == "torch" else 4  # in one execution, which PyTorch's Keras has not


def digits(n: int = 96) -> np.ndarray:
    return load_images("digits")[0][:n].copy()


class Overflowing(DiffusionModel):
    """The loss stays finite; its gradient, where an image is all -1, does not."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        brightness = (ops.max(y["x_start"]) + 1) / 2
        return loss + ops.sqrt(brightness * (1 + ops.mean(y_pred)))  # infinitely steep at 0


def model_for(kind=DiffusionModel, optimizer=None, steps_per_execution=1, **training):
    keras.utils.set_random_seed(0)
    parameters = pocket_parameters(batch_size=8, **training)
    model = kind(parameters, seed=0, network=pocket_network(parameters))
    quickly = steps_per_execution == 1  # there is nothing to trace, then
    model.compile(optimizer, steps_per_execution=steps_per_execution, run_eagerly=quickly)
    return model


def weights(model) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in model.network.get_weights()])


def fit(model, images, **options) -> keras.callbacks.History:
    return model.fit(images, shuffle=False, verbose=0, **options)


def with_black(at: int, n: int = 12) -> np.ndarray:
    """Batches of 8, of which batch ``at``, counted from 1, has only the darkest images."""
    images = digits(8 * n)
    images[8 * (at - 1) : 8 * at] = -1.0
    return images


# Images -------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    """Images in a data set, which fit cannot check in advance."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.images = images

    def __len__(self) -> int:
        return len(self.images) // 8

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        return (self.images[index * 8 : (index + 1) * 8],)


@pytest.mark.parametrize(
    ("bad", "message"), [(1.5, r"from -1 to 1\.5"), (np.nan, "NaN or infinity"), (255, "to 255")]
)
@pytest.mark.parametrize("batches", [False, True])
def test_images_out_of_range_are_refused(bad, message, batches):
    images = digits()
    images[6 * 8 + 3, 2, 2, 0] = bad  # in step 7
    model = model_for()
    before = weights(model)
    with pytest.raises(Exception, match=message) as caught:
        fit(model, Batches(images) if batches else images, epochs=2)
    if not batches:
        assert caught.type is ValueError
        np.testing.assert_array_equal(weights(model), before)
    assert np.isfinite(weights(model)).all()


@pytest.mark.parametrize(
    ("convert", "remedy"),
    [(lambda x: 127.5 * (x + 1), r"images / 127\.5 - 1"), (lambda x: (x + 1) / 2, r"\* 2 - 1")],
)
def test_images_of_another_range_are_refused_before_a_step(convert, remedy):
    for images in (convert(digits()), Batches(convert(digits()))):
        model = model_for()
        before = weights(model)
        with pytest.raises(ValueError, match=remedy):
            fit(model, images)
        np.testing.assert_array_equal(weights(model), before)
        with pytest.raises(ValueError, match=remedy):
            fit(model, digits(), validation_data=images)


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps_per_execution", "ema_momentum"), [(1, None), (SEVERAL_STEPS, 0.9)])
def test_a_gradient_is_named_and_its_step_changes_nothing(steps_per_execution, ema_momentum):
    kept = model_for(Overflowing)
    fit(kept, with_black(6)[: 5 * 8])
    model = model_for(Overflowing, None, steps_per_execution, ema_momentum=ema_momentum)
    with pytest.raises(
        FloatingPointError,
        match=r"step 6 of epoch 1: .*gradient of in/kernel is not.*learning_rate",
    ):
        fit(model, with_black(6, n=6), callbacks=[TrainingGuard(every=3600)])
    np.testing.assert_allclose(weights(model), weights(kept), atol=1e-6)


def test_a_gradient_of_a_unet_is_named():
    model = Overflowing(TINY, seed=0)
    model.compile()
    with pytest.raises(
        FloatingPointError, match=r"step 2 of epoch 1: .*gradient of .*kernel is not"
    ):
        fit(model, with_black(2), batch_size=8, callbacks=[TrainingGuard(every=0)])


def test_a_second_epoch_counts_its_own_steps():
    model = model_for(Overflowing)
    with pytest.raises(FloatingPointError, match=r"step 3 of epoch 2: .*gradient of"):
        fit(model, with_black(8), steps_per_epoch=5, epochs=3)


def test_in_parts_a_step_has_several_questions():
    """Steps of two batches; the first epoch of five leaves one over."""
    model = model_for(Overflowing, gradient_accumulation_steps=2)
    with pytest.raises(FloatingPointError, match=r"step 2 of epoch 2: .*gradient of"):
        fit(model, with_black(7), batch_size=16, steps_per_epoch=5, epochs=3)


def test_an_answer_that_is_not_finite_is_told_from_weights_that_are_not():
    model = model_for()
    model.network.set_weights([np.full_like(w, 3e38) for w in model.network.get_weights()])
    with pytest.raises(FloatingPointError, match=r"step 1 of epoch 1: .*network's answer is not"):
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
    with pytest.raises(FloatingPointError, match="the weight " + model.network.weights[-1].path):
        fit(model, digits())


def test_of_a_data_set_no_question_can_be_asked_again():
    model = model_for(Overflowing)
    with pytest.raises(FloatingPointError, match=r"step 6 of epoch 1: the answer, the loss or a"):
        fit(model, Batches(with_black(6)))


def test_any_other_optimizer_is_watched_too():
    model = model_for(Overflowing, keras.optimizers.SGD(1e-3))
    with pytest.raises(FloatingPointError, match=r"step \d+ of epoch 1: the weight .*checkpoint"):
        fit(model, with_black(6), callbacks=[TrainingGuard(every=0)])


def test_a_loss_of_ones_own_is_watched_too():
    class Own(DiffusionModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y_pred - y["noise"])) * np.float32("inf")

    with pytest.raises(FloatingPointError, match=r"at step 1 of epoch 1.*the loss is (inf|nan)"):
        fit(model_for(Own), digits())


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch on a CPU has no float16 to train in")
def test_steps_that_loss_scaling_skips_are_no_fault_unless_they_never_end():
    fine = model_for(precision="mixed_float16")
    fine.optimizer.initial_scale = 2.0**26  # the first steps overflow, until the scale fits
    history = fit(fine, digits(), epochs=2)
    assert np.isfinite(history.history["loss"]).all()
    assert float(ops.convert_to_numpy(fine.optimizer.dynamic_scale)) < 2.0**26
    hopeless = model_for(Overflowing, precision="mixed_float16")
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


def test_it_looks_after_the_first_step_then_once_in_a_while_and_at_the_end(monkeypatch):
    looks = []

    class Counting(TrainingGuard):
        def look(self, batch=None, logs=None):
            looks.append(batch)
            super().look(batch, logs)

    clock = iter(np.arange(0, 1000, 0.25))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    fit(model_for(), digits(), callbacks=[Counting(every=1.0)])
    assert looks[0] == 0
    assert looks[-1] is None
    assert 3 <= len(looks) < 8


def test_every_must_not_be_negative():
    with pytest.raises(ValueError, match=r"every=-1: every must be .* of seconds, at least 0"):
        TrainingGuard(every=-1)
