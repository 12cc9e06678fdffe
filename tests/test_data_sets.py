"""Every data set by one argument: chapters 05, 06 and 07 run to their end with another ``DATA``.

The cells are those of the pages, with fewer images and steps. What is patched is the package: the
network that 05 trains is a tiny one, for ten steps. What is about faces, about hats, and about
reading files anew in another process, does not depend on ``DATA`` and is left out.
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

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, REAL_DATA = ROOT / "notebooks", ROOT.parent / "shared" / "datasets"
DATA_LINE = re.compile(r'^DATA = "digits"', re.MULTILINE)
#: How the cells begin, by their ids, that are not about ``DATA``.
APART = ("hat", "ask-mouth", "damage", "read-faces", "faces-", "another-process", "same-to-the-bit")

#: What a page does, and less of it. Each stands in one of them.
SMALLER = {
    "range(1, 2001)": "range(1, 101)",  # numbers, not images
    "(10, 50, 200, 1000)": "(10, 50)",  # likewise
    "20_000": "500",  # walkers
    "(4, 1, 1, 1)": "(1, 1, 1, 1)",
    "(20, 1, 1, 1)": "(1, 1, 1, 1)",
    "range(10)": "range(3)",
    "steps_per_epoch=10": "steps_per_epoch=3",
    "training=1500, held_out=297": "training=160, held_out=40",
    "min(100, len(model.schedule))": "min(3, len(model.schedule))",
    "100_000": "1000",
    "repeats=3000": "repeats=30",
    "range(3, 10)": "range(3, 5)",
    "seed in (7, 8, 9)": "seed in (7, 8)",
    "seed in (5, 6, 7)": "seed in (5, 6)",
}


def code_of(page: str, name: str) -> list[str]:
    """The code cells of a page that are about its data, with another data set."""
    cells = json.loads((NOTEBOOKS / f"{page}.ipynb").read_text("utf-8"))["cells"]
    codes = [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and not cell["id"].startswith(APART)
    ]
    lines = [bool(DATA_LINE.search(code)) for code in codes]
    assert sum(lines) == 1, f"{page} must have one line that begins with DATA = "
    return [DATA_LINE.sub(f"DATA = {name!r}", code) for code in codes]


def run_page(page: str, name: str) -> dict:
    """Run its cells one after the other; what they leave behind."""
    left: dict = {"__name__": "__main__"}
    for number, code in enumerate(code_of(page, name)):
        code = TransformerManager().transform_cell(code)
        for much, less in SMALLER.items():
            code = code.replace(much, less)
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
    assert drawn["drawn"].shape == (2 * 60, 16, 16, 3)
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
    ships = name in checkpoints.pretrained_names()
    again = checkpoints.load_model(kept_model(name)) if ships else checkpoints.model_of(name)
    shown = held_out[:2], np.array([5, 50], "float32")
    found, right = (keras.ops.convert_to_numpy(ask(shown)) for ask in (again, model))
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("page", ["05_training", "06_backward_sampling", "07_evaluation"])
def test_a_page_has_one_line_that_names_its_data(page):
    cells = code_of(page, "faces")
    if page == "07_evaluation":
        assert all('"digits"' not in code for code in cells if "DATA =" not in code)


def test_what_is_made_smaller_is_there():
    pages = "".join(path.read_text("utf-8") for path in NOTEBOOKS.glob("0[567]_*.ipynb"))
    assert [much for much in SMALLER if much not in pages] == []


# --- chapter 07, which trains nothing -----------------------------------------------------------


def is_a_whole_page(made: dict) -> None:
    assert len(made["drawn"]) == 3
    assert made["drawn"][0].shape == made["held_out"].shape
    assert set(made["results"]) == {"real", "network", "blurred", "smudges"}
    assert made["guess"].answer is not None  # the last Predict, on copies, has been answered
    assert len(made["ratios"]) == 8


@pytest.mark.parametrize("name", ["digits", "faces"])
def test_chapter_07_runs_with_what_ships(name):
    made = run_page("07_evaluation", name)
    is_a_whole_page(made)
    assert (made["features"] is made["flatten"]) == (name == "faces")  # no classifier of faces


def test_chapter_07_runs_with_a_folder_of_pictures_and_says_that_there_is_no_model(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made = run_page("07_evaluation", folder_of_pictures(tmp_path / "pictures", 120))
    is_a_whole_page(made)
    assert type(made["model"]).__name__ == "StandIn"
    assert made["held_out"].shape == (20, 16, 16, 3)


def some_of(name: str) -> list:
    """The first images of a data set from ``../shared/datasets``, as Keras hands them out."""
    if name == "mnist":
        with np.load(REAL_DATA / "mnist.npz") as file:
            return [(file[f"x_{s}"][:400], file[f"y_{s}"][:400]) for s in ("train", "test")]
    with np.load(REAL_DATA / "cifar10_jpeg.npz") as file:
        buffer, at = file["jpeg"], file["offsets"]
    jpegs = [buffer[at[i] : at[i + 1]].tobytes() for i in range(300)]
    images = np.stack([np.array(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
    labels = np.zeros((300, 1), np.uint8)
    return [(images[:200], labels[:200]), (images[200:], labels[200:])]


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs ../shared/datasets")
@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_chapter_07_runs_with_real_images(name, shape, monkeypatch):
    parts = some_of(name)
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: parts)
    made = run_page("07_evaluation", name)
    is_a_whole_page(made)
    assert made["training"].shape == (160, *shape)
    assert (made["features"] is made["flatten"]) == (name == "cifar10")
