"""What watches a run: averages for all who look, logs, pictures on the way, one bar."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from pocket import averaged_by_hand, compiled, digits, numpy, pocket_model

from diffusion_walkthrough.engine.callbacks import RunProgress, SampleHistory
from diffusion_walkthrough.engine.optimizer import AveragingAdam
from diffusion_walkthrough.training import DiffusionModel

BACKEND = keras.backend.backend()


def own_weights(model: DiffusionModel) -> list[np.ndarray]:
    if BACKEND == "jax":
        model.jax_state_sync()  # there the variables are elsewhere during an epoch
    return [np.array(w) for w in model.network.get_weights()]


def assert_weights(found, expected, **tolerance):
    for ours, by_hand in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, by_hand, **{"rtol": 0, "atol": 1e-6, **tolerance})


class Interrupted(Exception):
    """Somebody has pressed the stop button."""


class Steps(keras.callbacks.Callback):
    """Keep the weights after each step; after two, interrupt at ``moment``, a callback's name."""

    def __init__(self, moment: str = "") -> None:
        super().__init__()
        self.steps: list[list[np.ndarray]] = []
        self.moment = moment

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(own_weights(self.model))
        self.stop_at("on_train_batch_end")

    def on_test_begin(self, logs=None):
        self.stop_at("on_test_begin")

    def on_epoch_end(self, epoch, logs=None):
        self.stop_at("on_epoch_end")

    def stop_at(self, moment):
        if moment == self.moment and len(self.steps) == 2:
            raise Interrupted


def fit_and_record(model, epochs, **options):
    """Train one step an epoch; the weights after each step, and after each epoch."""
    after_epoch = []

    class Record(Steps):
        def on_epoch_end(self, epoch, logs=None):
            after_epoch.append([np.array(w) for w in self.model.network.get_weights()])

    record = Record()
    model.fit(digits(32), epochs=epochs, verbose=0, callbacks=[record], **options)
    return record.steps, after_epoch


# Averages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.15, 0.9999])
def test_the_average_starts_from_this_run_and_replaces_the_weights_after_fit(momentum):
    """An average that began from another random network (a published mistake) would miss it.

    So would one with a constant momentum of 0.9999: nearly all of it would be the first step.
    """
    model = compiled(ema_momentum=momentum)
    after_step, after_epoch = fit_and_record(model, 4)
    expected = averaged_by_hand(after_step, momentum)
    assert max(np.abs(a - w).max() for a, w in zip(expected, after_step[-1], strict=True)) > 1e-4
    for found in (after_epoch[-1], model.network.get_weights()):
        assert_weights(found, expected)


def test_training_goes_on_with_its_own_weights_while_others_see_the_average():
    """The same losses, step by step, as a run without any averaging, validation or not."""
    found = {}
    for momentum in (None, 0.9):
        model = compiled(ema_momentum=momentum, learning_rate=0.02)
        options = {"verbose": 0, "shuffle": False, "validation_data": (digits(32),)}
        found[momentum] = model.fit(digits(64), epochs=4, **options).history
    np.testing.assert_allclose(found[0.9]["loss"], found[None]["loss"], rtol=1e-6)
    differences = np.abs(np.subtract(found[0.9]["val_loss"], found[None]["val_loss"]))
    assert differences.min() > 1e-4


def test_a_run_that_stops_early_still_ends_with_the_average():
    """Where Keras's own SwapEMAWeights leaves the weights of the last step."""
    model = compiled(ema_momentum=0.9)
    record = Steps()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 2)
    )
    model.fit(digits(32), epochs=9, verbose=0, callbacks=[record, stop])
    assert len(record.steps) == 3
    assert_weights(model.network.get_weights(), averaged_by_hand(record.steps, 0.9))


MOMENTS = ["on_train_batch_end", "on_test_begin", "on_epoch_end"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_fit_leaves_the_weights_of_its_last_step_and_can_go_on(moment):
    """On JAX, weights and averages that share their buffers would stop it in its next step."""
    model = compiled(ema_momentum=0.9)
    record = Steps(moment)
    with pytest.raises(Interrupted):
        model.fit(
            digits(32), epochs=3, verbose=0, callbacks=[record], validation_data=(digits(32),)
        )
    assert_weights(model.network.get_weights(), record.steps[1], atol=0)
    assert np.isfinite(model.fit(digits(32), epochs=2, verbose=0).history["loss"]).all()


def test_callbacks_in_a_list_of_keras_s_own_may_be_interrupted_too():
    model = compiled(ema_momentum=0.9)
    record = Steps("on_epoch_end")
    callbacks = keras.callbacks.CallbackList([record], model=model, epochs=3)
    with pytest.raises(Interrupted):
        model.fit(digits(32), epochs=3, verbose=0, callbacks=callbacks)
    assert_weights(model.network.get_weights(), record.steps[1], atol=0)


def test_weights_set_by_hand_start_a_new_average():
    """Or the average would be, for the most part, that of another network (a published mistake)."""
    model = compiled(ema_momentum=0.99, learning_rate=1e-9)
    model.fit(digits(32), epochs=3, verbose=0)
    model.network.set_weights([np.full_like(w, 0.05) for w in model.network.get_weights()])
    model.fit(digits(32), epochs=1, verbose=0)
    for weight in model.network.get_weights():
        np.testing.assert_allclose(weight, 0.05, atol=1e-6)


def test_going_on_after_a_fit_goes_on_with_the_average():
    model = compiled(ema_momentum=0.15)
    fit_and_record(model, 2)
    between = [np.array(w) for w in model.network.get_weights()]
    second, _ = fit_and_record(model, 2)
    steps = [[0.15 * a + 0.85 * w for a, w in zip(between, second[0], strict=True)], second[1]]
    expected = [0.15 * a + 0.85 * w for a, w in zip(*steps, strict=True)]
    assert_weights(model.network.get_weights(), expected)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="Keras itself refuses it on JAX")
@pytest.mark.parametrize("unfrozen", [False, True])
def test_each_weight_has_its_own_average_whatever_has_been_frozen_since(unfrozen):
    """They were paired by their places: frozen, the first gave its average to the second."""
    model = compiled(ema_momentum=0.9, learning_rate=1e-9)
    model.fit(digits(32), epochs=2, verbose=0)
    before = model.network.get_weights()
    trained = [layer for layer in model.network.layers if layer.trainable_weights]
    for layer in trained[: len(trained) // 2]:
        layer.trainable = False
    model.fit(digits(32), epochs=1, verbose=0)
    if unfrozen:
        model.network.trainable = True
        model.fit(digits(32), epochs=1, verbose=0)
    assert_weights(model.network.get_weights(), before)


@pytest.mark.filterwarnings("ignore:BackupAndRestore keeps no place")
def test_a_backup_holds_the_weights_of_the_training_not_the_average(tmp_path):
    model, record = compiled(ema_momentum=0.9), Steps("on_epoch_end")
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(Interrupted):
        model.fit(digits(32), epochs=4, verbose=0, callbacks=[record, backup])
    again, seen = compiled(ema_momentum=0.9), []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append((epoch, [np.array(w) for w in self.model.network.get_weights()]))

    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    again.fit(digits(32), epochs=4, verbose=0, callbacks=[Look(), backup])
    epoch, weights = seen[0]
    assert epoch == 2
    assert_weights(weights, record.steps[1], atol=0)


# Logs ---------------------------------------------------------------------------------------------


def test_learning_rate_and_gradient_norm_stand_in_the_history():
    """The norm against another optimizer's steps, before clipping.

    With plain gradient descent of rate 1 the weights move by exactly the gradient.
    """
    model = compiled(keras.optimizers.SGD(1.0))
    start = [np.array(w) for w in model.network.get_weights()]
    model.fit(digits(32), epochs=1, verbose=0)
    moved = zip(start, model.network.get_weights(), strict=True)
    norm = np.sqrt(sum(np.square(old - new).sum() for old, new in moved))

    again = compiled(warmup_steps=4, gradient_clip=1e-4)
    history = again.fit(digits(32), epochs=3, verbose=0).history
    assert history["gradient_norm"][0] == pytest.approx(norm, rel=1e-3)
    assert history["learning_rate"] == pytest.approx([2e-3 * n / 4 for n in (1, 2, 3)], rel=1e-5)


def test_the_norm_is_the_mean_over_the_epoch():
    assert (
        "gradient_norm"
        not in compiled(keras.optimizers.SGD(0.0)).fit(digits(32), verbose=0).history
    )
    model, totals = compiled(AveragingAdam(1e-3)), []

    class Tally(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            own_weights(self.model)
            totals.append(np.array(numpy(self.model.optimizer.tally)))

    history = model.fit(digits(96), epochs=2, verbose=0, callbacks=[Tally()]).history
    sums = np.array(totals)
    np.testing.assert_array_equal(sums[:, 1], [1, 2, 3, 1, 2, 3])
    for epoch in (0, 1):
        norms = np.diff(sums[3 * epoch : 3 * epoch + 3, 0], prepend=0)
        assert norms.min() > 0
        assert history["gradient_norm"][epoch] == pytest.approx(norms.mean(), rel=1e-6)


def test_steps_in_parts_are_logged_as_whole_steps():
    histories = []
    for parts in (1, 4):
        model = compiled(batch_size=32, gradient_accumulation_steps=parts)
        model.fit(digits(64), epochs=2, verbose=0)
        histories.append(numpy(model.optimizer.tally)[1])
    assert histories == [2, 2]


def test_tensorboard_gets_the_loss_the_learning_rate_and_the_norm(tmp_path):
    if BACKEND != "tensorflow":
        pytest.skip("Keras writes TensorBoard's files through TensorFlow")
    from tensorflow.compat.v1 import train

    board = keras.callbacks.TensorBoard(tmp_path)
    compiled().fit(digits(64), epochs=2, verbose=0, callbacks=[board])
    events = [e for file in tmp_path.glob("train/*v2") for e in train.summary_iterator(str(file))]
    tags = [value.tag for event in events for value in event.summary.value]
    for tag in ("epoch_loss", "epoch_learning_rate", "epoch_gradient_norm"):
        assert tags.count(tag) == 2, tag


# Pictures and the bar -----------------------------------------------------------------------------


def test_sample_history_draws_before_every_so_many_epochs_and_at_the_end():
    model, shown = compiled(), []
    history = SampleHistory(every=2, n=3, show=lambda epochs, images: shown.append(epochs))
    model.fit(digits(64), epochs=3, verbose=0, callbacks=[history])
    assert list(history.images) == shown == [0, 2, 3]
    assert history.images[3].shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(history.images[3], model.sample(3, seed=0))
    assert np.abs(history.images[0] - history.images[3]).max() > 0
    with pytest.raises(ValueError, match="at least 1"):
        SampleHistory(every=0)


def test_what_the_history_draws_is_drawn_with_the_average():
    model, own = compiled(ema_momentum=0.9, learning_rate=0.02), pocket_model()
    history, record = SampleHistory(every=1, n=2), Steps()
    model.fit(digits(32), epochs=3, verbose=0, callbacks=[history, record])
    np.testing.assert_array_equal(history.images[3], model.sample(2, seed=0))
    own.network.set_weights(record.steps[-1])
    assert np.abs(own.sample(2, seed=0) - history.images[3]).max() > 1e-3


def test_one_bar_for_the_whole_run(capsys):
    compiled().fit(digits(64), epochs=3, verbose=0, callbacks=[RunProgress()])
    printed = capsys.readouterr().out
    assert "3/3" in printed
    assert "loss" in printed
