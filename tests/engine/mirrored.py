"""Training on one device and on two logical processors (tf.distribute), in one process; JSON."""

import json

import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
STRATEGIES = {
    "one": tf.distribute.get_strategy(),
    "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
}

import numpy as np  # noqa: E402
from pocket import pocket_model  # noqa: E402

from diffusion_walkthrough.data import load_images  # noqa: E402
from diffusion_walkthrough.engine.optimizer import replica_count  # noqa: E402

IMAGES = load_images("digits")[0][:128]
RUNS = {
    "plain": {"ema_momentum": 0.9, "gradient_clip": 0.1},
    "in parts": {"ema_momentum": 0.9, "gradient_clip": 0.1, "gradient_accumulation_steps": 2},
    "float16": {"precision": "mixed_float16"},
}


def trained(strategy, training):
    with strategy.scope():
        model = pocket_model(**training)
        model.compile()
        replicas = replica_count()
    history = model.fit(IMAGES, epochs=2, verbose=0).history
    evaluated = model.evaluate(IMAGES, verbose=0)
    weights = [float(np.abs(w).sum()) for w in model.network.get_weights()]
    return {**history, "evaluated": evaluated, "weights": weights, "replicas": replicas}


def refused(strategy):
    """What is said of a pixel out of range in a data set."""
    with strategy.scope():
        model = pocket_model()
        model.compile()
    images = IMAGES.copy()
    images[2 * 32 + 30] = 7.0
    try:
        model.fit(tf.data.Dataset.from_tensor_slices(images).batch(32), verbose=0)
    except ValueError as error:
        return str(error)
    return "no error"


found = {
    name: {kind: trained(strategy, training) for kind, training in RUNS.items()}
    for name, strategy in STRATEGIES.items()
}
print(json.dumps({**found, "refused": refused(STRATEGIES["two"])}))
