"""Answers to 08-3: wrong_* must be told what their docstring says, right_* must pass."""

from itertools import pairwise

import torch


def hop(eps, schedule, x, t, s):
    e = eps(x, t)
    return schedule.noise(schedule.denoise(x, e, t), e, s)


def wrong_drift(eps, schedule, pivot, path):
    """the sampler walks on from where it landed"""
    x, d = pivot[0], []
    for i in range(len(path) - 1):
        x = hop(eps, schedule, x, path[i], path[i + 1])
        d.append(pivot[i + 1] - x)
    return d


def wrong_sign(eps, schedule, pivot, path):
    """the offset has the wrong sign"""
    return [hop(eps, schedule, pivot[i], path[i], path[i + 1]) - pivot[i + 1]
            for i in range(len(path) - 1)]


def wrong_landing(eps, schedule, pivot, path):
    """this is where the hop lands"""
    return [hop(eps, schedule, pivot[i], path[i], path[i + 1]) for i in range(len(path) - 1)]


def wrong_differences(eps, schedule, pivot, path):
    """these are the differences of the pivot's states"""
    return [b - a for a, b in pairwise(pivot)]


def wrong_point(eps, schedule, pivot, path):
    """ask about the state in which it begins"""
    d = []
    for (now, then), (t, s) in zip(pairwise(pivot), pairwise(path)):
        e = eps(then, t)
        d.append(then - schedule.noise(schedule.denoise(now, e, t), e, s))
    return d


def wrong_upwards(eps, schedule, pivot, path):
    """the hop is taken upwards"""
    d = []
    for (now, then), (t, s) in zip(pairwise(pivot), pairwise(path)):
        e = eps(then, t)
        d.append(now - schedule.noise(schedule.denoise(then, e, s), e, t))
    return d


def wrong_order(eps, schedule, pivot, path):
    """the offsets come clean to noisy"""
    return right_plain(eps, schedule, pivot, path)[::-1]


def wrong_padded(eps, schedule, pivot, path):
    """one offset a hop is asked for"""
    return [torch.zeros_like(pivot[0]), *right_plain(eps, schedule, pivot, path)]


def wrong_stacked(eps, schedule, pivot, path):
    """a list is asked for"""
    return torch.stack(right_plain(eps, schedule, pivot, path))


def wrong_times(eps, schedule, pivot, path):
    """a list is asked for"""
    return dict(zip(path[1:], right_plain(eps, schedule, pivot, path)))


def wrong_end_time(eps, schedule, pivot, path):
    """there is nothing to ask"""
    d = []
    for i in range(len(path) - 1):
        e = eps(pivot[i], path[i + 1])
        d.append(pivot[i + 1] - schedule.noise(
            schedule.denoise(pivot[i], e, path[i]), e, path[i + 1]))
    return d


def wrong_twice(eps, schedule, pivot, path):
    """more often than needed"""
    d = []
    for (now, then), (t, s) in zip(pairwise(pivot), pairwise(path)):
        x0 = schedule.denoise(now, eps(now, t), t)
        d.append(then - schedule.noise(x0, eps(now, t), s))
    return d


def wrong_in_place(eps, schedule, pivot, path):
    """in place"""
    for i in range(len(path) - 1):
        there = hop(eps, schedule, pivot[i].clone(), path[i], path[i + 1])
        pivot[i + 1] -= there
    return pivot[1:]


def wrong_library(eps, schedule, pivot, path):
    """own refuses while your answer runs"""
    from coursekit.diffusion.guided import direct
    from coursekit.diffusion.sample import State

    states = [State(t, x) for t, x in zip(path, pivot)]
    return [hop.noise for hop in list(direct(eps, schedule, states))[1:]]


def right_plain(eps, schedule, pivot, path):
    return [pivot[i + 1] - hop(eps, schedule, pivot[i], path[i], path[i + 1])
            for i in range(len(path) - 1)]


def right_lines(eps, schedule, pivot, path):
    d = []
    for (now, then), (t, s) in zip(pairwise(pivot), pairwise(path)):
        a = (schedule.level(s) / schedule.level(t)) ** 0.5
        b = (1 - schedule.level(s)) ** 0.5 - a * (1 - schedule.level(t)) ** 0.5
        d.append(then - a * now - b * eps(now, t))
    return d


def right_noise(eps, schedule, pivot, path):
    """By (08.17): b times what the noise of the hop says more than the predictor."""
    d = []
    for i, t in enumerate(path[:-1]):
        now, then, s = pivot[i], pivot[i + 1], path[i + 1]
        a = (schedule.level(s) / schedule.level(t)) ** 0.5
        b = (1 - schedule.level(s)) ** 0.5 - a * (1 - schedule.level(t)) ** 0.5
        d.append(b * ((then - a * now) / b - eps(now, t)))
    return d
