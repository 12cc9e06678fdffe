"""Do a small day's work in environments that are not like the developer's.

python tools/odd_environments.py            in all of them; exit status 1 if one is at fault
python tools/odd_environments.py ascii      in those that are named

In each: write parameters, train a short run, draw, measure, start a page as a notebook does, in one
process, with files in a folder whose name has a space and an accent. Nothing may be lost, nothing
may be written where it does not belong, and every error is a sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "diffusion_walkthrough"
SECONDS = 400

#: What is done: lines of words, each with the exit code that it should have.
WORK = """
import json, sys
from diffusion_walkthrough.command_line import main
for words, code in json.loads(sys.argv[1]):
    found = main(words)
    assert found == code, f"{words} ended with {found}"
from diffusion_walkthrough.classroom import start
start()
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom.plots import new_figure, to_png
assert load_model("digits").sample(2, seed=0).shape == (2, 8, 8, 1)
assert to_png(new_figure()[0])[:4] == b"\\x89PNG"
print("all done")
"""

#: Refuses every socket that Python code makes.
NO_SOCKETS = """
import socket
def refuse(*_, **__):
    raise PermissionError("sockets are blocked here")
socket.socket.__init__ = socket.getaddrinfo = refuse
"""

#: Ends a process that asks for more memory than 4 GB.
LITTLE_MEMORY = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
"""

Options = dict[str, Any]


def ascii_only(folder: Path) -> Options:
    """Output that knows 128 letters, in the locale of a bare machine."""
    return {"env": {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}}


def spaces_and_accents(folder: Path) -> Options:
    """The package itself in a folder with spaces and accents."""
    return {"package": copied_package(folder / "Mein Kurs für Übermorgen")}


def no_home(folder: Path) -> Options:
    """No home directory: it is named, and cannot be made."""
    return {"env": {"HOME": os.devnull + "/nobody"}}


def read_only(folder: Path) -> Options:
    """The package where nothing can be written, as an administrator installs it."""
    package = copied_package(folder / "site-packages")
    for path in [package, *package.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return {"package": package, "prefix": without_the_powers_of_root()}


def no_network(folder: Path) -> Options:
    """No sockets at all; data that would have to be downloaded are an error in a sentence."""
    line = ["train", "--parameters", "mnist", "--folder", "mnist"]
    return {"before": NO_SOCKETS, "more": [(line, 1)], "env": {"KERAS_HOME": str(folder / "keras")}}


def four_gigabytes(folder: Path) -> Options:
    """No more than 4 GB of memory, reserved or used."""
    return {"before": LITTLE_MEMORY}


ENVIRONMENTS: dict[str, Callable[[Path], Options]] = {
    "ascii": ascii_only,
    "spaces": spaces_and_accents,
    "nohome": no_home,
    "readonly": read_only,
    "nonetwork": no_network,
    "memory": four_gigabytes,
}


def copied_package(place: Path) -> Path:
    """The package as it is installed, in another place."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / PACKAGE, place / PACKAGE, ignore=ignored)
    return place


def without_the_powers_of_root() -> list[str]:
    """What to put before a program so that root, too, minds what may be written."""
    if not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("setpriv"):
        return []
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]


def lines(folder: Path) -> list[tuple[list[str], int]]:
    """A day's work, and what is wrong on purpose."""
    params, run = str(folder / "Größe.json"), str(folder / "ein Lauf é")
    changes = ["--set", "decay_steps=12", "--set", "warmup_steps=2"]
    model = ["--model", run, "-n", "6"]
    return [
        (["params", "--parameters", "digits", *changes, "--out", params], 0),
        (["train", "--parameters", params, "--folder", run], 0),
        (["train", "--parameters", params, "--folder", run], 0),
        (["sample", *model, "--out", str(folder / "gezogen ü.png")], 0),
        (["sample", *model, "--out", str(folder / "gezogen ü.npz"), "--json"], 0),
        (["evaluate", *model], 0),
        (["train", "--parameters", str(folder / "fehlt ß.json"), "--folder", run], 2),
        (["sample", *model, "--out", str(folder / "gezogen ü.png")], 2),
    ]


EXPECTED = {
    *("Größe.json", "gezogen ü.png", "gezogen ü.npz", "ein Lauf é/model/parameters.json"),
    *("ein Lauf é/history.csv", "ein Lauf é/pictures/epoch-000001.png"),
}


def faults(name: str, work: Callable[[Path], list[tuple[list[str], int]]] = lines) -> list[str]:
    """What goes wrong in one environment; nothing, if all is well."""
    with tempfile.TemporaryDirectory(prefix="odd-") as temporary:
        folder = Path(temporary) / "Arbeit àéü"
        folder.mkdir()
        options = ENVIRONMENTS[name](Path(temporary))
        package = options.get("package", ROOT)
        before = names_in(package / PACKAGE)
        try:
            done = run(options, package, folder, [*work(folder), *options.get("more", [])])
        except subprocess.TimeoutExpired:
            return [f"did not end within {SECONDS} seconds"]
        finally:
            make_removable(Path(temporary))
        found = []
        if done.returncode or "all done" not in done.stdout:
            found.append(f"ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
        if "Traceback" in done.stderr:
            found.append(f"a traceback: {done.stderr[-600:]}")
        if "absl::" in done.stderr:
            found.append(f"lines that libraries log: {done.stderr[:600]}")
        if work is lines:
            found += [f"{path} is missing" for path in EXPECTED if not (folder / path).is_file()]
        written = names_in(package / PACKAGE) - before
        found += [f"{path} was written into the package" for path in sorted(written)]
    return found


def run(
    options: Options, package: Path, folder: Path, work: list[tuple[list[str], int]]
) -> subprocess.CompletedProcess[str]:
    """Do the work in a process of its own, in an environment of its own."""
    env = {**os.environ, "PYTHONPATH": str(package), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env |= options.get("env", {})
    code = options.get("before", "") + WORK
    command = [*options.get("prefix", []), sys.executable, "-c", code, json.dumps(work)]
    return subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=SECONDS,
        check=False,
    )


def names_in(package: Path) -> set[str]:
    """The files of a package, without those that Python keeps compiled."""
    paths = (path for path in package.rglob("*") if "__pycache__" not in path.parts)
    return {str(path.relative_to(package)) for path in paths}


def make_removable(folder: Path) -> None:
    """Let the folders be written again, so that they can be removed."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = ", ".join(ENVIRONMENTS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {known} (all)")
    names = parser.parse_args(arguments).names or list(ENVIRONMENTS)
    if unknown := set(names) - set(ENVIRONMENTS):
        parser.error(f"{', '.join(sorted(unknown))}: the environments are {known}")
    count = 0
    for name in names:
        about = (ENVIRONMENTS[name].__doc__ or "").splitlines()[0]
        found = faults(name)
        count += bool(found)
        print(f"{name}: {about} {'; '.join(found) or 'All is well.'}", flush=True)
    print(f"{len(names)} environments, {count} at fault")
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main())
