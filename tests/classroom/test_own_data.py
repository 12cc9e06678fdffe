"""The data of the reader's choice, and their model or a word about it."""

import numpy as np
import pytest

from diffusion_walkthrough.checkpoints import kept_model, load_model, save_model
from diffusion_walkthrough.classroom import own_data
from diffusion_walkthrough.data import load_images


@pytest.fixture
def npz(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    levels = np.linspace(-1, 1, 120, dtype="float32")
    np.savez("own.npz", images=np.broadcast_to(levels[:, None, None, None], (120, 4, 4, 1)))
    return "own.npz"


def test_the_digits_are_those_of_the_course_and_their_model_draws():
    training, held_out, model = own_data.load("digits")
    np.testing.assert_array_equal(training, load_images("digits")[0])
    np.testing.assert_array_equal(held_out, load_images("digits", split="test")[0])
    assert model.sample(1, seed=0, steps=1).shape == (1, 8, 8, 1)


def test_faces_are_as_many_as_asked_for(capsys):
    training, held_out, model = own_data.load("faces", training=30, held_out=20)
    assert (len(training), len(held_out)) == (30, 20)
    assert model.shape_of(1)[1:] == training.shape[1:]
    assert capsys.readouterr().out == ""


def test_without_a_model_noisy_training_images_stand_in_and_it_is_said(npz, capsys):
    training, held_out, painter = own_data.load(npz)
    assert "There is no model" in capsys.readouterr().out
    assert not set(training[:, 0, 0, 0]) & set(held_out[:, 0, 0, 0])
    drawn = painter.sample(50, seed=1, steps=7)
    np.testing.assert_array_equal(drawn, painter.sample(50, seed=1))
    assert not np.array_equal(drawn, painter.sample(50, seed=2))
    assert drawn.dtype == np.float32
    assert np.abs(drawn).max() <= 1
    off = np.abs(drawn[:, None] - training[None]).mean(axis=(2, 3, 4)).min(axis=1)
    assert 0.01 < off.mean() < 0.15


def test_the_model_that_chapter_05_has_kept_is_found_and_must_fit(npz):
    save_model(load_model("digits"), kept_model(npz))
    with pytest.raises(ValueError, match=r"\(8, 8, 1\), but the images have shape \(4, 4, 1\)"):
        own_data.load(npz)
    np.savez(npz, images=np.zeros((24, 8, 8, 1), "float32"))
    assert own_data.load(npz)[2].sample(1, seed=0, steps=1).shape == (1, 8, 8, 1)
