"""Each rule for notebooks, broken by a small notebook that keeps all the others."""

import copy
import sys
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import notebook_rules
import notebooks
from notebook_rules import FIRST_CELL, Notebook, findings
from notebooks import NotebookError

ALT = "A digit that dissolves into noise from left to right."
PNG = "iVBORw0KGgo="


def text_output(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def picture(kind="image/png", alt=ALT, plain=ALT):
    metadata = {} if alt is None else {kind: {"alt": alt}}
    data = {kind: PNG, "text/plain": plain}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def data_output(**data):
    data = {key.replace("_", "/", 1): value for key, value in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def widget(plain):
    data = {notebook_rules.WIDGET_TYPE: {"model_id": "a" * 32}, "text/plain": plain}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def at_rest(plain):
    metadata = {"diffusion_walkthrough": {"widget": True}}
    return {"output_type": "display_data", "data": {"text/plain": plain}, "metadata": metadata}


def error_output(message="no such schedule"):
    return {"output_type": "error", "ename": "ValueError", "evalue": message, "traceback": []}


def code(source="1 + 1", outputs=(), tags=(), count=None):
    cell = nbformat.v4.new_code_cell(source, outputs=[nbformat.from_dict(o) for o in outputs])
    cell.metadata["tags"] = list(tags)
    cell.execution_count = count
    return cell


def notebook_of(*cells, digest="right", stamp="right"):
    """A notebook of these cells, executed in order and stamped, unless a cell says otherwise."""
    content = nbformat.v4.new_notebook(cells=list(cells))
    content.metadata["diffusion_walkthrough"] = {"code": stamp}
    run = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    for count, cell in enumerate(run, start=1):
        cell.execution_count = cell.execution_count or count
    return Notebook("a.ipynb", content, digest)


def prose(source):
    return nbformat.v4.new_markdown_cell(source)


GOOD_CELLS = [
    prose("# Noise\n\nWrite `x + noise`, and ![a digit](digit.png).\n\n$$\n\n    x_t = a\n\n$$"),
    code("print(0.98)", [text_output("0.98 of the signal is left at t = 12 of 1000, s = 0.008\n")]),
    code("show(x)", [picture(), picture("image/svg+xml")]),
    code("slider", [widget("A slider for t. (Run this cell to move it.)")]),
    code("rest", [at_rest("Predict. Which is it? Run this cell to choose.")]),
    code("fit()", [text_output("3.2 s, 12 ms/step in /home/someone")], ["nbval-ignore-output"]),
    code("bad()", [error_output()], ["raises-exception"]),
    code("size()", [text_output("143 MB of weights")], ["stable-output"]),
    code("html", [data_output(text_html=f'<img alt="{ALT}" src="x"> <b style="top:1s">ok</b>')]),
    code("\n\n".join(f"x = {i}" for i in range(15))),
]


def test_a_good_notebook_has_no_findings():
    assert findings(notebook_of(*copy.deepcopy(GOOD_CELLS))) == []


BROKEN = {
    "an empty cell": ([code(" ")], "an empty code cell"),
    "out of order": ([code(count=2), code(count=1)], "executed as number 2"),
    "16 lines": ([code("\n".join(["x = 1"] * 16))], "16 lines of code"),
    "png without alt": ([code(outputs=[picture(alt=None)])], "image/png output without alt"),
    "jpeg without alt": ([code(outputs=[picture("image/jpeg", alt=" ")])], "image/jpeg output"),
    "svg without alt": ([code(outputs=[picture("image/svg+xml", alt=None)])], "image/svg"),
    "alt is not the text": ([code(outputs=[picture(plain="<Figure>")])], "not its alt text"),
    "img in HTML": ([code(outputs=[data_output(text_html="<img src='x'>")])], "<img> without alt"),
    "empty alt": ([code(outputs=[data_output(text_html='<img alt="">')])], "<img> without alt"),
    "svg in HTML": ([code(outputs=[data_output(text_html="<svg><path/></svg>")])], "<svg> without"),
    "picture in prose": ([prose("![](digit.png)")], "a picture without alt text"),
    "img in prose": ([prose("<img src='digit.png'>")], "<img> without alt"),
    "widget repr": ([code(outputs=[widget("VBox(children=(IntSlider(value=0),))")])], "a widget"),
    "widget at rest": ([code(outputs=[at_rest("IntSlider(value=0)")])], "a widget described"),
    "widget that is silent": ([code(outputs=[at_rest("A slider for t.")])], "a widget described"),
    "widget without text": ([code(outputs=[widget("")])], "a widget described as ''"),
    "fenced code": ([prose("Type:\n\n```python\nx = 1\n```")], "code in a Markdown cell"),
    "fence with tildes": ([prose("~~~\nx\n~~~")], "code in a Markdown cell"),
    "indented code": ([prose("Type:\n\n    x = 1\n")], "code in a Markdown cell"),
    "pre in prose": ([prose("<pre>x = 1</pre>")], "code in a Markdown cell"),
    "an error": ([code(outputs=[error_output()])], "an error: ValueError"),
    "stderr": (
        [code(outputs=[{"output_type": "stream", "name": "stderr", "text": "careful"}])],
        "output on stderr: 'careful'",
    ),
    "one in four excluded": (
        [code(), code(), code(), code(tags=["nbval-ignore-output"])],
        "1 of 4 code cells",
    ),
    "excluded by skip": ([code(tags=["nbval-skip"])], "1 of 1 code cells"),
    "excluded by comment": ([code("# NBVAL_IGNORE_OUTPUT\nx")], "1 of 1 code cells"),
    "excluded by skip comment": ([code("# NBVAL_SKIP\nx")], "1 of 1 code cells"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_finds_what_breaks_it_and_nothing_else(name):
    cells, expected = BROKEN[name]
    found = findings(notebook_of(*copy.deepcopy(cells)))
    assert {f.rule for f in found if expected in f.rule}
    assert {f.rule for f in found if expected not in f.rule} <= {
        "executed as number 1, where top to bottom would be 2"  # the other half of a swapped pair
    }


@pytest.mark.parametrize("cells", [[], [code("start()")], [code(), code(FIRST_CELL)]])
def test_a_page_that_begins_in_another_way_is_found(cells):
    page = notebook_of(prose("# Noise"), *copy.deepcopy(cells))
    named = Notebook("07b_new_images.ipynb", page.content, page.digest)
    assert [f.rule for f in findings(named)] == ["not the first code cell of all pages"]
    assert findings(page) == []


def test_a_page_that_begins_as_all_do_is_not_found():
    page = notebook_of(prose("# Noise"), code(FIRST_CELL + "\n"))
    assert findings(Notebook("07_evaluation.ipynb", page.content, page.digest)) == []


def begun(monkeypatch, folder):
    """What the first cell asks of IPython in a folder, where nothing is installed."""
    asked, names = [], {}
    shell = SimpleNamespace(run_line_magic=lambda *words: asked.append(words))
    names["get_ipython"] = lambda: shell
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "diffusion_walkthrough.classroom", None)
    try:
        exec(TransformerManager().transform_cell(FIRST_CELL), names)
    except ModuleNotFoundError as error:
        return asked, error
    raise AssertionError("it was installed after all")


def test_a_page_that_was_uploaded_alone_says_what_to_do_in_one_sentence(tmp_path, monkeypatch):
    asked, error = begun(monkeypatch, tmp_path / "content")
    assert asked == []
    assert str(error).startswith("This page is alone: make the file diffusion_walkthrough.zip")
    assert "%pip install ./diffusion_walkthrough.zip" in str(error)
    assert str(error).count(". ") == 0
    assert error.__suppress_context__, "the import that failed would be shown, too"


def test_a_page_in_the_course_s_folder_installs_it(tmp_path, monkeypatch):
    (tmp_path / "diffusion_walkthrough").mkdir()
    (tmp_path / "pyproject.toml").touch()
    asked, _ = begun(monkeypatch, tmp_path / "notebooks")
    assert asked == [("pip", "install --quiet ..")]


def test_a_page_in_a_folder_of_somebody_s_project_does_not_install_that(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    asked, error = begun(monkeypatch, tmp_path / "mine")
    assert asked == []
    assert "This page is alone" in str(error)


def test_a_cell_that_never_ran_is_found():
    notebook = notebook_of(code())
    notebook.content["cells"][0].execution_count = None
    assert [f.rule for f in findings(notebook)] == ["the cell was not executed"]


@pytest.mark.parametrize(
    "text",
    [
        "took 3.2 s", "took 90s.", "12 ms/step", "3 minutes", "1.5 hours", "41.2it/s", "8 images/s",
        "412 MB", "1.5 GiB used", "<object at 0x7f3a2b1c>", "saved to /home/someone/x",
        "in /tmp/x.json",
        r"C:\Users", "on 2024-05-17", "at 12:30:59",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["stream", "text", "html", "error"])
def test_an_unstable_output_is_found_wherever_it_is_compared(text, place):
    outputs = {
        "stream": text_output(text),
        "text": data_output(text_plain=text),
        "html": data_output(text_html=f"<b>{text.replace('<', '&lt;')}</b>"),
        "error": error_output(text),
    }
    tags = ["raises-exception"] if place == "error" else []
    found = findings(notebook_of(code(outputs=[outputs[place]], tags=tags)))
    assert [f.rule for f in found if "in a compared output" in f.rule]


@pytest.mark.parametrize(
    "text",
    [
        "0.98", "t = 12", "(64, 8, 8, 1)", "35,746,307 parameters", "β = 1e-4", "a/b", "5 samples",
        "1000 steps", "[0.1, 0.2]", "s = 0.008", "and/or", "shape 8x8", "8 million", "Epoch 1/3",
        "3.1.0", "digits/run/1",
    ],
)  # fmt: skip
def test_a_stable_output_passes(text):
    assert findings(notebook_of(code(outputs=[text_output(text)]))) == []


@pytest.mark.parametrize("stamp", [None, "wrong"])
def test_outputs_of_other_code_are_found(stamp):
    notebook = notebook_of(code(), stamp=stamp)
    (finding,) = findings(notebook)
    assert "make notebooks" in finding.remedy


def test_a_finding_names_notebook_cell_rule_and_remedy():
    (finding,) = findings(notebook_of(prose("fine"), prose("```\nx\n```")))
    assert str(finding).startswith("a.ipynb, cell 2: a block of code in a Markdown cell. Put ")


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "pretrained").mkdir(parents=True)
    (folder / "a.py").write_text("x = 1\n")
    (folder / "pretrained" / "digits.npz").write_bytes(b"weights")
    return folder


def test_the_digest_changes_with_everything_that_decides_the_outputs(package):
    content = notebook_of(code("x"), prose("words")).content
    digests = [notebooks.code_digest(content, package)]
    for change in (
        lambda: (package / "a.py").write_text("x = 2\n"),
        lambda: (package / "b.py").write_text(""),
        lambda: (package / "pretrained" / "digits.npz").write_bytes(b"other weights"),
        lambda: content.cells[0].update(source="y"),
    ):
        change()
        digests.append(notebooks.code_digest(content, package))
    assert len(set(digests)) == len(digests)


def test_the_digest_does_not_change_with_prose_line_endings_or_caches(package):
    content = notebook_of(code("x"), prose("words")).content
    before = notebooks.code_digest(content, package)
    content.cells[1].source = "other words"
    (package / "a.py").write_bytes(b"x = 1\r\n")
    (package / "a.pyc").write_bytes(b"compiled")
    assert notebooks.code_digest(content, package) == before


def write_notebook(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path


def test_executing_stamps_the_notebook_and_leaves_nothing_to_find(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", prose("# Sum"), code("print(1 + 1)"), code("3"))
    assert "executed" in notebooks.execute(path)
    assert notebooks.check(path) == []
    first = path.read_bytes()
    assert notebooks.execute(path) == "up to date"
    assert "executed" in notebooks.execute(path, force=True)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ipynb"]


WIDGET_SOURCE = """
import ipywidgets
from diffusion_walkthrough.classroom.widgets import show_widget
show_widget(ipywidgets.IntSlider(), "A slider. Run this cell to move it.", b"\\x89PNG")
"""


def test_a_widget_leaves_its_sentence_its_picture_and_a_mark(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", code(WIDGET_SOURCE.strip()))
    notebooks.execute(path)
    (output,) = notebooks.read(path).cells[0].outputs
    assert output.data == {
        "text/plain": "A slider. Run this cell to move it.",
        "image/png": "iVBORw==",
    }
    assert output.metadata["diffusion_walkthrough"] == {"widget": True}
    assert notebook_rules.is_widget(output)
    assert "widgets" not in notebooks.read(path).metadata
    assert notebooks.check(path) == []
    first = path.read_text()
    notebooks.execute(path, force=True)
    assert path.read_text() == first
    assert notebooks.execute(path) == "up to date"


def test_a_widget_that_an_editor_saved_alive_is_found_and_laid_to_rest(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", code(WIDGET_SOURCE.strip()))
    notebooks.execute(path)
    tidy = path.read_text()
    content = notebooks.read(path)
    content.cells[0].outputs[0].data[notebook_rules.WIDGET_TYPE] = {"model_id": "a" * 32}
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a" * 32: {}}}}
    content.metadata["widgets"] = state
    path.write_text(nbformat.writes(content) + "\n")
    (finding,) = notebooks.check(path)
    assert "live widgets" in finding.rule
    assert notebooks.execute(path) == "up to date"
    assert path.read_text() == tidy


def test_a_failing_cell_is_named_and_the_file_left_alone(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", prose("x"), code("1"), code("1 / 0"), code("2"))
    before = path.read_bytes()
    with pytest.raises(NotebookError, match=r"a\.ipynb, cell 3: ZeroDivisionError"):
        notebooks.execute(path)
    assert path.read_bytes() == before


def test_metadata_that_an_editor_left_is_found(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", code("1"))
    notebooks.execute(path)
    content = nbformat.read(path, as_version=4)
    content.metadata.language_info["version"] = "3.11.7"
    nbformat.write(content, path)
    (finding,) = notebooks.check(path)
    assert "metadata that an editor left" in finding.rule


def test_cells_without_an_id_get_one_from_their_position():
    content = {"cells": [{"id": "mine"}, {}, {"id": "mine"}], "nbformat_minor": 4}
    notebooks.keep_or_make_ids(content)
    assert [cell["id"] for cell in content["cells"]] == ["mine", "cell-02", "cell-03"]
    assert content["nbformat_minor"] == 5


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', "not json"])
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError, match=r"a\.ipynb: not a notebook"):
        notebooks.read(path)


def test_the_commands_fail_when_there_is_something_to_say(tmp_path, capsys):
    path = write_notebook(tmp_path / "a.ipynb", code("1"))
    assert notebooks.main(["check", str(path)]) == 1
    assert "a.ipynb, cell 1: the cell was not executed" in capsys.readouterr().out
    assert notebooks.main(["execute", str(path)]) == 0
    assert notebooks.main(["check", str(path)]) == 0
    assert notebooks.main(["check", str(tmp_path / "missing.ipynb")]) == 1
    assert "no such notebook" in capsys.readouterr().out
