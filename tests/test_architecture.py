"""The plan of the house: who may import whom, and what belongs to a chapter."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_walkthrough.classroom.exercises import verdicts

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffusion_walkthrough"
NAME = PACKAGE.name

# A module imports only from floors below its own ...
FLOORS = [
    {"__init__"},
    {"parameters", "safe_pickle", "noise_schedule", "data", "gaussian_mixture", "fused"},
    {"forward_diffusion", "unet", "replicas", "side_by_side", "precision"},
    {"loss", "backward_sampling", "resuming", "operations", "guarding", "compiled"},
    {"training", "machines", "planning"},
    {
        "evaluation",
        "scaling_up",
        "faster_sampling",
        "guidance",
        "flow_matching",
        "checkpoints",
        "published_weights",
        "bug_hunt",
    },
    {"classroom"},
    {"command_line"},
    {"__main__"},
]
# ... and from these neighbours: whoever imports, and what.
NEIGHBOURS = {
    ("parameters", "safe_pickle"),  # parameters may be stored in a pickle
    ("noise_schedule", "parameters"),  # a schedule is built from its parameters
    ("checkpoints", "published_weights"),  # one place for whoever looks for weights on disk
    ("planning", "machines"),  # a plan is made for a machine
    ("compiled", "backward_sampling"),  # many steps back in one call
    ("side_by_side", "replicas"),  # the cores are shared by the replicas of a process
    ("loss", "backward_sampling"),  # the variational bound compares the model's step back (Eq. 5)
}
# What may not be imported with the module, only inside a function that needs it.
NOT_AT_THE_TOP = {
    "__init__": {"numpy", "keras", "scipy", "tensorflow"},
    "parameters": {"numpy", "keras", "scipy", "tensorflow"},
    "safe_pickle": {"numpy", "keras", "scipy", "tensorflow"},
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


def dotted(path):
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name):
    """The part of a dotted name that has a floor: the module, or the whole of classroom."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


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


def own_imports(path, tree):
    """Dotted names of this package's modules that one of its modules imports, lazily or not."""
    known = {dotted(p) for p in PACKAGE.rglob("*.py")}
    return {name for name in imports(tree) if name in known} - {NAME, dotted(path)}


def floor_of(module):
    found = [i for i, floor in enumerate(FLOORS) if module in floor]
    assert len(found) == 1, f"{module} has no floor: give it one in FLOORS, and in the design"
    return found[0]


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


def test_every_module_has_a_floor():
    floors = {floor_of(room(dotted(path))) for path in trees()}
    assert floors == set(range(len(FLOORS)))


def test_modules_import_only_from_the_floors_below():
    wrong = []
    for path, tree in trees().items():
        importer = room(dotted(path))
        for name in own_imports(path, tree):
            imported = room(name)
            if importer == imported == "classroom" or (importer, imported) in NEIGHBOURS:
                continue
            if floor_of(imported) >= floor_of(importer):
                wrong.append(f"{dotted(path)} imports {name}")
    assert wrong == []


def test_neighbours_stand_on_one_floor_and_are_needed():
    used = {
        (room(dotted(path)), room(name))
        for path, tree in trees().items()
        for name in own_imports(path, tree)
    }
    assert used >= NEIGHBOURS
    assert all(floor_of(a) == floor_of(b) for a, b in NEIGHBOURS)


def test_there_are_no_circles():
    graph = {dotted(path): own_imports(path, tree) for path, tree in trees().items()}
    # A package's __init__ may gather its own parts; the parts are what must not form a circle.
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert graph == {}


def test_nothing_below_knows_the_classroom():
    knows = [
        dotted(path)
        for path, tree in trees().items()
        if room(dotted(path)) not in {"classroom", "command_line", "__main__"}
        and any(room(name) == "classroom" for name in own_imports(path, tree))
    ]
    assert knows == []


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


@pytest.mark.parametrize("folder", ["diffusion_walkthrough", "tests", "tools"])
def test_nobody_imports_everything_with_a_star(folder):
    stars = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in trees(ROOT / folder).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]
    assert stars == []


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
    """Names of the chapters that have a notebook: notebooks/NN_name.ipynb."""
    names = [path.stem.partition("_") for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    assert all(number.isdigit() and len(number) == 2 for number, _, _ in names)
    return [name for _, _, name in names if name not in WITHOUT_A_MODULE]


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


MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))
EXERCISES = [
    path
    for path in sorted(PACKAGE.glob("classroom/exercises/*.py"))
    if path.stem not in {"__init__", "verdicts"}
]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_test_file(module):
    assert (ROOT / "tests" / f"test_{module}.py").is_file()


@pytest.mark.parametrize("check_file", EXERCISES, ids=lambda path: path.stem)
def test_every_check_has_a_solution_of_its_name(check_file):
    names = {
        name
        for node in ast.parse(check_file.read_text("utf-8")).body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef)
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
