"""Which cells of a notebook have to run before its widgets can be used."""

from __future__ import annotations

import dis
import re
import symtable
from collections.abc import Collection
from itertools import pairwise
from types import CodeType

from IPython.core.inputtransformer2 import TransformerManager

from notebook_rules import is_widget


def names_bound(source: str) -> set[str]:
    """Names that the code gives a value: by assignment, import, def or class."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}


def names_read(code: CodeType) -> set[str]:
    """Names that the code, or a function in it, takes from elsewhere.

    One that it has given a value before, as a loop does, it takes from itself.
    """
    read, bound = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_NAME", "STORE_GLOBAL"):
            bound.add(step.argval)
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            read |= {step.argval} - bound
        elif isinstance(step.argval, CodeType):
            read |= names_read(step.argval) - bound
    return read


def shows_a_widget(cell) -> bool:
    """Whether a cell was left with a widget, or what stands in for one, below it."""
    return any(map(is_widget, cell.get("outputs", [])))


def cells_needed(cells: list, targets: Collection[int]) -> list[int]:
    """Indices of the first code cell, of the targets, and of what these build on.

    Read from the end: a cell is needed if it gives a value to a name that a needed one below reads.
    """
    code = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    needed, wanted = [], set()
    for i in reversed(code):
        source = TransformerManager().transform_cell(cells[i]["source"])
        bound = names_bound(source)
        if i == code[0] or i in targets or bound & wanted:
            needed.append(i)
            wanted = wanted - bound | names_read(compile(source, "cell", "exec"))
    return needed[::-1]


def widget_cells(cells: list) -> list[int]:
    """Indices of the cells that show a widget."""
    return [i for i, cell in enumerate(cells) if shows_a_widget(cell)]


def predictions(cells: list) -> list[tuple[int, int]]:
    """Each question with choices that the next code cell answers: the indices of both."""
    code = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    found = []
    for question, experiment in pairwise(code):
        asks = re.search(r"(\w+) = predict\(\s*\"[^\"]*\",\s*\"", cells[question]["source"])
        if asks and f"{asks[1]}.reveal(" in cells[experiment]["source"]:
            found.append((question, experiment))
    return found
