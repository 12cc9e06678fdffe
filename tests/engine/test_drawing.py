"""A compiled network gives the same images sooner, is traced once, and needs bounded memory."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from keras.random import SeedGenerator
from pocket import pocket_model
from tiny import TINY

from diffusion_walkthrough.backward_sampling import (
    Denoiser,
    ddpm_step,
    p_sample_loop,
    p_sample_loop_progressive,
    stops,
    walk,
)
from diffusion_walkthrough.engine.drawing import (
    CompiledNetwork,
    bound,
    check_options,
    if_any,
    kind_of,
    steps_in_one_call,
)
from diffusion_walkthrough.engine.noise import STRIDE
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, ScheduleParameters
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import build_unet

#: No whole number of strides.
LONG = ScheduleParameters("cosine", 2 * STRIDE + 3)
SCHEDULE = NoiseSchedule.from_parameters(LONG)
SHAPE = (3, *TINY.unet.image_shape)


def numpy(x):
    return ops.convert_to_numpy(x)


def with_some_weights(model, scale=0.2):
    rng = np.random.default_rng(0)
    model.network.set_weights([scale * rng.standard_normal(w.shape) for w in model.network.weights])
    return model


@pytest.fixture(scope="module")
def network():
    """Of a pocket model with a schedule of some strides, compiled."""
    return with_some_weights(pocket_model(schedule=LONG)).denoise.network


def walked_step_by_step(denoise, shape, **options):
    return numpy(list(p_sample_loop_progressive(denoise, SCHEDULE, shape, **options))[-1].x)


def assert_close(found, expected):
    assert expected.std() > 0.05
    scale = np.abs(expected).max()
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=2e-4 * scale)


@pytest.mark.parametrize(
    ("reading", "options"),
    [
        ({}, {}),
        ({"prediction": "x_start", "variance": "fixed_large"}, {}),
        ({"prediction": "v"}, {"variance": "fixed_large"}),
        ({"prediction": "x_prev"}, {}),
        ({"prediction": "flow"}, {"steps": 7}),
        ({"clip": False, "prediction": "x_start"}, {"shared_noise_steps": 5}),
        ({}, {"shared_noise_steps": STRIDE + 1}),
        ({}, {"steps": STRIDE, "variance": "fixed_large"}),
    ],
    ids=str,
)
def test_long_strides_lead_where_single_steps_do(network, reading, options):
    denoise = Denoiser(network, SCHEDULE, **reading)
    found = p_sample_loop(denoise, SCHEDULE, SHAPE, seed=4, **options)
    assert_close(found, walked_step_by_step(denoise, SHAPE, seed=4, **options))


def test_a_unet_is_walked_with_as_well():
    keras.utils.set_random_seed(0)
    model = with_some_weights(DiffusionModel(TINY, seed=0))
    found = model.sample(3, seed=4)
    way = p_sample_loop_progressive(model.denoise, model.schedule, SHAPE, seed=4)
    assert_close(found, numpy(list(way)[-1].x))


def test_a_walk_from_noisy_images_is_the_same_too(network):
    x_T = np.random.default_rng(1).standard_normal(SHAPE).astype("float32")
    options = {"seed": 3, "x_T": x_T, "start": STRIDE + 1}
    denoise = Denoiser(network, SCHEDULE)
    found = p_sample_loop(denoise, SCHEDULE, SHAPE, **options)
    assert_close(found, walked_step_by_step(denoise, SHAPE, **options))


def test_a_learned_variance_is_walked_with_as_well():
    model = pocket_model(schedule=LONG, variance="learned", loss="kl")
    with_some_weights(model, scale=0.02)
    found = model.sample(3, seed=1)
    assert_close(found, walked_step_by_step(model.denoise, SHAPE, seed=1))


def test_a_step_of_one_s_own_is_compiled_too(network):
    def half_way(denoise, schedule, x_t, t, s, z, pace=0.5):
        x_start = denoise(x_t, t)
        return x_t + pace * (x_start - x_t) + 0.1 * z, x_start

    denoise = Denoiser(network, SCHEDULE)
    found = walk(half_way, denoise, SCHEDULE, SHAPE, seed=1, pace=0.25, steps=40)
    way = stops(half_way, denoise, SCHEDULE, SHAPE, seed=1, pace=0.25, steps=40)
    assert_close(found, numpy(list(way)[-1].x))


def test_one_stop_of_each_stride_and_the_last_are_handed_out(network):
    denoise = Denoiser(network, SCHEDULE)
    if steps_in_one_call(denoise) is None:
        pytest.skip("PyTorch runs the network as it is")
    way = list(stops(ddpm_step, denoise, SCHEDULE, SHAPE, seed=4, every_stop=False))
    T = len(SCHEDULE)
    assert [stop.t for stop in way] == [T - 1, T - 1 - STRIDE, T - 1 - 2 * STRIDE, -1]
    assert {stop.x_start for stop in way} == {None}
    every = {stop.t: stop.x for stop in stops(ddpm_step, denoise, SCHEDULE, SHAPE, seed=4)}
    for stop in way:
        assert_close(stop.x, numpy(every[stop.t]))


def test_a_generator_stands_where_single_steps_would_leave_it(network):
    denoise, states = Denoiser(network, SCHEDULE), []
    for way in (
        p_sample_loop,
        lambda d, _, shape, **options: walked_step_by_step(d, shape, **options),
    ):
        generator = SeedGenerator(7)
        way(denoise, SCHEDULE, SHAPE, seed=generator)
        states.append(numpy(generator.state.value))
    np.testing.assert_array_equal(*states)


def test_a_misspelt_option_is_refused_before_any_work(network):
    with pytest.raises(TypeError, match="varianz"):
        p_sample_loop(Denoiser(network, SCHEDULE), SCHEDULE, SHAPE, varianz="fixed_large")


def test_everything_is_traced_once(monkeypatch):
    """Whatever the batch, and however many steps and walks: tracing takes seconds each time."""
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch runs the network as it is")
    traces = []
    model = pocket_model(schedule=LONG)
    call = type(model.network).call

    def counted(self, *arguments, **options):
        traces.append(1)
        return call(self, *arguments, **options)

    monkeypatch.setattr(type(model.network), "call", counted)
    seen = []
    for batch in (2, 5) if keras.backend.backend() == "tensorflow" else (2, 2):
        shape = (batch, *TINY.unet.image_shape)
        for seed in range(2):
            model.sample(batch, seed=seed, steps=30 + seed)
        model.denoise(ops.zeros(shape), ops.zeros((batch,), "int32"))
        seen.append(len(traces))
    assert seen[0] == seen[1]
    assert seen[0] >= 2  # the network alone, and the walk


def test_what_reads_differently_is_compiled_anew(network):
    """A walk that is kept must not answer for another one."""
    drawn = {
        clip: numpy(p_sample_loop(Denoiser(network, SCHEDULE, clip=clip), SCHEDULE, SHAPE, seed=1))
        for clip in (True, False)
    }
    assert np.abs(drawn[True]).max() <= 1 < np.abs(drawn[False]).max()
    large = p_sample_loop(
        Denoiser(network, SCHEDULE), SCHEDULE, SHAPE, seed=1, variance="fixed_large"
    )
    assert not np.allclose(numpy(large), drawn[True])


def test_new_weights_are_drawn_with_at_once():
    model = with_some_weights(pocket_model())
    before = model.sample(2, seed=0)
    model.network.set_weights([-w for w in model.network.get_weights()])
    after = model.sample(2, seed=0)
    assert np.abs(after - before).max() > 0.1
    way = p_sample_loop_progressive(model.denoise, model.schedule, (2, *SHAPE[1:]), seed=0)
    assert_close(after, numpy(list(way)[-1].x))


def test_only_a_compiled_network_takes_many_steps_in_one_call(network):
    if keras.backend.backend() != "torch":
        assert steps_in_one_call(Denoiser(network, SCHEDULE)) == network.take_steps
    assert steps_in_one_call(Denoiser(network.network, SCHEDULE)) is None
    assert steps_in_one_call(lambda x_t, t: x_t) is None


def test_a_compiled_network_answers_as_before():
    model = with_some_weights(pocket_model())
    x_t = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    t = np.array([0, 4, 9], "int32")
    compiled = CompiledNetwork(model.network)
    for _ in range(2):
        found = compiled([x_t, t])
        np.testing.assert_allclose(numpy(found), numpy(model.network([x_t, t])), atol=1e-5)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"


# Some at a time ----------------------------------------------------------------------------------


def small_memory(model, at_once):
    """A model whose network is asked about so many images at once."""
    model.denoise.network.__dict__["at_once"] = at_once
    return model


def test_the_images_are_the_same_however_many_are_drawn_at_once():
    options = {"seed": 4, "steps": STRIDE + 2, "shared_noise_steps": 3}
    for own in ({}, options, {"seed": 1, "step": "ddim", "eta": 0.5, "steps": 7}):
        model = with_some_weights(pocket_model(schedule=LONG))
        whole = model.sample(7, **{"seed": 2, **own})
        for at_once in (1, 3, 6):
            found = small_memory(model, at_once).sample(7, **{"seed": 2, **own})
            assert_close(found, whole)
            assert np.array_equal(found[0], found[3]) is False


@pytest.mark.parametrize("own", [{}, {"step": "ddim", "eta": 0.5, "steps": 3}, {"step": "heun"}])
def test_neither_a_batch_size_nor_restarts_in_parts_change_the_images(own):
    model = with_some_weights(pocket_model(schedule=LONG))
    drawing = {"seed": 2, "restarts": 2, "restart_steps": 3, **own}
    whole = model.sample(5, **drawing)
    for batch_size in (1, 2, 5, 64):
        assert_close(model.sample(5, **drawing, batch_size=batch_size), whole)
    parts = [len(part) for part in model.drawn(5, **drawing, batch_size=2)]
    assert parts == [2, 2, 1]
    assert max(abs(whole - model.sample(5, seed=2, **own)).ravel()) > 0.1
    with pytest.raises(ValueError, match=r"batch_size=0: .* at least 1"):
        model.sample(5, batch_size=0)
    with pytest.raises(TypeError, match=r"progress='no': progress must be True or False"):
        model.sample(5, progress="no")


def test_a_generator_and_a_start_are_shared_out_too():
    model = with_some_weights(pocket_model(schedule=LONG))
    x_T = np.random.default_rng(1).standard_normal((5, *SHAPE[1:])).astype("float32")
    generators = [SeedGenerator(7), SeedGenerator(7)]
    whole = [model.sample(5, seed=generators[0], x_T=x_T, start=30) for _ in range(2)]
    small_memory(model, 2)
    parts = [model.sample(5, seed=generators[1], x_T=x_T, start=30) for _ in range(2)]
    for found, expected in zip(parts, whole, strict=True):
        assert_close(found, expected)
    states = [numpy(generator.state.value) for generator in generators]
    np.testing.assert_array_equal(*states)
    with pytest.raises(ValueError, match=r"x_T has shape \(5, 8, 8, 1\)"):
        model.sample(6, x_T=x_T)


def test_parts_are_handed_out_as_they_come_and_are_about_as_large(capsys):
    model = small_memory(pocket_model(), 4)
    parts = model.drawn(9, seed=0, steps=2, progress=True)
    assert [len(part) for part in parts] == [3, 3, 3]
    assert "9/9" in capsys.readouterr().out
    np.testing.assert_array_equal(
        np.concatenate(list(model.drawn(9, seed=0, steps=2))), model.sample(9, seed=0, steps=2)
    )


def test_a_network_is_asked_about_some_at_a_time():
    model = with_some_weights(pocket_model())
    x_t, t = np.random.default_rng(0).standard_normal((7, *SHAPE[1:])), np.arange(7)
    whole = numpy(model.denoise.ask(x_t, t))
    asked, network = [], small_memory(model, 3).denoise.network
    network._ask, ask = lambda *shown: asked.append(len(shown[0])) or ask(*shown), network._ask
    np.testing.assert_allclose(numpy(model.denoise.ask(x_t, t)), whole, atol=1e-5)
    assert asked == [3, 3, 1]


def test_larger_networks_are_asked_about_fewer_images():
    small, large = (
        CompiledNetwork(build_unet(dataclasses.replace(TINY.unet, base_width=width)))
        for width in (8, 64)
    )
    assert 1 <= large.at_once < small.at_once / 4
    digits = CompiledNetwork(build_unet(DiffusionParameters.digits().unet))
    assert digits.at_once >= 1000, "as many as chapter 09 draws, and always drew, at once"


def test_images_that_are_no_numbers_are_not_handed_out():
    model = pocket_model()
    for weight in model.network.weights:
        weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(FloatingPointError, match=r"NaN or infinity.*last checkpoint.*sigma_max"):
        model.sample(2)


# Steps and their options -------------------------------------------------------------------------


def test_what_was_before_is_told_to_those_that_ask_for_it():
    def careful(denoise, schedule, x_t, t, s, z, before, pace=1):
        return before, pace

    def careless(denoise, schedule, x_t, t, s, z, pace=1):
        return x_t, pace

    assert bound(careful, {"pace": 2})(*range(6), before="b") == ("b", 2)
    assert bound(careless, {"pace": 2})(*range(6), before="b") == (2, 2)
    assert check_options(careful, {"pace": 2}) == ["pace"]
    with pytest.raises(TypeError, match="careful has no option 'before'; its own are pace, "):
        check_options(careful, {"before": None})


def test_an_option_may_be_an_array_or_a_list():
    def dimmed(denoise, schedule, x_t, t, s, z, by=1.0):
        return x_t * by[0], x_t

    model = pocket_model()
    ones, options = np.ones((2, 8, 8, 1)), {"x_T": np.ones((2, 8, 8, 1)), "steps": 1}
    for by in ([0.5], np.array([0.25]), np.array([0.5])):
        drawn = model.sample(2, step=dimmed, by=by, **options)
        np.testing.assert_array_equal(drawn, ones * by[0])
    with pytest.raises(TypeError, match="eta must be a finite number from 0 to 1"):
        model.sample(2, step="ddim", eta=np.array([0.5]), **options)


def test_a_walk_of_whole_steps_counts_in_whole_numbers():
    assert kind_of([9, np.int64(3), -1]) == "int32"
    assert kind_of([9, 3.0, -1]) == kind_of([np.float32(2), -1]) == "float32"


@pytest.mark.parametrize(("condition", "expected"), [([True, False], 1), ([False, False], 2)])
def test_only_one_of_two_ways_is_gone(condition, expected):
    gone = []

    def way(number):
        def go():
            gone.append(number)
            return ops.convert_to_tensor(number)

        return go

    found = if_any(ops.convert_to_tensor(condition), way(1), way(2))
    assert int(numpy(found)) == expected
    assert gone == [expected]


def test_the_options_of_a_step():
    assert check_options(ddpm_step, {"variance": "fixed_small"}) == ["variance"]
    with pytest.raises(
        TypeError, match=r"has no option 'eta'; its own are variance, .*steps, start"
    ):
        check_options(ddpm_step, {"eta": 0.5})
    with pytest.raises(TypeError, match="its own are none"):
        check_options(lambda denoise, schedule, x_t, t, s, z: None, {"eta": 0.5})
