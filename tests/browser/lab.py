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
# No news toast over the page, and every cell on the page: not only those that fit the window.
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
# What a picture shows, whatever its address: its size and its pixels.
PIXELS = """
return Array.from(arguments[0].querySelectorAll('img')).map(img => {
  if (!img.complete || !img.naturalWidth) { return null; }
  const canvas = document.createElement('canvas');
  canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
  canvas.getContext('2d').drawImage(img, 0, 0);
  return canvas.toDataURL();
});
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

    def move(self, control: WebElement) -> None:
        """Move a slider by one key press, or choose a list's next entry; back from the end."""
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus();", control
        )
        if control.tag_name == "select":
            # By mouse: JupyterLab takes the arrow keys of a list for its own.
            entries = Select(control)
            chosen = entries.options.index(entries.first_selected_option)
            at_end = chosen == len(entries.options) - 1
            entries.select_by_index(chosen - 1 if at_end else chosen + 1)
            return
        at_end = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        key = Keys.ARROW_LEFT if at_end else Keys.ARROW_RIGHT
        ActionChains(self.driver).send_keys(key).perform()

    def picture_sizes(self) -> list[int]:
        """The widths of all pictures below cells, 0 for one that cannot be shown."""
        return self.driver.execute_script(WIDTHS)

    def pictures(self, area: WebElement) -> list[str | None]:
        """The pixels of the pictures in one output."""
        return self.driver.execute_script(PIXELS, area)
