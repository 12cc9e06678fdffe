"""Training: questions are what they say, fit does what a loop by hand does, and it learns."""

from __future__ import annotations

from itertools import chain

import keras
import numpy as np
import pytest
from keras import ops
from pocket import compiled, digits, numpy, pocket_model, pocket_parameters
from tiny import TINY

from diffusion_walkthrough.engine.optimizer import AveragingAdam
from diffusion_walkthrough.evaluation import nearest_distance
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.training import (
    DiffusionModel,
    Questions,
    learning_rate_schedule,
    make_optimizer,
)

BACKEND = keras.backend.backend()


# Hide: questions ----------------------------------------------------------------------------------


SCHEDULE = NoiseSchedule(np.linspace(0.05, 0.3, 10))

#: Eighty images that say which they are, in every pixel; unlike their mirror images.
NUMBERED = np.linspace(-1, 1, 80, dtype="float32").reshape(80, 1, 1, 1) * np.ones((1, 2, 2, 1), "f")
NUMBERED[:, :, 1] *= 0.5


def questions(batch_size: int = 32, **options: object) -> Questions:
    return Questions(NUMBERED, SCHEDULE, batch_size, **options)


def numbers(asked: Questions, epochs: int = 1) -> list[list[int]]:
    """Which images are asked about, batch by batch."""
    batches = [asked.batch(epoch, i) for epoch in range(epochs) for i in range(len(asked))]
    first_pixels = [done["x_start"][:, 0, 0, 0] for _, done in batches]
    return [np.rint((pixels + 1) / 2 * 79).astype(int).tolist() for pixels in first_pixels]


def assert_same(ours: object, theirs: object) -> None:
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    for mine, other in pairs:
        np.testing.assert_array_equal(mine, other)


def test_a_question_depends_on_the_seed_the_epoch_and_its_number_alone():
    """Asked in any order, by whomever, with what has been drawn before: the same question."""
    one, other = questions(seed=3), questions(seed=3)
    in_order = [one.batch(epoch, i) for epoch in (0, 1) for i in range(3)]
    backwards = [other.batch(epoch, i) for epoch in (1, 0) for i in (2, 1, 0)]
    assert_same(in_order, backwards[::-1])
    noises = [done["noise"][:16] for _, done in [*in_order, questions(seed=4).batch(0, 0)]]
    for i, noise in enumerate(noises):
        assert not any(np.array_equal(noise, other) for other in noises[:i])


def test_the_epoch_goes_on_by_itself_unless_all_are_to_be_alike():
    asked, alike = questions(), questions(always_alike=True)
    first = [asked[0], alike[0]]
    assert_same(first[0], asked.batch(0, 0))
    asked.on_epoch_end()
    alike.on_epoch_end()
    assert_same(asked[0], asked.batch(1, 0))
    assert np.any(asked[0][1]["noise"] != first[0][1]["noise"])
    assert_same(alike[0], first[1])


def test_a_measurement_asks_what_training_does_not():
    asked, alike = questions(shuffle=False), questions(shuffle=False, always_alike=True)
    assert_same(asked[0][1]["x_start"], alike[0][1]["x_start"])
    assert np.all(asked[0][1]["noise"] != alike[0][1]["noise"])


def test_every_epoch_asks_about_each_image_once_in_an_order_of_its_own():
    asked = questions(seed=1)
    epochs = numbers(asked, epochs=2)
    assert [len(batch) for batch in epochs] == 2 * [32, 32, 16]
    orders = [[*chain(*epochs[:3])], [*chain(*epochs[3:])]]
    for order in orders:
        assert sorted(order) == list(range(80))
    assert orders[0] != orders[1]
    assert orders[0] != list(range(80))
    assert [*chain(*numbers(questions(shuffle=False)))] == list(range(80))


def test_epochs_of_fewer_steps_go_on_where_the_last_one_has_ended():
    """Three epochs of two batches are two passes through the images, each in its own order."""
    short = questions(seed=1, steps_per_epoch=2)
    assert len(short) == 2
    assert numbers(short, epochs=3) == numbers(questions(seed=1), epochs=2)
    assert_same(short.batch(1, 0), questions(seed=1).batch(0, 2))


def test_x_t_is_equation_4():
    (x_t, t), done = questions()[0]
    assert (x_t.dtype, t.dtype) == (np.float32, np.int32)
    alpha_bar = np.cumprod(1 - SCHEDULE.betas)[t].reshape(-1, 1, 1, 1)
    x_start, noise = (done[name].astype("float64") for name in ("x_start", "noise"))
    expected = np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise
    np.testing.assert_allclose(x_t, expected, atol=1e-6)


def test_every_step_is_asked_for_as_often_and_the_noise_is_a_standard_normal():
    asked = questions(80)
    batches = [asked.batch(epoch, 0) for epoch in range(250)]
    counts = np.bincount(np.concatenate([t for (_, t), _ in batches]), minlength=10)
    assert counts.shape == (10,)
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
    noise = np.concatenate([done["noise"] for _, done in batches])
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    assert np.abs(np.corrcoef(noise.reshape(len(noise), -1).T) - np.eye(4)).max() < 0.05


def test_photographs_are_mirrored_half_of_the_time():
    asked = questions(80, mirror=True, shuffle=False)
    found = asked[0][1]["x_start"]
    as_they_are = np.all(found == NUMBERED, axis=(1, 2, 3))
    assert np.all(as_they_are | np.all(found == NUMBERED[:, :, ::-1], axis=(1, 2, 3)))
    assert 20 < as_they_are.sum() < 60
    np.testing.assert_array_equal(questions(80, shuffle=False)[0][1]["x_start"], NUMBERED)


def test_labels_and_weights_stay_with_their_images():
    labels, weights = np.arange(80, dtype="int32"), np.linspace(0, 1, 80, dtype="float32")
    asked = questions(labels=labels, weights=weights)
    for i, expected in enumerate(numbers(questions())):
        (x_t, t, told), _, counted = asked[i]
        assert told.tolist() == expected
        assert len(x_t) == len(t) == len(told)
        np.testing.assert_array_equal(counted, weights[expected])
    assert len(questions(weights=weights)[0][0]) == 2


# Ask and mark -------------------------------------------------------------------------------------


def test_the_model_asks_its_network_and_the_mark_is_equation_14():
    """Ask with a network that returns what it was shown, and solve for what it was shown."""
    model = pocket_model()
    seen = []
    model.ask = lambda x_t, t, training: seen.append((x_t, t, training)) or 0.5 * x_t
    shown, done = model.questions(digits(20), batch_size=20)[0]
    answer = model.call(shown, training=True)
    assert seen[0] == (*shown, True)
    loss = float(model.compute_loss(shown, done, answer))
    assert loss == pytest.approx(((done["noise"] - 0.5 * shown[0]) ** 2).mean(), rel=1e-5)


def test_images_keep_their_precision_when_the_network_computes_in_16_bits():
    model = pocket_model(precision="mixed_bfloat16")
    seen = []
    model.ask = lambda x_t, t, training: seen.append(x_t) or x_t
    x_t = digits(4) * np.float32(0.999)
    answer = model((x_t, np.zeros(4, "int32")))
    np.testing.assert_array_equal(numpy(seen[0]), x_t)
    assert keras.backend.standardize_dtype(answer.dtype) == "float32"


def test_weights_of_the_images_count():
    model = pocket_model()
    noise, guess = np.ones((2, 8, 8, 1), "float32"), np.zeros((2, 8, 8, 1), "float32")
    guess[1] = -1.0  # errors 1 and 4
    shown, done = (noise, np.zeros(2, "int32")), {"x_start": noise, "noise": noise}
    weighted = model.compute_loss(shown, done, guess, np.array([2.0, 0.5]))
    assert float(weighted) == pytest.approx((2 * 1 + 0.5 * 4) / 2)


def network_with_labels() -> keras.Model:
    """Answers with the label, in every pixel."""
    x_t, t, label = keras.Input((8, 8, 1)), keras.Input(()), keras.Input((), dtype="int32")
    row = keras.layers.Embedding(3, 1, name="row", embeddings_initializer="zeros")(label)
    one_pixel = keras.layers.Reshape((1, 1, 1))
    answer = one_pixel(row) + 0.0 * x_t + 0.0 * one_pixel(t)
    return keras.Model([x_t, t, label], answer)


def test_labels_reach_a_network_that_has_a_place_for_them():
    model = DiffusionModel(TINY, seed=0, network=network_with_labels())
    model.compile(keras.optimizers.SGD(1.0))
    labels = np.array([0, 1] * 16, "int32")
    model.fit(digits(32), labels, verbose=0)
    moved = np.ravel(model.network.get_weights()[0])
    assert moved[2] == 0
    assert np.abs(moved[:2]).min() > 0
    with pytest.raises(ValueError, match=r"labels have shape \(31,\).*32 images"):
        model.fit(digits(32), labels[:31], verbose=0)


def test_denoise_asks_the_network_and_reads_the_clean_image_off_its_answer():
    model = pocket_model()
    x_t, t = np.random.default_rng(0).standard_normal((3, 8, 8, 1)), np.array([0, 5, 9], "int32")
    x_t = x_t.astype("float32")
    noise = numpy(model.network([x_t, t], training=False))
    np.testing.assert_allclose(numpy(model.denoise.ask(x_t, t)), noise, atol=1e-5)
    alpha_bar = np.cumprod(1 - model.schedule.betas)[t].reshape(-1, 1, 1, 1)
    expected = (x_t - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
    np.testing.assert_allclose(numpy(model.denoise(x_t, t)), expected.clip(-1, 1), atol=1e-4)


def test_denoise_follows_the_weights_and_is_traced_once_for_all_batch_sizes():
    model = pocket_model()
    x_t, t = np.ones((2, 8, 8, 1), "float32"), np.array([1, 2], "int32")
    before = numpy(model.denoise.ask(x_t, t))
    model.network.set_weights([2 * w for w in model.network.get_weights()])
    assert np.abs(numpy(model.denoise.ask(x_t, t)) - before).max() > 0.01
    for n in (1, 3, 5):
        model.denoise(np.ones((n, 8, 8, 1), "float32"), np.zeros(n, "int32"))
    if BACKEND == "tensorflow":
        assert model.denoise.network._ask.experimental_get_tracing_count() == 1


# Nudge: fit ---------------------------------------------------------------------------------------


def gradients_by_hand(network, shown, noise):
    """Loss and gradients of Eq. 14, by each backend's own way of finding them."""
    variables = network.trainable_variables
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((noise - network(shown, training=True)) ** 2)
        gradients = tape.gradient(loss, [v.value for v in variables])
        return loss, [tf.convert_to_tensor(g) for g in gradients]  # the table's is sparse
    if BACKEND == "torch":
        import torch

        loss = ((ops.convert_to_tensor(noise) - network(shown, training=True)) ** 2).mean()
        return loss.detach(), torch.autograd.grad(loss, [v.value for v in variables])
    import jax

    def of_values(values):
        others = [v.value for v in network.non_trainable_variables]
        answer, _ = network.stateless_call(values, others, shown, training=True)
        return ((noise - answer) ** 2).mean()

    return jax.value_and_grad(of_values)([v.value for v in variables])


def test_fit_does_what_a_loop_by_hand_does():
    """Ten steps: Keras's own Adam, and every backend's own gradients, on the same questions."""
    images, training = digits(80), {"batch_size": 16, "warmup_steps": 4, "gradient_clip": 0.3}
    model, start = compiled(**training), pocket_model().network.get_weights()
    network = pocket_model().network
    rate = learning_rate_schedule(pocket_parameters(**training).training)
    optimizer = keras.optimizers.Adam(rate, epsilon=1e-8, global_clipnorm=0.3)
    asked, losses = model.questions(images, batch_size=16), []
    for epoch in range(2):
        for number in range(5):
            (x_t, t), done = asked.batch(epoch, number)
            loss, gradients = gradients_by_hand(network, [x_t, t], done["noise"])
            optimizer.apply(gradients, network.trainable_variables)
            losses.append(float(loss))
    history = model.fit(images, epochs=2, verbose=0).history
    by_epoch = np.reshape(losses, (2, 5)).mean(axis=1)
    np.testing.assert_allclose(history["loss"], by_epoch, rtol=1e-5)
    for ours, by_hand, first in zip(
        model.network.get_weights(), network.get_weights(), start, strict=True
    ):
        assert np.abs(by_hand - first).max() > 1e-3, "every kind of weight has moved"
        np.testing.assert_allclose(ours, by_hand, atol=1e-6)


@pytest.fixture(scope="module")
def trained() -> DiffusionModel:
    """A UNet after one epoch on all training digits."""
    keras.utils.set_random_seed(0)
    model = DiffusionModel(TINY, seed=0)
    model.compile()
    model.first_loss = model.evaluate(digits(1500), verbose=0)
    model.drawn_untrained = model.sample(32, seed=0)
    model.history_of_fit = model.fit(digits(1500), epochs=1, verbose=0)
    return model


def test_the_first_loss_is_that_of_answering_zero(trained):
    """The last convolution starts at (almost) zero, so the loss is the noise's mean square."""
    assert trained.first_loss == pytest.approx(1.0, abs=0.02)


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
    data = digits(1500)
    near = nearest_distance(trained.sample(32, seed=0), data).mean()
    assert near < 0.8 * nearest_distance(trained.drawn_untrained, data).mean()


def test_two_fits_of_one_epoch_ask_what_one_of_two_epochs_asks():
    """And the second epoch asks other questions than the first."""
    still = {"optimizer": keras.optimizers.SGD(0.0)}
    once = compiled(**still).fit(digits(64), epochs=2, verbose=0).history["loss"]
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    twice = [model.fit(digits(64), verbose=0).history["loss"][0] for _ in range(2)]
    np.testing.assert_allclose(twice, once, rtol=1e-5)
    assert abs(once[0] - once[1]) > 1e-4


def test_evaluation_asks_the_same_each_time_and_training_takes_no_notice():
    model = compiled()
    first = model.evaluate(digits(64), verbose=0)
    assert model.evaluate(digits(64), verbose=0) == first
    assert model.evaluate(digits(128)[64:], verbose=0) != first

    def losses(**options):
        model = compiled()
        if options:
            model.evaluate(digits(96), verbose=0)
        return model.fit(digits(64), epochs=2, verbose=0, **options).history["loss"]

    assert losses(validation_data=(digits(32),)) == losses()


# The optimizer ------------------------------------------------------------------------------------


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
    schedule = learning_rate_schedule(pocket_parameters(**changes).training)
    for step, rate in expected.items():
        value = float(schedule(step)) if callable(schedule) else schedule
        assert value == pytest.approx(rate, abs=1e-8), step


def test_the_optimizer_has_the_published_settings():
    optimizer = make_optimizer(DiffusionParameters.cifar10().training)
    assert type(optimizer) is AveragingAdam
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert (optimizer.clip, optimizer.momentum, optimizer.parts) == (1.0, 0.9999, 1)
    assert make_optimizer(pocket_parameters(ema_momentum=None).training).momentum is None


# Draw ---------------------------------------------------------------------------------------------


def test_no_images_cannot_be_drawn():
    for n in (0, 2.0, "3", True):
        with pytest.raises(ValueError, match="at least 1"):
            pocket_model().sample(n)


def test_any_step_can_be_drawn_with_and_is_told_the_variance_of_the_model():
    told = []

    def leap(denoise, schedule, x_t, t, s, z):
        told.append(denoise.variance)
        return ops.zeros_like(x_t) + 0.25, x_t

    drawn = pocket_model(variance="fixed_large").sample(2, seed=1, step=leap, steps=2)
    assert (drawn == 0.25).all()
    assert set(told) == {"fixed_large"}


def test_the_configuration_rebuilds_the_model():
    model = DiffusionModel(TINY, seed=5, name="mine")
    model.epochs_asked = 7
    again = DiffusionModel.from_config(model.get_config())
    assert again.diffusion_parameters == TINY
    assert (again.name, again.seed, again.epochs_asked) == ("mine", 5, 7)
    assert again.network.count_params() == model.network.count_params()
