"""Numeric twins of lecture 11: zero convolutions, guidance with a hint, low-rank updates."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from coursekit.diffusion.predict import target
from coursekit.diffusion.schedule import Schedule
from coursekit.edits.controlnet import Control, residuals, under
from coursekit.edits.controlnet import tiny as given
from coursekit.nets.hinted import Controlled, zero_conv
from coursekit.nets.lora import Factors, Lora, LoRALinear, mix
from coursekit.nets.unet import UNet
from coursekit.recipes.portraits_controlnet import agreement

from . import exact, mutated

equation = pytest.mark.equation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# ---- zero convolutions


@cache
def joined():
    """A small U-Net and its copy, both in float64, with weights that hide nothing."""
    net = UNet(image_channels=1, channels=(8, 16), encoder=(1, 1), decoder=(1, 1), attention=(),
               groups=4, unshuffle=1).double()
    generator = seeded(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
        mine = Controlled(net, 1).double()
        for p in mine.copy.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return mine, normal(2, 1, 8, 8, seed=2), torch.tensor([300, 700]), normal(2, 1, 8, 8, seed=3)


@equation("11.1")
@mutated(trunk=0, enter=0, leave=-1)
def test_a_controlled_block(trunk=1, enter=1, leave=1):
    """One block of the package's copy: the first of the encoder, behind its Z, by hand."""
    mine, x, t, hint = joined()
    from coursekit.nets.unet import time_embedding
    with torch.no_grad():
        part = mine.copy
        inside = []
        hook = mine.net.down_blocks[0][0].register_forward_hook(lambda _m, _i, y: inside.append(y))
        mine.net(x, t)
        hook.remove()
        emb = part.time(time_embedding(t, part.width).double())
        Z1 = enter * F.conv2d(hint, part.enter.weight, part.enter.bias)
        h = part.down_blocks[0][0](part.input(x) + Z1, emb, None, None)
        y = trunk * inside[0] + leave * F.conv2d(h, part.leave[0].weight, part.leave[0].bias)
        return exact(y, inside[0] + part(x, t, hint)[0])


@equation("11.2")
@mutated(W=1, b=1)
def test_it_begins_as_the_block(W=0, b=0):
    h, y = normal(2, 4, 3, 3, seed=4), normal(2, 5, 3, 3, seed=5)
    conv = zero_conv(4, 5).double()
    by_hand = torch.einsum("oc,bchw->bohw", torch.full((5, 4), float(W)).double(), h) + b
    return max(exact(y + conv(h).detach(), y + by_hand), exact(y + by_hand, y))


def slopes(W, b, h, goal):
    """Gradients by autograd of a squared error behind Z, and what comes back."""
    W, b, h = (v.clone().requires_grad_() for v in (W, b, h))
    y = torch.einsum("oc,bchw->bohw", W, h) + b[:, None, None]
    y.retain_grad()
    (y - goal).square().sum().backward()
    return W.grad, b.grad, h.grad, y.grad


H, GOAL = normal(2, 4, 3, 3, seed=6), normal(2, 5, 3, 3, seed=7)


@equation("11.3")
@mutated(sign=-1, bias=0, transposed=-1)
def test_gradients_of_a_zero_convolution(sign=1, bias=1, transposed=1):
    W, b = normal(5, 4, seed=8), normal(5, seed=9)
    off = []
    for some in (W, 0 * W):
        dW, db, dh, g = slopes(some, b, H, GOAL)
        rows = zip(g.permute(0, 2, 3, 1).reshape(-1, 5), H.permute(0, 2, 3, 1).reshape(-1, 4),
                   strict=True)
        off += [exact(sign * sum(torch.outer(g_p, h_p) for g_p, h_p in rows), dW),
                exact(bias * g.sum((0, 2, 3)), db),
                exact(transposed * torch.einsum("oc,bohw->bchw", some, g), dh)]
    return max(off)


@equation("11.4")
@mutated(sign=1, eta=0.2)
def test_the_second_step_reaches_what_lies_behind(sign=-1, eta=0.1):
    W, b = torch.zeros(5, 4).double(), torch.zeros(5).double()
    dW, _, dh, g = slopes(W, b, H, GOAL)
    W1 = W - 0.1 * dW  # gradient descent
    _, _, second, g1 = slopes(W1, b, H, GOAL)
    g, g1, h = (v.permute(0, 2, 3, 1).flatten(0, 2) for v in (g, g1, H))  # p c
    printed = sign * eta * (g1 @ g.T) @ h
    wanted = second.permute(0, 2, 3, 1).flatten(0, 2)
    return max(exact(printed, wanted), exact(sign * eta * g.T @ h, W1), exact(dh, 0 * dh))


@equation("11.5")
@mutated(strength=1.0, skips=0, middle=0)
def test_residuals_go_to_skips_and_middle(strength=0.6, skips=1, middle=1):
    """The package at strength 0.6, against hooks that add to what the decoder is given."""
    mine, x, t, hint = joined()
    with torch.no_grad():
        *rs, r_M = mine.copy(x, t, hint)
        printed = mine.net(x, t, residuals=[*(strength * skips * r for r in rs),
                                            strength * middle * r_M])
        return exact(printed, mine(x, t, hint, 0.6))


@equation("11.6")
@mutated(sign=1, swapped=True)
def test_the_loss_is_that_of_the_model(sign=-1, swapped=False):
    schedule = Schedule.cosine()
    x0, eps = normal(3, 1, 4, 4, seed=10), normal(3, 1, 4, 4, seed=11)
    t = torch.tensor([9, 400, 900])
    abar = torch.tensor([schedule.level(int(k)) for k in t]).double().view(-1, 1, 1, 1)
    a, s = abar.sqrt(), (1 - abar).sqrt()
    a, s = (s, a) if swapped else (a, s)
    return exact(a * eps + sign * s * x0, target(schedule, "v", x0, eps, t), 1e-6)


@equation("11.7")
@mutated(union=False)
def test_overlap_of_silhouettes(union=True):
    a, b = (normal(1, 12, 12, seed=s) > 0 for s in (12, 13))
    S, c = ({tuple(i) for i in m.nonzero().tolist()} for m in (a, b))
    under_ = len(S | c) if union else len(S) + len(c)
    return exact(len(S & c) / under_, agreement(a, b)["iou"], 1e-4)


# ---- guidance


@cache
def held():
    found = given()
    z = found["sd"].noise(1, seeded(14))
    return found["sd"], found["net"], found["hint"], z


@torch.no_grad()
def predicted(prompt, w=1.0, control=True, **how):
    sd, net, hint, z = held()
    model = under(sd, Control(net, hint, **how)) if control else sd
    return model.eps(prompt, w=w)(z, 500)


@equation("11.8")
@mutated(sign=-1, hinted=False)
def test_with_the_hint_in_both_halves(sign=1, hinted=True):
    none, full = predicted("", control=hinted), predicted("a dog")
    return exact(none + sign * 3 * (full - none), predicted("a dog", 3.0), 1e-5)


@equation("11.9")
@mutated(sign=-1, less=0)
def test_without_it_in_the_negative_half(sign=1, less=1):
    none, none_c, full = predicted("", control=False), predicted(""), predicted("a dog")
    other = predicted("a dog", 3.0, negative_hint=False)
    gap = other - predicted("a dog", 3.0)
    return max(exact(none + sign * 3 * (full - none), other, 1e-5),
               exact((3 - less) * (none_c - none), gap, 1e-5))


@equation("11.10")
@mutated(shift=0, base=2)
@torch.no_grad()
def test_finer_maps_count_less(shift=1, base=10):
    sd, net, hint, z = held()
    inputs = sd.conditions(z, sd.text("a dog").rows(1))
    plain, faded = (residuals(sd, Control(net, hint, fade=f), z, 500, inputs, 1)
                    for f in (False, True))
    K = len(plain) - 1
    return max(exact(base ** (k / K - shift) * r, f, 1e-5)
               for k, (r, f) in enumerate(zip(plain, faded, strict=True)))


# ---- low rank


W, A, B, X = (normal(*shape, seed=20 + i) for i, shape in enumerate(
    ((6, 5), (2, 5), (6, 2), (7, 5))))
ALPHA = 3.0


def wrapped(A=A, B=B, alpha=ALPHA):
    base = torch.nn.Linear(5, 6, bias=False).double()
    base.weight.data = W.clone()
    return LoRALinear(base, Factors(A, B, alpha))


@equation("11.11")
@mutated(divided=False, sign=-1)
def test_a_low_rank_layer(divided=True, sign=1):
    printed = W + sign * ALPHA / (2 if divided else 1) * B @ A
    return exact(X @ printed.T, wrapped()(X).detach())


@equation("11.12")
@mutated(scale=1.0, sign=-1)
def test_gradients_of_the_factors(scale=ALPHA / 2, sign=1):
    off = []
    for b in (B, 0 * B):
        a, b = A.clone().requires_grad_(), b.clone().requires_grad_()
        y = wrapped(a, b)(X)
        goal = normal(7, 6, seed=25)
        (y - goal).square().sum().backward()
        G = 2 * (y.detach() - goal).T @ X  # of the whole weight
        off += [exact(sign * scale * G @ A.T, b.grad), exact(scale * b.detach().T @ G, a.grad)]
    return max(off)


@equation("11.13")
@mutated(power=2, both=False)
def test_how_many_numbers(power=1, both=True):
    lora = Lora.fresh(given()["sd"].unet, 2, generator=seeded(26))
    counted = [f.A.numel() + f.B.numel() for f in lora.layers.values()]
    printed = [2**power * ((d if both else 0) + k) for d, k in (
        f.shape for f in lora.layers.values())]
    return exact(torch.tensor(printed), torch.tensor(counted))


@equation("11.14")
@mutated(scale=1.0, sign=-1)
def test_merged_is_beside(scale=ALPHA / 2, sign=1):
    merged = torch.stack([(W + sign * scale * B @ A) @ x for x in X])
    return exact(merged, wrapped()(X).detach())


@equation("11.15")
@mutated(power=1, first=1)
def test_the_best_of_lower_rank(power=2, first=2):
    """Against the projection on an eigenbasis of D^T D, which no other rank-2 fit beats."""
    D = normal(6, 5, seed=27)
    V = torch.linalg.eigh(D.T @ D)[1][:, -2:]
    error = float((D - D @ V @ V.T).square().sum())
    for k in range(20):  # the best fit on any other two directions
        Q = torch.linalg.qr(normal(5, 2, seed=30 + k))[0]
        assert float((D - D @ Q @ Q.T).square().sum()) > error
    return exact(float((torch.linalg.svdvals(D)[first:] ** power).sum()), error)


@equation("11.16")
@mutated(tail=0.95, root=1)
def test_the_interval_of_a_mean(tail=0.975, root=0.5):
    d = normal(8, seed=60).numpy()
    half = stats.t.ppf(tail, 7) * d.std(ddof=1) / len(d) ** root
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    return exact(torch.tensor([d.mean() - half, d.mean() + half]), torch.tensor([low, high]))


@equation("11.17")
@mutated(inverse=False)
def test_factors_are_not_unique(inverse=True):
    G = normal(2, 2, seed=61) + 2 * torch.eye(2).double()
    turned = (torch.linalg.inv(G) if inverse else G) @ A
    return exact((B @ G) @ turned, B @ A)


A1, B1, U = normal(2, 5, seed=62), normal(6, 2, seed=63), 0.3


@equation("11.18")
@mutated(cross=0, power=1)
def test_averaged_factors(cross=1, power=2):
    lerped = ((1 - U) * B + U * B1) @ ((1 - U) * A + U * A1)
    printed = (1 - U) ** power * B @ A + U**power * B1 @ A1
    return exact(printed + cross * U * (1 - U) * (B @ A1 + B1 @ A), lerped)


@equation("11.19")
@mutated(swapped=True, sign=-1)
def test_ranks_side_by_side(swapped=False, sign=1):
    a, b = (Lora({"x": Factors(*pair, 2)}) for pair in ((A, B), (A1, B1)))
    first, second = (U, 1 - U) if swapped else (1 - U, U)
    printed = torch.cat([first * B, sign * second * B1], 1) @ torch.cat([A, A1])
    return max(exact(printed, mix(a, b, U).delta("x")),
               exact(printed, (1 - U) * B @ A + U * B1 @ A1))
