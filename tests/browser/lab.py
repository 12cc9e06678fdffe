"""A JupyterLab server of our own, and a notebook in it as a person sees it in Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

TOKEN = "browser-test"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1400,1000",
)  # fmt: skip
# Every cell on the page: not only those that fit the window.
SETTINGS = {"notebook-extension/tracker": '{"windowingMode": "none"}'}
# What the pictures in an element show; null while one of them is not there yet.
DRAWN = """
const pictures = Array.from(arguments[0].querySelectorAll('img, svg'));
if (pictures.some(part => part.tagName === 'IMG' && !(part.complete && part.naturalWidth))) {
  return null;
}
return pictures.map(part => part.tagName === 'IMG' ? part.src : part.outerHTML).join('\\n') || null;
"""
# From now on, the time from each key press in an element until a frame shows its new picture.
WATCH = """
const [area] = arguments;
const drawn = () => Array.from(area.querySelectorAll('img, svg'))
  .map(part => part.tagName === 'IMG' ? part.src : part.outerHTML).join('\\n');
let before = drawn(), pressed = null;
window.delays = [];
if (window.watching) { window.watching.disconnect(); window.pressing.abort(); }
window.pressing = new AbortController();
const options = {capture: true, signal: window.pressing.signal};
area.addEventListener('keydown', event => { pressed = event.timeStamp; }, options);
window.watching = new MutationObserver(() => {
  const now = drawn();
  if (pressed === null || now === before || !now) { return; }
  const began = pressed;
  [before, pressed] = [now, null];
  requestAnimationFrame(() => setTimeout(() => window.delays.push(performance.now() - began)));
});
window.watching.observe(area, {attributes: true, childList: true, subtree: true});
"""
# By how many CSS pixels a picture of a widget is wider than its output, or than it was drawn;
# what `live` enlarges on purpose is pixelated.
OVERFLOW = """
const widths = Array.from(document.querySelectorAll('.classroom img, .classroom svg')).map(part => {
  const box = part.getBoundingClientRect();
  const place = part.closest('.jp-OutputArea-output').getBoundingClientRect();
  const enlarged = part.tagName === 'IMG' && getComputedStyle(part).imageRendering !== 'pixelated'
    ? box.width - part.naturalWidth : 0;
  return Math.max(enlarged, part.parentElement.closest('svg') ? 0 : box.right - place.right);
});
return Math.max(0, ...widths);
"""
WIDTHS = """
const images = Array.from(document.querySelectorAll('.jp-Notebook .jp-OutputArea img'));
return images.map(img => img.complete ? img.naturalWidth : 0);
"""
# Each cell: whether it is code, its prompt, and the last line of each traceback below it.
# JupyterLab gives errors the type of stderr, so that only their text tells them from a warning.
CELLS = """
const red = '[data-mime-type="application/vnd.jupyter.stderr"]';
return Array.from(document.querySelectorAll('.jp-Notebook .jp-Cell')).map(cell => ({
  code: cell.classList.contains('jp-CodeCell'),
  prompt: (cell.querySelector('.jp-InputPrompt') || {}).textContent || '',
  errors: Array.from(cell.querySelectorAll(red)).map(output => output.innerText.trim())
    .filter(text => text.includes('Traceback')).map(text => text.split('\\n').pop()),
}));
"""


class LabError(AssertionError):
    """Something a person at the screen would have seen go wrong."""


def wait_for(what: str, condition, deadline: float, pause: float = 0.2):
    """The first true value of a condition; a LabError says what did not come about in time."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(pause)
    raise LabError(f"waited {deadline:.0f} s in vain for {what}")


def first_program(names: tuple[str, ...], remedy: str) -> str:
    """The path of the first program of these names that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise LabError(f"none of {', '.join(names)} is installed. {remedy}")


def start_browser(profile: Path) -> webdriver.Chrome:
    """Chromium without a window, with a profile of its own."""
    remedy = "On Debian and Ubuntu: apt install chromium chromium-driver."
    options = webdriver.ChromeOptions()
    options.binary_location = first_program(
        ("chromium", "chromium-browser", "google-chrome"), remedy
    )
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = first_program(("chromedriver",), remedy)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


class Server:
    """One JupyterLab server on a folder, with nothing of the user's own settings."""

    def __init__(self, root: Path, home: Path):
        """Start it on a free port and wait until it answers."""
        write_settings(home / "settings")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.log = home / "server.log"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += [f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={TOKEN}"]
        command += [f"--ServerApp.port={self.url.rpartition(':')[2]}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=root, env=private_environment(home), stdout=log, stderr=log
            )
        wait_for(f"the server to answer (its log: {self.log})", self.answers, 60)

    def answers(self) -> bool:
        """Whether the server is there; a LabError if it has died."""
        if self.process.poll() is not None:
            raise LabError(f"the JupyterLab server stopped:\n{self.log.read_text()[-2000:]}")
        try:
            return bool(self.request("/api/status"))
        except urllib.error.URLError:
            return False

    def request(self, path: str, method: str = "GET") -> bytes:
        """Ask the server's own interface."""
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def end_kernels(self) -> None:
        """Give back the memory of the notebooks that were open."""
        for session in json.loads(self.request("/api/sessions")):
            self.request(f"/api/sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        """End the server and its kernels."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def private_environment(home: Path) -> dict[str, str]:
    """Environment variables that point every Jupyter directory into one folder."""
    names = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }  # fmt: skip
    return {**os.environ, **{name: str(home / folder) for name, folder in names.items()}}


def write_settings(folder: Path) -> None:
    """The settings that these tests need, as JupyterLab stores a user's."""
    for name, text in SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Page:
    """One notebook open in JupyterLab."""

    def __init__(self, driver: webdriver.Chrome, server: Server, name: str):
        """Open it and wait until its kernel is ready."""
        self.driver = driver
        driver.get(f"{server.url}/lab/tree/{name}?token={TOKEN}&reset")
        wait_for("the notebook's cells", self.cells, 60)
        wait_for("a kernel", self.has_kernel, 60)
        wait_for("an idle kernel", self.kernel_is_idle, 60)

    def find(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        """The elements of a CSS selector, on the page or within one of them."""
        return (within or self.driver).find_elements(By.CSS_SELECTOR, selector)

    def cells(self) -> list[dict]:
        """Each cell: whether it is code, its prompt, its errors."""
        return self.driver.execute_script(CELLS)

    def has_kernel(self) -> bool:
        """Whether the toolbar names a kernel: before that, the circle looks idle too."""
        names = [name.text for name in self.find(".jp-NotebookPanel .jp-Toolbar-kernelName")]
        return any(name and name != "No Kernel" for name in names)

    def kernel_is_idle(self) -> bool:
        """Whether the circle in the notebook's toolbar says that the kernel waits."""
        self.refuse_dialogs()
        selector = ".jp-NotebookPanel .jp-Notebook-ExecutionIndicator"
        return any(e.get_attribute("data-status") == "idle" for e in self.find(selector))

    def refuse_dialogs(self) -> None:
        """A question on the screen stops everything: say which."""
        for dialog in self.find(".jp-Dialog"):
            raise LabError(f"JupyterLab asks: {' / '.join(dialog.text.splitlines())}")

    def run_cell(self, index: int) -> None:
        """Choose a cell and press Ctrl+Enter, as soon as the page is ready for it."""
        prompt = self.find(".jp-Notebook .jp-Cell")[index].find_element(
            By.CSS_SELECTOR, ".jp-InputPrompt"
        )
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'});", prompt)
        prompt.click()
        keys = ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER)
        keys.key_up(Keys.CONTROL).perform()
        wait_for(f"cell {index + 1} to start", lambda: self.has_started(index), 30)

    def has_started(self, index: int) -> bool:
        """Whether a cell waits for the kernel, runs, or has run."""
        return bool(re.search(r"\[[*\d]", self.cells()[index]["prompt"]))

    def focus(self, control: WebElement) -> None:
        """Bring a control into view, with the keyboard on it."""
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus();", control
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other; the first ones are held if they are Shift or Ctrl."""
        actions = ActionChains(self.driver)
        held = [key for key in keys if key in (Keys.SHIFT, Keys.CONTROL)]
        for key in held:
            actions.key_down(key)
        actions.send_keys(*[key for key in keys if key not in held])
        for key in held:
            actions.key_up(key)
        actions.perform()

    def step(self, control: WebElement, back: bool = False) -> bool:
        """Move a slider or a menu by one key press; False, and no key, if it is at that end."""
        if control.tag_name == "select":
            entries = Select(control)
            place = entries.options.index(entries.first_selected_option)
            last = len(entries.options) - 1
            key = Keys.ARROW_UP if back else Keys.ARROW_DOWN
        else:
            ends = ("aria-valuenow", "aria-valuemin", "aria-valuemax")
            place, first, last = (float(control.get_attribute(name)) for name in ends)
            place, last = place - first, last - first
            key = Keys.ARROW_LEFT if back else Keys.ARROW_RIGHT
        if place == (0 if back else last):
            return False
        self.press(key)
        return True

    def click_beside(self, handle: WebElement) -> None:
        """Click on a slider's track, at the quarter that is farther from its handle."""
        track = handle.find_element("xpath", "ancestor::div[contains(@class, 'noUi-base')]")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'});", track)
        middle = track.rect["x"] + track.rect["width"] / 2
        at_right = handle.rect["x"] + handle.rect["width"] / 2 > middle
        aside = int(track.rect["width"] / 4) * (-1 if at_right else 1)
        ActionChains(self.driver).move_to_element_with_offset(track, aside, 0).click().perform()

    def delays(self) -> list[float]:
        """Milliseconds from key press to picture, since the last `watch`."""
        return self.driver.execute_script("return window.delays")

    def has_followed(self, before: int, deadline: float) -> bool:
        """Wait for one more picture than there were; False if none comes in these seconds."""
        try:
            wait_for("the picture", lambda: len(self.delays()) > before, deadline, 0.02)
        except LabError:
            return False
        return True

    def watch(self, area: WebElement) -> None:
        """Measure from now on how long pictures in an element take to follow a key press."""
        self.driver.execute_script(WATCH, area)

    def name_of(self, control: WebElement) -> str:
        """What a screen reader calls a control."""
        return control.accessible_name

    def picture_sizes(self) -> list[int]:
        """The widths of all pictures below cells, 0 for one that cannot be shown."""
        return self.driver.execute_script(WIDTHS)

    def widest_overflow(self) -> float:
        """By how many pixels a picture of a widget sticks out, or is enlarged, at most."""
        return self.driver.execute_script(OVERFLOW)

    def drawn(self, area: WebElement) -> str | None:
        """What the pictures in one output show; None if there is none yet."""
        return self.driver.execute_script(DRAWN, area)
