"""Prompt-to-Prompt: its identities on three topologies, and what it must refuse."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from coursekit.diffusion.guided import direct, null_text
from coursekit.diffusion.inversion import Hop, edit_friendly, replay
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.edits import p2p
from coursekit.edits.p2p import Control, edit, mixing, pair, paired
from coursekit.nets import injection, tiny, words
from coursekit.nets.blend import Blend, Seen, blend_mask
from coursekit.nets.control import Site
from coursekit.nets.latent import Latent, Text
from coursekit.nets.wordmaps import watched

CAT, HORSE = "a photo of a cat.", "a photo of a horse."
SWAP = Control(align=words.swap)


def windows(cross, itself, **more) -> Control:
    return Control(cross_attention=cross, self_attention=itself, **more)


PLAIN = windows(0, 0)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def wide() -> Latent:
    """The tiny model in float64."""
    sd = tiny.latent()
    return replace(sd, unet=deepcopy(sd.unet).double(),
                   encoders=tuple(deepcopy(e).double() for e in sd.encoders))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def start(sd: Latent, b: int = 1) -> torch.Tensor:
    return sd.noise(b, seeded()).to(sd.unet.dtype)


def halves(sd: Latent, z: torch.Tensor, prompt, target, S: int = 3, **more):
    return last(pair(sd, z, prompt, target, sd.path(S), **more)).x.chunk(2)


def alone(sd: Latent, z: torch.Tensor, prompt, S: int = 3, w: float = 7.5):
    return last(ddim(sd.eps(prompt, w=w), sd.schedule, z, sd.path(S))).x


def near(a: torch.Tensor, b: torch.Tensor) -> None:
    """Within 2e-5 of the largest value: what passes of other shapes differ by in float32."""
    assert_close(a, b, atol=2e-5 * float(b.abs().max()), rtol=0)


# ---- table 4.4


@pytest.mark.parametrize("control", [Control(), SWAP, PLAIN, windows(1, 1, side=1.0),
                                     windows((0.5, 1), 0)])
def test_identical_prompts_give_the_source_to_the_bit(sd, control):
    source, target = halves(sd, start(sd), CAT, CAT, 2, control=control)
    assert torch.equal(source, target)


def test_the_source_is_drawn_as_it_would_be_alone(sd):
    z = start(sd)
    source, _ = halves(sd, z, CAT, HORSE, control=SWAP)
    near(source, alone(sd, z, CAT))


def test_the_source_is_drawn_as_it_would_be_alone_in_double_precision():
    sd = wide()
    z = start(sd, 2)
    for w in (1.0, 7.5):
        source, _ = halves(sd, z, "a dog", "a big cat", 10, w=w)
        assert_close(source, alone(sd, z, "a dog", 10, w), atol=1e-10, rtol=0)


def test_windows_that_never_open_give_the_target_alone(sd):
    """To the bit what a pass of the same shape gives, and near one of half the rows."""
    z = start(sd)
    for control in (PLAIN, windows(0.0, 1.0, side=0.0)):
        source, target = halves(sd, z, CAT, HORSE, control=control)
        both = alone(sd, torch.cat([z, z]), sd.text(CAT).then(sd.text(HORSE)))
        assert torch.equal(torch.cat([source, target]), both)
        near(target, alone(sd, z, HORSE))


@pytest.mark.parametrize("control", [SWAP, windows(0.8, 0), windows(0, 0.8)])
def test_attention_of_the_source_changes_the_target(sd, control):
    z = start(sd)
    _, target = halves(sd, z, CAT, HORSE, control=control)
    assert (target - alone(sd, z, HORSE)).abs().max() > 1e-4


def test_factors_of_one_change_nothing_and_others_do(sd):
    z = start(sd)
    runs = [halves(sd, z, CAT, HORSE, 2, control=Control(weights=weights))[1]
            for weights in ({}, {"horse": 1, "photo": 1.0}, {"horse": 3.0}, {"horse": -2.0})]
    assert torch.equal(runs[0], runs[1])
    assert min((runs[0] - run).abs().max() for run in runs[2:]) > 1e-4


def test_a_blend_lets_through_nothing_or_all(sd):
    z = start(sd)
    plain = halves(sd, z, CAT, HORSE)
    none = halves(sd, z, CAT, HORSE, blend=Blend("cat", "horse", threshold=1.0))
    all_ = halves(sd, z, CAT, HORSE, blend=Blend("cat", "horse", threshold=0.0, start=0.0))
    late = halves(sd, z, CAT, HORSE, blend=Blend("cat", "horse", threshold=1.0, start=1.0))
    assert torch.equal(none[1], none[0])
    for run in (all_, late):
        assert torch.equal(run[0], plain[0]) and torch.equal(run[1], plain[1])


def test_attention_that_is_noted_sums_to_layers_times_hops(sd, topology):
    """All tokens as one word: each layer and hop adds 1 at every pixel. Nothing else is kept."""
    z, path = start(sd), sd.path(3)
    everything = torch.ones(1, sd.context, 1)
    seen = Seen(8, (everything, everything), (0.3, 0.3))
    last(ddim(paired(sd, [(CAT, HORSE)], path, control=SWAP, seen=seen), sd.schedule,
              torch.cat([z, z]), path))
    layers = {"sd15": 5, "sd21": 5, "sdxl": 10}[topology]
    assert seen.total.shape == (2, 8, 8)
    assert_close(seen.total, torch.full((2, 8, 8), float(layers * (len(path) - 1))))


# ---- the algebra of maps


def test_mixing_is_the_edit_token_by_token():
    sd = tiny.latent()
    M, own_map = torch.rand(2, 1, 3, 6, sd.context, generator=seeded()).softmax(-1)
    R, own = (a[None] for a in vars(words.refine(sd, "a cat", "a big cat")).values())
    c = torch.rand(1, sd.context, generator=seeded())
    open_ = (torch.rand(1, sd.context, generator=seeded(6)) > 0.4).float()
    mix, keep = mixing(R, own, c, open_)
    found = M @ mix[:, None] + own_map * keep[:, None, None]
    for j in range(sd.context):
        source = R[0, :, j].nonzero().flatten()
        edited = own_map[..., j] if own[0, j] else M[..., source].sum(-1)
        wanted = c[0, j] * edited if open_[0, j] else own_map[..., j]
        assert_close(found[..., j], wanted)
    swapped = words.swap(sd, "a cat sits", "a horse sits")
    assert_close((M @ swapped.R).sum(-1), torch.ones(1, 3, 6))


def test_the_network_sees_the_maps_that_the_paper_says(sd, topology, monkeypatch):
    """By diffusers' rule of attention, recomputed: what enters each layer's product with V."""
    seen, z = [], start(sd)
    make = p2p._probs

    def spying(b, mix, keep):
        inner = make(b, mix, keep)

        def probs(site, A):
            out = inner(site, A)
            seen.append((site, A, out))
            return out

        return probs

    monkeypatch.setattr(p2p, "_probs", spying)
    halves(sd, z, CAT, HORSE, 2, control=replace(SWAP, self_attention=0.0, weights={"horse": 2.0}))
    R = words.swap(sd, CAT, HORSE).R
    horse = words.tokens(sd, HORSE, "horse", "")
    for site, A, out in seen:
        assert site.is_cross and len(A) == 4
        assert torch.equal(out[:3], A[:3])  # the unconditional half and the source
        wanted = A[2] @ R
        wanted[..., horse] *= 2
        assert_close(out[3], wanted, atol=1e-6, rtol=0)
    assert len(seen) >= 16


# ---- time


def test_a_hop_is_known_by_its_time_and_not_by_counting():
    """Calls in any order, twice, or in between for something else, change nothing."""
    sd = wide()
    path, x = sd.path(4), torch.cat([start(sd)] * 2)
    eps, other = (paired(sd, [("a dog", "a cat")], path, control=windows(0.5, 0.25))
                  for _ in range(2))
    wanted = [eps(x, t) for t in path[:-1]]
    for i in (3, 0, 0, 2, 1):
        sd.eps("a bee")(x, path[i])
        assert torch.equal(other(x, path[i]), wanted[i])


@pytest.mark.parametrize(("window", "hops"), [
    (0, 0), (1, 10), (0.8, 8), (0.29, 2), (0.7, 7), (1.0, 10), ((0.3, 0.6), 3), ((0, 1), 10)])
def test_a_window_is_a_share_of_the_hops_whole_numbers_included(window, hops):
    """The official code takes 0 and 1 for what they are not, and stops."""
    sd, calls = wide(), []
    path, x = sd.schedule.trailing(10), torch.cat([start(sd)] * 2)
    plain = sd.eps(sd.text("a dog").then(sd.text("a cat")), w=7.5)
    eps = paired(sd, [("a dog", "a cat")], path, control=windows(window, 0))
    for t in path[:-1]:
        calls.append(bool((eps(x, t) - plain(x, t)).abs().max() > 1e-9))
    first = 3 if window == (0.3, 0.6) else 0
    assert calls == [first <= i < first + hops for i in range(10)]


def test_a_word_has_a_window_of_its_own():
    sd = wide()
    path, x = sd.schedule.trailing(4), torch.cat([start(sd)] * 2)
    every = {word: 0 for word, _ in words.pieces(sd, "a cat")}

    def eps(t, cross, own):
        control = windows(cross, 0, align=words.swap, windows=own)
        return paired(sd, [("a dog", "a cat")], path, control=control)(x, t)

    def differ(a, b):
        return (a - b).abs().max() > 1e-6

    first, third = path[0], path[2]
    assert torch.equal(eps(first, 1, {"cat": (0, 0.5)}), eps(first, 1, {}))
    assert differ(eps(third, 1, {"cat": (0, 0.5)}), eps(third, 1, {}))
    assert differ(eps(third, 0, {"cat": (0.5, 1)}), eps(third, 0, {}))
    assert torch.equal(eps(first, 0, {"cat": (0.5, 1)}), eps(first, 0, {}))
    assert differ(eps(first, 1, every), eps(first, 0, {}))  # start, end and padding go on


# ---- what stays fused


def test_attention_is_explicit_only_to_words_and_only_in_their_window(sd, monkeypatch):
    kernel, fused = F.scaled_dot_product_attention, []

    def counted(q, k, v, **more):
        fused.append(k.shape[2] == q.shape[2])
        return kernel(q, k, v, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    path, x = sd.path(4), torch.cat([start(sd)] * 2)
    eps = paired(sd, [(CAT, HORSE)], path, control=windows(0.5, 1, side=1.0),
                 seen=Seen(8, (torch.ones(1, sd.context, 1),) * 2, (0.3, 0.3)))
    counts = []
    for t in path[:-1]:
        fused.clear()
        eps(x, t)
        counts.append(len(fused))
    whole = counts[-1]  # text is encoded once, so all of these are the U-Net's
    assert counts == [whole // 2, whole // 2, *[whole] * (len(path) - 3)]


def test_self_attention_is_the_sources_in_small_maps_alone():
    """Seen at the inputs of the fused kernel: q and k of the source, v of the target."""
    sd, seen, kernel = wide(), [], F.scaled_dot_product_attention
    path, x = sd.path(2), torch.cat([start(sd)] * 2)
    x[1] += 0.1

    def spying(q, k, v, **more):
        if q.shape[2] == k.shape[2]:
            seen.append((q.shape[2], torch.equal(q[3], q[2]) and torch.equal(k[3], k[2]),
                         torch.equal(v[3], v[2]), torch.equal(q[1], q[0])))
        return kernel(q, k, v, **more)

    for side, sizes in ((1.0, {64, 16}), (0.5, {16}), (0.25, set())):
        eps = paired(sd, [("a dog", "a cat")], path, control=windows(0, 1, side=side))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", spying)
            eps(x, path[0])
        assert seen and all(same == (n in sizes) for n, same, _, _ in seen)
        assert not any(value or negative for _, _, value, negative in seen)
        seen.clear()


def test_the_network_is_as_it_was(sd):
    def state():
        return [(name, id(getattr(m, "processor", None)), len(m._forward_pre_hooks))
                for name, m in sd.unet.named_modules()]

    before = state()
    halves(sd, start(sd), CAT, HORSE, 2, blend=Blend("cat", "horse"))
    assert state() == before


# ---- blend


def test_a_mask_is_where_attention_or_a_neighbour_passes_its_share_of_the_highest():
    maps = torch.zeros(2, 4, 6)
    maps[0, 0, 0], maps[0, 3, 5], maps[1, 2, 2] = 1.0, 0.25, 7.0
    mask = blend_mask(maps, (8, 12), 0.3)
    assert mask.shape == (2, 1, 8, 12) and mask.dtype == torch.bool
    corner, middle = torch.zeros(2, 8, 12, dtype=torch.bool)
    corner[:4, :4], middle[2:8, 2:8] = True, True
    assert torch.equal(mask[0, 0], corner) and torch.equal(mask[1, 0], middle)
    assert blend_mask(maps, (8, 12), 0.2)[0, 0, 7, 11]
    assert not blend_mask(torch.zeros(1, 4, 4), (4, 4), 0.0).any()  # no word, no change


def test_a_blend_reads_both_pictures_own_attention_before_the_edit(sd, topology):
    """The official store is overwritten by the edit. Here: the maps that `watched` finds."""
    z, t = sd.noise(2, seeded(), (16 * sd.factor, 24 * sd.factor)), sd.path(2)[0]
    prompts, layers = (CAT[:-1], HORSE[:-1]), 10 if topology == "sdxl" else 5
    seen, edited = (Seen.of(sd, z, t, [prompts], Blend("cat", "horse")) for _ in range(2))
    paired(sd, [prompts], sd.path(2), control=PLAIN, seen=seen)(torch.cat([z, z]), t)
    for prompt, total in zip(prompts, seen.total.chunk(2), strict=True):
        eps, maps = watched(sd, prompt, w=7.5, sizes=(seen.height,))
        eps(z, t)
        assert total.shape == (2, 8, 12)
        assert_close(total, layers * maps.at(t, 8)[:, -2], atol=1e-5, rtol=0)  # the last word
    control = Control(weights={"horse": 99.0})
    paired(sd, [prompts], sd.path(2), control=control, seen=edited)(torch.cat([z, z]), t)
    assert edited.total.max() <= layers + 1e-4  # probabilities, and no weighted ones


def test_what_is_outside_the_mask_is_the_source_at_every_hop(sd):
    z, path = start(sd), sd.path(4)
    seen, blend = [], Blend("cat", "", threshold=0.9999, start=0.25)
    for state in pair(sd, z, CAT, HORSE, path, blend=blend):
        source, target = state.x.chunk(2)
        seen.append(float((source == target).all(1).float().mean()))
    assert seen[0] == 1 and seen[1] < 0.5
    assert all(0 < share < 1 for share in seen[2:])


# ---- pictures


def test_with_a_pivot_the_source_is_the_picture_at_any_weight(sd):
    """Direct inversion: to the bit, and as its offsets do it."""
    x, path = 0.5 * start(sd), sd.path(3)
    pivot = list(invert(sd.eps(CAT), sd.schedule, x, path))
    for w in (1.0, 7.5):
        states = list(pair(sd, pivot[-1].x, CAT, HORSE, path, w=w, control=SWAP,
                           pivot={s.t: s.x for s in pivot}))
        for state, wanted in zip(states, reversed(pivot), strict=True):
            assert torch.equal(state.x[:1], wanted.x)
        z = torch.cat([pivot[-1].x] * 2)
        eps = paired(sd, [(CAT, HORSE)], path, w=w, control=SWAP)
        hops = list(direct(sd.eps(CAT, w=w), sd.schedule, pivot))
        for state, hop in zip(ddim(eps, sd.schedule, z, path), hops, strict=True):
            if hop.noise is not None:
                state.x = torch.cat([state.x[:1] + hop.noise, state.x[1:]])
        near(state.x, states[-1].x)


def test_edit_inverts_draws_and_keeps_the_rest():
    sd = wide()
    x, path = 0.5 * start(sd, 2), sd.path(6)
    states = list(invert(sd.eps("a dog"), sd.schedule, x, path))
    found = edit(sd, x, "a dog", "a cat", path, blend=Blend("dog", "cat"))
    assert found.shape == x.shape and not torch.equal(found, x)
    again = edit(sd, states, ["a dog"] * 2, ["a cat"] * 2, path, blend=Blend("dog", "cat"))
    assert_close(again, found, atol=1e-12, rtol=0)
    one = edit(sd, x[1:], "a dog", "a cat", path, blend=Blend("dog", "cat"))
    assert_close(one, found[1:], atol=1e-10, rtol=0)


def test_each_picture_may_have_its_own_words():
    sd = wide()
    z, path = start(sd, 2), sd.path(3)
    prompts, targets = ["a dog", "a bee"], ["a big cat", "a bear"]
    source, target = last(pair(sd, z, prompts, targets, path, negative=["x", "y"])).x.chunk(2)
    for row in range(2):
        one = last(pair(sd, z[row:row + 1], prompts[row], targets[row], path,
                        negative="xy"[row])).x.chunk(2)
        assert_close((source[row:row + 1], target[row:row + 1]), one, atol=1e-10, rtol=0)


def test_null_text_embeddings_and_the_negative_prompt_compose():
    sd = wide()
    x, path = 0.5 * start(sd, 2), sd.path(3)
    pivot = list(invert(sd.eps("a dog"), sd.schedule, x, path))
    empty = sd.text("")
    found = list(null_text(lambda e: sd.eps(Text(e)), sd.eps("a dog"), sd.schedule, pivot,
                           empty.tokens.repeat(2, 1, 1), 7.5, iterations=3))
    nulls = {a.t: Text(b.null) for a, b in pairwise(found)}
    source, target = last(pair(sd, pivot[-1].x, "a dog", "a cat", path, negative=nulls)).x.chunk(2)
    assert_close(source, found[-1].x, atol=1e-10, rtol=0)
    assert (target - source).abs().max() > 1e-3
    for w in (3.0, 7.5):  # the own prompt as negative: no weight matters
        source, _ = last(pair(sd, pivot[-1].x, "a dog", "a cat", path, negative="a dog",
                              w=w)).x.chunk(2)
        assert_close(source, last(ddim(sd.eps("a dog"), sd.schedule, pivot[-1].x, path)).x,
                     atol=1e-10, rtol=0)


def test_it_runs_on_edit_friendly_noise():
    sd = wide()
    x, path = 0.5 * start(sd), sd.path(4)
    hops = list(edit_friendly(sd.eps("a dog", w=3.5), sd.schedule, x, path, generator=seeded()))
    twice = [Hop(h.t, torch.cat([h.x] * 2), None, None if h.noise is None else
                 torch.cat([h.noise] * 2), h.sd) for h in hops]
    eps = paired(sd, [("a dog", "a cat")], path, w=3.5)
    source, target = last(replay(eps, sd.schedule, twice)).x.chunk(2)
    assert_close(source, x, atol=1e-9, rtol=0)
    assert (target - x).abs().max() > 1e-3


def test_pictures_that_are_not_square_and_half_precision(sd, topology):
    z = sd.noise(1, seeded(), (24 * sd.factor, 16 * sd.factor))
    source, target = halves(sd, z, CAT, HORSE, 2, blend=Blend("cat", "horse"))
    assert source.shape == z.shape and target.isfinite().all() and not torch.equal(source, target)
    half = replace(sd, unet=deepcopy(sd.unet).bfloat16(),
                   encoders=tuple(deepcopy(e).bfloat16() for e in sd.encoders))
    source, target = halves(half, z, CAT, HORSE, 2, blend=Blend("cat", "horse"))
    assert target.dtype == z.dtype and target.isfinite().all()


# ---- bad input

SD = tiny.latent()
Z = torch.zeros(2, 3, 8, 8)
PATH = SD.schedule.trailing(4)


def refused(**changes):
    given = {"noise": Z, "prompt": "a dog", "target": "a cat", "path": PATH} | changes
    pair(SD, **given)


def controlled(**changes):
    refused(control=Control(**changes))


def blended(*given, **more):
    refused(blend=Blend(*given, **more))


@pytest.mark.parametrize("call, said", [
    (lambda: refused(control=SWAP, target="a big cat"), "target='a big cat' is not prompt='a dog'"),
    (lambda: controlled(weights={"dog": 2}), "weights: 'dog' is 0 times in 'a cat'"),
    (lambda: refused(target="a cat, a cat", control=Control(windows={"cat": 1})),
     "windows: 'cat' is 2 times in 'a cat, a cat'"),
    (lambda: controlled(weights={"cat": math.inf}), "weights['cat']=inf: accepted is a finite"),
    (lambda: controlled(weights={"cat": "2"}), "weights['cat']='2': accepted is a finite"),
    (lambda: controlled(cross_attention=1.2), "cross_attention=1.2: accepted are a share"),
    (lambda: controlled(cross_attention=(0.6, 0.2)), "cross_attention=(0.6, 0.2): accepted are"),
    (lambda: controlled(cross_attention="all"), "cross_attention='all': accepted are"),
    (lambda: controlled(self_attention=-0.1), "self_attention=-0.1: accepted are"),
    (lambda: controlled(windows={"cat": (0, 2)}), "windows['cat']=(0, 2): accepted are"),
    (lambda: controlled(side=1.5), "side=1.5: accepted is a share of the height in [0, 1]"),
    (lambda: blended("bee", "cat"), "blend.source: 'bee' is 0 times in 'a dog'"),
    (lambda: blended("dog", "dog"), "blend.target: 'dog' is 0 times in 'a cat'"),
    (lambda: blended("", ""), "blend: source and target are empty"),
    (lambda: blended("dog", "cat", threshold=1.1), "blend.threshold=1.1: accepted is a share"),
    (lambda: blended("dog", "cat", threshold=(0.1, 0.2, 0.3)), "blend.threshold=(0.1, 0.2, 0.3)"),
    (lambda: blended("dog", "cat", start=2), "blend.start=2: accepted is a share"),
    (lambda: refused(prompt=["a dog"] * 3), "prompt=['a dog', 'a dog', 'a dog']: accepted is a"),
    (lambda: refused(target=SD.text("a cat")), "target=Text: accepted is"),
    (lambda: refused(target="a cat" * 9), "prompt='a cat"),
    (lambda: refused(noise=Z / 0), "noise holds NaN or infinite values"),
    (lambda: refused(noise=Z.long()), "noise is torch.int64 (2, 3, 8, 8)"),
    (lambda: refused(noise=Z[0]), "noise is torch.float32 (3, 8, 8)"),
    (lambda: refused(noise=Z.to("meta")), "noise is on meta, the model on cpu"),
    (lambda: refused(path=[5, 9]), "path: 5 -> 9"),
    (lambda: refused(w=math.nan), "w=nan: accepted is a finite number"),
    (lambda: refused(pivot={0: Z}), "pivot has no entry for t=1000"),
    (lambda: refused(pivot=dict.fromkeys(PATH, Z[:1])), "pivot at t=1000 is torch.float32 (1, 3"),
    (lambda: refused(pivot=dict.fromkeys(PATH, Z.double())), "pivot at t=1000 is torch.float64"),
    (lambda: refused(negative={1000: ""}), "negative has no entry for t=750"),
    (lambda: refused(negative=Text(SD.text("").tokens.half())), "negative is torch.float16 on cpu"),
])  # fmt: skip
def test_bad_input_is_named_when_called(call, said):
    with pytest.raises((TypeError, ValueError)) as refusal:
        call()
    assert str(refusal.value).startswith(said) and "\n" not in str(refusal.value)


def test_a_network_without_attention_to_words_has_no_map_to_blend(monkeypatch):
    monkeypatch.setattr(injection, "traced", lambda *_: [Site("mid_block.attn", "mid", 0, False,
                                                              (8, 8))])
    with pytest.raises(ValueError, match="pays no attention to words"):
        blended("dog", "cat")
