"""Guidance against its equation in both conventions, and what training has to leave out for it."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from scipy.integrate import quad
from scipy.stats import kstest
from tiny import SMALLEST_UNET, TINY

from diffusion_walkthrough.backward_sampling import Denoiser, interpolate, walk
from diffusion_walkthrough.engine.drawing import CompiledNetwork
from diffusion_walkthrough.engine.precision import dtype_policy
from diffusion_walkthrough.exact_denoiser import MixtureDenoiser
from diffusion_walkthrough.faster_sampling import SAMPLERS, ddim_step, restart
from diffusion_walkthrough.gaussian_mixture import GaussianMixture
from diffusion_walkthrough.guidance import (
    GuidedDenoiser,
    InpaintingQuestions,
    LabelledWorld,
    autoguided,
    denoiser,
    guided,
    inpaint,
    inpainting_network,
    noised_again,
    only_between,
    random_known,
    replacing,
    rescaled,
    what_is_known,
    without_some,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import build_unet

SCHEDULE = NoiseSchedule(make_betas("cosine", 20))
LABELS = (("digit", 3),)
ROWS = np.array([5.0, 1.0, 2.0, 4.0], "float32")  # of -1, 0, 1 and 2


def numpy(x):
    return ops.convert_to_numpy(x)


class Network:
    """Answers with the row of the label, in every pixel, and a little of what it is shown."""

    def __init__(self, channels=1):
        self.channels, self.shown = channels, []

    def __call__(self, shown, training=False):
        x_t, t, labels = shown
        self.shown.append([tuple(part.shape) for part in shown])
        row = ops.reshape(ops.take(ROWS, labels + 1), (-1, 1, 1, 1))
        answer = row + 0.1 * x_t + 0.01 * ops.reshape(ops.cast(t, "float32"), (-1, 1, 1, 1))
        return ops.concatenate([(i + 1) * answer for i in range(self.channels)], axis=-1)


def asked_of(network, variance="fixed_small", clip=True):
    return GuidedDenoiser(network, SCHEDULE, "noise", variance, clip, labels=LABELS)


X_T = np.random.default_rng(0).standard_normal((3, 2, 2, 1)).astype("float32")
T = np.array([2, 9, 19], "int32")
TOLD = np.array([1, 0, -1], "int32")


# What guidance is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_the_equation_in_both_conventions(scale):
    told, untold = (np.random.default_rng(i).standard_normal((4, 3)) for i in (1, 2))
    found = numpy(guided(told, untold, scale))
    w = scale - 1
    np.testing.assert_allclose(found, (1 + w) * told - w * untold, atol=1e-5)  # the paper's Eq. 6


def test_each_image_may_have_a_scale_of_its_own():
    told, untold = np.ones((3, 2, 2, 1)), np.zeros((3, 2, 2, 1))
    scales = np.array([0, 1, 7], "float32")
    np.testing.assert_array_equal(numpy(guided(told, untold, scales))[:, 0, 0, 0], scales)


def test_guiding_answers_is_guiding_clean_images():
    """All predictions but x_prev's are straight lines in x_0, and so is that."""
    network = Network()
    scale = np.full(3, 4.0, "float32")
    free = asked_of(network, clip=False)
    told, untold = numpy(free(X_T, T, TOLD)), numpy(free(X_T, T))
    found = numpy(free(X_T, T, TOLD, scale))
    np.testing.assert_allclose(found, untold + 4 * (told - untold), rtol=1e-3, atol=1e-3)


# A network that is told ---------------------------------------------------------------------------


def test_without_labels_nothing_is_said():
    found = numpy(asked_of(Network()).ask(0 * X_T, 0 * T))
    assert found.ravel().tolist() == [5.0] * 12


def test_with_labels_and_no_scale_the_network_is_asked_once():
    network = Network()
    found = numpy(asked_of(network).ask(0 * X_T, 0 * T, TOLD))
    assert found[:, 0, 0, 0].tolist() == [2.0, 1.0, 5.0]
    assert network.shown == [[(3, 2, 2, 1), (3,), (3,)]]


def test_a_scale_goes_beyond_the_label_in_one_call_of_twice_as_many():
    network = Network()
    scale = np.array([3.0, 1.0, 3.0], "float32")
    found = numpy(asked_of(network).ask(0 * X_T, 0 * T, TOLD, scale))
    assert found[:, 0, 0, 0].tolist() == [5 + 3 * (2 - 5), 1.0, 5.0]
    assert network.shown == [[(6, 2, 2, 1), (6,), (6,)]]


def test_each_half_is_shown_its_own_images_and_times():
    scale = np.full(3, 2.0, "float32")
    found = numpy(asked_of(Network()).ask(X_T, T, TOLD, scale))
    alone = [asked_of(Network()).ask(X_T, T, labels) for labels in (TOLD, np.full(3, -1))]
    told, untold = map(numpy, alone)
    np.testing.assert_allclose(found, 2 * told - untold, atol=1e-5)


def test_the_clean_image_is_clipped_after_it_was_guided():
    scale = np.full(3, 3.0, "float32")
    free, held = (numpy(asked_of(Network(), clip=c)(X_T, T, TOLD, scale)) for c in (False, True))
    assert np.abs(free).max() > 1
    np.testing.assert_array_equal(held, free.clip(-1, 1))


def test_a_learned_variance_is_the_told_one():
    scale = np.full(3, 3.0, "float32")
    asked = asked_of(Network(channels=2), "learned")
    _, guided_variance = asked.with_variance(X_T, T, TOLD, scale)
    _, told_variance = asked.with_variance(X_T, T, TOLD)
    np.testing.assert_array_equal(numpy(guided_variance), numpy(told_variance))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 3, 1]), r"labels\[1\]=3: digit must be a whole number from 0 to 2"),
        (np.array([0.0, 1.0, 1.0]), "labels are of type float64, and must be whole numbers"),
        (np.array([0, 1]), r"labels have shape \(2,\), but must be \(3,\)"),
    ],
)
def test_labels_that_it_does_not_know_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        asked_of(Network())(X_T, T, labels)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_walks_with_guidance(name):
    """As with a denoise function that has label and scale in itself."""
    network = Network()
    told = [np.array([1, 0], "int32"), np.array([2.0, 3.0], "float32")]
    asked, shape = asked_of(network), (2, 2, 2, 1)
    found = walk(SAMPLERS[name], asked, SCHEDULE, shape, seed=0, steps=3, told=told)

    def alone(x_t, t):
        both = (told[0], np.array([-1, -1]))
        answers = [numpy(network([x_t, t, labels])) for labels in both]
        answer = answers[1] + told[1].reshape(-1, 1, 1, 1) * (answers[0] - answers[1])
        return Denoiser(lambda *_, **__: answer, SCHEDULE)(x_t, t)

    expected = walk(SAMPLERS[name], alone, SCHEDULE, shape, seed=0, steps=3)
    np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-4)
    plain = walk(SAMPLERS[name], asked, SCHEDULE, shape, seed=0, steps=3, told=told[:1])
    assert np.abs(numpy(plain) - numpy(found)).max() > 0.01


def test_a_network_that_is_told_nothing_is_a_plain_denoiser():
    assert type(denoiser(Network(), SCHEDULE, "noise", "fixed_small")) is Denoiser
    asked = denoiser(Network(), SCHEDULE, "noise", "fixed_small", LABELS)
    assert (type(asked), asked.labels) == (GuidedDenoiser, LABELS)


# What is left out in training ---------------------------------------------------------------------


def test_labels_are_left_out_image_by_image():
    """A batch of 100 that loses all or nothing would show 0 or 100; a tenth of 20,000 is 2,000."""
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(5, dtype="int32"), 20)
    lost = [np.sum(without_some(labels, random, 0.1) == -1) for _ in range(200)]
    assert abs(sum(lost) - 2000) < 5 * np.sqrt(1800)
    assert max(lost) < 40


def test_all_labels_of_an_image_are_left_out_together():
    labels = np.ones((4000, 3), "int32")
    left = without_some(labels, np.random.default_rng(0), 0.3)
    assert left.dtype == np.int32
    assert set(map(tuple, left.tolist())) == {(1, 1, 1), (-1, -1, -1)}
    assert abs(np.mean(left == -1) - 0.3) < 0.05
    assert labels.min() == 1  # which are the data set's


def test_where_nothing_is_left_out_nothing_is_drawn():
    random, labels = np.random.default_rng(0), np.arange(3)
    assert without_some(labels, random, 0.0) is labels
    assert without_some(None, random, 0.5) is None
    assert random.random() == np.random.default_rng(0).random()


# Where to guide, and how far ----------------------------------------------------------------------


def test_between_two_sigmas_only_guidance_is_on():
    sigma = np.sqrt(1 / SCHEDULE.alphas_cumprod - 1)
    t = np.arange(20, dtype="int32")
    found = numpy(only_between(SCHEDULE, t, np.full(20, 5.0), np.tile([0.5, 2.0], (20, 1))))
    expected = np.where((sigma >= 0.5) & (sigma <= 2.0), 5.0, 1.0)
    np.testing.assert_array_equal(found, expected)
    assert {1.0, 5.0} == set(found.tolist())


def test_outside_of_its_interval_a_network_is_told_and_not_guided():
    scale, interval = np.full(3, 4.0, "float32"), np.tile(np.float32([0.5, 2.0]), (3, 1))
    asked = asked_of(Network())
    found = numpy(asked.ask(X_T, T, TOLD, scale, interval))
    told, led = numpy(asked.ask(X_T, T, TOLD)), numpy(asked.ask(X_T, T, TOLD, scale))
    np.testing.assert_allclose(found[[0, 2]], told[[0, 2]], atol=1e-5)  # σ 0.3 and 2,000
    np.testing.assert_allclose(found[1], led[1], atol=1e-5)
    assert np.abs(led - told)[1].max() > 1


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rescaling_brings_the_spread_back(share):
    told, led = (np.random.default_rng(i).standard_normal((4, 5, 5, 2)) for i in (1, 2))
    led = 3 * led + 0.5
    found = numpy(rescaled(*map(ops.convert_to_tensor, (led, told)), share))
    spreads = [x.std(axis=(1, 2, 3)) for x in (told, led, found)]
    np.testing.assert_allclose(spreads[2], share * spreads[0] + (1 - share) * spreads[1], rtol=1e-4)
    np.testing.assert_allclose(numpy(rescaled(led, told, 0.0)), led, rtol=1e-5)


def test_a_worse_network_leads_away_from_itself():
    good = Denoiser(lambda shown, training=False: 0.2 * shown[0], SCHEDULE)
    worse = Denoiser(lambda shown, training=False: 0.5 * shown[0], SCHEDULE)
    x_t, t = X_T[:2], T[:2]
    found = numpy(autoguided(good, worse, 3.0)(x_t, t))
    led = Denoiser(lambda shown, training=False: (0.5 + 3 * (0.2 - 0.5)) * shown[0], SCHEDULE)
    np.testing.assert_allclose(found, numpy(led(x_t, t)), atol=1e-5)


# The world of one dimension -----------------------------------------------------------------------

PAPER = NoiseSchedule(make_betas("linear", 200))
LEFT = GaussianMixture([1.0], [-0.4], [0.25])
RIGHT = GaussianMixture([0.5, 0.5], [0.1, 0.7], [0.2, 0.1])
WORLD = LabelledWorld([LEFT, RIGHT], [0.6, 0.4], PAPER)
LINE = np.linspace(-4, 4, 8001)


def total(density):
    return np.sum(density) * (LINE[1] - LINE[0])


def test_a_world_of_classes_is_their_mixture():
    np.testing.assert_allclose(
        WORLD.whole.pdf(LINE), 0.6 * LEFT.pdf(LINE) + 0.4 * RIGHT.pdf(LINE), atol=1e-12
    )
    x_t, t = np.array([[0.3], [-0.2]]), np.array([50, 120], "int32")
    exact = MixtureDenoiser(WORLD.whole, PAPER)
    np.testing.assert_allclose(numpy(WORLD(x_t, t)), numpy(exact(x_t, t)), atol=1e-6)
    told = [numpy(MixtureDenoiser(one, PAPER)(x_t, t)) for one in (LEFT, RIGHT)]
    found = numpy(WORLD(x_t, t, np.array([1, 0])))
    np.testing.assert_allclose(found, [told[1][0], told[0][1]], atol=1e-6)
    nothing = numpy(WORLD(x_t, t, np.array([-1, -1])))
    np.testing.assert_allclose(nothing, numpy(exact(x_t, t)), atol=1e-6)
    with pytest.raises(ValueError, match="must be one for each of the 2 classes"):
        LabelledWorld([LEFT, RIGHT], [1.0], PAPER)


def test_the_product_at_scale_1_is_the_class_and_at_0_the_whole():
    np.testing.assert_allclose(WORLD.product_pdf(LINE, 1, 1.0), RIGHT.pdf(LINE), atol=1e-9)
    np.testing.assert_allclose(WORLD.product_pdf(LINE, 1, 0.0), WORLD.whole.pdf(LINE), atol=1e-9)
    assert total(WORLD.product_pdf(LINE, 1, 3.0)) == pytest.approx(1)


def test_the_denoiser_of_the_product_is_bayes_s_rule():
    """At scale 1 that is known in closed form; at others, by SciPy's integration."""
    x_t, t = np.linspace(-2, 2, 9), np.full(9, 90, "int32")
    known = RIGHT.expected_x_start(x_t, np.full(9, PAPER.alphas_cumprod[90]))
    np.testing.assert_allclose(numpy(WORLD.product_denoiser(1, 1.0)(x_t, t)), known, atol=1e-4)
    kept = PAPER.alphas_cumprod[90]

    def joint(x, power, seen):
        product = np.exp(
            np.log(WORLD.whole.pdf(x)) + 3.0 * np.log(0.4 * RIGHT.pdf(x) / WORLD.whole.pdf(x))
        )
        return x**power * product * np.exp(-((seen - np.sqrt(kept) * x) ** 2) / (2 * (1 - kept)))

    found = numpy(WORLD.product_denoiser(1, 3.0)(x_t, t))
    for seen, value in zip(x_t[2:7:2], found[2:7:2], strict=True):
        ends = [quad(joint, -2, 2, (power, seen), limit=200)[0] for power in (1, 0)]
        assert value == pytest.approx(ends[0] / ends[1], abs=1e-3)


def test_guidance_is_the_product_without_noise_and_another_with_it():
    """Of densities under noise, the product is not that of the densities, under noise."""
    x = np.array([-0.2, 0.0, 0.3])
    label, scale = np.ones(3, "int32"), np.full(3, 3.0)
    differ = []
    for t in (0, 60):
        at = np.full(3, t, "int32")
        led, product = numpy(WORLD(x, at, label, scale)), WORLD.product_denoiser(1, 3.0)(x, at)
        way = np.abs(led - x / np.sqrt(PAPER.alphas_cumprod[t])).max()  # that is led at all
        differ.append(np.abs(led - numpy(product)).max() / way)
    assert differ[0] < 0.05
    assert differ[1] > 0.3


def test_a_guided_walk_does_not_end_in_the_product():
    n, label, scale = 1500, 1, 3.0
    told = [np.full(n, label, "int32"), np.full(n, scale, "float32")]
    ways = {"led": (WORLD, told), "product": (WORLD.product_denoiser(label, scale), [])}
    ends = {
        name: numpy(walk(ddim_step, asked, PAPER, (n, 1), seed=0, steps=40, told=extra)).ravel()
        for name, (asked, extra) in ways.items()
    }
    cumulated = np.cumsum(WORLD.product_pdf(LINE, label, scale)) * (LINE[1] - LINE[0])
    off = {
        name: kstest(values, lambda x: np.interp(x, LINE, cumulated)).statistic
        for name, values in ends.items()
    }
    assert off["product"] < 0.1
    assert off["led"] > 0.4


# Inpainting ---------------------------------------------------------------------------------------


def test_the_known_part_is_under_the_noise_of_where_the_step_ends():
    images, known = np.full((4000, 2), 0.5, "float32"), np.array([True, False])
    z = np.random.default_rng(0).standard_normal((4000, 2)).astype("float32")
    t, s = (np.full(4000, place, "int32") for place in (15, 6))
    step = replacing(ddim_step, images, known)
    x_s, _ = map(numpy, step(lambda x, t: 0 * x, SCHEDULE, z, t, s, z))
    kept = SCHEDULE.alphas_cumprod[6]
    assert x_s[:, 0].mean() == pytest.approx(0.5 * np.sqrt(kept), abs=0.05)
    assert x_s[:, 0].std() == pytest.approx(np.sqrt(1 - kept), rel=0.05)
    plain, _ = map(numpy, ddim_step(lambda x, t: 0 * x, SCHEDULE, z, t, s, z))
    np.testing.assert_array_equal(x_s[:, 1], plain[:, 1])
    clean, _ = map(numpy, step(lambda x, t: 0 * x, SCHEDULE, z, t, np.full(4000, -1), z))
    np.testing.assert_array_equal(clean[:, 0], images[:, 0])


@pytest.mark.parametrize("s", [-1, 3])
def test_noised_again_is_equation_4_by_another_way(s):
    random = np.random.default_rng(0)
    places = [np.full(20_000, place, "int32") for place in (s, 12)]
    kept = np.append(1.0, SCHEDULE.alphas_cumprod)[[s + 1, 13]]
    x_s = np.sqrt(kept[0]) * 0.7 + np.sqrt(1 - kept[0]) * random.standard_normal((20_000, 1))
    x_t = numpy(noised_again(SCHEDULE, x_s, *places, random.standard_normal((20_000, 1))))
    assert x_t.mean() == pytest.approx(np.sqrt(kept[1]) * 0.7, abs=0.03)
    assert x_t.var() == pytest.approx(1 - kept[1], rel=0.04)


def test_taken_again_the_unknown_half_agrees_with_the_known_one():
    """Two pixels that go together: knowing one of them, the other is a known bell."""
    going_together, n = 0.9, 3000
    covariance = np.array([[1.0, going_together], [going_together, 1.0]])

    def exact(x_t, t):
        kept = SCHEDULE.alphas_cumprod[np.asarray(t)[0]]
        gain = (
            np.sqrt(kept) * covariance @ np.linalg.inv(kept * covariance + (1 - kept) * np.eye(2))
        )
        return numpy(x_t) @ gain.T

    images = np.tile(np.float32([1.5, 0.0]), (n, 1))
    how = {"known": np.array([True, False]), "seed": 0}
    once, often = (numpy(inpaint(exact, SCHEDULE, images, again=again, **how)) for again in (1, 6))
    for drawn in (once, often):
        np.testing.assert_array_equal(drawn[:, 0], images[:, 0])
    wanted = going_together * 1.5
    errors = [abs(drawn[:, 1].mean() - wanted) for drawn in (once, often)]
    assert errors[1] < 0.1 < errors[0]
    assert often[:, 1].std() == pytest.approx(np.sqrt(1 - going_together**2), abs=0.12)
    with pytest.raises(ValueError, match="again must be a whole number of at least 1"):
        inpaint(exact, SCHEDULE, images, again=0, **how)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 4, 4, 1), 255, "uint8"), r"from 255 to 255, but must lie in \[-1, 1\]"),
        (np.linspace(0, 255, 32).reshape(2, 4, 4, 1), r"It looks like \[0, 255\]: convert with"),
        (np.full((2, 4, 4, 1), np.nan), "Remove what is not finite"),
    ],
)
def test_pixels_and_nan_are_no_images_to_go_on_with(images, message):
    for door in (
        lambda: inpaint(lambda x, t: x, SCHEDULE, images, True),
        lambda: replacing(ddim_step, images, True),
        lambda: restart(lambda x, t: x, SCHEDULE, images, 1.0),
        lambda: interpolate(lambda x, t: x, SCHEDULE, images[0], 0 * images[0], 5),
    ):
        with pytest.raises(ValueError, match=message):
            door()


@pytest.mark.parametrize("known", [np.ones((4, 4), bool), np.ones((3, 4, 4, 1), bool)])
def test_what_is_known_has_to_fit_the_images(known):
    images = np.zeros((2, 4, 4, 1), "float32")
    for door in (
        lambda: inpaint(lambda x, t: x, SCHEDULE, images, known),
        lambda: what_is_known(images, known),
    ):
        with pytest.raises(ValueError, match=r"known has shape .*known\[\.\.\., None\]"):
            door()


# Inpainting by a network that is shown what is known --------------------------------------------

TOLD_UNET = dataclasses.replace(SMALLEST_UNET, labels=LABELS)
SMALL_IMAGES = np.random.default_rng(1).uniform(-1, 1, (12, 4, 4, 1)).astype("float32")
LEFT_HALF = np.arange(4).reshape(1, 4, 1) < 2


def trained_unet(parameters=SMALLEST_UNET):
    """A network whose weights are all far from 0, as if it had been trained."""
    keras.utils.set_random_seed(0)
    network, random = build_unet(parameters), np.random.default_rng(0)
    network.set_weights([0.5 * random.standard_normal(w.shape) for w in network.get_weights()])
    return network


def shown_to(parameters):
    x_t = np.random.default_rng(2).standard_normal((3, 4, 4, 1)).astype("float32")
    return x_t, T, *([TOLD] if parameters.labels else [])


@pytest.mark.parametrize(
    ("parameters", "precision"),
    [(SMALLEST_UNET, "float32"), (TOLD_UNET, "float32"), (SMALLEST_UNET, "mixed_bfloat16")],
)
def test_a_network_shown_what_is_known_begins_as_the_old_one(parameters, precision):
    with dtype_policy(precision):
        old = trained_unet(parameters)
        kept, network = old.get_weights(), inpainting_network(old)
    x_t, t, *labels = shown_to(parameters)
    t = np.float32(t + 980)  # 999 is 1000 in bfloat16
    known = what_is_known(SMALL_IMAGES[:3], LEFT_HALF)
    answer, before = numpy(network([x_t, t, known, *labels])), numpy(old([x_t, t, *labels]))
    np.testing.assert_array_equal(answer, before)
    assert np.abs(answer).max() > 0.1
    at_once = [CompiledNetwork(one).at_once for one in (network, old)]
    assert 0.8 * at_once[1] < at_once[0] <= at_once[1]
    for weight in network.weights:
        weight.assign(weight + 0.1)
    assert np.abs(numpy(network([x_t, t, known, *labels])) - answer).max() > 0.01
    np.testing.assert_array_equal(numpy(old([x_t, t, *labels])), before)
    for weight, value in zip(old.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_it_looks_at_pixels_and_at_where_they_are_known():
    network = inpainting_network(trained_unet())
    new = network.get_layer("first-known")
    assert new.kernel.shape[2:] == (2, 4)
    new.kernel.assign(new.kernel + 0.5)
    x_t, t = shown_to(SMALLEST_UNET)
    images, grey = SMALL_IMAGES[:3], 0 * SMALL_IMAGES[:3]
    answers = [
        numpy(network([x_t, t, what_is_known(*seen)]))
        for seen in ((images, LEFT_HALF), (grey, LEFT_HALF), (grey, ~LEFT_HALF), (images, False))
    ]
    for i, answer in enumerate(answers):
        for other in answers[:i]:
            assert np.abs(answer - other).max() > 1e-3


def test_what_is_known_says_nothing_of_unknown_pixels():
    known = np.random.default_rng(0).random((12, 4, 4, 1)) < 0.5
    found = what_is_known(SMALL_IMAGES, known)
    other = np.where(known, SMALL_IMAGES, -0.9)
    np.testing.assert_array_equal(found, what_is_known(other, known))
    assert (found.dtype, found.shape) == (np.float32, (12, 4, 4, 2))
    place = known[..., 0]
    np.testing.assert_array_equal(found[place][:, 0], SMALL_IMAGES[place][:, 0])
    assert set(found[place][:, 1]) == {1.0}
    assert not found[~place].any()
    with pytest.raises(ValueError, match="could not be broadcast"):
        what_is_known(SMALL_IMAGES, known[:5])


def test_random_parts_are_rectangles_one_for_each_image():
    n, side = 20_000, 4
    unknown = ~random_known(np.random.default_rng(0), (n, side, side, 3))
    assert unknown.shape == (n, side, side, 1)
    rows, columns = unknown.any((2, 3)), unknown.any((1, 3))
    np.testing.assert_array_equal(unknown[..., 0], rows[:, :, None] & columns[:, None])
    for ends in (rows, columns):  # in one piece: they begin at most once
        assert np.sum(np.diff(ends.astype(int), axis=1, prepend=0) == 1, axis=1).max() == 1
    assert unknown.any((1, 2, 3)).all()
    # Both ends are put at the edge, or one is and the other is drawn there, or both are drawn so.
    whole = 1 / 4 + 1 / 2 * (1 - (3 / 4) ** 2) + 1 / 4 * (2 / 4**2)
    assert rows.all(axis=1).mean() == pytest.approx(whole, abs=0.02)
    assert unknown.all((1, 2, 3)).mean() == pytest.approx(whole**2, abs=0.02)
    lower_half = ~rows[:, :2].any(axis=1) & rows[:, 2:].all(axis=1) & columns.all(axis=1)
    assert lower_half.mean() > 0.01


def asked_with_a_known_part(**options):
    told = dataclasses.replace(TINY, unet=TOLD_UNET)
    model = DiffusionModel(told, seed=3)
    labels, weights = np.arange(12, dtype="int32") % 3, np.linspace(0.5, 1.5, 12)
    asked = model.questions(SMALL_IMAGES, labels, weights, batch_size=6, **options)
    return InpaintingQuestions(asked), asked, model.schedule


def test_questions_are_the_old_ones_with_a_part_known():
    both, asked, schedule = asked_with_a_known_part(label_dropping=0.5)
    assert len(both) == len(asked) == 2
    for number in range(2):
        (x_t, t, known, labels), made_of, weights = both.batch(0, number)
        old_shown, _, old_weights = asked.batch(0, number)
        for new, old in zip((x_t, t, labels, weights), (*old_shown, old_weights), strict=True):
            np.testing.assert_array_equal(new, old)
        a, b = schedule.rates(t, 4)
        np.testing.assert_allclose(x_t, a * made_of["x_start"] + b * made_of["noise"], atol=1e-6)
        place = known[..., -1] == 1
        np.testing.assert_array_equal(known[..., 0], np.where(place, made_of["x_start"][..., 0], 0))
        assert len({part.tobytes() for part in place}) > 3
    masks = [both.batch(epoch, 0)[0][2][..., -1] for epoch in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    again, _, _ = asked_with_a_known_part(label_dropping=0.5)
    np.testing.assert_array_equal(again.batch(0, 0)[0][2][..., -1], masks[0])


def test_questions_take_any_masks_and_are_alike_in_a_measurement():
    _, asked, _ = asked_with_a_known_part(always_alike=True)
    seen = []

    def left(random, shape):
        seen.append(shape)
        return LEFT_HALF

    both = InpaintingQuestions(asked, left)
    known = both[0][0][2]
    both.on_epoch_end()
    np.testing.assert_array_equal(both[0][0][2], known)
    assert (both.epoch, seen[0]) == (0, (6, 4, 4, 1))
    np.testing.assert_array_equal(known[..., -1], np.tile(LEFT_HALF[..., 0], (6, 4, 1)))


def test_guidance_says_what_is_known_both_times():
    class Beside(Network):
        def __call__(self, shown, training=False):
            x_t, t, known, labels = shown
            return super().__call__([x_t + 100 * known[..., :1], t, labels])

    scale, known = np.full(3, 3.0, "float32"), np.random.default_rng(4).random((3, 2, 2, 2), "f4")
    asked = dataclasses.replace(asked_of(Beside()), beside=1)
    found = numpy(asked.ask(X_T, T, known, TOLD, scale))
    told, untold = (
        numpy(asked_of(Network()).ask(X_T + 100 * known[..., :1], T, labels))
        for labels in (TOLD, np.full(3, -1))
    )
    np.testing.assert_allclose(found, untold + 3 * (told - untold), atol=1e-4)
    np.testing.assert_allclose(numpy(asked.ask(X_T, T, known, TOLD)), told, atol=1e-5)
    np.testing.assert_allclose(numpy(asked.ask(X_T, T, known)), untold, atol=1e-5)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_walks_with_what_is_known(name):
    known = what_is_known(X_T.clip(-1, 1), X_T > 0)

    def network(shown, training=False):
        return 0.2 * shown[0] + shown[2][..., :1] - 0.5 * shown[2][..., 1:]

    def closed(shown, training=False):
        return network([*shown, ops.convert_to_tensor(known)])

    near = {"x_T": X_T / 4, "seed": 0, "steps": 3}  # where not all is clipped
    drawn = [
        numpy(walk(SAMPLERS[name], asked, SCHEDULE, X_T.shape, told=told, **near))
        for asked, told in (
            (Denoiser(network, SCHEDULE), [known]),
            (Denoiser(closed, SCHEDULE), []),
            (Denoiser(network, SCHEDULE), [0 * known]),
        )
    ]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-5)
    assert np.abs(drawn[0] - drawn[2]).max() > 0.01


def test_a_model_draws_with_what_is_known_labels_and_a_scale():
    """All at once in compiled steps: as by its network, asked step by step."""
    network = inpainting_network(trained_unet(TOLD_UNET))
    network.get_layer("first-known").kernel.assign(np.full((3, 3, 2, 4), 0.5, "float32"))
    model = DiffusionModel(dataclasses.replace(TINY, unet=TOLD_UNET), seed=0, network=network)
    known = what_is_known(SMALL_IMAGES[:2], LEFT_HALF)
    how = {"steps": 4, "seed": 1}
    drawn = model.sample(2, step="ddim", told=[known], labels=[2, 0], guidance_scale=3.0, **how)

    def denoise(x_t, t):
        told, untold = (
            numpy(network([numpy(x_t), numpy(t), known, np.array(labels, "int32")]))
            for labels in ([2, 0], [-1, -1])
        )
        answer = untold + 3.0 * (told - untold)
        return Denoiser(lambda *_, **__: answer, model.schedule)(x_t, t)

    expected = walk(ddim_step, denoise, model.schedule, (2, 4, 4, 1), **how)
    np.testing.assert_allclose(drawn, numpy(expected), atol=1e-3)
    other = what_is_known(-SMALL_IMAGES[:2], LEFT_HALF)
    elsewhere = model.sample(2, step="ddim", told=[other], labels=[2, 0], **how)
    assert np.abs(elsewhere - drawn).max() > 0.01


def test_trained_on_it_fills_in_what_the_known_half_decides():
    """Images are all light or all dark: half of one says what the other half is."""
    light = np.arange(64) % 2 == 0
    images = np.where(light, 0.6, -0.6).astype("float32").reshape(-1, 1, 1, 1) * np.ones((4, 4, 1))
    training = dataclasses.replace(TINY.training, learning_rate=1e-2, decay_steps=150)
    parameters = dataclasses.replace(
        TINY, unet=SMALLEST_UNET, training=training, prediction="x_start"
    )
    keras.utils.set_random_seed(0)
    network = inpainting_network(build_unet(SMALLEST_UNET))
    model = DiffusionModel(parameters, seed=0, network=network)
    model.compile()
    asked = InpaintingQuestions(
        model.questions(np.float32(images), batch_size=32, steps_per_epoch=50)
    )
    model.fit(asked, verbose=0)
    half, nothing = (
        model.sample(64, seed=0, step="ddim", steps=5, told=[what_is_known(images, known)])
        for known in (LEFT_HALF, False)
    )
    assert np.mean((half[:, :, 2:].mean((1, 2, 3)) > 0) == light) > 0.95
    assert 0.2 < np.mean(nothing.mean((1, 2, 3)) > 0) < 0.8
