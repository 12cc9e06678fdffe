"""Help that grows: a hint first, then where to look, then how a solution begins.

Which exercise a verdict belongs to, and what was handed in, is read from the call that made it:
the nearest running function ``check_NAME`` whose module has a ``solution_NAME``. The module may
also have ``look_NAME``, where on the page to look, and ``steps_NAME``, how the answer is put
together. Tries are counted as they are shown, in memory, until the answer is right.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from dataclasses import dataclass
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Try:
    """An answer that was handed in.

    Attributes:
        module: the name of the module of the exercise.
        name: the exercise's own name, such as "one_step".
        answer: tells one answer from another; functions are compared by what they do.
    """

    module: str
    name: str
    answer: str

    def text(self, kind: str) -> str:
        """What the exercise's module says under ``kind_NAME``; "" if nothing."""
        return str(getattr(sys.modules[self.module], f"{kind}_{self.name}", ""))


_shown: dict[tuple[str, str], list[tuple[str, str]]] = {}


def current() -> Try | None:
    """The try that is being marked; None outside of a check."""
    frame = inspect.currentframe()
    while frame is not None:
        code, home = frame.f_code, frame.f_globals
        name = code.co_name.removeprefix("check_")
        if name != code.co_name and f"solution_{name}" in home and home["__name__"] in sys.modules:
            attempt = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            return Try(home["__name__"], name, _told_apart(attempt))
        frame = frame.f_back
    return None


def _told_apart(attempt: Any) -> str:
    """Text that differs for different answers, and is the same if a cell is only run again."""
    things = vars(attempt).values() if isinstance(attempt, type) else [attempt]
    codes = [getattr(thing, "__code__", None) for thing in things]
    found = [_of_code(code) for code in codes if isinstance(code, CodeType)]
    return " ".join(found) or repr(attempt)


def _of_code(code: CodeType) -> str:
    constants = [_of_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def count(tried: Try, right: bool, message: str) -> int:
    """Count the different wrong tries of an exercise; a right one begins anew.

    Args:
        tried: the try that is shown now.
        right: whether it is right.
        message: its hint: the same answer may get another one, if something else was changed.

    Returns:
        How many different wrong tries there have been, this one included; 0 if it is right.
    """
    exercise = (tried.module, tried.name)
    if right:
        _shown.pop(exercise, None)
        return 0
    tries = _shown.setdefault(exercise, [])
    if (tried.answer, message) not in tries:
        tries.append((tried.answer, message))
    return len(tries)


def forget() -> None:
    """Begin to count anew, in all exercises."""
    _shown.clear()


def more_help(tried: Try, strength: int) -> list[str]:
    """What is said below the hint: nothing, where to look, and how a solution begins.

    Args:
        tried: the try, which names the exercise.
        strength: how many different wrong tries there have been.
    """
    lines = []
    if strength >= 2 and (where := where_to_look(tried)):
        lines.append(where)
    if strength >= 3:
        lines += how_it_begins(tried)
        lines.append(f"A whole solution: ask.show_solution(ask.check_{tried.name})")
    return lines


def where_to_look(tried: Try) -> str:
    """The exercise's own words, else the equation that its check names, else what is asked."""
    if own := tried.text("look"):
        return own if own.startswith("Look") else f"Where to look: {own}"
    home = sys.modules[tried.module]
    told = inspect.getdoc(getattr(home, f"check_{tried.name}", None)) or ""
    equations = list(dict.fromkeys(re.findall(r"Eqs?\. \d+", told)))
    if equations:
        return f"Where to look: {' and '.join(equations)}, symbol by symbol."
    if isinstance(getattr(home, f"solution_{tried.name}", None), str):
        return ""  # of a question with letters, the docstring may name the right one
    asked = told.split("\n\n")[0].replace("``", "").removeprefix("Mark ").rstrip(".")
    return f"Read again what is asked for: {' '.join(asked.split())}."


def how_it_begins(tried: Try) -> list[str]:
    """How the answer is put together, or the first line of a solution, if it has more than one."""
    if own := tried.text("steps"):
        return [f"How it is put together: {own}"]
    begin = _beginning(tried)
    return ["A solution begins:", textwrap.indent(begin, "    ")] if begin else []


def _beginning(tried: Try) -> str:
    """The first statement of a solution, or the first part of one that is a single statement."""
    name = f"solution_{tried.name}"
    try:
        source = inspect.getsource(sys.modules[tried.module])
    except (OSError, TypeError):
        return ""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return _first_part(node.value)
        if isinstance(node, ast.FunctionDef) and node.name == name:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            first = body[0]
            if isinstance(first, ast.Return) and first.value is not None:
                part = _first_part(first.value)
                return f"return {part}" if part else ""
            return "\n".join(ast.unparse(first).splitlines()[:4])
    return ""


def _first_part(value: ast.expr) -> str:
    """The first part of a formula; "" if it has none that is not the whole."""
    gap = ast.Name("…")
    shown: ast.expr | None = None
    if isinstance(value, ast.Call):
        inside = _first_part(value.args[0]) if value.args else ""
        shown = ast.Call(value.func, [ast.Name(inside or "…")], [])
    elif isinstance(value, ast.BinOp):
        shown = ast.BinOp(value.left, value.op, gap)
    elif isinstance(value, ast.Compare):
        shown = ast.Compare(ast.Name(_first_part(value.left) or "…"), value.ops, [gap])
    elif isinstance(value, ast.Tuple) and not isinstance(value.elts[0], ast.Constant):
        shown = ast.Tuple([value.elts[0], gap], ast.Load())
    return ast.unparse(shown) if shown else ""
