"""The exercises of chapter 12 accept their solutions and name what an instrument does not see."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import bug_hunt as ask


@pytest.mark.parametrize(
    "name", [name.removeprefix("check_") for name in vars(ask) if name.startswith("check_")]
)
def test_a_solution_is_right(name):
    verdict = getattr(ask, f"check_{name}")(getattr(ask, f"solution_{name}"))
    assert verdict.right
    assert "show_solution" not in verdict.message


def jumps(jump, t, x_0=1.0, noise=0.0):
    shape = (len(t), 1)
    return np.asarray(jump(np.full(shape, x_0), np.array(t), np.full(shape, noise)))[:, 0]


def only_the_image(jump, alpha_bar):
    return bool(np.allclose(jumps(jump, [70, 3, 40]), np.sqrt(alpha_bar[[70, 3, 40]])))


def only_the_noise(jump, alpha_bar):
    expected = np.sqrt(1 - alpha_bar[[70, 3, 40]])
    return bool(np.allclose(jumps(jump, [70, 3, 40], 0.0, 1.0), expected))


def both(jump, alpha_bar, t):
    expected = np.sqrt(alpha_bar[t]) + np.sqrt(1 - alpha_bar[t])
    return bool(np.allclose(jumps(jump, t, 1.0, 1.0), expected))


@pytest.mark.parametrize(
    ("attempt", "unseen"),
    [
        (only_the_image, "the noise without its root"),
        (only_the_noise, "the image without its root"),
        (lambda jump, a: both(jump, a, [0]) and both(jump, a, [0, 1, 2, 3]), None),
        (lambda jump, a: both(jump, a, np.arange(100)), "a product over the batch"),
        (lambda jump, a: both(jump, a, [60]) and both(jump, a, [2]), "one t for all"),
    ],
)
def test_what_an_instrument_does_not_see_is_named(attempt, unseen):
    verdict = ask.check_own_instrument(attempt)
    assert verdict.right is False
    if unseen:
        assert verdict.message == ask.SICK[unseen][1]


def test_an_instrument_that_always_rings_and_one_that_says_no_word():
    assert "rings for the right program" in ask.check_own_instrument(lambda j, a: False).message
    assert "True or False" in ask.check_own_instrument(lambda j, a: [True]).message


@pytest.mark.parametrize("name", ["first_loss", "only_ancestral", "signed_errors"])
def test_each_letter_has_a_reply(name):
    check, solution = getattr(ask, f"check_{name}"), getattr(ask, f"solution_{name}")
    assert [letter for letter in "abcd" if check(letter).right] == [solution]


def test_numbers_are_what_a_loop_finds():
    left, factor = 1.0, 1.0
    for _ in range(511):
        left *= 0.999
    for _ in range(3):
        factor *= np.sqrt(1 - 0.02)
    assert ask.check_share_of_start(left).right
    assert ask.check_third_image(factor).right
    assert ask.check_third_image(0.97).right
