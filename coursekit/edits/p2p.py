"""Prompt-to-Prompt: edit a picture by its words, and let it keep its attention to the others.

Hertz, Mokady, Tenenbaum, Aberman, Pritch & Cohen-Or, "Prompt-to-Prompt Image Editing with
Cross-Attention Control", ICLR 2023 (arXiv 2022).

Where a word ends up in a picture is settled by the attention that pixels pay to it, and most of it
in the first steps. So source and target are drawn side by side from one noise, and the target pays
its attention as the source does: to the words in common, or to the new word in place of the old.

    paper                     here
    P, P*                     prompt, target
    M, M*                     attention (b, heads, pixels, tokens) of the source's row, the target's
    M-hat                     M mix + M* keep, by `mixing`
    word swap, refinement     align=words.swap, words.refine
    re-weighting c            weights
    tau                       cross_attention; words may have `windows` of their own
    tau_s                     self_attention, in maps of at most `side` of the height
    B(M, w) > k; alpha        blend_mask; Blend: pixels it leaves out are the source's

Only attention to words is formed explicitly, and only in the hops of a window. Self-attention of
the source on the target's values is the fused one with the source's queries and keys; the maps for
a blend are read beside it, layers and words that it names, and summed. A hop is known by the time
at which the sampler asks, so nothing is counted. The unconditional half is never edited.

Where the official code differs: its store keeps a view that the edit then overwrites; here a blend
reads M and M* before the edit, as algorithm 1 says. Its sizes are fixed (16x16 maps to blend, 16^2
or 32^2 pixels of self-attention); here they are shares of the latents' height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import State, ddim, last
from coursekit.nets import injection, words
from coursekit.nets import tiny as models
from coursekit.nets.blend import Blend, Seen
from coursekit.nets.control import QKV, Probs, Site, controlled
from coursekit.nets.injection import Picture
from coursekit.nets.latent import Latent, Prompt
from coursekit.nets.words import Sentences

Negative = Prompt | Mapping[int, Prompt]
Window = float | tuple[float, float]


@dataclass(frozen=True)
class Control:
    """What of the source's attention the target takes over, and when.

    A window is the share of hops, from the noisy end, in [0, 1]; or the two shares between which
    it is open.

    align             which token stands for which: words.refine, words.swap
    cross_attention   its window: the map of each word
    windows           other windows for words of the target, {"glasses": (0, 0.3)}
    weights           factors for words of the target, {"smiling": 2.0}, inside their window
    self_attention    its window
    side              the largest maps whose self-attention it is, as a share of the height
    """

    align: Callable[[Latent, str, str], words.Match] = words.refine
    cross_attention: Window = 0.8
    windows: Mapping[str, Window] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    self_attention: Window = 0.4
    side: float = 0.5


NULL = {"blend": Blend("dog", "cat", threshold=1.0)}  # no pixel may change; the words of `tiny`


@torch.no_grad()
def edit(
    sd: Latent, image: Picture, prompt: Sentences, target: Sentences, path: Sequence[int], *,
    negative: Negative = "", w: float = 7.5, control: Control = Control(),
    blend: Blend | None = None,
) -> Tensor:
    """Latents (b, c, h, w): the picture as the target says, with direct inversion.

    image  the source as latents (b, c, h, w), which are inverted with `prompt` at w = 1; or its
           states at every time of the path, as from `invert`: keep them to edit a picture often.
    Other arguments, and what is refused, as in `pair`.
    """
    path, pivot = injection.states(sd, image, path, w, {"prompt": prompt, "target": target})
    states = [State(path[-1], image)] if isinstance(image, Tensor) else image
    pivot = {s.t: s.x for s in states} | pivot  # the end of the path, too
    drawn = pair(sd, pivot[path[0]], prompt, target, path, negative=negative, w=w, control=control,
                 blend=blend, pivot=pivot)
    return last(drawn).x[len(pivot[path[0]]):]


def pair(
    sd: Latent, noise: Tensor, prompt: Sentences, target: Sentences, path: Sequence[int], *,
    negative: Negative = "", w: float = 7.5, control: Control = Control(),
    blend: Blend | None = None, pivot: Mapping[int, Tensor] | None = None,
) -> Iterator[State]:
    """Draw source and target side by side; yields len(path) states.

    State.x is (2b, c, h, w): the b sources, then the b targets. x0 likewise, before any blend.

    noise     (b, c, h, w) where both begin: sd.noise(b, generator), or an inverted code.
    prompt    what the source shows; one sentence for all pictures or one for each, as `target`.
    negative  one sentence, one for each picture, a Text, or one of these for each time t, as
              null-text inversion finds them. `prompt` itself makes it negative-prompt inversion.
    pivot     t -> the sources there: after each hop they are set to it. That is what direct
              inversion's offsets do, without the rounding that they gather.

    ValueError or TypeError names the argument that is not as said, here and not at the first step.
    """
    path = sd.schedule.check_path(path)
    _check_latents(sd, noise, path, pivot)
    pairs = words.pairs(len(noise), prompt, target)
    seen, begin = None, len(path)
    if blend is not None:
        begin = injection.window("blend.start", blend.start, len(path) - 1)
        seen = Seen.of(sd, noise, path[0], pairs, blend)
    eps = paired(sd, pairs, path, negative=negative, w=w, control=control, seen=seen)
    return _pair(eps, sd, noise, path, pivot, seen, begin)


def _pair(eps: Eps, sd: Latent, noise: Tensor, path: list[int],
          pivot: Mapping[int, Tensor] | None, seen: Seen | None, begin: int) -> Iterator[State]:
    b = len(noise)
    for i, state in enumerate(ddim(eps, sd.schedule, torch.cat([noise, noise]), path)):
        source, target = state.x.split(b)
        if pivot is not None:
            source = pivot[state.t]
        if i > begin:  # hop i - 1, the first of which is 0, led here
            target = torch.where(seen.mask(source.shape[2:]), target, source)
        state.x = torch.cat([source, target])
        yield state


def paired(
    sd: Latent, pairs: Sequence[tuple[str, str]], path: Sequence[int], *,
    negative: Negative = "", w: float = 7.5, control: Control = Control(),
    seen: Seen | None = None,
) -> Eps:
    """The noise predictor of `pair`, for any sampler that walks the path: x is (2b, c, h, w).

    pairs  prompt and target, of all pictures or of each.
    seen   notes the attention that a blend asks for.
    With `inversion.replay` and its hops doubled, this is Prompt-to-Prompt on edit-friendly noise.
    """
    if not isinstance(w, Real) or not isfinite(w):
        raise ValueError(f"w={w!r}: accepted is a finite number")
    if not isinstance(control.side, Real) or not 0 <= control.side <= 1:
        raise ValueError(f"side={control.side!r}: accepted is a share of the height in [0, 1]")
    S, hop = len(path) - 1, {t: i for i, t in enumerate(path[:-1])}
    maps = _maps(sd, pairs, control, S)
    selves = _hops("self_attention", control.self_attention, S)
    source, target = (sd.text(list(side)) for side in zip(*pairs, strict=True))
    avoided = _avoided(sd, negative, path)

    def eps(x: Tensor, t: int) -> Tensor:
        i, b = hop[t], len(x) // 2
        predict = sd.eps(source.rows(b).then(target.rows(b)), _twice(avoided(t), b), w)
        largest = _pixels(x, control.side) if selves.start <= i < selves.stop else 0
        qkv = _qkv(b, largest, seen) if largest or seen else None
        probs = None if (step := maps(i)) is None else _probs(b, *step)
        if qkv is None and probs is None:
            return predict(x, t)
        with controlled(sd.unet, qkv, probs, where=lambda site: site.is_cross):
            return predict(x, t)

    return eps


# ---- attention ------------------------------------------------------------------------------


def mixing(R: Tensor, own: Tensor, c: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
    """mix (n, l, l) and keep (n, l) of the new map M mix + M* keep, column j of which is

        c_j (M R + M* own)_j where the window of token j is open, M*_j where it is not

    R (n, l, l), own and the factors c (n, l); open_ (n, l) is 1 or 0.
    """
    return R * (open_ * c)[:, None], own * open_ * c + 1 - open_


def _maps(sd: Latent, pairs: Sequence[tuple[str, str]], control: Control,
          S: int) -> Callable[[int], tuple[Tensor, Tensor] | None]:
    """hop -> what `mixing` gives there, None where no window is open."""
    mappings = [control.align(sd, *pair) for pair in pairs]
    R, own = (torch.stack(parts) for parts in zip(*((m.R, m.own) for m in mappings), strict=True))
    c, open_ = torch.ones_like(own), own.new_zeros(S, *own.shape)
    open_[_hops("cross_attention", control.cross_attention, S)] = 1
    for row, (_, target) in enumerate(pairs):
        for word, window in control.windows.items():
            at = words.tokens(sd, target, word, "windows")
            open_[:, row, at] = 0
            open_[_hops(f"windows[{word!r}]", window, S), row, at] = 1
        for word, factor in control.weights.items():
            c[row, words.tokens(sd, target, word, "weights")] = _factor(word, factor)
    active = open_.flatten(1).any(1).tolist()
    return lambda i: mixing(R, own, c, open_[i]) if active[i] else None


def _probs(b: int, mix: Tensor, keep: Tensor) -> Probs:
    """The last b rows pay attention by the b rows before them; A (rows, heads, pixels, l)."""
    def probs(_site: Site, A: Tensor) -> Tensor:
        M, M_target = A[-2 * b:-b], A[-b:]
        edited = M @ mix.to(A)[:, None] + M_target * keep.to(A)[:, None, None]
        return torch.cat([A[:-b], edited])

    return probs


def _qkv(b: int, largest: int, seen: Seen | None) -> QKV:
    """Where maps have at most `largest` pixels, the last b rows ask as the b rows before them."""
    def qkv(site: Site, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if site.is_cross and seen is not None:
            seen.note(site, q[-2 * b:], k[-2 * b:])
        if not site.is_cross and site.size[0] * site.size[1] <= largest:
            q, k = (torch.cat([a[:-b], a[-2 * b:-b]]) for a in (q, k))
        return q, k, v

    return qkv


def _hops(name: str, window: Window, S: int) -> slice:
    """Which of S hops a window holds: 0.58 of 50 are the first 29."""
    a, b = window if isinstance(window, tuple) and len(window) == 2 else (0, window)
    if not all(isinstance(s, Real) and 0 <= s <= 1 for s in (a, b)) or a > b:
        raise ValueError(f"{name}={window!r}: accepted are a share of the hops in [0, 1], or two "
                         "that do not fall")
    return slice(*(injection.window(name, s, S) for s in (a, b)))


def _pixels(x: Tensor, side: float) -> int:
    return ceil(side * x.shape[2]) * ceil(side * x.shape[3])


# ---- text and refusals ----------------------------------------------------------------------


def _avoided(sd: Latent, negative: Negative, path: Sequence[int]) -> Callable[[int], Prompt]:
    """t -> the text that guidance leads away from, read once."""
    if isinstance(negative, Mapping):
        lacking = [t for t in path[:-1] if t not in negative]
        if lacking:
            raise ValueError(f"negative has no entry for t={lacking[0]}: accepted is one for each "
                             f"time of the path but its last, {path[0]}..{path[-2]}")
        return {t: _read(sd, negative[t]) for t in path[:-1]}.__getitem__
    text = _read(sd, negative)
    return lambda t: text


def _read(sd: Latent, negative: Prompt) -> Prompt:
    if negative == "" and sd.zeros:
        return ""
    text, like = sd.text(negative), next(sd.encoders[0].parameters())
    if (text.tokens.dtype, text.tokens.device) != (like.dtype, like.device):
        raise ValueError(f"negative is {text.tokens.dtype} on {text.tokens.device}: accepted is a "
                         f"text as the model's own, {like.dtype} on {like.device}")
    return text


def _twice(text: Prompt, b: int) -> Prompt:
    """A text for all rows as it is; those of b pictures for the sources and for the targets."""
    return text if isinstance(text, str) or len(text.tokens) == 1 else text.rows(b).then(text)


def _check_latents(sd: Latent, noise: Tensor, path: list[int],
                   pivot: Mapping[int, Tensor] | None) -> None:
    injection.check_kind("noise", noise)
    sd.check_place("noise", noise)
    if not noise.isfinite().all():
        raise ValueError("noise holds NaN or infinite values: accepted are finite ones")
    for t in path if pivot is not None else ():
        if t not in pivot:
            raise ValueError(f"pivot has no entry for t={t}: accepted is one for each time of the "
                             f"path, {path[0]}..{path[-1]}")
        a, b = ((z.dtype, tuple(z.shape), z.device) for z in (pivot[t], noise))
        if a != b:
            raise ValueError(f"pivot at t={t} is {a[0]} {a[1]} on {a[2]}: accepted is what noise "
                             f"is, {b[0]} {b[1]} on {b[2]}")


def _factor(word: str, factor: float) -> float:
    if not isinstance(factor, Real) or not isfinite(factor):
        raise ValueError(f"weights[{word!r}]={factor!r}: accepted is a finite number")
    return float(factor)


def tiny() -> dict[str, Any]:
    """Arguments that hold weights, small and random, and their words."""
    return {"sd": models.latent(), "prompt": "a dog", "target": "a cat"}
