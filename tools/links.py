"""Check that the links in Markdown files and in notebooks lead somewhere, without a network.

python tools/links.py [PATH ...]     one line per broken link; exit status 1 if there is any

Files and headings of this project are looked up; addresses on the web are not. Without a path, all
Markdown files and notebooks that git knows.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
PARSER = MarkdownIt("commonmark").enable("table")
HTML_LINK = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
HTML_ANCHOR = re.compile(r"<\w+\b[^>]*?\b(?:id|name)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # https:, mailto:, attachment:, data:
# Brackets and parentheses of an equation are not a link.
MATHS = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)


def prose_of(path: Path) -> str:
    """The Markdown of a file, or of all the Markdown cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return MATHS.sub("", text)


def tokens_of(text: str) -> Iterator[Token]:
    """Every token of some Markdown, the inline ones included."""
    for token in PARSER.parse(text):
        yield token
        yield from token.children or []


def links_in(text: str) -> Iterator[str]:
    """The targets of all links and pictures."""
    for token in tokens_of(text):
        if token.type == "link_open":
            yield str(token.attrs["href"])
        elif token.type == "image":
            yield str(token.attrs["src"])
        elif token.type in {"html_block", "html_inline"}:
            yield from HTML_LINK.findall(token.content)


def anchors_in(text: str) -> set[str]:
    """The anchors that GitHub and JupyterLab make from headings, and those written as HTML."""
    anchors = set(HTML_ANCHOR.findall(text))
    tokens = list(PARSER.parse(text))
    for opening, inline in pairwise(tokens):
        if opening.type != "heading_open":
            continue
        words = "".join(
            child.content for child in inline.children or [] if child.type != "html_inline"
        )
        anchors.add(words.strip().replace(" ", "-"))  # JupyterLab
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")  # GitHub
        anchors.add(slug)
    return anchors


def problem_with(link: str, path: Path, root: Path) -> str | None:
    """What is wrong with a link in a file, or None."""
    if ELSEWHERE.match(link):
        return None
    name, _, anchor = unquote(link).partition("#")
    target = (path.parent / name).resolve() if name else path.resolve()
    if not target.is_relative_to(root.resolve()):
        return "leads out of the project"
    if not target.exists():
        return "names a file that does not exist"
    if not anchor or target.suffix not in {".md", ".ipynb"}:
        return None
    return None if anchor in anchors_in(prose_of(target)) else "names a heading that does not exist"


def broken_links(path: Path, root: Path) -> list[str]:
    """One line for each link in a file that leads nowhere."""
    found = []
    for link in links_in(prose_of(path)):
        if problem := problem_with(link, path, root):
            name = path.resolve().relative_to(root.resolve()).as_posix()
            found.append(f"{name}: the link {link!r} {problem}. Mend the link, or what it names.")
    return found


def main(arguments: list[str]) -> int:
    """The command line; see the top of this file."""
    paths = [Path(argument) for argument in arguments]
    if not paths:
        command = ["git", "ls-files", "*.md", "*.ipynb"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        paths = [ROOT / name for name in names.stdout.splitlines() if (ROOT / name).exists()]
    lines = [line for path in paths for line in broken_links(path, ROOT)]
    for line in lines:
        print(line)
    print(f"{len(paths)} files checked, {len(lines)} broken links.")
    return min(len(lines), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
