"""Chapter 11 against exact things: closed forms, SciPy's integration, DDIM, and sorting."""

import itertools

import numpy as np
import pytest
from keras import ops
from pocket import compiled, digits, pocket_model, pocket_parameters
from scipy.integrate import solve_ivp
from tiny import SMALLEST_UNET

from diffusion_walkthrough import flow_matching as flow
from diffusion_walkthrough.backward_sampling import walk
from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.exact_denoiser import MixtureDenoiser
from diffusion_walkthrough.faster_sampling import SAMPLERS, ddim_step
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD, GaussianMixture
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import ScheduleParameters
from diffusion_walkthrough.predictions import PREDICTIONS, Denoiser
from diffusion_walkthrough.training import DiffusionModel

STRAIGHT = NoiseSchedule(make_betas("straight", 20))
COSINE = NoiseSchedule(make_betas("cosine", 50))
TARGETS = ("noise", "x_start", "v", "flow")
RANDOM = np.random.default_rng(11)
X_START, NOISE = RANDOM.standard_normal((2, 6, 3))
ONE_BELL = GaussianMixture((1.0,), (0.4,), (0.2,))


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), dtype=np.float64)


# The straight path ------------------------------------------------------------------------------


def test_a_line_begins_in_the_image_and_ends_in_the_noise_at_an_even_pace():
    for s, expected in ((0.0, X_START), (1.0, NOISE), (0.25, 0.75 * X_START + 0.25 * NOISE)):
        np.testing.assert_allclose(flow.between(X_START, NOISE, [s] * 6), expected)
    s, ds = RANDOM.random(6), 1e-3
    moved = flow.between(X_START, NOISE, s + ds) - flow.between(X_START, NOISE, s)
    np.testing.assert_allclose(moved / ds, flow.path_velocity(X_START, NOISE), rtol=1e-9)


def test_images_and_tensors_have_their_own_s_each():
    images, noise = RANDOM.standard_normal((2, 3, 2, 2, 1))
    s = np.array([0.0, 0.5, 1.0])
    found = flow.between(*map(ops.convert_to_tensor, (images, noise, s)))
    np.testing.assert_allclose(numpy(found), flow.between(images, noise, s), atol=1e-6)
    np.testing.assert_allclose(numpy(found)[1], (images[1] + noise[1]) / 2, atol=1e-6)


def test_the_other_direction_of_time_is_the_same_walk():
    """Euler's step to the image, as the papers and as we write it; and there and back again."""
    v, s, ds = flow.path_velocity(X_START, NOISE), 0.7, 0.2
    x = flow.between(X_START, NOISE, [s] * 6)
    theirs, time = flow.other_direction(v, s)
    np.testing.assert_allclose(theirs, X_START - NOISE)
    assert time == pytest.approx(0.3)  # 0 is noise, 1 is data
    np.testing.assert_allclose(x + ds * theirs, x - ds * v)
    np.testing.assert_allclose(x - ds * v, flow.between(X_START, NOISE, [s - ds] * 6))
    back = flow.other_direction(theirs, time)
    np.testing.assert_allclose(back[0], v)
    assert back[1] == pytest.approx(s)


# A schedule walks it, too -------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [STRAIGHT, COSINE], ids=["straight", "cosine"])
def test_a_noisy_image_divided_by_both_rates_lies_on_the_straight_path(schedule):
    t = np.array([0, 3, 7, 11, 18, len(schedule) - 1])
    a, b = schedule.rates(t, 2)
    s = flow.share_of_noise(schedule, t)
    found = numpy(flow.straightened(schedule, a * X_START + b * NOISE, t))
    np.testing.assert_allclose(found, flow.between(X_START, NOISE, s), atol=1e-6)


def test_the_schedule_called_straight_has_even_shares():
    t = np.arange(-1, 20)
    np.testing.assert_allclose(flow.share_of_noise(STRAIGHT, t), (t + 1) / 20, atol=1e-6)
    between_steps = flow.share_of_noise(STRAIGHT, np.array([8.5]))[0]
    assert between_steps == pytest.approx(9.5 / 20, abs=1e-3)


def answers(schedule, t):
    """x_t, and by its name what each network should answer, from the definitions in float64."""
    alpha_bar = np.cumprod(1 - schedule.betas)[t][:, None]
    a, b = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    mixes = {"noise": NOISE, "x_start": X_START, "v": a * NOISE - b * X_START}
    return a * X_START + b * NOISE, {**mixes, "flow": NOISE - X_START}, a, b


@pytest.mark.parametrize(("asked", "wanted"), [*itertools.product(TARGETS, TARGETS)])
def test_all_targets_say_the_same_in_other_words(asked, wanted):
    t = np.array([0, 3, 10, 24, 40, 48])
    x_t, right, a, b = answers(COSINE, t)
    found = numpy(flow.converted(COSINE, x_t, t, right[asked], asked, wanted))
    divided_by = {"noise": a, "x_start": b}.get(asked, np.ones_like(a))
    assert (np.abs(found - right[wanted]) * divided_by).max() < 1e-6


def test_the_mean_of_the_step_back_can_be_said_in_other_words():
    t = np.array([1, 3, 10, 24, 40, 48])
    x_t, right, _, _ = answers(COSINE, t)
    mean = numpy(flow.converted(COSINE, x_t, t, right["v"], "v", "x_prev"))
    expected = PREDICTIONS["x_prev"].target(COSINE, X_START, NOISE, x_t, t)
    np.testing.assert_allclose(mean, numpy(expected), atol=1e-6)


@pytest.mark.parametrize("asked", TARGETS)
def test_to_the_clean_image_it_is_what_the_samplers_use(asked):
    t, answer = np.array([0, 3, 10, 24, 40, 45]), RANDOM.standard_normal((6, 3))
    x_t = RANDOM.standard_normal((6, 3))
    found = numpy(flow.converted(COSINE, x_t, t, answer, asked, "x_start"))
    expected = numpy(PREDICTIONS[asked].to_x_start(COSINE, x_t, t, answer))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_at_pure_noise_the_velocity_still_tells_the_image_and_the_noise_does_not():
    t, x_t = np.full(6, 19), NOISE
    found = numpy(flow.converted(STRAIGHT, x_t, t, NOISE - X_START, "flow", "x_start"))
    np.testing.assert_allclose(found, X_START, atol=1e-6)
    np.testing.assert_allclose(
        numpy(flow.converted(STRAIGHT, x_t, t, NOISE - X_START, "flow", "noise")), NOISE, atol=1e-6
    )
    with pytest.raises(ValueError, match="'noise' cannot be used with this schedule"):
        flow.converted(STRAIGHT, x_t, t, NOISE, "noise", "flow")
    with pytest.raises(ValueError, match="prediction='velocity': prediction must be one of"):
        flow.converted(STRAIGHT, x_t, t, NOISE, "flow", "velocity")


@pytest.mark.parametrize("prediction", TARGETS)
def test_the_weight_of_an_error_is_what_it_does_to_the_answer(prediction):
    """At one x_t, for another guess of x_0: the squared error of the answer, over that of x_0."""
    t = np.array([0, 3, 10, 24, 40, 49])
    x_t, right, a, b = answers(COSINE, t)
    wrong = X_START + 0.3
    noise = (x_t - a * wrong) / b
    seen = {"noise": noise, "x_start": wrong, "v": a * noise - b * wrong, "flow": noise - wrong}
    ratio = ((seen[prediction] - right[prediction]) ** 2).mean(axis=1) / 0.3**2
    np.testing.assert_allclose(flow.x_start_weight(prediction, COSINE.snr[t]), ratio, rtol=1e-6)


def test_the_weights_at_pure_noise():
    at_the_end = {name: float(flow.x_start_weight(name, 0.0)) for name in TARGETS}
    assert at_the_end == {"noise": 0, "x_start": 1, "v": 1, "flow": 1}
    with pytest.raises(ValueError, match="prediction='x_prev'"):
        flow.x_start_weight("x_prev", 1.0)


# Following a velocity ---------------------------------------------------------------------------


def exact_end(mixture, noise):
    """Where the exact flow carries noise in one dimension: its rank stays what it was."""
    return np.interp(
        np.vectorize(GaussianMixture((1.0,), (0.0,), (1.0,)).cdf)(noise),
        mixture.cdf(grid := np.linspace(-3, 3, 60_001)),
        grid,
    )


def velocity_of(mixture):
    return lambda x, s: flow.mixture_velocity(mixture, x, s)


def test_from_bell_to_bell_the_flow_is_known():
    """x_s = (1-s) m + √((1-s)² d² + s²) z: the velocity is its derivative, at the same z."""
    m, d, z = 0.4, 0.2, np.linspace(-2, 2, 9)

    def place(s):
        return (1 - s) * m + np.sqrt((1 - s) ** 2 * d**2 + s**2) * z

    for s in (0.01, 0.3, 0.8, 0.99):
        slope = (place(s + 1e-6) - place(s - 1e-6)) / 2e-6
        np.testing.assert_allclose(flow.mixture_velocity(ONE_BELL, place(s), s), slope, atol=1e-7)
    walked = flow.heun(velocity_of(ONE_BELL), z, 200)[-1]
    np.testing.assert_allclose(walked, m + d * z, atol=2e-3)


@pytest.mark.parametrize("s", [0.0, 1.0])
def test_at_both_ends_the_velocity_is_known(s):
    x = np.array([-0.6, 0.0, 0.7])
    expected = x - WORLD.mean if s == 1 else -x
    np.testing.assert_allclose(flow.mixture_velocity(WORLD, x, s), expected, atol=1e-9)


def test_the_mean_velocity_is_that_of_the_pairs_that_pass():
    rng = np.random.default_rng(1)
    x_start, noise, s = WORLD.sample(400_000, rng), rng.standard_normal(400_000), 0.4
    x_s, v = flow.between(x_start, noise, s), flow.path_velocity(x_start, noise)
    for place in (-0.6, 0.0, 0.5):
        near = np.abs(x_s - place) < 0.02
        expected = flow.mixture_velocity(WORLD, place, s)
        assert v[near].mean() == pytest.approx(expected, abs=0.03)


def test_the_walks_end_where_the_exact_flow_ends_and_agree_with_scipy():
    noise = np.linspace(-2, 2, 21)
    ends = flow.heun(velocity_of(WORLD), noise, 400)[-1]
    np.testing.assert_allclose(ends, exact_end(WORLD, noise), atol=0.02)
    field = velocity_of(WORLD)
    scipy = solve_ivp(lambda s, x: field(x, s), (1, 0), noise, rtol=1e-8, atol=1e-8).y[:, -1]
    np.testing.assert_allclose(ends, scipy, atol=2e-3)


@pytest.mark.parametrize(("walked", "order"), [(flow.euler, 1), (flow.heun, 2)])
def test_the_order_of_a_walk_is_the_slope_of_its_error(walked, order):
    z = np.linspace(-2, 2, 9)
    errors = [
        np.abs(walked(velocity_of(ONE_BELL), z, n)[-1] - (0.4 + 0.2 * z)).max() for n in (40, 80)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_one_step_of_euler_from_noise_ends_in_the_mean():
    walked = flow.euler(velocity_of(WORLD), np.linspace(-3, 3, 5), 1)
    np.testing.assert_allclose(walked[-1], WORLD.mean, atol=1e-12)
    assert walked.shape == (2, 5)


@pytest.mark.parametrize("steps", [0, 2.5, True])
def test_a_walk_has_at_least_one_step(steps):
    with pytest.raises((TypeError, ValueError), match=r"steps=.*whole number of at least 1"):
        flow.euler(velocity_of(WORLD), [0.0], steps)


@pytest.mark.parametrize("schedule", [STRAIGHT, COSINE], ids=["straight", "cosine"])
def test_ddim_is_eulers_step_on_the_straight_path(schedule):
    """For any guess of x_0, on any schedule: x_s' = x_s - (s - s') v, with v = (x_s - x_0) / s."""
    t, t_next = np.array([19, 19, 15, 9, 5, 2]), np.array([18, 4, 14, 0, 2, -1])
    x_t, guess = RANDOM.standard_normal((2, 6, 3))
    found, _ = ddim_step(lambda *_: guess, schedule, x_t, t, t_next, 0 * x_t)
    s, s_next = (flow.share_of_noise(schedule, t)[:, None] for t in (t, t_next))
    x_s = numpy(flow.straightened(schedule, x_t, t))
    expected = x_s - (s - s_next) * (x_s - guess) / s
    np.testing.assert_allclose(
        numpy(flow.straightened(schedule, found, t_next)), expected, atol=1e-5
    )


def test_a_walk_of_ddim_is_a_walk_of_euler():
    denoise, x_T = MixtureDenoiser(WORLD, STRAIGHT), np.linspace(-2, 2, 9)
    found = numpy(walk(ddim_step, denoise, STRAIGHT, (9,), steps=5, x_T=x_T))
    np.testing.assert_allclose(found, flow.euler(velocity_of(WORLD), x_T, 5)[-1], atol=1e-5)


def test_straight_walks_do_not_bend_and_others_do():
    ends = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    s = np.linspace(1, 0, 9)[:, None, None]
    straight = s * ends + (1 - s)
    assert flow.bend(straight) == pytest.approx(0, abs=1e-12)
    # Once around a quarter of a circle: |dx/ds - chord|² is (π/2)² - 2, and the chord's square 2.
    angle = np.linspace(0, np.pi / 2, 2001)
    quarter = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]
    assert flow.bend(quarter) == pytest.approx(((np.pi / 2) ** 2 - 2) / 2, rel=1e-5)
    in_a_hurry = s**2 * ends + (1 - s**2)  # straight, but not at an even pace
    assert flow.bend(in_a_hurry) > 0.1


# Pairs --------------------------------------------------------------------------------------------


def test_in_one_dimension_the_best_pairing_is_by_rank():
    rng = np.random.default_rng(2)
    x_start, noise = rng.standard_normal((2, 30, 1))
    pairs = flow.paired(x_start, noise)
    np.testing.assert_array_equal(pairs.x_start, x_start)
    order = np.argsort(x_start[:, 0])
    np.testing.assert_array_equal(pairs.noise[order, 0], np.sort(noise[:, 0]))


def test_no_other_pairing_of_five_is_shorter():
    x_start, noise = np.random.default_rng(3).standard_normal((2, 5, 2, 2, 1))

    def length(other):
        return ((x_start - other) ** 2).sum()

    all_orders = [noise[list(order)] for order in itertools.permutations(range(5))]
    best = length(flow.paired(x_start, noise).noise)
    assert best == pytest.approx(min(map(length, all_orders)))
    assert best < length(noise)


def two_classes(n=200):
    rng = np.random.default_rng(4)
    labels = rng.integers(2, size=n)
    x_start = (2 * labels - 1)[:, None] + 0.1 * rng.standard_normal((n, 1))
    return x_start, rng.standard_normal((n, 1)), labels


def test_within_a_class_pairs_are_best_and_the_noise_stays_the_same_for_all():
    x_start, noise, labels = two_classes()
    apart = flow.paired(x_start, noise, labels)
    for label in (0, 1):
        own = labels == label
        np.testing.assert_array_equal(
            np.sort(apart.noise[own], axis=0), np.sort(noise[own], axis=0)
        )
        np.testing.assert_array_equal(apart.noise[own], flow.paired(x_start[own], noise[own]).noise)
        assert abs(apart.noise[own].mean()) < 0.25
    coupled = flow.paired(x_start, noise)
    assert coupled.noise[labels == 1].mean() - coupled.noise[labels == 0].mean() > 1.2


def test_as_many_noises_as_images_are_paired():
    with pytest.raises(ValueError, match="6 clean ones and 5 of noise cannot be paired"):
        flow.paired(X_START, NOISE[:5])
    with pytest.raises(ValueError, match="and of the labels"):
        flow.paired(X_START, NOISE, [0, 1])


def test_reflow_pairs_noise_with_where_it_is_carried():
    noise = np.linspace(-2, 2, 7)
    pairs = flow.reflowed(velocity_of(ONE_BELL), noise, steps=200)
    np.testing.assert_array_equal(pairs.noise, noise)
    np.testing.assert_allclose(pairs.x_start, 0.4 + 0.2 * noise, atol=0.01)


@pytest.mark.parametrize(
    ("toy", "spread"),
    [(flow.eight_gaussians, 1.72), (flow.two_moons, 0.89), (flow.checkerboard, 1.155)],
)
def test_toys_lie_about_the_middle_where_they_should(toy, spread):
    x = toy(4000, np.random.default_rng(0))
    assert (x.shape, x.dtype) == ((4000, 2), np.float32)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.1)
    assert x.std() == pytest.approx(spread, rel=0.05)
    np.testing.assert_array_equal(x, toy(4000, np.random.default_rng(0)))
    if toy is flow.checkerboard:
        assert (np.floor(x + 2).sum(axis=1) % 2 == 0).all()
    if toy is flow.eight_gaussians:
        assert len(np.unique(np.round(np.arctan2(x[:, 1], x[:, 0]) / (np.pi / 4)) % 8)) == 8


# Learning it ------------------------------------------------------------------------------------


def test_a_network_learns_a_velocity_in_a_moment():
    """From bell to bell in each of two dimensions, where the mean velocity is known."""
    rng, bell = np.random.default_rng(5), GaussianMixture((1.0,), (1.0,), (0.5,))
    x_start, noise = rng.standard_normal((2, 40_000, 2)).astype("float32")
    x_start = 1 + 0.5 * x_start
    velocity = flow.learn(flow.Pairs(x_start, noise), passes=4)
    s = rng.random(500)
    x_s = flow.between(x_start[:500], noise[:500], s)
    exact = flow.mixture_velocity(bell, x_s, s[:, None])
    error = np.mean((velocity(x_s, s) - exact) ** 2) / np.mean(exact**2)
    assert error < 0.03
    drawn = flow.euler(velocity, noise[:500], 8)[-1]
    assert drawn.mean() == pytest.approx(1, abs=0.1)
    assert drawn.std() == pytest.approx(0.5, abs=0.1)


def test_questions_keep_image_and_noise_together():
    x_start = digits(32)
    noise = x_start + 2  # so that the two are known from each other
    asked = flow.PairQuestions(flow.Pairs(x_start, noise), STRAIGHT, 8, seed=3)
    assert len(asked) == 4
    seen = []
    for number in range(4):
        (x_t, t), made_of = asked.batch(0, number)
        assert t.dtype == "int32"  # not a share of 1, which the embedding could hardly tell apart
        np.testing.assert_allclose(made_of["noise"], made_of["x_start"] + 2, atol=1e-6)
        a, b = STRAIGHT.rates(t, 4)
        np.testing.assert_allclose(x_t, a * made_of["x_start"] + b * made_of["noise"], atol=1e-6)
        seen.append(made_of["x_start"])
    in_order = [
        np.unique(images.reshape(32, -1), axis=0) for images in (np.concatenate(seen), x_start)
    ]
    np.testing.assert_array_equal(*in_order)
    again, other = asked.batch(0, 1), asked.batch(1, 1)
    np.testing.assert_array_equal(again[0][0], asked.batch(0, 1)[0][0])
    assert not np.array_equal(again[0][1], other[0][1])
    with pytest.raises(ValueError, match=r"batch_size=40: .* at most 32"):
        flow.PairQuestions(flow.Pairs(x_start, noise), STRAIGHT, 40)


STRAIGHT_10 = ScheduleParameters("straight", 10)


def test_a_model_is_asked_for_the_velocity_trained_and_draws():
    model = compiled(schedule=STRAIGHT_10, prediction="flow", learning_rate=1e-2)
    losses = model.fit(digits(), epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    asked = flow.PairQuestions(flow.Pairs(digits(), digits()[::-1]), model.schedule, 16)
    assert np.isfinite(model.fit(asked, epochs=1, verbose=0).history["loss"]).all()
    for name in SAMPLERS:
        drawn = model.sample(2, seed=1, step=name, steps=5)
        assert np.isfinite(drawn).all()
        assert np.abs(drawn).max() <= 1.0001


def test_such_a_model_is_saved_and_loaded_like_any_other(tmp_path):
    parameters = pocket_parameters(unet=SMALLEST_UNET, schedule=STRAIGHT_10, prediction="flow")
    model = DiffusionModel(parameters, seed=0)
    again = load_model(save_model(model, tmp_path / "flow"))
    assert again.diffusion_parameters == parameters
    shown = [RANDOM.standard_normal((2, 4, 4, 1)).astype("float32"), np.array([3, 9])]
    np.testing.assert_array_equal(numpy(model.network(shown)), numpy(again.network(shown)))


def test_one_network_draws_the_same_whatever_it_says_it_is_asked_for():
    """Its answer said as a velocity, as v, as the image: one walk."""
    model = pocket_model(schedule=STRAIGHT_10, prediction="flow")
    drawn = []
    for wanted in ("flow", "v", "x_start"):

        def network(shown, training, wanted=wanted):
            answer = model.network(shown, training=training)
            return flow.converted(model.schedule, *shown, answer, "flow", wanted)

        denoise = Denoiser(network, model.schedule, wanted)
        drawn.append(numpy(walk(ddim_step, denoise, model.schedule, (2, 8, 8, 1), seed=1, steps=5)))
    for other in drawn[1:]:
        np.testing.assert_allclose(other, drawn[0], atol=1e-5)
