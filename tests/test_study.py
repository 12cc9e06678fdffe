"""The reader's own copies: without answers, never overwritten, and nothing lost."""

import nbformat
import pytest

import study


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "01_noise.ipynb", "1 + 1")
    return folder


def write(path, source):
    stream = nbformat.v4.new_output("stream", name="stdout", text="the answer")
    cell = nbformat.v4.new_code_cell(source, outputs=[stream], execution_count=3)
    cell.metadata["tags"] = ["nbval-ignore-output"]
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01"), cell])
    content.metadata["widgets"] = {"state": {}}
    nbformat.write(content, path)


def test_copy_holds_every_cell_and_no_answer(notebooks, tmp_path):
    assert study.copy_new(notebooks, tmp_path / "study") == (["01_noise.ipynb"], [])
    copied = nbformat.read(tmp_path / "study/01_noise.ipynb", as_version=4)
    nbformat.validate(copied)
    assert [cell.source for cell in copied.cells] == ["# 01", "1 + 1"]
    assert (copied.cells[1].outputs, copied.cells[1].execution_count) == ([], None)
    assert copied.cells[1].metadata["tags"] == ["nbval-ignore-output"]
    assert "widgets" not in copied.metadata
    assert "the answer" not in (tmp_path / "study/01_noise.ipynb").read_text()


def test_original_is_not_touched(notebooks, tmp_path):
    before = (notebooks / "01_noise.ipynb").read_bytes()
    study.copy_new(notebooks, tmp_path / "study")
    assert (notebooks / "01_noise.ipynb").read_bytes() == before


def test_what_the_reader_wrote_is_never_overwritten(notebooks, tmp_path):
    study.copy_new(notebooks, tmp_path / "study")
    mine = tmp_path / "study/01_noise.ipynb"
    write(mine, "my own thoughts")
    kept = mine.read_bytes()
    write(notebooks / "02_more.ipynb", "2")
    new, older = study.copy_new(notebooks, tmp_path / "study")
    assert (new, older) == (["02_more.ipynb"], ["01_noise.ipynb"])
    assert mine.read_bytes() == kept


def test_a_changed_course_is_said_and_an_answered_copy_of_the_same_one_is_not(notebooks, tmp_path):
    study.copy_new(notebooks, tmp_path / "study")
    mine = tmp_path / "study/01_noise.ipynb"
    content = nbformat.read(mine, as_version=4)
    content.cells[1].source = "1 + 2"
    nbformat.write(content, mine)
    assert study.copy_new(notebooks, tmp_path / "study") == ([], [])
    write(notebooks / "01_noise.ipynb", "1 + 3")
    assert study.copy_new(notebooks, tmp_path / "study") == ([], ["01_noise.ipynb"])


def test_a_copy_that_cannot_be_read_is_left_alone(notebooks, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/01_noise.ipynb").write_text("half a file")
    assert study.copy_new(notebooks, tmp_path / "study") == ([], ["01_noise.ipynb"])
    assert (tmp_path / "study/01_noise.ipynb").read_text() == "half a file"


def test_fresh_keeps_the_old_copies_each_in_a_folder_of_its_own(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    study.main([])
    for text in ("first", "second"):
        write(tmp_path / "study/01_noise.ipynb", text)
        study.main(["--fresh"])
    kept = [nbformat.read(tmp_path / f"study.old-{i}/01_noise.ipynb", 4) for i in (1, 2)]
    assert [content.cells[1].source for content in kept] == ["first", "second"]
    assert nbformat.read(tmp_path / "study/01_noise.ipynb", 4).cells[1].source == "1 + 1"
