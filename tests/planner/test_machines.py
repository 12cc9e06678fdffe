"""Machines: names, memory by the system's and a container's account, and a speed that repeats."""

from __future__ import annotations

import mmap
import re
import threading

import psutil
import pytest

from diffusion_walkthrough.planner import machines
from diffusion_walkthrough.planner.counting import Block
from diffusion_walkthrough.planner.machines import (
    GB,
    MACHINES,
    THIS_MACHINE,
    find_machine,
    free_memory,
    measured_speed,
    most_memory,
)


def test_the_machines_that_are_planned_for():
    assert set(MACHINES) == {"i5-5300U", "i7-10700", "RTX 2060 SUPER", "K80", "T4", "H200"}
    for name, machine in MACHINES.items():
        assert find_machine(name) is machine
        assert machine.name == name


def test_peaks_are_the_published_ones():
    """Cores, clock and operations a clock; a card's shaders, two operations each, and its clock.

    The H200 does float32's convolutions as TF32 on its tensor cores: 132 multiprocessors.
    """
    peak = {name: machine.peak["float32"] for name, machine in MACHINES.items()}
    assert peak["i5-5300U"] == pytest.approx(147e9, rel=0.01)
    assert peak["i7-10700"] == pytest.approx(742e9, rel=0.01)
    assert peak["RTX 2060 SUPER"] == pytest.approx(2 * 2176 * 1.65e9, rel=0.01)
    assert peak["K80"] == pytest.approx(2 * 2496 * 0.562e9, rel=0.01)
    assert peak["T4"] == pytest.approx(2 * 2560 * 1.59e9, rel=0.01)
    assert peak["H200"] == pytest.approx(2 * 132 * 1024 * 1.83e9, rel=0.01)


def test_half_precision_is_faster_only_where_there_are_units_for_it():
    faster = {
        name: {p for p, speed in machine.peak.items() if speed > machine.peak["float32"]}
        for name, machine in MACHINES.items()
    }
    assert faster == {
        "i5-5300U": set(),
        "i7-10700": set(),
        "K80": set(),
        "RTX 2060 SUPER": {"mixed_float16"},
        "T4": {"mixed_float16"},
        "H200": {"mixed_float16", "mixed_bfloat16"},
    }


@pytest.mark.parametrize(
    ("name", "near"), [("t4", "T4"), ("RTX 2060", "RTX 2060 SUPER"), ("i7 10700", "i7-10700")]
)
def test_an_unknown_machine_is_answered_with_the_nearest_and_all_names(name, near):
    with pytest.raises(ValueError, match=re.escape(f"device={name!r}")) as caught:
        find_machine(name)
    assert str(caught.value).endswith(f"Did you mean {near!r}?")
    assert all(repr(known) in str(caught.value) for known in [THIS_MACHINE, *MACHINES])


@pytest.mark.parametrize("name", ["zzzzzzzzz", 7, None, ""])
def test_a_machine_without_any_likeness(name):
    error = ValueError if isinstance(name, str) else TypeError
    with pytest.raises(error, match=r"device=.* must be one of .*\. (Choose|Give) "):
        find_machine(name)


# --- memory -------------------------------------------------------------------------------------


def container(folder, version, limit, used, cache):
    """The files of a control group as the kernel writes them."""
    names = {
        1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    (folder / names[0]).parent.mkdir(exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / names[0]).with_name("memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_what_its_limit_leaves(tmp_path, version):
    container(tmp_path, version, 300_000_000, 250_000_000, cache=50_000_000)
    assert free_memory(tmp_path) == 100_000_000


def test_a_container_that_is_full_has_nothing_left(tmp_path):
    container(tmp_path, 2, 300_000_000, 310_000_000, cache=0)
    assert free_memory(tmp_path) == 0


@pytest.mark.parametrize("limit", ["max", 9_223_372_036_854_771_712])
def test_a_container_without_a_limit_has_what_the_system_has(tmp_path, limit):
    container(tmp_path, 2, limit, 250_000_000, cache=0)
    assert free_memory(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_without_containers_it_is_what_the_system_says(tmp_path):
    assert free_memory(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.1)
    assert 0 < find_machine(THIS_MACHINE).memory <= psutil.virtual_memory().total


def test_the_most_memory_is_that_of_the_peak_not_of_the_end(monkeypatch):
    looked, here = threading.Event(), threading.current_thread()

    class Watched(psutil.Process):
        def memory_info(self):
            seen = super().memory_info()
            if threading.current_thread() is not here:
                looked.set()
            return seen

    def work():
        with mmap.mmap(-1, 320_000_000) as pages:  # new ones: an array may be given old memory
            for start in range(0, len(pages), mmap.PAGESIZE):
                pages[start] = 1
            for _ in range(2):  # the first look may have begun before the pages were filled
                looked.clear()
                assert looked.wait(60)

    before = psutil.Process().memory_info().rss
    monkeypatch.setattr(psutil, "Process", Watched)
    assert most_memory(work) - before == pytest.approx(320e6, rel=0.1)
    assert psutil.Process().memory_info().rss - before < 100e6


def test_work_without_memory_needs_what_there_is():
    held = psutil.Process().memory_info().rss
    assert most_memory(lambda: None) == pytest.approx(held, rel=0.05)


def test_an_error_passes_and_nobody_goes_on_watching():
    threads = threading.active_count()

    def work():
        raise MemoryError("too many images")

    with pytest.raises(MemoryError, match="too many images"):
        most_memory(work)
    assert threading.active_count() == threads


# --- speed --------------------------------------------------------------------------------------


def test_this_machine_is_measured_once_and_remembered(monkeypatch):
    block = Block("down 8", "residual", 8, 8, 8)
    monkeypatch.setattr(machines, "PROBE_OPERATIONS", 1e7)
    speed = measured_speed(block, 32, 4, 0.1, "float32")
    assert 1e6 < speed < 1e15
    monkeypatch.setattr(machines, "_Probe", None)  # would fail if asked again
    assert measured_speed(block, 32, 4, 0.1, "float32") == speed


def test_a_precision_that_takes_hundreds_of_times_as_long_is_measured_in_two_steps(monkeypatch):
    made = []

    class Times(machines.StepTimes):
        def __init__(self, patience):
            super().__init__(patience)
            made.append(self)

    monkeypatch.setattr(machines, "StepTimes", Times)
    monkeypatch.setattr(machines, "PROBE_OPERATIONS", 1e7)
    monkeypatch.setattr(machines, "PROBE_SECONDS", 0.0)
    block = Block("down 8", "residual", 8, 16, 8)
    assert 1e6 < measured_speed(block, 32, 4, 0.0, "float32") < 1e15
    assert [len(times.clock) for times in made] == [2]


def test_memory_is_what_a_training_may_use_of_it():
    assert MACHINES["T4"].memory < 16 * GB
    assert MACHINES["i5-5300U"].memory < 8 * GB
