"""The optimizer takes the steps of Adam, averages by its formula, and skips what is no step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from pocket import averaged_by_hand

from diffusion_walkthrough.engine.optimizer import AveragingAdam, bare_optimizer, replica_count

BACKEND = keras.backend.backend()
SHAPES = (3, 4), (5,)


def numpy(x: object) -> np.ndarray:
    return ops.convert_to_numpy(x)


def values(variables) -> list[np.ndarray]:
    return [np.array(numpy(variable)) for variable in variables]


def weights(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype("float32") for shape in SHAPES]


def steps(optimizer, variables, gradients):
    """Take a step for each list of gradients, and return the variables' values after each."""
    after = []
    for each in gradients:
        tensors = [ops.convert_to_tensor(g) for g in each]
        if BACKEND == "jax":  # as Keras's fit does
            optimizer.build(variables)
            state = [v.value for v in optimizer.variables]
            found, state = optimizer.stateless_apply(state, tensors, [v.value for v in variables])
            for variable, value in zip(
                [*variables, *optimizer.variables], [*found, *state], strict=True
            ):
                variable.assign(value)
        else:
            optimizer.apply(tensors, variables)
        after.append(values(variables))
    return after


def variables_of(start) -> list[keras.Variable]:
    return [keras.Variable(value) for value in start]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": keras.optimizers.schedules.PolynomialDecay(0.0, 3, 0.01)},
    ],
    ids=["plain", "other rates", "a schedule"],
)
@pytest.mark.parametrize("clip", [None, 0.5, 1e3])
def test_a_step_is_that_of_keras_adam(options, clip):
    options = {"learning_rate": 0.01, "epsilon": 1e-7, **options}
    ours = AveragingAdam(**options, clip=clip)
    theirs = keras.optimizers.Adam(**options, global_clipnorm=clip)
    gradients, start = [weights(seed) for seed in range(1, 9)], weights()
    mine = steps(ours, variables_of(start), gradients)[-1]
    other = steps(theirs, variables_of(start), gradients)[-1]
    for ours, theirs, first in zip(mine, other, start, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)
        assert np.abs(theirs - first).min() > 1e-4


def test_gradients_on_a_few_rows_count_as_whole_ones():
    """An embedding's gradient names a row several times; its norm is that of the sum."""
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has them")
    import tensorflow as tf

    rows = tf.IndexedSlices(tf.constant([[1.0, 0.0], [2.0, 0.0]]), tf.constant([1, 1]), (3, 2))
    found = []
    for gradient in (rows, tf.convert_to_tensor(rows)):
        variable = keras.Variable(np.ones((3, 2), "float32"))
        optimizer = AveragingAdam(0.1, clip=1.0)
        optimizer.apply([gradient], [variable])
        found.append((numpy(variable), numpy(optimizer.tally)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1][0] == found[1][1][0] == 3.0


@pytest.mark.parametrize("momentum", [0.15, 0.9999])
def test_the_average_is_that_of_its_formula(momentum):
    optimizer = AveragingAdam(0.05, momentum=momentum)
    after = steps(optimizer, variables_of(weights()), [weights(seed) for seed in range(1, 13)])
    expected = averaged_by_hand(after, momentum)
    for found, by_hand, latest in zip(values(optimizer.averages), expected, after[-1], strict=True):
        np.testing.assert_allclose(found, by_hand, atol=1e-6)
        assert np.abs(by_hand - latest).max() > 1e-3


def test_a_short_run_forgets_its_start():
    """After 500 steps with a momentum of always 0.9999, 95 % would still be the start."""
    share = np.prod([min(0.9999, (1 + n) / (10 + n)) for n in range(1, 500)])
    assert share < 1e-9
    for done, expected in ((500, 501 / 510), (10**6, 0.9999)):
        optimizer, (weight,) = AveragingAdam(0.0, momentum=0.9999), variables_of([np.ones(1, "f")])
        optimizer.build([weight])
        optimizer.iterations.assign(done)
        steps(optimizer, [weight], [[np.zeros(1, "float32")]])
        assert float(numpy(optimizer.averages[0])[0]) == pytest.approx(1 - expected, rel=2e-3)


def test_without_a_momentum_there_is_no_average():
    optimizer = AveragingAdam()
    optimizer.build(variables_of(weights()))
    assert optimizer.averages == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(bad, clip):
    """Not even those with finite gradients, which Adam's mean would still move."""
    optimizer, variables = AveragingAdam(0.05, momentum=0.9, clip=clip), variables_of(weights())
    first, second = weights(1), weights(2)
    second[1][3] = bad
    after = steps(optimizer, variables, [first])
    average = values(optimizer.averages)
    after += steps(optimizer, variables, [second, second])
    for step in after[1:]:
        for found, expected in zip(step, after[0], strict=True):
            np.testing.assert_array_equal(found, expected)
    for found, expected in zip(values(optimizer.averages), average, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    norm = np.sqrt(sum(np.square(g).sum() for g in first))
    np.testing.assert_allclose(numpy(optimizer.tally), [norm, 1, 2, 2], rtol=1e-6)
    moved = steps(optimizer, variables, [weights(3)])[-1]
    assert all(np.abs(m - a).max() > 1e-3 for m, a in zip(moved, after[0], strict=True))
    assert all(np.isfinite(m).all() for m in moved)


def test_the_tally_sums_the_norms_before_clipping():
    optimizer = AveragingAdam(0.05, clip=0.1)
    gradients = [weights(seed) for seed in (1, 2, 3)]
    steps(optimizer, variables_of(weights()), gradients)
    norms = [np.sqrt(sum(np.square(g).sum() for g in each)) for each in gradients]
    np.testing.assert_allclose(numpy(optimizer.tally), [sum(norms), 3, 0, 0], rtol=1e-6)


def test_the_norm_of_half_precision_does_not_overflow():
    gradient = np.full(100, 300.0, "float16")  # 300² is beyond float16's 65,504
    optimizer = AveragingAdam(0.05)
    steps(optimizer, variables_of([np.zeros(100, "float32")]), [[gradient]])
    assert numpy(optimizer.tally)[0] == pytest.approx(3000, rel=1e-5)


PARTS = 4


@pytest.mark.parametrize("clip", [None, 0.9])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(clip):
    """The optimizer averages, clips and counts whole steps."""
    rng, start = np.random.default_rng(0), weights()
    parts = [[rng.standard_normal((PARTS, *w.shape)).astype("f") for w in start] for _ in range(6)]
    options = {"learning_rate": 0.05, "clip": clip, "momentum": 0.5}
    whole, in_parts = AveragingAdam(**options), AveragingAdam(**options, parts=PARTS)
    expected = steps(whole, variables_of(start), [[g.mean(axis=0) for g in each] for each in parts])
    one_by_one = [[g[part] for g in each] for each in parts for part in range(PARTS)]
    found = steps(in_parts, variables_of(start), one_by_one)
    for n in range(6):
        for mine, other in zip(found[PARTS * (n + 1) - 1], expected[n], strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
        for between in range(PARTS - 1):
            before = found[PARTS * n - 1] if n else start
            for mine, other in zip(found[PARTS * n + between], before, strict=True):
                np.testing.assert_array_equal(mine, other)
    averages = values(in_parts.averages), values(whole.averages)
    for mine, other, latest in zip(*averages, expected[-1], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
        assert np.abs(other - latest).max() > 1e-3  # the average is not just the weights
    np.testing.assert_allclose(numpy(in_parts.tally), numpy(whole.tally), rtol=1e-5)
    assert int(numpy(in_parts.iterations)) == int(numpy(whole.iterations)) == 6


def test_a_part_that_is_not_finite_spoils_its_own_step_alone():
    start, good, bad = weights(), weights(1), weights(2)
    bad[0][0, 0] = np.inf
    optimizer = AveragingAdam(0.05, parts=2)
    after = steps(optimizer, variables_of(start), [bad, good, good, good])
    for found, expected in zip(after[1], start, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all(np.abs(w - s).max() > 1e-3 for w, s in zip(after[3], start, strict=True))
    np.testing.assert_array_equal(numpy(optimizer.tally)[1:], [1, 1, 1])


def loss_scaled_steps(gradients: list[float]) -> tuple[AveragingAdam, float]:
    """Steps behind Keras's loss scaling, on one weight that is 1."""
    inner = AveragingAdam(2e-3, momentum=0.9)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    weight = keras.Variable(1.0)
    optimizer.build([weight])
    scaled = [[np.float32(8.0 * gradient)] for gradient in gradients]
    return bare_optimizer(optimizer), float(steps(optimizer, [weight], scaled)[-1][0])


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_loss_scaling_skips_enters_neither_tally_nor_average(bad):
    with_skip, weight = loss_scaled_steps([0.5, bad])
    without, expected = loss_scaled_steps([0.5])
    assert weight == expected < 1.0
    np.testing.assert_array_equal(numpy(with_skip.tally), [0.5, 1, 0, 0])
    assert int(numpy(with_skip.iterations)) == 1
    assert float(numpy(with_skip.averages[0])) == float(numpy(without.averages[0]))


def test_the_optimizer_comes_back_from_its_config():
    rate = keras.optimizers.schedules.CosineDecay(0.1, 100)
    optimizer = AveragingAdam(rate, 0.8, 0.9, 1e-6, clip=0.5, momentum=0.9, parts=3)
    optimizer.build(variables_of(weights()))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is AveragingAdam
    assert again.get_config() == optimizer.get_config()
    assert (again.beta_1, again.clip, again.momentum, again.parts) == (0.8, 0.5, 0.9, 3)


#: What ``keras.optimizers.serialize`` made of the optimizer of version 0.1.
OF_VERSION_01 = {
    "module": "diffusion_walkthrough.training",
    "class_name": "AveragingAdam",
    "config": {
        "name": "adam",
        "learning_rate": 0.0002,
        "weight_decay": None,
        "clipnorm": None,
        "global_clipnorm": 1.0,
        "clipvalue": None,
        "use_ema": True,
        "ema_momentum": 0.9999,
        "ema_overwrite_frequency": None,
        "loss_scale_factor": None,
        "gradient_accumulation_steps": None,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-08,
        "amsgrad": False,
    },
    "registered_name": "diffusion_walkthrough>AveragingAdam",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (1.0, 0.9999, 1)),
        ({"use_ema": False, "gradient_accumulation_steps": 4}, (1.0, None, 4)),
        ({"global_clipnorm": None}, (None, 0.9999, 1)),
    ],
)
def test_the_configuration_of_version_01_is_understood(changes, expected):
    config = {**OF_VERSION_01, "config": {**OF_VERSION_01["config"], **changes}}
    optimizer = keras.optimizers.deserialize(config)
    assert type(optimizer) is AveragingAdam
    assert (optimizer.clip, optimizer.momentum, optimizer.parts) == expected
    assert (optimizer.epsilon, float(numpy(optimizer.learning_rate))) == (1e-8, pytest.approx(2e-4))
    assert config["config"] == {**OF_VERSION_01["config"], **changes}, "read, not changed"
    moved = steps(optimizer, variables_of(weights()), [weights(1)] * (optimizer.parts))[-1]
    assert all(np.abs(m - s).min() > 1e-5 for m, s in zip(moved, weights(), strict=True))


def test_one_device_is_one_replica():
    assert replica_count() == 1
