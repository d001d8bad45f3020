"""Answers to 04-5: wrong_* must be told what their docstring says, right_* must pass."""

from itertools import pairwise

import torch

from coursekit.diffusion.sample import posterior, sigma


def hop(eps, schedule, x, t, s, z, at=None):
    sd = sigma(schedule, t, s, 1.0)
    clean = schedule.denoise(x, eps(x, t if at is None else at), t)
    return posterior(schedule, x, clean, t, s, sd) + sd * z


def enter(path, t0):
    return [t0, *(t for t in path if t < t0)]


def masked(eps, schedule, guide, mask, t0, path, z, noise):
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
        x = torch.where(mask[:, None], x, schedule.noise(guide, z, s))
    return x


def wrong_from_the_guide(eps, schedule, guide, mask, t0, path, z, noise):
    """every run begins at the guide"""
    for first, fresh in zip(z, noise, strict=True):
        x = masked(eps, schedule, guide, mask, t0, path, first, fresh)
    return x


def wrong_one_less(eps, schedule, guide, mask, t0, path, z, noise):
    """one run too few"""
    x = guide
    for k in range(len(z) - 1):
        x = masked(eps, schedule, x, mask, t0, path, z[k], noise[k])
    return x


def wrong_first_left_out(eps, schedule, guide, mask, t0, path, z, noise):
    """one run too few"""
    x = guide
    for k in range(1, len(z)):
        x = masked(eps, schedule, x, mask, t0, path, z[k], noise[k])
    return x


def wrong_one_run(eps, schedule, guide, mask, t0, path, z, noise):
    """only the first run is there"""
    return masked(eps, schedule, guide, mask, t0, path, z[0], noise[0])


def wrong_one_z(eps, schedule, guide, mask, t0, path, z, noise):
    """by the same z in every run"""
    x = guide
    for fresh in noise:
        x = masked(eps, schedule, x, mask, t0, path, z[0], fresh)
    return x


def wrong_same_hops(eps, schedule, guide, mask, t0, path, z, noise):
    """the hops of every run use the same noise"""
    x = guide
    for first in z:
        x = masked(eps, schedule, x, mask, t0, path, first, noise[0])
    return x


def wrong_backwards(eps, schedule, guide, mask, t0, path, z, noise):
    """from their ends"""
    x = guide
    for k in reversed(range(len(z))):
        x = masked(eps, schedule, x, mask, t0, path, z[k], noise[k])
    return x


def wrong_mask_once(eps, schedule, guide, mask, t0, path, z, noise):
    """the mask is forgotten after the first run"""
    x = guide
    for first, fresh in zip(z, noise, strict=True):
        x = masked(eps, schedule, x, mask, t0, path, first, fresh)
        mask = torch.ones_like(mask)
    return x


def wrong_no_mask(eps, schedule, guide, mask, t0, path, z, noise):
    """the mask has no effect"""
    x = guide
    for first, fresh in zip(z, noise, strict=True):
        x = masked(eps, schedule, x, torch.ones_like(mask), t0, path, first, fresh)
    return x


def wrong_way_round(eps, schedule, guide, mask, t0, path, z, noise):
    """True is where the picture may change"""
    x = guide
    for first, fresh in zip(z, noise, strict=True):
        x = masked(eps, schedule, x, ~mask, t0, path, first, fresh)
    return x


def wrong_mean(eps, schedule, guide, mask, t0, path, z, noise):
    """the runs are averaged"""
    return sum(masked(eps, schedule, guide, mask, t0, path, first, fresh)
               for first, fresh in zip(z, noise, strict=True)) / len(z)


def wrong_no_op(eps, schedule, guide, mask, t0, path, z, noise):
    """the argument guide comes back unchanged"""
    return guide


def wrong_library(eps, schedule, guide, mask, t0, path, z, noise):
    """own refuses while your answer runs"""
    from coursekit.edits.sdedit import edit

    return edit(eps, schedule, guide, t0, path, mask=mask, repeats=len(z))


def right_zip(eps, schedule, guide, mask, t0, path, z, noise):
    for first, fresh in zip(z, noise, strict=True):
        guide = masked(eps, schedule, guide, mask, t0, path, first, fresh)
    return guide


def right_recursion(eps, schedule, guide, mask, t0, path, z, noise):
    if not len(z):
        return guide
    x = masked(eps, schedule, guide, mask, t0, path, z[0], noise[0])
    return right_recursion(eps, schedule, x, mask, t0, path, z[1:], noise[1:])


def right_first_guide_kept(eps, schedule, guide, mask, t0, path, z, noise):
    """Each hop's kept part comes from the first guide, which is the same."""
    area, x = mask[:, None], guide
    for k in range(z.shape[0]):
        x = schedule.noise(x, z[k], t0)
        for i, (t, s) in enumerate(pairwise(enter(path, t0))):
            x = torch.where(area, hop(eps, schedule, x, t, s, noise[k, i]),
                            schedule.noise(guide, z[k], s))
    return x
