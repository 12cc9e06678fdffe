"""Every data set by one argument: chapters 05 and 06 run to their end with another ``DATA``.

The cells are those of the pages. What is patched is the package: the network is a tiny one, and
trained for ten steps. The last section of chapter 05, on hats, does not depend on ``DATA``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from diffusion_walkthrough import checkpoints, data
from diffusion_walkthrough.checkpoints import kept_model
from diffusion_walkthrough.data import to_uint8
from diffusion_walkthrough.faces import draw
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.training import DiffusionModel

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
DATA_LINE = re.compile(r'^DATA = "digits"', re.MULTILINE)


def code_of(page: str, name: str) -> list[str]:
    """The code cells of a page but for those on hats, with another data set."""
    cells = json.loads((NOTEBOOKS / f"{page}.ipynb").read_text("utf-8"))["cells"]
    codes = [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and not cell["id"].startswith("hat")
    ]
    lines = [bool(DATA_LINE.search(code)) for code in codes]
    assert sum(lines) == 1, f"{page} must have one line that begins with DATA = "
    return [DATA_LINE.sub(f"DATA = {name!r}", code) for code in codes]


def run_page(page: str, name: str) -> dict:
    """Run its cells one after the other; what they leave behind."""
    left: dict = {"__name__": "__main__"}
    for number, code in enumerate(code_of(page, name)):
        code = TransformerManager().transform_cell(code)
        code = code.replace("range(1, 2001)", "range(1, 101)")  # numbers, not images
        with contextlib.redirect_stdout(io.StringIO()):  # pictures too come out as text here
            exec(compile(code, f"{page}, code cell {number}", "exec"), left)
        plt.close("all")
    return left


def tiny(parameters: DiffusionParameters) -> DiffusionParameters:
    """The same, with a tiny network and for ten steps of a few large batches."""
    unet = dataclasses.replace(
        parameters.unet,
        base_width=4,
        width_multipliers=(1, 1),
        attention_sizes=(),
        groups=2,
    )
    training = dataclasses.replace(
        parameters.training, batch_size=100, warmup_steps=2, decay_steps=10
    )
    schedule = dataclasses.replace(parameters.schedule, timesteps=100)
    return dataclasses.replace(parameters, unet=unet, training=training, schedule=schedule)


@pytest.fixture
def quickly(monkeypatch, tmp_path):
    """A folder for the chapters, few images, tiny networks, and no model that ships."""
    everything = data.training_and_held_out
    real = DiffusionParameters.for_data
    monkeypatch.setattr(
        DiffusionParameters, "for_data", staticmethod(lambda *words: tiny(real(*words)))
    )
    monkeypatch.setattr(checkpoints, "pretrained_names", list)
    monkeypatch.setattr(
        data, "training_and_held_out", lambda name, *most: everything(name, 200, 60)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folder_of_pictures(folder: Path, count: int = 30) -> str:
    """Pictures in colour, wider than high."""
    folder.mkdir()
    for number, face in enumerate(to_uint8(draw(count)[0])):
        Image.fromarray(face).resize((40, 30)).save(folder / f"{number:03}.png")
    return str(folder)


@pytest.mark.slow
def test_chapters_05_and_06_run_with_faces(quickly):
    trained = run_page("05_training", "faces")
    assert trained["images"].shape == (200, 16, 16, 3)
    assert kept_model("faces").is_dir()
    drawn = run_page("06_backward_sampling", "faces")
    assert drawn["drawn"].shape == (3 * 60, 16, 16, 3)
    assert len(drawn["in_ten"]["fixed_small"][0]) == len(drawn["held_out"]) == 60


def some_images(name: str):
    """Images of the size that Keras's data sets have, as it hands them out."""
    shape = (32, 32, 3) if name == "cifar10" else (28, 28)
    random = np.random.default_rng(0)
    return [
        (random.integers(0, 256, (n, *shape), np.uint8), random.integers(0, 10, n, np.uint8))
        for n in (20, 8)
    ]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mnist", (28, 28, 1)), ("fashion_mnist", (28, 28, 1)), ("cifar10", (32, 32, 3)),
     ("pictures", (16, 16, 3))],
)  # fmt: skip
def test_other_images_are_trained_on_and_the_model_is_kept_and_found(
    name, shape, quickly, monkeypatch
):
    if name == "pictures":
        name = folder_of_pictures(quickly / name)
    else:
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: some_images(name))
    images, _, held_out = data.training_and_held_out(name)
    assert images.shape[1:] == held_out.shape[1:] == shape
    model = DiffusionModel(DiffusionParameters.for_data(name, images.shape[1:]), seed=0)
    model.compile(run_eagerly=True)  # compiling would take longer than all else
    model.fit(images, epochs=1, verbose=0)
    checkpoints.save_model(model, kept_model(name))
    again = checkpoints.model_of(name)
    shown = held_out[:2], np.array([5, 50], "float32")
    np.testing.assert_array_equal(again(shown), model(shown))


@pytest.mark.parametrize("page", ["05_training", "06_backward_sampling"])
def test_a_page_has_one_line_that_names_its_data(page):
    assert code_of(page, "faces")
