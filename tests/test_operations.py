"""Operations against golden numbers, loops, and the backends' own counts."""

from __future__ import annotations

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from diffusion_walkthrough import unet
from diffusion_walkthrough.operations import (
    attention_multiply_adds,
    block_multiply_adds,
    count_multiply_adds,
    multiply_adds_by_part,
    operations_per_epoch,
)
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.unet import blocks

BACKEND = keras.backend.backend()
DIGITS = DiffusionParameters.digits().unet
CIFAR10 = DiffusionParameters.cifar10().unet
FACES_256 = DiffusionParameters.celeba_hq_256().unet
TINY = UNetParameters(
    image_size=4,
    channels=1,
    base_width=4,
    width_multipliers=(1,),
    residual_blocks=1,
    attention_sizes=(),
    dropout=0.0,
    groups=2,
)
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


def test_golden_numbers_of_the_published_networks():
    assert count_multiply_adds(CIFAR10) == 6_221_856_768
    assert count_multiply_adds(FACES_256) == 248_513_757_184


def test_a_tiny_network_counted_by_hand():
    assert multiply_adds_by_part(TINY) == {
        "time": 4 * 16 + 16 * 16,
        "first": 9 * 1 * 4 * 16,
        "down 4": 2 * (9 * 4 * 4 * 16) + 16 * 4,
        "middle": 2 * (2 * 9 * 4 * 4 * 16 + 16 * 4) + (4 * 16 * 4 * 4 + 2 * 16 * 16 * 4),
        "up 4": 2 * (9 * 8 * 4 * 16 + 9 * 4 * 4 * 16 + 16 * 4 + 8 * 4 * 16),
        "last": 9 * 4 * 1 * 16,
    }
    assert count_multiply_adds(TINY) == 33_536


def test_attention_counted_by_loops():
    pixels, width, count = 9, 4, 0
    for _ in range(pixels):
        count += 4 * width * width  # queries, keys, values, the way out
    for _ in itertools.product(range(pixels), range(pixels)):
        count += 2 * width  # one score, and one weight's part in the result
    assert attention_multiply_adds(width, side=3) == count


def weights_of(block, embedding_width):
    """The parameters of a block by chapter 03's formulas; the last convolution also normalizes."""
    old, new = block.old_width, block.new_width
    if block.kind == "residual":
        return unet.residual_parameters(old, new, embedding_width)
    if block.kind == "attention":
        return unet.attention_parameters(new)
    norm = 2 * old if block.part == "last" else 0
    return norm + unet.conv_parameters(old, new, 1 if block.kind == "dense" else 3)


@pytest.mark.parametrize("parameters", [TINY, SMALL, DIGITS, CIFAR10, FACES_256])
def test_the_list_of_blocks_has_every_weight_of_the_network(parameters):
    weights: dict[str, int] = {}
    for block in blocks(parameters):
        count = weights_of(block, 4 * parameters.base_width)
        weights[block.part] = weights.get(block.part, 0) + count
    assert weights == unet.parameters_by_part(parameters)
    assert list(multiply_adds_by_part(parameters)) == list(weights)


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
    "parameters", [TINY, SMALL, DIGITS, CIFAR10], ids=["tiny", "small", "digits", "cifar10"]
)
def test_tensorflow_counts_the_same(parameters, capfd):
    network = unet.build_unet(parameters)
    counted = tensorflow_operations(lambda x, t: network([x, t]), *traced_specs(parameters))
    products = sum(counted.get(name, 0) for name in PRODUCTS)
    assert products == 2 * count_multiply_adds(parameters)
    others = sum(counted.values()) - products  # what is done to each number on its own
    assert others < (0.02 if parameters in (DIGITS, CIFAR10) else 0.3) * products


@pytest.mark.skipif(BACKEND != "tensorflow", reason="asks TensorFlow's profiler")
def test_tensorflow_counts_three_times_as_much_for_training(capfd):
    """Of convolutions: the profiler counts products with a transposed matrix wrong."""
    import tensorflow as tf

    parameters = dataclasses.replace(SMALL, attention_sizes=())
    network = unet.build_unet(parameters)

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
    with pytest.MonkeyPatch.context() as patch:  # kernels of 0, which JAX draws far faster
        patch.setattr(unet, "fan_avg_initializer", lambda scale=1.0: "zeros")
        network = unet.build_unet(parameters)
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
    assert operations_per_epoch(TINY, 10) == 2 * 3 * 10 * 33_536
    assert operations_per_epoch(TINY, np.int64(10)) == 2 * 3 * 10 * 33_536


@pytest.mark.parametrize("images", [0, -3, 1.5, True, "many", None])
def test_an_epoch_needs_a_number_of_images(images):
    with pytest.raises(ValueError, match=r"images=.*at least 1.*len\(images\)"):
        operations_per_epoch(TINY, images)
