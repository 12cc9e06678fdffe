import re

import numpy as np
import pytest
from scipy import integrate

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import forward_diffusion as figures
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.forward_diffusion import q_posterior_mean_variance
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

LONG = NoiseSchedule(make_betas("linear", 1000))
COARSE = NoiseSchedule(make_betas("linear", 20))


def walk_of(schedule, start, walkers=2000):
    rng, walk = np.random.default_rng(0), [start]
    for beta in schedule.betas:
        noise = rng.standard_normal(walkers)
        walk.append(np.sqrt(1 - beta) * walk[-1] + np.sqrt(beta) * noise)
    return np.array(walk)


def images_of(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


# The slider: the digit, the noise and their sum.


@pytest.mark.parametrize("t", [0, 150, 999])
def test_noised_digit_is_the_sum_of_its_two_parts_in_their_shares(t):
    figure, _ = figures.noised_digit(LONG, t)
    of_digit, of_noise, total = images_of(figure)
    digit = companion_digit()[0][:, :, 0]
    alpha_bar = np.prod(1 - LONG.betas[: t + 1])
    np.testing.assert_allclose(of_digit, np.sqrt(alpha_bar) * digit, atol=1e-6)
    np.testing.assert_allclose(total, of_digit + of_noise, atol=1e-6)
    # The noise itself is the same for every t.
    first = images_of(figures.noised_digit(LONG, 0)[0])[1]
    scale = np.sqrt(1 - alpha_bar) / np.sqrt(LONG.betas[0])
    np.testing.assert_allclose(of_noise, scale * first, rtol=1e-5)


@pytest.mark.parametrize(
    ("t", "caption"),
    [
        (0, "t = 0: 1.000 of the digit plus 0.010 of the noise; "
            "share of variance left from the digit 0.9999"),
        (100, "t = 100: 0.946 of the digit plus 0.324 of the noise; "
              "share of variance left from the digit 0.8951"),
        (500, "t = 500: 0.279 of the digit plus 0.960 of the noise; "
              "share of variance left from the digit 0.0778"),
        (999, "t = 999: 0.006 of the digit plus 1.000 of the noise; "
              "share of variance left from the digit 0.0000"),
    ],
)  # fmt: skip
def test_noised_digit_says_the_numbers(t, caption):
    """The roots of the golden ᾱ and 1-ᾱ, rounded by hand."""
    figure, said = figures.noised_digit(LONG, t)
    assert said == caption
    titles = [axes.get_title() for axes in figure.axes]
    of_digit, of_noise = re.findall(r"\d\.\d{3}(?= of)", caption)
    assert titles == [f"{of_digit} × digit", f"{of_noise} × noise", f"sum: x at t = {t}"]


def test_noised_digit_changes_with_t_and_with_nothing_else():
    pictures = [
        plots.figure_to_array(figures.noised_digit(LONG, t)[0]) for t in (0, 150, 151, 999, 150)
    ]
    np.testing.assert_array_equal(pictures[1], pictures[4])
    for i in range(3):
        assert (pictures[i] != pictures[i + 1]).any()
    assert len({picture.shape for picture in pictures}) == 1  # the page does not jump


def test_noised_digit_of_a_schedule_of_one_step():
    _, caption = figures.noised_digit(NoiseSchedule([0.36]), 0)
    assert caption.startswith("t = 0: 0.800 of the digit plus 0.600 of the noise")


# The one-dimensional world.


def test_density_is_the_worlds_and_its_points_lie_below():
    points = WORLD.sample(50, 0)
    (axes,) = figures.density(points).axes
    curve, marks = axes.lines
    np.testing.assert_allclose(curve.get_ydata(), WORLD.pdf(curve.get_xdata()))
    np.testing.assert_array_equal(marks.get_xdata(), points)
    assert (marks.get_ydata() < 0).all()
    x, y = curve.get_data()
    assert integrate.trapezoid(y, x) == pytest.approx(1, abs=1e-3)  # all of it is on the picture
    assert len(figures.density().axes[0].lines) == 1


def test_walkers_fill_histograms_under_the_exact_densities():
    walk = walk_of(LONG, WORLD.sample(2000, 1))
    times = [0, 100, 1000]
    figure = figures.walkers(LONG, walk, times)
    assert [axes.get_title() for axes in figure.axes] == [f"after {t} steps" for t in times]
    for axes, steps in zip(figure.axes, times, strict=True):
        x, y = axes.lines[0].get_data()
        alpha_bar = np.prod(1 - LONG.betas[:steps])
        np.testing.assert_allclose(y, WORLD.noised(alpha_bar).pdf(x), rtol=1e-9)
        bars = axes.patches
        area = sum(bar.get_height() * bar.get_width() for bar in bars)
        assert area == pytest.approx(1, abs=1e-6)
        # Bars lie on the curve: total variation between them, with 2000 walkers in 80 bins.
        middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
        heights = np.array([bar.get_height() for bar in bars])
        expected = WORLD.noised(alpha_bar).pdf(middles)
        assert 0.5 * np.abs(heights - expected).sum() * bars[0].get_width() < 0.1


def test_mean_and_spread_lie_over_the_walkers():
    walk = walk_of(COARSE, np.full(2000, 0.8))
    (axes,) = figures.mean_and_spread(COARSE, walk).axes
    *paths, mean, below, above = axes.lines
    assert len(paths) == 40
    np.testing.assert_array_equal(paths[3].get_ydata(), walk[:, 3])
    steps = mean.get_xdata()
    assert steps.tolist() == list(range(1, 21))
    # Five standard errors of 2000 walkers.
    np.testing.assert_allclose(mean.get_ydata(), walk[1:].mean(axis=1), atol=5 / np.sqrt(2000))
    spread = (above.get_ydata() - below.get_ydata()) / 2
    np.testing.assert_allclose(spread, walk[1:].std(axis=1), rtol=5 / np.sqrt(4000))
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["mean √ᾱ x₀", "mean ± √(1−ᾱ)"]


# Bayes's rule.


@pytest.mark.parametrize(("schedule", "t"), [(COARSE, 6), (COARSE, 4), (COARSE, 1), (LONG, 400)])
def test_bayes_peaks_where_the_posterior_has_its_mean(schedule, t):
    x_start, x_t = 0.8, -0.6
    (axes,) = figures.bayes(schedule, x_start, x_t, t).axes
    x = axes.lines[0].get_xdata()
    from_start, from_x_t, both = (line.get_ydata() for line in axes.lines)
    mean, variance, _ = (
        float(np.ravel(np.asarray(v))[0])
        for v in q_posterior_mean_variance(schedule, np.array([x_start]), np.array([x_t]), [t])
    )
    spacing = x[1] - x[0]
    assert x[both.argmax()] == pytest.approx(mean, abs=spacing)
    assert [curve.max() for curve in (from_start, from_x_t, both)] == [1, 1, 1]
    # As wide as β̃ says, where the bell is wide enough to sum up and lies within the picture.
    weight = both / both.sum()
    assert (weight * (x - mean) ** 2).sum() == pytest.approx(variance, rel=0.02)
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["seen from x₀", "seen from x_t", "both: the posterior"]


@pytest.mark.parametrize(("schedule", "t"), [(LONG, 1), (LONG, 999), (COARSE, 19)])
@pytest.mark.parametrize(("x_start", "x_t"), [(1.0, -1.0), (-1.0, 1.0), (0.0, 0.0)])
@pytest.mark.filterwarnings("error")
def test_bayes_can_be_drawn_where_the_bells_lie_far_apart(schedule, t, x_start, x_t):
    (axes,) = figures.bayes(schedule, x_start, x_t, t).axes
    for line in axes.lines:
        assert np.isfinite(line.get_ydata()).all()
        assert line.get_ydata().max() == 1


def test_bayes_before_the_first_step_is_refused():
    with pytest.raises(ValueError, match=r"t = 0: .* Take t from 1 on"):
        figures.bayes(COARSE, 0.8, -0.6, 0)


def test_every_drawing_repeats_itself():
    walk = walk_of(COARSE, np.full(2000, 0.8))
    for draw in (
        lambda: figures.density(WORLD.sample(20, 0)),
        lambda: figures.walkers(COARSE, walk, [0, 20]),
        lambda: figures.mean_and_spread(COARSE, walk),
        lambda: figures.bayes(COARSE, 0.8, -0.6, 6),
    ):
        first, second = (plots.figure_to_array(draw()) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.std() > 1
