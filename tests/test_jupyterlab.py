"""A reader's session, played: JupyterLab, Debian's Chromium, run all, move a slider, paint.

Nothing is stubbed. Where Chromium or its driver is missing the tests say so and skip, but not
under CI=true: there they fail, so that nobody believes to have run them.
"""

import base64
import functools
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy
import psutil
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HOUSE = Path(__file__).parents[1]
LECTURES = sorted((HOUSE / "lectures").glob("*.ipynb"))
PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
PATIENCE = 180  # seconds for JupyterLab's first page; a busy machine needs them
SETTINGS = {
    # nothing reaches for the network, and every cell is in the page, also far below the screen
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}

PREDICTOR = """
import math
import torch
from coursekit import portraits
from coursekit.classroom import widgets
from coursekit.diffusion.schedule import Schedule
from coursekit.edits import sdedit

g = torch.Generator().manual_seed(0)
known = portraits.render(portraits.sample(6, g, **portraits.TRAINING))
schedule = Schedule.cosine()

def eps(x, t):
    # the exact predictor of six blurred portraits
    a = schedule.level(t)
    var = a * 0.15**2 + 1 - a
    gap = (x[:, None] - math.sqrt(a) * known[None]).flatten(2).square().sum(2)
    mean = torch.einsum("bk,kchw->bchw", (-gap / (2 * var)).softmax(1), known)
    return math.sqrt(1 - a) * (x - math.sqrt(a) * mean) / var
"""
CELLS = [
    PREDICTOR,
    "widgets.NoiseLevel(eps, schedule, known[:2])",
    "widgets.ElboTerms(eps, schedule, known[:1], path=schedule.trailing(10))",
    "widgets.SamplingPath(eps, schedule, torch.randn(2, 3, 64, 64, generator=g), steps=(5, 10))",
    "widgets.RoundTrip(eps, schedule, known[:1], steps=(5, 10))",
    "widgets.StrokeEditor(sdedit.edit, eps, schedule, portraits.strokes(known[:1]), eta=0.0)",
]


def missing():
    absent = [name for name, found in PROGRAMS.items() if found is None]
    try:
        import selenium  # noqa: F401
    except ImportError:
        absent.append("selenium")
    return absent


@pytest.fixture(scope="module", autouse=True)
def browser_is_there():
    if missing():
        reason = f"not installed: {', '.join(missing())} (Debian: chromium chromium-driver)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


# ---- the two programs -----------------------------------------------------------------------


def until(condition, seconds, what):
    """The first true answer of `condition`, asked again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def gone(processes):
    """Ends what is still there, and says which of them had not ended by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    return alive


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the reader works: the test's own notebook, and copies of the lectures."""
    folder = tmp_path_factory.mktemp("reader")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "explorers.ipynb")
    for lecture in LECTURES:
        shutil.copy(lecture, folder)
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """A JupyterLab of its own on localhost; yields its address with the token."""
    home, token = tmp_path_factory.mktemp("home"), secrets.token_hex(16)
    for name, settings in SETTINGS.items():
        file = home / "config/lab/user-settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    path = os.pathsep.join(filter(None, [str(HOUSE), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "PYTHONPATH": path, "HOME": str(home), "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_TOKEN": token,
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
               "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}",
               "--LabApp.expose_app_in_browser=True"]
    log = home / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)

    def started():
        assert process.poll() is None, log.read_text()
        return next((home / "runtime").glob("jpserver-*.json"), None)

    family = [psutil.Process(process.pid)]
    try:
        card = json.loads(until(started, PATIENCE, "JupyterLab's start").read_text())
        yield f"http://127.0.0.1:{card['port']}/lab/tree/{{}}?token={token}"
    finally:
        family += family[0].children(recursive=True) if family[0].is_running() else []
        process.terminate()
        left = gone(family)
    assert left == [], "JupyterLab or a kernel outlived the test"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a screen, with an empty profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS["chromium"]
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                     "disable-background-networking", "no-first-run", "window-size=1400,1400",
                     f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, Service(PROGRAMS["chromedriver"]))
    driver.set_script_timeout(PATIENCE)
    driver.set_page_load_timeout(PATIENCE)
    family = [psutil.Process(driver.service.process.pid)]
    family += family[0].children(recursive=True)
    try:
        yield driver
    finally:
        driver.quit()
        left = gone(family)
    assert left == [], "Chromium outlived the test"


# ---- what a reader does ---------------------------------------------------------------------

STATE = """
const panel = window.jupyterapp?.shell.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
if (!kernel || !panel.content) return null;
const cells = panel.content.widgets.filter(c => c.model.type === "code").map(c => c.model);
const outputs = cells.flatMap(c => c.outputs.toJSON());
return {kernel: kernel.status, run: cells.filter(c => c.executionCount !== null).length,
        cells: cells.filter(c => c.sharedModel.source.trim()).length,
        errors: outputs.filter(o => o.output_type === "error").map(o => o.evalue)};
"""


def open_and_run(browser, server, name, seconds):
    """Opens a notebook and runs all its cells; none fails."""
    browser.get(server.format(name))
    until(lambda: (browser.execute_script(STATE) or {}).get("kernel") == "idle", PATIENCE,
          "a kernel for the notebook")
    browser.execute_script("""
        const notebook = window.jupyterapp.shell.currentWidget.content;
        for (const cell of notebook.widgets) if (cell.model.type === "code")
            cell.model.clearExecution();
        window.jupyterapp.commands.execute("notebook:run-all-cells");""")

    def done():
        state = browser.execute_script(STATE)
        assert not state["errors"], state["errors"]
        return state["kernel"] == "idle" and state["run"] == state["cells"]

    until(done, seconds, f"{name}: all cells run")


def explorers(browser):
    """The explorers on the page, each scrolled to when asked for."""
    return browser.find_elements("css selector", ".widget-vbox:has(> .widget-html-content figure),"
                                 ".widget-vbox:has(> .widget-html figure)")


def pictures(explorer):
    """What an explorer shows: text alternative -> picture."""
    return {img.get_attribute("alt"): img.get_attribute("src")
            for img in explorer.find_elements("css selector", ".widget-html img")}


def pixels(element):
    return numpy.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))
