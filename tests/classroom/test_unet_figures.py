"""The pictures of chapter 03 say what the network is, and change with what they show."""

from __future__ import annotations

import re
import time

import keras
import numpy as np
import pytest

from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom.figures import unet as figures
from diffusion_walkthrough.exact_denoiser import optimal_denoiser
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.predictions import predict_noise_from_x_start
from diffusion_walkthrough.unet import build_unet

CIFAR10 = DiffusionParameters.cifar10().unet
DIGITS = DiffusionParameters.digits().unet
SCHEDULE = NoiseSchedule(make_betas("linear", timesteps=1000))


def texts(figure) -> list[str]:
    axes = figure.axes[0]
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_the_perfect_guesses_are_the_worlds_own():
    figure = figures.perfect_guesses(SCHEDULE, [20, 600])
    assert texts(figure) == ["t = 20", "t = 600"]
    for line, t in zip(figure.axes[0].lines[:2], [20, 600], strict=True):
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


def test_the_diagram_names_every_result_that_is_handed_across():
    words = texts(figures.diagram(CIFAR10))
    for shape, kept in [("32×32×128", 2), ("8×8×256", 2), ("4×4×256", 2)]:
        assert words.count(f"block · {shape}") == kept + 3  # on the way down, and up
    assert words.count("block, attention · 16×16×256") == 2 + 3
    assert words.count("first · 32×32×128") == 1
    assert [w for w in words if w.startswith("halved")] == [
        "halved · 16×16×128",
        "halved · 8×8×256",
        "halved · 4×4×256",
    ]
    assert words.count("doubled") == 3
    assert "x_t 32×32×3" in words


def test_the_diagram_draws_no_level_below_the_last_one():
    words = texts(figures.diagram(DIGITS))
    assert [w for w in words if w.startswith("side")] == ["side 8", "side 4"]
    assert "middle: block, attention, block · 4×4×48" in words


def test_the_diagram_hatches_what_has_attention():
    def hatched(parameters):
        boxes = figures.diagram(parameters).axes[0].patches
        return sum(patch.get_hatch() == "//" for patch in boxes)

    assert hatched(CIFAR10) == 2 + 3 + 1  # blocks down, blocks up, and the middle
    assert hatched(UNetParameters(attention_sizes=())) == 1
    assert hatched(UNetParameters(attention_sizes=(32, 16, 8, 4))) == 4 * (2 + 3) + 1


@pytest.mark.parametrize("parameters", [DIGITS, CIFAR10, UNetParameters(attention_sizes=())])
def test_rows_name_what_build_unet_builds(parameters):
    rows = figures._rows(parameters)
    assert [row.width for row in rows] == list(widths_that_are_kept(parameters))
    assert rows[0].name == "first"
    assert rows[-1].up_name.endswith("-0")


def widths_that_are_kept(parameters):
    """The channels of the results that `build_unet` keeps, told in another way than in `_rows`."""
    yield parameters.base_width
    for level, width in enumerate(parameters.level_widths):
        if level:
            yield parameters.level_widths[level - 1]  # halving changes no channels
        yield from [width] * parameters.residual_blocks


def test_results_are_those_of_the_network_itself():
    network = build_unet(DIGITS)
    rng = np.random.default_rng(0)
    network.set_weights([0.3 * rng.standard_normal(w.shape) for w in network.get_weights()])
    x_t = rng.standard_normal((8, 8, 1)).astype("float32")
    names = ["first", "down-0-residual-0", "down-1-attention-0", "up-0-residual-1"]
    results = figures.results_of(network, names, x_t, t=7)
    assert [results[name].shape[-1] for name in names] == [16, 16, 48, 16]
    whole = keras.ops.convert_to_numpy(network([x_t[None], np.array([7.0])]))[0]

    last = keras.Input((8, 8, 16))
    h = keras.ops.silu(network.get_layer("last-norm")(last))
    rest = keras.Model(last, network.get_layer("last-conv")(h))
    ended = keras.ops.convert_to_numpy(rest(results["up-0-residual-1"][None]))[0]
    np.testing.assert_allclose(ended, whole, atol=1e-4)

    halve = keras.ops.convert_to_numpy(
        network.get_layer("down-0-downsample")(results["down-0-residual-0"][None])
    )[0]
    halved = figures.results_of(network, ["down-0-downsample"], x_t, t=7)["down-0-downsample"]
    np.testing.assert_allclose(halve, halved, atol=1e-4)


def test_the_3_travels_through_every_result_to_the_answer():
    network = load_model("digits").network
    rng = np.random.default_rng(0)
    x_t, noise = rng.standard_normal((2, 8, 8, 1)).astype("float32")
    figure = figures.travel(network, DIGITS, x_t, 20, noise, maps=4)
    words = texts(figure)
    for part in ["first · 8×8×16", "down-0-downsample · 4×4×16", "up-1-attention-0 · 4×4×48"]:
        assert part in words
    pictures = figure.axes[0].images
    assert len(pictures) == 9 * 4 + 3
    answer = keras.ops.convert_to_numpy(network([x_t[None], np.array([20.0])]))[0, ..., 0]
    np.testing.assert_allclose(pictures[-1].get_array(), answer / 2, atol=1e-4)
    np.testing.assert_allclose(pictures[-2].get_array(), noise[..., 0] / 2, atol=1e-6)


def test_the_residual_block_has_its_parts_in_order():
    words = texts(figures.residual_diagram())
    parts = [w for w in words if w in ("normalize", "bend", "convolve", "+")]
    assert parts == ["normalize", "bend", "convolve", "+"] * 2
    x, y = figures.residual_diagram().axes[1].lines[0].get_data()
    np.testing.assert_allclose(y, keras.ops.convert_to_numpy(keras.ops.silu(x)), atol=1e-5)


WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(16), size=16)
IMAGE = np.random.default_rng(1).uniform(-1, 1, (8, 8, 1))


def test_looks_show_the_row_of_the_chosen_pixel():
    figure = figures.looks(IMAGE, WEIGHTS, [(0, 1), (2, 3)])
    below = figure.axes[2:]
    for axes, i in zip(below, [1, 11], strict=True):
        np.testing.assert_allclose(np.ravel(axes.images[0].get_array()), WEIGHTS[i])
        assert axes.texts[0].get_text() == f"{100 * WEIGHTS[i, 0]:.0f}"
    frame = figure.axes[1].patches[0]
    assert (frame.get_x(), frame.get_y(), frame.get_width()) == (5.5, 3.5, 2)


def test_the_explorer_of_attention_says_where_most_goes():
    weights = np.full((16, 16), 0.01)
    weights[6, 13] = 0.85
    weights[7, 7] = 0.85
    page, caption = figures.where_it_looks(IMAGE, weights, row=1, column=2)
    assert "Pixel (1, 2) gives pixel (3, 1) the largest share of its look, 85%" in caption
    assert "each would get 6%" in caption
    assert page.count("<img alt=") == 2
    assert "itself" in figures.where_it_looks(IMAGE, weights, row=1, column=3)[1]


def test_the_explorer_of_attention_changes_with_each_control_and_follows_the_hand():
    pages = {figures.where_it_looks(IMAGE, WEIGHTS, r, c)[0] for r in range(4) for c in range(4)}
    assert len(pages) == 16
    assert quickest(lambda: figures.where_it_looks(IMAGE, WEIGHTS, 1, 2)) < 0.03


def quickest(draw) -> float:
    """The shortest of a few times in seconds: what a shared machine cannot make longer."""
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        draw()
        times.append(time.perf_counter() - begin)
    return min(times)


def test_the_explorer_of_sizes_says_the_published_number():
    page, caption = figures.shape_of_a_unet(128, (1, 2, 2, 2), 2)
    assert "35,746,307 parameters" in caption
    assert "“up 16” with 20%" in caption
    assert "handed across: 12" in caption
    assert page.count("<rect") == 4 * (2 + 3) + 2
    assert "32×32×128" in page
    assert "aria-label=" in page


def test_the_explorer_of_sizes_changes_with_each_control_and_follows_the_hand():
    first, _ = figures.shape_of_a_unet(64, (1, 2), 2)
    assert figures.shape_of_a_unet(64, (1, 2), 2)[0] == first
    for controls in [(32, (1, 2), 2), (64, (1, 4), 2), (64, (1, 2), 3), (64, (1, 2, 2), 2)]:
        assert figures.shape_of_a_unet(*controls)[0] != first
    assert quickest(lambda: figures.shape_of_a_unet(256, (1, 1, 2, 2, 4), 4)) < 0.03


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ((4, (1,), 1), "2,947 parameters"),  # 352 + 112 + 380 + 848 + 1,136 + 119, by hand
        ((16, (1, 1, 1, 1, 1, 1), 1), "handed across: 12"),
        ((256, (1, 1, 2, 2, 4), 4), "handed across: 25"),
    ],
)
def test_the_explorer_of_sizes_works_at_its_ends(controls, words):
    page, caption = figures.shape_of_a_unet(*controls)
    assert words in caption
    places = [float(x) for x in re.findall(r'<rect x="(-?[\d.]+)"', page)]
    lengths = [float(x) for x in re.findall(r'width="([\d.]+)" height="7"', page)]
    assert min(places) >= 0
    assert max(x + length for x, length in zip(places, lengths, strict=True)) <= 600


def test_likely_steps_are_drawn_as_they_are():
    chances = {"one": np.array([0.2, 0.5, 0.3]), "other": np.array([0.0, 0.1, 0.9])}
    figure = figures.likely_steps(chances, true={"other": 1})
    for axes, (name, chance) in zip(figure.axes, chances.items(), strict=True):
        assert axes.get_title() == name
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], chance)
    assert [len(axes.lines) for axes in figure.axes] == [0, 1]
    assert figure.axes[1].lines[0].get_xdata()[0] == 1


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
