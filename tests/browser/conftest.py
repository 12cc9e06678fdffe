"""Prints at the end how fast pictures followed their sliders and menus."""

from statistics import median

import numpy as np
import pytest

DELAYS = "delays"


@pytest.fixture
def note_delays(request):
    """Takes notebook, control, and milliseconds from key press to picture.

    They go with the test's report, which a worker hands to the process that prints.
    """
    return lambda *row: request.node.user_properties.append((DELAYS, row))


def pytest_terminal_summary(terminalreporter):
    reports = [report for some in terminalreporter.stats.values() for report in some]
    tests = {(r.nodeid, r.when): r for r in reports if getattr(r, "when", None) == "call"}
    rows = [row for report in tests.values() for name, row in report.user_properties]
    if rows:
        terminalreporter.section("from key press to picture, in milliseconds")
        line = "{:30} {:24} {:>7} {:>7} {:>7}".format
        terminalreporter.line(line("notebook", "control", "presses", "median", "p90"))
        for notebook, control, times in rows:
            middle, slow = f"{median(times):.0f}", f"{np.percentile(times, 90):.0f}"
            terminalreporter.line(line(notebook, control, len(times), middle, slow))
