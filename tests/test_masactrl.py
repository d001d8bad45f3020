"""MasaCtrl: the official batch of four by other means, exact identities, masks as two softmaxes."""

import pytest
import torch
from injected import (  # noqa: F401, one of them a fixture
    SOURCE, TARGET, Batched, drawn, fused, interrupted, noise, refused, sd15, seam,
)
from torch.testing import assert_close

from coursekit.diffusion.sample import State, ddim, last
from coursekit.edits import masactrl
from coursekit.nets.control import tapped
from coursekit.nets.wordmaps import watched

# the official choice at 512x512, layers 10 to 15 of 16 in order of execution, by name
ATTENTION = [f"up_blocks.{i}.attentions.{j}.transformer_blocks.0.attn1"
             for i in (2, 3) for j in range(3)]
BAD = "a photo"


@pytest.fixture(scope="module")
def source(sd15):
    """A path, and the states of a source on it, drawn under guidance."""
    path = sd15.path(2)
    z = noise(sd15, torch.Generator().manual_seed(0))
    return path, drawn(sd15, SOURCE, z, path, BAD, 7.5)


# ---- identities

@pytest.mark.parametrize("w", [1.0, 7.5])
def test_the_same_prompt_changes_nothing(exact, generator, w):
    path = exact.path(2)
    states = drawn(exact, SOURCE, noise(exact, generator), path, BAD, w)
    out = masactrl.edit(exact, states, SOURCE, SOURCE, path, negative=BAD, w=w, start=0.0)
    assert_close(out, states[-1].x, rtol=0, atol=1e-10)


def test_where_all_hops_are_free_it_is_the_plain_sample(exact, generator):
    path = exact.path(2)
    states = drawn(exact, SOURCE, noise(exact, generator), path)
    plain = drawn(exact, TARGET, states[0].x, path, BAD, 7.5)[-1].x
    out = masactrl.edit(exact, states, SOURCE, TARGET, path, negative=BAD, start=1.0)
    assert torch.equal(out, plain)


@torch.no_grad()
def test_it_is_the_official_batch_of_both_pictures_under_guidance(sd15, source):
    """Rows [bad, bad, source, target]: each target row takes K and V of the row before it."""
    path, states = source
    predict = sd15.eps([SOURCE, TARGET], BAD, 7.5)

    def mutual(q, k, v):
        return q, k[[0, 0, 2, 2]], v[[0, 0, 2, 2]]

    def eps(x, t):
        z = next(s.x for s in states if s.t == t)
        return predict(torch.cat([z, x]), t)[1:]

    layers = {name: sd15.unet.get_submodule(name) for name in ATTENTION}
    before = {name: m.get_processor() for name, m in layers.items()}
    for m in layers.values():
        m.set_processor(Batched(mutual))
    try:
        want = last(ddim(eps, sd15.schedule, states[0].x, path)).x
    finally:
        for name, m in layers.items():
            m.set_processor(before[name])
    out = masactrl.edit(sd15, states, SOURCE, TARGET, path, negative=BAD, start=0.0)
    assert_close(out, want, rtol=0, atol=1e-10)
    assert (out - drawn(sd15, TARGET, states[0].x, path, BAD, 7.5)[-1].x).abs().max() > 1e-3


def test_the_first_hops_are_free(sd15, source):
    """The source is not even shown then; a share of the hops, whatever their number."""
    path, states = source
    for start, passes in ((0.0, [1, *[2] * 4]), (0.5, [1, *[2] * 3]), (0.99, [1, *[2] * 3])):
        seen = []
        with tapped(sd15.unet, lambda out, seen=seen: seen.append(len(out.sample))):
            masactrl.edit(sd15, states, SOURCE, TARGET, path, start=start)
        assert seen == passes  # to trace, per hop the source if it gives something, and the edit


def test_smaller_maps_count_where_they_are_asked_for(sd15, source):
    path, states = source
    half, all_, most = (masactrl.edit(sd15, states, SOURCE, TARGET, path, start=0.0, least=least)
                        for least in (0.5, 0.0, 1.0))
    assert len({float(x.sum()) for x in (half, all_, most)}) == 3


def test_pictures_of_a_batch_do_not_touch_each_other(sd15, generator):
    path = sd15.path(1)
    states = drawn(sd15, SOURCE, noise(sd15, generator, b=2), path)
    both = masactrl.edit(sd15, states, [SOURCE, BAD], [TARGET, "a dog"], path, negative=BAD)
    for i, (prompt, target) in enumerate(((SOURCE, TARGET), (BAD, "a dog"))):
        one = [State(s.t, s.x[i:i + 1]) for s in states]
        assert_close(masactrl.edit(sd15, one, prompt, target, path, negative=BAD),
                     both[i:i + 1], rtol=0, atol=1e-10)


# ---- mask-guided

def test_object_and_background_are_two_softmaxes(generator):
    """Two attentions with the others' logits at minus infinity, joined by the edit's mask."""
    logits = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    here, there = (torch.rand(2, 6, generator=generator) > 0.5 for _ in range(2))
    here[:, 0] = there[:, 0] = True
    here[:, 1] = there[:, 1] = False
    parts = [logits.masked_fill(~m[:, None, None], -torch.inf).softmax(-1)
             for m in (there, ~there)]
    want = torch.where(here[:, None, :, None], *parts)
    found = masactrl.apart(logits.softmax(-1), here, there)
    assert_close(found, want)
    assert_close(found.sum(-1), torch.ones(2, 3, 6, dtype=torch.float64))


def test_a_pixel_with_nothing_to_see_sees_all(generator):
    A = torch.rand(1, 2, 4, 4, generator=generator).softmax(-1)
    none = torch.zeros(1, 4, dtype=torch.bool)
    here = torch.tensor([[True, False, False, False]])
    assert torch.equal(masactrl.apart(A, here, none)[:, :, 0], A[:, :, 0])
    assert_close(masactrl.apart(A, none, none), A)


def test_the_foreground_is_above_a_share_of_the_range():
    maps = torch.tensor([[[0.2, 0.21], [0.24, 0.6]], [[5.0, 1.0], [1.0, 1.0]]])
    want = torch.tensor([[[False, False], [False, True]], [[True, False], [False, False]]])
    assert torch.equal(masactrl.foreground(maps, 0.1, (2, 2)), want)
    large = masactrl.foreground(maps, 0.1, (4, 6))
    assert large.shape == (2, 4, 6) and large[0, 2:, 3:].all() and large[0].sum() == 6
    assert not masactrl.foreground(torch.ones(1, 2, 2), 0.1, (2, 2)).any()  # flat: no object


@torch.no_grad()
def test_the_masks_are_those_of_the_two_words(sd15, source, monkeypatch):
    """The source's at this hop; the edit's as seen in the hops before it."""
    path, states = source
    seen, plain = [], masactrl.apart
    monkeypatch.setattr(masactrl, "apart", lambda A, *m: seen.append(m) or plain(A, *m))
    out = masactrl.edit(sd15, states, SOURCE, TARGET, path, start=0.5, words=("dog", "cat"))
    assert len(seen) == len(ATTENTION)
    wanted = []
    for prompt, hop, column in ((TARGET, 0, 5), (SOURCE, 1, 2)):
        z, t = states[hop].x, path[hop]
        eps, maps = watched(sd15, prompt, w=7.5, sizes=(4,))
        eps(z, t)
        assert maps.columns[column] in ("dog", "cat")
        wanted.append(maps.at(t, 4)[:, column])
    for here, there in seen:
        n = here.shape[1]
        size = (4, 8) if n == 32 else (8, 16)
        for mask, m in zip((here, there), wanted, strict=True):
            want = masactrl.foreground(m, 0.1, size).flatten(1)
            assert torch.equal(mask, want.repeat(2, 1)) and 0 < want.sum() < n
    free = masactrl.edit(sd15, states, SOURCE, TARGET, path, start=0.5)
    assert (out - free).abs().max() > 1e-5


# ---- the network meanwhile, and after

def test_all_is_restored_after_an_exception(sd15, source):
    path, states = source
    before = seam(sd15.unet)
    passes = interrupted(sd15, 3, lambda: masactrl.edit(
        sd15, states, SOURCE, TARGET, path, start=0.0, words=("dog", "cat")))
    assert seam(sd15.unet) == before
    assert not any(patched for moment in passes for *_, patched in moment)


def test_probabilities_are_formed_for_masks_alone(sd15, source, monkeypatch):
    path, states = source
    calls = fused(sd15, monkeypatch)
    masactrl.edit(sd15, states, SOURCE, TARGET, path, start=0.0)
    assert len(calls) == 32 * (1 + 2 * 2)
    calls.clear()
    masactrl.edit(sd15, states, SOURCE, TARGET, path, start=0.5, words=("dog", "cat"))
    assert len(calls) == 32 * (1 + 3) - len(ATTENTION)


@pytest.mark.parametrize("wrong, words", [
    ({"start": 1.1}, "start=1.1: accepted is a share of the path in [0, 1]"),
    ({"least": -1}, "least=-1: accepted is a share"),
    ({"image": "odd"}, "image is str: accepted are latents"),
    ({"target": [3]}, "target=[3]: accepted are a sentence"),
    ({"words": "ab"}, "words='ab': accepted are two"),
    ({"words": ("dog",)}, "words=('dog',): accepted are two"),
    ({"words": ("cat", "cat")}, "words: 'cat' is 0 times in 'a dog'"),
    ({"words": ("dog", "a")}, "words: 'a' is 2 times in 'a photo of a cat'"),
    ({"words": ("dog", "cat"), "threshold": 1}, "threshold=1: accepted is a number in [0, 1)"),
    ({"words": ("dog", "cat"), "target": [TARGET]}, "target is list: accepted with words is one"),
])
def test_a_wrong_argument_is_named(sd15, source, wrong, words):
    path, states = source
    given = {"image": states, "prompt": SOURCE, "target": TARGET, "path": path} | wrong
    refused(masactrl.edit, words, sd=sd15, **given)
