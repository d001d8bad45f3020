"""Plug-and-Play: the official batch of three by other means, exact identities, what it holds."""

from dataclasses import replace

import pytest
import torch
from injected import (  # noqa: F401, two of them fixtures
    SOURCE, TARGET, Batched, drawn, fused, interrupted, noise, refused, sd15, seam, source,
)
from torch.testing import assert_close

from coursekit.diffusion.sample import State, ddim, invert, last
from coursekit.edits import pnp
from coursekit.nets.control import controlled, tapped

ALL, NONE = {"tau_f": 1.0, "tau_A": 1.0}, {"tau_f": 0.0, "tau_A": 0.0}
# the official lists, by name
FEATURE = "up_blocks.1.resnets.1.conv2"
ATTENTION = [f"up_blocks.{i}.attentions.{j}.transformer_blocks.0.attn1"
             for i in (1, 2, 3) for j in range(3) if (i, j) != (1, 0)]


# ---- identities

@pytest.mark.parametrize("w, negative", [(1.0, ""), (7.5, SOURCE)])
def test_injecting_a_picture_into_itself_changes_nothing(exact, generator, w, negative):
    path = exact.path(2)
    states = drawn(exact, SOURCE, noise(exact, generator), path)
    out = pnp.edit(exact, states, SOURCE, SOURCE, path, negative=negative, w=w, **ALL)
    assert_close(out, states[-1].x, rtol=0, atol=1e-10)


def test_closed_windows_give_the_plain_sample_also_at_t_1000(exact, generator):
    """The official code injects at t = 1000 whatever the windows say; nor is the source shown."""
    path = exact.schedule.trailing(2)
    assert path[0] == 1000
    states, seen = drawn(exact, SOURCE, noise(exact, generator), path), []
    plain = drawn(exact, TARGET, states[0].x, path, "a photo", 7.5)[-1].x
    with tapped(exact.unet, lambda out: seen.append(len(out.sample))):
        out = pnp.edit(exact, states, SOURCE, TARGET, path, negative="a photo", **NONE)
    assert torch.equal(out, plain)
    assert seen == [1, 2, 2]  # one pass to trace, then guided ones alone


@torch.no_grad()
@pytest.mark.parametrize("windows", [ALL, {**NONE, "tau_f": 1.0}, {**NONE, "tau_A": 1.0}])
def test_it_is_the_official_batch_of_source_negative_and_target(sd15, source, windows):
    """Rows 1 and 2 overwritten by row 0 in the layers that the official code names."""
    path, states = source
    text = sd15.text([SOURCE, "a photo", TARGET])

    def overwrite(f):
        return f[:1].repeat(3, *[1] * (f.ndim - 1))

    def eps(x, t):
        z = next(s.x for s in states if s.t == t)
        _, bad, good = sd15.eps(text)(torch.cat([z, x, x]), t).split(1)
        return bad + 7.5 * (good - bad)

    before, hook = {m: m.get_processor() for m in sd15.unet.modules()
                    if hasattr(m, "get_processor")}, None
    if windows["tau_A"]:
        for name in ATTENTION:
            sd15.unet.get_submodule(name).set_processor(
                Batched(lambda q, k, v: (overwrite(q), overwrite(k), v)))
    if windows["tau_f"]:
        hook = sd15.unet.get_submodule(FEATURE).register_forward_hook(
            lambda _module, _inputs, f: overwrite(f))
    try:
        want = last(ddim(eps, sd15.schedule, states[0].x, path)).x
    finally:
        if hook is not None:
            hook.remove()
        for module, processor in before.items():
            module.set_processor(processor)
    out = pnp.edit(sd15, states, SOURCE, TARGET, path, negative="a photo", **windows)
    assert_close(out, want, rtol=0, atol=1e-10)
    assert (out - drawn(sd15, TARGET, states[0].x, path, "a photo", 7.5)[-1].x).abs().max() > 1e-3


def test_windows_close_at_their_own_hop(sd15, source):
    """Half the hops: the first is that of an open window, the second that of a closed one."""
    path, states = source
    for name, other in (("tau_f", "tau_A"), ("tau_A", "tau_f")):
        half = pnp.edit(sd15, states, SOURCE, TARGET, path, **{name: 0.5, other: 0.0})
        first = pnp.edit(sd15, states, SOURCE, TARGET, path[:2], **{name: 1.0, other: 0.0})
        rest = drawn(sd15, TARGET, first, path[1:], w=7.5)[-1].x
        assert_close(half, rest, rtol=0, atol=1e-10)


def test_a_picture_alone_is_inverted_along_the_path(sd15, generator):
    z, path = noise(sd15, generator), sd15.path(1)
    with torch.no_grad():
        states = list(invert(sd15.eps(SOURCE), sd15.schedule, z, path))
    alone = pnp.edit(sd15, z, SOURCE, TARGET, path)
    assert torch.equal(pnp.edit(sd15, states, SOURCE, TARGET, path), alone)


def test_pictures_of_a_batch_do_not_touch_each_other(sd15, generator):
    path = sd15.path(1)
    states = drawn(sd15, SOURCE, noise(sd15, generator, b=2), path)
    both = pnp.edit(sd15, states, [SOURCE, "a photo"], [TARGET, "a dog"], path, **ALL)
    for i, (prompt, target) in enumerate(((SOURCE, TARGET), ("a photo", "a dog"))):
        one = [State(s.t, s.x[i:i + 1]) for s in states]
        assert_close(pnp.edit(sd15, one, prompt, target, path, **ALL), both[i:i + 1],
                     rtol=0, atol=1e-10)


# ---- effects

@torch.no_grad()
@pytest.mark.parametrize("place, share", [("resnets.1", 0.9), ("attentions.1", 0.97)])
def test_injection_draws_what_the_decoder_makes_to_the_source(sd15, source, place, share):
    """After the shortcut sum and after attention, where the edit's own part comes in again."""
    path, states = source

    def inside(run):
        found = []
        with tapped(sd15.unet.get_submodule(f"up_blocks.1.{place}"), found.append):
            run()
        out = found[-1]  # of the last pass; a tensor, or what holds one
        return (out if isinstance(out, torch.Tensor) else out[0])[-1:]  # the target's row

    theirs = inside(lambda: sd15.eps(SOURCE)(states[0].x, path[0]))
    free, held = (inside(lambda w=w: pnp.edit(sd15, states, SOURCE, TARGET, path[:2], **w))
                  for w in (NONE, ALL))
    assert (held - theirs).norm() < share * (free - theirs).norm()


@torch.no_grad()
def test_another_prompt_still_draws_another_picture(sd15, source):
    path, states = source
    out = pnp.edit(sd15, states, SOURCE, TARGET, path, **ALL)
    assert (out - states[-1].x).abs().max() > 1e-2


# ---- the network meanwhile, and after

def test_attention_stays_fused(sd15, source, monkeypatch):
    """Every attention of every pass is the fused kernel, also where Q and K are not its own."""
    path, states = source
    calls = fused(sd15, monkeypatch)
    pnp.edit(sd15, states, SOURCE, TARGET, path, **ALL)
    assert len(calls) == 32 * (1 + 2 * 2)  # to trace, and per hop the source and the edit


def test_no_forward_is_replaced_and_all_is_restored_after_an_exception(sd15, source):
    path, states = source
    before = seam(sd15.unet)
    during = interrupted(sd15, 1, lambda: pnp.edit(sd15, states, SOURCE, TARGET, path, **ALL))
    assert seam(sd15.unet) == before and len(during) == 3
    assert not any(patched for moment in during for *_, patched in moment)


@torch.no_grad()
def test_it_works_inside_another_control_and_in_float32(models, generator):
    sd, path = models["sd15"], models["sd15"].path(1)
    states = drawn(sd, SOURCE, noise(sd, generator).float(), path)
    out = pnp.edit(sd, states, SOURCE, TARGET, path)
    with controlled(sd.unet):
        assert torch.equal(pnp.edit(sd, states, SOURCE, TARGET, path), out)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("wrong, words", [
    ({"tau_f": 1.5}, "tau_f=1.5: accepted is a share of the path in [0, 1]"),
    ({"tau_A": -0.1}, "tau_A=-0.1: accepted is a share"),
    ({"w": float("inf")}, "w=inf: accepted is a finite number"),
    ({"target": 5}, "target=5: accepted are a sentence"),
    ({"prompt": None}, "prompt=None: accepted are a sentence"),
    ({"negative": ["a", "b"]}, "negative: 2 sentences for 1 pictures"),
    ({"target": "", "prompt": "a dog"}, "prompt is empty, as is negative: w=7.5"),
    ({"path": [502, 700, 1]}, "path: 502 -> 700"),
    ({"path": [982, 2, 1]}, "image has no state at t=982"),
])
def test_a_wrong_argument_is_named(sd15, source, wrong, words):
    path, states = source
    given = {"image": states, "prompt": SOURCE, "target": TARGET, "path": path} | wrong
    refused(pnp.edit, words, sd=sd15, **given)


def test_a_network_without_such_a_layer_is_named(sd15, source):
    path, states = source
    net = torch.nn.Linear(1, 1).double()
    with pytest.raises(ValueError, match="net is a Linear without attention"):
        pnp.edit(replace(sd15, unet=net), states, SOURCE, TARGET, path)
