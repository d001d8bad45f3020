"""The explorers of ControlNet and LoRA: what they show is what the method gives."""

import functools
import re

import pytest
import torch
from torch.testing import assert_close

from coursekit import images
from coursekit.classroom.adapters import LoraMix, SilhouetteEditor
from coursekit.diffusion.sample import ddim, last
from coursekit.edits.controlnet import Control, tiny, under
from coursekit.nets.control import tapped
from coursekit.nets.lora import Factors, Lora, applied, mix

IMG = re.compile(r'<img [^>]*alt="([^"]*)"')


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


GIVEN = tiny()
SD, NET, PROMPT = GIVEN["sd"], GIVEN["net"], GIVEN["prompt"]
PATH, Z = SD.path(3), SD.noise(1, seeded())
MASKS = torch.zeros(2, 16, 16, dtype=torch.bool)
MASKS[0, 4:12, 4:12] = MASKS[1, 2:9, 5:14] = True


def outline(x):
    return x.mean(1) > 0


def made(**change):
    given = {"silhouettes": MASKS, "prompt": PROMPT, "noise": Z, "path": PATH, "w": 2.0} | change
    return SilhouetteEditor(under, Control, SD, NET, outline=outline, **given)


editor = functools.cache(made)


def learnt(seed):
    generator = seeded(seed)
    fresh = Lora.fresh(SD.unet, 2, generator=generator)
    return Lora({path: Factors(f.A, torch.randn(f.B.shape, generator=generator), f.alpha)
                 for path, f in fresh.layers.items()})


A, B = learnt(1), learnt(2)
SOURCES = images.from_uint8(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8,
                                          generator=seeded(3)))


@functools.cache
def mixed():
    return LoraMix(SD, A, B, SOURCES, PROMPT, SD.noise(2, seeded(4)), PATH)


@torch.no_grad()
def wanted(mask, strength, window=(0.0, 1.0)):
    hint = mask[None, None].float().repeat(1, 3, 1, 1)
    held = under(SD, Control(NET, hint, strength=strength, window=window), PATH)
    return SD.decode(last(ddim(held.eps(PROMPT, w=2.0), SD.schedule, Z, PATH)).x).clamp(-1, 1)


def test_a_portrait_shown_is_that_of_the_method():
    for strength, window, share in ((0.0, "all hops", (0.0, 1.0)), (1.5, "all hops", (0.0, 1.0)),
                                    (1.0, "first half", (0.0, 0.5))):
        shown = editor().draw(strength, window).rows[0]
        assert_close(shown[1].pixels, wanted(MASKS[0], strength, share)[0], rtol=0, atol=1e-4)
        assert_close(shown[0].pixels, 2 * MASKS[:1].float().repeat(3, 1, 1) - 1)


def test_a_stroke_changes_the_silhouette_and_the_portrait():
    one = made()
    before = one.draw(1.0, "all hops").rows[0][1].pixels
    one.sketch.stroke([(2, 2), (14, 2)], "#ffffff", 3)
    one.wait(60)
    mask = one.sketch.picture.mean(1)[0] > 0
    assert mask.sum() > MASKS[0].sum()
    shown = one.draw(1.0, "all hops").rows[0][1].pixels
    assert_close(shown, wanted(mask, 1.0)[0], rtol=0, atol=1e-4)
    assert not torch.equal(shown, before)
    one.controls["start"].value = 1
    one.wait(60)
    assert torch.equal(one.sketch.picture.mean(1)[0] > 0, MASKS[1])


def test_what_goes_wrong_is_said():
    one = made()
    one._net = None
    one.sketch.stroke([(1, 1)], "#ffffff", 3)
    with pytest.raises(TypeError, match="net is NoneType"):
        one.wait(60)
    assert "It went wrong: TypeError" in one.frame.text


@torch.no_grad()
def test_a_mix_shown_is_that_of_the_updates():
    for u, scale in ((0.0, 1.0), (0.25, 0.5), (1.0, 1.0)):
        with applied(SD.unet, mix(A, B, u), scale):
            z = last(ddim(SD.eps(PROMPT, w=3.0), SD.schedule, SD.noise(2, seeded(4)), PATH)).x
        x = SD.decode(z).clamp(-1, 1)
        for i in range(2):
            assert_close(mixed().draw(u, scale, i).rows[0][1].pixels, x[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [editor, mixed])
def test_controls_answer_without_the_network_and_all_is_said(make):
    one, calls = make(), []
    figure = one.static()
    with tapped(SD.unet, lambda _: calls.append(1)):
        for name, control in one.controls.items():
            for value in control._options_values[::-1] if name != "start" else ():
                same, before = value == control.value, one.view.value
                control.value = value
                assert same or one.view.value != before
    assert calls == []
    alts = IMG.findall(one.view.value)
    assert len(alts) == one.view.value.count("<img") == 3
    assert all(len(alt.split()) >= 4 for alt in alts)
    assert len(figure.png) < 120_000 and one.static() is figure


@pytest.mark.parametrize("change, words", [
    ({"silhouettes": MASKS.float()}, "silhouettes is torch.float32 (2, 16, 16): accepted is"),
    ({"prompt": ""}, "prompt='': accepted is one sentence"),
    ({"noise": SD.noise(2)}, "noise is of 2 pictures: accepted is one"),
    ({"strengths": (1.0,)}, "strengths=(1.0,): accepted are 2 or more numbers"),
    ({"w": float("nan")}, "w=nan: accepted are finite numbers"),
])
def test_a_wrong_argument_is_named(change, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        made(**change)


def test_sources_of_another_number_are_named():
    with pytest.raises(ValueError, match="^sources has 1 pictures: accepted are two"):
        LoraMix(SD, A, B, SOURCES[:1], PROMPT, Z, PATH)
