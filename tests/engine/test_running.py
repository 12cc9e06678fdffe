"""A run of training: planned, fed, checked at every door, and over when it is."""

from __future__ import annotations

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from pocket import compiled, digits, numpy, pocket_model
from scipy.sparse import csr_matrix
from tiny import SMALLEST_UNET, TINY

from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.engine.resuming import ResumeTraining
from diffusion_walkthrough.guidance import InpaintingQuestions, inpaint
from diffusion_walkthrough.loss import bits_per_dim
from diffusion_walkthrough.training import DiffusionModel, Questions

BACKEND = keras.backend.backend()


OVER = r"8 steps \(decay_steps\).*model.compile\(\) begins a new run.*more decay_steps"


def test_what_is_held_out_is_evaluated_as_by_evaluate():
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    expected = model.evaluate(digits(80)[64:], verbose=0)
    for options in ({"validation_data": digits(80)[64:]}, {"validation_data": (digits(80)[64:],)}):
        history = model.fit(digits(64), epochs=2, verbose=0, **options).history
        np.testing.assert_allclose(history["val_loss"], [expected] * 2, rtol=1e-6)
    history = model.fit(digits(80), validation_split=0.2, verbose=0).history
    np.testing.assert_allclose(history["val_loss"], [expected], rtol=1e-6)


def test_single_batches_are_trained_on_and_tested():
    model = compiled()
    before = model.test_on_batch(digits(32))
    assert model.test_on_batch(digits(32)) == pytest.approx(float(before))
    losses = [float(model.train_on_batch(digits(32))) for _ in range(20)]
    assert len(set(losses)) == 20, "each step asks anew"
    assert model.test_on_batch(digits(32)) < before
    assert compiled().test_on_batch(digits(32), sample_weight=np.zeros(32)) == 0


@pytest.mark.parametrize("optimizer", [None, "keras"])
def test_each_part_of_a_step_is_asked_anew_in_another_process_too(optimizer, monkeypatch):
    asked, iterations = [], []
    adam = keras.optimizers.Adam(1e-3, gradient_accumulation_steps=2)
    model = compiled(adam if optimizer else None, gradient_accumulation_steps=2)
    monkeypatch.setattr(Questions, "batch", spied(Questions.batch, asked))
    for _ in range(4):
        model.train_on_batch(digits(8))
        iterations.append(int(numpy(model.optimizer.iterations)))
    assert iterations == [0, 1, 1, 2]
    assert [epoch for epoch, _ in asked] == [0, 1, 2, 3]


def spied(batch, asked):
    """The method ``Questions.batch``, whose places are written down."""

    def spy(self, *place):
        asked.append(place)
        return batch(self, *place)

    return spy


def test_a_rate_of_0_is_told_of():
    model = compiled(keras.optimizers.SGD(0.0))
    with pytest.warns(
        UserWarning, match="the learning rate of this optimizer is 0, so that nothing"
    ):
        model._check_not_over(1)
    model = compiled(keras.optimizers.SGD(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model._check_not_over(1)


@pytest.mark.parametrize("option", [{"loss": "mse"}, {"metrics": ["mae"]}])
def test_a_loss_or_metric_that_would_never_be_asked_is_refused(option):
    with pytest.raises(ValueError, match=r"marks its network's answers itself.*loss='kl'"):
        pocket_model().compile(**option)


@pytest.mark.parametrize("steps", ["auto", 0, 2.0, None])
def test_steps_at_once_that_cannot_be_are_refused(steps):
    with pytest.raises((TypeError, ValueError), match=f"^steps_per_execution={steps!r}: .* whole"):
        pocket_model().compile(steps_per_execution=steps)


def test_fit_plans_the_whole_run():
    model = compiled(decay_steps=5)
    history = model.fit(digits(64), verbose=0)  # 2 steps an epoch
    assert len(history.history["loss"]) == 3
    assert int(numpy(model.optimizer.iterations)) == 6


class Batches(keras.utils.PyDataset):
    """Two batches of 16 digits."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (digits(16),)


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
    pocket_model(decay_steps=5).fit(images(), **options)
    assert asked["epochs"] == 3


def test_no_epochs_are_none_and_change_nothing():
    model = compiled(ema_momentum=0.9)
    before = model.network.get_weights()
    assert model.fit(digits(32), epochs=0, verbose=0).history == {}
    for found, expected in zip(model.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch_size", [0, -2, 2.5, True, "32"])
def test_a_batch_has_a_whole_number_of_images(batch_size):
    model = compiled()
    for method in ("fit", "evaluate"):
        with pytest.raises((TypeError, ValueError), match=f"^batch_size={batch_size!r}.*at least"):
            getattr(model, method)(digits(32), batch_size=batch_size, verbose=0)


def test_a_run_that_is_over_says_so():
    model = compiled(decay_steps=8, warmup_steps=1)
    model.fit(digits(128), verbose=0)
    with pytest.raises(ValueError, match=OVER):
        model.fit(digits(128), verbose=0)
    with pytest.raises(ValueError, match=OVER):
        model.fit(Batches(), epochs=1, verbose=0)
    model.compile()
    assert len(model.fit(digits(128), verbose=0).history["loss"]) == 2


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_saved_run_goes_on_training_and_is_over_when_it_is(precision, tmp_path):
    """Weights, moments, average, loss scale, the place in the run and its questions come back."""
    if precision == "mixed_float16" and keras.backend.backend() == "torch":
        pytest.skip("PyTorch's convolutions take no float16 on a CPU")
    training = {"decay_steps": 6, "warmup_steps": 1, "ema_momentum": 0.5, "precision": precision}
    parameters = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **training))
    model = DiffusionModel(parameters, seed=0)
    model.compile(run_eagerly=True)
    model.fit(digits(96), epochs=1, verbose=0)
    again = load_model(save_model(model, tmp_path / "model.keras"))
    again.run_eagerly = True
    for ours, theirs in zip(state(again), state(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    losses = [one.fit(digits(96), epochs=1, verbose=0).history["loss"] for one in (model, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with pytest.raises(ValueError, match=r"6 steps \(decay_steps\)"):
        again.fit(digits(96), verbose=0)


def state(model) -> list:
    return [numpy(variable) for variable in (*model.network.weights, *model.optimizer.variables)]


def test_a_kept_run_that_is_over_gives_its_history(tmp_path):
    """The same lines may be run again: nothing is trained, and nothing refused."""
    histories = []
    for _ in range(2):
        model = compiled(decay_steps=8, warmup_steps=1)
        found = model.fit(digits(128), verbose=0, callbacks=[ResumeTraining(tmp_path / "run")])
        histories.append(found.history)
    assert histories[0] == histories[1]


def test_a_batch_that_cannot_be_parted_is_refused():
    model = compiled(batch_size=16, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        model.fit(digits(32), batch_size=15, verbose=0)


def test_a_run_is_planned_in_whole_steps():
    model = compiled(batch_size=16, gradient_accumulation_steps=2, decay_steps=6, warmup_steps=1)
    assert len(model.fit(digits(32), verbose=0).history["loss"]) == 3
    assert int(numpy(model.optimizer.iterations)) == 6


def batches_of(images: np.ndarray):
    class Given(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (images,)

    return Given()


DOORS = {
    "fit": lambda model, images: model.fit(images, verbose=0),
    "fit, tensor": lambda model, images: model.fit(ops.convert_to_tensor(images), verbose=0),
    "fit, data set": lambda model, images: model.fit(batches_of(images), verbose=0),
    "evaluate": lambda model, images: model.evaluate(images, verbose=0),
    "evaluate, data set": lambda model, images: model.evaluate(batches_of(images), verbose=0),
    "validation": lambda model, images: model.fit(digits(), validation_data=images, verbose=0),
    "validation, data set": lambda model, images: model.fit(
        digits(), validation_data=batches_of(images), verbose=0
    ),
    "train_on_batch": lambda model, images: model.train_on_batch(images),
    "test_on_batch": lambda model, images: model.test_on_batch(images),
}


@pytest.fixture(scope="module")
def at_the_door():
    return compiled()


@pytest.mark.parametrize("door", DOORS)
def test_images_of_a_wrong_range_or_shape_are_refused_at_every_door(door, at_the_door):
    from_0_to_255 = (digits(32) + 1) * 127.5
    for images in (from_0_to_255, from_0_to_255.astype("uint8")):
        with pytest.raises(ValueError, match=r"0 to 255, but must lie in \[-1, 1\]"):
            DOORS[door](at_the_door, images)
    with pytest.raises(ValueError, match=r"needs \(n, 8, 8, 1\)"):
        DOORS[door](at_the_door, np.zeros((4, 28, 28, 1), "float32"))


def test_a_later_batch_of_a_data_set_is_refused_in_the_same_words():
    """TensorFlow would wrap them into an error of its own."""
    images = digits(96).copy()
    images[70] = 7.0

    class Given(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return (images[32 * index : 32 * (index + 1)],)

    model = compiled()
    for run in (
        lambda: model.fit(Given(), verbose=0),
        lambda: model.evaluate(Given(), verbose=0),
        lambda: model.fit(digits(32), validation_data=Given(), verbose=0),
    ):
        with pytest.raises(ValueError, match=r"to 7, but must lie in \[-1, 1\]"):
            run()
        assert all(np.isfinite(w).all() for w in model.network.get_weights())


def test_weights_count_without_labels_too():
    """Keras drops them where y is None: 1.0, 1.0 and 0.0 it would be."""
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    images, nothing = digits(64), np.zeros(64)
    plain = model.evaluate(images, verbose=0)
    assert plain > 1
    assert model.evaluate(images, sample_weight=nothing, verbose=0) == 0
    assert model.evaluate(images, nothing, sample_weight=nothing, verbose=0) == 0
    assert model.evaluate(images, sample_weight=nothing + 2, verbose=0) == pytest.approx(2 * plain)
    for labels in (None, nothing):
        history = model.fit(images, labels, sample_weight=nothing, verbose=0).history
        assert history["loss"] == [0]
    held_out = (images, None, nothing)
    assert model.fit(images, validation_data=held_out, verbose=0).history["val_loss"] == [0]


def test_classes_count_as_much_as_they_are_told_to():
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    images, labels = digits(64), np.arange(64) % 2
    history = model.fit(images, labels, class_weight={0: 0.0, 1: 0.0}, verbose=0).history
    assert history["loss"] == [0]
    alone = compiled(optimizer=keras.optimizers.SGD(0.0))
    weights = {"sample_weight": np.full(64, 0.5), "class_weight": {1: 0.0}}
    found = model.fit(images, labels, verbose=0, **weights).history["loss"]
    alone.epochs_asked = 1
    expected = alone.fit(images, sample_weight=0.5 * (labels == 0), verbose=0).history["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for split in (0.0, 0.5):
        with pytest.raises(ValueError, match="labels are a dictionary with 'digit'"):
            model.fit(images, {"digit": labels}, validation_split=split, verbose=0)
    with pytest.raises(ValueError, match=r"class_weight needs.*labels as y"):
        model.fit(images, class_weight={0: 1.0}, verbose=0)


def test_classes_are_told_of_what_is_trained_on_alone(at_the_door):
    labels, classes = np.arange(32) % 2, {1: 2.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        at_the_door.fit(digits(32), labels, class_weight=classes, validation_split=0.5, verbose=0)


def test_a_weight_below_0_is_refused(at_the_door):
    with pytest.raises(ValueError, match=r"below 0.*0 for one that does not count"):
        at_the_door.fit(digits(32), sample_weight=np.linspace(-1, 1, 32), verbose=0)


def test_a_weight_that_is_no_number_is_refused_everywhere(at_the_door):
    for door in ("fit", "evaluate"):
        with pytest.raises(ValueError, match="a sample_weight is NaN, infinite or below 0"):
            getattr(at_the_door, door)(digits(64), sample_weight=np.full(64, np.nan), verbose=0)
    with pytest.raises(ValueError, match="a sample_weight is NaN, infinite or below 0"):
        at_the_door.train_on_batch(digits(2), sample_weight=[1, np.inf])


def test_weights_of_what_is_split_off_count_as_well():
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    weights = np.array([1.0] * 48 + [0.0] * 16)
    history = model.fit(digits(), sample_weight=weights, validation_split=0.25, verbose=0).history
    assert history["loss"][0] > 0.5
    assert history["val_loss"] == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": np.zeros(32)}, r"y cannot be passed beside a Given: let it yield tuples \(images"),
        ({"sample_weight": np.zeros(32)}, "sample_weight cannot be passed beside a Given"),
        ({"class_weight": {0: 1.0}}, "class_weight cannot be passed beside a Given"),
        ({"batch_size": 8}, "batch_size cannot be passed beside a Given: it makes its own"),
        ({"validation_split": 0.5}, "validation_split cannot be passed beside a Given"),
    ],
    ids=str,
)
def test_what_a_data_set_would_not_look_at_is_refused(options, message, at_the_door):
    with pytest.raises(ValueError, match=message):
        at_the_door.fit(batches_of(digits(32)), verbose=0, **options)


def test_questions_are_taken_as_they_are():
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    asked = model.questions(digits(), batch_size=32)
    history = model.fit(asked, verbose=0).history
    model.epochs_asked = 0
    np.testing.assert_allclose(history["loss"], model.fit(digits(), verbose=0).history["loss"])


@pytest.mark.parametrize(
    "options",
    [
        {"y": np.zeros(32)},
        {"sample_weight": np.ones(32)},
        {"batch_size": 8},
        {"shuffle": False},
        {"steps_per_epoch": 1},
        {"class_weight": {0: 1.0}},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("kind", [lambda asked: asked, InpaintingQuestions], ids=["", "inpainting"])
def test_what_questions_say_themselves_is_refused_beside_them(kind, options, at_the_door):
    asked = kind(at_the_door.questions(digits(32), batch_size=16))
    ((name, _),) = options.items()
    message = rf"^{name} cannot be passed beside {type(asked).__name__}.*model\.questions\(images, "
    with pytest.raises(ValueError, match=message):
        at_the_door.fit(asked, verbose=0, **options)
    if name in ("y", "sample_weight", "batch_size"):
        with pytest.raises(ValueError, match=message):
            at_the_door.evaluate(asked, verbose=0, **options)
    if name == "batch_size":
        with pytest.raises(ValueError, match=message):
            at_the_door.fit(digits(32), validation_data=asked, validation_batch_size=8, verbose=0)


def test_some_steps_of_questions_may_be_measured(at_the_door):
    asked = at_the_door.questions(digits(32), batch_size=16, shuffle=False, always_alike=True)
    assert at_the_door.evaluate(asked, steps=1, verbose=0) != at_the_door.evaluate(asked, verbose=0)
    measured = {"validation_data": asked, "validation_steps": 1, "verbose": 0}
    still = compiled(optimizer=keras.optimizers.SGD(0.0))
    expected = still.evaluate(asked, steps=1, verbose=0)
    with pytest.warns(UserWarning, match="the learning rate of this optimizer is 0"):
        found = still.fit(digits(32), **measured).history["val_loss"]
    assert found == [pytest.approx(expected)]


def test_questions_of_another_shape_are_refused(at_the_door):
    unet = dataclasses.replace(TINY.unet, image_size=4)
    other = DiffusionModel(dataclasses.replace(TINY, unet=unet), seed=0)
    asked = other.questions(digits(32)[:, :4, :4], batch_size=16)
    for door in (at_the_door.fit, at_the_door.evaluate):
        with pytest.raises(ValueError, match=r"\(4, 4, 1\), and the network takes \(8, 8, 1\)"):
            door(asked, verbose=0)


def test_what_is_shown_of_a_run_may_come_fifth_as_in_keras(at_the_door, capsys):
    at_the_door.fit(digits(32), None, 16, 1, 0)
    at_the_door.evaluate(digits(32), None, 16, 0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "x=None: images must be an array"),
        ("digits", r"Load them first: load_images\('digits'\)\[0\]"),
        ({"image": np.zeros(3)}, "images must be an array"),
        ((np.zeros((4, 8, 8, 1)), np.zeros(4)), "a pair, as load_images returns"),
        ((np.zeros((4, 8, 8, 1)), np.zeros((4, 2))), "a pair, as load_images returns"),
        (csr_matrix(np.eye(4)), r"is sparse.*pass x\.toarray\(\)"),
        (np.zeros((4, 8, 8)), r"pass images\[\.\.\., None\]"),
        (3, r"this model needs \(n, 8, 8, 1\)"),
    ],
    ids=[
        *("nothing", "a name", "a dictionary", "a pair", "two labels", "sparse", "no channels"),
        "a number",
    ],
)
def test_what_is_no_set_of_images_is_refused_in_words(x, message, at_the_door):
    with pytest.raises(ValueError, match=message):
        at_the_door.fit(x, verbose=0)
    for door in ("train_on_batch", "test_on_batch", "evaluate"):
        with pytest.raises(ValueError, match=message):
            getattr(at_the_door, door)(x)
    with pytest.raises(ValueError, match=message):
        at_the_door.fit(digits(32), validation_data=[x], verbose=0)


def test_images_come_as_numbers_in_lists_too(at_the_door):
    expected = at_the_door.evaluate(digits(32), verbose=0)
    for images in (list(digits(32)), digits(32).tolist(), ops.convert_to_tensor(digits(32))):
        assert at_the_door.evaluate(images, verbose=0) == pytest.approx(expected)


def test_the_size_of_batches_changes_no_measurement(at_the_door):
    """The images in memory have the questions that they always have."""
    images, weights = digits(80), np.linspace(0, 2, 80)
    expected = at_the_door.evaluate(images, sample_weight=weights, verbose=0)
    for size in (1, 7, 40, 80, 200):
        how = {"batch_size": size, "sample_weight": weights, "verbose": 0}
        assert at_the_door.evaluate(images, **how) == pytest.approx(expected, rel=1e-5)
    assert at_the_door.evaluate(images, batch_size=16, steps=2, verbose=0) == pytest.approx(
        at_the_door.evaluate(images[:32], verbose=0)
    )


def test_epochs_that_would_change_nothing_are_told_beforehand():
    model = compiled(decay_steps=5)
    with pytest.warns(UserWarning, match=r"5 steps \(decay_steps\).* last 2 of 5 epochs would"):
        model.fit(digits(64), epochs=5, verbose=0)  # 2 steps an epoch
    with pytest.raises(ValueError, match=r"5 steps \(decay_steps\)"):
        model.train_on_batch(digits(2))


def falls_to_0(steps):
    return keras.optimizers.schedules.PolynomialDecay(1e-3, steps, 0.0)


def test_a_schedule_of_one_s_own_that_has_fallen_to_0_is_told():
    model = compiled(keras.optimizers.Adam(falls_to_0(4)))
    model.fit(digits(64), epochs=3, verbose=0)  # of 2 steps; the last changes nothing
    with pytest.raises(ValueError, match=r"is 0 from step 6 on.*a new optimizer"):
        model.fit(digits(64), verbose=0)
    with pytest.raises(ValueError, match="is 0 from step 6 on"):
        model.train_on_batch(digits(32))
    rises = keras.optimizers.schedules.CosineDecay(0.0, 9, warmup_target=1e-3, warmup_steps=2)
    compiled(keras.optimizers.Adam(rises)).train_on_batch(digits(32))


@pytest.mark.parametrize("ask", ["fit", "train_on_batch", "evaluate"])
def test_a_model_that_is_not_compiled_says_so(ask):
    with pytest.raises(ValueError, match=r"compile"):
        getattr(pocket_model(), ask)(digits(32))


def test_a_run_is_kept_in_one_folder(at_the_door, tmp_path):
    both = [ResumeTraining(tmp_path / "a"), ResumeTraining(tmp_path / "b")]
    with pytest.raises(ValueError, match="a run is kept in one folder"):
        at_the_door.fit(digits(32), callbacks=both, verbose=0)


def test_a_share_that_leaves_nothing_to_train_on_is_told(at_the_door):
    with pytest.raises(ValueError, match=r"validation_split=0.99: it leaves none of the 32 images"):
        at_the_door.fit(digits(32), validation_split=0.99, verbose=0)


@pytest.mark.parametrize("door", ["train_on_batch", "test_on_batch"])
def test_a_data_set_is_no_single_batch(door, at_the_door):
    with pytest.raises(ValueError, match=r"one array here.*Pass one of its batches"):
        getattr(at_the_door, door)(Batches())


def test_the_network_is_what_is_exported(at_the_door):
    with pytest.raises(TypeError, match=r"model\.network\.export\(…\)"):
        at_the_door.export("folder")


@pytest.mark.parametrize("ask", ["predict", "predict_on_batch", "__call__"])
def test_clean_images_are_not_predicted_about(ask):
    with pytest.raises(TypeError, match=r"model\.sample\(16\).*model\.denoise\(x_t, t\)"):
        getattr(pocket_model(), ask)(digits(4))


def test_a_network_that_is_not_to_be_trained_is_told():
    model = pocket_model()
    model.network.trainable = False
    model.compile()
    with pytest.raises(ValueError, match=r"no weight .*network\.trainable = True"):
        model.fit(digits(32), verbose=0)


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.5, "1"])
def test_a_seed_that_cannot_be_is_refused(seed, at_the_door):
    message = "seed must be a whole number of at"
    with pytest.raises((TypeError, ValueError), match=message):
        DiffusionModel(TINY, seed=seed, network=at_the_door.network)
    with pytest.raises((TypeError, ValueError), match=message):
        at_the_door.sample(1, seed=seed)
    with pytest.raises((TypeError, ValueError), match=message):
        at_the_door.questions(digits(2), batch_size=2, seed=seed)


def test_a_seed_of_numpy_is_kept_as_a_plain_number(at_the_door):
    model = DiffusionModel(TINY, seed=np.int64(3), network=at_the_door.network)
    assert type(model.seed) is int


def test_parameters_of_a_part_are_no_parameters_of_a_model():
    with pytest.raises(TypeError, match=r"it must be DiffusionParameters\. Use"):
        DiffusionModel(TINY.unet)


def test_keras_s_default_float_changes_nothing():
    """Whoever sets it to float64 before, in between or after."""

    def results():
        model = compiled(ema_momentum=0.5, decay_steps=8, warmup_steps=1)
        history = model.fit(digits(64), epochs=1, validation_data=digits(32), verbose=0).history
        loss = [*history["loss"], *history["val_loss"], float(model.train_on_batch(digits(8)))]
        return [*loss, float(model.test_on_batch(digits(8))), model.sample(2, seed=0)]

    expected, before = results(), keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        found = results()
        assert keras.config.floatx() == "float64"
    finally:
        keras.config.set_floatx(before)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert found[-1].dtype == np.float32


@pytest.mark.parametrize("floatx", ["float64", "float16"])
def test_a_real_unet_draws_whatever_keras_s_default_float(floatx):
    unet = dataclasses.replace(SMALLEST_UNET, labels=(("digit", 10),))
    model = DiffusionModel(dataclasses.replace(TINY, unet=unet), seed=0)
    images = np.linspace(-1, 1, 32, dtype="float32").reshape(2, 4, 4, 1)

    def results():
        steps, known = {"steps": 3, "seed": 0}, images > 0.5
        drawn = model.sample(2, labels=3, guidance_scale=2.0, **steps)
        answer = model.network([images, np.array([2, 5]), np.array([0, 1])])
        levels = np.round(images * 8) / 8
        bits = bits_per_dim(model.denoise, model.schedule, levels, levels=17, seed=0)[0]
        whole = inpaint(model.denoise, model.schedule, images, known, **steps)
        return [drawn, numpy(answer), bits, numpy(whole)]

    expected, before = results(), keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        found = results()
    finally:
        keras.config.set_floatx(before)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_without_a_seed_the_questions_follow_keras_s():
    network, seeds = pocket_model().network, []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seeds.append(DiffusionModel(TINY, network=network).seed)
    assert seeds[0] == seeds[1] != seeds[2]
