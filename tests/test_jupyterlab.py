"""A reader's session, played: JupyterLab, Debian's Chromium, run cells, move a slider, paint.

Of a lecture those cells are run that its explorers need: `test_lectures` runs them all. Nothing is
stubbed. Where Chromium or its driver is missing the tests say so and skip, but not under CI=true:
there they fail, so that nobody believes to have run them.
"""

import ast
import base64
import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from symtable import symtable

import nbformat
import numpy
import psutil
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800),
              pytest.mark.xdist_group("browser")]  # one JupyterLab, one Chromium

HOUSE = Path(__file__).parents[1]
LECTURES = sorted((HOUSE / "lectures").glob("*.ipynb"))
PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
PATIENCE = 300  # seconds for whatever an idle machine does in ten: start, open, answer
RUN = 900  # seconds for all cells of a lecture; an idle machine needs less than 180
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
    "from coursekit.bench.widgets import PROMPT, text_to_image\n"
    "sd = text_to_image(0, 'cpu')\n"
    "widgets.AttentionMaps(sd, PROMPT, sd.noise(1, g), steps=5)",
    "widgets.GuidanceWeight(sd, PROMPT, sd.noise(1, g), weights=(1, 2, 3, 5, 8), steps=(2, 3))",
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
    _, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    return alive


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the reader works: a copy of the lectures, and the test's own notebook."""
    folder = tmp_path_factory.mktemp("reader") / "lectures"
    shutil.copytree(HOUSE / "lectures", folder)
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "explorers.ipynb")
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
        yield f"http://127.0.0.1:{card['port']}/lab/tree/{{}}?reset&token={token}"
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
    options.page_load_strategy = "eager"  # JupyterLab is there long after its page has loaded
    driver = webdriver.Chrome(options, Service(PROGRAMS["chromedriver"]))
    # JupyterLab's current notebook is the one with focus, and a window without a screen may have none
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    family = [psutil.Process(driver.service.process.pid)]
    family += family[0].children(recursive=True)
    try:
        yield driver
    finally:
        try:
            driver.quit()
        finally:
            left = gone(family)
    assert left == [], "Chromium outlived the test"


# ---- what a reader does ---------------------------------------------------------------------

STATE = """
const panel = window.jupyterapp?.shell.currentWidget;
const kernel = panel?.sessionContext?.session?.kernel;
if (!kernel || panel.context.path !== arguments[0]) return null;
const cells = panel.content.widgets.filter((c, i) => c.model.type === "code" && (
    !arguments[1] || arguments[1].includes(i))).map(c => c.model);
const outputs = cells.flatMap(c => c.outputs.toJSON());
return {kernel: kernel.status, run: cells.filter(c => c.executionCount !== null).length,
        cells: cells.filter(c => c.sharedModel.source.trim()).length,
        errors: outputs.filter(o => o.output_type === "error").map(o => o.traceback.join(" "))};
"""


def open_and_run(browser, server, name, seconds, only=None):
    """Opens a notebook and runs its cells, or those with the given numbers; none fails."""
    browser.get(server.format(name))
    until(lambda: (browser.execute_script(STATE, name, only) or {}).get("kernel") == "idle",
          PATIENCE, f"{name}: a kernel")
    browser.execute_script("""
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.deselectAll();
        notebook.widgets.forEach((cell, i) => {
            if (cell.model.type !== "code" || (arguments[0] && !arguments[0].includes(i))) return;
            cell.model.clearExecution();
            notebook.activeCellIndex = i;  // the active cell is run even where it is not selected
            notebook.select(cell);
        });
        window.jupyterapp.commands.execute("notebook:run-cell");""", only)

    def done():
        state = browser.execute_script(STATE, name, only)
        if state is None:  # the kernel is between two states
            return False
        assert not state["errors"] and state["kernel"] != "dead", state
        return state["kernel"] == "idle" and state["run"] == state["cells"]

    until(done, seconds, f"{name}: all cells run")


def explorers(browser):
    return browser.find_elements("css selector", ".jp-OutputArea-output > .widget-vbox")


def views(explorer):
    """What an explorer shows: text alternative -> picture; read at once, as it may change."""
    return explorer.parent.execute_script("""
        const pictures = arguments[0].querySelectorAll(".widget-html img");
        return Object.fromEntries([...pictures].map(img => [img.alt, img.src]));""", explorer)


def picture(explorer, what):
    """The first picture whose text alternative matches."""
    return next(src for alt, src in views(explorer).items() if re.search(what, alt))


def pixels(element):
    """A screenshot of the element, (h, w, 3) uint8."""
    return numpy.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


def assert_content(picture):
    """A screenshot shows something: many colours, none of which fills nearly all of it."""
    _, counts = numpy.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(counts) > 200 and counts.max() < 0.97 * counts.sum()


PAINTING, RESULT = r"^the \w+ on the canvas$", r"^what "  # alt texts

VIEW = """
const [explorer] = arguments, view = explorer.querySelector("[role=status]").closest(".widget-html");
"""
WATCH = VIEW + """
let pressed = null;
window.lags = [];
explorer.addEventListener("keydown", () => { pressed = performance.now(); }, true);
new MutationObserver(() => requestAnimationFrame(() => {  // the frame in which it is drawn
    if (pressed !== null) window.lags.push(performance.now() - pressed);
    pressed = null;
})).observe(view, {childList: true, subtree: true});
"""


def press_arrows(browser, explorer, n):
    """Moves the explorer's first slider n times; milliseconds until each new picture is drawn."""
    from selenium.webdriver import Keys

    handle = explorer.find_element("css selector", ".noUi-handle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", explorer)
    browser.execute_script(WATCH, explorer)
    def view():  # pictures, or a plot whose cursor moves, and the sentence below
        return browser.execute_script(VIEW + "return view.innerHTML", explorer)

    for i in range(n):
        before = view()
        handle.send_keys(Keys.ARROW_RIGHT if i % 4 < 2 else Keys.ARROW_LEFT)
        until(lambda i=i: len(browser.execute_script("return window.lags")) > i, PATIENCE,
              "a new picture after the slider moved")
        assert view() != before
    return browser.execute_script("return window.lags")


def paint(browser, editor):
    """A stroke of 140 pixels across the canvas; screenshots of it before and after.

    Returns when the stroke has become a picture of the kernel's and then a new result.
    """
    from selenium.webdriver import ActionChains

    canvas = editor.find_element("css selector", "canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    blank, before = pixels(canvas), {what: picture(editor, what) for what in (PAINTING, RESULT)}
    hand = ActionChains(browser).move_to_element_with_offset(canvas, -70, 0).click_and_hold()
    for _ in range(7):
        hand = hand.move_by_offset(20, 5)
    hand.release().perform()
    for what in (PAINTING, RESULT):
        until(lambda what=what: picture(editor, what) != before[what], PATIENCE,
              f"another view of {what}")
    return blank, pixels(canvas)


# ---- the tests ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(browser, server):
    open_and_run(browser, server, "explorers.ipynb", RUN)
    until(lambda: len(explorers(browser)) == 7, PATIENCE, "seven explorers on the page")
    return explorers(browser)


@pytest.mark.parametrize("which", [0, 1, 2, 3, 5, 6], ids=[
    "noise", "elbo", "path", "round-trip", "attention", "guidance"])
def test_a_slider_moves_the_picture_within_200_ms(browser, opened, which):
    explorer = opened[which]
    p95 = numpy.percentile(press_arrows(browser, explorer, 20), 95)
    print(f"95th percentile in the browser: {p95:.0f} ms")
    assert_content(pixels(explorer))
    if os.getloadavg()[0] <= 1.5 * os.cpu_count():  # else this measures what others do
        assert p95 <= 200


def test_the_mouse_paints_and_the_strokes_become_a_picture(browser, opened):
    editor = opened[4]
    blank, drawn = paint(browser, editor)
    changed = (drawn.astype(int) - blank).any(-1)[8:-8, 8:-8]  # the edge shows that it has focus
    across = changed.any(0).nonzero()[0]
    assert 100 < across.max() - across.min() < 220  # the stroke's 140 pixels and its round ends
    new = Image.open(io.BytesIO(base64.b64decode(picture(editor, PAINTING).partition(",")[2])))
    assert new.size == (64, 64)
    assert_content(drawn)
    assert_content(pixels(editor))


def test_the_painting_survives_a_second_view(browser, opened):
    """A page that is opened anew, or a second view of the cell, gets the painting again."""
    browser.execute_script("""
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.activeCellIndex = 5;
        window.jupyterapp.commands.execute("notebook:create-output-view");""")
    two = "return document.querySelectorAll('.widget-vbox canvas').length"
    until(lambda: browser.execute_script(two) == 2, PATIENCE, "a second view")
    second = browser.find_elements("css selector", ".widget-vbox canvas")[-1]
    until(lambda: len(numpy.unique(pixels(second).reshape(-1, 3), axis=0)) > 5, PATIENCE,
          "its painting")


PAGE = """
const page = window.jupyterapp.shell.currentWidget.content.node;
const all = selector => [...page.querySelectorAll(selector)];
return {displays: all("mjx-container[display=true]").length,
        wrong: all("mjx-merror, [data-mjx-error]").map(e => e.textContent),
        wide: all(".jp-RenderedMarkdown").filter(e => e.scrollWidth > e.clientWidth + 2)
            .map(e => e.textContent.trim().slice(0, 60)),
        broken: all("img").filter(img => !(img.complete && img.naturalWidth)).map(img => img.alt),
        mute: all(".jp-OutputArea-output img").filter(img => !img.alt).length,
        pictures: all(".jp-OutputArea-output img").length};
"""


def displays(cells):
    """Displayed equations in a notebook's markdown."""
    said = [re.sub(r"`[^`\n]*`", "", c.source) for c in cells if c.cell_type == "markdown"]
    return sum(text.count("$$") // 2 for text in said)


def explored(cell):
    """How many explorers a cell shows."""
    return sum("widget-view" in kind for output in cell.get("outputs", [])
               for kind in output.get("data", {}))


def names(source):
    """The names that a cell binds, those whose parts it sets (x[k] = ..., x.y = ...), and those
    that it reads."""
    top = symtable(source, "cell", "exec")
    inner = list(top.get_children())
    for table in inner:  # which grows
        inner += table.get_children()
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    read = {s.get_name() for s in top.get_symbols() if s.is_referenced()} | {
        s.get_name() for table in inner for s in table.get_symbols() if s.is_global()}
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            while isinstance(node, ast.Subscript | ast.Attribute):
                node = node.value
            parts |= {node.id} if isinstance(node, ast.Name) else set()
    return bound, parts, read


def needed(cells):
    """Numbers of the cells with an explorer, and of those before that bind what they read."""
    wanted, missing = [], set()
    for i, cell in reversed(list(enumerate(cells))):
        if cell.cell_type != "code":
            continue
        bound, parts, read = names(cell.source)
        if (bound | parts) & missing or explored(cell):
            wanted, missing = [i, *wanted], missing - bound | read
    return wanted


def test_what_an_explorer_needs_is_found():
    sources = ["import torch as t", "x = t.ones(3)", "print(x)", "def f(a):\n    return a + x",
               "y = 0", "y = {}", "y['a'], z = f(2), 1", "unused = [y for x in 'ab']", "show(y)",
               "last = 1"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[8].outputs = [nbformat.v4.new_output("display_data", {
        "application/vnd.jupyter.widget-view+json": {}})]
    assert needed([nbformat.v4.new_markdown_cell("y"), *cells]) == [1, 2, 4, 6, 7, 9]


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_a_lecture_runs_for_a_reader(browser, server, lecture):
    """Equations are set and fit; every explorer runs, its slider and canvas change its picture."""
    cells = nbformat.read(lecture, as_version=4).cells
    shown = sum(map(explored, cells))
    browser.execute_script("return window.jupyterapp?.shell.currentWidget?.sessionContext?"
                           ".shutdown()")  # two kernels at a time would need twice the memory
    open_and_run(browser, server, lecture.name, RUN, needed(cells))
    until(lambda: browser.execute_script(PAGE)["displays"] == displays(cells), PATIENCE,
          "all displayed equations set")
    page = browser.execute_script(PAGE)
    assert {k: page[k] for k in ("wrong", "wide", "broken", "mute")} == {
        "wrong": [], "wide": [], "broken": [], "mute": 0}
    assert page["pictures"] >= 2
    until(lambda: len(explorers(browser)) == shown, PATIENCE, f"{shown} explorers on the page")
    for explorer in explorers(browser):
        press_arrows(browser, explorer, 2)
        if explorer.find_elements("css selector", "canvas"):
            paint(browser, explorer)
        assert_content(pixels(explorer))
