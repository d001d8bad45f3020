"""Answers to 04-4: wrong_* must be told what their docstring says, right_* must pass."""

from itertools import pairwise

import torch

from coursekit.diffusion.sample import posterior, sigma


def hop(eps, schedule, x, t, s, z, at=None):
    sd = sigma(schedule, t, s, 1.0)
    clean = schedule.denoise(x, eps(x, t if at is None else at), t)
    return posterior(schedule, x, clean, t, s, sd) + sd * z


def enter(path, t0):
    return [t0, *(t for t in path if t < t0)]


def run(eps, schedule, guide, t0, path, z, noise, meet):
    """SDEdit; meet(x, t, s, fresh) is what becomes of the walked x of each hop."""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = meet(hop(eps, schedule, x, t, s, fresh), t, s, fresh)
    return x


def wrong_way_round(eps, schedule, guide, mask, t0, path, z, noise):
    """True is where the picture may change"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], schedule.noise(guide, z, s), x))


def wrong_no_mask(eps, schedule, guide, mask, t0, path, z, noise):
    """the mask has no effect"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: x)


def wrong_one_level_late(eps, schedule, guide, mask, t0, path, z, noise):
    """at the level where the hop began"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], x, schedule.noise(guide, z, t)))


def wrong_late_then_clean(eps, schedule, guide, mask, t0, path, z, noise):
    """at the level where the hop began"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], x, schedule.noise(guide, z, t if s else 0)))


def wrong_clean(eps, schedule, guide, mask, t0, path, z, noise):
    """the kept part is put back clean in every hop"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], x, guide))


def wrong_at_the_end_only(eps, schedule, guide, mask, t0, path, z, noise):
    """at the end only"""
    x = run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: x)
    return torch.where(mask[:, None], x, guide)


def wrong_not_at_the_end(eps, schedule, guide, mask, t0, path, z, noise):
    """after the last hop the kept part is not put back"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = torch.where(mask[:, None], x, schedule.noise(guide, z, t))
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_almost_the_same(eps, schedule, guide, mask, t0, path, z, noise):
    """the same bit for bit"""
    e = 1e-12 if guide.dtype == torch.float64 else 1e-6
    x = right_where(eps, schedule, guide, mask, t0, path, z, noise)
    return torch.where(mask[:, None], x, guide + e)


def wrong_level_t0(eps, schedule, guide, mask, t0, path, z, noise):
    """at level t0 in every hop"""
    drowned = schedule.noise(guide, z, t0)
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], x, drowned))


def wrong_noise_of_the_hop(eps, schedule, guide, mask, t0, path, z, noise):
    """it must be z, always"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], x, schedule.noise(guide, fresh, s)))


def wrong_axis_in_front(eps, schedule, guide, mask, t0, path, z, noise):
    """an axis of length one"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[None], x, schedule.noise(guide, z, s)))


def wrong_axis(eps, schedule, guide, mask, t0, path, z, noise):
    """an axis of length one"""
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask, x, schedule.noise(guide, z, s)))


def wrong_zeros(eps, schedule, guide, mask, t0, path, z, noise):
    """pixels outside the mask are no zeros"""
    return run(eps, schedule, guide, t0, path, z, noise,
               lambda x, t, s, fresh: mask[:, None] * x)


def wrong_minus(eps, schedule, guide, mask, t0, path, z, noise):
    """~mask is its opposite"""
    part = mask[:, None]
    return run(eps, schedule, guide, t0, path, z, noise,
               lambda x, t, s, fresh: part * x + (1 - part) * schedule.noise(guide, z, s))


def wrong_rounded(eps, schedule, guide, mask, t0, path, z, noise):
    """the same bit for bit"""
    part = mask[:, None].to(guide.dtype)

    def meet(x, t, s, fresh):
        kept = schedule.noise(guide, z, s)
        return x + (1 - part) * (kept - x)

    return run(eps, schedule, guide, t0, path, z, noise, meet)


def wrong_one_noise(eps, schedule, guide, mask, t0, path, z, noise):
    """one and the same noise"""
    return right_where(eps, schedule, guide, mask, t0, path, z, [noise[0]] * len(noise))


def wrong_asks_twice(eps, schedule, guide, mask, t0, path, z, noise):
    """more often than once a hop"""
    def meet(x, t, s, fresh):
        eps(x, t)
        return torch.where(mask[:, None], x, schedule.noise(guide, z, s))

    return run(eps, schedule, guide, t0, path, z, noise, meet)


def wrong_in_place(eps, schedule, guide, mask, t0, path, z, noise):
    """changes its argument guide in place"""
    x = right_where(eps, schedule, guide, mask, t0, path, z, noise)
    guide[mask[:, None].expand_as(guide)] = x[mask[:, None].expand_as(guide)] + 1
    return x


def wrong_no_op(eps, schedule, guide, mask, t0, path, z, noise):
    """the whole guide comes back"""
    return guide


def wrong_library(eps, schedule, guide, mask, t0, path, z, noise):
    """own refuses while your answer runs"""
    from coursekit.edits import sdedit

    return sdedit.edit(eps, schedule, guide, t0, path, mask=mask)


def right_where(eps, schedule, guide, mask, t0, path, z, noise):
    return run(eps, schedule, guide, t0, path, z, noise, lambda x, t, s, fresh: torch.where(
        mask[:, None], x, schedule.noise(guide, z, s)))


def right_clean_paste(eps, schedule, guide, mask, t0, path, z, noise):
    """Not at the last hop, but once more at the end."""
    area = mask.unsqueeze(1).expand_as(guide)
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
        if s:
            x = x.clone()
            x[~area] = schedule.noise(guide, z, s)[~area]
    return torch.where(area, x, guide)


def right_masked_fill(eps, schedule, guide, mask, t0, path, z, noise):
    part = mask[:, None].to(guide.dtype)
    return run(eps, schedule, guide, t0, path, z, noise,
               lambda x, t, s, fresh: part * x + (1 - part) * schedule.noise(guide, z, s))
