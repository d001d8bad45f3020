"""Explorers: what they show is what was computed, they answer at once, and can do without a kernel.

No browser here (see test_jupyterlab.py): controls are moved as ipywidgets' front end moves them,
by setting their value, and the mouse by the messages that ipycanvas sends.
"""

import ast
import base64
import functools
import io
import math
import re
import threading
import time
from html import unescape
from pathlib import Path

import numpy
import pytest
import tiny_sd
import torch
from PIL import Image
from torch.testing import assert_close

import coursekit
from coursekit import images
from coursekit.classroom import attention
from coursekit.classroom import explorer as base
from coursekit.classroom import widgets
from coursekit.classroom.canvas import Sketch
from coursekit.classroom.frames import Frame, Picture, Plot, still
from coursekit.diffusion import elbo, sample
from coursekit.diffusion.schedule import Schedule
from coursekit.edits import sdedit
from coursekit.nets.latent import Latent
from coursekit.nets.wordmaps import watched

LINEAR, SPREAD, SIDE = Schedule.linear(), 0.3, 16
HOUSE = Path(coursekit.__file__).parent


def gaussian(x, t):
    """The exact predictor of data N(0.2, SPREAD^2), pixel by pixel."""
    level = LINEAR.level(t)
    return math.sqrt(1 - level) * (x - math.sqrt(level) * 0.2) / (level * SPREAD**2 + 1 - level)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def on_grid(b):
    """Pictures whose values 8 bits can hold, so that a PNG gives them back exactly."""
    values = torch.randint(0, 256, (b, 3, SIDE, SIDE), generator=seeded(), dtype=torch.uint8)
    return images.from_uint8(values)


def text_to_image(eps=gaussian):
    """A tiny random Stable Diffusion 1.5 at 32 pixels; eps is called whenever its network is."""
    def called(_net, args):
        eps(args[0], 1)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        words = tiny_sd.tokenizer()
        text = tiny_sd.CLIPTextModel(tiny_sd.text_config(words, 16))
        unet = tiny_sd.unet("cccp", 16, (8, 16, 16, 16), attention_head_dim=2)
        vae = tiny_sd.AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    for net in (text, unet, vae):
        net.eval().requires_grad_(False)
    unet.register_forward_pre_hook(called)
    return Latent(unet, vae, (words,), (text,), LINEAR, "v", end=1, offset=1)


X0 = on_grid(2)
PROMPT = "a photo of a horse"
LATENTS = torch.randn(2, 4, 16, 16, generator=seeded(2))
SD = text_to_image()
NOISE = torch.randn(2, 3, SIDE, SIDE, generator=seeded(1))
MAKERS = {
    "noise": lambda eps=gaussian: widgets.NoiseLevel(eps, LINEAR, X0, levels=6),
    "elbo": lambda eps=gaussian: widgets.ElboTerms(eps, LINEAR, X0, path=LINEAR.trailing(6)),
    "path": lambda eps=gaussian: widgets.SamplingPath(eps, LINEAR, NOISE, steps=(3, 6)),
    "trip": lambda eps=gaussian: widgets.RoundTrip(eps, LINEAR, X0, steps=(3, 6)),
    "strokes": lambda eps=gaussian: widgets.StrokeEditor(
        sdedit.edit, eps, LINEAR, X0, steps=6, levels=4, eta=0.0),
    "words": lambda eps=gaussian: widgets.AttentionMaps(
        text_to_image(eps), PROMPT, LATENTS, w=3.0, steps=4),
    "guidance": lambda eps=gaussian: widgets.GuidanceWeight(
        text_to_image(eps), PROMPT, LATENTS, weights=(1.0, 3.0, 8.0), steps=(2, 4)),
}


CALLS = {name: [] for name in MAKERS}


@functools.cache
def shared(name):
    """An explorer that many tests share; they set the controls that they need."""

    def counting(x, t):
        assert not torch.is_grad_enabled()
        CALLS[name].append(t)
        return gaussian(x, t)

    return MAKERS[name](counting)


@pytest.fixture(params=MAKERS)
def explorer(request):
    return shared(request.param)


IMG = re.compile(r'<img [^>]*alt="([^"]*)"[^>]*src="data:image/png;base64,([^"]*)"')


def shown(html):
    """The pictures of some HTML: text alternative -> uint8 (h, w, 3)."""
    return {unescape(alt): numpy.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
            for alt, png in IMG.findall(html)}


def seen(explorer, words):
    """The picture whose text alternative has these words, as the view holds it."""
    found = [pixels for alt, pixels in shown(explorer.view.value).items() if words in alt]
    assert len(found) == 1
    return found[0]


def as_shown(x):
    """What a picture (3, h, w) looks like on a screen."""
    return images.to_uint8(x[None].clamp(-1, 1))[0].permute(1, 2, 0).numpy()


def moves(control):
    """All values that a control may take."""
    options = getattr(control, "_options_values", None)
    return options if options is not None else range(control.min, control.max + 1)


# ---- what they all do -----------------------------------------------------------------------


def test_every_control_changes_the_view(explorer):
    for name, control in explorer.controls.items():
        if name == "scheme":
            continue  # there is one scheme unless more are given
        for value in moves(control):
            if value != control.value:
                before = explorer.view.value
                control.value = value
                assert explorer.view.value != before, (name, value)
                break


@pytest.mark.parametrize("name", MAKERS)
def test_a_control_is_answered_within_200_ms_without_the_network(name):
    explorer, seconds = shared(name), []
    explorer.static()
    calls = len(CALLS[name])
    for control_name, control in explorer.controls.items():
        if control_name == "start":
            continue  # a new painting: that is work, and goes on in the background
        for value in list(moves(control)):
            begun = time.thread_time()  # the machine may be busy with something else
            control.value = value
            seconds.append(time.thread_time() - begun)
    assert numpy.percentile(seconds, 95) <= 0.2 and len(seconds) >= 4
    assert len(CALLS[name]) == calls > 0


def test_every_picture_is_said_in_words(explorer):
    html = explorer.view.value
    alts = [alt for alt, _ in IMG.findall(html)]
    assert len(alts) == html.count("<img") >= 2
    assert all(len(alt.split()) >= 2 for alt in alts) and len(set(alts)) == len(alts)
    assert 'role="status"' in html and len(explorer.frame.text.split()) >= 8


def test_the_static_figure_needs_no_kernel(explorer):
    figure = explorer.static()
    picture = numpy.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    _, counts = numpy.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(counts) > 50 and counts.max() < 0.9 * counts.sum()  # not an empty sheet
    assert len(figure.png) < 80_000
    assert len(figure.alt.split()) >= 15 and re.search(r"\d", figure.alt)  # says the numbers
    assert explorer.static() is figure  # a second's work is done once


def test_a_page_without_a_kernel_gets_the_static_figure(explorer):
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == explorer.static()._repr_html_()
    assert "0x" not in bundle["text/plain"] and len(bundle["text/plain"]) < 100


@pytest.mark.parametrize("make, words", [
    (lambda: widgets.NoiseLevel(gaussian, LINEAR, X0[0]), "x0 has shape"),
    (lambda: widgets.NoiseLevel(gaussian, LINEAR, X0, levels=1), "levels=1: accepted"),
    (lambda: widgets.NoiseLevel(gaussian, LINEAR, X0.byte()), "x0 is torch.uint8"),
    (lambda: widgets.ElboTerms(gaussian, LINEAR, X0, path=[1000, 500]), "path: ends at 500"),
    (lambda: widgets.SamplingPath(gaussian, LINEAR, NOISE * math.nan), "noise has 1536 values"),
    (lambda: widgets.SamplingPath(gaussian, LINEAR, NOISE, etas=(2.0,)), "eta: 2.0 is outside"),
    (lambda: widgets.RoundTrip(gaussian, LINEAR, X0, steps=(0,)), "S: 0 is not"),
    (lambda: widgets.StrokeEditor(sdedit.edit, gaussian, LINEAR, X0, levels=99), "levels=99"),
    (lambda: widgets.AttentionMaps(SD, PROMPT, X0), "noise has shape (2, 3, 16, 16): accepted"),
    (lambda: widgets.AttentionMaps(SD, "", LATENTS), "prompt='': accepted is one sentence"),
    (lambda: widgets.AttentionMaps(SD, PROMPT, LATENTS, steps=1), "steps=1: accepted"),
    (lambda: widgets.AttentionMaps(SD, PROMPT, LATENTS, w=math.inf), "w=inf: accepted"),
    (lambda: widgets.AttentionMaps(SD, PROMPT, LATENTS, sizes=(64,)), "sizes: no cross-attention"),
    (lambda: widgets.GuidanceWeight(SD, PROMPT, X0), "noise has shape (2, 3, 16, 16): accepted"),
    (lambda: widgets.GuidanceWeight(SD, 3, LATENTS), "prompt is int: accepted"),
    (lambda: widgets.GuidanceWeight(SD, "", LATENTS), "prompt is empty, as is negative: w=2"),
    (lambda: widgets.GuidanceWeight(SD, PROMPT, LATENTS, weights=(2, 2)), "weights=(2, 2): acc"),
    (lambda: widgets.GuidanceWeight(SD, PROMPT, LATENTS, weights=(1, "2")), "weights='2': acc"),
    (lambda: widgets.GuidanceWeight(SD, PROMPT, LATENTS, steps=(5, 1)), "steps=1: accepted"),
    (lambda: widgets.GuidanceWeight(SD, PROMPT, LATENTS, steps=()), "steps=(): accepted"),
    (lambda: Sketch(X0), "base has shape"),
])  # fmt: skip
def test_a_wrong_argument_is_named(make, words):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(words)}") as refusal:
        make()
    assert "\n" not in str(refusal.value)


# ---- each ------------------------------------------------------------------------------------


def test_noise_level_shows_the_prediction():
    made = shared("noise")
    made.controls["t"].value, made.controls["which"].value = 600, 1
    x = LINEAR.noise(X0, sample.randn_like(X0, seeded()), 600)
    guess = LINEAR.denoise(x, gaussian(x, 600), 600)
    gap = float((guess - X0)[1].square().mean().sqrt())
    numpy.testing.assert_array_equal(seen(made, "noised to t = 600"), as_shown(x[1]))
    numpy.testing.assert_array_equal(seen(made, "the predictor's guess"), as_shown(guess[1]))
    assert f"{gap:.3f}" in made.frame.text and made.frame.at == (600, pytest.approx(gap, rel=1e-5))
    made.controls["t"].value = 0
    numpy.testing.assert_array_equal(seen(made, "the predictor's guess"), as_shown(X0[1]))


def test_elbo_terms_sum_to_the_bound_and_weigh_the_error():
    made, path, dims = shared("elbo"), LINEAR.trailing(6), X0[0].numel()
    terms = list(elbo.terms(gaussian, LINEAR, X0, path, seeded()))
    nats = sum(term.nats for term in terms)
    assert_close(made.total(1), float(elbo.bits_per_dim(nats, dims)[1]))
    for t, s in zip(path[:-2], path[1:-1], strict=True):
        made.controls["t"].value, made.controls["measure"].value = t, "bound"
        bits = made.frame.at[1]
        made.controls["measure"].value = "L_simple"
        error = made.frame.at[1]
        weight = elbo.gamma(LINEAR, t, s, math.sqrt(LINEAR.beta_tilde(t, s)))
        assert_close(bits, elbo.bits_per_dim(weight * error * dims, dims), rtol=1e-4, atol=0)


def test_sampling_path_walks_as_the_sampler_does():
    made = shared("path")
    made.controls["S"].value, made.controls["eta"].value = 6, 0.5
    made.controls["hop"].value = 4
    states = list(sample.ddim(gaussian, LINEAR, NOISE, LINEAR.trailing(6), 0.5, seeded()))
    numpy.testing.assert_array_equal(seen(made, f"t = {states[4].t}, portrait 2"),
                                     as_shown(states[4].x[1]))
    numpy.testing.assert_array_equal(seen(made, "x_0-prediction, portrait 1"),
                                     as_shown(states[4].x0[0]))
    sd = sample.sigma(LINEAR, states[4].t, states[5].t, 0.5)
    assert f"deviation {sd:.3f}" in made.frame.text


def test_the_hop_keeps_its_place_when_the_path_changes():
    for name in ("path", "trip"):
        S, hop = (shared(name).controls[control] for control in ("S", "hop"))
        S.value = 3
        hop.value = 2
        S.value = 6
        assert (hop.value, hop.max) == (4, 6)
        S.value = 3
        assert (hop.value, hop.max) == (2, 3)


def test_round_trip_measures_where_the_ways_part():
    made = shared("trip")
    path = LINEAR.karras(6)
    up = list(sample.invert(gaussian, LINEAR, X0, path))
    down = list(sample.ddim(gaussian, LINEAR, up[-1].x, path))
    made.controls["S"].value, made.controls["which"].value = 6, 1
    for hop in range(6):
        made.controls["hop"].value = hop
        gap = (up[hop].x - down[-1 - hop].x)[1].square().mean().sqrt()
        assert made.frame.at == (path[-1 - hop], pytest.approx(float(gap), rel=1e-4))
    made.controls["hop"].value = 6
    assert made.frame.at is None  # the turning point is on both ways
    numpy.testing.assert_array_equal(seen(made, "where the way back ends"), as_shown(down[-1].x[1]))


def test_an_exact_scheme_comes_back():
    def exact(eps, schedule, x0, path):
        up = list(sample.invert(eps, schedule, x0, path))
        return up, reversed(up)

    made = widgets.RoundTrip(gaussian, LINEAR, X0, steps=(3,), schemes={"exact": exact})
    assert "Round trip: RMSE 0.0000" in made.frame.text
    numpy.testing.assert_array_equal(seen(made, "where the way back ends"), as_shown(X0[0]))
    assert "exact" in made.static().alt or "exact" in made.frame.text


@torch.no_grad()
def test_attention_maps_are_those_of_the_watched_sampler():
    made, path = shared("words"), SD.path(4)
    eps, maps = watched(SD, PROMPT, w=3.0)
    states = list(sample.ddim(eps, SD.schedule, LATENTS, path))
    for name, value in {"t": path[1], "size": 8, "word": 4, "which": 1}.items():
        made.controls[name].value = value
    heat = maps.at(path[1], 8)[1, 5]
    numpy.testing.assert_array_equal(seen(made, "the picture that sampling ends at"),
                                     as_shown(SD.decode(states[-1].x)[1]))
    numpy.testing.assert_array_equal(seen(made, "believes x_0 to be"),
                                     as_shown(SD.decode(states[2].x0)[1]))
    alone = seen(made, "the map of 'horse' alone")[..., 0]
    assert abs(alone - 255 * (heat / heat.max()).numpy()).max() <= 1
    row, column = divmod(int(heat.argmax()), 8)
    lit = seen(made, f"word 5, 'horse': {heat.mean():.2%} of the attention, most in row {row + 1} ")
    assert (lit[[0, 1, -1, -2]] == (213, 93, 0)).all() and (lit[:, :2] == (213, 93, 0)).all()
    assert f"'horse' gets {heat.mean():.2%} of the attention at 8 rows" in made.frame.text
    assert made.frame.at[1] == pytest.approx(float(maps.at(path[1], 8)[1, 1:-1].mean((1, 2)).sum()))
    assert made.maps.words == ("a", "photo", "of", "a", "horse")


def test_a_map_lights_up_the_picture_below_it():
    heat, x = torch.tensor([[0.0, 1.0], [2.0, 4.0]]), X0[0]
    drawn, dark = attention.tinted(x, heat), (x.mean(0) + 1) / 2 - 1
    yellow = torch.tensor(attention.LIGHT).view(3, 1, 1)
    for k, (rows, columns) in enumerate(((slice(8), slice(8)), (slice(8), slice(8, 16)),
                                         (slice(8, 16), slice(8)), (slice(8, 16), slice(8, 16)))):
        share = 0.8 * (0, 0.25, 0.5, 1)[k]
        wanted = share * yellow + (1 - share) * dark[rows, columns]
        assert_close(drawn[:, rows, columns], wanted)
    assert_close(attention.tinted(x, heat * 0), dark.expand(3, -1, -1))  # nowhere: no map


def test_large_pictures_are_shrunk_under_the_maps_alone():
    assert attention.small(torch.ones(1, 3, 512, 768)).shape == (1, 3, 85, 128)
    assert_close(attention.small(X0), X0, rtol=0, atol=0)


@torch.no_grad()
def test_guidance_weight_draws_what_the_guided_predictor_draws():
    made, found = shared("guidance"), {}
    for w in (1.0, 8.0):
        z = sample.last(sample.ddim(SD.eps(PROMPT, w=w), SD.schedule, LATENTS, SD.path(2))).x
        found[w] = SD.decode(z)[1]
    for name, value in {"S": 2, "w": 8.0, "which": 1}.items():
        made.controls[name].value = value
    numpy.testing.assert_array_equal(seen(made, "picture to compare with"), as_shown(found[1.0]))
    numpy.testing.assert_array_equal(seen(made, "the weight chosen"), as_shown(found[8.0]))
    gap = float((found[8.0] - found[1.0]).square().mean().sqrt())
    assert gap > 1e-3 and made.frame.at == (8.0, pytest.approx(gap, rel=1e-4))
    assert f"deviation of the latents {z[1].std():.3f}" in made.frame.text
    made.controls["w"].value = 1.0
    assert made.frame.at == (1.0, 0.0)


# ---- painting --------------------------------------------------------------------------------


def test_painting_shows_what_the_edit_makes():
    made, path = MAKERS["strokes"](), LINEAR.trailing(6)
    made.sketch.stroke([(4, 4), (12, 4)], "#ff0000", 4)
    made.wait(60)
    guide = made.sketch.picture
    assert_close(guide[0, :, 4, 8], torch.tensor([1.0, -1.0, -1.0]))
    for t0 in moves(made.controls["t0"]):
        made.controls["t0"].value = t0
        wanted = sdedit.edit(gaussian, LINEAR, guide, t0, path, eta=0.0, generator=seeded())
        numpy.testing.assert_array_equal(seen(made, "what the predictor makes"),
                                         as_shown(wanted[0]))
    made.controls["t0"].value = 0
    numpy.testing.assert_array_equal(seen(made, "what the predictor makes"), as_shown(guide[0]))


def test_the_mouse_paints_what_a_stroke_paints():
    by_hand, by_call = Sketch(X0[:1]), Sketch(X0[:1])
    scale = by_hand.canvas.width / SIDE
    told = []
    by_hand.on_change(lambda: told.append(by_hand.picture))
    for event, x in (("mouse_down", 4), ("mouse_move", 8), ("mouse_move", 12), ("mouse_up", 12),
                     ("mouse_move", 2)):  # the button is up: the last move paints nothing
        by_hand.canvas._handle_frontend_event(
            by_hand.canvas, {"event": event, "x": x * scale, "y": 8 * scale}, [])
    by_call.stroke([(4, 8), (8, 8), (12, 8)])
    assert len(told) == 1
    assert_close(by_hand.picture, by_call.picture)
    assert (by_hand.picture != X0[:1])[0, :, 8, 3:13].any(0).all()
    assert_close(by_hand.picture[..., :3, :], X0[:1, :, :3])  # elsewhere the base, bit for bit


def test_strokes_are_taken_back():
    sketch = Sketch(X0[:1])
    first = sketch.picture
    assert_close(first, X0[:1])
    sketch.stroke([(2, 2)], "#00ff00", 3)
    second = sketch.picture
    sketch.stroke([(9, 9)], "#00ff00", 3)
    sketch.undo()
    assert_close(sketch.picture, second)
    sketch.clear()
    assert_close(sketch.picture, first)
    sketch.start(X0[1:])
    assert_close(sketch.picture, X0[1:])


def test_a_new_stroke_stops_the_work_on_the_old():
    at_work, go, calls = threading.Event(), threading.Event(), []

    def slow(x, t):
        if threading.current_thread() is not threading.main_thread():
            calls.append(threading.get_ident())
            at_work.set()
            assert go.wait(30)
        return gaussian(x, t)

    made = MAKERS["strokes"](slow)
    made.controls["t0"].value = 1000
    made.sketch.stroke([(1, 1)], "#ff0000", 4)
    assert at_work.wait(30) and "computing" in made.view.value
    old = made._work._thread
    made.sketch.stroke([(1, 1)], "#0000ff", 4)
    go.set()
    old.join(30)
    made.wait(60)
    assert not old.is_alive() and "computing" not in made.view.value
    assert calls.count(old.ident) == 1 < len(calls)  # the call that it was in was its last
    guide = made.sketch.picture
    wanted = sdedit.edit(gaussian, LINEAR, guide, 1000, LINEAR.trailing(6), eta=0.0,
                         generator=seeded())
    numpy.testing.assert_array_equal(seen(made, "what the predictor makes"), as_shown(wanted[0]))


def test_the_wanted_level_is_worked_out_first():
    order = []

    def edit(eps, schedule, guide, t0, path, generator):
        if threading.current_thread() is not threading.main_thread():
            order.append(t0)
        return guide

    made = widgets.StrokeEditor(edit, gaussian, LINEAR, X0[:1], steps=6, levels=4)
    made.controls["t0"].value = 1000
    made.sketch.stroke([(1, 1)])
    made.wait(30)
    assert order == sorted(moves(made.controls["t0"]), reverse=True)


def test_what_goes_wrong_in_the_background_is_said():
    def edit(eps, schedule, guide, t0, path, generator):
        if threading.current_thread() is not threading.main_thread():
            raise ArithmeticError("of all times now")
        return guide

    made = widgets.StrokeEditor(edit, gaussian, LINEAR, X0[:1], steps=6, levels=4)
    made.sketch.stroke([(1, 1)])
    with pytest.raises(ArithmeticError, match="of all times now"):
        made.wait(30)
    assert "of all times now" in made.view.value  # the reader sees it too


# ---- frames ----------------------------------------------------------------------------------


def test_words_cannot_break_the_page():
    plot = Plot("a < b", "x", "y", {"<b>": ([0, 1], [0, 1])}, 'say "no" & <go>')
    picture = Picture("<script>", X0[0], 'a "quoted" <alt>')
    html = Frame([[picture]], "1 < 2", plot, (0.5, 0.5)).html()
    assert "<script>" not in html and 'a "quoted"' not in html
    assert {'a "quoted" <alt>', 'say "no" & <go>'} == shown(html).keys()


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
def test_the_cursor_stands_on_its_point(log):
    """The dot's centre is where matplotlib itself has drawn a mark."""
    plot = Plot("", "", "", {"curve": ([1, 10, 100], [1, 10, 100])}, "three points", log)
    html = plot.html((10, 10))
    left, top = (float(n) for n in re.findall(r"left:([\d.]+)px;top:([\d.]+)px", html)[1])
    drawn = shown(html)["three points"].astype(int)
    blue = (abs(drawn - [0, 0x72, 0xB2]).sum(2) < 30)
    y, x = round(top) + 6, round(left) + 6
    assert blue[y - 2:y + 3, x - 2:x + 3].mean() > 0.9


def test_a_still_shows_all_its_pictures():
    flat = [[Picture(f"{i}", torch.full((3, 8, 8), v), "") for i, v in enumerate((-1.0, 0.0))],
            [Picture("red", torch.tensor([1.0, -1, -1]).view(3, 1, 1).expand(3, 8, 8), "")]]
    figure = still("three", flat, "black, grey, red")
    drawn = numpy.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(int)
    for colour in ((0, 0, 0), (128, 128, 128), (255, 0, 0)):
        assert (abs(drawn - colour).max(2) <= 2).sum() > 1000
    assert (figure.height, figure.width) == drawn.shape[:2]


# ---- waiting, and the house ------------------------------------------------------------------


def test_a_long_wait_has_a_bar_and_leaves_nothing(monkeypatch):
    import IPython.display

    handles = []

    class Handle:
        def __init__(self, bar, display_id):
            self.bar, self.peak = bar, 0
            bar.observe(lambda change: setattr(self, "peak", change["new"]), "value")
            handles.append(self)

        def update(self, data, raw):
            self.end = data, raw

    monkeypatch.setattr(base, "_in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", Handle)
    with base.counted(gaussian, 50, "quick") as eps:
        for _ in range(50):
            eps(X0, 5)
    assert handles == []
    with base.counted(lambda x, t: time.sleep(0.03) or x, 100, "long") as eps:
        for _ in range(5):
            eps(X0, 5)
    assert len(handles) == 1 and handles[0].peak == 5 and handles[0].bar.max == 100
    assert handles[0].end == ({}, True) and handles[0].bar.comm is None


def test_only_the_classroom_knows_widgets():
    for file in HOUSE.rglob("*.py"):
        if file.relative_to(HOUSE).parts[0] == "classroom":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                 for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        tops = {name.partition(".")[0] for name in names}
        assert not tops & {"ipywidgets", "ipycanvas", "anywidget"}, file


def test_the_bench_reports_the_bar(monkeypatch):
    from coursekit.bench import widgets as bench

    monkeypatch.setattr(bench, "N", 5)
    monkeypatch.setattr(bench, "PEERS", 2)
    row = next(bench.rows(seed=0, device="cpu"))
    assert row.unit == "ms" and row.n == 5 and "p95" in row.name and 0 < row.ours


@pytest.mark.parametrize(("side", "factor"), [(16, 9), (64, 2), (100, 1)])
def test_the_pixels_of_a_still_are_squares_of_one_size(side, factor):
    values = torch.randint(0, 256, (3, side, side), generator=seeded(), dtype=torch.uint8)
    figure = still("one", [[Picture("a\nb", images.from_uint8(values), "")]], "noise")
    drawn = numpy.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    wanted = values.permute(1, 2, 0).repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    bottom, left = figure.height - 8, 4  # the gap below, half of it beside
    size = side * factor
    numpy.testing.assert_array_equal(drawn[bottom - size:bottom, left:left + size], wanted)
