"""What all tests share."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

PACKAGE = "diffusion_walkthrough"

# A shared machine is slow now and then; how long an example takes is not what is tested.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# `make mutants` has the package imported with a published mistake in it (tools/mutants.py).
if os.environ.get("MUTANT"):
    import mutants

    mutants.switch_on(os.environ["MUTANT"])


class OwnCores:
    """Gives the notebooks of each of several workers its share of the cores: they wait less.

    A plugin, as the hooks of this file are not called for notebooks, which lie elsewhere. All
    cores, which share a batch then (``engine.cores``), are for tests, and for two pages that train.
    """

    ON_ALL = ("00_start_here.ipynb", "08b_the_machine.ipynb")

    def __init__(self, worker, workers):
        """For the worker of a number from 0 on."""
        self.all = sorted(os.sched_getaffinity(0))
        own = len(self.all) // workers
        self.own = self.all[worker * own : (worker + 1) * own] or self.all

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        """A notebook's kernel, which starts here, has the cores of its worker."""
        is_shared = item.path.suffix == ".ipynb" and item.path.name not in self.ON_ALL
        os.sched_setaffinity(0, self.own if is_shared else self.all)


def pytest_configure(config):
    """Share the cores out, where the system can."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.pluginmanager.register(OwnCores(int(worker.removeprefix("gw")), workers))


@pytest.fixture(autouse=True)
def nothing_is_cut_off(request, monkeypatch):
    """Each figure that is drawn in a test of the classroom holds all of its letters."""
    if request.path.parent.name != "classroom":
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    draw = FigureCanvasAgg.draw

    def draw_and_look(canvas):
        draw(canvas)
        figure = canvas.figure
        inches, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        beyond = max(-inches.x0, -inches.y0, inches.x1 - width, inches.y1 - height)
        assert beyond * figure.dpi < 1, f"{beyond * figure.dpi:.1f} pixels are beyond the edge"

    monkeypatch.setattr(FigureCanvasAgg, "draw", draw_and_look)


# What takes longest starts first, or one of two workers would end with it alone. A file that is not
# named here takes less than 15 s.
SLOWEST_FIRST = (
    "10_guidance.ipynb", "05_training.ipynb", "09_faster_sampling.ipynb", "test_data_sets.py",
    "test_faster_sampling.py", "06_backward_sampling.ipynb", "08b_the_machine.ipynb",
    "11_flow_matching.ipynb", "test_checkpoints.py", "test_backward_sampling.py",
    "07_evaluation.ipynb", "00_start_here.ipynb", "test_training_choices.py",
    "07b_new_images.ipynb", "test_running.py", "04b_the_bound.ipynb", "test_patients.py",
    "test_commands.py", "test_resuming.py", "test_published_weights.py", "test_scaling_up.py",
    "08_scaling_up.ipynb", "test_loss.py", "test_precision.py", "test_guidance.py",
    "test_drawing.py", "12_bug_hunt.ipynb", "test_corpus.py", "test_memory.py", "test_devices.py",
    "test_counting.py", "test_faster_sampling_exercises.py", "test_unet.py", "test_callbacks.py",
    "test_plan.py", "test_cores.py", "test_training.py", "04_loss.ipynb", "03b_unet_deeper.ipynb",
    "test_random_parameters.py", "03_unet.ipynb", "test_kills.py", "test_guarding.py",
)  # fmt: skip


def place_in_line(item):
    """The number of a test's file among the slowest, the first of which is 0."""
    names = [*SLOWEST_FIRST, item.path.name]
    return names.index(item.path.name)


def has_keras(module):
    """Whether a module has Keras, or a part of it, at hand: it computes with tensors."""
    parts = [value for value in vars(module).values() if isinstance(value, ModuleType)]
    return any(part.__name__.partition(".")[0] == "keras" for part in parts)


def computes_with_tensors(module):
    """Whether a test file imports Keras, if only in a test, or takes something from who has it."""
    text = Path(module.__file__).read_text("utf-8")
    if "import keras" in text or "from keras" in text:
        return True
    homes = {getattr(value, "__module__", None) or "" for value in vars(module).values()}
    return any(has_keras(sys.modules[home]) for home in homes if home.startswith(PACKAGE))


def pytest_collection_modifyitems(items):
    """Put the slowest files first, and mark the tests whose answer may depend on the backend."""
    items.sort(key=place_in_line)
    modules = {item.module for item in items if hasattr(item, "module")}
    tensors = {module for module in modules if computes_with_tensors(module)}
    for item in items:
        if getattr(item, "module", None) in tensors:
            item.add_marker("tensors")
