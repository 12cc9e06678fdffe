"""Killed at any moment, what saves or trains leaves the earlier or the later, whole."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killed(folder: Path, count: int) -> str:
    """The last line of so many kills, and on a fault all that was said."""
    seed = str(random.randrange(10**6))
    command = [sys.executable, str(TESTS / "kills.py"), str(folder), str(count), seed]
    where = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": where}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    last = done.stdout.splitlines()[-1:]
    return last[0] if done.returncode == 0 else f"seed {seed}: {done.stdout}{done.stderr[-3000:]}"


def test_three_processes_killed_at_random_moments_leave_what_is_whole(tmp_path):
    assert killed(tmp_path, 3) == "3 killed, 0 at fault"
