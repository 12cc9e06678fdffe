"""The benchmarks' own parts: what they print about the machine, and the recipes they compare."""

import re
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import machine


def test_the_description_says_what_was_measured_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    text = machine.description()
    memory = psutil.virtual_memory().total / 2**30
    assert f"{machine.usable_cores()} cores, {memory:.0f} GiB" in text
    assert f"python {sys.version.split()[0]}" in text
    assert re.search(r"keras \d+\.\d+", text)
    assert "OMP_NUM_THREADS=3" in text


def test_the_description_names_neither_the_machine_nor_a_path():
    text = machine.description()
    for name in {machine.platform.node(), str(Path.home()), str(Path.cwd())} - {"", "/"}:
        assert name not in text
