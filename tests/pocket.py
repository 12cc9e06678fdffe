"""A network that fits into a pocket: for tests of what is around a network, and not of a UNet.

Its first ``fit`` takes a tenth of the time that the smallest UNet takes, because it has five
weights to trace and not fifty.
"""

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine.precision import dtype_policy
from diffusion_walkthrough.forward_diffusion import as_float32
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.predictions import PREDICTIONS, predict_noise_from_x_start
from diffusion_walkthrough.training import DiffusionModel


def pocket_network(parameters: DiffusionParameters = TINY, width: int = 16) -> keras.Model:
    """Two dense layers and a row for each t, in the precision of the parameters."""
    with dtype_policy(parameters.training.precision):
        x_t = keras.Input(parameters.unet.image_shape, name="x_t")
        t = keras.Input((), name="t")
        row = layers.Embedding(parameters.schedule.timesteps, width, name="row")(t)
        h = layers.Dense(width, name="in")(layers.Flatten()(x_t)) + row
        shown = [x_t, t]
        if parameters.unet.labels:  # one label
            ((_, count),) = parameters.unet.labels
            shown.append(keras.Input((), dtype="int32", name="told"))
            h = h + layers.Embedding(count + 1, width, name="labels")(shown[2] + 1)
        if parameters.unet.dropout:
            h = layers.Dropout(parameters.unet.dropout)(h)
        channels = parameters.unet.channels * (2 if parameters.variance == "learned" else 1)
        size = parameters.unet.image_size
        answer = layers.Dense(size * size * channels, name="out")(ops.silu(h))
        return keras.Model(shown, layers.Reshape((size, size, channels))(answer), name="pocket")


def pocket_parameters(**changes) -> DiffusionParameters:
    """TINY with changes: those of training by their own names, others as they stand."""
    training = {name: changes.pop(name) for name in list(changes) if hasattr(TINY.training, name)}
    training = dataclasses.replace(TINY.training, **training)
    return dataclasses.replace(TINY, training=training, **changes)


def pocket_model(seed: int = 0, **changes) -> DiffusionModel:
    """A model with a pocket network, not compiled; the same weights each time."""
    parameters = pocket_parameters(**changes)
    keras.utils.set_random_seed(0)
    return DiffusionModel(parameters, seed=seed, network=pocket_network(parameters))


def compiled(optimizer: object = None, **changes) -> DiffusionModel:
    """The same, compiled; without an optimizer, with the published one."""
    model = pocket_model(**changes)
    model.compile(optimizer)
    return model


def digits(n: int = 64) -> np.ndarray:
    """The first training digits."""
    return load_images("digits")[0][:n]


def numpy(x: object) -> np.ndarray:
    """A tensor's numbers."""
    return ops.convert_to_numpy(x)


def averaged_by_hand(weights: list, momentum: float) -> list:
    """The average after each step, with the momentum that rises; ``weights`` after each step."""
    average = weights[0]
    for n, latest in enumerate(weights[1:], start=1):
        share = min(momentum, (1 + n) / (10 + n))
        average = [share * a + (1 - share) * w for a, w in zip(average, latest, strict=True)]
    return average


def right_answer(schedule, x_t, t, x_start, prediction: str) -> object:
    """What a network that knows the clean image answers, to any prediction."""
    noise = predict_noise_from_x_start(schedule, x_t, t, x_start)
    return PREDICTIONS[prediction].target(schedule, as_float32(x_start), noise, x_t, t)
