"""Answers to 04-3: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise

from coursekit.diffusion.sample import posterior, sigma


def hop(eps, schedule, x, t, s, z, at=None):
    sd = sigma(schedule, t, s, 1.0)
    clean = schedule.denoise(x, eps(x, t if at is None else at), t)
    return posterior(schedule, x, clean, t, s, sd) + sd * z


def enter(path, t0):
    return [t0, *(t for t in path if t < t0)]


def wrong_clean_start(eps, schedule, guide, t0, path, z, noise):
    """the walk begins at the clean guide"""
    x = guide
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_sampled(eps, schedule, guide, t0, path, z, noise):
    """nothing of the guide is in it"""
    x = z
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_whole_path(eps, schedule, guide, t0, path, z, noise):
    """the whole path is walked"""
    x = schedule.noise(guide, z, path[0])
    for (t, s), fresh in zip(pairwise(path), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_too_noisy(eps, schedule, guide, t0, path, z, noise):
    """noised to the beginning of the path"""
    x = schedule.noise(guide, z, path[0])
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_then_the_whole_path(eps, schedule, guide, t0, path, z, noise):
    """but then the whole path is walked"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(path), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_enters_below(eps, schedule, guide, t0, path, z, noise):
    """at a time of the path below t0"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise([t for t in path if t <= t0]), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_not_scaled(eps, schedule, guide, t0, path, z, noise):
    """the guide is not made smaller"""
    x = guide + math.sqrt(1 - schedule.level(t0)) * z
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_variances(eps, schedule, guide, t0, path, z, noise):
    """these are the variances"""
    x = schedule.level(t0) * guide + (1 - schedule.level(t0)) * z
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_order(eps, schedule, guide, t0, path, z, noise):
    """guide and noise have changed places"""
    x = schedule.noise(z, guide, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_one_noise(eps, schedule, guide, t0, path, z, noise):
    """one and the same noise"""
    x = schedule.noise(guide, z, t0)
    for t, s in pairwise(enter(path, t0)):
        x = hop(eps, schedule, x, t, s, noise[0])
    return x


def wrong_z_again(eps, schedule, guide, t0, path, z, noise):
    """the noise of the guide is used in the hops"""
    x = schedule.noise(guide, z, t0)
    for t, s in pairwise(enter(path, t0)):
        x = hop(eps, schedule, x, t, s, z)
    return x


def wrong_noise_from_the_end(eps, schedule, guide, t0, path, z, noise):
    """the noise is used from its end"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise.flip(0), strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_noise_along_the_path(eps, schedule, guide, t0, path, z, noise):
    """counted along the whole path"""
    x = schedule.noise(guide, z, t0)
    hops = enter(path, t0)
    for (t, s), fresh in zip(pairwise(hops), noise[len(path) - len(hops):], strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_second_row_first(eps, schedule, guide, t0, path, z, noise):
    """the first row of noise is left out"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise[1:], strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_deterministic(eps, schedule, guide, t0, path, z, noise):
    """no fresh noise enters"""
    x = schedule.noise(guide, z, t0)
    for t, s in pairwise(enter(path, t0)):
        e = eps(x, t)
        x = schedule.noise(schedule.denoise(x, e, t), e, s)
    return x


def wrong_only_the_mean(eps, schedule, guide, t0, path, z, noise):
    """no fresh noise enters"""
    x = schedule.noise(guide, z, t0)
    for t, s in pairwise(enter(path, t0)):
        x = hop(eps, schedule, x, t, s, 0 * z)
    return x


def wrong_last_hop(eps, schedule, guide, t0, path, z, noise):
    """the last hop is not taken"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)[:-1]), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_one_hop(eps, schedule, guide, t0, path, z, noise):
    """one hop leads from t0 to the end"""
    x = schedule.noise(guide, z, t0)
    return hop(eps, schedule, x, t0, 0, noise[0]) if t0 else x


def wrong_asked_at_the_end(eps, schedule, guide, t0, path, z, noise):
    """ask where it begins"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh, at=max(1, s))
    return x


def wrong_asked_at_zero(eps, schedule, guide, t0, path, z, noise):
    """there is nothing to ask"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh, at=s)
    return x


def wrong_asks_twice(eps, schedule, guide, t0, path, z, noise):
    """more often than once a hop"""
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        eps(x, t)
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def wrong_no_op(eps, schedule, guide, t0, path, z, noise):
    """the argument guide comes back unchanged"""
    return guide


def wrong_library(eps, schedule, guide, t0, path, z, noise):
    """own refuses while your answer runs"""
    from coursekit.edits import sdedit

    return sdedit.edit(eps, schedule, guide, t0, path)


def wrong_sampler(eps, schedule, guide, t0, path, z, noise):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import ddpm, last

    return last(ddpm(eps, schedule, schedule.noise(guide, z, t0), enter(path, t0))).x


def right_plain(eps, schedule, guide, t0, path, z, noise):
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def right_by_hand(eps, schedule, guide, t0, path, z, noise):
    hops, i = enter(path, t0), 0
    x = math.sqrt(schedule.level(t0)) * guide + math.sqrt(1 - schedule.level(t0)) * z
    while i < len(hops) - 1:
        now, then = schedule.level(hops[i]), schedule.level(hops[i + 1])
        e = eps(x, hops[i])
        var = (1 - then) / (1 - now) * (1 - now / then)
        x0 = (x - math.sqrt(1 - now) * e) / math.sqrt(now)
        x = then**0.5 * x0 + max(0, 1 - then - var) ** 0.5 * e + var**0.5 * noise[i]
        i += 1
    return x


def right_early_return(eps, schedule, guide, t0, path, z, noise):
    if t0 == 0:
        return guide.clone()
    x, now, rows = schedule.noise(guide, z, t0), t0, iter(noise)
    for s in path:
        if s < now:
            x, now = hop(eps, schedule, x, now, s, next(rows)), s
    return x
