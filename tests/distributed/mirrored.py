"""Two replicas on two logical processors, and one device, in one process; prints JSON."""

import dataclasses
import json
import sys

import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

import keras  # noqa: E402
import numpy as np  # noqa: E402
from same_noise import SameNoise  # noqa: E402
from tiny import TINY  # noqa: E402

from diffusion_walkthrough.data import load_images  # noqa: E402
from diffusion_walkthrough.replicas import (  # noqa: E402
    ReplicaSeedGenerator,
    replica_count,
    sum_over_replicas,
)
from diffusion_walkthrough.training import DiffusionModel  # noqa: E402

IMAGES = load_images("digits")[0][:256]


def model_on(strategy, kind=DiffusionModel, **training):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        parameters = dataclasses.replace(TINY.training, **training)
        model = kind(dataclasses.replace(TINY, training=parameters), seed=0)
        model.compile()
    return model


def weights(model):
    return [float(np.abs(w).sum()) for w in model.network.get_weights()]


def steps():
    """The same steps on one device and on two, where clipping and averaging both count."""
    found = {}
    for name, strategy in (("one", tf.distribute.get_strategy()), ("two", STRATEGY)):
        model = model_on(strategy, SameNoise, ema_momentum=0.9, gradient_clip=0.1)
        history = model.fit(IMAGES, epochs=2, shuffle=False, verbose=0).history
        loss = model.evaluate(IMAGES, batch_size=32, verbose=0)
        found[name] = {**history, "evaluated": loss, "weights": weights(model)}
    return found


def draws():
    """What each replica draws, and what a sum over them is."""
    alone = keras.random.normal((3,), seed=keras.random.SeedGenerator(7)).numpy().tolist()
    with STRATEGY.scope():
        generator = ReplicaSeedGenerator(7)

    @tf.function
    def step():
        number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "float32")
        count = replica_count()
        total = sum_over_replicas([number + 1, None])
        return keras.random.normal((3,), seed=generator), total[0], count

    numbers, total, count = STRATEGY.run(step)
    values = [v.numpy().tolist() for v in numbers.values]
    return {"alone": alone, "drawn": values, "sum": float(total.values[1]), "count": int(count)}


def guard():
    """A pixel out of range in the second replica's share of step 3."""
    model = model_on(STRATEGY)
    images = IMAGES.copy()
    images[2 * 32 + 30] = 7.0
    data = tf.data.Dataset.from_tensor_slices(images).batch(32)
    try:
        model.fit(data, verbose=0)
    except ValueError as error:
        return str(error)
    return "no error"


def half():
    """An epoch with loss scaling."""
    model = model_on(STRATEGY, precision="mixed_float16")
    losses = model.fit(IMAGES, epochs=2, verbose=0).history["loss"]
    return {"loss": losses, "scale": float(model.optimizer.dynamic_scale.value.numpy())}


print(json.dumps({name: globals()[name]() for name in sys.argv[1:]}))
