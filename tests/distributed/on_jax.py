"""Keras's own distribution on JAX: one device, then two; prints JSON."""

import dataclasses
import json
import sys

import jax
import keras
import numpy as np
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.training import DiffusionModel

if sys.argv[1] == "two":
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
keras.utils.set_random_seed(0)
training = dataclasses.replace(TINY.training, ema_momentum=0.9, gradient_clip=0.1)
model = DiffusionModel(dataclasses.replace(TINY, training=training), seed=0)
model.compile()
images = load_images("digits")[0][:256]
history = model.fit(images, epochs=2, shuffle=False, verbose=0).history
devices = len(model.network.weights[0].value.sharding.device_set)
total = [float(np.abs(w).sum()) for w in model.network.get_weights()]
bad = images.copy()
bad[70] = 7.0


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return len(bad) // 32

    def __getitem__(self, index):
        return (bad[32 * index : 32 * (index + 1)],)


try:
    model.fit(Batches(), shuffle=False, verbose=0)
    message = "no error"
except ValueError as error:
    message = str(error)
print(json.dumps({**history, "weights": total, "devices": devices, "guard": message}))
