"""Each **Check** on a page, with what it checks broken: does the page say something else?

``make checks`` runs, for each row of :mod:`broken_checks`, the notebook down to the Check, with a
mistake in the package or in a cell above. The Check has noticed if its cell prints another text
than the committed one, or an assertion of it fails; an error in another cell proves nothing. Last
line: ``N checks broken, N noticed``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat

import notebooks
from broken_checks import BREAKS, Break
from diffusion_walkthrough.published_mistakes import Mistake
from notebook_rules import text_of

MARK = "**Check"


def notebook_of(chapter: str) -> Path:
    """The path of the notebook with this number. Raises ValueError if there is not one."""
    found = sorted(notebooks.NOTEBOOKS.glob(f"{chapter}_*.ipynb"))
    if len(found) != 1:
        raise ValueError(f"chapter {chapter!r}: {len(found)} notebooks have this number, not one")
    return found[0]


def checks_of(content: dict[str, Any]) -> list[int]:
    """Positions of the prose cells that announce a Check: those before the last code cell."""
    kinds = [cell["cell_type"] for cell in content["cells"]]
    last = max((k for k, kind in enumerate(kinds) if kind == "code"), default=0)
    prose = [k for k, kind in enumerate(kinds[:last]) if kind == "markdown"]
    return [k for k in prose if MARK in text_of(content["cells"][k]["source"])]


def place_of(broken: Break, content: dict[str, Any]) -> int:
    """Position of the code cell in which the Check must say otherwise.

    Raises ValueError if the words of the row are not those of exactly one Check, or if so many code
    cells do not follow it.
    """
    cells = content["cells"]
    found = [k for k in checks_of(content) if broken.check in text_of(cells[k]["source"])]
    if len(found) != 1:
        words = f"{broken.chapter}: {broken.check!r}"
        raise ValueError(f"{words} stands in {len(found)} Checks, not one. Change the row.")
    code = [k for k in range(found[0], len(cells)) if cells[k]["cell_type"] == "code"]
    if not 1 <= broken.cell <= len(code):
        raise ValueError(f"{broken.chapter}: cell={broken.cell}, and {len(code)} follow the Check.")
    return code[broken.cell - 1]


def first_part(broken: Break) -> nbformat.NotebookNode:
    """The notebook as far as its Check, with the mistake in it.

    Raises ValueError if the passage to be replaced is not there exactly once.
    """
    content = notebooks.read(notebook_of(broken.chapter))
    content.cells = content.cells[: place_of(broken, content) + 1]
    if broken.where != "page":
        mistake = as_mistake(broken)
        mistake.source()
        lines = [
            "import sys",
            f"sys.path.insert(0, {str(notebooks.ROOT / 'tools')!r})",
            "import mutants",
            f"mutants.put_in(mutants.Mistake({mistake.name!r}, '', {mistake.module!r},"
            f" {mistake.right!r}, {mistake.wrong!r}, ()))",
        ]
        content.cells.insert(0, nbformat.v4.new_code_cell("\n".join(lines), id="the-mistake"))
        return content
    holding = [c for c in content.cells if c.cell_type == "code" and broken.right in c.source]
    if sum(cell.source.count(broken.right) for cell in holding) != 1:
        raise ValueError(
            f"{broken.chapter}, {broken.check!r}: {broken.right!r} must stand once in the code as"
            f" far as the Check, and stands in {len(holding)} cells. Change the row."
        )
    holding[0].source = holding[0].source.replace(broken.right, broken.wrong)
    return content


def as_mistake(broken: Break) -> Mistake:
    """The row as a mistake in a module of the package."""
    name = f"{broken.chapter}, {broken.check}"
    return Mistake(name, broken.mistake, broken.where, broken.right, broken.wrong, ())


def said_by(cell: dict[str, Any]) -> str:
    """What a cell has printed, warnings left out."""
    printed = [output for output in cell["outputs"] if output.get("name") == "stdout"]
    return "".join(text_of(output["text"]) for output in printed)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a Check has noticed, what it said instead, and after how many seconds."""

    noticed: bool
    said: str
    seconds: float


def examine(broken: Break) -> Verdict:
    """Run a notebook as far as its Check, with the mistake in it."""
    start = time.monotonic()
    part = first_part(broken)
    committed = said_by(part.cells[-1])
    for cell in part.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    error = ""
    try:
        notebooks.run_cells(part, notebook_of(broken.chapter))
    except notebooks.NotebookError as stopped:
        error = str(stopped)
    last = part.cells[-1]
    asserted = [o for o in last.outputs if o.output_type == "error" and o.ename == "AssertionError"]
    if error and not asserted:
        return Verdict(False, f"it stopped: {error}", time.monotonic() - start)
    said = said_by(last)
    return Verdict(bool(asserted) or said != committed, said or error, time.monotonic() - start)


def chosen_from(words: list[str]) -> list[Break]:
    """The rows whose chapter, or part of whose words, is named; all if none is.

    Raises SystemExit if there is no such row.
    """
    found = [b for b in BREAKS if any(w == b.chapter or w in b.check for w in words or [""])]
    if not found:
        raise SystemExit(f"{', '.join(words)}: no row of tools/broken_checks.py has that.")
    return found


def main() -> int:
    """Break every Check, or those named by chapter or words; return 0 if all notice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="chapters, or words of a row (all if none)")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows, noticed = chosen_from(arguments.words), 0
    for path in {notebook_of(row.chapter) for row in rows}:
        if not notebooks.is_up_to_date(notebooks.read(path), path.name):
            raise SystemExit(f"{path.name} is not what its code gives: run `make notebooks` first.")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        for broken, verdict in zip(rows, pool.map(examine, rows), strict=True):
            noticed += verdict.noticed
            answer = "noticed" if verdict.noticed else "NOT NOTICED"
            print(f"{broken.chapter}, {broken.check!r}: {broken.mistake} ({verdict.seconds:.0f} s)")
            lines = itertools.islice(verdict.said.strip().splitlines(), 6)
            print(f"    {answer}:", *(f"\n      {line}" for line in lines), flush=True)
    print(f"{len(rows)} checks broken, {noticed} noticed")
    return 0 if noticed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
