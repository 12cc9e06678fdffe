"""The benchmarks are run by hand: they find what they import, and their page is right."""

import ast
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
README = (FOLDER / "README.md").read_text("utf-8")
PARTS = {"contestants", "machine", "recipes_keras", "recipes_torch", "results"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_finds_what_it_takes_from_the_package(path):
    taken = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("diffusion_walkthrough")
        for alias in node.names
    ]
    missing = [(a, b) for a, b in taken if not hasattr(importlib.import_module(a), b)]
    assert missing == []


def test_the_page_names_every_script():
    assert {path.stem for path in SCRIPTS} == PARTS | {
        line.split("`")[1].removesuffix(".py") for line in README.splitlines() if line[:3] == "| `"
    }


def test_the_runs_in_16_bits_are_those_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    precision = importlib.import_module("precision")
    runs = json.loads((FOLDER / "precision.json").read_text("utf-8"))
    rows = precision.table(runs).splitlines()[2:]
    assert len(rows) == 6
    assert [row for row in rows if row not in README] == []
    sys.modules.pop("precision")


def test_the_times_to_quality_are_those_of_the_page():
    """How many runs and parameters, and precision and recall at the end of each recipe's minute."""
    results = json.loads((FOLDER / "time_to_quality.json").read_text("utf-8"))
    for recipe in {result["recipe"] for result in results}:
        runs = [result for result in results if result["recipe"] == recipe]
        precision, recall = np.median([run["looks"][-1][2:] for run in runs], axis=0)
        size = f" {len(runs)} | {runs[0]['parameters']:,} "
        end = f" {precision:.2f} / {recall:.2f} |"
        assert any(size in row and row.endswith(end) for row in README.splitlines()), recipe
