"""Numeric twins of lecture 09: maps of attention, what is done to them, when and where."""

import math
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from toys import TRIANGLE, Mixture

from coursekit.diffusion.predict import guided
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.schedule import Schedule
from coursekit.edits import p2p
from coursekit.nets import injection, tiny, words
from coursekit.nets.blend import Blend, Seen, blend_mask
from coursekit.nets.control import controlled

from . import exact, mutated

equation = pytest.mark.equation
LINEAR = Schedule.linear()
PROMPT, TARGET = "a dog sits.", "a zebra sits."  # three tokens and five, a letter each


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def layer(seed=0, n=7, l=5, d=4):
    """Queries, keys and values (1, 1, n or l, d) of one head."""
    return tuple(normal(1, 1, m, d, seed=3 * seed + i) for i, m in enumerate((n, l, l)))


def map_of(q, k):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)


@cache
def wide():
    """The tiny model in float64."""
    sd = tiny.latent()
    return replace(sd, unet=deepcopy(sd.unet).double(),
                   encoders=tuple(deepcopy(e).double() for e in sd.encoders))


def start(b=1, seed=5):
    return wide().noise(b, seeded(seed)).double()


def maps(seed=0, n=6):
    return normal(n, wide().context, seed=seed).softmax(-1)


def pieces(sentence):
    """[(word or mark, positions of its tokens)]: one token a letter, after the start."""
    found, at = [], 1
    for word in sentence.replace(".", " .").split():
        found.append((word, list(range(at, at + len(word)))))
        at += len(word)
    return found


def worst(residuals):
    return max(residuals)


# ---- a new prompt alone, and what a map does ---------------------------------------------------


@equation("09.1")
@mutated(sign=-1, weight=0, one=1)
def test_what_another_prompt_does_to_a_hop(sign=1, weight=1, one=0):
    """The package's sampler from one state under two conditions; b from where it takes noise."""
    x, w, off = normal(6, 2), 7.5, []
    none = TRIANGLE.eps(LINEAR)
    source, target = (Mixture(TRIANGLE.means[k:k + 1].tolist(), TRIANGLE.std).eps(LINEAR)
                      for k in (0, 1))
    for t, s in ((900, 850), (500, 480), (120, 20)):
        one_, two = (last(ddim(guided(none, c, w), LINEAR, x, [t, s])).x for c in (source, target))
        zero = torch.zeros(1, dtype=torch.float64)
        b = LINEAR.noise(LINEAR.denoise(zero, zero + 1, t), zero + 1, s)
        push = b * (w * weight - one) * (target(x, t) - source(x, t))
        off.append(exact(sign * push, two - one_))
    return worst(off)


@equation("09.2")
@mutated(sign=-1, values="source", held="target")
def test_an_output_changes_by_values_and_by_the_map(sign=1, values="target", held="source"):
    (q, k, v), (q_, k_, v_) = layer(0), layer(1)
    M, M_ = map_of(q, k), map_of(q_, k_)
    first = {"source": M, "target": M_}[held] @ (v_ - v)
    second = (M_ - M) @ {"source": v, "target": v_}[values]
    wanted = (F.scaled_dot_product_attention(q_, k_, v_)
              - F.scaled_dot_product_attention(q, k, v))
    return exact(first + sign * second, wanted)


@equation("09.3")
@mutated(shift=1, sign=-1)
def test_one_value_moves_pixels_as_they_looked_at_it(shift=0, sign=1):
    q, k, v = layer()
    v_ = v.clone()
    v_[..., 2, :] = normal(4, seed=9)
    printed = sign * map_of(q, k)[..., 2 + shift, None] * (v_ - v)[..., 2:3, :]
    return exact(printed, F.scaled_dot_product_attention(q, k, v_)
                 - F.scaled_dot_product_attention(q, k, v))


# ---- the controller ----------------------------------------------------------------------------


@equation("09.4")
@mutated(one=0, sign=1, both=True)
def test_guidance_with_the_edited_map_in_the_half_that_sees_words(one=1, sign=-1, both=False):
    """Halves apart, each in a pass of its own, against the package's one pass of four rows."""
    sd, w = wide(), 7.5
    path, R = sd.path(3), words.swap(wide(), PROMPT, TARGET).R.double()
    z = torch.cat([start(), start(seed=6)])
    how = p2p.Control(align=words.swap, cross_attention=1.0, self_attention=0)
    wanted = p2p.paired(sd, [(PROMPT, TARGET)], path, w=w, control=how)(z, path[0])[1:]

    def lent(_site, A):
        return torch.cat([A[:1], A[:1] @ R])

    def cross(site):
        return site.is_cross

    with controlled(sd.unet, probs=lent, where=cross):
        conditional = sd.eps([PROMPT, TARGET])(z, path[0])[1:]
        spoilt = sd.eps("")(z, path[0])[1:]
    empty = spoilt if both else sd.eps("")(z, path[0])[1:]
    return exact(one * empty + w * (conditional + sign * empty), wanted, 1e-8)


@equation("09.5")
@mutated(alike=0.5, power=(0, 2), past=1)
def test_the_mapper_of_a_swap(alike=1, power=1, past=0):
    """past: padding that begins before the end of the target."""
    sd, off = wide(), []
    for prompt, target in ((PROMPT, TARGET), (TARGET, PROMPT), ("a dog", "a cat")):
        R = torch.zeros(sd.context, sd.context)
        R[0, 0] = 1
        old, new = pieces(prompt), pieces(target)
        for (_, I), (_, J) in zip(old, new, strict=True):
            for (k, i), (m, j) in product(enumerate(I), enumerate(J)):
                if len(I) == len(J):
                    R[i, j] = alike * (k == m)
                else:
                    R[i, j] = 1 / len(J)**power
        i, j = old[-1][1][-1] + 1, new[-1][1][-1] + 1 - past
        while i < sd.context and j < sd.context:
            R[i, j] = 1
            i, j = i + 1, j + 1
        R[i:, -1] = 1
        off.append(exact(R, words.swap(sd, prompt, target).R))
    return worst(off)


@equation("09.6")
@mutated(dim=0, power=2)
def test_what_is_left_of_the_attention_of_a_pixel(dim=1, power=1):
    M, off = maps(), []
    right = words.swap(wide(), PROMPT, TARGET).R.double()
    slipped = right.clone()
    slipped[:, 9:] = torch.eye(len(right)).double()[:, 9:]  # counts on along the target
    for R in (right, slipped, normal(*right.shape, seed=4)):
        edited = torch.stack([sum(M[:, k] * R[k, j] for k in range(len(R)))
                              for j in range(len(R))], 1)
        off.append(exact(M @ R.sum(dim) ** power, edited.sum(1)))
    off.append(exact((M @ right).sum(1), 1.0, 1e-6))  # the package's shares are in float32
    assert float((M @ slipped).sum(1).max()) < 0.99
    return worst(off)


@equation("09.7")
@mutated(own=-1, factor=0, shut=0, one=0)
def test_the_edit_of_a_map_column_by_column(own=1, factor=1, shut=1, one=1):
    """The package's two matrices; factor: to which power c counts."""
    sd, M, M_ = wide(), maps(0), maps(1)
    match = words.refine(sd, "a dog", "a big dog.")
    R, u = match.R.double(), match.own.double()
    c = 1 + normal(len(u), seed=2)
    o = (normal(len(u), seed=3) > 0).double()
    mix, keep = p2p.mixing(R[None], u[None], c[None], o[None])
    assert u.sum() >= 4 and 0 < o.sum() < len(o)
    columns = [o[j] * c[j]**factor * ((M @ R)[:, j] + own * u[j] * M_[:, j])
               + shut * (one - o[j]) * M_[:, j] for j in range(len(u))]
    return exact(torch.stack(columns, 1), M @ mix[0] + M_ * keep[0])


@equation("09.8")
@mutated(step=2, pick=min, end=1)
def test_the_longest_list_of_common_words(step=1, pick=max, end=0):
    """Against all subsets, and the package's list."""
    def B(a, b):
        if not a or not b:
            return end
        return step + B(a[1:], b[1:]) if a[0] == b[0] else pick(B(a[1:], b), B(a, b[1:]))

    def all_of(a):
        return {tuple(a[i] for i in some) for n in range(len(a) + 1)
                for some in combinations(range(len(a)), n)}

    off = []
    for a, b in torch.randint(3, (20, 2, 5), generator=seeded()).tolist():
        longest = max(map(len, all_of(a) & all_of(b)))
        off += [exact(B(a, b), longest), exact(len(words.common(a, b)), longest)]
    return worst(off)


# ---- weights -----------------------------------------------------------------------------------


@equation("09.9")
@mutated(one=0, sign=-1)
def test_a_factor_adds_to_the_output(one=1, sign=1):
    """The package's mixing of one map with factors, times the values."""
    q, k, v = layer()
    c = normal(5, seed=8)[None]
    mix, keep = p2p.mixing(torch.eye(5).double()[None], 0 * c, c, 1 + 0 * c)
    M = map_of(q, k)
    printed = F.scaled_dot_product_attention(q, k, v) + sign * sum(
        (c[0, j] - one) * M[..., j, None] * v[..., j:j + 1, :] for j in range(5))
    return exact(printed, (M @ mix + M * keep[0]) @ v)


@equation("09.10")
@mutated(power=2, base=10, norm=0)
def test_divided_by_their_sum_factors_are_a_bias(power=1, base=math.e, norm=1):
    """torch's attention with log c added to its scores."""
    q, k, v = layer()
    c = normal(5, seed=8).abs() + 0.1
    M = map_of(q, k) * c**power
    M = M / M.sum(-1, keepdim=True)**norm
    bias = (c.log() / math.log(base)).expand(7, 5)
    return exact(M @ v, F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


# ---- when --------------------------------------------------------------------------------------


@equation("09.11")
@mutated(rounded=math.ceil, first=1, beyond=1)
def test_which_hops_a_window_holds(rounded=math.floor, first=0, beyond=0):
    """Asked of the package hop by hop: is its prediction another than without control?"""
    sd, S = wide(), 10
    path, z, off = sd.path(S), torch.cat([start(), start(seed=6)]), []
    shut = p2p.Control(cross_attention=0, self_attention=0)
    plain = p2p.paired(sd, [(PROMPT, TARGET)], path, control=shut)
    for a, b in (("0.25", "0.58"), ("0", "0.3"), ("0.39", "1")):
        how = replace(shut, cross_attention=(float(a), float(b)))
        eps = p2p.paired(sd, [(PROMPT, TARGET)], path, control=how)
        found = [not torch.allclose(eps(z, t), plain(z, t), atol=1e-9) for t in path[:-1]]
        begin, end = (rounded(Fraction(share) * S) for share in (a, b))
        printed = [begin + first <= i < end + beyond for i in range(S)]
        off.append(exact(torch.tensor(printed).double(), torch.tensor(found).double()))
    off.append(exact(rounded(Fraction("0.58") * 50) + beyond, injection.window("", 0.58, 50)))
    return worst(off)


@equation("09.12")
@mutated(power=1, values="source")
def test_self_attention_of_the_source_on_the_targets_values(power=0.5, values="target"):
    """Maps formed and lent one by one, against the package's lent queries and keys."""
    sd = wide()
    path, z = sd.path(3), torch.cat([start(), start(seed=6)])
    how = p2p.Control(cross_attention=0, self_attention=1.0, side=1.0)
    wanted = p2p.paired(sd, [(PROMPT, TARGET)], path, w=3.0, control=how)(z, path[0])
    asked = {}

    def note(site, q, k, v):
        asked[site.name] = q, k
        if values == "source" and not site.is_cross:
            v = torch.cat([v[:3], v[2:3]])
        return q, k, v

    def lent(site, A):
        q, k = (a[2:3] for a in asked[site.name])
        return torch.cat([A[:3], (q @ k.mT * q.shape[-1]**-power).softmax(-1)])

    with controlled(sd.unet, note, lent, where=lambda site: not site.is_cross):
        found = sd.eps([PROMPT, TARGET], w=3.0)(z, path[0])
    return exact(found, wanted, 1e-8)


# ---- where -------------------------------------------------------------------------------------


def mask_by_scipy(total, k, neighbours=3):
    """alpha of one side (b, 1, 8, 8) by numpy: neighbours, the share of the peak, enlarged."""
    square = numpy.ones((8 // total.shape[1],) * 2)
    peaks = [scipy.ndimage.maximum_filter(m, size=neighbours, mode="constant")
             for m in total.numpy()]
    return torch.tensor(numpy.stack([numpy.kron(m > k * m.max(), square) for m in peaks]))[:, None]


@equation("09.13")
@mutated(k=0.6, neighbours=1, either=0, sign=-1)
def test_a_local_blend(k=0.97, neighbours=3, either=1, sign=1):
    """One blend after the last hop; either: how much the target's side counts."""
    sd, S = wide(), 4
    path, z, b = sd.path(S), start(4), 4
    drawn = p2p.pair(sd, z, PROMPT, TARGET, path)
    source, target = last(drawn).x.chunk(2)
    blend = Blend("dog", "zebra", threshold=0.97, start=(S - 1) / S)
    wanted = last(p2p.pair(sd, z, PROMPT, TARGET, path, blend=blend)).x[b:]
    pairs = [(PROMPT, TARGET)] * b
    seen = Seen.of(sd, z, path[0], pairs, blend)
    last(ddim(p2p.paired(sd, pairs, path, seen=seen), sd.schedule, torch.cat([z, z]), path))
    M, M_ = (mask_by_scipy(m, k, neighbours) for m in seen.total.chunk(2))
    alpha = torch.maximum(M, either * M_)
    off = [exact((1 - sign * alpha) * source + sign * alpha * target, wanted, 1e-6)]
    rough = torch.rand(5, 8, 8, generator=seeded()) ** 4
    return worst([*off, exact(mask_by_scipy(rough, k, neighbours),
                              blend_mask(rough, (8, 8), 0.97).double())])


@equation("09.14")
@mutated(shift=1, word=0)
def test_a_swapped_map_sums_to_the_map_it_was_lent(shift=0, word=1):
    """The words at one place of two sentences, whose numbers of tokens differ."""
    M, off = maps(), []
    for prompt, target in ((PROMPT, TARGET), (TARGET, PROMPT)):
        R = words.swap(wide(), prompt, target).R.double()
        I, J = pieces(prompt)[word][1], [j + shift for j in pieces(target)[1][1]]
        off.append(exact((M @ R)[:, J].sum(1), M[:, I].sum(1), 1e-6))
    return worst(off)
