"""SDEdit: drown a rough picture in noise, then let the model find its way back to a real one.

Meng, He, Song, Song, Wu, Zhu & Ermon, "SDEdit: Guided Image Synthesis and Editing with Stochastic
Differential Equations", ICLR 2022. The variance-preserving form.

Noise hides the fine structure of a guide before the coarse one, so at time t0 a crude painting and
a photograph of the same scene look alike to the model, which then denoises either into a picture.
A small t0 is faithful to the guide, a large one is realistic; nothing is trained or inverted.

    paper                  here
    x^(g)                  guide      strokes, a composite, any picture
    t_0 in [0, 1]          t0         0..T; the paper's 0.5 is 500 of T = 1000 on a linear schedule
    alpha(t), sigma(t)     sqrt(abar_t), sqrt(1 - abar_t)
    Omega                  mask       1 (True) = edit, 0 = keep
    K                      repeats
    N                      hops on the path, counted over its whole length
    z                      z

What a t0 does depends on the noise at it, not on its number: the linear schedule keeps abar = 0.08
at 500, the cosine one only at 818. Strokes, composites and masks are one algorithm: paint on the
whole canvas, or paste something crude into a picture and mask where it may be repaired.

Where the official code differs: its mask is 1 = keep, and it puts kept pixels of level i beside
edited ones that are at i - 1 already. Here both are at one level, and the kept pixels are put back
clean at the end. Their noise is the z that drowned the guide, the same at every step, as in the
official code: the draws do not depend on the mask, and kept pixels move on straight DDIM lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, randn_like, sigma
from coursekit.diffusion.schedule import Schedule

NULL = {"t0": 0}


@torch.no_grad()
def edit(
    eps: Eps,
    schedule: Schedule,
    guide: Tensor,
    t0: int,
    path: Sequence[int],
    *,
    mask: Tensor | None = None,
    repeats: int = 1,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pictures (b, c, h, w) made from a guide of that shape, in its dtype and place.

    t0         0..T, how far the guide is drowned; 0 returns it bit for bit.
    path       the whole path, noisy to clean, e.g. schedule.trailing(50): it is entered at t0,
               so about t0 / T of its hops are walked.
    mask       (b, h, w) bool, True where the picture may change; elsewhere the result is the guide
               bit for bit. For latents, mask and pictures are the latents': a decoder bleeds over
               the edge, so paste once more in pixels.
    repeats    the result is drowned and recovered this often, >= 1.
    eta        1 the paper's stochastic way back .. 0 DDIM, which adds no noise of its own and so
               keeps more of the guide, its faults included.
    generator  for z, and for the way back if eta > 0.

    ValueError or TypeError names the argument that is not as said.
    """
    edited = _check(schedule, guide, mask, repeats, eta)
    hops = _enter(schedule, t0, path)
    x = guide.clone()
    for _ in range(repeats if t0 else 0):
        z = randn_like(guide, generator)
        for state in ddim(eps, schedule, schedule.noise(x, z, t0), hops, eta, generator):
            if edited is not None:
                state.x = torch.where(edited, state.x, schedule.noise(guide, z, state.t))
        x = state.x if edited is None else torch.where(edited, state.x, guide)
    return x


def _enter(schedule: Schedule, t0: int, path: Sequence[int]) -> list[int]:
    """The path from t0 on: t0 itself, then its times below."""
    path = schedule.check_path(path)
    if not isinstance(t0, Integral) or not (t0 == 0 or path[-1] < t0 <= schedule.T):
        raise ValueError(f"t0: {t0!r} is neither 0 nor a whole number in "
                         f"{path[-1] + 1}..{schedule.T}")
    return [int(t0), *(t for t in path if t < t0)]


def _check(
    schedule: Schedule, guide: Tensor, mask: Tensor | None, repeats: int, eta: float
) -> Tensor | None:
    """The mask as (b, 1, h, w), after every argument but t0 and path was found sound."""
    if not isinstance(guide, Tensor) or not guide.is_floating_point() or guide.ndim != 4:
        raise TypeError(f"guide: {_say(guide)}, accepted is a floating tensor (b, c, h, w)")
    if not guide.isfinite().all():
        bad = int((~guide.isfinite()).sum())
        raise ValueError(f"guide: {bad} of {guide.numel()} values are NaN or infinite, "
                         "accepted are finite ones")
    if not isinstance(repeats, Integral) or repeats < 1:
        raise ValueError(f"repeats: {repeats!r} is not a whole number >= 1")
    sigma(schedule, 1, 0, eta)  # refuses an eta outside [0, 1] even where no hop is walked
    if mask is None:
        return None
    b, _, h, w = guide.shape
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (b, h, w):
        raise ValueError(f"mask: {_say(mask)}, accepted is torch.bool {(b, h, w)}, True = edit")
    return mask.to(guide.device)[:, None]  # b 1 h w


def _say(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__
