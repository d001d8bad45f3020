"""The tour: all or nothing, the same bytes for the same seed, and a page that can be read aloud."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from coursekit import __version__, cli, manifest, portraits, tour
from coursekit.classroom import show
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.schedule import Schedule
from coursekit.pretrained import Loaded
from coursekit.tour import s10_noising, s20_ddpm_ddim

BUDGET = 400  # pictures through the network that a section may ask for: about 5 s on two cores


class Stub(nn.Module):
    """Predicts v as nearly as a network would that sees grey only; counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, x, t):
        self.asked += len(x)
        return -0.5 * x


def model():
    return Loaded(Stub(), Schedule.cosine(), "v", Path("somewhere/stub"))


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}


def pictures(folder):
    return {name: data for name, data in files(folder).items() if name.endswith(".png")}


@pytest.fixture
def one_section(monkeypatch):
    """A tour of one quick section."""
    monkeypatch.setattr(tour, "SECTIONS", ["s10_noising"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole tour: folder, events, and how many pictures each section asked of the network."""
    out, stub, asked = tmp_path_factory.mktemp("tour") / "deep" / "out", model(), {}
    events = []
    for event in tour.run(out, seed=3, model=stub):
        asked[event.section] = stub.net.asked
        events.append(event)
    counts = [asked[e.section] for e in events if e.section in asked]
    return out, events, counts


# ---- what is made

class Page(HTMLParser):
    """Checks that tags close in order and collects what a reader needs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.ids, self.anchors, self.words = [], [], set(), [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs)
        if tag == "a":
            self.anchors.append(attrs["href"])
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.words.setdefault(self.open[-1], []).append(data.strip())


def test_the_page_shows_every_picture_with_words(made):
    out, _, _ = made
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert [i["src"] for i in page.images] == sorted(pictures(out)) and len(page.images) >= 6
    for image in page.images:
        with Image.open(out / image["src"]) as opened:
            assert (str(opened.width), str(opened.height)) == (image["width"], image["height"])
        assert len(image["alt"]) > 60
    assert len(page.words["figcaption"]) == len(page.images)
    assert {a.removeprefix("#") for a in page.anchors} == page.ids == set(tour.SECTIONS)
    assert len(page.words["h2"]) == len(tour.SECTIONS) and min(map(len, page.words["h2"])) > 5


def test_the_page_says_how_it_was_made(made):
    out, _, _ = made
    text = (out / "index.html").read_text(encoding="utf-8")
    for fact in (f"coursekit {__version__}", "seed 3", "device cpu", "model stub", "all of them"):
        assert fact in text
    assert "http" not in text and str(out) not in text


def test_progress_names_the_sections_in_order(made):
    _, events, _ = made
    done = [e.done for e in events]
    assert done == sorted(done) and done[-1] == len(tour.SECTIONS) == events[0].total
    titles = list(dict.fromkeys(e.section for e in events))
    assert len(titles) == len(tour.SECTIONS) + 2  # and loading, and done


def test_each_section_keeps_to_its_share_of_the_network(made):
    _, _, counts = made
    asked = [b - a for a, b in zip([0, *counts], counts, strict=False)]
    assert max(asked) <= BUDGET and 500 < sum(asked) < 6 * BUDGET


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    list(tour.run(tmp_path / "again", seed=3, model=model()))
    assert pictures(tmp_path / "again") == pictures(made[0])


def test_another_seed_gives_other_pictures(made, tmp_path, one_section):
    list(tour.run(tmp_path, seed=4, model=model()))
    again = pictures(tmp_path)
    assert len(again) == 2 and all(pictures(made[0])[name] != data for name, data in again.items())


def test_a_section_is_found_by_listing_the_folder():
    assert tour.SECTIONS == sorted(tour.SECTIONS) and len(tour.SECTIONS) >= 6
    assert "__init__" not in tour.SECTIONS
    title, paragraphs = tour.words(s10_noising)
    assert title == "Noise, and the way back" and len(paragraphs) == 2 and "\n" not in paragraphs[0]


# ---- your picture

@pytest.fixture
def photo_section(monkeypatch):
    monkeypatch.setattr(tour, "SECTIONS", ["s60_your_picture"])


def test_your_picture_is_used_and_named(tmp_path, photo_section):
    mine = tmp_path / "me & <you>.png"
    Image.effect_noise((40, 30), 80).save(mine)
    list(tour.run(tmp_path / "with", image=mine, model=model()))
    list(tour.run(tmp_path / "without", model=model()))
    text = (tmp_path / "with/index.html").read_text()
    Page(text)
    assert "your picture, me &amp; &lt;you&gt;.png" in text
    assert "a sample photograph" in (tmp_path / "without/index.html").read_text()
    assert pictures(tmp_path / "with") != pictures(tmp_path / "without")


@pytest.mark.parametrize("bad", [
    {"image": Path("missing.png")}, {"device": "gpu"}, {"image": Path(__file__)}], ids=str)
def test_a_bad_argument_is_refused_before_anything_is_written(tmp_path, bad):
    with pytest.raises(ValueError, match="missing.png|device='gpu'|not a picture"):
        list(tour.run(tmp_path / "out", model=model(), **bad))
    assert list(tmp_path.iterdir()) == []


# ---- all or nothing

@pytest.fixture
def used(tmp_path):
    """A folder with files of the user's own and an older tour's page."""
    out = tmp_path / "used"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "index.html").write_text("an older tour")
    return out


def test_other_files_in_the_folder_stay(used, one_section):
    list(tour.run(used, model=model()))
    assert set(files(used)) == {"mine.txt", "index.html", "s10_noising-1.png", "s10_noising-2.png"}
    assert (used / "mine.txt").read_text() == "mine" and "older" not in (
        used / "index.html").read_text()


@pytest.mark.parametrize("events", [1, 3, 4])
def test_stopping_early_leaves_everything_as_it_was(used, one_section, events):
    before = files(used.parent)
    for out in (used, used.parent / "new" / "deep"):
        run = tour.run(out, model=model())
        for _ in range(events):
            next(run)
        run.close()
    assert files(used.parent) == before and {p.name for p in used.parent.iterdir()} == {"used"}


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError("a defect")], ids=str)
def test_trouble_in_a_section_leaves_everything_as_it_was(used, one_section, monkeypatch, problem):
    def make(context):
        yield s10_noising.forward(context)
        raise problem
    monkeypatch.setattr(s10_noising, "make", make)
    before = files(used.parent)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        list(tour.run(used, model=model()))
    assert files(used.parent) == before


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, one_section, monkeypatch, capsys):
    monkeypatch.setattr(tour.pretrained, "load", lambda *_: model())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SystemExit) as end:
            cli.main(["tour", "--out", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert end.value.code == 2 and "the disk is full or a quota" in err.splitlines()[-1]
    assert "Traceback" not in err and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_no_permission_is_one_line(tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(SystemExit) as end:
        cli.main(["tour", "--out", str(tmp_path / "locked" / "out")])
    err = capsys.readouterr().err
    assert end.value.code == 2 and "no permission" in err and err.count("\n") == 1


INTERRUPTED = """
import time
from pathlib import Path
from coursekit import cli, tour
def make(context):
    print("running", flush=True)
    time.sleep(60)
    yield
tour.SECTIONS = ["s10_noising"]
tour.pretrained.load = lambda *_: None  # the section asks for nothing
from coursekit.tour import s10_noising
s10_noising.make = make
cli.main(["tour", "--out", "new/out"])
"""


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_leaves_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == "running\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "stopped by Ctrl-C" in err.splitlines()[-1]
    assert "Traceback" not in err and list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(tour.MODEL not in manifest.names(), reason=f"{tour.MODEL} is not shipped yet")
def test_the_command_makes_the_whole_tour(tmp_path):
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", "from coursekit.cli import main; main()", "tour",
                           "--seed", "5"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "index.html" in done.stdout, done.stderr
    assert time.perf_counter() - begun < 120  # the bar is 60 s on a machine with nothing else to do
    out = tmp_path / "output/tour"
    assert len(Page((out / "index.html").read_text()).images) == len(pictures(out)) >= 6


# ---- what the sections compute themselves

@pytest.fixture
def context():
    return tour.Context(model(), "cpu", 0)


def test_ddim_and_ddpm_in_one_batch_are_the_two_samplers(context):
    path = context.schedule.trailing(10)
    both = s20_ddpm_ddim.together(context, path)
    for row, eta in enumerate((0.0, 1.0)):
        alone = last(ddim(context.eps, context.schedule, context.noise(1), path, eta,
                          context.generator()))
        assert_close(both[row:row + 1], alone.x, atol=1e-5, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_more_of_them_leave_the_first_as_they_are(context):
    assert torch.equal(context.noise(3)[:2], context.noise(2))
    assert torch.equal(context.pictures(3)[:1], context.pictures(1))


# ---- figures

def test_a_sheet_holds_the_pixels_and_says_what_it_shows():
    x = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    figure = show.sheet(x, ["a", "b\nc", ""], ["one", "two"], alt="Six greys.", scale=3)
    assert figure.alt == ("Contact sheet: 2 rows (one, two), 3 columns (a, b c). Six greys.")
    with Image.open(io.BytesIO(figure.png)) as opened:
        assert opened.size == (figure.width, figure.height)
        side = 8 * 3
        corner = (figure.width - 3 * (side + show.PAD), figure.height - 2 * (side + show.PAD))
        greys = [opened.convert("RGB").getpixel((corner[0] + i * (side + show.PAD) + side // 2,
                                                 corner[1] + j * (side + show.PAD) + side // 2))
                 for j in range(2) for i in range(3)]
    assert greys == [(round(51 * i),) * 3 for i in range(6)]


def test_figures_are_the_same_bytes_every_time():
    x = torch.zeros(2, 3, 8, 8)
    assert show.sheet(x, ["a", "b"], alt="Two.").png == show.sheet(x, ["a", "b"], alt="Two.").png
    line = {"a": ((1, 2, 4), (3, 4, 5)), "b": ((1, 2, 4), (5, 4, 3))}
    drawn = [show.curves(line, x="t", y="y", alt="Two lines.", log_x=True).png for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_figures_refuse_what_they_cannot_show():
    x = torch.zeros(3, 3, 8, 8)
    with pytest.raises(ValueError, match="3 pictures, accepted are 1 rows x 2 columns"):
        show.sheet(x, ["a", "b"], alt="?")
    with pytest.raises(ValueError, match="alt: empty"):
        show.curves({}, x="", y="", alt=" ")
    with pytest.raises(ValueError, match="NaN"):
        show.sheet(x / 0, ["a", "b", "c"], alt="?")


def test_a_notebook_keeps_few_colours_that_look_the_same(generator):
    figure = show.sheet(portraits.render(portraits.sample(8, generator)), [""] * 4, [""] * 2, alt="?")
    short = show.few_colours(figure.png)
    full, few = (torch.from_numpy(numpy.array(Image.open(io.BytesIO(png)).convert("RGB"))).float()
                 for png in (figure.png, short))
    assert len(short) < 0.45 * len(figure.png)
    assert (full - few).abs().mean() < 6  # of 255 grey levels
    plain = show.curves({"a": ((0, 1), (0, 1))}, x="x", y="y", alt="?")
    assert len(show.few_colours(plain.png)) <= len(plain.png)


def test_lines_keep_their_colours_beside_large_pictures():
    from PIL import ImageColor

    page = show.Canvas(figsize=(8, 7))
    show.FigureCanvasAgg(page)
    above, below = page.subplots(2, 1, height_ratios=(6, 1))
    yellow = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    yellow[..., 2] *= 0.3
    above.imshow(yellow.numpy(), interpolation="nearest")
    for i, colour in enumerate(show.COLOURS):
        below.plot([0, 1], [i, i], color=colour)
    stream = io.BytesIO()
    page.savefig(stream)
    shown = Image.open(io.BytesIO(show.few_colours(stream.getvalue()))).convert("RGB")
    found = {colour for _, colour in shown.getcolors(show.NOTEBOOK_COLOURS)}
    assert found >= {ImageColor.getrgb(colour) for colour in show.COLOURS}


def test_a_notebook_gets_alt_text_and_escaped_words():
    figure = show.sheet(torch.zeros(1, 3, 8, 8), ["<b>"], alt='"grey" & plain', caption="a < b")
    markup = figure._repr_html_()
    assert 'alt="Contact sheet: 1 columns (&lt;b&gt;). &quot;grey&quot; &amp; plain"' in markup
    assert "<figcaption>a &lt; b</figcaption>" in markup and "data:image/png;base64," in markup
    table = show.Table(["name", "n"], [["<x>", 1.5], ["long name", 2]], "Which?")
    assert "<td>&lt;x&gt;</td><td>1.5</td>" in table._repr_html_()
    assert str(table) == "name       n\n<x>        1.5\nlong name  2"
    with pytest.raises(ValueError, match="has 1 cells, the head 2"):
        show.Table(["a", "b"], [["only"]])


def test_the_style_ends_with_its_block():
    import matplotlib
    before = matplotlib.rcParams["axes.grid"]
    with show.style():
        assert matplotlib.rcParams["axes.grid"] is True
    assert matplotlib.rcParams["axes.grid"] == before
