"""Parameters and operations against golden numbers, loops, built networks, backends' counts."""

from __future__ import annotations

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tiny import SMALLEST_UNET

from diffusion_walkthrough import unet
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.planner.counting import (
    attention_multiply_adds,
    attention_parameters,
    block_multiply_adds,
    blocks,
    conv_parameters,
    count_multiply_adds,
    count_parameters,
    dense_parameters,
    multiply_adds_by_part,
    operations_per_epoch,
    parameters_by_part,
    residual_parameters,
)

BACKEND = keras.backend.backend()
DIGITS = DiffusionParameters.digits().unet
CIFAR10 = DiffusionParameters.cifar10().unet
FACES_256 = DiffusionParameters.celeba_hq_256().unet
SMALL = UNetParameters(
    image_size=16,
    channels=3,
    base_width=8,
    width_multipliers=(1, 2, 3),
    residual_blocks=2,
    attention_sizes=(16, 8),
    dropout=0.0,
    groups=4,
)


# --- parameters ---------------------------------------------------------------------------------


def build(parameters, learned_variance=False):
    """The network with kernels of 0, for tests that only count: far faster on JAX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "fan_avg_initializer", lambda scale=1.0: "zeros")
        return unet.build_unet(parameters, learned_variance)


def small(**changes):
    """A network of two levels that is built in a moment."""
    base = dataclasses.replace(
        SMALL, image_size=8, width_multipliers=(1, 2), residual_blocks=1, attention_sizes=(4,)
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("parameters", "count"),
    [(CIFAR10, 35_746_307), (FACES_256, 113_673_219)],
    ids=["32x32", "256x256"],
)
def test_published_parameter_counts(parameters, count):
    assert build(parameters).count_params() == count
    assert count_parameters(parameters) == count


def test_a_learned_variance_adds_to_the_last_part_only():
    assert count_parameters(CIFAR10, learned_variance=True) == 35_749_766
    built = build(small(), learned_variance=True).count_params()
    assert built == count_parameters(small(), learned_variance=True)
    for count in (parameters_by_part, multiply_adds_by_part):
        once, twice = count(CIFAR10), count(CIFAR10, learned_variance=True)
        assert [part for part in once if once[part] != twice[part]] == ["last"]
    assert (once["last"], twice["last"]) == (3_538_944, 2 * 3_538_944)  # 9 · 128 · 3 · 32² products


CONFIGURATIONS = [
    small(),
    small(channels=1),
    small(base_width=12, groups=3),
    small(width_multipliers=(2,), attention_sizes=()),
    small(width_multipliers=(1,), attention_sizes=(8,)),
    small(width_multipliers=(3, 1), attention_sizes=()),
    small(width_multipliers=(1, 2, 2)),
    small(width_multipliers=(1, 1, 1), attention_sizes=(8, 2)),
    small(width_multipliers=(1, 2, 1), attention_sizes=(4, 2)),
    small(residual_blocks=2),
    small(residual_blocks=3, width_multipliers=(2, 1), attention_sizes=(8, 4)),
    small(image_size=28, width_multipliers=(1, 2, 2), attention_sizes=(7,), dropout=0.3),
    DIGITS,
    DiffusionParameters.mnist().unet,
]


@pytest.mark.parametrize("parameters", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_the_formula_counts_what_is_built(parameters):
    assert build(parameters).count_params() == count_parameters(parameters)


def test_counts_by_part_name_every_part_in_order():
    parts = parameters_by_part(CIFAR10)
    assert list(parts) == [
        "time", "first", "down 32", "down 16", "down 8", "down 4", "middle",
        "up 4", "up 8", "up 16", "up 32", "last",
    ]  # fmt: skip
    assert sum(parts.values()) == 35_746_307
    assert parts["first"] == 9 * 3 * 128 + 128
    assert parts["time"] == 128 * 512 + 512 + 512 * 512 + 512
    assert parts["last"] == 2 * 128 + 9 * 128 * 3 + 3


@pytest.mark.parametrize(("width_in", "width_out"), [(8, 8), (8, 12)])
def test_a_residual_block_has_the_parameters_of_its_formula(width_in, width_out):
    x, embedding = keras.Input((6, 6, width_in)), keras.Input((12,))
    block = keras.Model([x, embedding], unet.residual_block(x, embedding, width_out, groups=2))
    assert block.count_params() == residual_parameters(width_in, width_out, embedding_width=12)


def test_other_formulas_agree_with_layers():
    x, image = keras.Input((4, 4, 8)), keras.Input((4, 4, 5))
    attention = keras.Model(x, unet.attention_block(x, groups=2))
    assert attention.count_params() == attention_parameters(8)
    assert keras.Model(image, unet.conv(7)(image)).count_params() == conv_parameters(5, 7)
    assert keras.Model(image, unet.dense(7)(image)).count_params() == dense_parameters(5, 7)


# --- operations ---------------------------------------------------------------------------------


def test_golden_numbers_of_the_published_networks():
    assert count_multiply_adds(CIFAR10) == 6_221_856_768
    assert count_multiply_adds(FACES_256) == 248_513_757_184


def test_a_tiny_network_counted_by_hand():
    assert multiply_adds_by_part(SMALLEST_UNET) == {
        "time": 4 * 16 + 16 * 16,
        "first": 9 * 1 * 4 * 16,
        "down 4": 2 * (9 * 4 * 4 * 16) + 16 * 4,
        "middle": 2 * (2 * 9 * 4 * 4 * 16 + 16 * 4) + (4 * 16 * 4 * 4 + 2 * 16 * 16 * 4),
        "up 4": 2 * (9 * 8 * 4 * 16 + 9 * 4 * 4 * 16 + 16 * 4 + 8 * 4 * 16),
        "last": 9 * 4 * 1 * 16,
    }
    assert count_multiply_adds(SMALLEST_UNET) == 33_536


def test_attention_counted_by_loops():
    pixels, width, count = 9, 4, 0
    for _ in range(pixels):
        count += 4 * width * width  # queries, keys, values, the way out
    for _ in itertools.product(range(pixels), range(pixels)):
        count += 2 * width  # one score, and one weight's part in the result
    assert attention_multiply_adds(width, side=3) == count


@pytest.mark.parametrize("parameters", [SMALLEST_UNET, SMALL, DIGITS, CIFAR10, FACES_256])
def test_parameters_and_operations_are_of_the_same_parts(parameters):
    assert list(multiply_adds_by_part(parameters)) == list(parameters_by_part(parameters))


def tensorflow_operations(function, *specs):
    """TensorFlow's own count of floating-point operations, for each type of operation."""
    import tensorflow as tf

    profiler = tf.compat.v1.profiler
    graph = tf.function(function).get_concrete_function(*specs).graph
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    found = profiler.profile(graph, cmd="op", options=options.with_empty_output().build())
    counts: dict[str, int] = {}
    while found.children:
        (found,) = found.children
        counts[found.name] = found.total_float_ops
    # The tree nests one type below the other, each with the sum of those below.
    names = list(counts)
    below = [counts[name] for name in names[1:]] + [0]
    own = {name: counts[name] - less for name, less in zip(names, below, strict=True)}
    einsums = [op for op in graph.get_operations() if op.type == "Einsum"]
    return {**own, "Einsum": sum(map(einsum_operations, einsums))}


def einsum_operations(operation):
    """What the profiler does not know: a multiply-add for every choice of all indices."""
    indices = operation.get_attr("equation").decode().partition("->")[0].split(",")
    sizes = {}
    for letters, tensor in zip(indices, operation.inputs, strict=True):
        sizes.update(zip(letters, tensor.shape, strict=True))
    return 2 * math.prod(sizes.values())


PRODUCTS = ("Conv2D", "MatMul", "BatchMatMulV2", "Einsum")


def traced_specs(parameters):
    import tensorflow as tf

    image = tf.TensorSpec((1, *parameters.image_shape), tf.float32)
    return image, tf.TensorSpec((1,), tf.int32)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="asks TensorFlow's profiler")
@pytest.mark.parametrize(
    "parameters",
    [SMALLEST_UNET, SMALL, DIGITS, CIFAR10],
    ids=["tiny", "small", "digits", "cifar10"],
)
def test_tensorflow_counts_the_same(parameters, capfd):
    network = build(parameters)
    counted = tensorflow_operations(lambda x, t: network([x, t]), *traced_specs(parameters))
    products = sum(counted.get(name, 0) for name in PRODUCTS)
    assert products == 2 * count_multiply_adds(parameters)
    others = sum(counted.values()) - products  # what is done to each number on its own
    assert others < (0.02 if parameters in (DIGITS, CIFAR10) else 0.3) * products


@pytest.mark.skipif(BACKEND != "tensorflow", reason="asks TensorFlow's profiler")
def test_tensorflow_counts_three_times_as_much_for_training(capfd):
    """Of convolutions: the profiler counts products with a transposed matrix wrong."""
    import tensorflow as tf

    parameters = dataclasses.replace(SMALL, attention_sizes=(), residual_blocks=1)
    network = build(parameters)

    def gradients(x, t):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network([x, t], training=True) ** 2)
        return tape.gradient(loss, network.trainable_variables)

    counted = tensorflow_operations(gradients, *traced_specs(parameters))
    convolutions = {name: count for name, count in counted.items() if name.startswith("Conv2D")}
    assert convolutions["Conv2D"] > 0.9 * 2 * count_multiply_adds(parameters)
    assert sum(convolutions.values()) == 3 * convolutions["Conv2D"]


@pytest.mark.skipif(BACKEND != "jax", reason="asks XLA, through JAX")
def test_xla_counts_nearly_the_same():
    import jax

    parameters = dataclasses.replace(SMALL, residual_blocks=1)
    network = build(parameters)
    weights = [variable.value for variable in network.trainable_variables]
    image = np.zeros((1, *parameters.image_shape), "float32")

    def forward(weights, image, t):
        return network.stateless_call(weights, [], [image, t])[0]

    lowered = jax.jit(forward).lower(weights, image, np.zeros(1, "int32"))
    cost = lowered.compile().cost_analysis()
    flops = (cost[0] if isinstance(cost, list) else cost)["flops"]
    # XLA leaves out products with the zeros around the image, and adds what is done to each number.
    assert flops / (2 * count_multiply_adds(parameters)) == pytest.approx(1, abs=0.12)


def parameters_at(side, multipliers, blocks_per_level, attended):
    sizes = tuple(side // 2**level for level in attended if level < len(multipliers))
    return UNetParameters(
        image_size=side,
        base_width=8,
        width_multipliers=multipliers,
        residual_blocks=blocks_per_level,
        attention_sizes=sizes,
        groups=2,
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    st.integers(1, 3),
    st.sets(st.integers(0, 3)),
)
def test_twice_the_side_costs_four_times_as_much_and_pairs_sixteen_times(multipliers, n, attended):
    once, twice = (parameters_at(side, multipliers, n, attended) for side in (16, 32))
    for one, two in zip(blocks(once), blocks(twice), strict=True):
        time = 32 * one.new_width if one.kind == "residual" else 0  # costs the same at any size
        costs = [block_multiply_adds(block, 32) - time for block in (one, two)]
        if one.kind == "attention":
            dense, pairs = 4 * one.side**2 * one.new_width**2, 2 * one.side**4 * one.new_width
            assert costs == [dense + pairs, 4 * dense + 16 * pairs]
        else:
            assert costs[1] == (costs[0] if one.kind == "dense" else 4 * costs[0])


def test_operations_are_six_for_each_multiply_add_and_image():
    assert operations_per_epoch(SMALLEST_UNET, 10) == 2 * 3 * 10 * 33_536
    assert operations_per_epoch(SMALLEST_UNET, np.int64(10)) == 2 * 3 * 10 * 33_536


@pytest.mark.parametrize("images", [0, -3, 1.5, True, "many", None])
def test_an_epoch_needs_a_number_of_images(images):
    with pytest.raises(ValueError, match=r"images=.*at least 1.*len\(images\)"):
        operations_per_epoch(SMALLEST_UNET, images)


def test_tables_of_labels_are_counted_and_cost_no_multiplication():
    told = small(labels={"hat": 3, "glasses": 2})
    network = build(told)
    assert count_parameters(told) == network.count_params()
    tables = 4 * told.base_width * (4 + 3)
    assert (
        parameters_by_part(told)["labels"]
        == tables
        == count_parameters(told) - count_parameters(small())
    )
    assert count_multiply_adds(told) == count_multiply_adds(small())
    assert "labels" not in parameters_by_part(small())
