"""One of several workers that train together (tf.distribute.MultiWorkerMirroredStrategy).

usage: worker.py NUMBER ADDRESS,ADDRESS… FOLDER [resume SECONDS]

Trains for three epochs and prints JSON. With ``resume`` the run is kept in FOLDER, goes on from
there, and waits for some seconds after each epoch; without, nothing is seeded.
"""

import dataclasses
import json
import os
import sys
import time

number, addresses, folder = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
resumes = sys.argv[4:5] == ["resume"]
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
)

import tensorflow as tf  # noqa: E402

strategy = tf.distribute.MultiWorkerMirroredStrategy()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from same_noise import SameNoise  # noqa: E402
from tiny import TINY  # noqa: E402

from diffusion_walkthrough.data import load_images  # noqa: E402
from diffusion_walkthrough.training import ResumeTraining  # noqa: E402

#: By epoch, which images this worker has seen: each is marked in a corner, blank in all digits.
SEEN: dict[int, list[int]] = {}
IMAGES = load_images("digits")[0][:250]
IMAGES[:, 0, 0, 0] = np.linspace(-1, 1, len(IMAGES))


def note(images):
    marks = (images.numpy()[:, 0, 0, 0] + 1) / 2 * (len(IMAGES) - 1)
    SEEN[max(SEEN)] += np.rint(marks).astype(int).tolist()


class Watched(SameNoise):
    def call(self, images, training=None):
        tf.py_function(note, [images], [])
        return super().call(images, training)


class Progress(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        SEEN[epoch] = []

    def on_epoch_end(self, epoch, logs=None):
        time.sleep(float(sys.argv[5]) if resumes else 0)


if resumes:
    keras.utils.set_random_seed(0)
with strategy.scope():
    training = dataclasses.replace(TINY.training, ema_momentum=0.9, gradient_clip=0.1)
    parameters = dataclasses.replace(TINY, training=training)
    model = Watched(parameters, seed=0 if resumes else None)
    model.compile()
own = [ResumeTraining(folder)] if resumes else []
history = model.fit(IMAGES, epochs=3, verbose=0, callbacks=[*own, Progress()]).history
weights = [float(np.abs(w).sum()) for w in model.network.get_weights()]
print(json.dumps({"history": history, "weights": weights, "seen": list(SEEN.values())}))
