"""Which cells of a notebook have to run before its widgets can be used."""

from __future__ import annotations

import re
import symtable
from collections.abc import Collection, Iterator
from itertools import pairwise

from IPython.core.inputtransformer2 import TransformerManager

from notebook_rules import is_widget


def names_bound(table: symtable.SymbolTable) -> set[str]:
    """Names that the code gives a value: by assignment, import, def or class."""
    symbols = table.get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}


def names_read(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that the code, or a function in it, takes from elsewhere."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from names_read(inner)


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
        table = symtable.symtable(source, "cell", "exec")
        if i == code[0] or i in targets or names_bound(table) & wanted:
            needed.append(i)
            wanted = wanted - names_bound(table) | set(names_read(table))
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
