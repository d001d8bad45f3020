"""The explorers of injection: what they show is what the edit gives, and they answer at once."""

import base64
import functools
import io
import re
import time
from html import unescape

import numpy
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from coursekit import images
from coursekit.classroom import injection as ours
from coursekit.classroom import widgets
from coursekit.classroom.injection import DecoderFeatures, InjectionWindows
from coursekit.diffusion.sample import invert
from coursekit.edits import pnp
from coursekit.nets import injection, tiny
from coursekit.nets.control import tapped

SD, PROMPT, TARGET = tiny.latent(), "a dog", "a cat"
PATH, SHARES_F, SHARES_A = SD.path(4), (0.0, 0.5, 0.8, 1.0), (0.0, 0.5, 1.0)
IMG = re.compile(r'<img [^>]*alt="([^"]*)"[^>]*src="data:image/png;base64,([^"]*)"')


def pictures(b=3, side=SD.size):
    values = torch.randint(0, 256, (b, 3, side, side), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    return images.from_uint8(values)


X = pictures()


def outline(x):
    return x.mean(1) > 0


def success(x):
    return x.mean((1, 2, 3)) > 0


@functools.cache
def windows():
    """One explorer for all tests that only move its controls."""
    return InjectionWindows(pnp.edit, SD, X, PROMPT, TARGET, PATH, outline=outline,
                            success=success, tau_f=SHARES_F, tau_A=SHARES_A)


@functools.cache
def features():
    return DecoderFeatures(SD, X, PROMPT, PATH)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def move(explorer, **values):
    for name, value in values.items():
        explorer.controls[name].value = value
    return explorer


def seen(explorer, words):
    """The one picture (h, w, 3) uint8 whose text alternative has these words."""
    found = [png for alt, png in IMG.findall(explorer.view.value) if words in unescape(alt)]
    assert len(found) == 1
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB"))


def pixels(x):
    """A picture (3, h, w) as a screen shows it."""
    return images.to_uint8(x.clamp(-1, 1)[None])[0].permute(1, 2, 0).numpy()


# ---- thresholds


@pytest.mark.parametrize("f, A, which", [(0.0, 0.0, 0), (0.8, 0.5, 1), (1.0, 0.0, 2)])
def test_an_edit_shown_is_that_of_the_method(f, A, which):
    made = move(windows(), tau_f=f, tau_A=A, which=which)
    states = list(invert(SD.eps(PROMPT), SD.schedule, SD.encode(X), PATH))
    z = pnp.edit(SD, states, PROMPT, TARGET, PATH, w=5.0, tau_f=f, tau_A=A)
    wanted = SD.decode(z).clamp(-1, 1)
    assert abs(seen(made, "the edit, 'a cat'").astype(int) - pixels(wanted[which])).max() <= 1
    a, b = (m[which].flatten() for m in (outline(wanted), outline(X)))
    iou = float((a & b).sum() / (a | b).sum())
    assert made.overlap[f, A][which] == pytest.approx(iou, abs=0.02)
    assert f"IoU of the outlines {made.overlap[f, A][which]:.3f}" in made.frame.text
    assert made.frame.at == (f, made.overlap[f, A][which])
    said = "as asked for" if bool(success(wanted)[which]) else "not as asked for"
    assert said in made.frame.text and made.hits[f, A][which] == bool(success(wanted)[which])


def test_the_source_is_inverted_once_and_each_pair_is_drawn_once():
    calls = []
    with tapped(SD.unet, lambda out: calls.append(len(out.sample))):
        made = InjectionWindows(pnp.edit, SD, X[:1], PROMPT, TARGET, PATH, outline=outline,
                                success=success, tau_f=(0.0, 1.0), tau_A=(0.0,))
    S = len(PATH) - 1
    assert calls == [1] * S + [1] + [2] * S + [1] + [1, 2] * S
    assert "which" not in made.controls


def test_masks_as_pictures():
    a = torch.tensor([[True, True], [False, False]])
    b = torch.tensor([[True, False], [True, False]])
    drawn = ours.both(a, b)
    assert_close(drawn[:, 0, 0], torch.tensor(ours.INSIDE))
    assert_close(drawn[:, 0, 1], torch.tensor(ours.ALONE))
    assert_close(drawn[:, 1, 0], torch.tensor(ours.ALONE))
    assert (drawn[:, 1, 1] == 1).all()


# ---- features


def test_components_are_those_of_the_covariance(generator):
    """Against torch's own symmetric eigenproblem."""
    f = torch.randn(3, 7, 4, 5, generator=generator, dtype=torch.float64)
    f[:, 0] *= 5
    maps, share = ours.components(f)
    rows = f.permute(0, 2, 3, 1).reshape(-1, 7)
    values, axes = torch.linalg.eigh(torch.cov(rows.T))
    assert share == pytest.approx(float(values[-3:].sum() / values.sum()))
    for k in range(3):
        along = (rows - rows.mean(0)) @ axes[:, -1 - k]
        mine = maps[:, k].flatten().double()
        assert abs(float(torch.corrcoef(torch.stack([along, mine]))[0, 1])) > 1 - 1e-6
        assert mine.min() == -1 and mine.max() == pytest.approx(1)
    first = torch.stack([maps[:, 0].flatten().double(), f[:, 0].flatten()])
    assert float(torch.corrcoef(first)[0, 1]) > 0.9  # the sign that makes its loading positive


def test_a_constant_feature_is_no_division_by_zero():
    maps, share = ours.components(torch.ones(3, 4, 2, 2))
    assert maps.isfinite().all() and share == 0


def test_features_shown_are_those_the_network_had_on_the_inversion():
    states = {s.t: s.x for s in invert(SD.eps(PROMPT), SD.schedule, SD.encode(X), PATH)}
    layers = ours.decoder(SD)
    assert list(layers) == ["up 0.0", "up 0.1", "up 1.0", "up 1.1"]
    sites = injection.traced(SD, states[PATH[0]], PATH[0])
    assert layers["up 0.1"] is injection.feature(SD, sites)  # the one that Plug-and-Play injects
    for t, name in ((PATH[0], "up 0.0"), (PATH[2], "up 1.1")):
        found = []
        with tapped(layers[name], found.append):
            SD.eps(PROMPT)(states[t], t)
        maps, share = ours.components(found[0])
        made = move(features(), t=t, layer=name)
        assert made.shares[t, name] == pytest.approx(share, rel=1e-4)
        for i in range(3):
            shown = seen(made, f"components of picture {i + 1} ")
            assert abs(shown.astype(int) - pixels(maps[i])).max() <= 2
            numpy.testing.assert_array_equal(seen(made, f"picture {i + 1}, as it is"),
                                             pixels(X[i]))
        assert made.frame.at == (t, made.shares[t, name])


def test_other_layers_can_be_looked_at():
    layers = {"middle": SD.unet.mid_block, "first": SD.unet.conv_in}
    made = DecoderFeatures(SD, X, [PROMPT, TARGET, PROMPT], PATH, layers=layers)
    assert set(made.shares) == {(t, name) for t in PATH[:-1] for name in layers}
    assert not any(m._forward_hooks for m in layers.values())


# ---- explorers as the others


def test_they_are_among_the_explorers():
    for kind in (InjectionWindows, DecoderFeatures):
        assert getattr(widgets, kind.__name__) is kind and kind.__name__ in widgets.__all__


@pytest.mark.parametrize("make", [windows, features])
def test_every_control_changes_the_view_at_once_without_the_network(make):
    made, calls, seconds = make(), [], []
    made.static()
    with tapped(SD.unet, lambda _: calls.append(1)):
        for control in made.controls.values():
            for value in control._options_values[::-1] * 3:
                before, begun = made.view.value, time.thread_time()
                same_as_before = value == control.value
                control.value = value
                seconds.append(time.thread_time() - begun)
                assert same_as_before or made.view.value != before
    assert calls == [] and numpy.percentile(seconds, 95) <= 0.2 and len(seconds) >= 20


@pytest.mark.parametrize("make", [windows, features])
def test_the_first_slider_can_go_right_twice(make):
    made = make.__wrapped__()
    first = next(iter(made.controls.values()))
    assert first.index + 2 < len(first.options)


@pytest.mark.parametrize("make, n", [(windows, 5), (features, 7)])
def test_all_is_said_in_words(make, n):
    alts = [alt for alt, _ in IMG.findall(make().view.value)]
    assert len(alts) == make().view.value.count("<img") == n
    assert all(len(alt.split()) >= 4 for alt in alts) and len(set(alts)) == n
    assert 'role="status"' in make().view.value


@pytest.mark.parametrize("make, said", [(windows, "InjectionWindows(tau_f, tau_A, which)"),
                                        (features, "DecoderFeatures(t, layer)")])
def test_the_static_figure_says_the_numbers(make, said):
    made, figure = make(), make().static()
    drawn = numpy.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    assert len(numpy.unique(drawn.reshape(-1, 3), axis=0)) > 50 and len(figure.png) < 120_000
    numbers = ([f"{v[0]:.3f}" for v in made.overlap.values()] if make is windows else
               [f"{made.shares[PATH[2], name]:.2f}" for name in ours.decoder(SD)])
    assert all(number in figure.alt for number in numbers)
    assert made.static() is figure
    bundle = made._repr_mimebundle_()
    assert bundle["text/html"] == figure._repr_html_() and bundle["text/plain"] == said


@pytest.mark.parametrize("change, words", [
    ({"x": X[0]}, "x has shape (3, 16, 16)"),
    ({"prompt": ""}, "prompt='': accepted is one sentence"),
    ({"target": ["a", "b"]}, "target=['a', 'b']: accepted is one sentence"),
    ({"w": float("nan")}, "w=nan: accepted are finite numbers"),
    ({"tau_f": ()}, "tau_f=(): accepted are one or more numbers"),
    ({"tau_A": (0.5, 0.5)}, "tau_A=(0.5, 0.5): accepted are one or more numbers, all different"),
    ({"tau_A": (0.0, 1.5)}, "tau_A=(0.0, 1.5): accepted are shares of the path in [0, 1]"),
    ({"tau_f": 0.5}, "tau_f=0.5: accepted are one or more numbers"),
])
def test_a_wrong_argument_is_named(change, words):
    given = {"x": X, "prompt": PROMPT, "target": TARGET} | change
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(words)}") as refusal:
        InjectionWindows(pnp.edit, SD, given.pop("x"), given.pop("prompt"), given.pop("target"),
                         PATH, outline=outline, success=success, **given)
    assert "\n" not in str(refusal.value)


def test_too_few_pictures_or_hops_are_named():
    with pytest.raises(ValueError, match="^x has 2 pictures: accepted are 3 or more"):
        DecoderFeatures(SD, X[:2], PROMPT, PATH)
    with pytest.raises(ValueError, match="^path has 2 hops: accepted are 3 or more"):
        DecoderFeatures(SD, X, PROMPT, SD.path(2))


def test_the_hooks_are_gone_after_an_exception():
    def broken(*_given, **_more):
        raise ArithmeticError("of all times now")

    with pytest.raises(ArithmeticError):
        InjectionWindows(broken, SD, X, PROMPT, TARGET, PATH, outline=outline, success=success)
    with pytest.raises(ArithmeticError):
        ours.read(broken, ours.decoder(SD))
    assert not any(m._forward_hooks for m in SD.unet.modules())
