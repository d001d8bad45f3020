"""Numeric twins of lecture 10: projections, attention, injection, and gradients of maps."""

import copy
import math
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from injected import Batched

from coursekit.classroom.injection import components
from coursekit.diffusion.regularise import autocorrelation, divergence
from coursekit.diffusion.sample import State, ddim, last
from coursekit.edits import masactrl, p2p, pix2pix_zero, pnp
from coursekit.nets import injection, tiny, words
from coursekit.nets.control import tapped
from coursekit.nets.latent import Text

from . import exact, mutated, sampled

equation = pytest.mark.equation
PROMPT, TARGET, NEGATIVE = "a dog", "a cat", "a photo"
FEATURE = "up_blocks.0.resnets.1.conv2"
DECODER = [f"up_blocks.{i}.attentions.{j}.transformer_blocks.0.attn1"
           for i in (0, 1) for j in (0, 1)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@cache
def model():
    """The smallest text-to-image model, in float64, with a network of its own."""
    sd = tiny.latent()
    unet, text = (copy.deepcopy(net).double() for net in (sd.unet, sd.encoders[0]))
    return replace(sd, unet=unet, encoders=(text,))


@cache
def given():
    """A path, and the states of a source sampled on it."""
    sd = model()
    path = sd.path(3)
    with torch.no_grad():
        return path, list(ddim(sd.eps(PROMPT), sd.schedule, normal(1, 3, 8, 8, seed=1), path))


@torch.no_grad()
def batched(mix, rows, names):
    """One hop of the source (first row) and others, who look at it in the layers `names`.

    mix(q, k, v) over all rows; rows: texts of the rows after the first. Returns their noises.
    """
    sd, (path, states) = model(), given()
    x = states[0].x.expand(1 + len(rows), -1, -1, -1)
    with ExitStack() as stack:
        for name in names:
            attn = sd.unet.get_submodule(name)
            stack.callback(attn.set_processor, attn.get_processor())
            attn.set_processor(Batched(mix))
        return sd.eps(sd.text([PROMPT, *rows]))(x, path[0])[1:]


def hop(eps):
    """Where the first hop leads with this noise."""
    path, states = given()
    return last(ddim(lambda x, t: eps, model().schedule, states[0].x, path[:2])).x


def softmax(logits):
    part = (logits - logits.amax(-1, keepdim=True)).exp()
    return part / part.sum(-1, keepdim=True)


# ---- words


@equation("10.1")
@mutated(own=0, sign=-1, turned=True)
def test_what_prompt_to_prompt_takes_from_the_source(own=1, sign=1, turned=False):
    """The package's mix and keep with every window open."""
    sd, off = tiny.latent(), []
    for target in ("a cat", "the dog runs", "it"):
        match = words.refine(sd, PROMPT, target)
        R, o = match.R.double(), match.own.double()
        M, M_target = (normal(5, len(o), seed=k).softmax(-1) for k in (2, 3))
        open_ = torch.ones(1, len(o), dtype=torch.float64)
        mix, keep = p2p.mixing(R[None], o[None], open_, open_)
        wanted = M @ mix[0] + M_target * keep[0]
        printed = M @ (R.T if turned else R) + sign * own * M_target @ torch.diag(o)
        off.append(exact(printed, wanted))
    return max(off)


# ---- features


@equation("10.2")
@mutated(rank=2, centre=0, power=1)
def test_three_components_lose_least(rank=3, centre=1, power=2):
    """The package's share, and the error of the printed projection on an eigenbasis."""
    maps = normal(4, 6, 3, 5, seed=4) * torch.tensor([5.0, 4, 3, 2, 1, 1]).view(1, 6, 1, 1) + 2
    rows = maps.permute(0, 2, 3, 1).reshape(-1, 6)
    sigma = torch.linalg.svdvals(rows - centre * rows.mean(0))
    lost = float((sigma[rank:] ** power).sum())
    apart = rows - rows.mean(0)
    W = torch.linalg.eigh(torch.cov(rows.T))[1][:, -3:]
    error = float((apart - apart @ W @ W.T).square().sum())
    share = components(maps)[1]
    return max(exact(lost, error, 1e-9), exact(1 - lost / float(apart.square().sum()), share, 1e-9))


def parted(n=60):
    F_ = normal(n, 5, seed=5)
    part = torch.arange(n) % 3
    return F_ + part[:, None] * torch.tensor([1.0, -1, 2, 0, 0.5]), part


@equation("10.3")
@mutated(count=False, sign=-1)
def test_variance_lies_between_parts_and_within(count=True, sign=1):
    rows, part = parted(61)
    whole = sum(float((f - rows.mean(0)).square().sum()) for f in rows)
    between = within = 0.0
    for p in range(3):
        mine = rows[part == p]
        between += (len(mine) if count else 1) * float(
            (mine.mean(0) - rows.mean(0)).square().sum())
        within += float((mine - mine.mean(0)).square().sum())
    return exact(between + sign * within, whole)


@equation("10.4")
@mutated(cleared=0, sign=1)
def test_what_colour_adds(cleared=1, sign=-1):
    """Projections through QR, against least squares."""
    rows, part = parted()
    D = F.one_hot(part, 3).double()
    C = normal(60, 2, seed=6) + part[:, None]

    def project(X, Y):
        Q = torch.linalg.qr(X)[0]
        return Q @ (Q.T @ Y)

    both = torch.cat([D, C], 1)
    whole, alone = (X @ torch.linalg.lstsq(X, rows).solution for X in (both, D))
    left = float(whole.square().sum()) + sign * float(alone.square().sum())
    return exact(float(project(C - cleared * project(D, C), rows).square().sum()), left, 1e-9)


# ---- self-attention


@equation("10.5")
@mutated(power=1, axis=-2)
def test_self_attention_is_torchs(power=0.5, axis=-1):
    q, k, v = (normal(2, 3, 7, 4, seed=s) for s in (7, 8, 9))
    logits = q @ k.mT / 4**power
    A = softmax(logits) if axis == -1 else softmax(logits.mT).mT
    return max(exact(A @ v, F.scaled_dot_product_attention(q, k, v)),
               exact(A.sum(-1), torch.ones(2, 3, 7)))


@equation("10.6")
@mutated(common=False, turn=2.0)
def test_a_common_rotation_changes_no_product(common=True, turn=1.0):
    q, k = normal(7, 4, seed=10), normal(7, 4, seed=11)
    U, other = (torch.linalg.qr(normal(4, 4, seed=s))[0] for s in (12, 13))
    return exact((q @ (turn * U)) @ (k @ (U if common else other)).T, q @ k.T)


@equation("10.7")
@mutated(factor=0.5, centred=False)
def test_who_attends_alike_gets_alike(factor=1.0, centred=True):
    """Met by two values, where it is an equality; never passed by random ones."""
    off = []
    for n in (2, 9):
        A, v = softmax(normal(6, n, seed=14)), normal(n, 3, seed=15) + 5
        c = (v.amax(0) + v.amin(0)) / 2 if centred else 0 * v[0]
        apart = torch.cdist(A, A, p=1) * (v - c).norm(dim=-1).max() * factor
        found = torch.cdist(A @ v, A @ v)
        off.append(exact(found, apart, 1e-8) if n == 2 else
                   float((found - apart).clamp(min=0).max()) / 1e-8)
    return max(off)


# ---- injection


@equation("10.8")
@mutated(values=True, keys=False, queries=False, skipped=0, feature=False)
def test_plug_and_play_is_the_official_batch(values=False, keys=True, queries=True, skipped=1,
                                             feature=True):
    """The package's first hop, against rows 1 and 2 overwritten by row 0."""
    sd, (path, states) = model(), given()

    def over(a, yes=True):
        return a[:1].expand(3, *a.shape[1:]) if yes else a

    def mix(q, k, v):
        return over(q, queries), over(k, keys), over(v, values)

    with tapped(sd.unet.get_submodule(FEATURE), lambda f: over(f, feature)):
        bad, good = batched(mix, [NEGATIVE, TARGET], DECODER[skipped:]).split(1)
    wanted = pnp.edit(sd, states, PROMPT, TARGET, path[:2], negative=NEGATIVE,
                      w=4.0, tau_f=1.0, tau_A=1.0)
    return exact(hop(bad + 4 * (good - bad)), wanted, 1e-8)


@equation("10.9")
@mutated(sign=1, injected=False)
@torch.no_grad()
def test_after_an_injected_layer_only_shortcuts_differ(sign=-1, injected=True):
    sd, (path, states) = model(), given()
    net = sd.unet.up_blocks[0].resnets[1]
    x = states[0].x

    def seen(prompt, f=None):
        """The feature, the output of the shortcut and that of the whole, met on the way."""
        met = {}
        with ExitStack() as stack:
            stack.enter_context(tapped(net.conv2, lambda own: met.update(f=own)))
            stack.enter_context(tapped(net.conv2, lambda own: f))
            stack.enter_context(tapped(net.conv_shortcut, lambda s: met.update(s=s)))
            stack.enter_context(tapped(net, lambda h: met.update(h=h)))
            sd.eps(prompt)(x, path[0])
        return met

    source = seen(PROMPT)
    edit = seen(TARGET, source["f"] if injected else None)
    apart = (edit["s"] + sign * source["s"]) / net.output_scale_factor
    return exact(apart, edit["h"] - source["h"])


@equation("10.10")
@mutated(target=TARGET, moved=0.1)
def test_a_picture_injected_into_itself_stays(target=PROMPT, moved=0.0):
    sd, (path, states) = model(), given()
    shifted = [State(s.t, s.x + moved * (s.t < path[0])) for s in states]
    out = [pnp.edit(sd, shifted, PROMPT, target, path, w=1.0, tau_f=f, tau_A=A)
           for f, A in ((1.0, 1.0), (0.5, 0.0), (1.0, 0.4))]
    return max(exact(x, states[-1].x, 1e-8) for x in out)


@equation("10.11")
@mutated(queries=True, keys=False, values=False)
def test_masactrl_is_the_official_batch(queries=False, keys=True, values=True):
    sd, (path, states) = model(), given()

    def over(a, yes):
        return a[:1].expand(2, *a.shape[1:]) if yes else a

    def mix(q, k, v):
        return over(q, queries), over(k, keys), over(v, values)

    sites = injection.traced(sd, states[0].x, path[0])
    names = [s.name for s in injection.MASACTRL.of(sites, 8)]
    wanted = masactrl.edit(sd, states, PROMPT, TARGET, path[:2], w=1.0, start=0.0)
    return exact(hop(batched(mix, [TARGET], names)), wanted, 1e-8)


@equation("10.12")
@mutated(share=0.9, sign=-1)
def test_nothing_comes_out_that_was_not_in_the_source(share=1.0, sign=1):
    """Met by queries so sharp that they choose one place; never passed by others."""
    q, k, v = normal(50, 4, seed=16), normal(8, 4, seed=17), normal(8, 3, seed=18)
    low, high = (share * sign * part for part in (v.amin(0), v.amax(0)))
    o = softmax(q @ k.T / 2) @ v
    passed = float(torch.maximum(o - high, low - o).clamp(min=0).max()) / 1e-8
    sharp = softmax(1e4 * normal(4000, 8, seed=19)) @ v  # all eight are somebody's first choice
    return max(passed, exact(sharp.amax(0), high, 1e-6), exact(sharp.amin(0), low, 1e-6))


@equation("10.13")
@mutated(rescaled=False, logarithm=False)
def test_a_struck_out_softmax_is_a_restricted_one(rescaled=True, logarithm=True):
    """masactrl.apart restricts; torch's softmax has the others at minus infinity."""
    L, m = normal(1, 2, 6, 9, seed=20), torch.arange(9) % 3 > 0
    A = softmax(L)
    part = A * m
    printed = part / part.sum(-1, keepdim=True) if rescaled else part
    struck = torch.softmax(L + (m.double().log() if logarithm else m.double()), -1)
    here = torch.ones(1, 6, dtype=torch.bool)
    return max(exact(printed, struck), exact(printed, masactrl.apart(A, here, m[None])))


# ---- pix2pix-zero


@equation("10.14")
@mutated(sign=1, mean=False)
def test_the_direction_is_a_difference_of_means(sign=-1, mean=True):
    sd, dogs, cats = model(), ["a dog", "the dog", "one dog"], ["a cat", "my cat"]
    parts = [sum(sd.text(s).tokens for s in some) / (len(some) if mean else 1)
             for some in (cats, dogs)]
    return exact(parts[0] + sign * parts[1], pix2pix_zero.direction(sd, dogs, cats).tokens)


@cache
def aimed():
    """Latents, a text that leads away, the layers, and the source's maps there."""
    sd, (path, states) = model(), given()
    by = pix2pix_zero.direction(sd, ["a dog"], ["a cat"])
    towards = Text(sd.text(PROMPT).tokens + by.tokens)
    sites = injection.traced(sd, states[0].x, path[0])
    layers = injection.PIX2PIX_ZERO.of(sites, 8)
    with torch.no_grad():
        aim = pix2pix_zero.attention(sd, states[0].x, path[0], sd.text(PROMPT), layers)
    return by, towards, layers, aim


def loss(x, power=2, heads=True):
    """L_xa as printed, from the maps of the network."""
    sd, (path, _), (_, towards, layers, aim) = model(), given(), aimed()
    maps = pix2pix_zero.attention(sd, x, path[0], towards, layers)
    return sum((m - ref).abs().pow(power).sum() / (m.shape[1] if heads else 1)
               for m, ref in zip(maps, aim, strict=True))


@equation("10.15")
@mutated(sign=1, power=1, heads=False)
def test_a_hop_with_cross_attention_guidance(sign=-1, power=2, heads=True):
    """The package's hop, against autograd of the printed loss, a step, and a plain hop."""
    sd, (path, states), (by, towards, *_) = model(), given(), aimed()
    x = states[0].x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(x, power, heads), x)
    with torch.no_grad():
        moved = states[0].x + sign * 3.0 * slope
        there = last(ddim(sd.eps(towards, PROMPT, 5.0), sd.schedule, moved, path[:2])).x
    wanted = pix2pix_zero.edit(sd, states, PROMPT, by, path[:2], w=5.0, lambda_xa=3.0)
    return exact(there, wanted, 1e-8)


@equation("10.16")
@mutated(sign=1, power=1)
def test_what_a_short_step_does_to_the_loss(sign=-1, power=2):
    """The slope by central differences along the gradient, as a share of what is printed."""
    x, short = given()[1][0].x, 1e-2
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        ahead, behind = (float(loss(x + s * short * g)) for s in (-1, 1))
    printed = sign * float(g.norm()) ** power
    return exact((ahead - behind) / (2 * short) / printed, 1.0, 1e-4)


@equation("10.17")
@mutated(two=1, sign=1, ref=0)
def test_the_gradient_of_the_drift_in_the_logits(two=2, sign=-1, ref=1):
    logits, aim = normal(6, 9, seed=21), softmax(normal(6, 9, seed=22))
    at = logits.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((torch.softmax(at, -1) - aim).square().sum(), at)
    m = softmax(logits)
    jacobian = torch.diag_embed(m) + sign * m[:, :, None] * m[:, None]
    return exact(two * (jacobian @ (m - ref * aim)[:, :, None])[..., 0], wanted)


@equation("10.18")
@mutated(power=2, shift=0)
def test_white_noise_has_little_correlation_with_itself(power=1, shift=None):
    """The package's loss of one channel of 8 x 8, down and right; or a shift of our own."""
    e, n = normal(20_000, 1, 8, 8, seed=23), 64
    if shift is None:
        draws = autocorrelation(e, seeded(24)) / 2
    else:
        draws = (e * e.roll(shift, 2)).mean((1, 2, 3)).square()
    return sampled(draws * n**power, 1.0)


@equation("10.19")
@mutated(two=1, one=0, sign=1)
def test_the_divergence_from_a_standard_normal(two=2, one=1, sign=-1):
    e = 0.6 * normal(3, 2, 4, 4, seed=25) + 0.3
    var, mean = torch.var_mean(e.flatten(1), 1)
    printed = mean**2 + var - one + sign * var.log()
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, var.sqrt()), torch.distributions.Normal(0.0, 1.0))
    return max(exact(printed, two * kl), exact(printed, divergence(e)))


def test_the_layers_named_here_are_those_of_the_package():
    path, states = given()
    sites = injection.traced(model(), states[0].x, path[0])
    assert [s.name for s in injection.PNP.of(sites, 8)] == DECODER[1:]
    assert injection.feature(model(), sites) is model().unet.get_submodule(FEATURE)
    assert math.isfinite(float(states[-1].x.sum()))
