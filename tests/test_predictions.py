"""Each prediction is the clean image in other words: its formula in float64, there and back."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import ops
from pocket import pocket_model, pocket_network, right_answer

from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import PREDICTION_NAMES, ScheduleParameters
from diffusion_walkthrough.predictions import (
    PREDICTIONS,
    Denoiser,
    check_prediction,
    predict_noise_from_x_start,
    predict_x_start_from_noise,
    predict_x_start_from_x_prev,
)

PAPER = NoiseSchedule(make_betas("linear", 1000))
FEW = NoiseSchedule(make_betas("linear", 20))
JSD = NoiseSchedule(make_betas("jsd", 20))
STEPS = {"paper": [0, 1, 10, 100, 500, 999], "few": [0, 1, 5, 10, 18, 19], "jsd": [0, 1, 9, 17, 18]}
SCHEDULES = {"paper": PAPER, "few": FEW, "jsd": JSD}


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), dtype=np.float64)


def case(name, seed=0):
    """Schedule, t, and in float64: x_0, noise, x_t by Eq. 4, and a and b as columns."""
    schedule, t = SCHEDULES[name], np.array(STEPS[name])
    x_start, noise = np.random.default_rng(seed).standard_normal((2, len(t), 4))
    alpha_bar = np.cumprod(1 - schedule.betas)[t][:, None]
    a, b = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    return schedule, t, x_start, noise, a * x_start + b * noise, a, b


def formula(prediction, schedule, t, x_start, noise, x_t, a, b):
    """The right answer, from the definition, in float64."""
    beta = schedule.betas[t][:, None]
    before = np.append(1.0, np.cumprod(1 - schedule.betas))[t][:, None]
    mean = np.sqrt(before) * beta * x_start + np.sqrt(1 - beta) * (1 - before) * x_t
    return {
        "noise": noise,
        "x_start": x_start,
        "x_prev": mean / b**2,  # Eq. 7
        "v": a * noise - b * x_start,  # Salimans and Ho 2022, appendix D
        "flow": noise - x_start,  # Liu et al. 2022
    }[prediction]


def magnified(prediction, schedule, t, a):
    """By how much the way back to x_0 magnifies an error of the answer, or of x_t."""
    by = {"noise": 1 / a, "x_prev": 1 / schedule.posterior_mean_coef1[t][:, None]}
    return by.get(prediction, np.ones_like(a))


def test_every_name_of_the_parameters_is_a_prediction():
    assert tuple(PREDICTIONS) == PREDICTION_NAMES


@pytest.mark.parametrize(
    ("name", "prediction"),
    [(name, prediction) for name in SCHEDULES for prediction in PREDICTIONS
     if (name, prediction) != ("jsd", "noise")],  # that is refused, see below
)  # fmt: skip
def test_a_prediction_is_its_formula_there_and_back(name, prediction):
    schedule, t, x_start, noise, x_t, a, b = case(name)
    answer = formula(prediction, schedule, t, x_start, noise, x_t, a, b)
    found = PREDICTIONS[prediction].target(schedule, x_start, noise, x_t, t)
    np.testing.assert_allclose(numpy(found), answer, rtol=0, atol=1e-6)
    back = PREDICTIONS[prediction].to_x_start(schedule, x_t, t, answer)
    error = np.abs(numpy(back) - x_start) / magnified(prediction, schedule, t, a)
    assert error.max() < 1e-6


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_from_the_image_to_the_prediction_and_back(prediction):
    """The noise is worked out on the way, and divided by its rate: 0.01 at the first step."""
    schedule, t, x_start, noise, x_t, a, b = case("paper")
    found = right_answer(schedule, x_t, t, x_start, prediction)
    answer = formula(prediction, schedule, t, x_start, noise, x_t, a, b)
    assert (np.abs(numpy(found) - answer) * b).max() < 1e-6
    back = PREDICTIONS[prediction].to_x_start(schedule, x_t, t, found)
    error = np.abs(numpy(back) - x_start) / magnified(prediction, schedule, t, a)
    assert error.max() < 3e-6


@settings(max_examples=25)
@given(t=st.integers(0, 999), seed=st.integers(0, 2**31))
def test_v_and_flow_are_as_large_at_every_step(t, seed):
    """What they are for: neither the answer nor the way back is magnified anywhere."""
    x_start, noise = np.random.default_rng(seed).standard_normal((2, 1, 5))
    a, b = (
        float(table[t]) for table in (PAPER.sqrt_alphas_cumprod, np.sqrt(1 - PAPER.alphas_cumprod))
    )
    for prediction in ("v", "flow"):
        x_t, step = a * x_start + b * noise, np.array([t])
        answer = right_answer(PAPER, x_t, step, x_start, prediction)
        largest = max(np.abs(x_start).max(), np.abs(noise).max())
        assert np.abs(numpy(answer)).max() <= 2.01 * largest
        off_by_a_tenth = PREDICTIONS[prediction].to_x_start(PAPER, x_t, step, numpy(answer) + 0.1)
        assert np.abs(numpy(off_by_a_tenth) - x_start).max() < 0.1 + 1e-4


def test_the_named_functions_are_those_of_the_table():
    schedule, t, x_start, noise, x_t, _, _ = case("few")
    for prediction, function, answer in (
        ("noise", predict_x_start_from_noise, noise),
        ("x_prev", predict_x_start_from_x_prev, 0.9 * x_t),
    ):
        np.testing.assert_array_equal(
            numpy(function(schedule, x_t, t, answer)),
            numpy(PREDICTIONS[prediction].to_x_start(schedule, x_t, t, answer)),
        )
    np.testing.assert_array_equal(
        numpy(predict_noise_from_x_start(schedule, x_t, t, x_start)),
        numpy(right_answer(schedule, x_t, t, x_start, "noise")),
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_tensors_and_numbers_of_numpy_are_taken_alike(prediction):
    schedule, t, x_start, _, x_t, _, _ = case("few")
    tensors = (ops.convert_to_tensor(np.float32(x)) for x in (x_t, x_start))
    step = ops.convert_to_tensor(t.astype("int32"))
    x, image = tensors
    np.testing.assert_array_equal(
        numpy(right_answer(schedule, x, step, image, prediction)),
        numpy(right_answer(schedule, x_t, t, x_start, prediction)),
    )


# What cannot be predicted ------------------------------------------------------------------------

#: Schedules whose ᾱ is above 0 in float64, but 1/√ᾱ is more than float32 can hold, and the step.
TOO_NOISY = {
    "const": (ScheduleParameters("const", 1000, beta_end=0.2), 783),
    "linear": (ScheduleParameters("linear", 1000, beta_end=0.5), 764),
    "long": (ScheduleParameters("linear", 20_000, scaled=False), 18_675),
}


@pytest.mark.parametrize("kind", TOO_NOISY)
@pytest.mark.parametrize("prediction", ["noise", "x_prev"])
def test_a_schedule_too_noisy_for_float32_is_refused_when_the_model_is_made(kind, prediction):
    """Such a model would train, and draw NaN."""
    parameters, _ = TOO_NOISY[kind]
    with pytest.raises(ValueError, match=r"at t = \d+ of \d+ steps is .*Predict 'x_start', or use"):
        pocket_model(schedule=parameters, prediction=prediction)


@pytest.mark.parametrize("kind", TOO_NOISY)
def test_the_step_that_is_named_is_the_first_that_is_too_noisy(kind):
    schedule = NoiseSchedule.from_parameters(TOO_NOISY[kind][0])
    with pytest.raises(ValueError, match="cannot be used with this schedule") as refused:
        check_prediction(schedule, "noise")
    first = int(np.argmax(1 / schedule.sqrt_alphas_cumprod > 1 / np.finfo("float32").tiny))
    assert f"at t = {first} of {len(schedule)} steps" in str(refused.value)


@pytest.mark.parametrize("prediction", ["x_start", "v", "flow"])
def test_what_needs_no_division_is_finite_there(prediction):
    schedule = NoiseSchedule.from_parameters(TOO_NOISY["const"][0])
    check_prediction(schedule, prediction)
    t = np.array([0, 500, 999])
    x_t, answer = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert np.isfinite(numpy(PREDICTIONS[prediction].to_x_start(schedule, x_t, t, answer))).all()


def test_the_shipped_schedules_allow_every_prediction():
    for name in ("linear", "cosine", "quad", "sigmoid", "warmup10", "warmup50", "const"):
        for prediction in PREDICTIONS:
            check_prediction(NoiseSchedule(make_betas(name, 1000)), prediction)


def test_noise_cannot_be_predicted_where_nothing_is_left_of_the_image():
    with pytest.raises(ValueError, match=r"'noise' cannot be used .*Predict 'x_start'"):
        check_prediction(JSD, "noise")
    check_prediction(JSD, "x_prev")


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match=r"prediction = 'epsilon' must be one of \('noise'"):
        check_prediction(FEW, "epsilon")
    with pytest.raises(ValueError, match=r"prediction = \['noise'\] must be one of"):
        check_prediction(FEW, ["noise"])


@pytest.mark.parametrize("clip", ["no", None, 1])
def test_clipping_is_said_by_true_or_false(clip):
    with pytest.raises(TypeError, match=r"clip=.*True or False, without quotes"):
        Denoiser(lambda shown, training: shown[0], FEW, clip=clip)


@pytest.mark.parametrize("prediction", ["noise", "x_start", "v"])
@pytest.mark.parametrize("t", [-1, 20, -1.0, 19.5, float("nan"), [-1, 3], np.array([3, 20])])
def test_a_network_is_asked_at_steps_that_there_are(t, prediction):
    denoise, x_t = Denoiser(lambda shown, training: shown[0], FEW, prediction), np.ones((2, 4))
    told = t if isinstance(t, (int, float)) else ops.convert_to_tensor(t, "int32")
    for steps in (t, told):
        with pytest.raises(ValueError, match=r"t = (-1|20|19.5|nan)(.0)? must lie in 0 … 19"):
            denoise(x_t, steps)


def test_one_number_stands_for_all_and_may_be_of_any_type():
    denoise, x_t = Denoiser(lambda shown, training: shown[0], FEW), np.ones((2, 4))
    expected = numpy(denoise(x_t, [5, 5]))
    for t in (5, np.int64(5), np.array(5, "uint8"), ops.convert_to_tensor(5)):
        np.testing.assert_array_equal(numpy(denoise(x_t, t)), expected)
    for t in (5.5, np.float64(5.5)):
        found = numpy(denoise(x_t, t))
        np.testing.assert_array_equal(found, numpy(denoise(x_t, [5.5, 5.5])))
    for t in ("5", True):
        with pytest.raises(TypeError, match=rf"t={t!r}: steps must be whole or real numbers"):
            denoise(x_t, t)


def test_a_network_is_asked_with_arrays_and_tensors_alike():
    """Keras refuses both in one list."""
    network, x_t = pocket_network(), np.zeros((3, 8, 8, 1))
    schedule = NoiseSchedule(make_betas("linear", 10))
    denoise = Denoiser(network, schedule)
    expected = numpy(denoise.ask(x_t, np.array([1, 2, 3], "int32")))
    for t in (np.array([1, 2, 3]), ops.convert_to_tensor([1, 2, 3])):
        np.testing.assert_allclose(numpy(denoise.ask(x_t, t)), expected, rtol=1e-6)
        tensor = ops.convert_to_tensor(x_t, dtype="float32")
        np.testing.assert_allclose(numpy(denoise.ask(tensor, t)), expected, rtol=1e-6)
    assert np.abs(expected).max() > 0
