"""``make fuzz`` on a few files: none is at fault; what would be is found, and can be repeated."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz

TOOL = Path(__file__).resolve().parent.parent / "tools" / "fuzz.py"


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_few_hundred_damaged_files_are_read_or_refused():
    done = run("--count", 400, "--workers", 1)
    assert done.stdout.splitlines()[-1] == "400 tried, 0 at fault", done.stdout + done.stderr
    assert re.match(r"seed \d+\n", done.stdout)
    assert done.returncode == 0


def files() -> dict[str, list[bytes]]:
    """Files that need no model."""
    text = b'{"a": {"b": [1, 2.5, true, null, "text"]}}'
    found = {kind: [text] for kind in fuzz.SHARES}
    archives = fuzz._image_archives()
    return found | {kind: archives for kind in found if kind.endswith((".npz", ".keras"))}


def test_a_case_follows_from_seed_and_number_and_is_another_each_time():
    seeds = files()
    cases = [fuzz.case(number, 7, seeds) for number in range(300)]
    assert [fuzz.case(number, 7, seeds) for number in range(300)] == cases
    assert len({content for _, content in cases}) > 250
    assert len({kind for kind, _ in cases}) > 5
    assert [fuzz.case(number, 8, seeds) for number in range(300)] != cases


@pytest.mark.parametrize("change", sorted({c for cs in fuzz.CHANGES.values() for c in cs}, key=str))
def test_every_change_changes(change):
    data = fuzz._image_archives()[0] if change is fuzz.member_changed else b'{"a": [1, 2]}}' * 3
    changed = [change(data, random.Random(seed)) for seed in range(60)]
    assert sum(one != data for one in changed) > 40


CRASHING = """
import os, sys
sys.path.insert(0, {tools!r})
import fuzz
fuzz.seeds = lambda: {{kind: [b"0123456789"] for kind in fuzz.SHARES}}
def read(path):
    number = int(path.parent.name)
    if number == 3:
        os._exit(5)
    if number == 8:
        1 / 0
    raise ValueError(f"{{path}} is bad")
fuzz.readers = lambda: dict.fromkeys(fuzz.SHARES, read)
fuzz.CHANGES = dict.fromkeys(fuzz.SHARES, (lambda data, rng: data,))
fuzz.__file__ = {script!r}
if __name__ == "__main__":
    sys.exit(fuzz.main())
"""


def test_what_is_at_fault_is_named_by_its_number_and_the_rest_is_tried(tmp_path):
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING.format(tools=str(TOOL.parent), script=str(script)))
    command = [sys.executable, str(script), "--count", "12", "--workers", "2", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[-1] == "12 tried, 2 at fault", done.stderr
    assert any(line.startswith("at fault: case 3: the process ended with 5") for line in lines)
    assert any(re.match(r"at fault: case 8 .*: ZeroDivisionError", line) for line in lines)
    assert done.returncode == 1
