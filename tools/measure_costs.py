"""Measure what each notebook costs: seconds from start to end, and peak memory of its kernel.

python tools/measure_costs.py [PATH ...]

Nothing is written; the figures belong into the notebooks' headers and the README. Run it on a
machine that is doing nothing else.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


class PeakMemory(threading.Thread):
    """Watch what this process has started, the kernel, and remember the most memory it held."""

    def __init__(self) -> None:
        """Prepare to watch."""
        super().__init__(daemon=True)
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self.done.wait(0.1):
            try:
                started = psutil.Process().children(recursive=True)
                self.peak = max(self.peak, sum(p.memory_info().rss for p in started))
            except psutil.NoSuchProcess:
                continue


def cost(path: Path) -> tuple[float, float]:
    """Run one notebook in a fresh kernel; return seconds and peak gigabytes."""
    client = NotebookClient(nbformat.read(path, as_version=4), timeout=900)
    client.resources = {"metadata": {"path": str(path.parent)}}
    begin = time.perf_counter()
    with client.setup_kernel():
        watch = PeakMemory()
        watch.start()
        for index, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, index)
        watch.done.set()
        watch.join()
    return time.perf_counter() - begin, watch.peak / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=sorted(NOTEBOOKS.glob("*.ipynb")))
    for notebook in parser.parse_args().paths:
        seconds, gigabytes = cost(notebook)
        print(f"{notebook.stem}: {seconds:.0f} s, {gigabytes:.1f} GB", flush=True)
