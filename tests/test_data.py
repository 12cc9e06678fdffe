import contextlib
import io
import os
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_digits

from diffusion_walkthrough import faces
from diffusion_walkthrough.data import (
    COMPANION_INDEX,
    FOLDER_SIDE,
    check_image_range,
    companion_digit,
    companion_of,
    from_uint8,
    load_images,
    to_uint8,
    training_and_held_out,
)
from diffusion_walkthrough.files import archives

DATASETS = Path(
    os.environ.get("DIFFUSION_DATASETS", Path(__file__).resolve().parents[2] / "shared/datasets")
)
# Pixels in tests have simple values, and that is warned of; one test looks at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:No pixel of the")
needs_mnist = pytest.mark.skipif(
    not (DATASETS / "mnist.npz").is_file(), reason="mnist.npz is not in DIFFUSION_DATASETS"
)


def save_picture(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).convert(mode or "L").save(path)


def grey(value, shape=(4, 4)):
    return np.full(shape, value, np.uint8)


# --- the digits ----------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    train, train_labels = load_images()
    test, test_labels = load_images("digits", split="test")
    assert train.shape == (1500, 8, 8, 1)
    assert test.shape == (297, 8, 8, 1)
    assert train.dtype == test.dtype == np.float32
    assert train_labels.dtype == test_labels.dtype == np.int32
    order = np.random.default_rng(0).permutation(1797)
    digits = load_digits()
    np.testing.assert_array_equal((train[..., 0] + 1) * 8, digits.images[order[:1500]])
    np.testing.assert_array_equal((test[..., 0] + 1) * 8, digits.images[order[1500:]])
    np.testing.assert_array_equal(train_labels, digits.target[order[:1500]])
    np.testing.assert_array_equal(test_labels, digits.target[order[1500:]])


def test_digits_fill_the_range():
    images, _ = load_images()
    assert images.min() == -1.0
    assert images.max() == 1.0
    check_image_range(images)


def test_loading_twice_gives_arrays_of_ones_own():
    first, _ = load_images()
    first[:] = 0
    assert load_images()[0].max() == 1.0


def test_the_companion_is_always_the_same_three():
    image, label = companion_digit()
    images, labels = load_images()
    assert label == 3
    assert type(label) is int
    np.testing.assert_array_equal(image, images[COMPANION_INDEX])
    assert labels[COMPANION_INDEX] == 3
    # Number 3 of the rows of pixels, from 0 to 16, as scikit-learn has it.
    np.testing.assert_array_equal((image[3, :, 0] + 1) * 8, [0, 0, 0, 12, 16, 6, 0, 0])
    image[:] = 0  # the reader's copy, to be changed at will
    np.testing.assert_array_equal(companion_digit()[0], images[COMPANION_INDEX])


def test_image_size_resizes_and_stays_in_range():
    images, labels = load_images("digits", image_size=16)
    assert images.shape == (1500, 16, 16, 1)
    assert images.dtype == np.float32
    check_image_range(images)
    np.testing.assert_array_equal(labels, load_images()[1])
    original = load_images()[0]
    # Averages survive but for the edges.
    np.testing.assert_allclose(images.mean((1, 2, 3)), original.mean((1, 2, 3)), atol=0.1)


def test_shrinking_averages_instead_of_skipping_pixels(tmp_path):
    checkerboard = np.indices((8, 8)).sum(0) % 2 * 255
    np.savez(tmp_path / "board.npz", images=checkerboard[np.newaxis].astype(np.uint8))
    images, _ = load_images(tmp_path / "board.npz", image_size=2)
    np.testing.assert_allclose(images, 0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "error", "piece"),
    [
        ({"name": "digit"}, ValueError, "Did you mean 'digits'"),
        ({"name": "MNIST"}, ValueError, "Did you mean 'mnist'"),
        ({"name": "zzz"}, ValueError, "'digits', 'mnist', 'fashion_mnist', 'cifar10'"),
        ({"name": "absent/pictures"}, FileNotFoundError, "no file or folder absent/pictures"),
        ({"name": "absent.npz"}, FileNotFoundError, "absent.npz"),
        ({"split": "valid"}, ValueError, "'train', 'test'"),
        ({"split": None}, TypeError, "'train', 'test'"),
        ({"image_size": 0}, ValueError, "at least 1"),
        ({"image_size": 10**6}, ValueError, "at most 4096"),
        ({"image_size": 8.0}, TypeError, "Write image_size=8"),
        ({"image_size": True}, TypeError, "a whole number"),
        ({"n": 0}, ValueError, "at least 1"),
        ({"n": 1501}, ValueError, "n=1501: there are 1500 images"),
        ({"n": "20"}, TypeError, "without quotes"),
        ({"channels": 2}, ValueError, "channels must be 1, for grey, or 3"),
        ({"channels": "3"}, ValueError, "channels must be 1, for grey, or 3"),
        ({"split": "kept_out"}, ValueError, "'train', 'test'. Choose"),
        ({"name": "faces", "split": "valid"}, ValueError, "'train', 'test', 'kept_out'"),
    ],
)
def test_wrong_arguments_are_refused_with_the_remedy(options, error, piece, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        load_images(**options)
    assert piece in str(caught.value).replace(os.sep, "/")


# --- faces and the first n -----------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test", "kept_out"])
def test_faces_are_drawn_and_labelled_by_their_hats(split):
    images, labels = load_images("faces", n=50, split=split)
    drawn, attributes = faces.draw(50, split=split)
    np.testing.assert_array_equal(images, drawn)
    np.testing.assert_array_equal(labels, attributes["hat"])
    assert labels.dtype == np.int32
    check_image_range(images)


def test_there_are_ten_thousand_faces_unless_told_otherwise():
    images, labels = load_images("faces", image_size=8)
    assert images.shape == (10_000, 8, 8, 3)
    assert labels.shape == (10_000,)


def test_n_takes_the_first_images(tmp_path):
    images, labels = load_images("digits", split="test")
    first, first_labels = load_images("digits", split="test", n=7)
    np.testing.assert_array_equal(first, images[:7])
    np.testing.assert_array_equal(first_labels, labels[:7])
    assert len(load_images(n=1500)[0]) == 1500
    for value in (10, 20, 30):
        save_picture(tmp_path / f"{value}.png", grey(value))
    assert to_uint8(load_images(tmp_path, n=2)[0])[:, 0, 0, 0].tolist() == [10, 20]


def test_channels_bring_all_to_grey_or_colour(tmp_path):
    digits, _ = load_images(n=5)
    np.testing.assert_array_equal(load_images(n=5, channels=1)[0], digits)
    np.testing.assert_array_equal(load_images(n=5, channels=3)[0], np.repeat(digits, 3, -1))
    drawn, _ = load_images("faces", n=5)
    grey_faces, _ = load_images("faces", n=5, channels=1)
    assert grey_faces.shape == (5, 16, 16, 1)
    luminance = Image.fromarray(to_uint8(drawn)[0]).convert("L")
    np.testing.assert_allclose(to_uint8(grey_faces)[0, ..., 0], np.asarray(luminance), atol=1)
    np.savez(tmp_path / "own.npz", images=np.full((2, 4, 4, 2), 200, np.uint8))
    with pytest.raises(ValueError, match="2 channels are neither grey nor coloured"):
        load_images(tmp_path / "own.npz", channels=3)


# --- through Keras -------------------------------------------------------------------------------


@pytest.fixture
def fake_keras(monkeypatch):
    """Stands in for Keras: ``fake_keras.result`` is what load_data returns or raises."""
    keras = types.ModuleType("keras")
    keras.result = None

    def load_data():
        if isinstance(keras.result, Exception):
            raise keras.result
        return keras.result

    source = types.SimpleNamespace(load_data=load_data)
    keras.config = types.SimpleNamespace(image_data_format=lambda: keras.data_format)
    keras.data_format = "channels_last"
    keras.datasets = types.SimpleNamespace(mnist=source, fashion_mnist=source, cifar10=source)
    monkeypatch.setitem(sys.modules, "keras", keras)
    return keras


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_without_a_network_the_error_says_what_to_do(fake_keras, monkeypatch, tmp_path, name):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    fake_keras.result = Exception("URL fetch failure on somewhere: None -- no route to host")
    with pytest.raises(ConnectionError) as caught:
        load_images(name)
    message = str(caught.value)
    assert "no route to host" in message
    assert str(tmp_path / "datasets") in message
    assert 'load_images("digits")' in message


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_keras_data_sets_come_in_our_form(fake_keras, data_format):
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    fake_keras.data_format, theirs = data_format, pixels
    if data_format == "channels_first":
        theirs = np.moveaxis(pixels, -1, 1)
    train = (theirs, np.array([[3], [5]], np.uint8))
    test = (theirs[:1], np.array([[9]], np.uint8))
    fake_keras.result = (train, test)
    images, labels = load_images("cifar10")
    np.testing.assert_array_equal(images, from_uint8(pixels))
    assert labels.tolist() == [3, 5]
    assert load_images("cifar10", split="test")[1].tolist() == [9]


def test_grey_keras_data_sets_get_a_channel(fake_keras):
    part = (np.zeros((2, 28, 28), np.uint8), np.array([1, 2], np.uint8))
    fake_keras.result = (part, part)
    images, labels = load_images("mnist", image_size=32)
    assert images.shape == (2, 32, 32, 1)
    assert labels.dtype == np.int32


@needs_mnist
def test_the_real_mnist_file_in_keras_layout():
    images, labels = load_images(DATASETS / "mnist.npz", split="test")
    assert images.shape == (10000, 28, 28, 1)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (-1.0, 1.0)
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# --- .npz ----------------------------------------------------------------------------------------


def test_npz_of_images_and_labels(tmp_path):
    pixels = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6)
    np.savez(tmp_path / "own.npz", images=pixels, labels=[7, 8])
    images, labels = load_images(str(tmp_path / "own.npz"))
    np.testing.assert_array_equal(images[..., 0], from_uint8(pixels))
    assert labels.tolist() == [7, 8]
    # A size cuts the central square, 4x4, out of 4x6.
    np.testing.assert_allclose(
        load_images(tmp_path / "own.npz", image_size=4)[0][..., 0], from_uint8(pixels[:, :, 1:5])
    )


def test_npz_with_both_splits_and_without_labels(tmp_path):
    values = np.linspace(-1, 1, 2 * 3 * 3 * 1).reshape(2, 3, 3, 1)
    np.savez_compressed(tmp_path / "own.npz", x_train=values, x_test=values[:1])
    images, labels = load_images(tmp_path / "own.npz")
    np.testing.assert_array_equal(images, values.astype(np.float32))
    assert images.dtype == np.float32
    assert labels.tolist() == [-1, -1]
    assert len(load_images(tmp_path / "own.npz", split="test")[0]) == 1


LEVELS = np.linspace(0, 1, 32).reshape(2, 4, 4)
WRONG_ARRAYS = [
    ({"pictures": LEVELS}, "it holds pictures. Name the arrays images and labels"),
    ({}, "it holds nothing"),
    ({"images": LEVELS}, "looks like [0, 1]"),
    ({"images": LEVELS * 255}, "looks like [0, 255]"),
    ({"images": LEVELS * np.nan}, "not finite"),
    ({"images": (LEVELS * 255).astype(int)}, "int64, but they must be uint8"),
    ({"images": np.zeros((2, 4), np.uint8)}, "shape (2, 4)"),
    ({"images": np.zeros((0, 4, 4), np.uint8)}, "at least one image"),
    ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "np.moveaxis(images, 1, -1)"),
    ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [1]}, "one for each of the 2 images"),
    ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.5, 1]}, "whole numbers"),
    ({"images": np.array([{}, {}], dtype=object)}, "plain arrays"),
    ({"images": np.zeros((2, 4, 4), complex)}, "complex128, but they must be uint8"),
    ({"images": np.array(["a", "b"])}, "shape (2,)"),
    ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [2**31, 1]}, "fit 32 bits"),
    ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, -(2**40)]}, "fit 32 bits"),
]


@pytest.mark.parametrize(
    ("arrays", "piece"), WRONG_ARRAYS, ids=[piece for _, piece in WRONG_ARRAYS]
)
def test_a_wrong_npz_is_refused_with_the_remedy(tmp_path, arrays, piece):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises((ValueError, TypeError)) as caught:
        load_images(tmp_path / "own.npz")
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "read"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [1]}, []),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.5, 1]}, []),
        ({"images": np.zeros((2, 4, 4), int)}, []),
        ({"images": np.zeros((2, 4), np.uint8)}, []),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [2**31, 1]}, ["labels"]),
    ],
    ids=["count", "labels", "type", "shape", "large label"],
)
def test_images_are_not_read_where_they_are_refused_anyway(tmp_path, monkeypatch, arrays, read):
    begun = []

    def noted(archive, name):
        begun.append(name)
        return archives.read_array(archive, name)

    monkeypatch.setattr("diffusion_walkthrough.data.read_array", noted)
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises((ValueError, TypeError), match=r"own\.npz has"):
        load_images(tmp_path / "own.npz")
    assert begun == read


def test_text_in_the_place_of_an_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("images.npy", "just some text")
    with pytest.raises(
        ValueError, match=r"own\.npz cannot be read .*images is no array of numbers"
    ):
        load_images(tmp_path / "own.npz")


def test_what_inflates_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 10**6)
    np.savez_compressed(tmp_path / "own.npz", images=np.zeros((2000, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"own\.npz .*unpacked.* to 2 MB.*Written with np\.savez"):
        load_images(tmp_path / "own.npz")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "own.npz")
    for load in (load_images, training_and_held_out):
        with pytest.raises(ValueError, match="no regular file"):
            load(tmp_path / "own.npz")


@pytest.mark.parametrize("highest", [1, 16, 32])
def test_pixels_that_do_not_use_their_range_are_warned_of(tmp_path, highest):
    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[1] = highest
    np.savez(tmp_path / "own.npz", images=pixels)
    save_picture(tmp_path / "folder" / "a.png", pixels[1])
    for path in (tmp_path / "own.npz", tmp_path / "folder"):
        said = rf"above {highest}, where 255 is white.*pixels \* {255 / highest:g}, and"
        with pytest.warns(UserWarning, match=said):
            images, _ = load_images(path)
        assert images.max() == np.float32(highest / 127.5 - 1)


def dark_npz(folder):
    np.savez(folder / "own.npz", images=np.ones((3, 4, 4), np.uint8))
    return folder / "own.npz"


def dark_folder(folder):
    save_picture(folder / "a.png", np.ones((4, 4), np.uint8))
    return folder


def labelled_folder(folder):
    save_picture(folder / "cats" / "a.png", np.full((4, 4), 99, np.uint8))
    (folder / "cats" / "b.heic").touch()
    return folder


def animated(folder):
    frames = [Image.new("L", (4, 4), grey) for grey in (99, 200)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    return folder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("load", [load_images, training_and_held_out])
@pytest.mark.parametrize("kind", [dark_npz, dark_folder, labelled_folder, animated])
def test_a_warning_names_the_line_that_asked_for_the_images(tmp_path, kind, load):
    path = kind(tmp_path)
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(ValueError):
        warnings.simplefilter("always")
        load(path)  # too few of them to hold some out
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("arrays", "unread"),
    [
        ({"images": 1, "y": 0}, "y"),
        ({"x_train": 1, "labels": 0, "mean": 0}, "labels, mean"),
        ({"images": 1, "labels": 0, "y_train": 0}, "y_train"),
    ],
)
def test_arrays_that_are_not_read_are_warned_of(tmp_path, arrays, unread):
    kinds = [np.zeros(3, int), np.full((3, 4, 4), 99, np.uint8)]
    np.savez(tmp_path / "own.npz", **{name: kinds[kind] for name, kind in arrays.items()})
    with pytest.warns(UserWarning, match=f"also holds {unread}, which is not read. Labels are"):
        load_images(tmp_path / "own.npz")


def test_arrays_of_the_other_split_are_no_reason_to_warn(tmp_path):
    pixels = np.full((3, 4, 4), 99, np.uint8)
    np.savez(tmp_path / "own.npz", x_train=pixels, x_test=pixels, y_test=[0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for split in ("train", "test"):
            load_images(tmp_path / "own.npz", split=split)


@pytest.mark.parametrize("name", [None, 3, b"digits", ["digits"], ""])
def test_what_is_no_name_is_refused(name):
    with pytest.raises((TypeError, ValueError), match="name must be a path, as text"):
        load_images(name)


def test_a_name_too_long_for_any_file_is_not_looked_for():
    for name in ("x" * 400, "x" * 10**6, "x/" * 10**5 + "a.png", Path("x" * 5000)):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            load_images(name)
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (np.ones((2, 4, 4), bool), "from 0 to 1 with images.astype('uint8') * 255."),
        (np.full((2, 4, 4), 200), "from 0 to 255 with images.astype('uint8')."),
    ],
)
def test_pixels_of_another_type_are_refused_with_how_to_convert_them(tmp_path, images, remedy):
    np.savez(tmp_path / "own.npz", images=images)
    with pytest.raises(TypeError) as caught:
        load_images(tmp_path / "own.npz")
    assert remedy in str(caught.value)


def test_one_bright_pixel_in_the_set_is_enough(tmp_path):
    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[1, 0, 0] = 33
    np.savez(tmp_path / "own.npz", images=pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(tmp_path / "own.npz")
        np.savez(tmp_path / "own.npz", images=pixels[:1])  # of one colour: of what range?
        load_images(tmp_path / "own.npz")


def test_npz_of_images_has_no_test_split(tmp_path):
    np.savez(tmp_path / "own.npz", images=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="no images for split='test'"):
        load_images(tmp_path / "own.npz", split="test")


def damaged_npz():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.arange(4096, dtype=np.uint8).reshape(1, 64, 64))
    data = buffer.getvalue()
    single = io.BytesIO()
    np.save(single, np.zeros((1, 4, 4), np.uint8))
    return {
        "empty": b"",
        "text": b"not a zip",
        "cut": data[: len(data) // 2],
        "spoilt inside": data[:150] + bytes(50) + data[200:],
        "an .npy": single.getvalue(),
        "a pickle": b"\x80\x04K\x01.",
    }


@pytest.mark.parametrize("kind", damaged_npz())
def test_a_damaged_npz_is_refused(tmp_path, kind):
    (tmp_path / "own.npz").write_bytes(damaged_npz()[kind])
    with pytest.raises(ValueError, match=r"own\.npz cannot be read as an \.npz"):
        load_images(tmp_path / "own.npz")


def test_an_npz_with_a_pickle_inside_does_not_run_it(tmp_path):
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return marker.touch, ()

    np.savez(tmp_path / "own.npz", images=np.array([Payload()], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        load_images(tmp_path / "own.npz")
    assert not marker.exists()


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"neither a folder nor an \.npz"):
        load_images(tmp_path / "images.zip")


@pytest.mark.parametrize(("count", "gigabytes"), [(300_000, "1.23"), (10**7, "41")])
def test_small_images_are_not_resized_to_more_than_there_is_room_for(tmp_path, count, gigabytes):
    np.savez_compressed(tmp_path / "x.npz", images=np.full((count, 1, 1, 1), 200, "uint8"))
    rule = f"image_size=32: resized, the {count} images of 1x1 pixels would grow to {gigabytes} GB"
    with pytest.raises(ValueError, match=rule):
        load_images(tmp_path / "x.npz", image_size=32)
    assert load_images(tmp_path / "x.npz", image_size=32, n=3)[0].shape == (3, 32, 32, 1)


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_of_pictures_is_read_in_order(tmp_path):
    for name, value in (("b.png", 255), ("a.bmp", 0), ("c.PNG", 51)):
        save_picture(tmp_path / name, grey(value))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    images, labels = load_images(tmp_path)
    assert images.shape == (3, 4, 4, 1)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[:, 0, 0, 0], [-1, 1, -0.6], rtol=1e-6)
    assert labels.tolist() == [-1, -1, -1]


def test_subfolders_are_labels(tmp_path):
    save_picture(tmp_path / "zebras" / "1.png", grey(10))
    save_picture(tmp_path / "ants" / "1.png", grey(20))
    save_picture(tmp_path / "ants" / "2.png", grey(30))
    save_picture(tmp_path / ".ipynb_checkpoints" / "1.png", grey(40))
    images, labels = load_images(str(tmp_path))
    assert to_uint8(images)[:, 0, 0, 0].tolist() == [20, 30, 10]
    assert labels.tolist() == [0, 0, 1]


def test_pictures_of_different_sizes_want_image_size(tmp_path):
    save_picture(tmp_path / "a.png", grey(0, (4, 4)))
    save_picture(tmp_path / "b.png", grey(255, (6, 8)))
    with pytest.raises(ValueError, match=r"b\.png has 8x6 pixels.*image_size"):
        load_images(tmp_path)
    images, _ = load_images(tmp_path, image_size=5)
    assert images.shape == (2, 5, 5, 1)
    np.testing.assert_array_equal(images.mean((1, 2, 3)), [-1, 1])


def test_grey_and_coloured_pictures_do_not_mix(tmp_path):
    save_picture(tmp_path / "a.png", grey(0))
    save_picture(tmp_path / "b.png", grey(0), mode="RGB")
    with pytest.raises(ValueError, match=r"coloured, but .* grey\. Pass channels"):
        load_images(tmp_path)
    assert load_images(tmp_path, channels=1)[0].shape == (2, 4, 4, 1)
    assert load_images(tmp_path, channels=3)[0].shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 1)]
)
def test_every_usual_kind_of_picture_is_read(tmp_path, mode, channels):
    save_picture(tmp_path / "a.png", grey(255), mode=mode)
    images, _ = load_images(tmp_path)
    assert images.shape == (1, 4, 4, channels)
    np.testing.assert_array_equal(images, 1.0)


def test_what_is_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_images(tmp_path)[0], 1.0)


def test_a_photograph_that_lies_on_its_side_is_turned_upright(tmp_path):
    picture = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8).repeat(8, 0).repeat(8, 1))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "a.jpg", exif=exif, quality=100)
    images, _ = load_images(tmp_path)
    assert images[0, :8].mean() < -0.9
    assert images[0, 8:].mean() > 0.9


def test_more_than_eight_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png cannot be read.*8 bits"):
        load_images(tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_an_unreadable_picture_is_named(tmp_path, damage):
    save_picture(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (32, 32)))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(b"no picture" if damage == "text" else data[:300])
    with pytest.raises(ValueError, match=r"b\.png cannot be read as a picture"):
        load_images(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ValueError, match=r"no pictures in the folder.*\.png"):
        load_images(tmp_path)


@pytest.mark.parametrize("picture", ["a.png", "cats/a.PNG"])
def test_a_folder_with_the_name_of_a_data_set_is_warned_of(tmp_path, monkeypatch, picture):
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "faces" / picture, grey(7))
    with pytest.warns(UserWarning, match=r"'\./faces' means the folder"):
        assert len(load_images("faces", n=2)[0]) == 2
    assert load_images("./faces")[0].shape == (1, 4, 4, 1)


def test_a_folder_without_pictures_is_no_reason_to_warn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits" / "empty").mkdir(parents=True)
    (tmp_path / "digits" / "weights.safetensors").touch()
    (tmp_path / "faces").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images("digits")
        load_images("faces", n=2)


def test_a_folder_has_no_test_split(tmp_path):
    save_picture(tmp_path / "a.png", grey(0))
    with pytest.raises(ValueError, match="folder of their own"):
        load_images(tmp_path, split="test")


# --- from and to pixels --------------------------------------------------------------------------


def test_all_256_values_come_back():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(from_uint8(pixels)), pixels)
    assert from_uint8(pixels).dtype == np.float32
    assert from_uint8([np.uint8(0), np.uint8(255)]).tolist() == [-1.0, 1.0]


@given(pixels=hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4)))
def test_pixels_of_any_shape_come_back(pixels):
    images = from_uint8(pixels)
    np.testing.assert_array_equal(to_uint8(images), pixels)
    np.testing.assert_array_equal(to_uint8(images.astype(np.float64)), pixels)


@given(value=st.floats(-1, 1, width=32))
def test_rounding_is_to_the_nearest(value):
    assert abs(int(to_uint8(value)) - (value + 1) * 127.5) <= 0.5 + 1e-4


def test_to_uint8_rounds_and_clips():
    step = 2 / 255
    values = [-1 + 0.4 * step, -1 + 0.6 * step, 1 - 0.4 * step, -7, 7, -np.inf, np.inf]
    assert to_uint8(values).tolist() == [0, 1, 255, 0, 255, 0, 255]
    assert to_uint8(values).dtype == np.uint8


def test_nan_has_no_colour():
    with pytest.raises(ValueError, match="1 of 3 values are NaN"):
        to_uint8([0.0, np.nan, 1.0])


@pytest.mark.parametrize("pixels", [np.zeros(3), np.zeros(3, np.int64), [1, 2]])
def test_from_uint8_takes_only_uint8(pixels):
    with pytest.raises(TypeError, match="uint8"):
        from_uint8(pixels)


@pytest.mark.parametrize(
    ("images", "piece"),
    [
        (np.array([0, 128, 255], np.uint8), "[0, 255]: convert with images / 127.5 - 1"),
        (np.array([0.0, 3.0, 200.0]), "[0, 255]"),
        (np.array([0.0, 0.5, 1.0]), "[0, 1]: convert with images * 2 - 1"),
        (np.array([-1.5, 0.0, 1.2]), "images.clip(-1, 1)"),
        (np.array([-200.0, 300.0]), "Scale the data"),
        (np.array([0.0, 70000.0]), "[0, 65535]: convert with images.clip(0, 65535) / 32767.5 - 1"),
        (np.array([0.0, 10**6]), "Scale the data"),
        (
            np.array([0.0, 1.0]) / 255,
            "divided by 255 once too often: convert with images * 510 - 1",
        ),
        (np.array([0, 1, 1], np.uint8), "[0, 1]: convert with images * 2.0 - 1"),
        (np.arange(17), "[0, 16]: convert with images / 8 - 1"),
        (np.array([-0.09, 0.1, 0.5, 0.6, 1.07]), "[0, 1]: convert with images.clip(0, 1) * 2 - 1"),
        (np.array([-0.09, 0.1, 0.5, 0.6, 0.97]), "[0, 1]: convert with images.clip(0, 1) * 2 - 1"),
        (np.array([-9.0, 100, 200, 100, 266]), "images.clip(0, 255) / 127.5 - 1"),
        (np.array([-2.1, 0.0, 2.6]), "a mean was taken off"),
        (np.array([-0.42, -0.42, 2.8]), "a mean was taken off"),
        (np.array([-128, 0, 127], np.int8), "convert with (images + 128) / 127.5 - 1"),
        (np.array([-1.0, 0.5, 1.0]) / 255, "[-1, 1], divided by 255: convert with images * 255."),
        (np.array([-1.0, 0.5, 1.0]) / 60, "but must lie in [-1, 1] and fill it. Scale the data"),
        (np.arange(120, 256) / 255, "[0, 1]: convert with images * 2 - 1"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.array([-1.0, np.inf]), "not finite"),
        (np.zeros((0, 8, 8, 1)), "empty"),
    ],
)
def test_a_wrong_range_is_named_with_the_remedy(images, piece):
    with pytest.raises(ValueError, match="image") as caught:
        check_image_range(images)
    assert piece in str(caught.value)


@pytest.mark.parametrize("images", [[-1.0, 1.0], [-0.1, 0.5], [0.0, 0.0], [1.0], [-1.0, -1.0]])
def test_a_right_range_is_accepted(images):
    check_image_range(np.array(images))


@pytest.mark.parametrize("pixels", [range(120, 256), range(110, 256), [128, 255], [127, 128, 129]])
def test_pale_and_grey_pixels_are_right(tmp_path, pixels):
    """No pixel is dark, and still they were brought to [-1, 1] as all are."""
    pixels = np.array([*pixels], np.uint8).repeat(16).reshape(-1, 4, 4)
    check_image_range(from_uint8(pixels))
    check_image_range(pixels.astype(np.float32) / 255 * 2 - 1)
    np.savez(tmp_path / "pale.npz", images=from_uint8(pixels))
    np.testing.assert_array_equal(to_uint8(load_images(tmp_path / "pale.npz")[0][..., 0]), pixels)


def test_the_remedies_do_remedy():
    check_image_range(np.arange(256) / 127.5 - 1)
    check_image_range(np.linspace(0, 1) * 2 - 1)
    check_image_range(np.array([-1.5, 2.0]).clip(-1, 1))
    some = [np.linspace(0, 1) / 255, np.arange(256) / 1.0, np.array([0, 1, 1], np.uint8)]
    for values in (
        *some,
        np.linspace(-0.5, 0.5),
        np.arange(256) / 255 - 0.5,
        np.linspace(-1, 1) / 255,
        np.arange(256) - 128.0,
    ):
        with pytest.raises(ValueError, match="convert with") as caught:
            check_image_range(values)
        remedy = str(caught.value).partition("convert with ")[2].rstrip(".")
        converted = eval(remedy, {"images": values})  # as a reader would, who copies it
        check_image_range(converted)
        assert (converted.min(), converted.max()) == (-1, pytest.approx(1))


@pytest.mark.parametrize(
    ("images", "piece"),
    [
        ([-6.9, -1.0, 0.001], "the lowest value becomes -1"),  # logarithms, not [-128, 127]
        ([-40.0, 40.0], "the lowest value becomes -1"),
        ([-1.0005, 1.0004], "run from -1.0005 to 1.0004, but must lie"),
    ],
)
def test_no_remedy_is_a_wrong_guess_and_no_number_hides_what_is_wrong(images, piece):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_image_range(np.array(images))
    assert piece in str(caught.value)


def test_digits_that_were_resized_with_overshoot_are_told_from_what_a_sampler_overshot():
    digits = load_images("digits", n=100)[0][..., 0]
    for images, remedy in ((digits / 2 + 0.5, "clip(0, 1) * 2 - 1"), (digits, "clip(-1, 1)")):
        for size, method in ((16, "BICUBIC"), (32, "BICUBIC"), (12, "LANCZOS")):
            how = (size, size), Image.Resampling[method]
            large = np.stack([np.asarray(Image.fromarray(image).resize(*how)) for image in images])
            with pytest.raises(ValueError, match="run from -") as caught:
                check_image_range(large)
            assert remedy in str(caught.value)
            check_image_range(eval(remedy, {"clip": large.clip}))
    bicubic = [np.asarray(Image.fromarray(image / 2 + 0.5).resize((16, 16))) for image in digits]
    with pytest.raises(ValueError, match="looks like"):  # clipping to [-1, 1] does not make it so
        check_image_range(np.stack(bicubic).clip(-1, 1))


# --- one call for any data set --------------------------------------------------------------------


def test_training_and_held_out_images_are_the_two_splits():
    images, labels, held_out = training_and_held_out("digits")
    for got, expected in zip((images, labels), load_images("digits"), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(held_out, load_images("digits", split="test")[0])


def test_training_and_held_out_images_are_at_most_as_many_as_asked():
    images, labels, held_out = training_and_held_out("faces", 50, 20)
    assert (len(images), len(labels), len(held_out)) == (50, 50, 20)
    images, labels, held_out = training_and_held_out("digits", 9999, 9999)
    assert (len(images), len(labels), len(held_out)) == (1500, 1500, 297)


def test_of_a_folder_each_sixth_picture_is_held_out(tmp_path):
    for number in range(13):
        save_picture(tmp_path / "ab"[number % 2] / f"{number:02}.png", grey(number, (20, 30)))
    images, labels, held_out = training_and_held_out(tmp_path)
    assert images.shape == (11, FOLDER_SIDE, FOLDER_SIDE, 1)
    in_order = [0, 2, 4, 6, 8, 10, 12, 1, 3, 5, 7, 9, 11]  # subfolder a, then b
    expected = [n for place, n in enumerate(in_order) if place not in (5, 11)]
    assert to_uint8(images)[:, 0, 0, 0].tolist() == expected
    assert labels.tolist() == [n % 2 for n in expected]
    assert to_uint8(held_out)[:, 0, 0, 0].tolist() == [10, 9]
    assert [len(x) for x in training_and_held_out(tmp_path, 3, 1)] == [3, 3, 1]


def test_of_a_file_the_test_split_is_held_out_if_it_has_one(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).repeat(64).reshape(24, 8, 8)
    np.savez(tmp_path / "two.npz", x_train=pixels[:20], x_test=pixels[20:])
    assert [len(x) for x in training_and_held_out(tmp_path / "two.npz")] == [20, 20, 4]
    np.savez(tmp_path / "one.npz", images=pixels)
    images, labels, held_out = training_and_held_out(tmp_path / "one.npz")
    assert [len(images), len(labels), len(held_out)] == [20, 20, 4]
    assert to_uint8(held_out)[:, 0, 0, 0].tolist() == [5, 11, 17, 23]


def test_too_few_pictures_are_refused_with_the_number_that_is_needed(tmp_path):
    for number in range(11):
        save_picture(tmp_path / f"{number}.png", grey(number))
    with pytest.raises(ValueError, match="11 images, but at least 12"):
        training_and_held_out(tmp_path)


def test_a_data_set_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="neither a data set"):
        training_and_held_out("digitz")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        training_and_held_out("no/such/folder")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be read as an"):
        training_and_held_out(tmp_path / "a.npz")


def test_the_companion_is_the_three_or_the_first_with_the_highest_label():
    images, labels = load_images("digits")
    image, label = companion_of("digits", images, labels)
    np.testing.assert_array_equal(image, companion_digit()[0])
    assert label == 3
    images, labels = load_images("faces", n=100)
    image, label = companion_of("faces", images, labels)
    np.testing.assert_array_equal(image, images[labels.tolist().index(labels.max())])
    assert label == labels.max()


def test_faces_have_as_many_labels_as_are_asked_for():
    images, labels = load_images("faces", n=20, attributes=["glasses", "hair_colour"])
    drawn, attributes = faces.draw(20)
    np.testing.assert_array_equal(images, drawn)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels[:, 0], attributes["glasses"])
    np.testing.assert_array_equal(labels[:, 1], attributes["hair_colour"])


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("digits", ["hat"], "only faces have attributes, and 'digits' has one label"),
        ("faces", ["hats"], r"attributes\[0\]='hats'.*Did you mean 'hat'\?"),
        ("faces", "hat", "attributes must be a list of names"),
        ("faces", [], "attributes must be a list of names"),
    ],
)
def test_attributes_that_there_are_not_are_refused(name, attributes, message):
    with pytest.raises(ValueError, match=message):
        load_images(name, n=5, attributes=attributes)
