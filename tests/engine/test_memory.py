"""Any number of images in memory of a bounded size: in a process of its own, which is measured."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import pytest

MEGABYTES = 300  # above what the model itself takes

CODE = """
import json, resource
import numpy as np
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.loss import bits_per_dim
from diffusion_walkthrough.noise_schedule import NoiseSchedule

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # in MB

model, images, short = load_model("digits"), np.zeros((8_000, 8, 8, 1)), NoiseSchedule([0.5, 0.9])
model.compile()
works = {
    "sample": lambda n: model.sample(n, seed=0, steps=2),
    "evaluate": lambda n: model.evaluate(images[:n], verbose=0),
    "bits": lambda n: bits_per_dim(model.denoise, short, images[:n], batch_size=n, levels=17),
}
found = {}
for name, work in works.items():
    work(64)
    before = peak()
    work(len(images))
    found[name] = peak() - before
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="is measured in other units there")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="draws the noise of all at once"
)
def test_memory_is_bounded_however_many_images_are_asked_for():
    """Drawn at once, 8,000 digits would take half a gigabyte."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"sample", "evaluate", "bits"}
    assert max(found.values()) < MEGABYTES, found
