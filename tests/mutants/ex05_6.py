"""Answers to 05-6: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def sample(eps, schedule, x, path, eta, noise):
    for t, s, z in zip(path, path[1:], noise, strict=False):
        now, then = schedule.level(t), schedule.level(s)
        e = eps(x, t)
        sd = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        x0 = (x - math.sqrt(1 - now) * e) / math.sqrt(now)
        x = math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * e + sd * z
    return x


def wrong_transposed(eps, schedule, x, noise, etas, counts, score):
    """rows and columns have changed places"""
    return [[score(sample(eps, schedule, x, schedule.trailing(S), eta, noise)) for eta in etas]
            for S in counts]


def wrong_flat(eps, schedule, x, noise, etas, counts, score):
    """one flat list"""
    return [score(sample(eps, schedule, x, schedule.trailing(S), eta, noise))
            for eta in etas for S in counts]


def wrong_carries_on(eps, schedule, x, noise, etas, counts, score):
    """a cell goes on where the one before it ended"""
    table = []
    for eta in etas:
        row = []
        for S in counts:
            x = sample(eps, schedule, x, schedule.trailing(S), eta, noise)
            row.append(score(x))
        table.append(row)
    return table


def wrong_noise_from_the_end(eps, schedule, x, noise, etas, counts, score):
    """the noise is taken from its end"""
    return [[score(sample(eps, schedule, x, schedule.trailing(S), eta, noise[-S:]))
             for S in counts] for eta in etas]


def wrong_always_ddim(eps, schedule, x, noise, etas, counts, score):
    """eta has no effect on the table"""
    return [[score(sample(eps, schedule, x, schedule.trailing(S), 0.0, noise))
             for S in counts] for eta in etas]


def wrong_leading(eps, schedule, x, noise, etas, counts, score):
    """the path is not trailing(S)"""
    return [[score(sample(eps, schedule, x, schedule.leading(S), eta, noise))
             for S in counts] for eta in etas]


def wrong_one_hop_short(eps, schedule, x, noise, etas, counts, score):
    """one hop short"""
    return [[score(sample(eps, schedule, x, schedule.trailing(S)[:S], eta, noise))
             for S in counts] for eta in etas]


def wrong_scores_the_start(eps, schedule, x, noise, etas, counts, score):
    """the score is that of the x at the start"""
    return [[score(x) for S in counts] for eta in etas]


def wrong_tensors(eps, schedule, x, noise, etas, counts, score):
    """each cell is a float"""
    return [[sample(eps, schedule, x, schedule.trailing(S), eta, noise).std()
             for S in counts] for eta in etas]


def wrong_library(eps, schedule, x, noise, etas, counts, score):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import ddim, last

    return [[score(last(ddim(eps, schedule, x, schedule.trailing(S), eta)).x) for S in counts]
            for eta in etas]


def right_comprehension(eps, schedule, x, noise, etas, counts, score):
    return [[score(sample(eps, schedule, x, schedule.trailing(S), eta, noise[:S]))
             for S in counts] for eta in etas]


def right_loops(eps, schedule, x, noise, etas, counts, score):
    table = []
    for eta in etas:
        table.append([])
        for S in counts:
            end = sample(eps, schedule, x.clone(), schedule.trailing(S), eta, list(noise))
            table[-1].append(float(torch.as_tensor(score(end))))
    return table
