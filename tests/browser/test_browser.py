"""Every notebook in real JupyterLab in Chromium: it looks right, and its widgets do what they say.

The page shows the committed outputs (`make test` runs every cell and compares them). What runs here
are the cells with a widget, and what these build on, with a shorter training. A failed test leaves
a screenshot in browser-failures/, and a table at the end says how fast pictures follow. Run by
`make browser`, two pages at a time; with WORKERS=1 the table is that of a quiet machine.
"""

import copy
import re
import time
import urllib.parse
from functools import cache
from pathlib import Path
from statistics import median

import nbformat
import pytest
from cells import cells_needed, predictions, widget_cells
from lab import LabError, Page, Server, start_browser, wait_for
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

ROOT = Path(__file__).resolve().parent.parent.parent
#: What takes longest starts first, or one of two workers would end with it alone.
SLOWEST_FIRST = ("10_guidance", "05_training", "09_faster_sampling", "11_flow_matching")
NOTEBOOKS = sorted(
    (ROOT / "notebooks").glob("*.ipynb"),
    key=lambda path: ([*SLOWEST_FIRST, path.stem].index(path.stem), path.stem),
)
FAILURES = ROOT / "browser-failures"
RUN_DEADLINE = 600  # seconds for all cells of a notebook
MOVE_DEADLINE = 60  # seconds for a picture to follow its slider
SLOWEST_MEDIAN = 1500  # milliseconds from key press to picture; the goal is 60, 250 with a network
PRESSES, REST = 8, 0.15  # key presses to measure, and seconds between picture and next press
CONTROLS = ".noUi-handle, .widget-dropdown select"
OUTPUT = "ancestor::div[contains(@class, 'jp-OutputArea-output')]"
#: What a page does, and less of it, where a widget shows what has come of it. Each stands in one.
LESS = {
    "model.fit(images, callbacks=[samples, ": "model.fit(images, epochs=20, callbacks=[samples, ",
    "filler.fit(asked, epochs=34, ": "filler.fit(asked, epochs=1, ",
    "worse.fit(real, classes, epochs=10, ": "worse.fit(real, classes, epochs=1, ",
    "s, seed=k) for k in (0, 60)]": "s, seed=k) for k in (0,)]",
    "**told, **quick) for seed in (1, 2)]": "**told, **quick) for seed in (1,)]",
}


def to_be_run(path, target):
    """Copy a notebook, the cells that are to run without outputs: what appears is from this run."""
    notebook = copy.deepcopy(read(path))
    for index in needed_in(notebook.cells):
        cell = notebook.cells[index]
        cell.update(outputs=[], execution_count=None)
        for much, less in LESS.items():
            cell.source = cell.source.replace(much, less)
    nbformat.write(notebook, target)


@cache
def read(path):
    """A notebook as it was when these tests began."""
    return nbformat.read(path, as_version=4)


def needed_in(cells):
    """The cells with a widget, and those that these build on."""
    return cells_needed(cells, widget_cells(cells))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for path in NOTEBOOKS:
        to_be_run(path, folder / path.name)
    nbformat.write(trial(), folder / "trial.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    server = Server(folder, tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def keep_screen(browser, request):
    """What the screen showed when the test failed is kept as a picture."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        FAILURES.mkdir(exist_ok=True)
        picture = FAILURES / f"{re.sub(r'[^A-Za-z0-9_]+', '-', request.node.name)}.png"
        browser.save_screenshot(str(picture))
        print(f"What the screen showed: {picture.relative_to(ROOT)}")


@pytest.fixture
def open_page(browser, server, keep_screen):
    """Opens a notebook, and ends its kernel afterwards."""
    yield lambda name: Page(browser, server, urllib.parse.quote(name))
    server.end_kernels()


def cells_of(path):
    return read(path).cells


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


def run(page, indices):
    """Run cells, in order, and wait until the kernel is idle."""
    for index in indices:
        page.run_cell(index)
    wait_for("the cells to have run", lambda: have_run(page, indices), RUN_DEADLINE, 1)
    wait_for("an idle kernel", page.kernel_is_idle, 60)


def press_and_look(page, control):
    """Move a slider or menu by keys, back from its end; milliseconds to each new picture."""
    area = control.find_element("xpath", OUTPUT)
    wait_for("a picture beside the control", lambda: page.drawn(area), MOVE_DEADLINE)
    page.focus(control)
    page.watch(area)
    same, ends = 0, 0
    while len(page.delays()) < PRESSES and same < 3 and ends < 2:
        seen = len(page.delays())
        if not page.step(control, back=ends == 1):
            ends += 1
        # A picture may stay the same for one step: a rounded value, a plateau.
        elif not page.has_followed(seen, 4 if seen else MOVE_DEADLINE / 4):
            same += 1
        time.sleep(REST)
    name = page.name_of(control)
    assert name, "a control without a name for screen readers: show it in a widgets.Panel"
    if not page.delays():
        raise LabError(f"the picture beside a control ({name}) stays the same when it is moved")
    return name, page.delays()


def point_and_look(page, control):
    """Move a slider or menu by mouse until the picture beside it is another one."""
    area = control.find_element("xpath", OUTPUT)
    before = page.drawn(area)
    if control.tag_name == "select":
        menu = Select(control)
        chosen = menu.options.index(menu.first_selected_option)
        menu.select_by_index(chosen - 1 if chosen else 1)
    else:
        page.click_beside(control)
    wait_for("the picture to follow the mouse", lambda: changed(page, area, before), MOVE_DEADLINE)
    wait_for("an idle kernel", page.kernel_is_idle, MOVE_DEADLINE)


def changed(page, area, before):
    after = page.drawn(area)
    return after is not None and after != before


def buttons_that_stay(page):
    """The buttons that can be pressed; those that a menu brings may come after its picture."""
    seen = []

    def settled():
        before, seen[:] = list(seen), page.find(".jupyter-button:enabled")
        return seen == before

    wait_for("buttons that stay", settled, MOVE_DEADLINE, 0.5)
    return seen


def click_and_look(page, button):
    """Press a button beside a picture until something in its output is another."""
    area = button.find_element("xpath", OUTPUT)
    before = area.get_attribute("innerHTML")
    button.click()
    what = f"the button {button.text!r} to do something"
    wait_for(what, lambda: area.get_attribute("innerHTML") != before, MOVE_DEADLINE)
    wait_for("an idle kernel", page.kernel_is_idle, MOVE_DEADLINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_looks_right_and_every_picture_follows(path, open_page, note_delays):
    page, cells = open_page(path.name), cells_of(path)
    run(page, needed_in(cells))
    look_for_errors(page, cells)
    wait_for("all pictures to be shown", lambda: all(page.picture_sizes()), 30)
    assert len(page.picture_sizes()) >= sum(map(has_a_picture, cells)) > 0
    panels = page.find(".jp-OutputArea-output > .classroom")
    assert len(panels) == len(widget_cells(cells)), "a widget is missing, or is no widgets.Panel"
    for control in page.find(CONTROLS):
        name, times = press_and_look(page, control)
        note_delays(path.stem, name, times)
        assert median(times) < SLOWEST_MEDIAN, f"{name}: pictures follow late"
        point_and_look(page, control)
    for button in buttons_that_stay(page):
        click_and_look(page, button)
    assert page.widest_overflow() <= 1, "a picture is wider than its place, or enlarged"


def has_a_picture(cell):
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def has_a_cheap_prediction():
    """The notebook and the pair of cells, question and experiment, for which least has to run."""
    pairs = [
        (len(cells_needed(cells_of(path), pair)), path, pair)
        for path in NOTEBOOKS
        for pair in predictions(cells_of(path))
    ]
    assert pairs, "no notebook asks for a prediction"
    return min(pairs)[1:]


def test_a_prediction_is_answered_by_the_next_cell(open_page):
    path, (question, experiment) = has_a_cheap_prediction()
    page = open_page(path.name)
    needed = cells_needed(cells_of(path), (question, experiment))
    run(page, needed[:-1])
    cell = page.find(".jp-Notebook .jp-Cell")[question]
    choice = page.find(".widget-radio-box label", cell)[0]
    said = choice.text
    choice.click()
    wait_for("the choice to be noted", lambda: f"Noted: {said.rstrip('.')}" in cell.text, 20)
    run(page, needed[-1:])
    answer = f"You said {said.rstrip('.')}"
    wait_for("an answer below the question", lambda: answer in cell.text, 20)
    assert answer in page.find(".jp-Notebook .jp-Cell")[experiment].text


# What every page shares, on a page of its own that needs no training: one worker has it.

SHARED = pytest.mark.xdist_group("trial")


def trial():
    """A notebook with every kind of widget."""
    sources = [
        "from diffusion_walkthrough.classroom import live, plots, widgets\n"
        "from diffusion_walkthrough.classroom.predict import predict\n"
        "import numpy as np\n"
        "def drawn(t, kind):\n"
        "    line = live.curves([0, 9], {kind: [0, t]}, 'a line', limits=(0, 9))\n"
        "    return live.row(live.pixels(np.full((8, 8), t / 9), f'{t}'), line), f'{kind} at {t}'\n"
        "controls = {'t': widgets.slider('t', range(10), 3),"
        " 'kind': widgets.choice('kind', ['up', 'down', 'level'])}\n"
        "live_one = widgets.explore(drawn, 'A slider and a menu.', **controls)",
        "def figure(steps):\n"
        "    figure, axes = plots.new_figure(width=3)\n"
        "    axes.plot(range(steps))\n"
        "    return figure, f'{steps} steps'\n"
        "steps = widgets.slider('T', [2, 5, 10, 50], 5)\n"
        "slow_one = widgets.explore(figure, 'A slider.', steps=steps)",
        "guess = predict('Which one is it?', 'the first', 'the second', 'the third')",
        "guess.reveal('the second', 'It is in the middle.')",
        "guess = predict('How many are there?')",
        "guess.reveal(1234, 'We counted them.')",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def open_trial(browser, server):
    page = Page(browser, server, "trial.ipynb")
    run(page, range(6))
    yield page
    server.end_kernels()


@pytest.fixture
def trial_page(open_trial, keep_screen):
    """The same page for all tests below."""
    return open_trial


def prompts(page):
    return [cell["prompt"].strip() for cell in page.cells()]


@SHARED
def test_single_keys_stay_with_the_widget_that_has_the_focus(trial_page):
    page, before = trial_page, prompts(trial_page)
    for control in page.find(f"{CONTROLS}, .widget-radio-box input, .widget-text input"):
        for keys in ("m", "dd", "a", "x", "00"):
            page.focus(control)
            page.press(*keys)
    time.sleep(1)
    page.refuse_dialogs()
    assert prompts(page) == before
    assert all(cell["code"] for cell in page.cells())


@SHARED
def test_every_control_has_a_name_and_says_its_value(trial_page):
    page = trial_page
    t, kind, steps = page.find(CONTROLS)
    assert [page.name_of(control) for control in (t, kind, steps)] == ["t", "kind", "T"]
    assert steps.get_attribute("aria-valuetext") == "5"
    page.focus(steps)
    assert page.step(steps)
    wait_for("its value", lambda: steps.get_attribute("aria-valuetext") == "10", 10)
    (radios,) = page.find(".widget-radio-box")
    assert (radios.aria_role, page.name_of(radios)) == ("radiogroup", "Which one is it?")
    (entry,) = page.find(".widget-text input")
    assert page.name_of(entry) == "How many are there?"


@SHARED
def test_a_choice_made_by_keyboard_survives_shift_enter(trial_page):
    """Shift+Enter on the question runs the question's cell again, and then the experiment's."""
    page = trial_page
    run(page, [2])
    wait_for("its choices", lambda: page.find(".widget-radio-box input"), 20)
    page.focus(page.find(".widget-radio-box input")[0])
    page.press(" ")
    page.press(Keys.ARROW_DOWN)
    cell = page.find(".jp-Notebook .jp-Cell")[2]
    wait_for("the choice to be noted", lambda: "Noted: the second" in cell.text, 10)
    asked = prompts(page)[2]
    page.press(Keys.SHIFT, Keys.ENTER)
    wait_for("the question again", lambda: re.fullmatch(r"\[\d+\]:", prompts(page)[2]), 20)
    assert prompts(page)[2] != asked
    wait_for("the choice to be there still", lambda: "Noted: the second" in cell.text, 10)
    page.press(Keys.SHIFT, Keys.ENTER)
    answer = "You said the second, and so it is."
    wait_for("the answer", lambda: answer in page.find(".jp-Notebook .jp-Cell")[3].text, 20)
    assert answer in cell.text


@SHARED
def test_a_number_is_answered_after_the_experiment_too(trial_page):
    page = trial_page
    (entry,) = page.find(".widget-text input")
    page.focus(entry)
    page.press(Keys.CONTROL, "a")
    page.press(*"1.230,5", Keys.ENTER)
    cell = page.find(".jp-Notebook .jp-Cell")[4]
    close = "You said 1,230, which is close: it is 1,234. We counted them."
    wait_for("an answer", lambda: "You said" in cell.text, 10)
    assert close in cell.text


@SHARED
def test_after_a_number_and_enter_the_keyboard_runs_the_cells(trial_page):
    page = trial_page
    run(page, [4])
    wait_for("the question", lambda: len(page.find(".widget-text input")) == 1, 20)
    page.focus(page.find(".widget-text input")[0])
    page.press(*"1300", Keys.ENTER)
    for _ in range(2):
        page.press(Keys.SHIFT, Keys.ENTER)
        time.sleep(1)
    wait_for("an idle kernel", page.kernel_is_idle, 20)
    answer = "You said 1,300, which is close: it is 1,234."
    cell = page.find(".jp-Notebook .jp-Cell")[5]
    wait_for("the answer", lambda: "You said" in cell.text, 20)
    assert answer in cell.text


@SHARED
def test_pictures_keep_their_size_however_wide_the_window_is(trial_page):
    page = trial_page
    for width in (2200, 700, 1400):
        page.driver.set_window_size(width, 1000)
        time.sleep(0.5)
        assert page.widest_overflow() <= 1


@SHARED
def test_fast_moves_make_no_queue(trial_page):
    """The page waits for the kernel and leaves out what lies between: the last value counts."""
    page = trial_page
    slider = page.find(".noUi-handle")[1]
    page.focus(slider)
    for _ in range(10):
        page.press(*[Keys.ARROW_LEFT] * 3, *[Keys.ARROW_RIGHT] * 3)
    area = slider.find_element("xpath", OUTPUT)
    began = time.monotonic()
    wait_for("the last value", lambda: "50 steps" in area.text, 10)
    wait_for("an idle kernel", page.kernel_is_idle, 10)
    assert time.monotonic() - began < 8  # 60 figures would take longer


@SHARED
def test_a_page_saved_alive_can_be_opened_again(trial_page, folder, server):
    """The last test of this page, whose kernel it ends."""
    page = trial_page
    page.focus(page.find(".noUi-handle")[0])
    page.press(Keys.CONTROL, "s")
    state = "application/vnd.jupyter.widget-state+json"
    wait_for("the saved page", lambda: state in (folder / "trial.ipynb").read_text(), 20)
    # Where a kernel starts slowly, JupyterLab now and then asks only the kernel for the widgets.
    assert any(comes_back(page.driver, server) for _ in range(6))


def comes_back(driver, server):
    """Whether the saved page shows its sliders again, in a kernel that knows nothing of them."""
    server.end_kernels()
    page = Page(driver, server, "trial.ipynb")
    assert not page.find(".Toastify__toast")
    try:
        wait_for("the sliders", lambda: len(page.find(".noUi-handle")) == 2, 10)
    except LabError:
        return False
    return "model not found" not in driver.page_source


# What these tests are made of.


def test_what_a_widget_builds_on_is_found():
    sources = ["import a", "b = a + 1", "c = 2", "def f(x):\n    c = 1\n    return b + x", "f"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    mark = {"diffusion_walkthrough": {"widget": True}}
    data = {"text/plain": "A slider."}
    cells[-1].outputs = [nbformat.v4.new_output("display_data", data, metadata=mark)]
    assert widget_cells(cells) == [4]
    assert cells_needed(cells, [4]) == needed_in(cells) == [0, 1, 3, 4]
    assert cells_needed(cells, []) == [0]


def test_a_cell_s_own_names_are_no_reason_to_run_another():
    sources = ["import a", "k = 1", "n = 2", "for k in range(n):\n    m = k", "m, [k for k in a]"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    assert cells_needed(cells, [4]) == [0, 2, 3, 4]
    cells[3] = nbformat.v4.new_code_cell("m = k\nk = n")
    assert cells_needed(cells, [4]) == [0, 1, 2, 3, 4]


def test_predictions_are_found():
    ask, number = 'guess = predict("Which?", "one", "two")', 'guess = predict("How many?")'
    reveal = 'x = 1\nguess.reveal("one", "So.")'
    sources = [ask, reveal, number, reveal, ask, "x", reveal, ask, 'other.reveal("one", "So.")']
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells.insert(1, nbformat.v4.new_markdown_cell("Now look."))
    assert predictions(cells) == [(0, 2)]


def test_what_is_made_less_is_there():
    sources = [cell.source for path in NOTEBOOKS for cell in cells_of(path)]
    assert [much for much in LESS if sum(much in source for source in sources) != 1] == []


def test_there_are_notebooks_to_open():
    assert NOTEBOOKS, "notebooks/ holds no notebook"
