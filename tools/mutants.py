"""The published mistakes, put into this package one at a time: do the tests notice?

``make mutants`` runs, for each row of ``published_mistakes``, the tests named in it in a process
of their own, in which the module is imported with the mistake in it; the files themselves stay as
they are. A mistake is caught if a test sees a wrong result (a crash does not count) that it does
not see without the mistake. Last line: ``N mutants, N caught``.

By hand: ``MUTANT=noise_at_the_last_step pytest tests/test_backward_sampling.py``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from diffusion_walkthrough.published_mistakes import FOLDER, MISTAKES, Mistake, named

ROOT = FOLDER.parent

#: The environment variable that switches a mistake on.
SWITCH = "MUTANT"
#: What a test says when it has seen a wrong result. Anything else is a crash, and proves nothing.
JUDGEMENTS = ("AssertionError", "assert ", "Failed: DID NOT RAISE")
#: Imported once, by the process that all others are forked from: none of it is this package.
IMPORTED_ONCE = ["tensorflow", "keras", "scipy.stats", "hypothesis", "pytest"]


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.ExecutionLoader):
    """Find one module, and load it with the mistake in it."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.mistake.fullname:
            return None
        return importlib.util.spec_from_file_location(fullname, self.mistake.path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return str(self.mistake.path)

    def get_source(self, fullname: str) -> str:
        return self.mistake.source()


def switch_on(name: str) -> None:
    """Put in the mistake of this name. Raises KeyError for an unknown one."""
    put_in(named(name))


def put_in(mistake: Mistake) -> None:
    """Let its module be imported with this mistake in it, from now on.

    Raises RuntimeError if the module has been imported already.
    """
    if mistake.fullname in sys.modules:
        raise RuntimeError(f"{mistake.module} is imported already: too late for {mistake.name}")
    sys.meta_path.insert(0, _Importer(mistake))


class Verdict(NamedTuple):
    """What the tests said: the first that failed and its message, or why there is none."""

    passed: bool
    failed_test: str
    said: str
    seconds: float


class _Listener:
    """Hears of the first test that fails."""

    failed_test = said = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed_test:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failed_test, self.said = report.nodeid, crash.message if crash else ""


def run_tests(tests: Sequence[str], switch: str = "") -> Verdict:
    """Run tests up to the first that fails, with a mistake switched on or, by default, none.

    For a process of its own: afterwards the package is imported, with or without a mistake.
    """
    os.environ[SWITCH] = switch
    os.chdir(ROOT)
    start, listener, screen = time.monotonic(), _Listener(), io.StringIO()
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        code = pytest.main(["-xq", "-p", "no:cacheprovider", *tests], plugins=[listener])
    said = listener.said or f"pytest ended with {code!r}: {screen.getvalue()[-900:]}"
    return Verdict(code == 0, listener.failed_test, said, time.monotonic() - start)


def is_caught(mistake: Mistake, verdict: Verdict) -> bool:
    """Whether a test has seen a wrong result, or the crash that belongs to the mistake."""
    return bool(verdict.failed_test) and (mistake.crashes or verdict.said.startswith(JUDGEMENTS))


def judges_of(mistake: Mistake) -> list[str]:
    """Its tests, as pytest is asked for them from the root of the project."""
    return [f"tests/{test}" for test in mistake.tests]


def files_of(mistake: Mistake) -> set[Path]:
    """The files that decide whether it is caught."""
    return {mistake.path, *(ROOT / judge.partition("::")[0] for judge in judges_of(mistake))}


def changed() -> list[Mistake]:
    """Mistakes whose module or tests differ from origin/main, or if nothing does, from HEAD~1."""
    for commit in ("origin/main", "HEAD~1"):
        command = ["git", "diff", "--name-only", commit]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if files := {ROOT / name for name in run.stdout.splitlines()}:
            return [mistake for mistake in MISTAKES if files & files_of(mistake)]
    raise SystemExit("--changed: no older commit is here to compare with; fetch the history.")


def examine(mistakes: Sequence[Mistake], workers: int) -> int:
    """Print the verdict on each; return how many are caught by tests that pass without them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    judges, pool_of = [], concurrent.futures.ProcessPoolExecutor
    with pool_of(workers, mp_context=context, max_tasks_per_child=1) as pool:
        running = [pool.submit(run_tests, judges_of(mistake), mistake.name) for mistake in mistakes]
        for mistake, verdict in zip(mistakes, (future.result() for future in running), strict=True):
            caught = is_caught(mistake, verdict)
            said = verdict.failed_test if caught else f"NOT CAUGHT: {verdict.said}"
            print(f"{mistake.name} ({verdict.seconds:.0f} s)\n    {said}", flush=True)
            judges += [verdict.failed_test] if caught else []
        if not judges:
            return 0
        right = pool.submit(run_tests, sorted(set(judges))).result()
    print(f"The same tests without any mistake: {'all pass' if right.passed else right}")
    return len(judges) if right.passed else 0


def main() -> int:
    """Examine every mutant, or those named or changed; return 0 if all are caught."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="mutants to examine (all if none is named)")
    parser.add_argument("--changed", action="store_true", help="those whose module has changed")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    chosen = [named(name) for name in arguments.names]
    chosen = chosen or (changed() if arguments.changed else list(MISTAKES))
    caught = examine(chosen, arguments.workers)
    print(f"{len(chosen)} mutants, {caught} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
