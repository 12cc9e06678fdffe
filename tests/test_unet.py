"""The network, against an independent NumPy version, published counts, and laws it must keep."""

from __future__ import annotations

import dataclasses
import itertools
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import ops

from diffusion_walkthrough import unet
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters

DIGITS = DiffusionParameters.digits().unet
CIFAR10 = DiffusionParameters.cifar10().unet
FACES_256 = DiffusionParameters.celeba_hq_256().unet

TINY = UNetParameters(
    image_size=8,
    channels=2,
    base_width=8,
    width_multipliers=(1, 2),
    residual_blocks=1,
    attention_sizes=(4,),
    dropout=0.0,
    groups=2,
)


def tiny(**changes) -> UNetParameters:
    return dataclasses.replace(TINY, **changes)


def to_numpy(tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def operations(network, name) -> list:
    """All steps of a network of one kind, whether a layer or a plain function such as softmax."""
    return [step for step in network.operations if type(step).__name__ == name]


def run(network, *inputs, **options) -> np.ndarray:
    tensors = [ops.convert_to_tensor(value) for value in inputs]
    return to_numpy(network(tensors if len(tensors) > 1 else tensors[0], **options))


def build(parameters):
    """The network with kernels of 0, for tests that count or replace them: far faster on JAX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "fan_avg_initializer", lambda scale=1.0: "zeros")
        return unet.build_unet(parameters)


def randomize(network, seed=0, scale=0.2):
    """Give every weight, biases and normalizations included, a random value."""
    rng = np.random.default_rng(seed)
    network.set_weights([scale * rng.standard_normal(w.shape) for w in network.get_weights()])
    return network


def images_and_steps(parameters, n=3, seed=1):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n, *parameters.image_shape)).astype("float32")
    return images, rng.integers(0, 1000, n).astype("int32")


def block_network(width_in, width_out, groups, size=6):
    """A residual block as a model of its own, from an image and an embedding."""
    x, embedding = keras.Input((size, size, width_in)), keras.Input((12,))
    answer = unet.residual_block(x, embedding, width_out, groups=groups, name="block")
    return keras.Model([x, embedding], answer)


def attention_network(channels=8, groups=2, size=4):
    x = keras.Input((size, size, channels))
    return keras.Model(x, unet.attention_block(x, groups, name="block"))


# --- the same network in NumPy, float64, written from the paper's description ------------------


def np_silu(x):
    return x / (1 + np.exp(-x))


def np_group_norm(x, groups, gamma, beta):
    result = np.empty_like(x)
    size = x.shape[-1] // groups
    for image in range(len(x)):
        for g in range(groups):
            part = x[image, ..., g * size : (g + 1) * size]
            part = (part - part.mean()) / np.sqrt(part.var() + 1e-6)
            result[image, ..., g * size : (g + 1) * size] = part
    return result * gamma + beta


def np_conv(x, kernel, bias, stride=1):
    """A 3×3 convolution; with stride 2 an even image is padded below and to the right only."""
    pad = (1, 1) if stride == 1 else (0, 1)
    padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    rows, columns = x.shape[1] // stride, x.shape[2] // stride
    result = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i, j in itertools.product(range(rows), range(columns)):
        window = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
        result[:, i, j] = np.einsum("nhwc,hwco->no", window, kernel)
    return result + bias


def np_timestep_embedding(t, width):
    result = np.zeros((len(t), width))
    for row, step in enumerate(t):
        for k in range(width // 2):
            angle = float(step) * 10_000 ** (-k / (width // 2 - 1))
            result[row, k], result[row, width // 2 + k] = np.sin(angle), np.cos(angle)
    return result


def np_softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


class NumpyNetwork:
    """Takes the weights of a Keras network by the names of its layers."""

    def __init__(self, network):
        self.weights = {
            layer.name: [w.astype("float64") for w in layer.get_weights()]
            for layer in network.layers
        }

    def conv(self, x, name, stride=1):
        return np_conv(x, *self.weights.pop(name), stride=stride)

    def dense(self, x, name):
        kernel, bias = self.weights.pop(name)
        return x @ kernel + bias

    def norm(self, x, groups, name):
        return np_group_norm(x, groups, *self.weights.pop(name))

    def residual(self, x, embedding, width, groups, name="block"):
        h = self.conv(np_silu(self.norm(x, groups, f"{name}-norm_1")), f"{name}-conv_1")
        h = h + self.dense(np_silu(embedding), f"{name}-time")[:, None, None, :]
        h = self.conv(np_silu(self.norm(h, groups, f"{name}-norm_2")), f"{name}-conv_2")
        return (x if x.shape[-1] == width else self.dense(x, f"{name}-shortcut")) + h

    def attention(self, x, groups, name="block"):
        n, height, width, channels = x.shape
        pixels = self.norm(x, groups, f"{name}-norm").reshape(n, height * width, channels)
        q, k, v = (self.dense(pixels, f"{name}-{part}") for part in ("query", "key", "value"))
        result = np.zeros_like(pixels)
        for image in range(n):
            for i in range(height * width):
                scores = np.array([q[image, i] @ key for key in k[image]]) / channels**0.5
                result[image, i] = np_softmax(scores) @ v[image]
        return x + self.dense(result, f"{name}-out").reshape(x.shape)

    def predict(self, x, t, p: UNetParameters):
        embedding = np_timestep_embedding(t, p.base_width)
        embedding = self.dense(np_silu(self.dense(embedding, "time-dense_1")), "time-dense_2")

        def block(x, level, way, i):
            name, width = f"{way}-{level}", p.level_widths[level]
            x = self.residual(x, embedding, width, p.groups, f"{name}-residual-{i}")
            attends = p.level_sizes[level] in p.attention_sizes
            return self.attention(x, p.groups, f"{name}-attention-{i}") if attends else x

        h = self.conv(x, "first")
        kept, last = [h], len(p.level_sizes) - 1
        for level in range(last + 1):
            for i in range(p.residual_blocks):
                h = block(h, level, "down", i)
                kept.append(h)
            if level < last:
                h = self.conv(h, f"down-{level}-downsample", stride=2)
                kept.append(h)
        width = p.level_widths[-1]
        h = self.residual(h, embedding, width, p.groups, "middle-residual-0")
        h = self.attention(h, p.groups, "middle-attention-0")
        h = self.residual(h, embedding, width, p.groups, "middle-residual-1")
        for level in range(last, -1, -1):
            for i in range(p.residual_blocks + 1):
                h = block(np.concatenate([h, kept.pop()], axis=-1), level, "up", i)
            if level > 0:
                h = self.conv(h.repeat(2, axis=1).repeat(2, axis=2), f"up-{level}-upsample")
        answer = self.conv(np_silu(self.norm(h, p.groups, "last-norm")), "last-conv")
        assert not kept
        assert not any(self.weights.values())  # every layer with weights has had its turn
        return answer


# --- the graph ----------------------------------------------------------------------------------


def test_a_learned_variance_doubles_the_answer():
    network = unet.build_unet(TINY, learned_variance=True)
    assert network.output_shape == (None, *TINY.image_shape[:2], 2 * TINY.channels)


def test_attention_is_where_the_parameters_ask_for_it_and_always_in_the_middle():
    def softmaxes(**changes):
        return len(operations(build(tiny(residual_blocks=2, **changes)), "Softmax"))

    assert softmaxes(attention_sizes=()) == 1
    assert softmaxes(attention_sizes=(4,)) == 1 + 2 + 3
    assert softmaxes(attention_sizes=(8, 4)) == 1 + 2 * (2 + 3)


def test_an_attention_size_that_no_level_has_is_refused():
    with pytest.raises(ValueError, match=r"attention_sizes=\(14,\).*no level has side 14"):
        UNetParameters(attention_sizes=(14,))


# --- against NumPy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        tiny(),
        tiny(width_multipliers=(1, 1, 2), attention_sizes=(8, 2), groups=4),
        tiny(width_multipliers=(2, 1), residual_blocks=2, attention_sizes=(), dropout=0.5),
        tiny(width_multipliers=(1,), attention_sizes=(), base_width=4),
    ],
    ids=["two levels", "three levels", "narrower below, two blocks, dropout", "one level"],
)
def test_the_whole_network_equals_an_independent_numpy_version(parameters):
    network = randomize(build(parameters))
    x, t = images_and_steps(parameters)
    expected = NumpyNetwork(network).predict(x.astype("float64"), t, parameters)
    assert expected.std() > 0.1
    np.testing.assert_allclose(run(network, x, t), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_normalization_equals_numpy(groups):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 5, (2, 4, 5, 6)).astype("float32")
    image = keras.Input(x.shape[1:])
    network = randomize(keras.Model(image, unet.normalize(image, groups)))
    gamma, beta = network.get_weights()
    expected = np_group_norm(x.astype("float64"), groups, gamma, beta)
    np.testing.assert_allclose(run(network, x), expected, atol=1e-4)


@pytest.mark.parametrize("mean", [0.0, 10.0, -1000.0])
def test_group_normalization_keeps_its_digits_far_from_zero(mean):
    """The variance is the mean of squares minus the square of the mean: digits can be lost."""
    x = np.random.default_rng(0).normal(mean, 1, (2, 8, 8, 6)).astype("float32")
    exact = np_group_norm(x.astype("float64"), 3, np.ones(6), np.zeros(6))
    result = to_numpy(unet.normalize(ops.convert_to_tensor(x), 3))
    np.testing.assert_allclose(result, exact, atol=1e-5)


def test_a_constant_image_is_normalized_to_zero_not_to_nan():
    result = to_numpy(unet.normalize(ops.ones((1, 4, 4, 4)) * 7, 2))
    np.testing.assert_allclose(result, 0, atol=1e-2)


@pytest.mark.parametrize(("width_in", "width_out"), [(8, 8), (8, 4), (4, 8)])
def test_a_residual_block_equals_numpy(width_in, width_out):
    network = randomize(block_network(width_in, width_out, groups=2))
    rng = np.random.default_rng(1)
    x, embedding = rng.standard_normal((2, 6, 6, width_in)), rng.standard_normal((2, 12))
    expected = NumpyNetwork(network).residual(x, embedding, width_out, 2)
    result = run(network, x.astype("float32"), embedding.astype("float32"))
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_attention_equals_numpy():
    network = randomize(attention_network(), scale=0.7)
    x = np.random.default_rng(1).standard_normal((2, 4, 4, 8))
    expected = NumpyNetwork(network).attention(x, 2)
    np.testing.assert_allclose(run(network, x.astype("float32")), expected, atol=2e-3)


def test_downsampling_and_upsampling_equal_numpy():
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype("float32")
    image = keras.Input((6, 6, 3))
    down = randomize(keras.Model(image, unet.downsample(image)))
    up = randomize(keras.Model(image, unet.upsample(image)))
    doubled = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(run(down, x), np_conv(x, *down.get_weights(), stride=2), atol=1e-5)
    np.testing.assert_allclose(run(up, x), np_conv(doubled, *up.get_weights()), atol=1e-5)


# --- time ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=5),
    st.integers(2, 64).map(lambda half: 2 * half),
)
def test_the_timestep_embedding_equals_numpy(t, width):
    result = to_numpy(unet.timestep_embedding(np.array(t, "int32"), width))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np_timestep_embedding(t, width), atol=5e-4)


def test_the_slowest_wave_is_ten_thousand_times_slower_than_the_fastest():
    result = to_numpy(unet.timestep_embedding(np.array([1], "int32"), 32))[0]
    assert result[0] == pytest.approx(np.sin(1.0), abs=1e-6)
    assert result[15] == pytest.approx(1e-4, rel=1e-4)
    assert result[16] == pytest.approx(np.cos(1.0), abs=1e-6)
    np.testing.assert_allclose(
        to_numpy(unet.timestep_embedding(np.array([0], "int32"), 8))[0], [0] * 4 + [1] * 4
    )


@pytest.mark.parametrize("width", [16, 128])
def test_no_two_of_a_thousand_steps_have_the_same_embedding(width):
    e = to_numpy(unet.timestep_embedding(np.arange(1000, dtype="int32"), width)).astype("float64")
    squares = (e**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * e @ e.T, 0))
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 0.3
    assert distances[500, 501] < distances[500, 510] < distances[500, 900]


@pytest.mark.parametrize(("width", "remedy"), [(7, "Use 8"), (2, "Use 4"), (0, "Use 4")])
def test_an_embedding_of_odd_or_tiny_width_is_refused(width, remedy):
    with pytest.raises(ValueError, match=rf"width={width}: .*even and at least 4.*{remedy}\."):
        unet.timestep_embedding(np.array([1], "int32"), width)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"groups=4: .*divide the number of channels, 6. Use .*2"):
        unet.normalize(keras.Input((4, 4, 6)), 4)


def test_time_matters_once_there_are_weights():
    network = randomize(build(TINY))
    x = np.repeat(images_and_steps(TINY, n=1)[0], 4, axis=0)
    results = run(network, x, np.array([0, 1, 100, 999], "int32"))
    for one, other in itertools.combinations(results, 2):
        assert np.abs(one - other).max() > 1e-2


def test_with_one_channel_a_group_a_residual_block_is_deaf_to_time():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, 6, 8)).astype("float32")
    early, late = rng.standard_normal((2, 1, 12)).astype("float32")
    effects = {}
    for groups in (2, 4, 8):
        network = randomize(block_network(8, 8, groups))
        effects[groups] = np.abs(run(network, x, early) - run(network, x, late)).max()
    assert min(effects[2], effects[4]) > 0.02
    assert effects[8] < 1e-4


def test_steps_may_lie_between_whole_numbers_and_come_in_any_type():
    network = randomize(build(TINY))
    x = np.repeat(images_and_steps(TINY, n=1)[0], 3, axis=0)
    steps = np.array([7.0, 7.5, 8.0])
    answers = run(network, x, steps.astype("float32"))
    assert np.abs(answers[1] - answers[0]).max() > 1e-3
    np.testing.assert_array_equal(run(network, x, np.array([7, 7, 8], "int32"))[::2], answers[::2])
    np.testing.assert_array_equal(run(network, x, np.array([7, 7, 8], "int64"))[::2], answers[::2])
    np.testing.assert_array_equal(to_numpy(network([x, steps])), answers)
    predicted = network.predict([x, steps], verbose=0)
    np.testing.assert_allclose(predicted, answers, atol=1e-5)


# --- attention ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 7), st.integers(1, 40), st.floats(0.1, 30))
def test_attention_weights_are_positive_and_sum_to_one(seed, pixels, channels, scale):
    queries, keys = np.random.default_rng(seed).normal(0, scale, (2, 2, pixels, channels))
    weights = to_numpy(unet.attention_weights(queries.astype("float32"), keys.astype("float32")))
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    expected = np_softmax(queries @ keys.transpose(0, 2, 1) / np.sqrt(channels))
    np.testing.assert_allclose(weights, expected, atol=2e-3)


def test_scores_keep_their_spread_however_many_channels_there_are():
    rng = np.random.default_rng(0)
    for channels in (16, 256):
        queries, keys = rng.standard_normal((2, 1, 400, channels)).astype("float32")
        log_weights = np.log(to_numpy(unet.attention_weights(queries, keys))[0])
        spread = (log_weights - log_weights.mean(axis=-1, keepdims=True)).std()
        assert spread == pytest.approx(1, abs=0.1)


def test_attention_of_shuffled_pixels_is_the_shuffled_attention():
    network = randomize(attention_network(), scale=0.5)
    rng = np.random.default_rng(0)
    pixels, order = rng.standard_normal((1, 16, 8)).astype("float32"), rng.permutation(16)
    straight = run(network, pixels.reshape(1, 4, 4, 8)).reshape(16, 8)
    shuffled = run(network, pixels[:, order].reshape(1, 4, 4, 8)).reshape(16, 8)
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-4)
    assert np.abs(straight - pixels[0]).max() > 0.1


# --- the beginning ------------------------------------------------------------------------------


def test_a_fresh_network_answers_zero_so_the_first_loss_is_one():
    network = unet.build_unet(TINY)
    x, t = images_and_steps(TINY, n=200)
    answer = run(network, x, t)
    noise = np.random.default_rng(5).standard_normal(x.shape)
    assert np.abs(answer).max() < 1e-3
    assert ((answer - noise) ** 2).mean() == pytest.approx((noise**2).mean(), abs=1e-3)


def test_a_fresh_residual_block_is_its_shortcut():
    rng = np.random.default_rng(0)
    x, embedding = rng.standard_normal((2, 6, 6, 8)), rng.standard_normal((2, 12))
    x, embedding = x.astype("float32"), embedding.astype("float32")
    np.testing.assert_allclose(run(block_network(8, 8, 2), x, embedding), x, atol=1e-3)
    network = block_network(8, 12, 2)
    expected = run(network.get_layer("block-shortcut"), x)
    np.testing.assert_allclose(run(network, x, embedding), expected, atol=1e-3)


def test_a_fresh_attention_block_changes_nothing():
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 8)).astype("float32")
    np.testing.assert_allclose(run(attention_network(), x), x, atol=1e-3)


def test_initial_weights_have_the_variance_of_their_scale():
    keras.utils.set_random_seed(0)
    kernel = to_numpy(unet.fan_avg_initializer()((3, 3, 64, 128)))
    assert kernel.var() == pytest.approx(2 / (9 * 64 + 9 * 128), rel=0.05)
    limit = np.sqrt(3 * kernel.var())
    assert np.abs(kernel).max() == pytest.approx(limit, rel=0.05)  # uniform, not normal
    nearly_nothing = to_numpy(unet.fan_avg_initializer(unet.ALMOST_ZERO)((3, 3, 64, 128)))
    assert 0 < nearly_nothing.std() < 1e-5


# --- the network as a whole ---------------------------------------------------------------------


def test_28_pixels_go_through_three_levels():
    parameters = tiny(image_size=28, channels=1, width_multipliers=(1, 2, 2), attention_sizes=(7,))
    x, t = images_and_steps(parameters, n=2)
    assert run(randomize(build(parameters)), x, t).shape == (2, 28, 28, 1)


def test_neighbouring_levels_of_equal_width_are_still_halved():
    parameters = tiny(image_size=16, width_multipliers=(1, 2, 2, 2), attention_sizes=())
    network = build(parameters)
    convolutions = operations(network, "Conv2D")
    assert {step.output.shape[1] for step in convolutions} == {16, 8, 4, 2}
    assert sum(step.strides == (2, 2) for step in convolutions) == 3
    assert len(operations(network, "UpSampling2D")) == 3


def test_every_result_of_the_way_down_is_handed_across():
    network = build(tiny(width_multipliers=(1, 2, 2), residual_blocks=2))
    assert len(operations(network, "Concatenate")) == 3 * (2 + 1) + 1  # and sines with cosines


def test_an_image_does_not_see_the_others_of_its_batch():
    network = randomize(build(TINY))
    x, t = images_and_steps(TINY, n=4)
    together = run(network, x, t)
    alone = np.concatenate([run(network, x[i : i + 1], t[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    louder = x.copy()
    louder[1:] *= 100
    np.testing.assert_allclose(run(network, louder, t)[0], together[0], atol=1e-4)


def test_dropout_acts_in_training_only():
    network = randomize(build(tiny(dropout=0.5)))
    x, t = images_and_steps(TINY)
    np.testing.assert_array_equal(run(network, x, t), run(network, x, t))
    first, second = (run(network, x, t, training=True) for _ in range(2))
    assert np.abs(first - second).max() > 1e-2


def test_it_is_a_functional_model_that_saves_and_loads_exactly(tmp_path):
    network = randomize(build(TINY))
    assert isinstance(network, keras.Model)
    assert [tensor.name for tensor in network.inputs] == ["x_t", "t"]
    x, t = images_and_steps(TINY)
    network.save(tmp_path / "unet.keras")
    again = keras.saving.load_model(tmp_path / "unet.keras")
    np.testing.assert_array_equal(run(again, x, t), run(network, x, t))


LAYERS = [
    "time-dense_1", "time-dense_2", "first",
    "down-0-residual-0-norm_1", "down-0-residual-0-conv_1", "down-0-residual-0-time",
    "down-0-residual-0-norm_2", "down-0-residual-0-conv_2", "down-0-residual-1-norm_1",
    "down-0-downsample", "down-1-residual-0-shortcut", "down-1-attention-0-norm",
    "down-1-attention-1-query", "middle-residual-0-norm_1", "middle-attention-0-key",
    "middle-residual-1-conv_2", "up-1-residual-2-time", "up-1-attention-2-value",
    "up-1-attention-0-out", "up-1-upsample", "up-0-residual-2-shortcut", "last-norm", "last-conv",
]  # fmt: skip


def test_layers_are_named_for_their_places():
    network = build(tiny(residual_blocks=2))
    names = [layer.name for layer in network.layers if layer.weights]
    assert set(LAYERS) < set(names)
    assert all(re.match(r"(time|first|last|middle|(down|up)-[01])(-|$)", name) for name in names)
    assert len(names) == len(set(names))
    assert network.get_layer("first").kernel.path == "first/kernel"
    again = build(tiny(residual_blocks=2))  # whatever else was built before
    assert [layer.name for layer in again.layers if layer.weights] == names


def test_weights_come_in_the_order_that_numbered_files_count_on():
    """A file from before the layers had names holds its arrays by number alone."""
    names = [layer.name for layer in build(DIGITS).layers if layer.weights]
    assert names[:17] == [
        "time-dense_1", "first", "time-dense_2", "down-0-residual-0-norm_1",
        "down-0-residual-0-time", "down-0-residual-0-conv_1", "down-0-residual-0-norm_2",
        "down-0-residual-0-conv_2", "down-0-downsample", "down-1-residual-0-norm_1",
        "down-1-residual-0-time", "down-1-residual-0-conv_1", "down-1-residual-0-norm_2",
        "down-1-residual-0-shortcut", "down-1-residual-0-conv_2", "down-1-attention-0-norm",
        "down-1-attention-0-query",
    ]  # fmt: skip
    assert names[-2:] == ["last-norm", "last-conv"]


def test_rebuilt_from_saved_parameters_it_takes_the_same_weights():
    network = randomize(build(TINY))
    again = build(UNetParameters.from_dict(TINY.to_dict()))
    again.set_weights(network.get_weights())
    x, t = images_and_steps(TINY)
    np.testing.assert_array_equal(run(again, x, t), run(network, x, t))


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("half_precision")
def test_half_precision_does_not_round_the_time():
    keras.config.set_dtype_policy("mixed_bfloat16")  # where the whole numbers near 1000 are 4 apart
    network = randomize(build(TINY), scale=0.5)
    x = np.repeat(images_and_steps(TINY, n=1)[0], 3, axis=0)
    counted = run(network, x, np.array([998, 999, 1000], "int32")).astype("float32")
    for t in ("float32", "float64"):
        answers = run(network, x, np.array([998, 999, 1000], t)).astype("float32")
        np.testing.assert_array_equal(answers, counted)
    for one, other in itertools.combinations(counted, 2):
        assert np.abs(one - other).max() > 0.01


@pytest.mark.usefixtures("half_precision")
def test_half_precision_stays_finite_on_loud_inputs_and_keeps_time_and_softmax_whole():
    network = randomize(build(TINY))
    assert network.compute_dtype == "float16"
    x, t = images_and_steps(TINY)
    answer = run(network, 100 * x, t)
    assert answer.dtype == np.float16
    assert np.isfinite(answer).all()
    assert [step.output.dtype for step in operations(network, "Softmax")] == ["float32"] * 4
    assert [step.output.dtype for step in operations(network, "Sin")] == ["float32"]


@pytest.mark.usefixtures("half_precision")
def test_half_precision_is_close_to_full_precision():
    network = randomize(build(TINY))
    x, t = images_and_steps(TINY)
    expected = NumpyNetwork(network).predict(x.astype("float64"), t, TINY)
    difference = np.abs(run(network, x, t) - expected).max()
    assert difference < 0.02 * np.abs(expected).max()


# --- labels -------------------------------------------------------------------------------------

LABELLED = UNetParameters(
    image_size=4,
    channels=1,
    base_width=4,
    width_multipliers=(1,),
    residual_blocks=1,
    attention_sizes=(),
    dropout=0.0,
    groups=2,
    labels=(("hat", 3), ("glasses", 2)),
)


def test_rows_of_labels_add_up_and_nothing_said_has_a_row_of_its_own():
    labels = keras.Input((2,), dtype="int32")
    rows = keras.Model(labels, unet.embed_labels(labels, LABELLED.labels, 5, "labels"))
    hat, glasses = (np.random.default_rng(i).normal(size=(n, 5)) for i, n in ((0, 4), (1, 3)))
    rows.set_weights([hat, glasses])
    found = run(rows, np.array([[2, 0], [-1, -1], [0, -1]], "int32"))
    expected = [hat[3] + glasses[1], hat[0] + glasses[0], hat[1] + glasses[0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_label_is_a_number_and_several_are_columns():
    one = build(dataclasses.replace(LABELLED, labels={"digit": 10}))
    shapes = [tuple(x.shape) for x in (*one.inputs, *build(LABELLED).inputs)]
    assert shapes == [(None, 4, 4, 1), (None,), (None,), (None, 4, 4, 1), (None,), (None, 2)]
    names = {weight.path for weight in one.weights}
    assert "labels-digit/embeddings" in names
    plain = build(dataclasses.replace(LABELLED, labels=()))
    assert names - {"labels-digit/embeddings"} == {weight.path for weight in plain.weights}


def test_the_network_uses_its_labels_and_the_untold_pass_is_untold():
    network = build(LABELLED)
    randomize(network)
    x_t, t = np.ones((4, 4, 4, 1), "float32"), np.ones(4, "float32")
    labels = np.array([[0, 0], [1, 0], [0, 1], [-1, -1]], "int32")
    told = run(network, x_t, t, labels)
    for i, j in itertools.combinations(range(4), 2):
        assert np.abs(told[i] - told[j]).max() > 1e-3
    tables = [weight for weight in network.weights if "labels" in weight.path]
    for table in tables:  # all rows but the first, of what is not said
        value = to_numpy(table).copy()
        value[1:] += 1
        table.assign(value)
    again = run(network, x_t, t, labels)
    np.testing.assert_array_equal(again[3], told[3])
    assert np.abs(again[:3] - told[:3]).max() > 1e-3
    for table in tables:
        value = to_numpy(table).copy()
        value[0] += 1
        table.assign(value)
    moved = run(network, x_t, t, labels)
    assert np.abs(moved[3] - told[3]).max() > 1e-3
    np.testing.assert_array_equal(moved[:3], again[:3])
