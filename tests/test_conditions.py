"""A model that is told labels: in training, in drawing, in measuring, and at every door."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from pocket import numpy, pocket_model, pocket_network
from tiny import TINY

from diffusion_walkthrough.backward_sampling import ddpm_step, walk
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine.labels import telling
from diffusion_walkthrough.guidance import inpaint
from diffusion_walkthrough.loss import bits_per_dim
from diffusion_walkthrough.training import DiffusionModel

IMAGES, DIGITS = (part[:64] for part in load_images("digits"))


def told_model(labels=(("digit", 10),), prediction="noise", **training) -> DiffusionModel:
    """A pocket network that is told labels; answers differ by label from the start."""
    training = dataclasses.replace(TINY.training, batch_size=16, **training)
    unet = dataclasses.replace(TINY.unet, labels=labels)
    parameters = dataclasses.replace(TINY, unet=unet, training=training, prediction=prediction)
    keras.utils.set_random_seed(0)
    return DiffusionModel(parameters, seed=0, network=pocket_network(parameters))


def test_training_leaves_out_labels_and_measuring_does_not():
    model = told_model(label_dropping=0.5)
    asked = model.questions(IMAGES, DIGITS, batch_size=64)
    first, second = (asked.batch(epoch, 0)[0][2] for epoch in (0, 1))
    assert 10 < np.sum(first == -1) < 54
    assert np.any((first == -1) != (second == -1))
    measured = model.questions(IMAGES, DIGITS, batch_size=64, shuffle=False, always_alike=True)
    np.testing.assert_array_equal(measured.batch(0, 0)[0][2], DIGITS)
    again = told_model(label_dropping=0.5).questions(IMAGES, DIGITS, batch_size=64)
    np.testing.assert_array_equal(again.batch(0, 0)[0][2], first)


def test_labels_of_any_data_set_are_left_out_too():
    model = told_model(label_dropping=0.5)
    batches = [(IMAGES[i : i + 32], DIGITS[i : i + 32]) for i in (0, 32)]
    asked = model._asked(iter(batches), None, None, None, steps_per_epoch=2)
    labels = np.concatenate([asked[i][0][2] for i in range(2)])
    kept = labels >= 0
    assert 10 < kept.sum() < 54
    np.testing.assert_array_equal(labels[kept], DIGITS[kept])


def test_a_network_learns_its_labels_from_arrays_and_from_data_sets():
    """White is 1 and black is 0: told which, the network need not look at the noise."""
    labels = np.arange(64, dtype="int32") % 2
    images = np.broadcast_to(2.0 * labels[:, None, None, None] - 1, (64, 8, 8, 1)).astype("float32")
    for of_batches in (False, True):
        model = told_model((("white", 2),), "x_start", learning_rate=0.05)
        model.compile()
        batches = [(images[i : i + 16], labels[i : i + 16]) for i in range(0, 64, 16)]
        given = (BatchesInTurn(batches),) if of_batches else (images, labels)
        model.fit(*given, epochs=5, verbose=0, validation_data=(images, labels))
        table = numpy(model.network.get_layer("labels").weights[0])
        assert np.abs(table[1] - table[2]).max() > 0.05
        assert model.evaluate(images, labels, verbose=0) < model.evaluate(
            images, 1 - labels, verbose=0
        )


class BatchesInTurn(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]


def test_labels_lead_the_drawing_and_guidance_leads_it_further():
    model = told_model()
    shape = (2, 8, 8, 1)
    drawn = {
        "none": model.sample(2, seed=0),
        "told": model.sample(2, seed=0, labels=3),
        "guided": model.sample(2, seed=0, labels={"digit": 3}, guidance_scale=4),
        "off": model.sample(2, seed=0, labels=[3, 3], guidance_scale=1),
    }
    assert all(images.shape == shape for images in drawn.values())
    np.testing.assert_array_equal(drawn["told"], drawn["off"])
    denoise = dataclasses.replace(model.denoise, network=model.network)  # not compiled
    scales = np.full(2, 4.0, "float32")
    for name, told in {"none": [], "told": [[3, 3]], "guided": [[3, 3], scales]}.items():
        walked = walk(ddpm_step, denoise, model.schedule, shape, seed=0, told=told)
        np.testing.assert_allclose(drawn[name], numpy(walked), atol=1e-4)
    assert np.abs(drawn["told"] - drawn["none"]).max() > 1e-3
    assert np.abs(drawn["guided"] - drawn["told"]).max() > 1e-3


FOUR = np.arange(4)


def walked(model, *told):
    """Four images, of which the network is told so much."""
    return walk(ddpm_step, model.denoise, model.schedule, (4, 8, 8, 1), seed=0, told=told)


def test_what_is_told_of_images_is_told_in_any_form():
    model = told_model()
    expected = numpy(walked(model, np.int32([3, 3, 3, 3]), np.float32([2, 2, 2, 2])))
    for labels, scale in (([3] * 4, [2] * 4), (np.full((4, 1), 3, "uint8"), 2.0)):
        np.testing.assert_array_equal(numpy(walked(model, labels, scale)), expected)
    one, each = (numpy(model.denoise(IMAGES[:4], t, FOUR)) for t in (5, np.full(4, 5)))
    np.testing.assert_array_equal(one, each)


def test_a_denoise_function_that_knows_no_labels_is_told_a_row_for_each_image():
    shape, schedule = (4, 8, 8, 1), told_model().schedule
    for wrong in (np.arange(3), 5):
        with pytest.raises(ValueError, match=r"told\[0\] has shape .* must be \(4, …\), a row for"):
            walk(ddpm_step, lambda x_t, t, told: x_t, schedule, shape, told=[wrong])


def test_images_drawn_some_at_a_time_keep_their_own_labels(monkeypatch):
    model = told_model()
    labels = np.array([0, 5, 9, 2, 7])
    whole = model.sample(5, seed=0, labels=labels, guidance_scale=2)
    model.denoise.network.__dict__["at_once"] = 4  # two images, with guidance
    np.testing.assert_allclose(
        model.sample(5, seed=0, labels=labels, guidance_scale=2), whole, atol=1e-5
    )


def test_bits_are_counted_with_the_labels():
    model = told_model()
    images, labels = IMAGES[:3], DIGITS[:3]
    how = {"seed": 0, "levels": 17}
    known = bits_per_dim(model.denoise, model.schedule, images, labels=labels, **how)
    alone = [
        bits_per_dim(telling(model.denoise, [labels]), model.schedule, images, **how),
        bits_per_dim(model.denoise, model.schedule, images, **how),
    ]
    np.testing.assert_array_equal(known.total, alone[0].total)
    assert np.abs(known.total - alone[1].total).max() > 1e-4
    with pytest.raises(ValueError, match="there are 2 labels of 3 images"):
        bits_per_dim(model.denoise, model.schedule, images, labels=labels[:2], **how)


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda m: m.fit(IMAGES, verbose=0), "labels are missing: this network is told digit"),
        (lambda m: m.evaluate(IMAGES, verbose=0), "labels are missing"),
        (lambda m: m.train_on_batch(IMAGES), "labels are missing"),
        (lambda m: m.fit(BatchesInTurn([IMAGES]), verbose=0), "labels are missing"),
        (lambda m: m.fit(IMAGES, DIGITS, validation_data=(IMAGES,), verbose=0), "are missing"),
        (lambda m: m.fit(IMAGES, DIGITS + 5, verbose=0), r"labels\[0\]=11: digit must be"),
        (lambda m: m.evaluate(IMAGES, DIGITS - 2, verbose=0), "digit must be a whole number"),
        (lambda m: m.test_on_batch(IMAGES, DIGITS / 1), "labels are of type float64"),
        (lambda m: m.fit(IMAGES, DIGITS[:9], verbose=0), r"labels have shape \(9,\)"),
        (lambda m: m.sample(2, labels=10), r"labels\[0\]=10: digit must be"),
        (lambda m: m.sample(2, labels=[1, 2, 3]), "There must be as many as images, 2"),
        (lambda m: m.sample(2, guidance_scale=3), "guidance_scale=3.0: without labels there is"),
        (lambda m: m.sample(2, labels=1, guidance_scale=-1), "guidance_scale must be a finite"),
        (lambda m: m.sample(2, labels=1, guidance_interval=(1, 2)), "there is no guidance, whose"),
        (
            lambda m: m.told(2, 1, 3, guidance_interval=(2, 1)),
            "must be two σ, from 0 on, that rise",
        ),
        (lambda m: m.told(2, 1, 3, guidance_interval=5), "must be two σ, from 0 on, that rise"),
        (lambda m: m.denoise(IMAGES, np.zeros(64, "int32"), DIGITS + 5), "digit must be"),
        (
            lambda m: walked(m, np.full(4, -2)),
            r"labels\[0\]=-2: digit must be a whole number from 0",
        ),
        (lambda m: walked(m, np.full(4, 99)), r"labels\[0\]=99: digit must be"),
        (lambda m: walked(m, np.full(4, 2.7)), r"labels\[0\]=2\.7: labels are of type float64"),
        (lambda m: walked(m, np.arange(3)), "There must be as many as images, 4"),
        (lambda m: walked(m, np.arange(7)), "There must be as many as images, 4"),
        (
            lambda m: walked(m, FOUR, np.ones(3)),
            r"guidance_scale has shape \(3,\), but must be one",
        ),
        (
            lambda m: walked(m, FOUR, np.full(4, np.nan)),
            "guidance_scale=nan: guidance_scale must be",
        ),
        (lambda m: walked(m, FOUR, FOUR + 1.0, np.ones((4, 2))), "must be two σ, from 0 on"),
        (lambda m: walked(m, FOUR, FOUR + 1.0, [(1, 2)] * 4, FOUR), "there are 4 things to tell"),
        (lambda m: m.sample(4, told=[np.full(4, -2)]), r"labels\[0\]=-2: digit must be"),
        (lambda m: m.sample(4, told=[np.arange(7)]), "There must be as many as images, 4"),
        (lambda m: m.denoise.ask(IMAGES[:4], np.arange(3)), r"t has shape \(3,\), .* are 4 images"),
        (lambda m: m.denoise(IMAGES[:4], 2, FOUR, np.ones(3)), r"guidance_scale has shape \(3,\)"),
        (lambda m: m.denoise(IMAGES[:4], 2, FOUR, -1.0), "guidance_scale must be a finite number"),
        (lambda m: inpaint(m.denoise, m.schedule, IMAGES[:4], True, told=[FOUR - 2]), "digit must"),
        (lambda m: m.sample(2, questions=0), "questions must be a whole number of at least 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused_at_every_door(door, message):
    model = told_model()
    model.compile()
    with pytest.raises(ValueError, match=message):
        door(model)


def test_a_network_that_is_told_nothing_says_so():
    model = pocket_model()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    with pytest.warns(UserWarning, match=r"this network is told none.*UNetParameters\(labels"):
        model.evaluate(IMAGES, DIGITS, verbose=0)
    for wrong in ({"labels": 3}, {"guidance_scale": 2.0}):
        with pytest.raises(ValueError, match="this network is told no labels"):
            model.sample(2, **wrong)
    for door in (
        lambda: model.denoise(IMAGES[:2], np.array([2, 2]), [1, 2]),
        lambda: bits_per_dim(model.denoise, model.schedule, IMAGES[:2], labels=[1, 2], levels=17),
        lambda: walk(ddpm_step, model.denoise, model.schedule, (2, 8, 8, 1), told=[[1, 2]]),
    ):
        with pytest.raises(ValueError, match=r"told nothing beside x_t and t.* Leave out what"):
            door()
