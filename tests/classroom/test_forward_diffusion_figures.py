import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy import integrate

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import forward_diffusion as figures
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.forward_diffusion import q_posterior_mean_variance
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

LONG = NoiseSchedule(make_betas("linear", 1000))
COARSE = NoiseSchedule(make_betas("linear", 20))


def walk_of(schedule, start):
    """Row t is where the walkers stand at t; the start is not among them."""
    rng, walk = np.random.default_rng(0), []
    x = start
    for beta in schedule.betas:
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(len(start))
        walk.append(x)
    return np.array(walk)


def pictures_in(page):
    """The grey levels of every picture in some HTML, each back in [-1.5, 1.5]."""
    sources = re.findall(r"data:image/png;base64,([^\"]+)", page)
    levels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s)))) for s in sources]
    return [(level / 127.5 - 1) * 1.5 for level in levels]


# An image plus noise.


def test_recipe_draws_its_three_parts_on_one_grey_scale_with_signs_between():
    parts = np.random.default_rng(0).standard_normal((3, 8, 8, 1))
    figure = figures.recipe(parts, ["digit", "noise", "sum"])
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["digit", "noise", "sum"]
    for axes, part in zip(drawn, parts, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), part[:, :, 0], atol=1e-6)
        assert axes.images[0].get_clim() == (-1.5, 1.5)
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["+", "="]


@pytest.mark.parametrize("t", [-1, 0, 150, 999])
def test_noised_digit_is_the_sum_of_its_two_parts_in_their_shares(t):
    page, _ = figures.noised_digit(t)
    of_digit, of_noise, total = pictures_in(page)
    digit = companion_digit()[0][:, :, 0]
    alpha_bar = np.prod(1 - LONG.betas[: t + 1])
    level = 1.5 / 127.5  # a picture holds 256 grey levels
    np.testing.assert_allclose(of_digit, np.sqrt(alpha_bar) * digit, atol=level)
    inside = np.abs(total) < 1.5 - level
    assert inside.mean() > 0.5
    np.testing.assert_allclose(total[inside], (of_digit + of_noise)[inside], atol=2 * level)
    # The noise itself is the same for every t.
    noise = np.random.default_rng(1).standard_normal((8, 8))
    expected = np.clip(np.sqrt(1 - alpha_bar) * noise, -1.5, 1.5)
    np.testing.assert_allclose(of_noise, expected, atol=level)


@pytest.mark.parametrize(
    ("t", "caption"),
    [
        (-1, "t = -1: 1.000 × digit + 0.000 × noise"),
        (0, "t = 0: 1.000 × digit + 0.010 × noise"),
        (100, "t = 100: 0.946 × digit + 0.324 × noise"),
        (500, "t = 500: 0.279 × digit + 0.960 × noise"),
        (999, "t = 999: 0.006 × digit + 1.000 × noise"),
    ],
)
def test_noised_digit_says_the_numbers(t, caption):
    """The roots of the golden ᾱ and 1-ᾱ, rounded by hand."""
    page, said = figures.noised_digit(t)
    assert said == caption
    of_digit, of_noise = re.findall(r"\d\.\d{3}", caption)
    for words in (f"{of_digit} × digit", f"{of_noise} × noise", f"the digit's factor: {of_digit}"):
        assert words in page.replace("&#x27;", "'")


def test_noised_digit_is_fast_enough_to_follow_the_hand_and_repeats_itself():
    pages = [figures.noised_digit(t)[0] for t in (0, 150, 151, 999, 150)]
    assert pages[1] == pages[4]
    assert len(set(pages)) == 4
    assert max(map(len, pages)) < 10_000  # characters that travel to the page at each move


# The one-dimensional world.


def test_melting_shows_the_densities_at_all_t_between_the_two_ends():
    start = WORLD.sample(2000, 1)
    walk = walk_of(LONG, start)
    clean, _, noisy = figures.melting(LONG, start, walk).axes
    ends = (clean, "clean (t = −1)", 1.0), (noisy, "t = 999", np.prod(1 - LONG.betas))
    for axes, title, alpha_bar in ends:
        assert axes.get_title() == title
        density, x = axes.lines[0].get_data()
        np.testing.assert_allclose(density, WORLD.noised(alpha_bar).pdf(x), rtol=1e-9)
        assert integrate.trapezoid(density, x) == pytest.approx(1, abs=0.01)
        bars = axes.patches
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1, abs=0.01)
        # Bars lie under the line: total variation between them, with 2000 walkers.
        middles = np.array([bar.get_y() + bar.get_height() / 2 for bar in bars])
        lengths = np.array([bar.get_width() for bar in bars])
        expected = WORLD.noised(alpha_bar).pdf(middles)
        assert 0.5 * np.abs(lengths - expected).sum() * bars[0].get_height() < 0.15
        # A grey print and a colour-blind eye tell bars and line apart.
        assert bars[0].get_facecolor()[:3] != axes.lines[0].get_color()


def test_melting_draws_the_first_walkers_from_their_start_on():
    start = WORLD.sample(50, 1)
    walk = walk_of(COARSE, start)
    middle = figures.melting(COARSE, start, walk, walkers=3).axes[1]
    assert len(middle.lines) == 3
    for i, line in enumerate(middle.lines):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(-1, 20))
        np.testing.assert_array_equal(line.get_ydata(), [start[i], *walk[:, i]])


@pytest.mark.parametrize("column", [0, 1, 7, 20])
def test_melting_has_the_density_of_each_t_in_its_column(column):
    start = WORLD.sample(50, 1)
    mesh = figures.melting(COARSE, start, walk_of(COARSE, start)).axes[1].collections[0]
    density = np.asarray(mesh.get_array())
    assert density.shape == (301, 21)
    alpha_bar = np.prod(1 - COARSE.betas[:column])  # column 0 is t = -1
    expected = WORLD.noised(alpha_bar).pdf(np.linspace(-3, 3, 301))
    np.testing.assert_allclose(density[:, column], expected, rtol=1e-9)


def test_mean_and_spread_lie_over_the_walkers():
    walk = walk_of(COARSE, np.full(2000, 0.8))
    (axes,) = figures.mean_and_spread(COARSE, 0.8, walk).axes
    *paths, mean, below, above = axes.lines
    assert len(paths) == 40
    np.testing.assert_array_equal(paths[3].get_ydata(), [0.8, *walk[:, 3]])
    assert mean.get_xdata().tolist() == list(range(-1, 20))
    # Five standard errors of 2000 walkers.
    five = 5 / np.sqrt(2000)
    np.testing.assert_allclose(mean.get_ydata(), [0.8, *walk.mean(axis=1)], atol=five)
    spread = (above.get_ydata() - below.get_ydata()) / 2
    np.testing.assert_allclose(spread, [0.0, *walk.std(axis=1)], rtol=5 / np.sqrt(4000))
    names = {text.get_text(): text.xy[1] for text in axes.texts}
    assert names["mean √ᾱ x₀"] == mean.get_ydata()[-1]
    assert names["mean + spread"] == pytest.approx(above.get_ydata()[-1])
    assert names["mean − spread"] == pytest.approx(below.get_ydata()[-1])


# Two clues.


def clues(schedule, x, x_0, x_t, t):
    earlier, beta = np.prod(1 - schedule.betas[:t]), schedule.betas[t]
    return (
        np.exp(-((x - np.sqrt(earlier) * x_0) ** 2) / (2 * (1 - earlier))),
        np.exp(-((x_t - np.sqrt(1 - beta) * x) ** 2) / (2 * beta)),
    )


def posterior(schedule, x_0, x_t, t):
    mean, variance, _ = (
        float(np.ravel(np.asarray(v))[0])
        for v in q_posterior_mean_variance(schedule, np.array([x_0]), np.array([x_t]), [t])
    )
    return mean, variance


def test_two_clues_draws_both_and_their_product_each_with_its_name():
    x = np.linspace(-6, 6, 4001)
    (axes,) = figures.two_clues(x, *clues(COARSE, x, 0.8, -0.6, 6), 0.8, -0.6).axes
    mean, variance = posterior(COARSE, 0.8, -0.6, 6)
    product = axes.lines[2].get_ydata()
    assert x[product.argmax()] == pytest.approx(mean, abs=x[1] - x[0])
    weight = product / product.sum()
    assert (weight * (x - mean) ** 2).sum() == pytest.approx(variance, rel=1e-3)
    for line, name in zip(axes.lines, ["clue 1", "clue 2", "product"], strict=False):
        assert line.get_ydata().max() == 1
        (text,) = (text for text in axes.texts if text.get_text() == name)
        assert text.get_position()[0] == x[line.get_ydata().argmax()]
        assert text.get_color() == plots.ink(line.get_color())
    marks = [float(np.ravel(line.get_xdata())[0]) for line in axes.lines[3:]]
    assert marks == [0.8, -0.6]
    assert {"x₀", "x_t"} <= {text.get_text() for text in axes.texts}


def peaks(page):
    """Where on the axis from -2.5 to 2.5 each curve of some SVG has its peak."""
    found = []
    for points in re.findall(r'points="([^"]+)"', page):
        places = np.array([[float(v) for v in point.split(",")] for point in points.split()])
        across, down = places.T
        share = (across - across[0]) / (across[-1] - across[0])
        found.append((-2.5 + 5 * share)[down == down.min()].mean())
    return found


@pytest.mark.parametrize("t", [1, 4, 6, 19])
def test_clues_of_says_eq_7_and_peaks_there(t):
    x_0, x_t = 0.8, -0.6
    page, caption = figures.clues_of(x_0, x_t, t)
    mean, variance = posterior(COARSE, x_0, x_t, t)
    assert caption.startswith(f"t = {t}: ")
    assert caption.endswith(f"= {mean:.2f}, spread {np.sqrt(variance):.2f}")
    of_x_0, of_x_t = (float(v) for v in re.findall(r"([\d.]+) × x", caption))
    assert of_x_0 * x_0 + of_x_t * x_t == pytest.approx(mean, abs=0.01)
    earlier, beta = np.prod(1 - COARSE.betas[:t]), COARSE.betas[t]
    expected = [np.sqrt(earlier) * x_0, max(-2.5, x_t / np.sqrt(1 - beta)), mean]
    np.testing.assert_allclose(peaks(page), expected, atol=0.03)


def test_clues_of_marks_what_is_known_in_each_panel():
    page, _ = figures.clues_of(0.5, -1.0, 3)
    panels = page.split("<figure")[1:]
    marked = [re.findall(r"x₀<|x_t<", panel.partition("<svg")[2]) for panel in panels]
    assert marked == [["x₀<"], ["x_t<"], ["x₀<", "x_t<"]]


@pytest.mark.parametrize("t", [1, 19])
@pytest.mark.parametrize(("x_0", "x_t"), [(1.0, -2.0), (-1.0, 2.0), (0.0, 0.0)])
@pytest.mark.filterwarnings("error")
def test_clues_can_be_drawn_where_the_bells_lie_far_apart(t, x_0, x_t):
    page, caption = figures.clues_of(x_0, x_t, t)
    assert "nan" not in page + caption
    assert len(peaks(page)) == 3


def test_clues_before_the_first_step_are_refused():
    with pytest.raises(ValueError, match=r"t = 0: .* Take t from 1 on"):
        figures.clues_of(0.8, -0.6, 0)


# The exercise's rows.


def test_only_row_c_of_the_journeys_breaks_the_law_that_the_squares_sum_to_1():
    axes = np.array(figures.four_journeys().axes).reshape(4, 5)
    rows = [[np.asarray(a.images[0].get_array()) for a in row] for row in axes]
    assert [row[0].get_ylabel() for row in axes] == ["a", "b", "c", "d"]
    times = [50, 200, 350, 600, 999]
    assert [a.get_title() for a in axes[0]] == [f"t = {t}" for t in times]
    digit = companion_digit()[0][:, :, 0]
    clean = {"a": digit, "b": digit, "c": digit, "d": -np.ones((8, 8))}
    spreads = {}
    for (letter, image), row in zip(clean.items(), rows, strict=True):
        noise = [
            (x - np.sqrt(np.prod(1 - LONG.betas[: t + 1])) * image)
            / np.sqrt(1 - np.prod(1 - LONG.betas[: t + 1]))
            for x, t in zip(row, times, strict=True)
        ]
        spreads[letter] = np.std(noise)
        if letter == "a":
            np.testing.assert_allclose(noise, [noise[0]] * 5, atol=1e-4)
    for letter in "abd":
        # Standard noise, within five standard errors of 64 numbers.
        assert spreads[letter] == pytest.approx(1, abs=5 / np.sqrt(128))
    assert spreads["c"] < 0.3


def test_every_drawing_repeats_itself():
    start = WORLD.sample(50, 0)
    walk = walk_of(COARSE, start)
    x = np.linspace(-3, 3, 301)
    for draw in (
        lambda: figures.recipe(np.ones((3, 8, 8, 1)), ["a", "b", "c"]),
        lambda: figures.melting(COARSE, start, walk),
        lambda: figures.mean_and_spread(COARSE, 0.8, walk_of(COARSE, np.full(50, 0.8))),
        lambda: figures.two_clues(x, *clues(COARSE, x, 0.8, -0.6, 6), 0.8, -0.6),
        figures.four_journeys,
    ):
        first, second = (plots.figure_to_array(draw()) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.std() > 1
