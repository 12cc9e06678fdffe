"""Whatever is given as parameters: a model is built and takes a step, or an error helps."""

from __future__ import annotations

import dataclasses
import os
import random
import re

import keras
import numpy as np
import pytest
from keras import ops
from random_parameters import ANYTHING, random_parameters

from diffusion_walkthrough.backward_sampling import p_sample_loop
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters, save_parameters
from diffusion_walkthrough.predictions import check_prediction
from diffusion_walkthrough.training import DiffusionModel

#: Value, rule and remedy: ``name=value: rule. Remedy.``
SENTENCES = re.compile(r"\w+(\[\d+\])?=.*: .*\. .*[.?]", re.DOTALL)


def tried(work, *arguments, **options) -> tuple[object, str]:
    """What comes of it, and what is said if it is refused."""
    try:
        return work(*arguments, **options), ""
    except (TypeError, ValueError) as error:
        return None, str(error)


def made(seed: int, **options: int) -> DiffusionParameters | None:
    """Random parameters, or None if they are refused in our words."""
    parameters, said = tried(random_parameters, random.Random(seed), **options)
    assert parameters or SENTENCES.fullmatch(said), (seed, said)
    assert len(said) < 500, (seed, said)
    return parameters


def scheduled(parameters: DiffusionParameters) -> NoiseSchedule:
    schedule = NoiseSchedule.from_parameters(parameters.schedule)
    check_prediction(schedule, parameters.prediction)
    return schedule


def test_ten_thousand_are_made_or_refused_in_words(tmp_path):
    found = [parameters for seed in range(10_000) if (parameters := made(seed))]
    assert 1500 < len(found) < 6000
    for parameters in found[::50]:
        path = save_parameters(parameters, tmp_path / "any.json", overwrite=True)
        assert load_parameters(path) == parameters
    schedules = [tried(scheduled, parameters) for parameters in found]
    for schedule, said in schedules:
        if schedule is None:
            assert re.search(r"nothing is left of the image.* (Use|use) ", said), said
        else:
            assert np.isfinite(schedule.posterior_log_variance_clipped).all()
    assert sum(schedule is not None for schedule, _ in schedules) > 0.6 * len(found)


@pytest.mark.parametrize("value", ANYTHING, ids=lambda value: repr(value)[:20])
def test_anything_at_all_is_refused_or_taken_by_every_field(value):
    """Alone, so that no other value is to blame; and what is refused is named."""
    whole = DiffusionParameters.digits()
    for part in (whole.schedule, whole.unet, whole.training, whole):
        names = [field.name for field in dataclasses.fields(part)]
        for name in names:
            values = {field: getattr(part, field) for field in names}
            taken, said = tried(type(part), **{**values, name: value})
            assert taken or SENTENCES.fullmatch(said), said


def one_step(parameters: DiffusionParameters) -> None:
    """Train on two images, and go one step back from noise."""
    keras.utils.set_random_seed(0)
    model = DiffusionModel(parameters, seed=0)
    model.compile(run_eagerly=True)
    images = np.linspace(-1, 1, 2 * int(np.prod(parameters.unet.image_shape)), dtype="float32")
    images = images.reshape(2, *parameters.unet.image_shape)
    count = len(parameters.unet.labels)
    labels = np.zeros((2, count) if count > 1 else 2, "int32") if count else None
    assert np.isfinite(float(model.train_on_batch(images, labels)))
    # Not compiled: a single step is quicker so.
    denoise = dataclasses.replace(model.denoise, network=model.network)
    steps = {"steps": 1} if parameters.variance != "learned" else {"steps": [0], "x_T": images}
    drawn = ops.convert_to_numpy(p_sample_loop(denoise, model.schedule, images.shape, **steps))
    assert np.isfinite(drawn).all()


def has_no_convolutions(precision: str) -> bool:
    """Whether this backend may have none: PyTorch has not in 16 bits, on many processors."""
    return keras.backend.backend() == "torch" and precision != "float32"


def stepped(count: int, first: int) -> int:
    """Take so many random objects one step; how many schedules were refused meanwhile."""
    done, refused, seed = 0, 0, first
    while done < count:
        seed += 1
        parameters = made(seed, most_levels=2)
        if parameters is None or has_no_convolutions(parameters.training.precision):
            continue
        _, said = tried(one_step, parameters)
        assert not said or "nothing is left of the image" in said, (seed, said)
        done, refused = done + (not said), refused + bool(said)
    return refused


def test_some_are_built_and_take_a_step():
    stepped(5, first=20_000)


@pytest.mark.slow
@pytest.mark.skipif("THOROUGH" not in os.environ, reason="takes minutes: THOROUGH=1 runs it")
def test_two_hundred_are_built_and_take_a_step():
    assert stepped(200, first=30_000) < 100
