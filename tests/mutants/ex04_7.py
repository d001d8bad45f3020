"""Answers to 04-7: wrong_* must be told what their docstring says, right_* must pass."""

from itertools import pairwise

from coursekit.diffusion.sample import posterior, sigma


def hop(eps, schedule, x, t, s, z, at=None):
    sd = sigma(schedule, t, s, 1.0)
    clean = schedule.denoise(x, eps(x, t if at is None else at), t)
    return posterior(schedule, x, clean, t, s, sd) + sd * z


def enter(path, t0):
    return [t0, *(t for t in path if t < t0)]


def sdedit(eps, schedule, guide, t0, path, z, noise):
    x = schedule.noise(guide, z, t0)
    for (t, s), fresh in zip(pairwise(enter(path, t0)), noise, strict=False):
        x = hop(eps, schedule, x, t, s, fresh)
    return x


def results(eps, schedule, guides, levels, path, z, noise):
    return [sdedit(eps, schedule, guides, t0, path, z, noise) for t0 in levels]


def rmse(a, b):
    return float((a - b).square().mean().sqrt())


def wrong_carries_on(eps, schedule, guides, levels, path, z, noise, realism):
    """a level goes on where the one before it ended"""
    rows, x = [], guides
    for t0 in levels:
        x = sdedit(eps, schedule, x, t0, path, z, noise)
        rows.append((rmse(x, guides), realism(x)))
    return rows


def wrong_order(eps, schedule, guides, levels, path, z, noise, realism):
    """the distance comes first"""
    return [(realism(x), rmse(x, guides))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_no_root(eps, schedule, guides, levels, path, z, noise, realism):
    """its root is missing"""
    return [(rmse(x, guides) ** 2, realism(x))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_absolute(eps, schedule, guides, levels, path, z, noise, realism):
    """the mean of absolute differences"""
    return [(float((x - guides).abs().mean()), realism(x))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_norm(eps, schedule, guides, levels, path, z, noise, realism):
    """the squares are summed"""
    return [(float((x - guides).norm()), realism(x))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_mean_of_pictures(eps, schedule, guides, levels, path, z, noise, realism):
    """one root over all values"""
    return [(sum(rmse(u, v) for u, v in zip(x, guides, strict=True)) / len(x), realism(x))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_noised(eps, schedule, guides, levels, path, z, noise, realism):
    """to the noised guides"""
    found = results(eps, schedule, guides, levels, path, z, noise)
    return [(rmse(x, schedule.noise(guides, z, t0)), realism(x))
            for t0, x in zip(levels, found, strict=True)]


def wrong_realism_of_guides(eps, schedule, guides, levels, path, z, noise, realism):
    """the realism is that of the guides"""
    return [(rmse(x, guides), realism(guides))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_realism_of_difference(eps, schedule, guides, levels, path, z, noise, realism):
    """the realism is that of the difference"""
    return [(rmse(x, guides), realism(x - guides))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_other_noise(eps, schedule, guides, levels, path, z, noise, realism):
    """every level has other noise"""
    rows = []
    for i, t0 in enumerate(levels):
        x = sdedit(eps, schedule, guides, t0, path, z, noise[i:])
        rows.append((rmse(x, guides), realism(x)))
    return rows


def wrong_columns(eps, schedule, guides, levels, path, z, noise, realism):
    """two columns came back"""
    found = results(eps, schedule, guides, levels, path, z, noise)
    return [[rmse(x, guides) for x in found], [realism(x) for x in found]]


def wrong_lists(eps, schedule, guides, levels, path, z, noise, realism):
    """a pair is a tuple"""
    return [[rmse(x, guides), realism(x)]
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_tensors(eps, schedule, guides, levels, path, z, noise, realism):
    """both numbers of a pair are floats"""
    return [((x - guides).square().mean().sqrt(), realism(x))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def wrong_library(eps, schedule, guides, levels, path, z, noise, realism):
    """own refuses while your answer runs"""
    from coursekit.edits import sdedit as package

    found = [package.edit(eps, schedule, guides, t0, path) for t0 in levels]
    return [(rmse(x, guides), realism(x)) for x in found]


def right_comprehension(eps, schedule, guides, levels, path, z, noise, realism):
    return [(rmse(x, guides), realism(x))
            for x in results(eps, schedule, guides, levels, path, z, noise)]


def right_loop(eps, schedule, guides, levels, path, z, noise, realism):
    rows = []
    for t0 in levels:
        x = sdedit(eps, schedule, guides, t0, path, z, noise)
        far = ((x - guides) ** 2).sum() / guides.numel()
        rows.append((far.item() ** 0.5, float(realism(x))))
    return rows
