"""Give the reader notebooks of their own: study/, copied from notebooks/ without outputs.

python tools/study.py           copy what study/ does not hold yet; never overwrite
python tools/study.py --fresh   put study/ aside, whole, and copy everything anew

What a reader writes into study/ stays theirs: git ignores the folder, and no answer stands below
its question before the cell has run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
KEY = "diffusion_walkthrough"


def without_answers(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook before anybody ran it, with a mark that says what it was copied from."""
    copied = nbformat.from_dict(notebook)
    for cell in copied.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copied.metadata.pop("widgets", None)
    copied.metadata[KEY] = {"copied": version_of(notebook)}
    return copied


def version_of(notebook: nbformat.NotebookNode) -> str:
    """A digest of what is written in a notebook, whatever its cells have put out."""
    sources = "\0".join(f"{cell.cell_type} {cell.source}" for cell in notebook.cells)
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def copy_new(notebooks: Path, study: Path) -> tuple[list[str], list[str]]:
    """Copy what is missing in ``study``.

    Returns:
        The names copied now, and those whose copy is of another version than the notebook.
    """
    study.mkdir(exist_ok=True)
    new, older = [], []
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        target = study / path.name
        if not target.exists():
            write(without_answers(notebook), target)
            new.append(path.name)
        elif copied_from(target) != version_of(notebook):
            older.append(path.name)
    return new, older


def copied_from(path: Path) -> str | None:
    """The version that a copy was made from; None if it does not say or cannot be read."""
    try:
        return nbformat.read(path, as_version=4).metadata.get(KEY, {}).get("copied")
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return None


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_aside(study: Path) -> Path:
    """Rename ``study`` to the first free of study.old-1, study.old-2, …; nothing is lost."""
    number = 1
    while (kept := study.with_name(f"{study.name}.old-{number}")).exists():
        number += 1
    study.rename(kept)
    return kept


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fresh", action="store_true", help="put study/ aside and begin anew")
    study = ROOT / "study"
    if parser.parse_args(arguments).fresh and study.exists():
        print(f"What you had is in {put_aside(study).name}/.")
    new, older = copy_new(ROOT / "notebooks", study)
    if new:
        print(f"Copied into {study.name}/, yours to change: {', '.join(new)}.")
    if older:
        print(
            f"The course has changed since you copied {', '.join(older)}. Your copies are left as "
            "they are; `make study FRESH=1` puts them aside and copies all anew."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
