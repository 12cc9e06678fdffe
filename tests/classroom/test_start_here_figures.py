"""The pictures of chapter 00 show what they say."""

import numpy as np

from diffusion_walkthrough.classroom.figures import start_here
from diffusion_walkthrough.classroom.plots import figure_to_array


def test_the_question_its_answer_and_what_follows_stand_side_by_side():
    pictures = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1))
    figure = start_here.question(*pictures)
    for axis, picture in zip(figure.axes, pictures, strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), picture[..., 0])
    assert [axis.get_title() for axis in figure.axes] == [
        "noisy image", "its noise", "the network's guess", "image without it",
    ]  # fmt: skip


def test_the_journeys_stand_in_rows_under_their_stops():
    journey = np.random.default_rng(0).uniform(-1, 1, (4, 2, 8, 8, 1)).astype("float32")
    figure = start_here.journeys([8, 5, 2, -1], journey)
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        "9 left", "6 left", "3 left", "0 left",
    ]  # fmt: skip
    np.testing.assert_array_equal(figure.axes[6].images[0].get_array(), journey[2, 1, ..., 0])
    assert figure_to_array(figure).std() > 10
