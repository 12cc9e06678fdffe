"""Exercises of chapters 03 and 03b: solutions are right, foreseen mistakes get their own hint."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.classroom.exercises import show_solution, unet as ask
from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.unet import attention_weights, build_unet, conv

CHECKS = [
    ask.check_convolution,
    ask.check_bottom_shape,
    ask.check_attention_sizes,
    ask.check_timestep_embedding,
    ask.check_attention_weights,
    ask.check_shift_window,
    ask.check_larger_image,
    ask.check_zero_queries,
    ask.check_no_skip,
    ask.check_time_after_norm,
    ask.check_instead_of_root,
    ask.check_unpacking,
]
FUNCTIONS = [ask.check_timestep_embedding, ask.check_attention_weights]


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


def one(row, column):
    window = np.zeros((3, 3))
    window[row, column] = 1
    return window


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
    (ask.check_bottom_shape, (7, 7), "How many channels"),
    (ask.check_bottom_shape, (None, 14, 14, 64), "middle level"),
    (ask.check_shift_window, one(1, 2), "its right neighbour"),
    (ask.check_shift_window, one(1, 1), "nothing moves"),
    (ask.check_shift_window, one(0, 1), "moves down."),
    (ask.check_shift_window, one(2, 1), "moves up."),
    (ask.check_shift_window, one(0, 0), "but down as well"),
    (ask.check_shift_window, one(2, 0), "but up as well"),
    (ask.check_shift_window, [1, 0, 0], "the other two"),
    (ask.check_shift_window, [[1, 0, 0]] * 3, "gets blurred"),
    (ask.check_shift_window, [[-1, 0, 1]] * 3, "nothing is to be subtracted"),
    (ask.check_shift_window, [[1, -1, 0]] * 3, "Differences find edges"),
    (ask.check_shift_window, np.full((3, 3), 1 / 9), "a blur"),
    (ask.check_shift_window, np.ones((3, 3)), "adds up nine pixels"),
    (ask.check_shift_window, np.zeros((3, 3)), "an image of zeros"),
    (ask.check_larger_image, "a", "Four times as many pixels"),
    (ask.check_larger_image, "b", "Twice the side"),
    (ask.check_larger_image, "d", "sixteen times as many pairs"),
    (ask.check_zero_queries, "a", "what is e⁰"),
    (ask.check_zero_queries, "b", "no idea of position"),
    (ask.check_zero_queries, "d", "Nothing is divided by 0"),
    (ask.check_no_skip, "a", "any number of old channels"),
    (ask.check_no_skip, "c", "repeated four times"),
    (ask.check_no_skip, "d", "not through the skips"),
    (ask.check_time_after_norm, "a", "the mean at the moment"),
    (ask.check_time_after_norm, "c", "never held the time"),
    (ask.check_time_after_norm, "d", "A bend"),
    (ask.check_instead_of_root, "b", "after the weights are decided"),
    (ask.check_instead_of_root, "c", "not from how many pixels"),
    (ask.check_instead_of_root, "d", "64 times smaller"),
    (ask.check_unpacking, "a", "explained far more"),
    (ask.check_unpacking, "c", "Not more than can be read"),
    (ask.check_unpacking, "d", "not from image to image"),
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
@pytest.mark.parametrize("attempt", ["many", -1, np.zeros((2, 3)), 3.5, [[], [1]]], ids=str)
def test_nonsense_gets_a_sentence(check, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert len(verdict.message) > 20


@pytest.mark.parametrize("check", FUNCTIONS, ids=lambda check: check.__name__)
def test_a_function_that_fails_gets_its_reason(check):
    assert "stopped with ZeroDivisionError" in check(lambda first, second: 1 / 0).message
    assert "stopped with TypeError" in check(lambda: 1).message
    assert "shape" in check(lambda first, second: np.zeros(3)).message


def test_the_order_of_attention_sizes_and_their_container_do_not_matter():
    for attempt in [{4, 8, 16, 32}, [4, 8, 16, 32], np.array([8, 4, 32, 16]), (32, 32, 16, 8, 4)]:
        assert ask.check_attention_sizes(attempt).right is True


def test_a_shape_may_have_the_none_of_the_batch_as_keras_prints_it():
    for attempt in [(7, 7, 64), (None, 7, 7, 64), [None, 7, 7, 64]]:
        assert ask.check_bottom_shape(attempt).right is True


def test_what_the_exercises_say_of_the_network_is_true():
    """The answers of the lettered exercises, tried out."""
    digit = np.arange(64.0).reshape(8, 8)
    layer = conv(1)
    layer.build((None, 8, 8, 1))
    window = np.array(ask.solution_shift_window, dtype="float32")
    layer.set_weights([window[:, :, None, None], np.zeros(1)])
    moved = ops.convert_to_numpy(layer(digit[None, :, :, None]))[0, :, :, 0]
    np.testing.assert_array_equal(moved[:, 1:], digit[:, :-1])
    np.testing.assert_array_equal(moved[:, 0], 0)

    small = UNetParameters(8, 1, 16, (1, 2), 1, (4,), 0.0, 8)
    large = UNetParameters(16, 1, 16, (1, 2), 1, (8,), 0.0, 8)
    assert build_unet(small).count_params() == build_unet(large).count_params()

    keys = np.random.default_rng(0).standard_normal((1, 5, 4)).astype("float32")
    even = ops.convert_to_numpy(attention_weights(np.zeros_like(keys), keys))
    np.testing.assert_allclose(even, 1 / 5, atol=1e-6)
