"""Each exercise of chapter 03: solutions are right, foreseen mistakes get their own hint."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import show_solution, unet as ask

CHECKS = [
    ask.check_convolution,
    ask.check_bottom_shape,
    ask.check_attention_sizes,
    ask.check_timestep_embedding,
    ask.check_attention_weights,
]


def embedding_of(t, width, exponents=None, sign=-1):
    """The angles of a timestep embedding, with the parts of it that people get wrong."""
    half = width // 2
    exponents = np.arange(half) / (half - 1) if exponents is None else exponents
    return np.asarray(t)[:, None] * 10_000.0 ** (sign * exponents)


def halves(first, second):
    return np.concatenate([first, second], axis=-1)


def half_instead_of_half_minus_one(t, width):
    angles = embedding_of(t, width, np.arange(width // 2) / (width // 2))
    return halves(np.sin(angles), np.cos(angles))


def in_turns(t, width):
    angles = embedding_of(t, width)
    result = np.empty((len(t), width))
    result[:, 0::2], result[:, 1::2] = np.sin(angles), np.cos(angles)
    return result


def cosines_first(t, width):
    angles = embedding_of(t, width)
    return halves(np.cos(angles), np.sin(angles))


def growing(t, width):
    angles = embedding_of(t, width, sign=1)
    return halves(np.sin(angles), np.cos(angles))


def all_sines(t, width):
    return np.sin(embedding_of(t, width, np.arange(width) / (width - 1)))


def softmax(scores, axis=-1):
    return np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)


def root(x):
    return np.sqrt(x.shape[-1])


WRONG = [
    (ask.check_convolution, 73_728, "bias"),
    (ask.check_convolution, 73_792, "as many as new channels"),
    (ask.check_convolution, 8_320, "dense layer"),
    (ask.check_convolution, 24_704, "not three"),
    (ask.check_convolution, 1_280, "each of the 64 old channels"),
    (ask.check_convolution, 704, "Each of the 128 has its own"),
    (ask.check_bottom_shape, (3, 3, 64), "two halvings"),
    (ask.check_bottom_shape, (4, 4, 64), "two halvings"),
    (ask.check_bottom_shape, (14, 14, 64), "middle level"),
    (ask.check_bottom_shape, (7, 7, 128), "counts from the base width"),
    (ask.check_bottom_shape, [7, 7, 32], "2 base widths wide"),
    (ask.check_bottom_shape, (7, 7, 2), "2 base widths of 32"),
    (ask.check_bottom_shape, (64, 7, 7), "channels come last"),
    (ask.check_bottom_shape, (28, 28, 64), "halves height and width"),
    (ask.check_attention_sizes, (0, 1, 2, 3), "numbers of the levels"),
    (ask.check_attention_sizes, (1, 2, 3, 4), "numbers of the levels"),
    (ask.check_attention_sizes, (32, 16, 8, 4, 2), "no level has side 2"),
    (ask.check_attention_sizes, (16, 8, 4), "finest level counts too"),
    (ask.check_attention_sizes, (128, 256, 256, 256), "numbers of channels"),
    (ask.check_attention_sizes, (16,), "what the paper chose"),
    (ask.check_timestep_embedding, half_instead_of_half_minus_one, "k / (half − 1)"),
    (ask.check_timestep_embedding, in_turns, "take turns"),
    (ask.check_timestep_embedding, cosines_first, "Cosines stand first"),
    (ask.check_timestep_embedding, growing, "exponent is negative"),
    (ask.check_timestep_embedding, all_sines, "All sines"),
    (ask.check_timestep_embedding, embedding_of, "These are the angles"),
    (ask.check_attention_weights, lambda q, k: softmax(q @ k.T), "not divided by √C"),
    (ask.check_attention_weights, lambda q, k: softmax(q @ k.T / q.shape[1]), "Divided by C,"),
    (
        ask.check_attention_weights,
        lambda q, k: softmax(q @ k.T / len(q) ** 0.5),
        "number of pixels",
    ),
    (ask.check_attention_weights, lambda q, k: softmax(q @ k.T / root(q), 0), "wrong axis"),
    (ask.check_attention_weights, lambda q, k: softmax(k @ q.T / root(q)), "exchanged"),
    (ask.check_attention_weights, lambda q, k: q @ k.T / root(q), "Those are the scores"),
    (ask.check_attention_weights, lambda q, k: np.exp(q @ k.T / root(q)), "do not sum to 1"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_solutions_are_right_and_can_be_shown(check, capsys):
    solution = getattr(ask, check.__name__.replace("check_", "solution_"))
    assert check(solution).right is True
    show_solution(check)
    assert check.__name__.replace("check_", "solution_") in capsys.readouterr().out


@pytest.mark.parametrize(("check", "attempt", "part"), WRONG)
def test_each_foreseen_mistake_gets_its_own_hint(check, attempt, part):
    verdict = check(attempt)
    assert verdict.right is False
    assert part in verdict.message
    others = {check(wrong).message for c, wrong, p in WRONG if c is check and p != part}
    assert verdict.message not in others


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("attempt", [..., None], ids=["dots", "None"])
def test_no_attempt_is_recognized(check, attempt):
    assert check(attempt).right is None


@pytest.mark.parametrize("check", CHECKS[3:], ids=lambda check: check.__name__)
def test_a_function_that_still_returns_the_dots_is_no_attempt(check):
    assert check(lambda first, second: ...).right is None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("attempt", ["many", -1, np.zeros((2, 3)), 3.5, [[], [1]]], ids=str)
def test_nonsense_gets_a_sentence(check, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert len(verdict.message) > 20


@pytest.mark.parametrize("check", CHECKS[3:], ids=lambda check: check.__name__)
def test_a_function_that_fails_gets_its_reason(check):
    assert "stopped with ZeroDivisionError" in check(lambda first, second: 1 / 0).message
    assert "stopped with TypeError" in check(lambda: 1).message
    assert "shape" in check(lambda first, second: np.zeros(3)).message


def test_the_order_of_attention_sizes_and_their_container_do_not_matter():
    for attempt in [{4, 8, 16, 32}, [4, 8, 16, 32], np.array([8, 4, 32, 16]), (32, 32, 16, 8, 4)]:
        assert ask.check_attention_sizes(attempt).right is True
