"""Files and folders appear whole or not at all, and what the dead leave behind goes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_walkthrough.files import writing
from diffusion_walkthrough.files.writing import (
    earlier_folder,
    make_folder,
    strangers,
    tidy,
    whole_file,
    whole_folder,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(path: Path, **files: str) -> Path:
    with whole_folder(path) as temporary:
        for name, text in files.items():
            (temporary / name).write_text(text)
    return path


def test_a_folder_that_another_process_puts_there_meanwhile_is_replaced(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", a="earlier")
    replace, theirs = os.replace, ["first", "second"]

    def another_first(source: Path, target: Path) -> None:
        if target == tmp_path / "model" and theirs:
            target.mkdir()
            (target / "a").write_text(theirs.pop(0))
        replace(source, target)

    monkeypatch.setattr(writing.os, "replace", another_first)
    write_folder(tmp_path / "model", a="ours")
    assert not theirs
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "a").read_text() == "ours"


def number_of_a_dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def left_by(process: int, name: str, host: str | None = None) -> str:
    return f".~{writing._HOST if host is None else host}-{process}-0123abcd-{name}"


# What is written ---------------------------------------------------------------------------------


def test_a_file_is_written_and_replaced(tmp_path):
    write_whole(tmp_path / "a.bin", b"one")
    assert (tmp_path / "a.bin").read_bytes() == b"one"
    write_whole(str(tmp_path / "a.bin"), b"two")
    assert (tmp_path / "a.bin").read_bytes() == b"two"
    assert names(tmp_path) == ["a.bin"]


def test_until_the_end_the_earlier_file_is_there_and_the_new_one_has_its_suffix(tmp_path):
    path = tmp_path / "a.keras"
    write_whole(path, b"one")
    with whole_file(path) as temporary:
        temporary.write_bytes(b"two")
        assert temporary.suffix == ".keras"
        assert temporary.parent == path.parent.resolve()
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_an_error_inside_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "a"
    if write is whole_file:
        write_whole(path, b"one")
    else:
        write_folder(path, b="one")

    def interrupted():
        with write(path) as temporary:
            (temporary / "b" if write is whole_folder else temporary).write_text("two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (path / "b" if path.is_dir() else path).read_text() == "one"
    assert names(tmp_path) == ["a"]


def test_nothing_written_is_an_error_and_changes_nothing(tmp_path):
    write_whole(tmp_path / "a", b"one")
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_bytes() == b"one"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_disk_that_refuses_leaves_what_was_there(tmp_path, monkeypatch, failing, folder):
    path = tmp_path / "a"
    write_folder(path, b="one") if folder else write_whole(path, b"one")

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(writing.os, failing, fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_folder(path, b="two") if folder else write_whole(path, b"two")
    monkeypatch.undo()
    assert (path / "b" if folder else path).read_text() == "one"
    assert names(tmp_path) == ["a"]


def test_everything_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name.rpartition("-")[2])
        real_fsync(handle)

    def replace(old, new):
        events.append(f"rename to {Path(new).name}")
        real_replace(old, new)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to know which file a handle is of")
    monkeypatch.setattr(writing.os, "fsync", fsync)
    monkeypatch.setattr(writing.os, "replace", replace)
    write_whole(tmp_path / "a", b"one")
    assert events == ["a", "rename to a", tmp_path.name.rpartition("-")[2]]
    events.clear()
    write_folder(tmp_path / "model", x="1", y="2")
    assert sorted(events[:2]) == ["x", "y"]
    assert events[2:] == ["model", "rename to model", tmp_path.name.rpartition("-")[2]]


def test_an_error_of_the_disk_says_what_could_not_be_written_and_what_is_left(
    tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", fail)
    said = r"^/.*/%s could not be written \(No space left on device\)\. .* whole: make"
    with pytest.raises(OSError, match=said % "a") as error:
        write_whole(tmp_path / "a", b"one")
    assert error.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=said % "model"), whole_folder(tmp_path / "model") as inside:
        write_whole(inside / "a", b"one")  # of which the folder's error makes one sentence
    assert names(tmp_path) == []


def test_a_file_system_that_cannot_flush_folders_is_none_that_is_full(tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files_only(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(writing.os, "fsync", of_files_only)
    write_folder(tmp_path / "model", a="1")
    assert (tmp_path / "model" / "a").read_text() == "1"


def test_folders_that_are_made_are_on_the_disk_with_all_they_stand_in(tmp_path, monkeypatch):
    flushed, to_disk = [], writing._to_disk

    def flush(path):
        flushed.append(path)
        to_disk(path)

    monkeypatch.setattr(writing, "_to_disk", flush)
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert sorted(flushed) == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    flushed.clear()
    make_folder(tmp_path / "a")
    assert flushed == []
    write_whole(tmp_path / "file", b"")
    with pytest.raises(NotADirectoryError, match="file is a file, and not a folder"):
        make_folder(tmp_path / "file")


FULL = """
import resource, sys
from pathlib import Path
from diffusion_walkthrough.files.writing import whole_folder, write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
path = Path(sys.argv[1])
try:
    if path.suffix:
        write_whole(path, bytes(2000))
    else:
        with whole_folder(path) as inside:
            write_whole(inside / "a", bytes(10))
            write_whole(inside / "b", bytes(2000))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
@pytest.mark.parametrize("name", ["a.txt", "model"])
def test_a_disk_that_takes_no_more_leaves_the_earlier_whole_and_nothing_else(tmp_path, name):
    path = tmp_path / name
    write_whole(path, b"1") if path.suffix else write_folder(path, a="1")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    )
    assert f"{name} could not be written (File too large)" in done.stdout
    assert names(tmp_path) == [name]
    assert (path if path.suffix else path / "a").read_text() == "1"


@pytest.mark.parametrize("name", ["a" * 235 + ".json", "ä" * 125 + ".json", "old-" * 63 + "abc"])
def test_every_name_that_the_disk_takes_can_be_written(tmp_path, monkeypatch, name):
    write_whole(tmp_path / name, b"one")
    with whole_file(tmp_path / name) as temporary:
        temporary.write_bytes(b"two")
        assert temporary.suffix == Path(name).suffix
        left = writing._OURS.fullmatch(temporary.name)
        assert (left["process"], left["old"]) == (str(os.getpid()), None)
        assert temporary != writing._file_beside(tmp_path / f"b{name[1:]}")
    assert names(tmp_path) == [name]
    dead = number_of_a_dead_process()
    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "getpid", lambda: dead)
        writing._file_beside(tmp_path / name).touch()
    tidy(tmp_path)
    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_asks_for_a_shorter_one(tmp_path):
    said = r"\(File name too long\)\. .* whole: choose a shorter name, and do"
    with pytest.raises(OSError, match=said):
        write_folder(tmp_path / ("a" * 250), a="1")
    assert names(tmp_path) == []


def test_missing_places_are_named(tmp_path):
    for write in (whole_file, whole_folder):
        with pytest.raises(FileNotFoundError, match=r"absent does not exist\. Create it first"):
            write(tmp_path / "absent" / "a").__enter__()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_whole(tmp_path, b"")
    assert names(tmp_path) == []


def test_through_a_link_the_file_is_replaced_and_the_link_stays(tmp_path):
    write_whole(tmp_path / "place", b"one")
    (tmp_path / "link").symlink_to(tmp_path / "place")
    write_whole(tmp_path / "link", b"two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "place").read_bytes() == b"two"


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_whole("~/a", b"one")
    assert (tmp_path / "a").read_bytes() == b"one"


# Folders -----------------------------------------------------------------------------------------


def test_a_folder_is_replaced_whole_but_hidden_files_move_over(tmp_path):
    path = write_folder(tmp_path / "model", a="1", b="1")
    (path / ".DS_Store").write_text("mine")
    (path / "desktop.ini").write_text("mine")
    (path / ".ipynb_checkpoints").mkdir()
    (path / ".ipynb_checkpoints" / "a").write_text("mine")
    write_folder(path, b="2", c="2")
    assert names(path) == [".DS_Store", ".ipynb_checkpoints", "b", "c", "desktop.ini"]
    assert (path / "b").read_text() == "2"
    assert (path / ".ipynb_checkpoints" / "a").read_text() == "mine"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_of_either_rename_puts_the_earlier_folder_back(tmp_path, monkeypatch, failing):
    path = write_folder(tmp_path / "model", a="1")
    replace, calls = os.replace, []

    def fail_once(old, new):
        calls.append(new)
        if len(calls) == failing:
            raise OSError("no rename today")
        replace(old, new)

    monkeypatch.setattr(writing.os, "replace", fail_once)
    with pytest.raises(OSError, match="no rename"):
        write_folder(path, a="2")
    assert (path / "a").read_text() == "1"
    assert names(tmp_path) == ["model"]


def test_strangers_are_told_from_ours_and_from_what_systems_put_there(tmp_path):
    for name in ("a", "b", "thesis.txt", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("")
    for name in ("c", "d", ".ipynb_checkpoints"):
        (tmp_path / name).mkdir()
    assert strangers(tmp_path, {"a", "c"}) == ["b", "c", "d", "thesis.txt"]
    assert strangers(tmp_path / "absent", {"a"}) == []


# What processes leave behind that were killed ----------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from diffusion_walkthrough.files import writing
path, moment = Path(sys.argv[1]), sys.argv[2]
replace, calls = os.replace, []
def replace_and_die(old, new):
    replace(old, new)
    calls.append(new)
    if moment == f"after rename {len(calls)}":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
with (writing.whole_file if path.suffix else writing.whole_folder)(path) as temporary:
    (temporary if path.suffix else temporary / "a").write_text("2")
    if moment == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not known there")
@pytest.mark.parametrize(
    ("name", "moment", "found"),
    [
        ("a.txt", "while writing", "1"),
        ("a.txt", "after rename 1", "2"),
        ("model", "while writing", "1"),
        ("model", "after rename 1", "1"),
        ("model", "after rename 2", "2"),
        ("old-a.txt", "while writing", "1"),  # none is taken for what was there before "model"
        ("old-model", "while writing", "1"),
        ("old-model", "after rename 1", "1"),
    ],
)
def test_killed_at_any_moment_the_next_one_finds_the_old_or_the_new(tmp_path, name, moment, found):
    path = tmp_path / name
    if path.suffix:
        write_whole(path, b"1")
    else:
        write_folder(path, a="1")
        (path / ".hidden").write_text("mine")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    between = moment == "after rename 1" and not path.suffix
    assert (earlier_folder(path) is not None) is (moment.startswith("after") and not path.suffix)
    assert path.exists() is not between
    tidy(tmp_path)
    assert names(tmp_path) == [name]
    assert (path if path.suffix else path / "a").read_text() == found
    assert path.suffix or (path / ".hidden").read_text() == "mine"


def test_the_next_writer_removes_what_the_dead_left_and_leaves_the_rest(tmp_path):
    dead = number_of_a_dead_process()
    gone = [left_by(dead, "a.txt"), left_by(dead, "model")]
    gone += [left_by(os.getpid(), "b.txt")]  # an earlier process had our number
    stay = [
        left_by(os.getppid(), "model"),
        left_by(dead, "a.txt", host="elsewhere"),
        ".~lock.thesis.odt#",  # LibreOffice has names like these
        ".hidden",
        "thesis.txt",
    ]
    for name in [*gone, *stay]:
        if name.endswith("model"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "weights").write_text("half")
        else:
            (tmp_path / name).write_text("half")
    write_whole(tmp_path / "b", b"")
    assert names(tmp_path) == sorted([*stay, "b"])


def test_what_this_process_is_writing_stays(tmp_path):
    with whole_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"one")
        write_whole(tmp_path / "b", b"two")
    assert names(tmp_path) == ["a", "b"]


def test_the_earlier_folder_of_a_dead_process_goes_where_a_newer_one_is(tmp_path):
    old = tmp_path / left_by(number_of_a_dead_process(), "old-model")
    write_folder(tmp_path / "model", a="2")
    old.mkdir()
    (old / "a").write_text("1")
    assert earlier_folder(tmp_path / "model") == old
    assert earlier_folder(tmp_path / "other") is None
    tidy(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "a").read_text() == "2"


def test_what_cannot_be_removed_is_in_nobodys_way(tmp_path, monkeypatch):
    left = tmp_path / left_by(number_of_a_dead_process(), "a")
    left.write_text("half")

    def fail(*_args, **_kwargs):
        raise PermissionError("read only")

    monkeypatch.setattr(Path, "unlink", fail)
    tidy(tmp_path)
    assert left.exists()
