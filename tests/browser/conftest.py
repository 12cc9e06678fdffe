"""Prints at the end how fast pictures followed their sliders and menus."""

from statistics import median

import numpy as np
import pytest

DELAYS = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[DELAYS] = []


@pytest.fixture
def delays(request):
    """Rows of notebook, control, and milliseconds from key press to picture."""
    return request.config.stash[DELAYS]


def pytest_terminal_summary(terminalreporter, config):
    if rows := config.stash[DELAYS]:
        terminalreporter.section("from key press to picture, in milliseconds")
        line = "{:30} {:24} {:>7} {:>7} {:>7}".format
        terminalreporter.line(line("notebook", "control", "presses", "median", "p90"))
        for notebook, control, times in rows:
            middle, slow = f"{median(times):.0f}", f"{np.percentile(times, 90):.0f}"
            terminalreporter.line(line(notebook, control, len(times), middle, slow))
