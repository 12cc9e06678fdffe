"""Archives: what they say of themselves is compared before anything in them is inflated."""

import io
import zipfile

import numpy as np
import pytest

from diffusion_walkthrough.files import UNREADABLE_NPZ, archives
from diffusion_walkthrough.files.archives import (
    Header,
    array_header,
    array_names,
    opened_archive,
    read_array,
    read_member,
)

ARRAYS = {
    "a": np.arange(12, dtype="f4").reshape(3, 4),
    "of nothing": np.zeros((0, 3)),
    "one": np.array(5, dtype="int64"),
    "in Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "the other way round": np.arange(3, dtype=">f8"),
    "truth": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    with opened_archive(tmp_path / "a.npz") as archive:
        assert array_names(archive) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert array_header(archive, name) == Header(array.shape, array.dtype)
            np.testing.assert_array_equal(read_array(archive, name), array)


def inflating(path, size):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(size))
    return path


def test_what_grows_is_refused_by_its_size_and_by_how_much(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 1000)
    with opened_archive(inflating(tmp_path / "a.npz", 1000)) as archive:
        assert read_member(archive, "a", 1000) == bytes(1000)
    with (
        pytest.raises(ValueError, match=r"would grow from 0\.0 to 0 MB.*np\.savez, which does not"),
        opened_archive(inflating(tmp_path / "a.npz", 1001)),
    ):
        pass


def test_a_large_archive_that_is_not_compressed_may_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 1000)
    np.savez(tmp_path / "a.npz", a=np.zeros(10_000))
    with opened_archive(tmp_path / "a.npz") as archive:
        assert read_array(archive, "a").shape == (10_000,)


def test_a_long_table_of_contents_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives._File, "left", 70_000)  # the end of the file, and a little more
    np.savez(tmp_path / "few.npz", **{str(i): np.zeros(1) for i in range(9)})
    with opened_archive(tmp_path / "few.npz") as archive:
        assert len(array_names(archive)) == 9
    np.savez(tmp_path / "many.npz", **{str(i): np.zeros(1) for i in range(2000)})
    with pytest.raises(ValueError, match="contents"), opened_archive(tmp_path / "many.npz"):
        pass


def test_a_member_that_inflates_further_than_it_says_is_cut_where_it_said(tmp_path):
    data = bytearray(inflating(tmp_path / "a.npz", 10**7).read_bytes())
    place = data.index(b"PK\1\2") + 24  # where the table of contents has the size
    data[place : place + 4] = (100).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(data)
    read = []
    decompress = zipfile.zlib.decompressobj

    class Counting:
        def __init__(self, *arguments):
            self.inner = decompress(*arguments)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def decompress(self, data, most):
            read.append(len(result := self.inner.decompress(data, most)))
            return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.zlib, "decompressobj", Counting)
        with (
            opened_archive(tmp_path / "a.npz") as archive,
            pytest.raises(zipfile.BadZipFile, match="CRC"),
        ):
            read_member(archive, "a", 100)
    assert sum(read) < 10_000


def test_a_member_that_is_larger_than_it_may_be_is_not_read(tmp_path):
    with (
        opened_archive(inflating(tmp_path / "a.npz", 101)) as archive,
        pytest.raises(ValueError, match="101 bytes, more than the 100"),
    ):
        read_member(archive, "a", 100)


def npy(header, data=b""):
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (b"just some text", "no array of numbers"),
        (npy(GOOD, bytes(7)), r"says that it has 73 bytes, and has 72"),
        (npy(GOOD, bytes(9)), r"says that it has 73 bytes, and has 74"),
        (npy(GOOD.replace(b"2,", b"-2,")), "no shape"),
        (npy(GOOD.replace(b"2,", b"1," * 9), bytes(4)), "no shape"),
        (npy(GOOD.replace(b"2,", b"2.0,"), bytes(8)), "shape is not valid"),
        (npy(GOOD.replace(b"<f4", b"|O"), bytes(16)), "holds Python objects"),
        (npy(GOOD[:-1] + b"[" * 9), "no array of numbers"),
        (npy(GOOD + b" " * 20_000, bytes(8)), "no array of numbers"),
        (npy(GOOD, bytes(8)).replace(b"\1\0", b"\2\0", 1), "no array of numbers"),
        (b"", "no array of numbers"),
    ],
)
def test_a_header_that_does_not_fit_its_member_is_refused(tmp_path, member, said):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", member)
    with opened_archive(tmp_path / "a.npz") as archive:
        for read in (array_header, read_array):
            with pytest.raises(ValueError, match=said):
                read(archive, "a")
        with pytest.raises(ValueError, match="b is no array"):
            array_header(archive, "b")


def test_other_compressions_pipes_and_doubles_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x")
    with pytest.raises(ValueError, match="compressed in a way"), opened_archive(tmp_path / "a.npz"):
        pass
    with pytest.raises(ValueError, match="no regular file"), opened_archive(tmp_path):
        pass
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"y")
    with pytest.raises(ValueError, match="one name"), opened_archive(tmp_path / "b.npz"):
        pass


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_any_changed_byte_is_read_as_it_was_or_refused(tmp_path, place):
    file = io.BytesIO()
    np.savez_compressed(file, a=ARRAYS["a"])
    data = bytearray(file.getvalue())
    data[place % len(data)] ^= 0x55
    (tmp_path / "a.npz").write_bytes(data)
    try:
        with opened_archive(tmp_path / "a.npz") as archive:
            found = read_array(archive, "a")
    except UNREADABLE_NPZ:
        return
    np.testing.assert_array_equal(found, ARRAYS["a"])
