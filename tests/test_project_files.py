"""pyproject.toml, environment.yml and requirements.lock say the same, and name no private place."""

import re
import subprocess
import tomllib
from pathlib import Path

import conftest
import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
DEPENDENCIES = PYPROJECT["project"]["dependencies"]
LAB = PYPROJECT["project"]["optional-dependencies"]["lab"]
LOCKED_GROUPS = ("test", "check", "browser")
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = (("linux", "Linux", "posix"), ("win32", "Windows", "nt"), ("darwin", "Darwin", "posix"))

# Written in two halves, so that this file does not find itself.
PRIVATE = re.compile(
    "|".join(
        first + second
        for first, second in [
            (r"(?<![\w.])/wo", "rk/"),
            (r"(?<![\w.])/r", "oot/"),
            (r"(?<![\w.])/home/(?!some", r"one)\w"),
            (r"(?<![\w.])/opt/(py", "pi|wheels)"),
            ("python", r"hosted\.org"),
            (r"pypi\.", "org"),
            (r"npmjs\.", "(org|com)"),
            (r"deb\.deb", r"ian\.org"),
            (r"download\.py", r"torch\.org"),
            (r"--(extra-)?index", "-url[ =]"),
        ]
    )
)


def lock_entries():
    """Each locked package as (requirement, its hashes), read as pip reads them."""
    entries = []
    for line in re.sub(r"\\\n\s*", "", LOCK).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line)
            entries.append((Requirement(requirement), hashes))
    return entries


ENTRIES = lock_entries()


def places():
    """The environments that the lock is for."""
    for python in PYTHONS:
        for sys_platform, platform_system, os_name in SYSTEMS:
            yield {
                "python_version": python,
                "python_full_version": f"{python}.7",
                "sys_platform": sys_platform,
                "platform_system": platform_system,
                "os_name": os_name,
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }


def locked_version(name, place):
    """The one version of a package that the lock installs in one environment."""
    versions = [
        next(iter(requirement.specifier)).version
        for requirement, _ in ENTRIES
        if canonicalize_name(requirement.name) == canonicalize_name(name)
        and (requirement.marker is None or Marker(str(requirement.marker)).evaluate(place))
    ]
    assert len(versions) == 1, f"{name}: the lock has {versions} for {place}; run `make lock`"
    return versions[0]


def wanted():
    """Every requirement that the lock has to hold."""
    groups = PYPROJECT["dependency-groups"]
    return [*DEPENDENCIES, *LAB, *(name for group in LOCKED_GROUPS for name in groups[group])]


def with_lab():
    """What is installed where JupyterLab opens the pages: its extra asks for more than the rest."""
    floors = {Requirement(text).name: text for text in [*DEPENDENCIES, *LAB]}
    return list(floors.values())


@pytest.mark.parametrize("text", wanted())
def test_the_lock_holds_each_requirement_in_each_environment(text):
    requirement = Requirement(text)
    for place in places():
        version = locked_version(requirement.name, place)
        assert requirement.specifier.contains(version), f"{text}, locked at {version}: `make lock`"


def test_the_lock_has_exact_versions_and_hashes_only():
    assert len(ENTRIES) > 100
    for requirement, hashes in ENTRIES:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert requirement.url is None
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes)


@pytest.mark.parametrize("unwanted", ["://", "--index", "--extra-index", "--find-links", " @ "])
def test_the_lock_names_no_address(unwanted):
    assert unwanted not in LOCK


@pytest.mark.parametrize("unwanted", ["tensorflow-cpu", "torch", "jax", "diffusers"])
def test_what_the_lock_leaves_out(unwanted):
    assert unwanted not in {canonicalize_name(requirement.name) for requirement, _ in ENTRIES}


def test_conda_installs_the_same():
    conda = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    (by_pip,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    assert sorted(by_pip) == sorted([*with_lab(), "-e ."])
    python = next(entry for entry in conda if entry.startswith("python"))
    needed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert SpecifierSet(python.removeprefix("python")) == needed
    assert "pip" in conda


def test_the_pythons_named_are_the_pythons_allowed():
    needed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in needed] == list(PYTHONS)
    classifiers = PYPROJECT["project"]["classifiers"]
    named = [entry.split(" :: ")[-1] for entry in classifiers if ":: Python :: 3." in entry]
    assert named == list(PYTHONS)


COLAB = {"ipywidgets": "7.7.1", "ipykernel": "6.17.1"}


def test_what_colab_has_is_not_replaced():
    needed = {Requirement(text).name: Requirement(text).specifier for text in DEPENDENCIES}
    assert all(needed[name].contains(version) for name, version in COLAB.items())
    assert "jupyterlab" not in needed


def commands_of_the_readme():
    """The lines that a reader copies: indented by four, or between back quotes."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)^ {4}(\S.*)$", text)
    return [*blocks, *re.findall(r"`([^`\n]+)`", text)]


PLACEHOLDER = re.compile(r"\b[A-Z]{2,}_[A-Z_]{2,}\b(?!=)|<[a-z][a-z -]*>|\bYOUR[-_A-Z]*\b|://")


def test_no_command_of_the_readme_holds_a_placeholder_or_an_address():
    commands = commands_of_the_readme()
    assert any(command.startswith("make lab") for command in commands)
    known = {"KERAS_BACKEND=torch", "TF_NUM_INTRAOP_THREADS"}
    assert [c for c in commands if PLACEHOLDER.search(c) and c not in known] == []


@pytest.mark.parametrize(
    "text", ["git clone THIS_REPOSITORY x", "pip install <path to it>", "cd YOUR-FOLDER"]
)
def test_placeholders_would_be_found(text):
    assert PLACEHOLDER.search(text)


def test_the_readme_installs_jupyterlab_wherever_it_opens_it():
    commands = commands_of_the_readme()
    by_hand = [command for command in commands if command.startswith("pip install -e")]
    assert by_hand == ['pip install -e ".[lab]"']


def tracked_files():
    """The text of every file that git tracks, without the pictures inside notebooks."""
    command = ["git", "ls-files", "-z"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, result.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield name, path.read_bytes().decode("utf-8", errors="ignore")


def test_no_tracked_file_names_a_place_on_one_machine_or_a_registry():
    found = []
    for name, text in tracked_files():
        text = re.sub(r"[A-Za-z0-9+/=]{60,}", "", text)  # pictures, as base64
        found += [f"{name}: {match.group()!r}" for match in PRIVATE.finditer(text)]
        if len(str(ROOT)) > 5 and str(ROOT) in text:
            found.append(f"{name}: {str(ROOT)!r}")
    assert not found


@pytest.mark.parametrize(
    "text",
    ["in /wo" + "rk/main/a", "'/r" + "oot/x'", "https://pypi" + ".org/simple", "/home/" + "me/x"],
)
def test_private_places_would_be_found(text):
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", ["net/work/x", "a/root/b", "https://example.org", "/home/someone"])
def test_other_words_are_not_private_places(text):
    assert not PRIVATE.search(text)


def test_uv_lock_is_not_tracked():
    assert "uv.lock" not in {name for name, _ in tracked_files()}


def test_the_slowest_files_are_there():
    there = {path.name for folder in ("notebooks", "tests") for path in (ROOT / folder).rglob("*")}
    assert [name for name in conftest.SLOWEST_FIRST if name not in there] == []
