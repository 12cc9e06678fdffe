"""Pictures: every usual kind is read, and what costs too much or is none is refused in words."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_walkthrough.files import pictures
from diffusion_walkthrough.files.pictures import SUFFIXES, class_names, read_folder, read_picture


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(pixels, np.uint8))
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def grey(value, shape=(4, 4)):
    return np.full(shape, value, np.uint8)


def colours(*values):
    """A picture with a column of each colour."""
    return np.array([values] * 4, np.uint8)


# Kinds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_every_kind_of_file_is_read_in_grey_or_colour(tmp_path, suffix, channels):
    options = {"quality": 100} if suffix in (".jpg", ".jpeg") else {}
    if suffix == ".webp":
        options = {"lossless": True}
    pixels = colours((255, 0, 0), (0, 0, 255)).repeat(16, 0).repeat(16, 1)
    path = save(tmp_path / f"a{suffix}", pixels, **options)
    pixels, has_more = read_picture(path, channels=channels)
    assert pixels.shape == (64, 32, channels or 3)
    assert pixels.dtype == np.uint8
    assert not has_more
    red = [76] if channels == 1 else [255, 0, 0]  # how light red is, by ITU-R 601
    np.testing.assert_allclose(pixels[0, 0], red, atol=3)


@pytest.mark.parametrize(
    ("pixels", "mode", "channels"),
    [
        (colours((0, 0, 0), (9, 9, 9)), "P", 1),
        (colours((0, 0, 0), (255, 0, 0)), "P", 3),
        (colours((9, 9, 9)), "RGB", 3),
        (grey(9), "LA", 1),
        (grey(9), "1", 1),
    ],
)
@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_a_palette_of_greys_is_grey(tmp_path, pixels, mode, channels, suffix):
    if suffix == ".gif" and mode == "RGB":
        pytest.skip("a GIF has a palette")
    read = read_picture(save(tmp_path / f"a{suffix}", pixels, mode)).pixels
    assert read.shape[2] == channels


def test_the_colour_of_what_is_transparent_does_not_count(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 100, 100, 100])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "a.png", transparency=0)
    pixels = read_picture(tmp_path / "a.png").pixels
    assert pixels[:2, :2, 0].tolist() == [[255, 100], [100, 100]]
    assert pixels.shape == (4, 4, 1)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 10), (128, 132)])
def test_what_is_transparent_shows_white(tmp_path, alpha, expected):
    Image.new("RGBA", (2, 2), (10, 10, 10, alpha)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_picture(tmp_path / "a.png").pixels, expected, atol=1)


def test_pixels_that_are_not_grey_for_pillow_stay_what_they_are(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save(tmp_path / "a.png", values, "P")
    np.testing.assert_array_equal(read_picture(path).pixels[..., 0], values)
    np.testing.assert_array_equal(read_picture(path, channels=3).pixels[..., 2], values)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".webp"])
def test_a_file_of_several_pictures_says_so_and_gives_the_first(tmp_path, suffix):
    others = [Image.new("RGB", (4, 4), "white")]
    first = Image.new("RGB", (4, 4), "black")
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=others)
    pixels, has_more = read_picture(tmp_path / f"a{suffix}")
    assert has_more
    np.testing.assert_array_equal(pixels, 0)
    with pytest.warns(UserWarning, match="1 of the files in .* several pictures; the first"):
        read_folder(tmp_path)


def test_a_second_picture_is_noticed_behind_a_large_first_one(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (2, 100, 100), dtype=np.uint8)
    first, second = map(Image.fromarray, noise)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    monkeypatch.setattr(pictures._File, "reads", 40)  # of some 90 to the end of the first one
    assert read_picture(tmp_path / "a.gif").has_more
    monkeypatch.setattr(pictures, "MOST_READS_AHEAD", 40)
    assert not read_picture(tmp_path / "a.gif").has_more


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_damaged_description_does_not_make_a_picture_unreadable(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", grey(9), exif=b"Exif\0\0garbage" * 100)
    np.testing.assert_allclose(read_picture(path).pixels, 9, atol=1)


def test_a_picture_that_there_is_no_memory_to_turn_is_not_shown_unturned(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    with pytest.raises(ValueError, match=r"a\.png cannot be read .*MemoryError"):
        read_picture(save(tmp_path / "a.png", grey(9)))


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix", "remedy"),
    [("I;16", ".png", "/ 257"), ("F", ".tif", "(picture - low)"), ("I", ".tif", "8 bits")],
)
def test_more_than_eight_bits_come_with_the_way_to_eight(tmp_path, mode, suffix, remedy):
    Image.new(mode, (4, 4)).save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=rf"a\{suffix} cannot be read: its mode") as caught:
        read_picture(tmp_path / f"a{suffix}")
    assert remedy in str(caught.value)


def test_the_way_to_eight_bits_leads_there(tmp_path):
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        eight = Image.fromarray((np.asarray(picture) / 257).round().astype("uint8"))
        eight.save(tmp_path / "new.png")
    assert read_picture(tmp_path / "new.png").pixels.ravel().tolist() == [0, 1, 255]


@pytest.mark.parametrize("size", [(101, 1), (10, 11)])
def test_more_pixels_than_there_may_be_are_not_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    path = save(tmp_path / "a.png", grey(0, size))
    with pytest.raises(
        ValueError, match=r"a\.png cannot be read: it has more than .* smaller copy"
    ):
        read_picture(path)
    assert read_picture(save(tmp_path / "b.png", grey(0, (10, 10)))).pixels.shape == (10, 10, 1)


def test_a_size_that_pillow_itself_warns_of_is_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "a.png", grey(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(path).pixels.shape == (4, 4, 1)
    with pytest.raises(ValueError, match="million pixels"):
        read_picture(save(tmp_path / "b.png", grey(0, (5, 5))))


def test_a_jpeg_of_many_scans_and_a_file_of_many_parts_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.jpg", grey(0, (64, 64)), progressive=True)
    assert read_picture(path).pixels.shape == (64, 64, 1)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "MOST_SCANS", 2)
        with pytest.raises(ValueError, match=r"a\.jpg .*more than 2 scans"):
            read_picture(path)
    for limit, value in (("reads", 5), ("description", 20)):
        with monkeypatch.context() as patch:
            patch.setattr(pictures._File, limit, value)
            with pytest.raises(ValueError, match=r"a\.jpg .*more parts, or a longer"):
                read_picture(path)


def tiled_tiff(path, *tiles, order="<", big=False):
    """A TIFF of 16x16 pixels that says how large its tiles are, with (tag, type, number)."""
    data = zlib.compress(bytes(16 * 16 * 3))
    tags = [(256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 8), (262, 3, 2), (277, 3, 3), *tiles]
    head, count, entry = (16, "Q", "HHQ") if big else (8, "H", "HHI")
    room = 8 if big else 4
    place = head + struct.calcsize(order + count) + (len(tags) + 2) * (8 + 2 * room - 4) + room
    tags += [(324, 4, place), (325, 4, len(data))]
    start = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    content = (b"II" if order == "<" else b"MM") + start + struct.pack(order + count, len(tags))
    for tag, kind, number in tags:
        value = struct.pack(order + {3: "H", 4: "I", 17: "I"}[kind], number)
        content += struct.pack(order + entry, tag, kind, 1) + value.ljust(room, b"\0")
    path.write_bytes(content + bytes(room) + data)
    return path


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_tiles_are_no_larger_than_a_picture_may_be(tmp_path, monkeypatch, order, big):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 16 * 16)
    good = tiled_tiff(tmp_path / "a.tif", (322, 4, 16), (323, 4, 16), order=order, big=big)
    assert read_picture(good).pixels.shape == (16, 16, 3)
    cases = {
        "each of its tiles has more": [(322, 4, 16), (323, 4, 32)],
        "does not say once": [(322, 17, 9), (322, 4, 16), (323, 4, 16)],  # Pillow skips type 17
        "in whole numbers": [(322, 17, 16), (323, 17, 16)],
    }
    for said, tiles in cases.items():
        bad = tiled_tiff(tmp_path / "a.tif", *tiles, order=order, big=big)
        with pytest.raises(ValueError, match=rf"a\.tif cannot be read .*{said}"):
            read_picture(bad)


def test_a_jpeg_inside_is_no_larger_than_a_picture_may_be(tmp_path, monkeypatch):
    path = save(tmp_path / "a.tif", colours((9, 9, 9)), compression="jpeg")
    assert read_picture(path).pixels.shape == (4, 1, 3)
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0\0\x11\x08\0\x04\0\x01")
    data[frame + 5 : frame + 7] = b"\xff\0"  # which libtiff reads, if memory allows it
    path.write_bytes(data)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 60_000)
    with pytest.raises(ValueError, match=r"a\.tif cannot be read .*a JPEG in it has more than"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["ICO", "DDS", "EPS", "TGA", "PPM", "PDF"])
def test_a_suffix_is_only_asked_for_what_it_promises(tmp_path, kind):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture .*Remove it or save"):
        read_picture(tmp_path / "a.png")


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png", "absent.png"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read .*no regular file"):
            read_picture(tmp_path / name)


# Folders -----------------------------------------------------------------------------------------


def test_pictures_of_unlike_colours_and_sizes_are_told_apart(tmp_path):
    save(tmp_path / "a.png", grey(0, (4, 8)))
    save(tmp_path / "b.png", grey(0, (4, 8)), "RGB")
    with pytest.raises(
        ValueError, match=r"b\.png is coloured, but .*a\.png is grey\. Pass channels"
    ):
        read_folder(tmp_path, image_size=4)
    assert read_folder(tmp_path, channels=1)[0].shape == (2, 4, 8, 1)
    assert read_folder(tmp_path, channels=3)[0].shape == (2, 4, 8, 3)
    save(tmp_path / "b.png", grey(0, (5, 6)))
    said = r"b\.png has 6x5 pixels, but .*a\.png has 8x4 \(width x height\)\. Pass image_size"
    with pytest.raises(ValueError, match=said):
        read_folder(tmp_path)


def test_a_picture_of_another_kind_is_told_without_python_s_objects(tmp_path):
    Image.fromarray(grey(0)).save(tmp_path / "a.ico")
    (tmp_path / "a.ico").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a picture \(it is none of BMP, .* WEBP, or damaged\)"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        (None, r"from 0\.0\d+ to 0 MB, each of 100x100 pixels.*Pass image_size, or move"),
        (90, r"The 20 pictures in .* each of 90x90 pixels.*Pass a smaller image_size, or move"),
        (8, None),
    ],
)
def test_a_folder_does_not_grow_far_beyond_its_files(tmp_path, monkeypatch, image_size, message):
    monkeypatch.setattr(pictures, "ROOM", 50_000)
    for i in range(20):
        save(tmp_path / f"{i}.png", np.zeros((100, 100), np.uint8))
    read = []
    one = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda *some: read.append(some) or one(*some))
    if message is None:
        assert read_folder(tmp_path, image_size)[0].shape == (20, 8, 8, 1)
        return
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path, image_size)
    assert len(read) == 1


def test_pictures_as_large_as_their_files_may_be_many(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "ROOM", 50_000)
    for i in range(20):
        save(tmp_path / f"{i}.png", np.random.default_rng(i).integers(0, 256, (100, 100)))
    assert read_folder(tmp_path)[0].shape == (20, 100, 100, 1)


def left_out(folder: Path) -> str:
    with pytest.warns(UserWarning, match="left out") as caught:
        read_folder(folder)
    return str(caught[0].message)


def test_what_is_left_out_is_counted_with_the_reason(tmp_path):
    save(tmp_path / "cats" / "b.png", grey(0))
    save(tmp_path / "cats" / "black" / "a.png", grey(0))
    save(tmp_path / "cats" / "black" / "deeper" / "a.png", grey(0))
    for name in ("a.heic", "b.HEIC", "c.ppm", "cats/d.jfif", "cats/e.avif"):
        (tmp_path / name).write_bytes(b"x")
    said = left_out(tmp_path)
    assert f"Of the pictures in {tmp_path}, 1 are read, and these are left out" in said
    for piece in ("2 that end in .heic", "1 that end in .ppm", "1 that end in .jfif", ".avif"):
        assert piece in said
    assert f"2 in folders of its subfolders, such as {tmp_path / 'cats' / 'black'}" in said


@pytest.mark.parametrize(
    "suffix", [".raf", ".orf", ".rw2", ".JIF", ".apng", ".heics", ".pef", ".mpo", ""]
)
def test_other_kinds_of_pictures_are_counted(tmp_path, suffix):
    save(tmp_path / "a.png", grey(0))
    (tmp_path / f"b{suffix}").write_bytes(b"x")
    what = f"1 that end in {suffix.lower()}" if suffix else "1 without a suffix"
    assert what in left_out(tmp_path)


def test_folders_of_the_system_are_no_classes_and_empty_ones_are(tmp_path):
    for name in ("__MACOSX", "@eaDir", "#recycle", ".cache", "ape"):
        (tmp_path / name).mkdir()
    for name in ("bee", "cat", "@eaDir"):
        save(tmp_path / name / "a.png", grey(0))
    assert class_names(tmp_path) == ["ape", "bee", "cat"]
    assert read_folder(tmp_path)[1] == [1, 2]


def test_what_is_no_picture_or_hidden_is_not_counted(tmp_path):
    save(tmp_path / "cats" / "a.png", grey(0))
    save(tmp_path / "cats" / ".ipynb_checkpoints" / "a.png", grey(0))
    save(tmp_path / ".hidden" / "more" / "a.png", grey(0))
    for name in ("labels.csv", ".DS_Store", "cats/notes.txt"):
        (tmp_path / name).write_text("x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels, labels = read_folder(tmp_path)
    assert (len(pixels), labels) == (1, [0])


def test_where_all_is_left_out_the_error_says_why(tmp_path):
    save(tmp_path / "cats" / "black" / "a.png", grey(0))
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"no pictures .*1 that end in \.heic.*; 1 in folders"
    ) as e:
        read_folder(tmp_path)
    assert "folders in its subfolders are not looked into" in str(e.value)


def test_a_folder_with_the_suffix_of_a_picture_is_a_folder(tmp_path):
    save(tmp_path / "a.png" / "b.png", grey(0))
    assert read_folder(tmp_path)[1] == [0]
