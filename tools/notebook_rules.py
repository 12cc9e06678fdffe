"""The rules that every notebook of the course keeps, each a small function that yields findings.

`tools/notebooks.py check` applies them; tests/test_notebook_rules.py breaks each one on purpose.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt

MAX_LINES = 15  # a longer cell belongs in the package
EXCLUDED_SHARE = 5  # at most one code cell in this many is left out of the comparison
IMAGE_TYPES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"
STAMP_KEY = "diffusion_walkthrough"

#: How every page begins: also where it was uploaded alone, and nothing is installed.
PAGE_NAME = re.compile(r"\d\d[a-z]?_\w+\.ipynb")
FIRST_CELL = """
try:
    from diffusion_walkthrough.classroom import start
except ModuleNotFoundError:  # not installed in this Python
    from pathlib import Path

    if not all(Path("..", part).exists() for part in ("pyproject.toml", "diffusion_walkthrough")):
        raise ModuleNotFoundError(
            "This page is alone: make the file diffusion_walkthrough.zip as the course's README "
            "says, upload it beside this page, run %pip install ./diffusion_walkthrough.zip in a "
            "cell of its own, and then run this cell again."
        ) from None
    %pip install --quiet ..
    from diffusion_walkthrough.classroom import start
start()
""".strip()

# What nbval does not compare: the tags, and the comments that mean the same.
IGNORED_TAGS = {"nbval-ignore-output", "nbval-skip"}
NBVAL_COMMENT = re.compile(r"^\s*#\s*NBVAL_(IGNORE_OUTPUT|SKIP)\b", re.MULTILINE)

# What differs from run to run or from machine to machine, and what a reader would call it.
UNSTABLE = {
    "a duration": re.compile(
        r"(?<![\w.])\d+(\.\d+)?\s?(ns|us|µs|ms|s|sec|secs|seconds?|minutes?|hours?)(?![\w'])"
    ),
    "a speed": re.compile(
        r"(?<![A-Za-z])(it|steps?|images?|samples?|epochs?)/s(ec)?\b|(?<![A-Za-z])(s|ms|us)/(step|it|epoch)\b"
    ),
    "a memory size": re.compile(r"(?<![\w.])\d+(\.\d+)?\s?[kMGT]i?B(?!\w)"),
    "an address in memory": re.compile(r"\b0x[0-9a-fA-F]{6,}\b"),
    "an absolute path": re.compile(
        r"(?<![\w.:/])/(home|root|Users|tmp|var|opt|usr|work|content|private|mnt|srv)/|\b[A-Z]:\\\w"
    ),
    "a date or time of day": re.compile(r"\b(19|20)\d\d-\d\d-\d\d\b|\b\d{1,2}:\d\d:\d\d\b"),
}

Cell = dict[str, Any]
Output = dict[str, Any]


@dataclass(frozen=True)
class Notebook:
    """A notebook's name, its JSON content, and the digest that its code should have run with."""

    name: str
    content: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Finding:
    """One broken rule: where, which, what to do about it. Cells count from 1, prose included."""

    notebook: str
    cell: int | None
    rule: str
    remedy: str

    def __str__(self) -> str:
        """One line, as `tools/notebooks.py check` prints it."""
        place = self.notebook if self.cell is None else f"{self.notebook}, cell {self.cell}"
        return f"{place}: {self.rule}. {self.remedy}."


def text_of(value: str | list[str] | None) -> str:
    """The text of a notebook field, which may be one string or a list of lines."""
    return "".join(value) if isinstance(value, list) else value or ""


def numbered(notebook: Notebook, cell_type: str) -> Iterator[tuple[int, Cell]]:
    """The cells of one type, each with its position in the notebook from 1."""
    for number, cell in enumerate(notebook.content["cells"], start=1):
        if cell["cell_type"] == cell_type:
            yield number, cell


def tags_of(cell: Cell) -> set[str]:
    """The tags in a cell's metadata."""
    return set(cell["metadata"].get("tags", []))


def is_excluded(cell: Cell) -> bool:
    """Whether nbval is told not to compare this cell's outputs, by tag or by comment."""
    return bool(tags_of(cell) & IGNORED_TAGS) or bool(NBVAL_COMMENT.search(text_of(cell["source"])))


def visible_text(output: Output) -> str:
    """What nbval compares of an output: streams, text, HTML without its tags, error messages."""
    if output["output_type"] == "stream":
        return text_of(output["text"])
    if output["output_type"] == "error":
        return output["evalue"]
    page = text_of(output["data"].get("text/html"))
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL | re.IGNORECASE)
    page = html.unescape(re.sub(r"<[^>]*>", " ", page))
    return text_of(output["data"].get("text/plain")) + "\n" + page


def rule_executed_in_order(notebook: Notebook) -> Iterator[Finding]:
    """Every code cell has run, from top to bottom, once."""
    remedy = "Run `make notebooks`"
    for expected, (number, cell) in enumerate(numbered(notebook, "code"), start=1):
        if not text_of(cell["source"]).strip():
            yield Finding(notebook.name, number, "an empty code cell", "Delete it")
            return
        count = cell.get("execution_count")
        if count is None:
            yield Finding(notebook.name, number, "the cell was not executed", remedy)
        elif count != expected:
            rule = f"executed as number {count}, where top to bottom would be {expected}"
            yield Finding(notebook.name, number, rule, remedy)


def rule_committed_code(notebook: Notebook) -> Iterator[Finding]:
    """The outputs come from this notebook's code cells and this package, not from older ones."""
    stamp = notebook.content["metadata"].get(STAMP_KEY, {}).get("code")
    if stamp != notebook.digest:
        rule = "the outputs are not those of the present code"
        if stamp is None:
            rule = "it does not say which code its outputs come from"
        remedy = "Run `make notebooks`, which executes it and stamps it"
        yield Finding(notebook.name, None, rule, remedy)


def rule_short_cells(notebook: Notebook) -> Iterator[Finding]:
    """A code cell shows one idea."""
    for number, cell in numbered(notebook, "code"):
        lines = sum(1 for line in text_of(cell["source"]).splitlines() if line.strip())
        if lines > MAX_LINES:
            rule = f"{lines} lines of code, where {MAX_LINES} is the most"
            yield Finding(notebook.name, number, rule, "Split it, or move it into the package")


def rule_first_cell(notebook: Notebook) -> Iterator[Finding]:
    """Every page begins alike, and says what to do where the course is missing."""
    number, cell = next(numbered(notebook, "code"), (None, {"source": ""}))
    if PAGE_NAME.fullmatch(notebook.name) and text_of(cell["source"]).strip() != FIRST_CELL:
        remedy = "Copy that of 00_start_here.ipynb, which FIRST_CELL in tools/notebook_rules.py is"
        yield Finding(notebook.name, number, "not the first code cell of all pages", remedy)


def rule_alt_text_of_outputs(notebook: Notebook) -> Iterator[Finding]:
    """Every picture is described: in the metadata for screen readers, and as text for the rest."""
    for number, cell in numbered(notebook, "code"):
        for output in cell["outputs"]:
            for problem in missing_descriptions(output):
                remedy = "Show it through diffusion_walkthrough.classroom with alt= a sentence"
                yield Finding(notebook.name, number, problem, remedy)


def missing_descriptions(output: Output) -> Iterator[str]:
    """What keeps the pictures in one output from being described."""
    data = output.get("data", {})
    plain = " ".join(text_of(data.get("text/plain")).split())
    for image_type in IMAGE_TYPES:
        if image_type not in data:
            continue
        metadata = output.get("metadata", {}).get(image_type, {})
        alt = " ".join(metadata.get("alt", "").split()) if isinstance(metadata, dict) else ""
        if not alt:
            yield f"an {image_type} output without alt text in its metadata"
        elif alt != plain:
            yield f"an {image_type} output whose text/plain is not its alt text but {plain[:40]!r}"
    yield from undescribed_tags(text_of(data.get("text/html")))


def undescribed_tags(page: str) -> Iterator[str]:
    """The `<img>` and `<svg>` elements of some HTML that say nothing about what they show."""
    for tag in re.findall(r"<img\b[^>]*>", page, flags=re.IGNORECASE):
        if not re.search(r"\balt\s*=\s*(\"\s*[^\"\s]|'\s*[^'\s])", tag, flags=re.IGNORECASE):
            yield "an <img> without alt="
    for picture in re.findall(r"<svg\b.*?</svg>", page, flags=re.IGNORECASE | re.DOTALL):
        if not re.search(r"aria-label\s*=|<title\b", picture, flags=re.IGNORECASE):
            yield "an <svg> without aria-label= or <title>"


def rule_alt_text_in_prose(notebook: Notebook) -> Iterator[Finding]:
    """Pictures in Markdown cells are described too."""
    for number, cell in numbered(notebook, "markdown"):
        source = text_of(cell["source"])
        if re.search(r"!\[\s*\]", source):
            remedy = "Write what it shows between the brackets"
            yield Finding(notebook.name, number, "a picture without alt text", remedy)
        for problem in undescribed_tags(source):
            yield Finding(notebook.name, number, problem, "Say there what it shows")


def is_widget(output: Output) -> bool:
    """Whether an output is a widget, alive or laid to rest by `tools/notebooks.py execute`."""
    marked = output.get("metadata", {}).get(STAMP_KEY, {}).get("widget")
    return bool(marked) or WIDGET_TYPE in output.get("data", {})


def rule_widgets_described(notebook: Notebook) -> Iterator[Finding]:
    """Where no kernel runs, a sentence stands in the widget's place, and says how to wake it."""
    for number, cell in numbered(notebook, "code"):
        for output in filter(is_widget, cell["outputs"]):
            plain = text_of(output["data"].get("text/plain")).strip()
            if "Run this cell" not in plain or re.match(r"<|[A-Za-z_]\w*\(", plain):
                rule = f"a widget described as {plain[:40]!r}"
                remedy = (
                    "Show it through diffusion_walkthrough.classroom with a sentence that says"
                    " what it is, and 'Run this cell' to do what"
                )
                yield Finding(notebook.name, number, rule, remedy)


def rule_stable_outputs(notebook: Notebook) -> Iterator[Finding]:
    """What is compared is the same on every machine."""
    for number, cell in numbered(notebook, "code"):
        if is_excluded(cell) or "stable-output" in tags_of(cell):
            continue
        text = "\n".join(visible_text(output) for output in cell["outputs"])
        for what, pattern in UNSTABLE.items():
            if found := pattern.search(text):
                rule = f"{what} in a compared output: {found.group().strip()!r}"
                remedy = (
                    "Print it in a cell of its own tagged nbval-ignore-output"
                    " (or, if it is computed and always the same, tag the cell stable-output)"
                )
                yield Finding(notebook.name, number, rule, remedy)


def rule_no_code_in_prose(notebook: Notebook) -> Iterator[Finding]:
    """Code on the page is code that has run."""
    for number, cell in numbered(notebook, "markdown"):
        source = re.sub(r"\$\$.*?\$\$", "$$", text_of(cell["source"]), flags=re.DOTALL)
        kinds = {token.type for token in MarkdownIt("commonmark").parse(source)}
        if kinds & {"fence", "code_block"} or re.search(r"<pre\b", source, flags=re.IGNORECASE):
            remedy = "Put it into a code cell, or name it in the sentence with `backticks`"
            yield Finding(notebook.name, number, "a block of code in a Markdown cell", remedy)


def rule_few_exclusions(notebook: Notebook) -> Iterator[Finding]:
    """At least four code cells in five are compared."""
    cells = [cell for _, cell in numbered(notebook, "code")]
    excluded = sum(is_excluded(cell) for cell in cells)
    if excluded * EXCLUDED_SHARE > len(cells):
        rule = f"{excluded} of {len(cells)} code cells are excluded from comparison"
        remedy = f"At most one in {EXCLUDED_SHARE} may be: print rounded numbers that repeat"
        yield Finding(notebook.name, None, rule, remedy)


def rule_no_unexpected_errors(notebook: Notebook) -> Iterator[Finding]:
    """An error on the page is there on purpose."""
    for number, cell in numbered(notebook, "code"):
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        if errors and "raises-exception" not in tags_of(cell):
            rule = f"an error: {errors[0]['ename']}: {errors[0]['evalue'][:80]}"
            remedy = "Mend it, or tag the cell raises-exception if the error is the lesson"
            yield Finding(notebook.name, number, rule, remedy)


def rule_no_stderr(notebook: Notebook) -> Iterator[Finding]:
    """Warnings are mended or explained; nbval compares them, and libraries change them."""
    for number, cell in numbered(notebook, "code"):
        errors = [output for output in cell["outputs"] if output.get("name") == "stderr"]
        if errors and not is_excluded(cell):
            rule = f"output on stderr: {text_of(errors[0]['text']).strip()[:60]!r}"
            yield Finding(notebook.name, number, rule, "Mend what the warning is about")


RULES = [
    rule_executed_in_order,
    rule_committed_code,
    rule_short_cells,
    rule_first_cell,
    rule_alt_text_of_outputs,
    rule_alt_text_in_prose,
    rule_widgets_described,
    rule_stable_outputs,
    rule_no_code_in_prose,
    rule_few_exclusions,
    rule_no_unexpected_errors,
    rule_no_stderr,
]


def findings(notebook: Notebook) -> Iterable[Finding]:
    """Everything that is wrong with a notebook, rule by rule."""
    return [finding for rule in RULES for finding in rule(notebook)]
