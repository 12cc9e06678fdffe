"""One of several workers that train together (tf.distribute.MultiWorkerMirroredStrategy).

usage: worker.py NUMBER ADDRESS,ADDRESS… FOLDER [EPOCHS]

Writes FOLDER/NUMBER.json with the losses and a sum over the weights when done, and after each
epoch FOLDER/NUMBER.epochs, how many are done. The run can go on after an interruption.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

number, addresses, folder = int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
epochs = int(sys.argv[4])
pause = float(os.environ.get("PAUSE", "0"))
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


class Progress(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print(number, epoch, logs, flush=True)
        (folder / f"{number}.epochs").write_text(str(epoch + 1))
        time.sleep(pause)


keras.utils.set_random_seed(0)
with strategy.scope():
    training = dataclasses.replace(TINY.training, ema_momentum=0.9, gradient_clip=0.1)
    model = SameNoise(dataclasses.replace(TINY, training=training), seed=0)
    model.compile()
images = load_images("digits")[0][:256]
backup = keras.callbacks.BackupAndRestore(folder / f"backup-{number}")
history = model.fit(images, epochs=epochs, shuffle=False, verbose=0, callbacks=[backup, Progress()])
total = float(sum(np.abs(w).sum() for w in model.network.get_weights()))
(folder / f"{number}.json").write_text(json.dumps({**history.history, "weights": total}))
