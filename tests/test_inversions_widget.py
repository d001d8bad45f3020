"""The explorer of inversions: what it shows is what the methods give, and it answers at once."""

import base64
import functools
import io
import re
import time
from html import unescape
from itertools import pairwise

import numpy
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from coursekit import images
from coursekit.classroom import explorer as base
from coursekit.classroom import widgets
from coursekit.classroom.inversions import FLOOR, METHODS, Inversions, apart
from coursekit.diffusion.guided import direct, null_text
from coursekit.diffusion.inversion import replay
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.edits import p2p
from coursekit.nets import tiny
from coursekit.nets.latent import Text

SD, PROMPT, TARGET = tiny.latent(), "a dog", "a cat"
WEIGHTS, STEPS = (1.0, 4.0, 9.0), (2, 4)
PLAIN = p2p.Control(cross_attention=0.0, self_attention=0.0)


def pictures(b=2, side=SD.size):
    values = torch.randint(0, 256, (b, 3, side, side), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    return images.from_uint8(values)


X = pictures()


@functools.cache
def shared():
    """One explorer for all tests that only move its controls."""
    return Inversions(SD, X, PROMPT, TARGET, weights=WEIGHTS, steps=STEPS)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def pivot_of(S, x=X):
    return list(invert(SD.eps(PROMPT), SD.schedule, SD.encode(x), SD.path(S)))


def at(method, w, S, which=0, made=None):
    made = made or shared()
    for name, value in {"method": method, "w": w, "S": S, "which": which}.items():
        if name in made.controls:
            made.controls[name].value = value
    return made


IMG = re.compile(r'<img [^>]*alt="([^"]*)"[^>]*src="data:image/png;base64,([^"]*)"')


def seen(explorer, words):
    """The one picture (h, w, 3) uint8 whose text alternative has these words."""
    found = [png for alt, png in IMG.findall(explorer.view.value) if words in unescape(alt)]
    assert len(found) == 1
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB"))


def as_shown(z):
    """What latents (1, c, h, w) look like on a screen."""
    return images.to_uint8(SD.decode(z).clamp(-1, 1))[0].permute(1, 2, 0).numpy()


def same(pixels, z):
    """Equal but for a grey level: batches of another size round differently."""
    assert abs(pixels.astype(int) - as_shown(z).astype(int)).max() <= 1


def rms(x):
    return float(x.square().mean().sqrt())


# ---- what is shown is what was computed -------------------------------------------------------


def test_plain_is_guided_sampling_from_the_inverted_noise():
    pivot = pivot_of(4)
    code, path = pivot[-1].x[1:], SD.path(4)
    states = list(ddim(SD.eps(PROMPT, w=9.0), SD.schedule, code, path))
    edit = last(ddim(SD.eps(TARGET, w=9.0), SD.schedule, code, path)).x
    made = at("plain DDIM", 9.0, 4, 1)
    same(seen(made, "what comes back"), states[-1].x)
    same(seen(made, "the edit, 'a cat'"), edit)
    numpy.testing.assert_array_equal(seen(made, "the source, 'a dog'"),
                                     images.to_uint8(X[1:])[0].permute(1, 2, 0).numpy())
    gaps = {a.t: rms(a.x - b.x[1:]) for a, b in zip(states, reversed(pivot), strict=True)}
    times, curve = made._curve(("plain DDIM", 9.0, 4), 1)
    assert times == path[:0:-1] and gaps[path[-1]] > 10 * FLOOR
    assert_close(curve, [max(gaps[t], FLOOR) for t in times], rtol=1e-3, atol=0)
    assert made.frame.at == (path[-1], pytest.approx(gaps[path[-1]], rel=1e-3))
    assert f"ends {gaps[path[-1]]:.3f}" in made.frame.text


@pytest.mark.parametrize("w", WEIGHTS)
def test_direct_returns_the_ceiling_at_any_weight_and_edits_as_plain_does(w):
    for S in STEPS:
        made = at("direct", w, S)
        same(seen(made, "what comes back"), SD.encode(X[:1]))
        assert "ends 0.0000 from its latents" in made.frame.text
        assert made.frame.at == (0, FLOOR)
        found = seen(made, "the edit, 'a cat'")
        numpy.testing.assert_array_equal(found, seen(at("plain DDIM", w, S), "the edit, 'a cat'"))
    pivot = pivot_of(2)
    eps = SD.eps(PROMPT, w=w)
    offsets = last(replay(eps, SD.schedule, list(direct(eps, SD.schedule, pivot)))).x
    assert_close(offsets, pivot[0].x, atol=1e-4, rtol=0)  # the same by the paper's offsets


def test_a_negative_prompt_brings_back_the_same_whatever_the_weight():
    backs = [seen(at("negative prompt", w, 4), "what comes back").astype(int) for w in WEIGHTS]
    assert max(abs(a - b).max() for a, b in pairwise(backs)) <= 1
    edits = [seen(at("negative prompt", w, 4), "the edit, 'a cat'").astype(int) for w in WEIGHTS]
    assert min(abs(a - b).max() for a, b in pairwise(edits)) > 1
    code = pivot_of(4)[-1].x[:1]
    back = last(ddim(SD.eps(TARGET, PROMPT, 9.0), SD.schedule, code, SD.path(4))).x
    same(seen(at("negative prompt", 9.0, 4), "the edit, 'a cat'"), back)


def test_null_text_ends_nearer_than_plain_and_its_embeddings_serve_the_edit():
    pivot, empty = pivot_of(4), SD.text("").tokens
    found = list(null_text(lambda e: SD.eps(Text(e)), SD.eps(PROMPT), SD.schedule, pivot,
                           empty.repeat(2, 1, 1), 9.0, 5))
    made = at("null-text", 9.0, 4)
    same(seen(made, "what comes back"), found[-1].x[:1])
    assert made.frame.at[1] < at("plain DDIM", 9.0, 4).frame.at[1]
    x = pivot[-1].x[:1]
    for a, b in pairwise(found):
        eps = SD.eps(TARGET, Text(b.null[:1]), 9.0)
        x = last(ddim(eps, SD.schedule, x, [a.t, b.t])).x
    same(seen(at("null-text", 9.0, 4), "the edit, 'a cat'"), x)


def test_at_weight_one_three_of_the_methods_are_one():
    shown = [seen(at(name, 1.0, 4), "what comes back").astype(int)
             for name in ("plain DDIM", "null-text", "negative prompt")]
    assert max(abs(a - b).max() for a, b in pairwise(shown)) <= 1


def test_calls_are_counted():
    S = 4
    assert f"; {2 * S} calls of" in at("plain DDIM", 9.0, S).frame.text
    assert f"; {2 * S} calls of" in at("direct", 9.0, S).frame.text
    many = int(re.search(r"; (\d+) calls", at("null-text", 9.0, S).frame.text)[1])
    assert 2 * S < many <= 2 * S + S * (1 + 5 + 1)  # prompt, five updates, where they led


# ---- another way of drawing -------------------------------------------------------------------


def test_apart_is_prompt_to_prompt_with_its_windows_shut():
    pivot, path = pivot_of(4), SD.path(4)
    states, empty = {s.t: s.x for s in pivot}, SD.text("").tokens
    nulls = {t: Text(empty + 0.1 * i) for i, t in enumerate(path[:-1])}
    each = {t: Text((empty + 0.1 * i).repeat(2, 1, 1)) for i, t in enumerate(path[:-1])}
    for how in ({}, {"negative": PROMPT}, {"pivot": states}, {"negative": nulls},
                {"negative": each}):
        ours, theirs = (last(draw(SD, pivot[-1].x, PROMPT, TARGET, path, w=4.0, **how)).x
                        for draw in (apart, functools.partial(p2p.pair, control=PLAIN)))
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_prompt_to_prompt_draws_where_it_is_asked_to():
    made = Inversions(SD, X[:1], PROMPT, TARGET, weights=(4.0,), steps=(3,), draw=p2p.pair,
                      methods={"direct": METHODS["direct"]})
    pivot = {s.t: s.x for s in pivot_of(3, X[:1])}
    path = SD.path(3)
    wanted = last(p2p.pair(SD, pivot[path[0]], PROMPT, TARGET, path, w=4.0, pivot=pivot)).x[1:]
    same(seen(made, "the edit, 'a cat'"), wanted)
    other = last(apart(SD, pivot[path[0]], PROMPT, TARGET, path, w=4.0)).x[1:]
    assert rms(wanted - other) > 1e-3  # its attention is not idle


# ---- an explorer as the others ----------------------------------------------------------------


def test_it_is_among_the_explorers():
    assert widgets.Inversions is Inversions and "Inversions" in widgets.__all__


def test_every_control_changes_the_view_at_once_without_the_network():
    made, calls, seconds = at("plain DDIM", 9.0, 4), [], []
    made.static()
    hook = SD.unet.register_forward_pre_hook(lambda net, args: calls.append(1))
    try:
        for control in made.controls.values():
            for value in control._options_values[::-1] * 3:
                before, begun = made.view.value, time.thread_time()
                same_as_before = value == control.value
                control.value = value
                seconds.append(time.thread_time() - begun)
                assert same_as_before or made.view.value != before
    finally:
        hook.remove()
    assert calls == [] and numpy.percentile(seconds, 95) <= 0.2 and len(seconds) >= 30


def test_all_is_said_in_words():
    made = at("null-text", 9.0, 4)
    alts = [alt for alt, _ in IMG.findall(made.view.value)]
    assert len(alts) == made.view.value.count("<img") == 5
    assert all(len(alt.split()) >= 4 for alt in alts) and len(set(alts)) == 5
    assert 'role="status"' in made.view.value


def test_the_static_figure_says_the_numbers():
    figure = shared().static()
    drawn = numpy.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    assert len(numpy.unique(drawn.reshape(-1, 3), axis=0)) > 50 and len(figure.png) < 80_000
    for name in METHODS:
        back = float(re.search(r"PSNR (\d+\.\d) dB", at(name, 9.0, 4).frame.text)[1])
        assert f"{back:.1f} dB ({name})" in figure.alt
    assert shared().static() is figure
    bundle = shared()._repr_mimebundle_()
    assert bundle["text/html"] == figure._repr_html_()
    assert bundle["text/plain"] == "Inversions(method, w, S, which)"


def test_the_hook_is_gone_and_the_bar_too(monkeypatch):
    shown = []
    monkeypatch.setattr(base, "_in_notebook", lambda: True)
    monkeypatch.setattr(base, "PATIENCE", 0.0)
    import IPython.display

    class Handle:
        def __init__(self, bar, display_id):
            self.bar = bar
            shown.append(self)

        def update(self, data, raw):
            self.full = self.bar.value == self.bar.max

    monkeypatch.setattr(IPython.display, "display", Handle)
    Inversions(SD, X[:1], PROMPT, TARGET, weights=(3.0,), steps=(2,))
    assert len(shown) == 1 and shown[0].full
    assert not SD.unet._forward_pre_hooks

    def broken(*_given):
        raise ArithmeticError("of all times now")

    with pytest.raises(ArithmeticError):
        Inversions(SD, X[:1], PROMPT, TARGET, steps=(2,), methods={"broken": broken})
    assert not SD.unet._forward_pre_hooks


@pytest.mark.parametrize("change, words", [
    ({"x": X[0]}, "x has shape (3, 16, 16)"),
    ({"x": X.byte()}, "x is torch.uint8"),
    ({"prompt": ""}, "prompt='': accepted is one sentence"),
    ({"target": ["a", "b"]}, "target=['a', 'b']: accepted is one sentence"),
    ({"weights": ()}, "weights=(): accepted"),
    ({"weights": (2, 2)}, "weights=(2, 2): accepted"),
    ({"weights": (1, float("inf"))}, "weights=inf: accepted"),
    ({"steps": (4, 4)}, "steps=(4, 4): accepted"),
    ({"steps": (1,)}, "steps=1: accepted is a whole number 2.."),
    ({"steps": 5}, "steps=5: accepted"),
    ({"methods": {}}, "methods={}: accepted"),
    ({"target": "dog " * 30}, "prompt='dog dog"),
])
def test_a_wrong_argument_is_named(change, words):
    given = {"x": X, "prompt": PROMPT, "target": TARGET, "weights": (2.0,), "steps": (2,)} | change
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(words)}") as refusal:
        Inversions(SD, given.pop("x"), given.pop("prompt"), given.pop("target"), **given)
    assert "\n" not in str(refusal.value)
