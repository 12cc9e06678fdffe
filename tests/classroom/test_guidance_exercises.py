"""Exercises of chapter 10: solutions are right, foreseen mistakes get their own hints."""

import itertools
import math

import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.backward_sampling import walk
from diffusion_walkthrough.classroom.exercises import guidance as ask
from diffusion_walkthrough.faster_sampling import ddim_step
from diffusion_walkthrough.gaussian_mixture import GaussianMixture
from diffusion_walkthrough.guidance import (
    GuidedDenoiser,
    LabelledWorld,
    guided,
    replacing,
    without_some,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

root = np.sqrt

GUIDED_MISTAKES = {
    "off at 0": lambda told, untold, s: told + s * (told - untold),
    "(1 + w) told": lambda told, untold, s: (1 + s) * told - s * untold,
    "away from the label": lambda told, untold, s: told + s * (untold - told),
    "changed places": lambda told, untold, s: s * untold + (1 - s) * told,
    "to the label it is": lambda told, untold, s: untold + s * (untold - told),
    "s - 1 belongs": lambda told, untold, s: untold + (s - 1) * (told - untold),
    "has moved the answer": lambda told, untold, s: told - (s - 1) * (told - untold),
    "the way alone": lambda told, untold, s: s * (told - untold),
    "what the label changes. Go": lambda told, untold, s: told - untold,
    "does not make an answer larger": lambda told, untold, s: s * told,
    "told less untold": lambda told, untold, s: untold + s * told,
    "add up to 1": lambda told, untold, s: s * told - untold,
    "guidance off": lambda told, untold, s: told,
    "nobody has asked": lambda told, untold, s: untold,
    "half-way": lambda told, untold, s: (told + untold) / 2,
    "A weighted mean": lambda told, untold, s: (s * told + untold) / (s + 1),
}


def dropping(chosen, unsaid=-1):
    return lambda labels, random, share: np.where(chosen(labels, random, share), unsaid, labels)


def per_image(labels, random, share):
    return random.random((len(labels), 1)) < share


def in_place(labels, random, share):
    labels[random.random(len(labels)) < share] = -1
    return labels


DROP_MISTAKES = {
    "Decide once for an image": dropping(lambda x, random, share: random.random(x.shape) < share),
    "treated alike": dropping(lambda x, random, share: random.random() < share),
    "Decide for each image.": dropping(lambda x, random, share: random.random(3) < share),
    "0 is the first class": dropping(per_image, 0),
    "not said is -1 here": dropping(per_image, np.nan),
    "have become 4": dropping(per_image, 4),
    "array that it is given changes": in_place,
    "turn the comparison": dropping(lambda x, random, share: random.random((len(x), 1)) > share),
    "Images are missing": lambda x, random, share: x[random.random(len(x)) > share],
    "One number for each image": lambda x, random, share: random.random(len(x)) < share,
    "same places": dropping(lambda x, random, share: np.arange(len(x))[:, None] < share * len(x)),
    "equally many": dropping(lambda x, random, share: random.permutation(len(x))[:, None] < 16),
    "No label is left out": dropping(lambda *_: False),
    "All labels are left out": dropping(lambda *_: True),
    "0.16 lose": dropping(lambda x, random, share: random.random((len(x), 1)) < share**2),
    "met the last axis": dropping(lambda x, random, share: random.random(len(x)) < share),
}


def placing(part):
    return lambda x, image, known, t, s, z: np.where(known, part(image, t, s, z), x)


REPLACE_MISTAKES = {
    "the clean image": placing(lambda i, t, s, z: i),
    "noise of t": placing(lambda i, t, s, z: root(t) * i + root(1 - t) * z),
    "both factors belong": placing(lambda i, t, s, z: root(s) * i + root(1 - t) * z),
    "The image of one step": placing(lambda i, t, s, z: root(t) * i + root(1 - s) * z),
    "has no noise": placing(lambda i, t, s, z: root(s) * i),
    "image is weaker": placing(lambda i, t, s, z: i + root(1 - s) * z),
    "has a factor before": placing(lambda i, t, s, z: i + z),
    "too strong": placing(lambda i, t, s, z: root(s) * i + z),
    "not taken away": placing(lambda i, t, s, z: root(s) * i - root(1 - s) * z),
    "are roots": placing(lambda i, t, s, z: s * i + (1 - s) * z),
    "factors have changed places": placing(lambda i, t, s, z: root(1 - s) * i + root(s) * z),
    "inverted": lambda x, i, known, t, s, z: np.where(known, x, root(s) * i + root(1 - s) * z),
    "the rest stays as drawn": lambda x, i, known, t, s, z: np.where(known, x, i),
    "nothing of what was drawn": lambda x, i, known, t, s, z: root(s) * i + root(1 - s) * z,
    "Nothing has been put in": lambda x, i, known, t, s, z: x,
    "is gone": lambda x, i, known, t, s, z: known * (root(s) * i + root(1 - s) * z),
    "on top of it": lambda x, i, known, t, s, z: x + known * (root(s) * i + root(1 - s) * z),
}
FUNCTIONS = [
    (check, hint, attempt)
    for check, mistakes in (
        (ask.check_guided, GUIDED_MISTAKES),
        (ask.check_drop, DROP_MISTAKES),
        (ask.check_replace, REPLACE_MISTAKES),
    )
    for hint, attempt in mistakes.items()
]


@pytest.mark.parametrize(("check", "hint", "attempt"), FUNCTIONS)
def test_each_mistake_gets_its_hint(check, hint, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert hint in verdict.message


def into(drawn, image, known, t, s, z):
    drawn[known] = (root(s) * image + root(1 - s) * z)[known]
    return drawn


def one_by_one(labels, random, share):
    return [[-1] * 3 if random.random() < share else list(row) for row in labels]


RIGHT = [
    (ask.check_guided, ask.solution_guided),
    (ask.check_guided, lambda told, untold, s: s * told + (1 - s) * untold),
    (ask.check_guided, lambda told, untold, s: told + (s - 1) * (told - untold)),
    (ask.check_drop, ask.solution_drop),
    (ask.check_drop, without_some),
    (ask.check_drop, dropping(lambda x, random, share: random.binomial(1, share, (len(x), 1)))),
    (ask.check_drop, dropping(lambda x, random, share: random.random((len(x), 1)) >= 1 - share)),
    (ask.check_drop, one_by_one),
    (ask.check_replace, ask.solution_replace),
    (ask.check_replace, into),
    (
        ask.check_replace,
        lambda x, i, known, t, s, z: (1 - known) * x + known * (root(s) * i + root(1 - s) * z),
    ),
    (ask.check_paper_scale, ask.solution_paper_scale),
    (ask.check_dropped_apart, 0.1**5),
    (ask.check_evaluations, 50 + 25),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_are_right_in_every_form(check, answer):
    assert check(answer).right is True


def test_solutions_are_what_the_package_does():
    told, untold = np.random.default_rng(0).standard_normal((2, 5))
    found = ops.convert_to_numpy(guided(told, untold, 7.0))
    np.testing.assert_allclose(ask.solution_guided(told, untold, 7.0), found, atol=1e-5)
    labels = np.arange(60).reshape(20, 3)
    ours, theirs = (
        drop(labels, np.random.default_rng(0), 0.3) for drop in (ask.solution_drop, without_some)
    )
    np.testing.assert_array_equal(ours, theirs)
    schedule = NoiseSchedule(make_betas("cosine", 20))
    image, z, known = *np.random.default_rng(1).standard_normal((2, 6)), np.arange(6) < 3
    places = np.array([12]), np.array([7])
    step = replacing(ddim_step, image[None], known)
    x, _ = step(lambda x, t: 0.3 * x, schedule, z[None], *places, z[None])
    drawn, _ = ddim_step(lambda x, t: 0.3 * x, schedule, z[None], *places, z[None])
    kept = [schedule.alphas_cumprod[place[0]] for place in places]
    mine = ask.solution_replace(ops.convert_to_numpy(drawn)[0], image, known, *kept, z)
    np.testing.assert_allclose(mine, ops.convert_to_numpy(x)[0], atol=1e-5)


WRONG_NUMBERS = [
    (ask.check_paper_scale, 3, "same guidance"),
    (ask.check_paper_scale, 2, "which way"),
    (ask.check_paper_scale, 5, "not twice"),
    (ask.check_paper_scale, 0, "nothing is added"),
    (ask.check_paper_scale, 1, "guidance is off"),
    (ask.check_paper_scale, -3, "below 0"),
    (ask.check_paper_scale, 9, "Count how often"),
    (ask.check_paper_scale, 0.75, "Neither divides"),
    (ask.check_dropped_apart, 0.1, "one label is missing"),
    (ask.check_dropped_apart, 0.5, "on average"),
    (ask.check_dropped_apart, 0.59, "keep all 5"),
    (ask.check_dropped_apart, 0.9**5, "keep all 5"),
    (ask.check_dropped_apart, 0.41, "at least one"),
    (ask.check_dropped_apart, 0.328, "just one"),
    (ask.check_dropped_apart, 0.02, "Not divided"),
    (ask.check_dropped_apart, 0.1**4, "four of them"),
    (ask.check_dropped_apart, 0.1**6, "would be six"),
    (ask.check_dropped_apart, 5e-5, "only one way"),
    (ask.check_dropped_apart, 0.2**5, "dropped with 0.1"),
    (ask.check_dropped_apart, 0.9, "is kept"),
    (ask.check_dropped_apart, 0.1 * 0.9**4, "four kept"),
    (ask.check_dropped_apart, 0, "not never"),
    (ask.check_evaluations, 50, "the untold one is needed as well"),
    (ask.check_evaluations, 100, "guidance everywhere"),
    (ask.check_evaluations, 25, "goes on as well"),
    (ask.check_evaluations, 150, "three answers"),
    (ask.check_evaluations, 125, "no step needs more"),
    (ask.check_evaluations, 1.5, "on average"),
    (ask.check_evaluations, 37.5, "less than one"),
    (ask.check_evaluations, 200, "more than two"),
    (ask.check_evaluations, 51, "not once more"),
    (ask.check_evaluations, 49, "the last one too"),
    (ask.check_evaluations, 2, "one guided step"),
]


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG_NUMBERS)
def test_wrong_numbers_get_their_hint(check, answer, hint):
    verdict = check(answer)
    assert verdict.right is False
    assert hint in verdict.message


REPLIES = {
    ask.check_too_alike: ("c", {"a": "way that leads there", "b": "by factor", "d": "to guide by"}),
    ask.check_autoguidance: ("b", {"a": "what is good", "c": "less variety", "d": "by their data"}),
}


@pytest.mark.parametrize("check", REPLIES)
def test_each_letter_gets_its_own_reply(check):
    right, replies = REPLIES[check]
    assert check(right).right is True
    for letter, reply in replies.items():
        verdict = check(letter)
        assert verdict.right is False
        assert reply in verdict.message


def test_the_scale_is_the_papers_guidance():
    told, untold = np.random.default_rng(0).standard_normal((2, 5))
    found = ops.convert_to_numpy(guided(told, untold, ask.solution_paper_scale))
    np.testing.assert_allclose(found, told + 3 * (told - untold), atol=1e-5)


def test_the_share_without_any_label_by_counting_all_cases():
    """Each label is kept in nine cases of ten, and so 100,000 cases are alike."""
    assert sum(not any(case) for case in itertools.product(range(10), repeat=5)) == 1
    assert math.isclose(ask.solution_dropped_apart, 1 / 10**5)


class Counting:
    """A network that counts of how many images it is asked, with a label and without."""

    def __init__(self):
        self.told = self.untold = 0

    def __call__(self, shown, training=False):
        x_t, _, labels = shown
        said = ops.convert_to_numpy(labels) >= 0
        self.told, self.untold = self.told + said.sum(), self.untold + (~said).sum()
        answer = np.where(said, 0.6, 0.5).astype("float32").reshape(-1, 1, 1, 1)
        return ops.convert_to_tensor(answer) * x_t


def test_the_numbers_of_answers_are_those_of_walks():
    """What a program asks that asks for no more than it needs, and what the package asks."""
    schedule = NoiseSchedule(make_betas("cosine", 50))
    sigma = np.sqrt(1 / schedule.alphas_cumprod - 1)
    half = (0.99 * sigma[10], 1.01 * sigma[34])
    label, scale, interval = np.array([2]), np.float32([4.0]), np.float32([half])
    sparing, ours = Counting(), Counting()

    def spare(x_t, t):
        ask_for = GuidedDenoiser(sparing, schedule, "noise", "fixed_small", labels=(("digit", 3),))
        inside = half[0] < sigma[t[0]] < half[1]
        return ask_for(x_t, t, label, *([scale] if inside else []))

    asked = GuidedDenoiser(ours, schedule, "noise", "fixed_small", labels=(("digit", 3),))
    told, shape = [label, scale, interval], (1, 2, 2, 1)
    x = walk(ddim_step, asked, schedule, shape, seed=0, steps=50, told=told)
    spared = walk(ddim_step, spare, schedule, shape, seed=0, steps=50)
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (spared, x)), atol=1e-4)
    assert (sparing.told, sparing.untold) == (50, 25)
    assert sparing.told + sparing.untold == ask.solution_evaluations
    assert (ours.told, ours.untold) == (50, 50)


def test_what_is_said_of_images_that_are_too_alike_is_so():
    """A class of two heaps, one of them nearer to the other class: of this heap nothing is left."""
    schedule, n = NoiseSchedule(make_betas("linear", 200)), 400
    sigma = np.sqrt(1 / schedule.alphas_cumprod - 1)
    other = GaussianMixture([1.0], [-0.4], [0.25])
    told = GaussianMixture([0.5, 0.5], [0.1, 0.7], [0.2, 0.1])
    world = LabelledWorld([other, told], [0.6, 0.4], schedule)

    def drawn(scale, low=0.0, high=np.inf, steps=40):
        def asked(x_t, t):
            inside = low <= sigma[t[0]] <= high
            return world(x_t, t, np.ones(n, int), scale if inside else 1.0)

        x = walk(ddim_step, asked, schedule, (n, 1), seed=0, steps=steps)
        return ops.convert_to_numpy(x).ravel().astype("float64")

    def obedience(x):
        return np.mean(0.4 * told.pdf(x) / (0.4 * told.pdf(x) + 0.6 * other.pdf(x)))

    x = {"off": drawn(1), "on": drawn(7), "long": drawn(7, steps=120)}
    x["within"] = drawn(7, 0.05, 0.2)
    spread = {name: values.std() for name, values in x.items()}
    assert spread["on"] < 0.3 * spread["off"]
    assert spread["long"] < 0.3 * spread["off"]  # more steps do not mend it
    assert spread["within"] > 0.5 * spread["off"]
    gain = {name: obedience(values) - obedience(x["off"]) for name, values in x.items()}
    assert gain["on"] > 0.1
    assert gain["within"] > 0.7 * gain["on"]
