"""Training: the Keras model does what a loop by hand does, and really learns."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras import ops
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import nearest_distance
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import (
    DiffusionParameters,
)
from diffusion_walkthrough.training import (
    AveragingAdam,
    DiffusionModel,
    RunProgress,
    SampleHistory,
    learning_rate_schedule,
    make_optimizer,
)


def digits(n: int = 64) -> np.ndarray:
    return load_images("digits")[0][:n]


def with_training(**changes: object) -> DiffusionParameters:
    return dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **changes))


def numpy(x: object) -> np.ndarray:
    return ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def trained() -> DiffusionModel:
    """One epoch on all training digits."""
    keras.utils.set_random_seed(0)
    model = DiffusionModel(TINY, seed=0)
    model.compile()
    model.history_of_fit = model.fit(digits(1500), epochs=1, verbose=0)
    return model


def test_one_epoch_learns(trained):
    """From 1, the loss of answering 0, to well below within 47 steps."""
    assert trained.history_of_fit.history["loss"][0] < 0.9
    assert trained.evaluate(digits(640), verbose=0) < 0.6


def test_samples_are_images_and_repeat(trained):
    first = trained.sample(5, seed=3)
    assert first.shape == (5, 8, 8, 1)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, trained.sample(5, seed=3))
    assert np.abs(first - trained.sample(5, seed=4)).max() > 0.1


def test_samples_of_a_trained_model_are_nearer_to_digits_than_those_of_an_untrained_one(trained):
    untrained = DiffusionModel(TINY, seed=0)
    data = digits(1500)
    near = nearest_distance(trained.sample(32, seed=0), data).mean()
    far = nearest_distance(untrained.sample(32, seed=0), data).mean()
    assert near < 0.8 * far


def test_the_first_loss_is_that_of_answering_zero():
    """The last convolution starts at (almost) zero, so the loss is the noise's mean square."""
    model = DiffusionModel(TINY, seed=0)
    model.compile()
    assert model.evaluate(digits(1500), verbose=0) == pytest.approx(1.0, abs=0.02)


def test_the_question_is_equation_4_and_the_mark_is_equation_14():
    """Ask with a network that returns what it was shown, and solve for what it was shown."""
    model = DiffusionModel(TINY, seed=0)
    shown: dict[str, np.ndarray] = {}

    def remember(x_t, t, training):
        shown["x_t"], shown["t"] = numpy(x_t), numpy(t)
        return 0.5 * x_t

    images = digits(200)
    model.ask = remember
    guess, x_start, x_t, t, noise = model.call(images)
    np.testing.assert_array_equal(numpy(x_start), images)
    np.testing.assert_array_equal(numpy(x_t), shown["x_t"])
    np.testing.assert_array_equal(numpy(t), shown["t"])
    alpha_bar = np.cumprod(1 - model.schedule.betas)[shown["t"]].reshape(-1, 1, 1, 1)
    expected = np.sqrt(alpha_bar) * images + np.sqrt(1 - alpha_bar) * numpy(noise)
    np.testing.assert_allclose(shown["x_t"], expected, atol=1e-5)
    assert set(shown["t"]) == set(range(10)), "every step is asked for"
    assert abs(numpy(noise).mean()) < 0.05
    assert numpy(noise).std() == pytest.approx(1.0, abs=0.05)
    loss = float(model.compute_loss(y_pred=(guess, x_start, x_t, t, noise)))
    assert loss == pytest.approx(((numpy(noise) - 0.5 * shown["x_t"]) ** 2).mean(), rel=1e-5)


def train_by_hand(model: DiffusionModel, images: np.ndarray, seed: int) -> list[float]:
    """Train on batches of 32 with TensorFlow's tape; returns the losses."""
    import tensorflow as tf

    generator, optimizer = keras.random.SeedGenerator(seed), make_optimizer(TINY.training)
    alpha_bar = np.cumprod(1 - model.schedule.betas).astype("float32")
    losses = []
    for batch in np.split(images, len(images) // 32):
        noise = keras.random.normal(batch.shape, seed=generator)
        t = numpy(keras.random.randint((32,), 0, 10, seed=generator))
        kept = alpha_bar[t].reshape(-1, 1, 1, 1)
        x_t = np.sqrt(kept) * batch + np.sqrt(1 - kept) * numpy(noise)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((noise - model.network([x_t, t], training=True)) ** 2)
        gradients = tape.gradient(loss, model.network.trainable_variables)
        optimizer.apply(gradients, model.network.trainable_variables)
        losses.append(float(loss))
    return losses


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the loop by hand uses TensorFlow's tape"
)
def test_fit_does_what_a_loop_by_hand_does():
    """Five steps of fit and five of TensorFlow's tape, with the same draws and weights."""
    model = DiffusionModel(TINY, seed=7)
    weights = model.get_weights()
    images = digits(160)
    losses = train_by_hand(model, images, seed=7)
    by_hand = model.network.get_weights()

    model.set_weights(weights)
    model.compile()
    history = model.fit(images, shuffle=False, verbose=0)
    assert history.history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-4)
    for ours, theirs in zip(model.network.get_weights(), by_hand, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_denoise_is_the_network_in_float32():
    model = DiffusionModel(TINY)
    rng = np.random.default_rng(0)
    model.network.set_weights([rng.normal(size=w.shape) for w in model.network.get_weights()])
    x_t, t = rng.standard_normal((3, 8, 8, 1)).astype("float32"), np.array([0, 5, 9], "int32")
    expected = numpy(model.network([x_t, t], training=False))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(numpy(model.denoise(x_t, t)) / scale, expected / scale, atol=1e-4)


def test_denoise_follows_the_weights_and_is_traced_once_for_all_batch_sizes():
    model = DiffusionModel(TINY)
    x_t = np.ones((2, 8, 8, 1), "float32")
    before = numpy(model.denoise(x_t, np.array([1, 2], "int32")))
    rng = np.random.default_rng(0)
    model.network.set_weights([rng.normal(size=w.shape) for w in model.network.get_weights()])
    after = numpy(model.denoise(x_t, np.array([1, 2], "int32")))
    assert np.abs(after - before).max() > 0.01
    for n in (1, 3, 5):
        model.denoise(np.ones((n, 8, 8, 1), "float32"), np.zeros(n, "int32"))
    if keras.backend.backend() == "tensorflow":
        assert model.denoise._ask.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"learning_rate": 0.01, "warmup_steps": 10},
            {0: 0.0, 5: 0.005, 10: 0.01, 99: 0.01},
        ),
        ({"learning_rate": 0.01, "warmup_steps": 0}, {0: 0.01, 50: 0.01}),
        (
            {"learning_rate": 0.01, "warmup_steps": 10, "decay_steps": 110},
            {0: 0.0, 5: 0.005, 10: 0.01, 35: 0.01 * (1 + np.sqrt(0.5)) / 2, 60: 0.005, 110: 0.0},
        ),
        (
            {"learning_rate": 0.01, "warmup_steps": 0, "decay_steps": 100},
            {0: 0.01, 50: 0.005, 100: 0.0},
        ),
    ],
)
def test_learning_rate(changes, expected):
    schedule = learning_rate_schedule(with_training(**changes).training)
    for step, rate in expected.items():
        value = float(schedule(step)) if callable(schedule) else schedule
        assert value == pytest.approx(rate, abs=1e-8), step


def test_the_optimizer_has_the_published_settings():
    optimizer = make_optimizer(DiffusionParameters.cifar10().training)
    assert optimizer.epsilon == 1e-8
    assert optimizer.global_clipnorm == 1.0
    assert optimizer.use_ema
    assert optimizer.get_config()["ema_momentum"] == 0.9999
    assert not make_optimizer(with_training(ema_momentum=None).training).use_ema


def quickly(model: DiffusionModel, optimizer: object = None) -> None:
    """Compile for a few steps: on TensorFlow, building the graph takes longer than they do."""
    model.compile(optimizer, run_eagerly=keras.backend.backend() == "tensorflow")


def averaged_by_hand(weights, momentum):
    """The average after each step, with the momentum that rises; ``weights`` after each step."""
    average = weights[0]
    for n, latest in enumerate(weights[1:], start=1):
        share = min(momentum, (1 + n) / (10 + n))
        average = [share * a + (1 - share) * w for a, w in zip(average, latest, strict=True)]
    return average


class Interrupted(Exception):
    """Somebody has pressed the stop button."""


class Steps(keras.callbacks.Callback):
    """Keep the weights after each step; after two, interrupt at ``moment``, a callback's name."""

    def __init__(self, moment: str = "") -> None:
        super().__init__()
        self.steps: list[list[np.ndarray]] = []
        self.moment = moment

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.network.get_weights())
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
            after_epoch.append(self.model.network.get_weights())

    record = Record()
    model.fit(digits(32), epochs=epochs, verbose=0, callbacks=[record], **options)
    return record.steps, after_epoch


@pytest.mark.parametrize("momentum", [0.15, 0.9999])
def test_the_average_starts_from_this_run_and_replaces_the_weights_after_fit(momentum):
    """An average that began from another random network (a published mistake) would miss it.

    So would one with a constant momentum of 0.9999: nearly all of it would be the first step.
    """
    model = DiffusionModel(with_training(ema_momentum=momentum), seed=0)
    quickly(model)
    after_step, after_epoch = fit_and_record(model, 4)
    for found in (after_epoch[-1], model.network.get_weights()):
        for ours, expected in zip(found, averaged_by_hand(after_step, momentum), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_short_run_forgets_its_start():
    """After 500 steps with momentum 0.9999, 95 % of a plain average would still be the start."""
    share = np.prod([min(0.9999, (1 + n) / (10 + n)) for n in range(1, 500)])
    assert share < 1e-9
    optimizer = AveragingAdam(use_ema=True, ema_momentum=0.9999)
    weight = keras.Variable(np.ones(1, "float32"))
    optimizer.build([weight])
    optimizer.iterations.assign(500)
    assert float(optimizer.ema_momentum) == pytest.approx(501 / 510)
    optimizer.iterations.assign(10**6)
    assert float(optimizer.ema_momentum) == pytest.approx(0.9999)


def test_training_goes_on_with_its_own_weights_while_others_see_the_average():
    """The same losses, step by step, as a run without any averaging, validation or not."""
    found = {}
    for momentum in (None, 0.9):
        model = DiffusionModel(with_training(ema_momentum=momentum), seed=0)
        rng = np.random.default_rng(4)
        weights = model.network.get_weights()
        model.network.set_weights([0.1 * rng.standard_normal(w.shape) for w in weights])
        quickly(model)
        options = {"verbose": 0, "shuffle": False, "validation_data": (digits(32),)}
        found[momentum] = model.fit(digits(64), epochs=4, **options).history
    np.testing.assert_allclose(found[0.9]["loss"], found[None]["loss"], rtol=1e-6)
    assert not np.allclose(found[0.9]["val_loss"][1:], found[None]["val_loss"][1:], rtol=1e-6)


def test_a_run_that_stops_early_still_ends_with_the_average():
    """Where Keras's own SwapEMAWeights leaves the weights of the last step."""
    model = DiffusionModel(with_training(ema_momentum=0.9), seed=0)
    quickly(model)
    record = Steps()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 2)
    )
    model.fit(digits(32), epochs=9, verbose=0, callbacks=[record, stop])
    assert len(record.steps) == 3
    expected = averaged_by_hand(record.steps, 0.9)
    for ours, by_hand in zip(model.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, by_hand, atol=1e-6)


MOMENTS = ["on_train_batch_end", "on_test_begin", "on_epoch_end"]


def interrupted_at(moment):
    """A model whose ``fit`` was interrupted after two steps, and the weights after each."""
    model = DiffusionModel(with_training(ema_momentum=0.9), seed=0)
    quickly(model)
    record = Steps(moment)
    with pytest.raises(Interrupted):
        model.fit(
            digits(32), epochs=3, verbose=0, callbacks=[record], validation_data=(digits(32),)
        )
    return model, record.steps


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_fit_leaves_the_weights_of_its_last_step(moment):
    if keras.backend.backend() == "jax" and moment == "on_train_batch_end":
        pytest.skip("on JAX, Keras puts the average there at once")
    model, steps = interrupted_at(moment)
    for found, expected in zip(model.network.get_weights(), steps[1], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_fit_can_go_on(moment):
    """On JAX, weights and averages that share their buffers would stop it in its first step."""
    model, _ = interrupted_at(moment)
    assert np.isfinite(model.fit(digits(32), epochs=2, verbose=0).history["loss"]).all()


def test_callbacks_in_a_list_of_keras_s_own_may_be_interrupted_too():
    model = DiffusionModel(with_training(ema_momentum=0.9), seed=0)
    quickly(model)
    callbacks = keras.callbacks.CallbackList([Steps("on_epoch_end")], model=model, epochs=3)
    with pytest.raises(Interrupted):
        model.fit(digits(32), epochs=3, verbose=0, callbacks=callbacks)


def test_weights_set_by_hand_start_a_new_average():
    """Or the average would be, for the most part, that of another network (a published mistake)."""
    model = DiffusionModel(with_training(ema_momentum=0.99, learning_rate=1e-9), seed=0)
    quickly(model)
    model.fit(digits(32), epochs=3, verbose=0)
    model.network.set_weights([np.full_like(w, 0.05) for w in model.network.get_weights()])
    model.fit(digits(32), epochs=1, verbose=0)
    for weight in model.network.get_weights():
        np.testing.assert_allclose(weight, 0.05, atol=1e-6)


def test_going_on_after_a_fit_goes_on_with_the_average():
    model = DiffusionModel(with_training(ema_momentum=0.15), seed=0)
    quickly(model)
    fit_and_record(model, 2)
    between = model.network.get_weights()
    second, _ = fit_and_record(model, 2)
    steps = [[0.15 * a + 0.85 * w for a, w in zip(between, second[0], strict=True)], second[1]]
    expected = [0.15 * a + 0.85 * w for a, w in zip(*steps, strict=True)]
    for found, by_hand in zip(model.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, by_hand, atol=1e-6)


def test_a_backup_holds_the_weights_of_the_training_not_the_average(tmp_path):
    model = DiffusionModel(with_training(ema_momentum=0.9), seed=0)
    quickly(model)
    record = Steps("on_epoch_end")
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(Interrupted):
        model.fit(digits(32), epochs=4, verbose=0, callbacks=[record, backup])
    again = DiffusionModel(with_training(ema_momentum=0.9), seed=0)
    quickly(again)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append((epoch, self.model.network.get_weights()))

    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    again.fit(digits(32), epochs=4, verbose=0, callbacks=[Look(), backup])
    epoch, weights = seen[0]
    assert epoch == 2
    for found, expected in zip(weights, record.steps[1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_the_history_draws_is_drawn_with_the_average():
    model = DiffusionModel(with_training(ema_momentum=0.9), seed=0)
    quickly(model)
    history = SampleHistory(every=1, n=2)
    model.fit(digits(32), epochs=3, verbose=0, callbacks=[history])
    np.testing.assert_array_equal(history.images[3], model.sample(2, seed=0))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="elsewhere float16 does not train on a CPU"
)
def test_half_precision_takes_the_same_steps():
    """The loss is scaled up before the gradients are found, and they are scaled down again."""
    moved = {}
    for policy in ("float32", "mixed_float16"):
        model = DiffusionModel(with_training(precision=policy), seed=0)
        rng = np.random.default_rng(0)
        weights = model.network.get_weights()
        start = [0.2 * rng.standard_normal(w.shape).astype("float32") for w in weights]
        model.network.set_weights(start)
        optimizer = keras.optimizers.SGD(0.1)
        scaling = policy == "mixed_float16"
        model.compile(
            keras.optimizers.LossScaleOptimizer(optimizer, 1024.0) if scaling else optimizer
        )
        model.fit(digits(32), verbose=0)
        after = model.network.get_weights()
        moved[policy] = np.concatenate([np.ravel(b - a) for a, b in zip(start, after, strict=True)])
    size = np.linalg.norm(moved["float32"])
    assert np.linalg.norm(moved["mixed_float16"] - moved["float32"]) < 0.05 * size


# What is logged -----------------------------------------------------------------------------------


def test_learning_rate_and_gradient_norm_stand_in_the_history():
    """The norm against another optimizer's steps, before clipping.

    With plain gradient descent of rate 1 the weights move by exactly the gradient.
    """
    model = DiffusionModel(with_training(warmup_steps=4, gradient_clip=None), seed=0)
    model.network.set_weights([np.full_like(w, 0.02) for w in model.network.get_weights()])
    start = model.network.get_weights()
    quickly(model, keras.optimizers.SGD(1.0))
    model.fit(digits(32), epochs=1, shuffle=False, verbose=0)
    moved = zip(start, model.network.get_weights(), strict=True)
    norm = np.sqrt(sum(np.square(old - new).sum() for old, new in moved))

    again = DiffusionModel(with_training(warmup_steps=4, gradient_clip=1e-4), seed=0)
    again.network.set_weights(start)
    quickly(again)
    history = again.fit(digits(32), epochs=3, shuffle=False, verbose=0).history
    assert history["gradient_norm"][0] == pytest.approx(norm, rel=1e-3)
    assert history["learning_rate"] == pytest.approx([2e-3 * n / 4 for n in (1, 2, 3)], rel=1e-5)


def test_the_norm_is_the_mean_over_the_epoch():
    model = DiffusionModel(TINY, seed=0)
    quickly(model, keras.optimizers.SGD(0.0))
    assert "gradient_norm" not in model.fit(digits(32), verbose=0).history
    quickly(model, AveragingAdam(1e-3))
    totals = []

    class Tally(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            totals.append(numpy(self.model.optimizer.gradient_norms))

    history = model.fit(digits(96), epochs=2, verbose=0, callbacks=[Tally()]).history
    sums = np.array(totals)
    np.testing.assert_array_equal(sums[:, 1], [1, 2, 3, 1, 2, 3])
    for epoch in (0, 1):
        norms = np.diff(sums[3 * epoch : 3 * epoch + 3, 0], prepend=0)
        assert norms.min() > 0
        assert history["gradient_norm"][epoch] == pytest.approx(norms.mean(), rel=1e-6)


def test_the_optimizer_comes_back_from_its_config():
    optimizer = make_optimizer(DiffusionParameters.cifar10().training)
    optimizer.build([keras.Variable(np.ones(2, "float32"))])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is AveragingAdam
    assert again.get_config() == optimizer.get_config()


def test_tensorboard_gets_the_loss_the_learning_rate_and_the_norm(tmp_path):
    pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras writes TensorBoard's files through TensorFlow")
    from tensorflow.compat.v1 import train

    model = DiffusionModel(TINY, seed=0)
    quickly(model)
    model.fit(digits(64), epochs=2, verbose=0, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    events = [e for file in tmp_path.glob("train/*v2") for e in train.summary_iterator(str(file))]
    tags = [value.tag for event in events for value in event.summary.value]
    for tag in ("epoch_loss", "epoch_learning_rate", "epoch_gradient_norm"):
        assert tags.count(tag) == 2, tag


class Batches(keras.utils.PyDataset):
    """Two batches of 16 digits."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (digits(16),)


def test_fit_plans_the_whole_run():
    model = DiffusionModel(with_training(decay_steps=5), seed=0)
    model.compile()
    history = model.fit(digits(64), verbose=0)  # 2 steps an epoch
    assert len(history.history["loss"]) == 3
    assert int(numpy(model.optimizer.iterations)) == 6


@pytest.fixture
def asked(monkeypatch):
    """The options that ``fit`` hands on to Keras, which does nothing here."""
    options: dict[str, object] = {}
    monkeypatch.setattr(keras.Model, "fit", lambda self, x, **given: options.update(x=x, **given))
    return options


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (lambda: ops.convert_to_tensor(digits(64)), {}),
        (lambda: digits(80), {"validation_split": 0.2}),
        (lambda: digits(192), {"steps_per_epoch": 2}),
        (Batches, {}),
    ],
    ids=["tensor", "validation_split", "steps_per_epoch", "data set"],
)
def test_the_plan_counts_the_steps_of_an_epoch(images, options, asked):
    DiffusionModel(with_training(decay_steps=5)).fit(images(), **options)
    assert asked["epochs"] == 3
    assert asked["batch_size"] == (None if images is Batches else 32)


def test_a_run_of_batches_that_nobody_counted_is_not_planned(asked):
    with pytest.raises(ValueError, match="steps_per_epoch"):
        DiffusionModel(with_training(decay_steps=5)).fit(iter([(digits(16),)]))
    assert asked == {}


def test_a_number_that_is_given_is_taken_at_its_word(asked):
    DiffusionModel(TINY).fit(digits(32), epochs=0, batch_size=0)
    assert (asked["epochs"], asked["batch_size"]) == (0, 0)


def test_images_come_all_once_an_epoch_and_in_another_order_each_time(asked):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow gets them otherwise than Keras hands them out")
    images, model = digits(80), DiffusionModel(TINY)
    keras.utils.set_random_seed(0)
    model.fit(images)
    epochs = [list(map(np.array, asked["x"])) for _ in range(2)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [32, 32, 16]
        np.testing.assert_array_equal(
            np.unique(np.concatenate(batches), axis=0), np.unique(images, axis=0)
        )
    assert np.any(np.concatenate(epochs[0]) != np.concatenate(epochs[1]))
    assert np.any(np.concatenate(epochs[0]) != images)
    model.fit(images, shuffle=False)
    np.testing.assert_array_equal(np.concatenate(list(map(np.array, asked["x"]))), images)


@pytest.mark.parametrize("option", ["y", "steps_per_epoch", "sample_weight"])
def test_whoever_asks_for_more_gets_keras_s_own_way(option, asked):
    images, more = digits(64), {option: 2 if option == "steps_per_epoch" else np.ones(64)}
    DiffusionModel(TINY).fit(images, **more)
    assert asked["x"] is images
    assert asked[option] is more[option]


def test_both_ways_train_alike():
    losses = []
    for more in ({}, {"steps_per_epoch": 2}):  # one pass either way
        keras.utils.set_random_seed(0)
        model = DiffusionModel(TINY, seed=0)
        model.compile()
        losses.append(model.fit(digits(64), shuffle=False, verbose=0, **more).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_photographs_are_mirrored_half_of_the_time_in_training_only():
    model = DiffusionModel(with_training(horizontal_flip=True), seed=0)
    model.schedule = NoiseSchedule([1e-8])  # as good as no noise: the network sees the image
    object.__setattr__(model, "network", lambda x, training=None: x[0])
    images = digits(400)

    def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(a - b).max(axis=(1, 2, 3)) < 1e-3

    seen = numpy(model.call(images, training=True)[1])
    as_they_are, mirrored = same(seen, images), same(seen, images[:, :, ::-1])
    assert (as_they_are | mirrored).all()
    assert 0.4 < as_they_are.mean() < 0.6
    assert same(numpy(model.call(images, training=False)[1]), images).all()


def test_images_keep_their_precision_when_the_network_computes_in_16_bits():
    model = DiffusionModel(with_training(precision="mixed_bfloat16"), seed=0)
    shown = []
    images = digits(4) * 0.999
    model.schedule = NoiseSchedule([1e-8])  # as good as no noise: the network sees the image
    model.ask = lambda x_t, t, training: shown.append(x_t) or x_t
    model(images)
    np.testing.assert_allclose(numpy(shown[0]), images, atol=5e-4)


def test_weights_of_the_images_count():
    model = DiffusionModel(TINY)
    noise, guess = np.ones((2, 8, 8, 1), "float32"), np.zeros((2, 8, 8, 1), "float32")
    guess[1] = -1.0  # errors 1 and 4
    asked = (guess, noise, noise, np.zeros(2, "int32"), noise)
    weighted = model.compute_loss(y_pred=asked, sample_weight=np.array([2.0, 0.5]))
    assert float(weighted) == pytest.approx((2 * 1 + 0.5 * 4) / 2)


@pytest.mark.parametrize("option", [{"loss": "mse"}, {"metrics": ["mae"]}])
def test_a_loss_or_metric_that_would_never_be_asked_is_refused(option):
    with pytest.raises(ValueError, match=r"marks its network's answers itself.*loss='kl'"):
        DiffusionModel(TINY).compile(**option)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_images_of_a_wrong_range_or_shape_are_refused(method):
    model = DiffusionModel(TINY)
    model.compile()
    for kind in (np.asarray, ops.convert_to_tensor):
        with pytest.raises(ValueError, match=r"\[-1, 1\]"):
            getattr(model, method)(kind((digits() + 1) * 127.5), verbose=0)
    with pytest.raises(ValueError, match=r"needs \(n, 8, 8, 1\)"):
        getattr(model, method)(np.zeros((4, 28, 28, 1), "float32"), verbose=0)


def test_no_images_cannot_be_drawn():
    for n in (0, 2.0, "3"):
        with pytest.raises(ValueError, match="at least 1"):
            DiffusionModel(TINY).sample(n)


def test_any_sampler_can_be_used():
    def sampler(denoise, schedule, shape, seed):
        return np.full(shape, float(len(schedule) + seed), "float32")

    assert (DiffusionModel(TINY).sample(2, seed=1, sampler=sampler) == 11).all()


def test_a_sampler_gets_the_variance_of_the_model_unless_it_has_its_own():
    told = []

    def sampler(denoise, schedule, shape, seed, variance="neither"):
        told.append(variance)
        return np.zeros(shape, "float32")

    def passing_on(denoise, schedule, shape, prediction, **options):
        assert prediction == "noise"
        return sampler(denoise, schedule, shape, **options)

    model = DiffusionModel(dataclasses.replace(TINY, variance="fixed_large"))
    for each in (sampler, passing_on, functools.partial(passing_on, variance="fixed_small")):
        model.sample(1, sampler=each)
    model.sample(1, sampler=sampler, variance="mine")
    assert told == ["fixed_large", "fixed_large", "fixed_small", "mine"]


def test_keras_data_sets_train_too():
    model = DiffusionModel(TINY, seed=0)
    model.compile()
    assert np.isfinite(model.fit(Batches(), verbose=0).history["loss"][0])


def test_sample_history_draws_before_every_so_many_epochs_and_at_the_end():
    model = DiffusionModel(TINY, seed=0)
    model.compile()
    shown = []
    history = SampleHistory(every=2, n=3, show=lambda epochs, images: shown.append(epochs))
    model.fit(digits(64), epochs=3, verbose=0, callbacks=[history])
    assert list(history.images) == shown == [0, 2, 3]
    assert history.images[3].shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(history.images[3], model.sample(3, seed=0))
    assert np.abs(history.images[0] - history.images[3]).max() > 0
    with pytest.raises(ValueError, match="at least 1"):
        SampleHistory(every=0)


def test_one_bar_for_the_whole_run(capsys):
    model = DiffusionModel(TINY, seed=0)
    model.compile()
    model.fit(digits(64), epochs=3, verbose=0, callbacks=[RunProgress()])
    printed = capsys.readouterr().out
    assert "3/3" in printed
    assert "loss" in printed


def test_the_configuration_rebuilds_the_model():
    model = DiffusionModel(TINY, name="mine")
    again = DiffusionModel.from_config(model.get_config())
    assert again.diffusion_parameters == TINY
    assert again.name == "mine"
    assert again.network.count_params() == model.network.count_params()


def test_the_same_images_give_the_same_loss_and_training_takes_no_notice(trained):
    first = trained.evaluate(digits(64), verbose=0)
    assert trained.evaluate(digits(64), verbose=0) == first
    assert trained.evaluate(digits(128)[64:], verbose=0) != first

    def losses(**options):
        model = DiffusionModel(TINY, seed=5)
        model.set_weights(trained.get_weights())
        model.seed_generator.state.assign([5, 0])
        model.compile()
        return model.fit(digits(64), epochs=2, shuffle=False, verbose=0, **options).history["loss"]

    assert losses(validation_data=(digits(32),)) == losses()
