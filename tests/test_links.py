"""The link checker finds the links that lead nowhere, and only those."""

import nbformat
import pytest

import links


@pytest.fixture
def project(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "there.md").write_text("# What is *noise*?\n\n<a id='by-hand'></a>\n")
    (tmp_path / "picture file.png").write_bytes(b"")
    cells = [nbformat.v4.new_markdown_cell("## A step by hand"), nbformat.v4.new_code_cell("x")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    return tmp_path


def broken(project, text):
    path = project / "README.md"
    path.write_text(text)
    return links.broken_links(path, project)


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/there.md) and [b](docs/there.md#what-is-noise) and [c](docs/there.md#by-hand)",
        "[a](a.ipynb#A-step-by-hand) [b](a.ipynb#a-step-by-hand) [c](docs)",
        "![x](picture%20file.png) <img src='picture%20file.png'>",
        "[web](https://example.org/none#x) [mail](mailto:a@example.org) ![x](attachment:y.png)",
        "$E[x](t)$ and `[code](none)`\n\n$$ f[x](none) $$",
        "# Here\n\n[up](#here)",
    ],
)
def test_links_that_lead_somewhere(project, text):
    assert broken(project, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](docs/nowhere.md)", "a file that does not exist"),
        ("![a](none.png)", "a file that does not exist"),
        ("<a href='none.md'>x</a>", "a file that does not exist"),
        ("| a |\n|---|\n| [x](none.md) |", "a file that does not exist"),
        ("[a](docs/there.md#missing)", "a heading that does not exist"),
        ("[a](a.ipynb#missing)", "a heading that does not exist"),
        ("[a](#missing)", "a heading that does not exist"),
        ("[a](../outside.md)", "out of the project"),
        ("[a][ref]\n\n[ref]: none.md", "a file that does not exist"),
    ],
)
def test_links_that_lead_nowhere(project, text, problem):
    (line,) = broken(project, text)
    assert line.startswith("README.md: the link ")
    assert problem in line


def test_links_in_notebooks_are_checked(project):
    path = project / "b.ipynb"
    cells = [nbformat.v4.new_markdown_cell("[x](none.md)"), nbformat.v4.new_code_cell("'[y](z)'")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    (line,) = links.broken_links(path, project)
    assert "'none.md'" in line


def test_the_command_fails_when_a_link_is_broken(project, capsys, monkeypatch):
    monkeypatch.setattr(links, "ROOT", project)
    page = project / "page.md"
    page.write_text("[a](docs/there.md)")
    assert links.main([str(page)]) == 0
    page.write_text("[a](docs/nowhere.md)")
    assert links.main([str(page)]) == 1
    assert "1 files checked, 1 broken links." in capsys.readouterr().out
