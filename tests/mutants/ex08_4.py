"""Answers to 08-4: wrong_* must be told what their docstring says, right_* must pass."""

from itertools import pairwise

import torch


def hop(eps, schedule, x, t, s):
    e = eps(x, t)
    return schedule.noise(schedule.denoise(x, e, t), e, s)


def walk(eps, schedule, code, path, d, to_target=0.0):
    x = torch.cat([code, code])
    for t, s, miss in zip(path, path[1:], d):
        source, target = hop(eps, schedule, x, t, s).chunk(2)
        x = torch.cat([source + miss, target + to_target * miss])
    return tuple(x.chunk(2))


def wrong_both(eps, schedule, code, path, d):
    """the target gets the offsets, too"""
    return walk(eps, schedule, code, path, d, 1.0)


def wrong_none(eps, schedule, code, path, d):
    """the offsets have no effect"""
    return walk(eps, schedule, code, path, [torch.zeros_like(code)] * len(d))


def wrong_sign(eps, schedule, code, path, d):
    """the offsets are taken off"""
    return walk(eps, schedule, code, path, [-miss for miss in d])


def wrong_order(eps, schedule, code, path, d):
    """the offsets are used in the wrong order"""
    return walk(eps, schedule, code, path, d[::-1])


def wrong_first(eps, schedule, code, path, d):
    """the first offset is used at every hop"""
    return walk(eps, schedule, code, path, [d[0] for _ in d])


def wrong_before(eps, schedule, code, path, d):
    """an offset is added before its hop"""
    x = torch.cat([code, code])
    for t, s, miss in zip(path, path[1:], d):
        source, target = x.chunk(2)
        x = hop(eps, schedule, torch.cat([source + miss, target]), t, s)
    return tuple(x.chunk(2))


def wrong_at_last(eps, schedule, code, path, d):
    """only the last offset is added, at the end"""
    x = torch.cat([code, code])
    for t, s in pairwise(path):
        x = hop(eps, schedule, x, t, s)
    source, target = x.chunk(2)
    return source + d[-1], target


def wrong_two_walks(eps, schedule, code, path, d):
    """both walk together"""
    source, _ = walk(eps, schedule, code, path, d)
    _, target = walk(eps, schedule, code, path, [torch.zeros_like(code)] * len(d))
    return source, target


def wrong_halves(eps, schedule, code, path, d):
    """source and target have changed places"""
    return walk(eps, schedule, code, path, d)[::-1]


def wrong_apart(eps, schedule, code, path, d):
    """the network is asked about source and target apart"""
    source = target = code
    for t, s, miss in zip(path, path[1:], d):
        source = hop(eps, schedule, source, t, s) + miss
        target = hop(eps, schedule, target, t, s)
    return source, target


def wrong_batch(eps, schedule, code, path, d):
    """two things are returned, in a tuple"""
    return torch.cat(walk(eps, schedule, code, path, d))


def wrong_target_first(eps, schedule, code, path, d):
    """the sources were put below"""
    x = torch.cat([code, code])
    for t, s, miss in zip(path, path[1:], d):
        target, source = hop(eps, schedule, x, t, s).chunk(2)
        x = torch.cat([target, source + miss])
    return x.chunk(2)[1], x.chunk(2)[0]


def wrong_in_place(eps, schedule, code, path, d):
    """in place"""
    x = torch.cat([code, code])
    for t, s, miss in zip(path, path[1:], d):
        source, target = hop(eps, schedule, x, t, s).chunk(2)
        miss += source
        x = torch.cat([miss, target])
    return tuple(x.chunk(2))


def wrong_library(eps, schedule, code, path, d):
    """own refuses while your answer runs"""
    from coursekit.diffusion.inversion import Hop, replay

    x = torch.cat([code, code])
    hops = [Hop(path[0], x)] + [Hop(t, x, None, torch.cat([miss, 0 * miss]))
                                for t, miss in zip(path[1:], d)]
    return tuple(list(replay(eps, schedule, hops))[-1].x.chunk(2))


def right_plain(eps, schedule, code, path, d):
    return walk(eps, schedule, code, path, d)


def right_padded(eps, schedule, code, path, d):
    x = code.repeat(2, 1, 1)
    for i, (t, s) in enumerate(pairwise(path)):
        x = hop(eps, schedule, x, t, s) + torch.cat([d[i], torch.zeros_like(d[i])])
    return x[:len(code)], x[len(code):]


def right_slices(eps, schedule, code, path, d):
    b, x = len(code), torch.cat([code, code])
    for i in range(len(d)):
        a = (schedule.level(path[i + 1]) / schedule.level(path[i])) ** 0.5
        k = (1 - schedule.level(path[i + 1])) ** 0.5 - a * (1 - schedule.level(path[i])) ** 0.5
        x = a * x + k * eps(x, path[i])
        x[:b] += d[i]
    return x[:b], x[b:]
