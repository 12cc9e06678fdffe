"""Which cells of a notebook have to run before its sliders can be moved."""

from __future__ import annotations

import symtable
from collections.abc import Iterator

from IPython.core.inputtransformer2 import TransformerManager

WIDGET = "application/vnd.jupyter.widget-view+json"


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
    """Whether a cell was left with a widget below it."""
    return any(WIDGET in output.get("data", {}) for output in cell.get("outputs", []))


def cells_needed(cells: list) -> list[int]:
    """Indices of the first code cell, of those with a widget, and of what these build on.

    Read from the end: a cell is needed if it gives a value to a name that a needed one below reads.
    """
    code = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    needed, wanted = [], set()
    for i in reversed(code):
        source = TransformerManager().transform_cell(cells[i]["source"])
        table = symtable.symtable(source, "cell", "exec")
        if i == code[0] or shows_a_widget(cells[i]) or names_bound(table) & wanted:
            needed.append(i)
            wanted = wanted - names_bound(table) | set(names_read(table))
    return needed[::-1]
