"""Every notebook in real JupyterLab in Chromium: it looks right, and each slider moves its picture.

The page shows the committed outputs (`make test` runs every cell and compares them). What runs here
are the cells with a slider, and what these build on. A failed test leaves a screenshot in
browser-failures/. Run by `make browser`.
"""

import re
import urllib.parse
from pathlib import Path

import nbformat
import pytest
from cells import WIDGET, cells_needed
from lab import LabError, Page, Server, start_browser, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FAILURES = ROOT / "browser-failures"
RUN_DEADLINE = 600  # seconds for all cells of a notebook; the longest trains for 90
MOVE_DEADLINE = 60  # seconds for a picture to follow its slider
CONTROLS = ".noUi-handle, .widget-dropdown select"
WITH_SLIDER = re.compile(r"0[0-68]_")


def to_be_run(path, target):
    """Copy a notebook, the cells that are to run without outputs: what appears is from this run."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for index in cells_needed(notebook.cells):
        notebook.cells[index].update(outputs=[], execution_count=None)
    nbformat.write(notebook, target)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("jupyter")
    folder = tmp_path_factory.mktemp("copy")
    for path in NOTEBOOKS:
        to_be_run(path, folder / path.name)
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


def have_run(page, indices):
    """Whether these cells have a number; a LabError if the kernel has stopped before the last."""
    page.refuse_dialogs()
    idle = page.kernel_is_idle()  # before looking at the cells: they may end in between
    prompts = {i: page.cells()[i]["prompt"].strip() for i in indices}
    unfinished = [i for i, prompt in prompts.items() if not re.fullmatch(r"\[\d+\]:", prompt)]
    if idle and unfinished and all(prompts[i] == "[ ]:" for i in unfinished):
        raise LabError(f"the run stopped before cell {unfinished[0] + 1}")
    return not unfinished


def look_for_errors(page, cells):
    """A LabError if a cell shows an error that it is not there to show."""
    for number, (cell, seen) in enumerate(zip(cells, page.cells(), strict=True), start=1):
        if seen["errors"] and not allowed_to_fail(cell):
            raise LabError(f"cell {number} shows an error: {seen['errors'][0]}")


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
def test_a_notebook_looks_right_and_every_slider_moves_its_picture(path, open_page):
    page, cells = open_page(), cells_of(path)
    needed = cells_needed(cells)
    for index in needed:
        page.run_cell(index)
    wait_for("the cells to have run", lambda: have_run(page, needed), RUN_DEADLINE, 1)
    wait_for("an idle kernel", page.kernel_is_idle, 60)
    look_for_errors(page, cells)
    wait_for("all pictures to be shown", lambda: all(page.picture_sizes()), 30)
    assert len(page.picture_sizes()) >= sum(map(has_a_picture, cells)) > 0
    controls = page.find(CONTROLS)
    assert controls or not WITH_SLIDER.match(path.name), f"{path.name} has no slider"
    for control in controls:
        move_and_look(page, control)


def has_a_picture(cell):
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def test_what_a_slider_builds_on_is_found():
    sources = ["import a", "b = a + 1", "c = 2", "def f(x):\n    c = 1\n    return b + x", "f"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-1].outputs = [nbformat.v4.new_output("display_data", {WIDGET: {}})]
    assert cells_needed(cells) == [0, 1, 3, 4]
    assert cells_needed(cells[:-1]) == [0]


def test_there_are_notebooks_to_open():
    assert NOTEBOOKS, "notebooks/ holds no notebook"
