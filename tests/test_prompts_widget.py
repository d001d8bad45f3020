"""The explorers of Prompt-to-Prompt: what they show is what `pair` draws, and they never block."""

import base64
import functools
import io
import re
import threading
import time
from html import unescape

import numpy
import pytest
import torch
from PIL import Image

from coursekit import images
from coursekit.classroom import prompts, widgets
from coursekit.classroom.prompts import PromptEditor, PromptWindows
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.edits import p2p
from coursekit.nets import tiny, words

SD, PROMPT, TARGET, S = tiny.latent(), "a big dog", "a cat.", 4
PATH = SD.path(S)
CROSS, SELVES, WEIGHTS = (0.0, 0.5, 1.0), (0.0, 1.0), (0.0, 1.0, 4.0)


@functools.cache
def states(b=1):
    with torch.no_grad():
        z = SD.noise(b, torch.Generator().manual_seed(3))
        return list(invert(SD.eps(PROMPT), SD.schedule, z, PATH))


@functools.cache
def frames():
    truth = SD.decode(SD.noise(2, torch.Generator().manual_seed(4))).clamp(-1, 1)
    return PromptWindows(p2p.pair, p2p.Control, SD, states(2), PROMPT, TARGET, cross=CROSS,
                         selves=SELVES, word="cat", weights=WEIGHTS, truth=truth), truth


def editor(pair=p2p.pair, **more):
    return PromptEditor(pair, p2p.Control, SD, states(), PROMPT, TARGET, **more)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


IMG = re.compile(r'<img [^>]*alt="([^"]*)"[^>]*src="data:image/png;base64,([^"]*)"')


def seen(explorer, what):
    """The one picture (h, w, 3) uint8 whose text alternative has these words."""
    found = [png for alt, png in IMG.findall(explorer.view.value) if what in unescape(alt)]
    assert len(found) == 1
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB"))


def as_shown(x):
    return images.to_uint8(x.clamp(-1, 1))[0].permute(1, 2, 0).numpy()


def by_pair(target=TARGET, b=1, which=0, **control):
    """The picture that Prompt-to-Prompt itself makes of a source."""
    pivot = {s.t: s.x for s in states(b)}
    z = last(p2p.pair(SD, pivot[PATH[0]], PROMPT, target, PATH, w=5.0, pivot=pivot,
                      control=p2p.Control(**control))).x[b:]
    return as_shown(SD.decode(z)[which:which + 1])


def rms(x):
    return float(x.square().mean().sqrt())


# ---- drawn beforehand -------------------------------------------------------------------------


@pytest.mark.parametrize("cross, itself, weight, which", [
    (0.0, 0.0, 1.0, 0), (0.5, 1.0, 1.0, 1), (1.0, 0.0, 4.0, 0), (0.5, 1.0, 0.0, 1)])
def test_every_view_is_what_prompt_to_prompt_draws(cross, itself, weight, which):
    made, truth = frames()
    for name, value in {"cross": cross, "itself": itself, "weight": weight, "which": which}.items():
        made.controls[name].value = value
    wanted = by_pair(b=2, which=which, cross_attention=cross, self_attention=itself,
                     weights={"cat": weight})
    numpy.testing.assert_array_equal(seen(made, "the edit, 'a cat.'"), wanted)
    source = SD.decode(states(2)[0].x).clamp(-1, 1)[which]
    numpy.testing.assert_array_equal(seen(made, "the source, 'a big dog'"), as_shown(source[None]))
    numpy.testing.assert_array_equal(seen(made, "the perfect edit"), as_shown(truth[which][None]))
    edit = made._found[cross, itself, weight][which]
    assert made.frame.at == (cross, pytest.approx(rms(edit - source), rel=1e-4))
    assert f"RMSE {rms(edit - source):.3f} from the source" in made.frame.text
    assert f"{rms(edit - truth[which]):.3f} from the perfect edit" in made.frame.text


def test_windows_that_are_shut_are_the_new_prompt_alone_where_the_word_weighs_nothing():
    made, _ = frames()
    z = last(ddim(SD.eps(TARGET, w=5.0), SD.schedule, states(2)[-1].x, PATH)).x
    for weight in WEIGHTS:  # a factor counts inside the window only
        gap = (made._found[0.0, 0.0, weight] - SD.decode(z).clamp(-1, 1)).abs().max()
        assert gap < 1e-4
    assert rms(made._found[1.0, 1.0, 1.0] - made._found[0.0, 0.0, 1.0]) > 1e-3


def test_the_cached_explorer_answers_at_once_without_the_network():
    made, calls, seconds = frames()[0], [], []
    made.static()
    hook = SD.unet.register_forward_pre_hook(lambda net, args: calls.append(1))
    try:
        for control in made.controls.values():
            for value in control._options_values[::-1] * 4:
                before, begun, same = made.view.value, time.thread_time(), value == control.value
                control.value = value
                seconds.append(time.thread_time() - begun)
                assert same or made.view.value != before
    finally:
        hook.remove()
    assert calls == [] and numpy.percentile(seconds, 95) <= 0.2 and len(seconds) >= 30


def test_its_first_slider_can_be_moved_right_twice():
    for cross in (CROSS, (0, 0.2, 0.4, 0.6, 0.8, 1), (0, 0.3, 0.6, 1)):
        made = PromptWindows(p2p.pair, p2p.Control, SD, states(), PROMPT, TARGET, cross=cross,
                             selves=(0.0,))
        assert made.controls["cross"].index <= len(cross) - 3
        assert list(made.controls) == ["cross", "itself"]


# ---- live -------------------------------------------------------------------------------------


def test_what_is_typed_is_drawn():
    made = editor()
    for target, cross, itself in ((TARGET, 0.4, 0.4), ("a small cat", 0.4, 0.4),
                                  ("a small cat", 0.8, 0.0)):
        made.controls["target"].value = target
        made.controls["cross"].value, made.controls["itself"].value = cross, itself
        made.wait(60)
        numpy.testing.assert_array_equal(
            seen(made, f"the edit, '{target}'"),
            by_pair(target, cross_attention=cross, self_attention=itself))
        assert "RMSE" in made.frame.text and "hop" not in made.view.value


def test_words_have_sliders_and_their_weights_are_used():
    made = editor()
    assert [s.description for s in made.weights.children] == ["a", "cat"]
    made.weights.children[1].value = 3.0
    made.wait(60)
    wanted = by_pair(cross_attention=0.4, self_attention=0.4, weights={"cat": 3.0})
    numpy.testing.assert_array_equal(seen(made, "the edit"), wanted)
    assert "cat x 3" in made.frame.text
    made.controls["target"].value = "a cat and a dog"  # "a" is there twice: nothing to slide
    assert [(s.description, s.value) for s in made.weights.children] == [
        ("cat", 3.0), ("and", 1.0), ("dog", 1.0)]
    made.wait(60)


def test_word_for_word_or_by_what_is_common():
    made = editor()
    made.controls["target"].value = "a big cat"
    made.controls["align"].value = "swap"
    made.wait(60)
    wanted = by_pair("a big cat", align=words.swap, cross_attention=0.4, self_attention=0.4)
    numpy.testing.assert_array_equal(seen(made, "the edit"), wanted)
    made.controls["target"].value = "a cat"
    with pytest.raises(ValueError, match="word for word"):
        made.wait(60)
    assert "It went wrong: target='a cat' is not prompt='a big dog' word for word" in unescape(
        made.view.value)
    made.controls["align"].value = "refine"  # and it goes on
    made.wait(60)
    assert "RMSE" in made.frame.text


def gated():
    """p2p.pair that waits before each hop in a thread, and tells which targets it was asked."""
    at_work, go, asked, hops = threading.Event(), threading.Event(), [], []

    def slow(sd, noise, prompt, target, path, **more):
        asked.append(target)
        for state in p2p.pair(sd, noise, prompt, target, path, **more):
            if threading.current_thread() is not threading.main_thread():
                hops.append(target)
                at_work.set()
                assert go.wait(30)
            yield state

    return slow, at_work, go, asked, hops


def test_a_change_does_not_block_and_stops_what_was_being_drawn():
    slow, at_work, go, asked, hops = gated()
    made = editor(slow)
    made.controls["target"].value = "a cow"  # returns although nothing can be drawn
    assert at_work.wait(30) and "hop 0 of 4" in made.view.value
    old = made._work._thread
    made.controls["target"].value = "a hen"
    assert "drawing 'a hen'" in unescape(made.view.value)
    go.set()
    old.join(30)
    made.wait(60)
    assert not old.is_alive() and asked[-2:] == ["a cow", "a hen"]
    assert hops.count("a cow") == 1 < hops.count("a hen")  # its last was the hop that it was in
    wanted = by_pair("a hen", cross_attention=0.4, self_attention=0.4)
    numpy.testing.assert_array_equal(seen(made, "the edit"), wanted)
    made.controls["target"].value = TARGET  # known: there at once
    assert "RMSE" in made.frame.text and asked[-1] == "a hen"


def test_each_change_is_answered_at_once_while_a_hop_is_at_work():
    slow, at_work, go, *_ = gated()
    made = editor(slow)
    for itself in (0.5, 0.6):
        made.controls["itself"].value = itself
        said = f"self-attention {itself}: drawing '{TARGET}', hop 0 of 4"
        assert at_work.wait(30) and said in unescape(made.view.value)
    go.set()
    made.wait(60)
    assert "self-attention 0.6: RMSE" in unescape(made.view.value)


def test_pictures_come_while_it_is_drawn():
    made, shown = editor(), []
    made.view.observe(lambda change: shown.append(change["new"]), "value")
    made.controls["target"].value = "a horse"
    made.wait(60)
    on_the_way = [html for html in shown if re.search(r"hop \d of 4 \.\.", html)]
    assert len({IMG.findall(html)[1] for html in on_the_way}) >= 3
    assert {int(n) for html in on_the_way for n in re.findall(r"hop (\d) of 4 \.\.", html)} == {
        0, 1, 2, 3, 4}


def test_the_page_may_use_the_model_meanwhile():
    """The editor's modules are its own, and its weights are not."""
    slow, at_work, go, _, _ = gated()
    made = editor(slow)
    z, before = SD.noise(1, torch.Generator().manual_seed(8)), SD.unet.state_dict()
    wanted = SD.eps(TARGET, w=5.0)(z, 500)
    made.controls["target"].value = "a cow"
    assert at_work.wait(30)
    assert torch.equal(SD.eps(TARGET, w=5.0)(z, 500), wanted)
    go.set()
    made.wait(60)
    twin = made._source.sd.unet
    assert twin is not SD.unet
    theirs = dict(twin.named_parameters())
    assert all(theirs[name] is p for name, p in SD.unet.named_parameters())
    assert before.keys() == twin.state_dict().keys()


def test_a_prompt_that_is_too_long_is_said_and_a_strange_word_warned_of(monkeypatch):
    made = editor()
    made.controls["target"].value = "dog " * 40
    with pytest.raises(ValueError, match="more tokens"):
        made.wait(60)
    assert made.weights.children == () and "It went wrong" in made.view.value
    monkeypatch.setitem(SD.tokenizer.init_kwargs, "words", ["a", "big", "dog", "cat"])
    made.controls["target"].value = "a zebra"
    made.wait(60)
    assert "never saw the words zebra" in made.frame.text


# ---- explorers as the others ------------------------------------------------------------------


def test_they_are_among_the_explorers():
    for kind in (PromptEditor, PromptWindows):
        assert getattr(widgets, kind.__name__) is kind and kind.__name__ in widgets.__all__


@pytest.mark.parametrize("make, pictures", [(lambda: frames()[0], 5), (editor, 3)])
def test_all_is_said_in_words(make, pictures):
    made = make()
    alts = [alt for alt, _ in IMG.findall(made.view.value)]
    assert len(alts) == made.view.value.count("<img") == pictures
    assert all(len(alt.split()) >= 3 for alt in alts) and len(set(alts)) == pictures
    assert 'role="status"' in made.view.value
    figure = made.static()
    drawn = numpy.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    assert len(numpy.unique(drawn.reshape(-1, 3), axis=0)) > 50 and len(figure.png) < 80_000
    assert made.static() is figure and len(figure.alt.split()) > 20
    assert made._repr_mimebundle_()["text/html"] == figure._repr_html_()


def test_the_static_figure_says_the_numbers():
    made = editor()
    x, plain, edit = (SD.decode(states()[0].x).clamp(-1, 1), made._known[made._plain],
                      made._known[made._first])
    assert f"RMSE {rms(plain - x):.3f} from the source" in made.static().alt
    assert f"RMSE {rms(edit - x):.3f}, with windows of 0.4 and 0.4" in made.static().alt
    figure = frames()[0].static()
    for c in (0.0, 1.0):
        assert f"{frames()[0]._moved[c, 1.0, 1.0][0]:.3f}" in figure.alt


def test_the_defaults_of_a_job_are_those_of_the_editor():
    made = editor()
    assert made._job() == prompts.Job(TARGET) == made._first


BAD = [
    ({"states": states()[0]}, "states: accepted are three states or more"),
    ({"states": states()[:2]}, "states: accepted are three states or more"),
    ({"prompt": ""}, "prompt='': accepted is one sentence"),
    ({"target": "dog " * 40}, "prompt='dog dog"),
    ({"w": float("nan")}, "w=nan: accepted is a finite number"),
]


@pytest.mark.parametrize("kind, change, words", [
    *((kind, *case) for case in BAD for kind in (PromptEditor, PromptWindows)),
    (PromptEditor, {"states": states(2)}, "states are of 2 pictures: accepted is one"),
    (PromptEditor, {"cross": 0.45}, "cross=0.45: accepted is a tenth"),
    (PromptWindows, {"cross": (1.0,)}, "cross=(1.0,): accepted are 2 or more"),
    (PromptWindows, {"cross": (0.5, 2.0)}, "cross_attention=2.0: accepted"),
    (PromptWindows, {"selves": ()}, "selves=(): accepted are 1 or more"),
    (PromptWindows, {"weights": (1.0, 2.0)}, "word='' has weights=(1.0, 2.0): accepted"),
    (PromptWindows, {"weights": (float("inf"),), "word": "cat"}, "weights=inf: accepted"),
    (PromptWindows, {"word": "cow"}, "weights: 'cow' is 0 times in 'a cat.'"),
    (PromptWindows, {"align": "best"}, "align='best': accepted are refine and swap"),
    (PromptWindows, {"truth": torch.zeros(1, 3, 8, 8)}, "truth has shape (1, 3, 8, 8): accepted"),
])
def test_a_wrong_argument_is_named(kind, change, words):
    given = {"states": states(), "prompt": PROMPT, "target": TARGET} | change
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(words)}") as refusal:
        kind(p2p.pair, p2p.Control, SD, given.pop("states"), given.pop("prompt"),
             given.pop("target"), **given)
    assert "\n" not in str(refusal.value)
