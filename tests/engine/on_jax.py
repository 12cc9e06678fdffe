"""Training on JAX with keras.distribution: on one device, on two, or in one of two processes; JSON.

usage: on_jax.py one | two | process NUMBER ADDRESS
"""

import json
import sys

import keras

if sys.argv[1] == "process":
    keras.distribution.initialize(sys.argv[3], num_processes=2, process_id=int(sys.argv[2]))

import jax
import numpy as np
from pocket import pocket_model

from diffusion_walkthrough.data import load_images

if sys.argv[1] != "one":
    devices = keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)
    keras.distribution.set_distribution(devices)
model = pocket_model(ema_momentum=0.9, gradient_clip=0.1)
model.compile()
images = load_images("digits")[0][:128]
history = model.fit(images, epochs=2, verbose=0).history
evaluated = float(model.evaluate(images, verbose=0))
weights = [float(np.abs(np.asarray(w.value)).sum()) for w in model.network.weights]
used = len(model.network.weights[0].value.sharding.device_set)
print(json.dumps({**history, "evaluated": evaluated, "weights": weights, "devices": used}))
