"""Chapter 07 on the reader's own data: its cells run to the end, whatever DATA is.

The cells run in one namespace, without a kernel, with few images and few steps.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "notebooks" / "07_evaluation.ipynb"
REAL_DATA = ROOT.parent / "shared" / "datasets"
FACES = "from diffusion_walkthrough import faces"  # the first cell that is about faces only

# What the page says of the digits, and less of it: the test shall not take minutes.
SMALLER = {
    "training=1500, held_out=297": "training=160, held_out=40",
    "min(100, len(model.schedule))": "min(3, len(model.schedule))",
    "100_000": "1000",
}


def code_cells():
    cells = json.loads(PAGE.read_text("utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    head = next(i for i, source in enumerate(sources) if "DATA = " in source)
    until = next(i for i, source in enumerate(sources) if FACES in source)
    deeper = [source for source in sources[until:] if "expected_coverage" in source]
    return [*sources[head : until - 1], *deeper]


def run(data, **smaller):
    """The cells that are not about faces, with this data; what they have made."""
    page = "\n\n".join(code_cells())
    changed = {'DATA = "digits"': f"DATA = {str(data)!r}"}
    for right, other in {**changed, **SMALLER, **smaller}.items():
        assert page.count(right) >= 1, right
        page = page.replace(right, other)
    made = {}
    exec(compile(page, PAGE.name, "exec"), made)
    return made


def is_a_whole_page(made):
    assert len(made["drawn"]) == 3
    assert made["drawn"][0].shape == made["held_out"].shape
    assert set(made["results"]) == {"real", "network", "blurred", "smudges"}
    assert made["guess"].answer is not None  # the last Predict, on copies, has been answered
    assert len(made["ratios"]) == 8


def test_the_page_takes_its_data_from_one_line():
    (head, *rest) = code_cells()
    assert head.count('"digits"') == 1
    assert all('"digits"' not in source for source in rest)


@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize("data", ["digits", "faces"])
def test_the_cells_run_with_what_ships(data):
    made = run(data)
    is_a_whole_page(made)
    assert made["features"] is not made["flatten"] or data == "faces"


def test_the_cells_run_with_a_folder_of_pictures_and_say_that_there_is_no_model(
    tmp_path, capsys, monkeypatch
):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (120, 9, 11, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).resize((40, 30)).save(tmp_path / "pictures" / f"{number}.png")
    made = run("pictures")
    is_a_whole_page(made)
    assert "There is no model" in capsys.readouterr().out
    assert made["held_out"].shape == (20, 16, 16, 3)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs ../shared/datasets")
def test_the_cells_run_with_mnist(monkeypatch, capsys):
    import keras

    with np.load(REAL_DATA / "mnist.npz") as file:
        parts = [(file[f"x_{s}"][:400], file[f"y_{s}"][:400]) for s in ("train", "test")]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: parts)
    made = run("mnist")
    is_a_whole_page(made)
    assert made["training"].shape == (160, 28, 28, 1)
    assert made["features"] is not made["flatten"]  # its classifier ships
    del capsys


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs ../shared/datasets")
def test_the_cells_run_with_cifar10(monkeypatch, capsys):
    import keras
    from PIL import Image

    with np.load(REAL_DATA / "cifar10_jpeg.npz") as file:
        buffer, at = file["jpeg"], file["offsets"]
    jpegs = [buffer[at[i] : at[i + 1]].tobytes() for i in range(300)]
    images = np.stack([np.array(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
    labels = np.zeros((300, 1), np.uint8)
    parts = [(images[:200], labels[:200]), (images[200:], labels[200:])]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: parts)
    made = run("cifar10", **{"repeats=5": "repeats=2"})
    is_a_whole_page(made)
    assert "There is no model of cifar10" in capsys.readouterr().out
