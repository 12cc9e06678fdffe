"""Wrong tries at every exercise, as readers make them: nearly all get help that is about them.

Exercises are found, not listed: whoever adds one adds at least six wrong tries to it here. The
letters of a question with lettered answers are tried by themselves.
"""

import functools
import importlib
import inspect
import math
import pkgutil
import re

import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.classroom import exercises, tries
from diffusion_walkthrough.training import DiffusionModel

root, log = np.sqrt, np.log

# How messages begin or end that would fit any wrong answer of the kind.
GENERAL = (
    r"^The numbers differ|^Your number is too|^Your number is (negative|positive), and"
    r"|is expected\.$|cannot be read as such"
    r"|^(The factor of \S+( \w+)* is (too \w+|not right)[^?]*\? ?)+$"
    r"|^Some numbers are NaN|^Your number is NaN"
    r"|^Your function stopped with [^.?]*\.$|such as 'a'\.$"
)


def before(table):
    return np.append(1.0, table[:-1])


def kept(betas):
    return np.cumprod(1 - betas)


# --- 01


def jump(signal=root, noise_rate=lambda a: root(1 - a), table=kept, shift=0, axis=True):
    """An attempt at Eq. 4 with other factors, another table, or without the second axis."""

    def attempt(x_start, betas, t, noise):
        share = table(betas)[t + shift]
        share = share[:, None] if axis else share
        return signal(share) * x_start + noise_rate(share) * noise

    return attempt


def jump_with_one_t(x_start, betas, t, noise):
    share = kept(betas)[t[0]]
    return root(share) * x_start + root(1 - share) * noise


def as_lists(x_start, betas, t, noise):
    share = kept(betas)[t][:, None]
    return share**0.5 @ x_start + (1 - share) ** 0.5 @ noise


# --- 04


def loss_of(score, mix=lambda x, a, e: root(a) * x + root(1 - a) * e):
    def attempt(guess_noise, x_start, alpha_bar, t, noise):
        x_t = mix(x_start, alpha_bar[t][:, None], noise)
        return score(noise, guess_noise(x_t, t), x_start, x_t)

    return attempt


def squares(noise, guess, *_):
    return ((noise - guess) ** 2).mean(axis=1)


def without_axes(guess_noise, x_start, alpha_bar, t, noise):
    a = alpha_bar[t]
    x_t = root(a) * x_start + root(1 - a) * noise
    return ((noise - guess_noise(x_t, t)) ** 2).mean(axis=1)


def levels_with(unit=lambda s: s, reach=0.5, ends=True, shift=0.0):
    def attempt(levels, mean, spread, area):
        step = levels[1] - levels[0]
        upper = area((levels + (reach + shift) * step - mean) / unit(spread))
        lower = area((levels - (reach - shift) * step - mean) / unit(spread))
        if ends:
            upper[-1], lower[0] = 1, 0
        return upper - lower

    return attempt


# --- 03


def waves(order="sc", power=lambda k, half: -k / (half - 1), base=10_000.0):
    def attempt(t, width):
        half = width // 2
        angles = np.asarray(t)[:, None] * base ** power(np.arange(half), half)
        sine, cosine = np.sin(angles), np.cos(angles)
        if order == "alternating":
            return np.stack([sine, cosine], axis=-1).reshape(len(t), width)
        return np.concatenate({"sc": [sine, cosine], "cs": [cosine, sine]}[order], axis=-1)

    return attempt


def softmax(scores, axis=-1):
    return np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)


# --- 05


def marking(compute):
    """A kind of model with this loss."""

    class Mine(DiffusionModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return compute(x, y, y_pred)

    return Mine


def rate(rise=100, top=0.006, begin=100, end=1080, turns=math.pi):
    def attempt(step):
        if step < rise:
            return top * step / rise
        return top * (1 + math.cos(turns * (step - begin) / (end - begin))) / 2

    return attempt


# --- 06


def step_back(divide=True, swap=False, sigma="posterior_variance", power=0.5, shift=0, sign=-1):
    def attempt(schedule, x_t, t, noise_guess, z):
        t = max(t + shift, 0)
        a = schedule.alphas_cumprod[t]
        x_start = x_t + sign * root(1 - a) * noise_guess
        x_start = x_start / root(a) if divide else x_start
        first, second = schedule.posterior_mean_coef1[t], schedule.posterior_mean_coef2[t]
        if swap:
            first, second = second, first
        return first * x_start + second * x_t + getattr(schedule, sigma)[t] ** power * z

    return attempt


def mean_of_noise(schedule, x_t, t, noise_guess, z):
    first, second = schedule.posterior_mean_coef1[t], schedule.posterior_mean_coef2[t]
    return first * noise_guess + second * x_t + root(schedule.posterior_variance[t]) * z


def mixed(divisor=lambda s: 1.0, first=lambda s: 1 - s, second=lambda s: s):
    def attempt(noise_1, noise_2, share):
        return (first(share) * noise_1 + second(share) * noise_2) / divisor(share)

    return attempt


# --- 07b


def window_guess(
    of_image=lambda a: a, width=lambda b: 2 * b**2, to=lambda squares: squares, middle=4
):
    def attempt(seen, patches, a, b):
        off = to(((seen - of_image(a) * patches) ** 2).sum(axis=1))
        fit = -off / width(b)
        weights = np.exp(fit - fit.max())
        return weights @ patches[:, middle] / weights.sum()

    return attempt


# --- 09


def ddim(of_image=lambda a, b: a, of_noise=lambda a, b: b, taken=1, divided=1):
    def attempt(x, guess, a, b, a_s, b_s):
        noise = (x - taken * a * guess) / b**divided
        return of_image(a_s, b_s) * guess + of_noise(a_s, b_s) * noise

    return attempt


def spacing(bend, back):
    return lambda first, last, n: back(np.linspace(bend(first), bend(last), n))


# --- 10


def per_image(labels, rng, share):
    return rng.random(len(labels))[:, None] < share


def leaving_out(chosen, unsaid=-1):
    return lambda labels, rng, share: np.where(chosen(labels, rng, share), unsaid, labels)


def in_place(labels, rng, share):
    labels[rng.random(len(labels)) < share] = -1
    return labels


def replacing(part):
    return lambda x, i, known, t, s, z: np.where(known, part(i, t, s, z), x)


SPREAD = root(0.5)
FLAT = [[0, 0, 0]]
TRIES = {
    "forward_diffusion.one_step": [
        lambda x, b, e: x + e,
        lambda x, b, e: x + b * e,
        lambda x, b, e: x + root(b) * e,
        lambda x, b, e: root(1 - b) * x + b * e,
        lambda x, b, e: (1 - b) * x + root(b) * e,
        lambda x, b, e: (1 - b) * x + b * e,
        lambda x, b, e: root(1 - b) * x - root(b) * e,
        lambda x, b, e: root(b) * x + root(1 - b) * e,
        lambda x, b, e: root(1 - b) * x + e,
        lambda x, b, e: root(1 - b) * x,
        lambda x, b, e: root(1 - b) * x + root(b),
        lambda x, b, e: root(1 - b * x) + root(b * e),
        lambda x, b, e: math.sqrt(1 - b) * x + math.sqrt(b) * noise,  # noqa: F821
        lambda b, x, e: root(1 - b) * x + root(b) * e,
    ],
    "forward_diffusion.two_steps": [
        0.5184, 0.518, 0.45, 0.67, 0.28, 0.694, 0.9, 0.8, 1.7, 72, 0.3, 0.4816, 0.81, 0.7,
    ],
    "forward_diffusion.jump": [
        jump(axis=False),
        jump(shift=-1),
        jump(shift=1),
        jump(table=lambda b: 1 - b),
        jump(table=lambda b: 1 - np.cumsum(b)),
        jump(table=np.cumprod),
        jump(table=lambda b: b),
        jump(signal=lambda a: a),
        jump(noise_rate=lambda a: 1 - a),
        jump(signal=lambda a: a, noise_rate=lambda a: 1 - a),
        jump(signal=lambda a: 1),
        jump(noise_rate=root),
        jump(signal=lambda a: root(1 - a), noise_rate=root),
        jump(noise_rate=lambda a: 0),
        jump_with_one_t,
        as_lists,
        lambda x, b, t, e: root(kept(b[t]))[:, None] * x + root(1 - kept(b[t]))[:, None] * e,
        lambda x, b, t, e: root(kept(b)(t)) * x,
    ],
    "forward_diffusion.half_way": [
        500, 165, 257, 258, 260, 368, 0.5, 499, 742, 1000, 999, 0.2597, 142,
    ],
    "noise_schedule.alpha_bar": [
        np.cumprod, lambda b: 1 - b, lambda b: 1 - np.cumsum(b), lambda b: 1 - np.cumprod(b),
        lambda b: root(kept(b)), lambda b: np.prod(1 - b), lambda b: 1 - kept(b),
        lambda b: before(kept(b)), lambda b: np.cumsum(1 - b), lambda b: kept(b)[:-1],
        lambda b: kept(b)[::-1], lambda b: kept(b) ** 2, lambda b: root(1 - kept(b)),
        lambda b: np.cumprod(1 - root(b)), lambda b: np.append(1, kept(b)), lambda b: b,
        lambda b: np.cumprod(1 - betas),  # noqa: F821
    ],
    "noise_schedule.betas_from_alpha_bar": [
        lambda a: 1 - a[1:] / a[:-1], lambda a: a / before(a), lambda a: 1 - a,
        lambda a: before(a) - a, lambda a: -np.diff(a), lambda a: 1 - a / np.append(a[0], a[:-1]),
        lambda a: 1 - root(a / before(a)), lambda a: a / before(a) - 1,
        lambda a: 1 - before(a) / a, lambda a: np.append(1 - a[1:] / a[:-1], 0),
        lambda a: 1 - a / a[:-1], lambda a: 1 - a[t] / a[t - 1],  # noqa: F821
        lambda a: np.log(before(a) / a), lambda a: 2 * (1 - a / before(a)), np.diff,
    ],
    "noise_schedule.posterior_variance": [
        lambda b: b, lambda b: root(b * (1 - before(kept(b))) / (1 - kept(b))),
        lambda b: b * (1 - kept(b)) / (1 - before(kept(b))),
        lambda b: b * before(kept(b)) / kept(b), lambda b: b * kept(b) / before(kept(b)),
        lambda b: (1 - before(kept(b))) / (1 - kept(b)),
        lambda b: b[1:] * (1 - kept(b)[:-1]) / (1 - kept(b)[1:]),
        lambda b: b * (1 - kept(b)[:-1]) / (1 - kept(b)),
        lambda b: b * root((1 - before(kept(b))) / (1 - kept(b))),
        lambda b: b**2 * (1 - before(kept(b))) / (1 - kept(b)),
        lambda b: -b * (1 - before(kept(b))) / (1 - kept(b)),
        lambda b: (1 - b) * (1 - before(kept(b))) / (1 - kept(b)),
        lambda b: b * (1 - np.append(0, kept(b)[:-1])) / (1 - kept(b)),
    ],
    "noise_schedule.block_log_snr": [
        256, 16, 2.77, 4.16, -5.545, 8, 2.408, 1.39, 11.1, 0.0039, 32, 5.0,
    ],
    "unet.convolution": [
        73_728, 73_792, 8_320, 24_704, 1_280, 704, 8_192, 576, 1_152, 128, 74_880, 147_712, 82_048,
        73_857,
    ],
    "unet.bottom_shape": [
        (3, 3, 64), (4, 4, 64), (14, 14, 64), (7, 7, 128), (7, 7, 32), (64, 7, 7), (28, 28, 64),
        (7, 7), (None, 7, 7, 128), (None, 14, 14, 64), 7, (7, 7, 96), (49, 64), (1, 7, 7, 64),
    ],
    "unet.shift_window": [
        [*FLAT, [0, 0, 1], *FLAT], [*FLAT, [0, 1, 0], *FLAT], [[0, 1, 0], *FLAT, *FLAT],
        [1, 0, 0], [[1, 0, 0]] * 3, [[-1, 0, 1]] * 3, np.ones((3, 3)), np.zeros((3, 3)),
        [*FLAT, [-1, 0, 0], *FLAT], [*FLAT, [1, 0, -1], *FLAT], [*FLAT, [2, 0, 0], *FLAT],
        [*FLAT, [1, 1, 0], *FLAT], np.eye(3), "left",
    ],
    "unet.attention_sizes": [
        (0, 1, 2, 3), (1, 2, 3, 4), (16, 8, 4), (32, 16, 8), (32, 16, 8, 4, 2), (16,), (128, 256),
        32, (32, 32), (8, 4, 2, 1), (1024, 256, 64, 16), ((32, 32), (16, 16)),
    ],
    "unet.timestep_embedding": [
        waves(power=lambda k, half: -k / half), waves("alternating"), waves("cs"),
        waves(power=lambda k, half: k / (half - 1)), waves(base=1000.0), waves(base=2.0),
        waves(power=lambda k, half: -2 * k / (half - 1)),
        waves(power=lambda k, half: -(k + 1) / half),
        lambda t, width: np.sin(t * 10_000.0 ** (-np.arange(width) / (width - 1))),
        lambda t, width: np.sin(t[:, None] * 10_000.0 ** (-np.arange(width) / (width - 1))),
        lambda t, width: t[:, None] * 10_000.0 ** (-np.arange(4) / 3),
        lambda t, width: waves()(t, 2 * width), lambda t, width: waves()(t, width)[0],
        lambda t, width: waves()(t, width).T, lambda t, width: waves()(t + 1, width),
        lambda t, width: waves()(t / 1000, width),
    ],
    "unet.attention_weights": [
        lambda q, k: softmax(q @ k.T), lambda q, k: softmax(q @ k.T / 9),
        lambda q, k: softmax(q @ k.T / root(5)), lambda q, k: softmax(q @ k.T / 3, axis=0),
        lambda q, k: softmax(k @ q.T / 3), lambda q, k: q @ k.T / 3,
        lambda q, k: np.exp(q @ k.T / 3), lambda q, k: softmax(q @ k.T * 3),
        lambda q, k: softmax(q @ k.T / 3, axis=None), lambda q, k: softmax(q @ k / 3),
        lambda q, k: softmax(q.T @ k / 3), lambda q, k: softmax(q * k / 3),
        lambda q, k: softmax(-q @ k.T / 3), lambda q, k: softmax(q @ k.T / 3).sum(axis=-1),
        lambda q, k: (q @ k.T / 3) / (q @ k.T / 3).sum(axis=-1, keepdims=True),
        lambda q, k: np.exp(q @ k.T / 3) / np.exp(q @ k.T / 3).sum(axis=-1),
    ],
    "loss.image_from_noise": [
        lambda x, a, e: x - e, lambda x, a, e: x - root(1 - a) * e,
        lambda x, a, e: (x - (1 - a) * e) / root(a), lambda x, a, e: (x - root(1 - a) * e) / a,
        lambda x, a, e: (x + root(1 - a) * e) / root(a),
        lambda x, a, e: x / root(a) - root(1 - a) * e, lambda x, a, e: (x - e) / root(a),
        lambda x, a, e: x / root(a), lambda x, a, e: (x - root(1 - a) * e) * root(a),
        lambda x, a, e: (root(1 - a) * e - x) / root(a), lambda x, a, e: (x - (1 - a) * e) / a,
        lambda x, a, e: (x - root(a) * e) / root(1 - a),
        lambda x, a, e: root(a) * x + root(1 - a) * e, lambda x, a, e: e,
        lambda x, a, e: (x - root(1 - a)) / root(a),
    ],
    "loss.simple_loss": [
        loss_of(lambda e, g, *_: abs(e - g).mean(axis=1)),
        loss_of(lambda e, g, *_: ((e - g) ** 2).sum(axis=1)),
        loss_of(lambda e, g, *_: ((e - g) ** 2).mean()),
        loss_of(lambda e, g, *_: (e - g) ** 2), loss_of(lambda e, g, *_: (e - g).mean(axis=1)),
        loss_of(lambda e, g, *_: ((e - g).mean(axis=1)) ** 2),
        loss_of(lambda e, g, *_: root(squares(e, g))),
        loss_of(lambda e, g, x, _: squares(x, g)), loss_of(lambda e, g, _, x_t: squares(x_t, g)),
        loss_of(lambda e, g, *_: ((e - g) ** 2).mean(axis=0)),
        loss_of(lambda e, g, *_: 0.5 * squares(e, g)), loss_of(lambda e, g, *_: squares(e, -g)),
        loss_of(squares, lambda x, a, e: x + root(1 - a) * e),
        loss_of(squares, lambda x, a, e: root(a) * x + e),
        loss_of(squares, lambda x, a, e: root(a) * x + (1 - a) * e),
        loss_of(squares, lambda x, a, e: a * x + root(1 - a) * e),
        loss_of(squares, lambda x, a, e: a * x + (1 - a) * e), loss_of(squares, lambda x, a, e: x),
        loss_of(squares, lambda x, a, e: root(1 - a) * x + root(a) * e), without_axes,
    ],
    "loss.two_bells": [
        2.69, 0.653, 2.614, 1.807, 0.614, 1.886, -1.307, 0.443, 1.0, 2.0, 0.807, 1.7, 3.386, 0.557,
    ],
    "loss.lazy_network": [1.0, 0.18, 0.04, 0.82, 0.38, 0.34, 0.4, 0.59, 0.31, 0.5, 0.44, 0.469, 22],
    "loss.level_probabilities": [
        levels_with(ends=False), levels_with(reach=1), levels_with(lambda s: s**2),
        levels_with(lambda s: 1), levels_with(lambda s: 1, ends=False),
        levels_with(lambda s: 1 / s), levels_with(root), levels_with(shift=0.5),
        levels_with(reach=1, ends=False),
        lambda levels, m, s, area: area((levels - m) / s),
        lambda levels, m, s, area: area((levels + 0.125 - m) / s),
        lambda levels, m, s, area: np.exp(-(((levels - m) / s) ** 2) / 2),
        lambda levels, m, s, area: np.diff(area((levels + 0.125 - m) / s)),
        lambda levels, m, s, area: -levels_with()(levels, m, s, area),
        lambda levels, m, s, area: log(levels_with()(levels, m, s, area)),
        lambda levels, m, s, area: levels_with(ends=False)(levels, m, s, area) / 0.9,
        lambda levels, m, s, area: levels_with()(levels, -m, s, area),
        lambda levels, m, s, area: levels_with()(levels, 0, s, area),
    ],
    "loss.bits": [2.34, 2.3, 1.62, 216.4, 27.05, 1.018, 0.827, 0.296, 150, 6.76, 0.423, 3.0, -3.38],
    "training.steps": [2300, 2344, 2343, 150_000, 24, 100, 1500, 2343.75, 1600, 2500, 2399, 9600],
    "training.own_marking": [
        marking(lambda x, y, g: ops.mean((y["noise"] - g) ** 2)),
        marking(lambda x, y, g: ops.mean(y["noise"] - g)),
        marking(lambda x, y, g: ops.sum(ops.abs(y["noise"] - g))),
        marking(lambda x, y, g: ops.abs(y["noise"] - g)),
        marking(lambda x, y, g: ops.mean(ops.abs(y["x_start"] - g))),
        marking(lambda x, y, g: ops.mean(ops.abs(y - g))),
        marking(lambda x, y, g: 0.5 * ops.mean(ops.abs(y["noise"] - g))),
        marking(lambda x, y, g: ops.mean(ops.abs(y["eps"] - g))), DiffusionModel,
    ],
    "training.start_share": [0.394, 0.999, 0.5, 0.001, 0, 1, 0.4995, 500, 60.64, 0.368, 0.95],
    "training.learning_rate": [
        rate(rise=0), rate(begin=0), rate(turns=2 * math.pi), rate(turns=math.pi / 2),
        rate(end=980), rate(top=1.0), rate(top=0.003), rate(top=0.012), rate(turns=0),
        lambda s: 0.006 * s / 100, lambda s: 0.006, lambda s: min(s / 100, 1),
        lambda s: 0.006 * (1 - s / 1080), lambda s: 0.006 * np.cos(np.pi * (s - 100) / 980),
        lambda s: rate()(s) if s > 100 else 0.006, lambda s: s / 100,
    ],
    "backward_sampling.step_back": [
        step_back(divide=False), step_back(swap=True), step_back(sigma="betas"),
        step_back(power=1), step_back(power=0), step_back(sigma="betas", power=1),
        step_back(shift=-1), step_back(sign=1), step_back(power=2), mean_of_noise,
        lambda s, x, t, e, z: step_back()(s, x, t, e, 0 * z),
        lambda s, x, t, e, z: step_back()(s, x, t, e, -z),
        lambda s, x, t, e, z: step_back()(s, x, t, 0 * e, z),
        lambda s, x, t, e, z: step_back()(s, x, t, z, e),
        lambda s, x, t, e, z: (x - root(1 - s.alphas_cumprod[t]) * e) / root(s.alphas_cumprod[t]),
        lambda s, x, t, e, z: x - e, lambda s, x, t, e, z: s.betas * x,
    ],
    "backward_sampling.network_calls": [200, 4, 64, 12_800, 796, 804, 801, 50, 3200, 16, 1, 804],
    "backward_sampling.start": [
        lambda shape, rng: rng.uniform(-1, 1, shape), lambda shape, rng: rng.random(shape),
        lambda shape, rng: rng.integers(0, 256, shape), lambda shape, rng: np.zeros(shape),
        lambda shape, rng: rng.standard_normal(shape[1:]),
        lambda shape, rng: rng.normal(0, 2, shape),
        lambda shape, rng: rng.normal(1, 1, shape), lambda shape, rng: rng.standard_normal(),
        lambda shape, rng: abs(rng.standard_normal(shape)), lambda shape, rng: rng(shape),
        lambda shape, rng: np.tile(rng.standard_normal(shape[1:]), (400, 1, 1, 1)),
        lambda shape, rng: np.clip(rng.standard_normal(shape), -1, 1),
    ],
    "backward_sampling.noise_mix": [
        mixed(), mixed(lambda s: (1 - s) ** 2 + s**2), mixed(lambda s: 2), mixed(lambda s: 0.5),
        mixed(lambda s: root(2)), mixed(lambda s: SPREAD), mixed(lambda s: 1 / root(s)),
        mixed(first=lambda s: s, second=lambda s: 1 - s), mixed(first=lambda s: 1 - s**2),
        mixed(first=root, second=lambda s: root(1 - s)),
        mixed(first=lambda s: 1 - root(s), second=root), mixed(first=lambda s: 1),
        lambda a, b, s: ((1 - s) * a + s * b) / ((1 - s) * a + s * b).std() * 2,
        lambda a, b, s: np.where(np.arange(len(a)) < s * len(a), b, a),
    ],
    "evaluation.distance": [
        lambda a, b: root((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2),
        lambda a, b: (a.mean() - b.mean()) ** 2 + (a.var() - b.var()) ** 2,
        lambda a, b: (a.mean() - b.mean()) ** 2, lambda a, b: (a.std() - b.std()) ** 2,
        lambda a, b: abs(a.mean() - b.mean()) + abs(a.std() - b.std()),
        lambda a, b: (a.mean() - b.mean()) ** 2 + a.var() + b.var(),
        lambda a, b: (a.mean() - b.mean()) ** 2 - (a.std() - b.std()) ** 2,
        lambda a, b: ((a - b) ** 2).mean(), lambda a, b: abs(a.mean() - b.mean()),
        lambda a, b: (a.mean() - b.mean()) ** 2 + abs(a.var() - b.var()), lambda a, b: (),
    ],
    "evaluation.coverage": [
        lambda d, r: (d <= r[:, None]).any(axis=0).mean(), lambda d, r: (d <= r[:, None]).mean(),
        lambda d, r: (d <= r[:, None]).sum(axis=1).mean(), lambda d, r: (d <= r).any(axis=1).mean(),
        lambda d, r: (d <= r[:, None]).all(axis=1).mean(), lambda d, r: d.min(axis=1) <= r,
        lambda d, r: (d.min(axis=1) <= r).sum(), lambda d, r: (d.min(axis=1) > r).mean(),
        lambda d, r: (d.min(axis=0) <= r).mean(), lambda d, r: (d.min(axis=0) <= r[:25]).mean(),
    ],
    "evaluation.floor": [0.7, 1.4, 5.6, 2.8, 0.0875, 0, 0.175, 0.5, 4, 0.25, 0.035],
    "evaluation.patches": [54_000, 96_000, 1_500, 13_500, 37_500, 6_000, 12_000, 16, 25, 36_000],
    "evaluation.guess": [
        window_guess(of_image=lambda a: 1), window_guess(width=lambda b: 2 * b),
        window_guess(width=lambda b: b**2), window_guess(width=lambda b: 1),
        window_guess(width=lambda b: -2 * b**2), window_guess(to=root),
        lambda s, p, a, b: p[((s - a * p) ** 2).sum(axis=1).argmin(), 4],
        lambda s, p, a, b: p[:, 4].mean(), lambda s, p, a, b: s[4], lambda s, p, a, b: s[4] / a,
        lambda s, p, a, b: np.exp(-((s - a * p) ** 2).sum(axis=1) / (2 * b**2)) @ p[:, 4],
        window_guess(middle=slice(None)), lambda s, p, a, b: a * window_guess()(s, p, a, b),
        lambda s, p, a, b: (s - p) @ p,
    ],
    "faster_sampling.ddim_step": [
        ddim(divided=0), ddim(taken=0), ddim(of_image=lambda a, b: 1), ddim(divided=2),
        ddim(of_noise=lambda a, b: 1), ddim(of_noise=lambda a, b: -b), ddim(of_image=root),
        ddim(of_image=lambda a, b: 0), ddim(lambda a, b: a**2, lambda a, b: b**2),
        ddim(of_image=lambda a, b: b, of_noise=lambda a, b: a),
        lambda x, g, a, b, a_s, b_s: a_s * g + b_s * x, lambda x, g, a, b, a_s, b_s: g,
        lambda x, g, a, b, a_s, b_s: a * g + b_s * (x - a * g) / b,
        lambda x, g, a, b, a_s, b_s: a_s * g + b_s * (x - g), lambda x, g, a, b, a_s, b_s: x - g,
        lambda x, g, a, b, a_s, b_s: a_s * g + b_s * (x + a * g) / b,
        lambda x, g, a, b, a_s, b_s: b_s / b * x, lambda x, g, a, b: (x - a * g) / b,
    ],
    "faster_sampling.sigmas": [
        np.linspace, np.logspace, spacing(root, np.square), spacing(log, lambda x: x),
        spacing(log, lambda x: -2 * x), spacing(lambda s: s ** (1 / 7), lambda x: x**7),
        lambda first, last, n: np.geomspace(last, first, n),
        lambda first, last, n: np.geomspace(first, last, n + 1),
        lambda first, last, n: np.append(np.geomspace(first, last, n), 0),
        lambda first, last, n: np.geomspace(first, last, n) ** 2,
        lambda first, last, n: np.exp(-np.linspace(first, last, n)),
        lambda first, last, n: np.linspace(last, first, n),
        lambda first, last, n: np.geomspace(first, last), lambda first, last, n: first / last / n,
    ],
    "guidance.guided": [
        lambda told, un, s: told + s * (told - un), lambda told, un, s: (1 + s) * told - s * un,
        lambda told, un, s: told + s * (un - told), lambda told, un, s: s * un + (1 - s) * told,
        lambda told, un, s: un + s * (un - told), lambda told, un, s: s * (told - un),
        lambda told, un, s: told - un, lambda told, un, s: s * told, lambda told, un, s: un,
        lambda told, un, s: un + s * told, lambda told, un, s: s * told - un,
        lambda told, un, s: un + (s - 1) * (told - un), lambda told, un, s: told + s * told,
        lambda told, un, s: (s * told + un) / (s + 1), lambda told, un, s: un + s**2 * (told - un),
        lambda told, un, s: np.clip(un + s * (told - un), -1, 1), lambda told, un: told,
        lambda told, un, s: told,
    ],
    "guidance.paper_scale": [3, 2, 5, 0, 1, -3, -2, 6, 9, 0.33, 0.75, 8, 3.5, 7],
    "guidance.drop": [
        leaving_out(lambda labels, rng, share: rng.random(labels.shape) < share),
        leaving_out(lambda labels, rng, share: np.full(len(labels), rng.random() < share)[:, None]),
        leaving_out(lambda labels, rng, share: rng.random(3) < share), leaving_out(per_image, 0),
        leaving_out(lambda labels, rng, share: rng.random((40, 1)) < 1 - share),
        leaving_out(lambda labels, rng, share: (rng.random(labels.shape) < share).any(1)[:, None]),
        leaving_out(lambda labels, rng, share: (np.arange(len(labels)) < 16)[:, None]),
        leaving_out(lambda labels, rng, share: rng.permutation(len(labels))[:, None] < 16),
        leaving_out(per_image, np.nan), leaving_out(per_image, None), leaving_out(per_image, 4),
        leaving_out(lambda *_: False), leaving_out(lambda *_: True), in_place,
        lambda labels, rng, share: labels[rng.random(len(labels)) >= share],
        lambda labels, rng, share: rng.random(len(labels)) < share,
        lambda labels, rng, share: np.where(rng.random(len(labels)) < share, -1, labels),
        lambda labels, rng, share: np.where(share, -1, label),  # noqa: F821
        lambda labels, rng, share: labels * (1 - share), lambda labels, rng, share: -labels,
        leaving_out(lambda *_: np.random.random((40, 1)) < 0.4),  # noqa: NPY002
    ],
    "guidance.dropped_apart": [
        0.1, 0.5, 0.59, 0.41, 0.59049, 0.40951, 0.328, 0.33, 0.02, 1e-4, 1e-6, 5e-5, 0, 0.001,
        0.00032, 0.9, 5,
    ],
    "guidance.evaluations": [50, 100, 25, 150, 125, 1.5, 37.5, 200, 51, 49, 2, 76, 74, 80],
    "guidance.replace": [
        replacing(lambda i, t, s, z: i), replacing(lambda i, t, s, z: i + z),
        replacing(lambda i, t, s, z: root(t) * i + root(1 - t) * z),
        lambda x, i, known, t, s, z: np.where(known, x, root(s) * i + root(1 - s) * z),
        lambda x, i, known, t, s, z: np.where(known, x, i),
        lambda x, i, known, t, s, z: root(s) * i + root(1 - s) * z, lambda x, *_: x,
        replacing(lambda i, t, s, z: root(s) * i), replacing(lambda i, t, s, z: 0 * i),
        replacing(lambda i, t, s, z: i + root(1 - s) * z),
        replacing(lambda i, t, s, z: s * i + (1 - s) * z),
        replacing(lambda i, t, s, z: root(s) * i + (1 - s) * z),
        replacing(lambda i, t, s, z: root(1 - s) * i + root(s) * z),
        replacing(lambda i, t, s, z: root(s) * i - root(1 - s) * z),
        replacing(lambda i, t, s, z: root(s) * i + root(1 - t) * z),
        lambda x, i, known, t, s, z: known * (root(s) * i + root(1 - s) * z),
        lambda x, i, known, t, s, z: x + known * (root(s) * i + root(1 - s) * z),
        lambda x, i, known, t, s, z: root(s) * i[known] + root(1 - s) * z[known],
        lambda x, i, known, t, s, z: -known * x,
    ],
    "flow_matching.euler_step": [
        lambda x, v, s, n: x + (s - n) * v, lambda x, v, s, n: x - s * v,
        lambda x, v, s, n: x + s * v, lambda x, v, s, n: x - n * v, lambda x, v, s, n: x - v,
        lambda x, v, s, n: x + v, lambda x, v, s, n: (n - s) * v, lambda x, v, s, n: n / s * x,
        lambda x, v, s, n: x, lambda x, v, s, n: (1 - n) * x + n * v,
        lambda x, v, s, n: x + (n - s) / s * v, lambda x, v, s, n: x - 2 * (s - n) * v,
        lambda x, v, s: x - s * v,
    ],
    "flow_matching.share": [
        lambda a, b: b, lambda a, b: b**2, lambda a, b: b / a, lambda a, b: a / (a + b),
        lambda a, b: 1 - a, lambda a, b: a, lambda a, b: a + b, lambda a, b: 1 / (a + b),
        lambda a, b: b**2 / (a**2 + b**2), lambda a, b: b / root(a**2 + b**2),
        lambda a: 1 - a,
    ],
    "flow_matching.image": [
        lambda x, v, s: x + (1 - s) * v, lambda x, v, s: x - v, lambda x, v, s: x + s * v,
        lambda x, v, s: x - (1 - s) * v, lambda x, v, s: x + v, lambda x, v, s: -v,
        lambda x, v, s: x / (1 - s), lambda x, v, s: (x - s * v) / (1 - s),
        lambda x, v, s: x - s * v * (1 - s), lambda x, v, s: x, lambda x, v, s: x - s**2 * v,
        lambda x, v: x - v,
    ],
    "flow_matching.cost": [
        200_000, 20_000, 10_000, 40, 20, 390_000, 800_000, 600_000, 500, 4_000_000, 100_000, 401_000
    ],
    "faster_sampling.more_steps": [160, 20, 80, 16, 4, 2560, 14, 30, 50, 26, 5, 400, 45, 41],
    "scaling_up.growth": [
        (4, 16), (4, 4), (16, 16), (16, 32), (16, 64), (64, 256), (256, 16), 16, (16, 4), (2, 4),
        (16,), (8, 64),
    ],
    "scaling_up.epoch_hours": [
        1 / 3, 0.5, 1 / 6, 2 / 3, 3600, 60, 0.17, 2, 0.00028, 3, 1000, 100, 6,
    ],
    "scaling_up.safe_scores": [
        lambda q, k: q @ k.T / np.float16(4), lambda q, k: q @ k.T,
        lambda q, k: q.astype(float) @ k.T, lambda q, k: (q / np.float16(16)) @ k.T,
        lambda q, k: (q / np.float16(4)) @ (k / np.float16(4)).T,
        lambda q, k: (q / np.float16(4)).T @ k, lambda q, k: (q / np.float16(4)) @ k,
        lambda q, k: q.astype(float) @ k.T * 4, lambda q, k: (k / np.float16(4)) @ q.T,
        lambda q, k: q.astype(float) @ k.T / root(6), lambda q, k: q * k / 4,
        lambda q, k: (q / np.float16(4) * k).sum(axis=1),
    ],
    "scaling_up.scaled_step": [
        lambda w, g, s, r: w - r * g, lambda w, g, s, r: w - r * g * s,
        lambda w, g, s, r: w + r * g / s, lambda w, g, s, r: w - g / s,
        lambda w, g, s, r: r * g / s,
        lambda w, g, s, r: w - r * g / s, lambda w, g, s, r: w - r / g * s, lambda w, g, s, r: w,
        lambda w, g, s, r: -r * g / s, lambda w, g, s, r: (w - r * g) / s,
        lambda w, g, s, r: w if np.isnan(g) else w - r * g / s, lambda w, g: w - g,
        lambda w, g, s, r: r * g / s - w, lambda w, g, s, r: 0 if np.isinf(g) else w - r * g / s,
    ],
    "scaling_up.parts": [1, 2, 3, 32, 45, 8, 16, 128, 2.84, 2.8, 5, 64, 7, 0.25],
    "scaling_up.whole_gradient": [
        lambda g, n: g.sum(axis=0), lambda g, n: g.mean(axis=0), lambda g, n: n @ g,
        lambda g, n: n @ g / len(n), lambda g, n: g[-1], lambda g, n: g.mean(),
        lambda g, n: g.mean(axis=1), lambda g, n: g[0], lambda g, n: g * n / n.sum(),
        lambda g, n: g * n[:, None] / n.sum(), lambda g, n: g @ n / n.sum(),
        lambda g, n: (g / n[:, None]).sum(axis=0), lambda g, n: g[:2].mean(axis=0),
        lambda g, n: np.median(g, axis=0),
    ],
    "bug_hunt.own_instrument": [
        lambda jump, a: True, lambda jump, a: False, lambda jump, a: jump, lambda jump: True,
        lambda jump, a: jump(np.ones((1, 1)), [50], np.zeros((1, 1))) == root(a[50]),
        lambda jump, a: bool(np.isclose(jump(np.ones((1, 1)), [50], np.zeros((1, 1))), a[50])),
        lambda jump, a: bool(np.isclose(jump(np.ones((1, 1)), [50], [[0.0]]), root(a[50])).all()),
        lambda jump, a: bool(np.isclose(jump([[0.0]], [50], [[1.0]]), root(1 - a[50])).all()),
        lambda jump, a: bool(np.allclose(
            jump(np.ones((100, 1)), np.arange(100), np.ones((100, 1))),
            (root(a) + root(1 - a))[:, None])),
        lambda jump, a: bool(np.allclose(
            jump(np.ones((4, 1)), np.full(4, 50), np.ones((4, 1))), root(a[50]) + root(1 - a[50]))),
        lambda jump, a: np.allclose(jump(1, 50, 0), root(a[50])), lambda jump, a: 1.0,
    ],
    "bug_hunt.share_of_start": [
        0.001**511, 510.5, 0.511, 0.489, 0.999, 0.9999**511, 0.4, 0.99**511, 0.37, 60, 0.36, 1,
    ],
    "bug_hunt.third_image": [
        0.98**3, 0.98, 0.99, 0.9604, 0.006, 0.98**4, 0.02**3, 0.0588, 0.2425, 0.98**999, 0.94, 0.5,
    ],
}  # fmt: skip


def checks():
    """All exercises that there are: their name, such as "loss.bits", and their check."""
    found = {}
    for info in pkgutil.iter_modules(exercises.__path__):
        module = importlib.import_module(f"{exercises.__name__}.{info.name}")
        for name, check in vars(module).items():
            if name.startswith("check_") and inspect.getmodule(check) is module:
                found[f"{info.name}.{name.removeprefix('check_')}"] = check
    return found


CHECKS = checks()


def solution_of(name):
    chapter, _, exercise = name.partition(".")
    module = importlib.import_module(f"{exercises.__name__}.{chapter}")
    return getattr(module, f"solution_{exercise}")


LETTERED = {name for name in CHECKS if isinstance(solution_of(name), str)}


def wrong_letters(name):
    """The letters that a question has, but for the right one."""
    letters = re.search(
        r"one (?:or more )?of '(\w)' to '(\w)'", CHECKS[name]("no letter").message
    ).groups()
    between = [chr(code) for code in range(ord(letters[0]), ord(letters[1]) + 1)]
    return [letter for letter in between if not CHECKS[name](letter).right]


@functools.cache
def verdicts_of(name):
    """What is said of all wrong tries at an exercise."""
    attempts = wrong_letters(name) if name in LETTERED else TRIES.get(name, [])
    with np.errstate(all="ignore"):
        verdicts = [CHECKS[name](attempt) for attempt in attempts]
    assert [verdict for verdict in verdicts if verdict.right is not False] == []
    return verdicts


def messages_of(name):
    return [verdict.message for verdict in verdicts_of(name)]


def is_general(message):
    return bool(re.search(GENERAL, message))


def test_exercises_are_found():
    assert len(CHECKS) > 20
    assert LETTERED


def test_every_exercise_has_wrong_tries():
    few = [
        f"{name}: add wrong tries to TRIES, six at least; there are {len(TRIES.get(name, []))}"
        for name in CHECKS
        if name not in LETTERED and len(TRIES.get(name, [])) < 6
    ]
    assert few == []


@pytest.mark.parametrize("name", sorted(LETTERED))
def test_every_wrong_letter_has_a_reply_of_its_own(name):
    messages = messages_of(name)
    assert len(messages) >= 2
    assert len(set(messages)) == len(messages)
    assert not [m for m in messages if is_general(m)]


def test_nearly_all_wrong_tries_get_help_that_is_about_them(capsys):
    told = sorted(set(TRIES) & set(CHECKS))  # an exercise may have moved or gone
    every = [(name, message) for name in told for message in messages_of(name)]
    general = [(name, message) for name, message in every if is_general(message)]
    share = 1 - len(general) / len(every)
    with capsys.disabled():
        print(f"\n{len(every)} wrong tries at {len(told)} exercises: {share:.1%} are helped")
    assert share >= 0.85, "\n".join(f"{name}: {message}" for name, message in general)


@pytest.mark.parametrize("name", sorted(set(CHECKS) - LETTERED))
def test_each_exercise_helps_with_most_of_its_wrong_tries(name):
    messages = messages_of(name)
    general = [message for message in messages if is_general(message)]
    assert len(general) <= 0.4 * len(messages), "\n".join(general)


def test_no_single_number_gets_a_sentence_that_fits_any():
    """Even where no relation is found: too large or too small, and roughly by how much."""
    for name in CHECKS:
        if isinstance(solution_of(name), int | float):
            assert "The numbers differ" not in CHECKS[name](solution_of(name) * 1.3797).message


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_further_tries_get_more_help_that_does_not_give_the_answer_away(name):
    tries.forget()
    texts = [repr(verdict) for verdict in verdicts_of(name)]
    tries.forget()
    assert "ask.show_solution" not in texts[0]
    if len(texts) > 2:
        assert texts[-1].endswith(f"ask.show_solution(ask.check_{name.partition('.')[2]})")
    solution = solution_of(name)
    if name in LETTERED:
        added = " ".join(tries.more_help(verdicts_of(name)[0].tried, strength=3))
        assert f"({solution})" not in added
        assert f"'{solution}'" not in added


def test_the_whole_table_is_about_exercises_that_exist():
    assert sorted(set(TRIES) - set(CHECKS)) == []
