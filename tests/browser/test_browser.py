"""Every notebook in real JupyterLab in Chromium: all cells run, and each slider moves its picture.

Run by `make browser`. A failed test leaves a screenshot in browser-failures/.
"""

import re
import urllib.parse
from pathlib import Path

import nbformat
import pytest
from lab import LabError, Page, Server, start_browser, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FAILURES = ROOT / "browser-failures"
RUN_DEADLINE = 600  # seconds for all cells of a notebook; the longest trains for 90
MOVE_DEADLINE = 60  # seconds for a picture to follow its slider
CONTROLS = ".noUi-handle, .widget-dropdown select"
WITH_SLIDER = re.compile(r"0[0-68]_")


def without_outputs(path, target):
    """Copy a notebook without outputs, so that what appears is what the browser has run."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.write(notebook, target)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("jupyter")
    folder = tmp_path_factory.mktemp("copy")
    for path in NOTEBOOKS:
        without_outputs(path, folder / path.name)
    server = Server(folder, home)
    yield server
    server.stop()


@pytest.fixture
def browser(tmp_path):
    driver = start_browser(tmp_path / "profile")
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser, server, path, request):
    """Opens the notebook; what the screen showed when the test failed is kept as a picture."""
    failed_before = request.session.testsfailed
    yield lambda: Page(browser, server, urllib.parse.quote(path.name))
    if request.session.testsfailed > failed_before:
        FAILURES.mkdir(exist_ok=True)
        picture = FAILURES / f"{path.stem}.png"
        browser.save_screenshot(str(picture))
        print(f"What the screen showed: {picture.relative_to(ROOT)}")
    server.end_kernels()


def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def allowed_to_fail(cell):
    return "raises-exception" in cell.metadata.get("tags", [])


def all_have_run(page, cells):
    """Whether every code cell has a number; a LabError if the run stopped before the last."""
    page.refuse_dialogs()
    idle = page.kernel_is_idle()  # before looking at the cells: they may end in between
    unfinished = []
    for number, (cell, seen) in enumerate(zip(cells, page.cells(), strict=True), start=1):
        if seen["errors"] and not allowed_to_fail(cell):
            raise LabError(f"cell {number} shows an error: {seen['errors'][0]}")
        if cell.cell_type == "code" and not re.fullmatch(r"\[\d+\]:", seen["prompt"].strip()):
            unfinished.append((number, seen["prompt"].strip()))
    if idle and unfinished and all(prompt == "[ ]:" for _, prompt in unfinished):
        raise LabError(f"the run stopped before cell {unfinished[0][0]}")
    return not unfinished


def move_and_look(page, control):
    """Move a slider or list by keyboard until the picture beside it is another one."""
    area = control.find_element("xpath", "ancestor::div[contains(@class, 'jp-OutputArea-output')]")
    before = wait_for("a picture beside the slider", lambda: complete(page, area), MOVE_DEADLINE)
    for _ in range(3):  # a picture may stay the same for one step: a rounded value, a plateau
        page.move(control)
        try:
            wait_for("the picture to change", lambda: changed(page, area, before), 15)
        except LabError:
            continue
        return
    name = control.get_attribute("aria-label") or control.get_attribute("class")
    raise LabError(f"the picture beside a slider ({name}) stays the same when it is moved")


def complete(page, area):
    pictures = page.pictures(area)
    return pictures if pictures and None not in pictures else None


def changed(page, area, before):
    after = complete(page, area)
    return after is not None and after != before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_every_slider_moves_its_picture(path, open_page):
    page = open_page()
    page.run_all_cells()
    cells = cells_of(path)
    wait_for("all cells to have run", lambda: all_have_run(page, cells), RUN_DEADLINE, 1)
    wait_for("an idle kernel", page.kernel_is_idle, 60)
    controls = page.find(CONTROLS)
    assert controls or not WITH_SLIDER.match(path.name), f"{path.name} has no slider"
    for control in controls:
        move_and_look(page, control)


def test_there_are_notebooks_to_open():
    assert NOTEBOOKS, "notebooks/ holds no notebook"
