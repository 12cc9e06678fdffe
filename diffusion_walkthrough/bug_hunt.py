"""The bug hunt: programs in which one line is wrong.

A :class:`Program` is this package, or this package with one of the ``published_mistakes`` in it:
its functions are drop-in functions, called as those of the package. :data:`PATIENTS` are the
programs to be examined, each with what its owner complains of; ``instruments`` has what to examine
them with. The mistakes are put in by the same replacement of text as ``make mutants`` does, so that
the hunt and the mutants never differ.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import difflib
import functools
import importlib
import linecache
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from diffusion_walkthrough.published_mistakes import FOLDER, PACKAGE, Mistake, named


class Program:
    """The package, or one in which a line is wrong: its modules are attributes.

    ``program.forward_diffusion.q_sample`` is a function. What builds on the sick module is sick
    with it, as if its file had been edited; the package itself stays as it is.
    """

    def __init__(self, mistake: Mistake | None = None, name: str = "the package as it is") -> None:
        """Load nothing yet; without a mistake the modules are the package's own."""
        self._mistake, self._name = mistake, name
        self._sick: dict[str, ModuleType] = {}

    def __getattr__(self, name: str) -> ModuleType:
        if name.startswith("_") or not _path(name).is_file():
            raise AttributeError(f"a program has no {name!r}: its attributes are modules.")
        return self.module(name)

    def module(self, name: str) -> ModuleType:
        """A module of the program, "loss" or "engine.optimizer" for example."""
        if not self.is_sick(name):
            return importlib.import_module(f"{PACKAGE}.{name}")
        if name not in self._sick:
            self._sick[name] = self._loaded(name)
        return self._sick[name]

    def is_sick(self, name: str) -> bool:
        """Whether a module has the mistake in it, or builds on one that has."""
        return self._mistake is not None and self._mistake.module in _builds_on(name)

    def _loaded(self, name: str) -> ModuleType:
        """Run a module's text, with the mistake in it if it is there, as a module of its own."""
        assert self._mistake is not None
        path = _path(name)
        own = name == self._mistake.module
        text = self._mistake.source() if own else path.read_text("utf-8")
        file = f"<{self._name}: {name}.py>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        importlib.import_module(f"{PACKAGE}.{name}")  # dataclasses look it up by its name
        module = ModuleType(f"{PACKAGE}.{name}")
        vars(module)["__file__"] = str(path)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        exec(compile(_NotRegistered().visit(ast.parse(text)), file, "exec"), vars(module))
        return module

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, names: Any = (), level: int = 0
    ) -> Any:
        """Import as Python does, but what is of the package from this program."""
        if not names or name.partition(".")[0] != PACKAGE:
            return builtins.__import__(name, globals, locals, names, level)
        inner = name.removeprefix(PACKAGE).lstrip(".")
        if inner and _path(inner).is_file():
            return self.module(inner)
        folder = importlib.import_module(name)
        found = {each: f"{inner}.{each}".lstrip(".") for each in names}
        return SimpleNamespace(
            **{
                each: self.module(path) if _path(path).is_file() else getattr(folder, each)
                for each, path in found.items()
            }
        )

    def __repr__(self) -> str:
        """What it is called, and nothing of what is wrong with it."""
        return f"<{self._name}>"


class _NotRegistered(ast.NodeTransformer):
    """Leaves out what would make Keras load models with a sick class from now on."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Take away the decorator that registers a class."""
        kept = [d for d in node.decorator_list if "register_keras" not in ast.unparse(d)]
        node.decorator_list = kept
        return node


def _path(name: str) -> Path:
    return FOLDER.joinpath(*name.split(".")).with_suffix(".py")


@functools.cache
def _imports(name: str) -> frozenset[str]:
    """The modules of the package that a module imports, anywhere in it."""
    tree, found = ast.parse(_path(name).read_text("utf-8")), set()
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only and node.module:
            words = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            inside = [word.removeprefix(f"{PACKAGE}.") for word in words if word != PACKAGE]
            found |= {word for word in inside if _path(word).is_file()}
    return frozenset(found)


@functools.cache
def _builds_on(name: str) -> frozenset[str]:
    """A module and all that it imports, directly or not."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imports(module)
    return frozenset(seen)


@dataclasses.dataclass(frozen=True)
class Patient:
    """A program in which one line is wrong, and all that is said of it."""

    name: str  # of the mistake, in published_mistakes
    level: str  # one of LEVELS
    parts: tuple[str, ...]  # the definitions among which to look, "q_sample" or "Class.method"
    symptom: str  # the picture that its owner brings, in classroom/figures/bug_hunt.py
    complaint: str  # what its owner says
    #: Instruments that ring, with their knobs; none in the first place where it takes knobs.
    seen_by: tuple[tuple[str, Mapping[str, Any]], ...]
    hints: tuple[str, ...]  # each says more than the one before, and none the line
    cure: str  # what is right, and why
    published: str  # where, in general terms
    tempting: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # innocent lines, defended

    @property
    def mistake(self) -> Mistake:
        """What is wrong. Raises KeyError if the list has no such mistake."""
        return named(self.name)

    @functools.cached_property
    def lines(self) -> list[str]:
        """What is shown of the program, without docstrings, which say how it should be."""
        return listing(self.mistake.source(), self.parts)

    @functools.cached_property
    def healthy_lines(self) -> list[str]:
        """The same as it should be."""
        return listing(self.mistake.path.read_text("utf-8"), self.parts)

    @property
    def wrong_lines(self) -> set[int]:
        """The numbers, from 1, of the lines that are not as they should be."""
        both = difflib.SequenceMatcher(None, self.healthy_lines, self.lines, autojunk=False)
        changes = [change for change in both.get_opcodes() if change[0] != "equal"]
        return {
            line + 1 for *_, first, last in changes for line in range(first, max(last, first + 1))
        }

    @property
    def changed(self) -> list[str]:
        """What the cure changes: lines that go begin with −, lines that come with +."""
        diff = difflib.ndiff(self.lines, self.healthy_lines)
        return [line for line in diff if line[0] in "+-"]


def listing(source: str, parts: Sequence[str]) -> list[str]:
    """Cut definitions out of a module's text, in its order, without their docstrings.

    Args:
        source: the text.
        parts: names of functions, "Class.method" for one within a class.

    Raises ValueError naming a part that is not there.
    """
    tree, text, found = ast.parse(source), source.splitlines(), {}
    for part in parts:
        node: Any = tree
        for word in part.split("."):
            inner = [n for n in node.body if getattr(n, "name", None) == word]
            if not inner:
                raise ValueError(f"parts: the module defines no {part}. Name one that it does.")
            (node,) = inner
        lines = text[node.lineno - 1 : node.end_lineno]
        if ast.get_docstring(node):
            told = node.body[0]
            del lines[told.lineno - node.lineno : told.end_lineno - node.lineno + 1]
        found[node.lineno] = textwrap.dedent("\n".join(lines)).splitlines()
    joined: list[str] = []
    for _, lines in sorted(found.items()):
        joined += [*([""] if joined else []), *lines]
    return joined
