"""Execute the course's notebooks, and check that they keep the course's rules.

python tools/notebooks.py execute [--force] [PATH ...]   run top to bottom, in place
python tools/notebooks.py check [PATH ...]               one line per broken rule; exit 1 if any

Without a path, all of notebooks/. Executing skips a notebook whose code has not changed.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from notebook_rules import (
    STAMP_KEY,
    WIDGET_TYPE,
    Finding,
    Notebook,
    findings,
    numbered,
    rule_executed_in_order,
    rule_no_unexpected_errors,
    text_of,
)

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffusion_walkthrough"
NOTEBOOKS = ROOT / "notebooks"
CELL_TIMEOUT = 900  # seconds; the longest cell trains for 90 on two cores

# The same on every machine, whichever patch version of Python ran it.
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
# What editors leave in a cell's metadata and no reader needs.
PASSING_METADATA = {
    "ExecuteTime", "collapsed", "colab", "deletable", "editable", "execution", "id", "outputId",
    "scrolled", "trusted", "vscode",
}  # fmt: skip


# What reading a file that is no notebook can raise.
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError,
)  # fmt: skip


class NotebookError(Exception):
    """A notebook cannot be read or executed; the message says which, where, and what to do."""


def code_digest(content: dict[str, Any], package: Path = PACKAGE) -> str:
    """Digest of all that decides a notebook's outputs: package, shipped models, its code cells."""
    digest = hashlib.sha256()
    shipped = (path for path in (package / "pretrained").rglob("*") if path.is_file())
    for path in sorted({*package.rglob("*.py"), *shipped}):
        data = path.read_bytes()
        if path.suffix in {".py", ".json", ".txt", ".md"}:
            data = data.replace(b"\r\n", b"\n")  # a checkout on Windows is the same code
        name = path.relative_to(package).as_posix()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            digest.update(json.dumps(text_of(cell["source"])).encode())
    return digest.hexdigest()


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file, or a NotebookError that says why it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        keep_or_make_ids(content)
        return nbformat.reads(json.dumps(content), as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"{path}: no such notebook. Name a file in notebooks/.") from None
    except UNREADABLE as error:
        raise NotebookError(f"{path}: not a notebook of format 4 ({error}).") from None


def keep_or_make_ids(content: dict[str, Any]) -> None:
    """Give every cell without an id of its own one made from its position: a random id is noise."""
    content["nbformat_minor"] = max(5, content.get("nbformat_minor", 0))
    used: set[str] = set()
    for position, cell in enumerate(content["cells"], start=1):
        identifier = cell.get("id")
        if not identifier or identifier in used:
            identifier = f"cell-{position:02d}"
            while identifier in used:
                identifier += "-again"
        cell["id"] = identifier
        used.add(identifier)


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what differs from run to run: versions, timestamps, live widgets."""
    notebook = copy.deepcopy(notebook)
    kept = {STAMP_KEY: notebook.metadata[STAMP_KEY]} if STAMP_KEY in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO, **kept}
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key not in PASSING_METADATA}
        )
        for output in cell.get("outputs", []):
            lay_to_rest(output)
    return notebook


def lay_to_rest(output: nbformat.NotebookNode) -> None:
    """Leave of a widget what is true without a kernel: its sentence, its first picture, a mark.

    A stored slider moves, and nothing follows; where its state is missing, the page says "model
    not found".
    """
    if output.get("data", {}).pop(WIDGET_TYPE, None) is not None:
        output.metadata[STAMP_KEY] = {"widget": True}


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    nbformat.validate(notebook)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_up_to_date(notebook: nbformat.NotebookNode, name: str) -> bool:
    """Whether the outputs in a notebook are those that its present code gave."""
    checked = Notebook(name, notebook, code_digest(notebook))
    stamp = notebook.metadata.get(STAMP_KEY, {}).get("code")
    broken = [*rule_executed_in_order(checked), *rule_no_unexpected_errors(checked)]
    return stamp == checked.digest and not broken


def run_cells(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Run all cells in a fresh kernel beside the notebook; a NotebookError names a failing cell."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        place = Notebook(path.name, notebook, "")
        ran = [number for number, cell in numbered(place, "code") if cell.get("execution_count")]
        raise NotebookError(
            f"{path.name}, cell {max(ran, default=1)}: {reason_of(error)}."
            " The file is left as it was."
        ) from None
    shorten_paths(notebook)


def reason_of(error: Exception) -> str:
    """Why a cell stopped, in one line."""
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {error.evalue}"
    return str(error).strip().splitlines()[0]


def shorten_paths(notebook: nbformat.NotebookNode) -> None:
    """Name files in tracebacks from the top of the project: where it lies is nobody's business."""
    prefixes = [f"{ROOT}{os.sep}"]
    if ROOT.is_relative_to(Path.home()):
        prefixes.append(f"~{os.sep}{ROOT.relative_to(Path.home())}{os.sep}")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for prefix in prefixes if output.output_type == "error" else ():
                output.traceback = [line.replace(prefix, "") for line in output.traceback]


def execute(path: Path, force: bool = False) -> str:
    """Bring one notebook up to date, and say what was done."""
    notebook = read(path)
    before = path.read_text(encoding="utf-8")
    done = "up to date"
    if force or not is_up_to_date(notebook, path.name):
        start = time.perf_counter()
        digest = code_digest(notebook)
        run_cells(notebook, path)
        notebook.metadata[STAMP_KEY] = {"code": digest}
        done = f"executed in {time.perf_counter() - start:.0f} s"
    notebook = normalise(notebook)
    if nbformat.writes(notebook) + "\n" != before:
        write(notebook, path)
    return done


def check(path: Path) -> list[Finding]:
    """Every rule that one notebook breaks."""
    notebook = read(path)
    found = list(findings(Notebook(path.name, notebook, code_digest(notebook))))
    if nbformat.writes(normalise(notebook)) != nbformat.writes(notebook):
        rule = "metadata that an editor left (versions, timestamps, live widgets)"
        found.append(Finding(path.name, None, rule, "Run `make notebooks`, which tidies it"))
    return found


def command_execute(paths: list[Path], force: bool) -> int:
    """Execute notebooks one after the other; the exit status is 1 if any of them failed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    failures = 0
    for path in paths:
        print(f"{path.name} ...", flush=True)
        try:
            print(f"{path.name}: {execute(path, force)}", flush=True)
        except NotebookError as error:
            failures += 1
            print(error, file=sys.stderr, flush=True)
    return min(failures, 1)


def command_check(paths: list[Path]) -> int:
    """Print every broken rule; the exit status is 1 if there is any."""
    count = 0
    for path in paths:
        try:
            lines = [str(finding) for finding in check(path)]
        except NotebookError as error:
            lines = [str(error)]
        count += len(lines)
        print("\n".join(lines), end="\n" if lines else "")
    print(f"{len(paths)} notebooks checked, {count} findings.")
    return min(count, 1)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("execute", "check"):
        command = commands.add_parser(name)
        command.add_argument("paths", nargs="*", type=Path, help="default: all of notebooks/")
        if name == "execute":
            command.add_argument("--force", action="store_true", help="run unchanged ones too")
    chosen = parser.parse_args(arguments)
    paths = [path.resolve() for path in chosen.paths] or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        print(f"No notebooks in {NOTEBOOKS.name}/: nothing to {chosen.command}.", file=sys.stderr)
        return 1
    if chosen.command == "execute":
        return command_execute(paths, chosen.force)
    return command_check(paths)


if __name__ == "__main__":
    sys.exit(main())
