"""The plan of the house: what is imported late, and what belongs to a chapter.

Who may import whom stands in pyproject.toml, and `make check` looks (import-linter).
"""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from diffusion_walkthrough.classroom.exercises import verdicts

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffusion_walkthrough"
NAME = PACKAGE.name
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

# In the contract for later chapters, or not worth a place in the picture.
NOT_DRAWN = {"__main__"}
# What may not be imported with the module, only inside a function that needs it.
NOT_AT_THE_TOP = {
    "__init__": {"numpy", "keras", "scipy", "tensorflow"},
    "parameters": {"numpy", "keras", "scipy", "tensorflow"},
    "checks": {"numpy", "keras", "scipy", "tensorflow"},
    "files/plain_data": {"numpy", "keras", "scipy", "tensorflow"},
    "files/records": {"numpy", "keras", "scipy", "tensorflow"},
    "files/writing": {"numpy", "keras", "scipy", "tensorflow", "psutil"},
    "command_line/__init__": {"numpy", "keras", "scipy", "tensorflow"},
    "command_line/words": {"numpy", "keras", "scipy", "tensorflow"},
    "command_line/checking": {"keras", "scipy", "tensorflow", "sklearn", "PIL"},
    "command_line/places": {"keras", "scipy", "tensorflow"},
    "command_line/watching": {"keras", "scipy", "tensorflow", "matplotlib"},
    "command_line/commands": {"keras", "scipy", "tensorflow", "matplotlib"},
    "noise_schedule": {"keras", "scipy", "tensorflow"},
    "gaussian_mixture": {"keras", "tensorflow"},
    "data": {"keras", "tensorflow", "sklearn", "PIL"},
}
BACKENDS = {"tensorflow", "jax", "torch"}
# The first notebook tells the whole story and teaches no module of its own.
WITHOUT_A_MODULE = {"start_here"}
LONGEST_FUNCTION = 45


def trees(folder=PACKAGE):
    return {path: ast.parse(path.read_text("utf-8")) for path in sorted(folder.rglob("*.py"))}


def imports(tree, nodes=None):
    """Dotted names of what a tree imports: ``from a import b`` gives both a and a.b."""
    for node in nodes or ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the module's whole name"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_the_top(node):
    """The nodes that run when the module is imported: not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_the_top(child)


def test_the_walk_sees_the_imports():
    tree = ast.parse(
        "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import typed\n"
        "try:\n    import tried\nexcept ImportError:\n    pass\n"
        "class K:\n    import inside\n    def f(self):\n        from lazy import z\n"
    )
    everything = {"a.b", "c", "c.d", "typed", "tried", "inside", "lazy", "lazy.z"}
    assert set(imports(tree)) == everything
    top = set(imports(tree, list(at_the_top(tree))))
    assert top == everything - {"lazy", "lazy.z", "typed"}
    assert len(trees()) > 10


def floors():
    """The contract's floors from the top: the names of the modules and wings that stand on each."""
    (contract, *_) = PYPROJECT["tool"]["importlinter"]["contracts"]
    return [[name.strip(" ()") for name in f.split("|")] for f in contract["layers"]]


def test_the_picture_of_the_house_shows_the_contract():
    """Every module that is there stands in the picture, and every arrow points down."""
    picture = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("```mermaid")[2]
    shown = set(re.findall(r'^ +(\w+)\["', picture, re.MULTILINE))
    level = {name: i for i, floor in enumerate(floors()) for name in floor}
    assert set(level) - NOT_DRAWN == shown
    arrows = re.findall(r"^ +(\w+) --> (\w+)$", picture, re.MULTILINE)
    assert [f"{a} --> {b}" for a, b in arrows if level[a] >= level[b]] == []
    assert {name for arrow in arrows for name in arrow} == shown


@pytest.mark.parametrize("module", sorted(NOT_AT_THE_TOP))
def test_light_modules_import_nothing_heavy_at_the_top(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    heavy = {name.split(".")[0] for name in imports(tree, list(at_the_top(tree)))}
    assert not heavy & NOT_AT_THE_TOP[module]


def test_a_backend_is_imported_only_inside_the_function_that_needs_it():
    for path, tree in trees().items():
        top = {name.split(".")[0] for name in imports(tree, list(at_the_top(tree)))}
        assert not top & BACKENDS, path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("parameters", {"numpy", "keras", "scipy"}),
        ("noise_schedule", {"keras", "scipy", "tensorflow"}),
    ],
)
def test_light_modules_load_nothing_heavy(module, absent):
    """In a fresh interpreter: what they import must not import it either."""
    code = f"import sys, {NAME}.{module}; print(*sorted(set(sys.modules) & {absent!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_functions_of_the_package_can_be_read_in_one_look():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def chapters():
    """Names of the chapters that have a notebook: notebooks/NN_name.ipynb.

    A second page of a chapter, notebooks/NNb_name.ipynb, has no module of its own.
    """
    names = [path.stem.partition("_") for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    assert all(re.fullmatch(r"\d\d[b-z]?", number) for number, _, _ in names)
    firsts = {number for number, _, _ in names if number.isdigit()}
    assert {number[:2] for number, _, _ in names} == firsts
    return [name for n, _, name in names if n in firsts and name not in WITHOUT_A_MODULE]


@pytest.mark.parametrize("chapter", chapters())
def test_a_chapter_has_its_module_its_classroom_and_its_tests(chapter):
    wanted = [
        f"diffusion_walkthrough/{chapter}.py",
        f"diffusion_walkthrough/classroom/figures/{chapter}.py",
        f"diffusion_walkthrough/classroom/exercises/{chapter}.py",
        f"tests/test_{chapter}.py",
        f"tests/classroom/test_{chapter}_figures.py",
        f"tests/classroom/test_{chapter}_exercises.py",
    ]
    missing = [path for path in wanted if not (ROOT / path).is_file()]
    assert missing == []


MODULES = sorted(
    path.stem
    for path in PACKAGE.rglob("*.py")
    if path.parent.name not in {"classroom", "figures", "exercises"} and path.stem[0] != "_"
)
EXERCISES = [
    path
    for path in sorted(PACKAGE.glob("classroom/exercises/*.py"))
    if path.stem not in {"__init__", "verdicts"}
]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_test_file(module):
    assert list((ROOT / "tests").rglob(f"test_{module}.py"))


@pytest.mark.parametrize("check_file", EXERCISES, ids=lambda path: path.stem)
def test_every_check_has_a_solution_of_its_name(check_file):
    names = {
        name
        for node in ast.parse(check_file.read_text("utf-8")).body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            else [getattr(target, "id", "") for target in getattr(node, "targets", [])]
        )
    }
    checks = {name.removeprefix("check_") for name in names if name.startswith("check_")}
    solutions = {name.removeprefix("solution_") for name in names if name.startswith("solution_")}
    assert len(checks) >= 3
    assert checks == solutions


@pytest.mark.parametrize("check_file", EXERCISES, ids=lambda path: path.stem)
def test_the_solutions_are_shown_by_the_chapters_own_name(check_file):
    """Notebooks say ``ask.show_solution(…)``, where ``ask`` is the chapter's module."""
    module = importlib.import_module(f"diffusion_walkthrough.classroom.exercises.{check_file.stem}")
    assert module.show_solution is verdicts.show_solution
