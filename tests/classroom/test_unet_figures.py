"""The pictures of chapter 03 say what the network is, and change with what they show."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import unet as figures
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.exact_denoiser import optimal_denoiser
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.predictions import predict_noise_from_x_start
from diffusion_walkthrough.unet import build_unet

CIFAR10 = DiffusionParameters.cifar10().unet
SCHEDULE = NoiseSchedule(make_betas("linear", timesteps=1000))


def texts(figure) -> list[str]:
    axes = figure.axes[0]
    return [text.get_text() for text in axes.texts if text.get_text()]


def same(one, other) -> bool:
    return np.array_equal(figure_to_array(one), figure_to_array(other))


def test_the_perfect_guesses_are_the_worlds_own():
    figure = figures.perfect_guesses(SCHEDULE, [20, 600])
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["t = 20", "t = 600"]
    for line, t in zip(lines, [20, 600], strict=True):
        x, y = line.get_data()
        expected = ONE_DIMENSIONAL_WORLD.expected_noise(x, SCHEDULE.alphas_cumprod[t])
        np.testing.assert_allclose(y, expected)


def test_the_waves_show_the_distance_from_the_reference():
    embedding = np.random.default_rng(0).uniform(-1, 1, (50, 6))
    figure = figures.waves(embedding, reference=20)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), embedding.T)
    distance = figure.axes[1].lines[0].get_ydata()
    assert distance[20] == 0
    assert distance[3] == pytest.approx(np.linalg.norm(embedding[3] - embedding[20]))


def test_influence_counts_the_pixels_that_change():
    change = np.zeros((6, 6))
    change[2:4, 1:4] = 0.5
    figure = figures.influence([change, np.ones((6, 6))], ["some", "all"])
    assert [axes.get_title() for axes in figure.axes] == ["some\n6 pixels", "all\n36 pixels"]
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(drawn > 0, change > 0)


def test_attention_bars_are_as_high_as_the_weights():
    scaled, unscaled = np.array([0.2, 0.5, 0.3]), np.array([0.01, 0.98, 0.01])
    figure = figures.attention_bars(scaled, unscaled)
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    np.testing.assert_allclose(heights, [scaled, unscaled])
    assert "0.50" in figure.axes[0].get_title()
    assert "0.98" in figure.axes[1].get_title()


def test_bars_of_the_parts_sum_to_the_whole():
    figure = figures.parts(CIFAR10)
    lengths = [bar.get_width() for bar in figure.axes[0].patches]
    assert sum(lengths) * 1e6 == pytest.approx(35_746_307)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "time"
    assert labels[6] == "middle"


def test_the_diagram_names_every_level_and_what_is_handed_across():
    words = texts(figures.diagram(CIFAR10))
    for shape in ["32×32×128", "16×16×256", "8×8×256", "4×4×256"]:
        assert words.count(f"{shape}\n2 blocks") == 1
        assert words.count(f"{shape}\n3 blocks") == 1
    assert words.count("3 results") == 4
    assert "x_t 32×32×3" in words


def test_the_diagram_hatches_the_levels_with_attention():
    def hatched(parameters):
        boxes = figures.diagram(parameters).axes[0].patches
        return sum(patch.get_hatch() == "//" for patch in boxes)

    assert hatched(CIFAR10) == 2 + 1  # a level on both sides, and the middle
    assert hatched(UNetParameters(attention_sizes=())) == 1
    assert hatched(UNetParameters(attention_sizes=(32, 16, 8, 4))) == 8 + 1


def test_the_slider_says_the_published_number():
    _, caption = figures.shape_of_a_unet(128, (1, 2, 2, 2), 2)
    assert "35,746,307 parameters" in caption
    assert "“up 16” with 20%" in caption
    assert "handed across: 12" in caption


def test_the_slider_changes_the_picture_with_each_control_and_repeats_itself():
    first, _ = figures.shape_of_a_unet(64, (1, 2), 2)
    again, _ = figures.shape_of_a_unet(64, (1, 2), 2)
    assert same(first, again)
    for controls in [(32, (1, 2), 2), (64, (1, 4), 2), (64, (1, 2), 3), (64, (1, 2, 2), 2)]:
        changed, _ = figures.shape_of_a_unet(*controls)
        assert not same(first, changed)


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ((4, (1,), 1), "2,947 parameters"),  # 352 + 112 + 380 + 848 + 1,136 + 119, by hand
        ((16, (1, 1, 1, 1, 1, 1), 1), "handed across: 12"),
        ((256, (1, 1, 2, 2, 4), 4), "handed across: 25"),
    ],
)
def test_the_slider_works_at_its_ends(controls, words):
    figure, caption = figures.shape_of_a_unet(*controls)
    assert words in caption
    assert figure_to_array(figure).std() > 0


def test_outlines_stand_under_their_counts_and_are_wide_like_their_levels():
    small = UNetParameters(base_width=64)
    figure = figures.outlines([small, CIFAR10])
    assert figure.axes[1].get_title() == "128 · 1-2-2-2 · 2 blocks\n35,746,307"
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(widths, np.repeat([64, 128, 128, 128], 2))


def test_who_knows_the_photograph_uncovers_it_and_who_says_0_errs_by_the_noise():
    sizes = {"base_width": 16, "width_multipliers": (1,), "attention_sizes": (), "groups": 4}
    fresh = build_unet(UNetParameters(**sizes))  # answers 0
    figure, error = figures.noise_taken_away(fresh, SCHEDULE, t=250)
    assert error == pytest.approx(1, abs=0.05)
    photograph = np.asarray(figure.axes[0].images[0].get_array()) * 2 - 1
    assert photograph.shape == (32, 32, 3)
    knows = optimal_denoiser(np.stack([photograph, -photograph]).astype("float32"), SCHEDULE)

    def network(shown):
        return predict_noise_from_x_start(SCHEDULE, *shown, knows(*shown))

    figure, error = figures.noise_taken_away(network, SCHEDULE, t=250)
    assert error < 1e-6
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    np.testing.assert_allclose(shown[2], shown[0], atol=1e-3)
    assert np.abs(shown[1] - shown[0]).mean() > 0.1
    assert figure.axes[1].get_title() == "noise of t = 250"
