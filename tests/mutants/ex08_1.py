"""Answers to 08-1: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def hop(schedule, x, e, t, u):
    return schedule.noise(schedule.denoise(x, e, t), e, u)


def up(eps, schedule, x, path):
    states = [x]
    for s, t in zip(path[::-1], path[-2::-1]):
        x = hop(schedule, x, eps(x, t), s, t)
        states.append(x)
    return states[::-1]


def down(eps, schedule, x, path):
    for t, s in zip(path, path[1:]):
        x = hop(schedule, x, eps(x, t), t, s)
    return x


def mix(none, cond, w):
    def eps(x, t):
        e = none(x, t)
        return e + w * (cond(x, t) - e)
    return eps


def wrong_guided_up(none, cond, schedule, x, path, w):
    """inversion is guided as well"""
    pivot = up(mix(none, cond, w), schedule, x, path)
    return pivot, down(mix(none, cond, w), schedule, pivot[0], path)


def wrong_unconditional_up(none, cond, schedule, x, path, w):
    """the pivot was made without the condition"""
    pivot = up(none, schedule, x, path)
    return pivot, down(mix(none, cond, w), schedule, pivot[0], path)


def wrong_order(none, cond, schedule, x, path, w):
    """the pivot's states come clean to noisy"""
    pivot = up(cond, schedule, x, path)
    return pivot[::-1], down(mix(none, cond, w), schedule, pivot[0], path)


def wrong_without_x(none, cond, schedule, x, path, w):
    """the pivot lacks x itself"""
    pivot = up(cond, schedule, x, path)
    return pivot[:-1], down(mix(none, cond, w), schedule, pivot[0], path)


def wrong_code_alone(none, cond, schedule, x, path, w):
    """the pivot is the list of all states"""
    code = up(cond, schedule, x, path)[0]
    return code, down(mix(none, cond, w), schedule, code, path)


def wrong_source_time(none, cond, schedule, x, path, w):
    """there is nothing to ask"""
    pivot = [x]
    for s, t in zip(path[::-1], path[-2::-1]):
        pivot.append(hop(schedule, pivot[-1], cond(pivot[-1], s), s, t))
    return pivot[::-1], down(mix(none, cond, w), schedule, pivot[-1], path)


def wrong_start(none, cond, schedule, x, path, w):
    """the way back begins at x"""
    return up(cond, schedule, x, path), down(mix(none, cond, w), schedule, x, path)


def wrong_unguided(none, cond, schedule, x, path, w):
    """the way back is not guided"""
    pivot = up(cond, schedule, x, path)
    return pivot, down(cond, schedule, pivot[0], path)


def wrong_ends(none, cond, schedule, x, path, w):
    """the two ends of guidance have changed places"""
    pivot = up(cond, schedule, x, path)
    return pivot, down(mix(cond, none, w), schedule, pivot[0], path)


def wrong_convention(none, cond, schedule, x, path, w):
    """this w is counted from the conditional prediction"""
    pivot = up(cond, schedule, x, path)
    return pivot, down(mix(none, cond, w + 1), schedule, pivot[0], path)


def wrong_no_difference(none, cond, schedule, x, path, w):
    """it multiplies the difference"""
    pivot = up(cond, schedule, x, path)
    return pivot, down(lambda x, t: none(x, t) + w * cond(x, t), schedule, pivot[0], path)


def wrong_bounded(none, cond, schedule, x, path, w):
    """w was kept from falling below one"""
    pivot = up(cond, schedule, x, path)
    return pivot, down(mix(none, cond, max(1, w)), schedule, pivot[0], path)


def wrong_short(none, cond, schedule, x, path, w):
    """the last hop is not taken"""
    pivot = up(cond, schedule, x, path)
    return pivot, down(mix(none, cond, w), schedule, pivot[0], path[:-1])


def wrong_asks_twice(none, cond, schedule, x, path, w):
    """more often than needed"""
    pivot = up(cond, schedule, x, path)

    def eps(x, t):
        return none(x, t) + w * (cond(x, t) - none(x, t)) + 0 * cond(x, t)
    return pivot, down(eps, schedule, pivot[0], path)


def wrong_back_alone(none, cond, schedule, x, path, w):
    """two things are returned, in a tuple"""
    return down(mix(none, cond, w), schedule, up(cond, schedule, x, path)[0], path)


def wrong_library(none, cond, schedule, x, path, w):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import invert

    pivot = [state.x for state in invert(cond, schedule, x, path)][::-1]
    return pivot, down(mix(none, cond, w), schedule, pivot[0], path)


def right_plain(none, cond, schedule, x, path, w):
    pivot = up(cond, schedule, x, path)
    return pivot, down(mix(none, cond, w), schedule, pivot[0], path)


def right_shortcut(none, cond, schedule, x, path, w):
    pivot = up(cond, schedule, x, path)
    return pivot, down(cond if w == 1 else mix(none, cond, w), schedule, pivot[0], path)


def right_lines(none, cond, schedule, x, path, w):
    def line(t, u):
        a = (schedule.level(u) / schedule.level(t)) ** 0.5
        return a, (1 - schedule.level(u)) ** 0.5 - a * (1 - schedule.level(t)) ** 0.5

    pivot = [x]
    for i in range(len(path) - 1, 0, -1):
        a, b = line(path[i], path[i - 1])
        pivot.insert(0, a * pivot[0] + b * cond(pivot[0], path[i - 1]))
    back = pivot[0]
    for i in range(len(path) - 1):
        a, b = line(path[i], path[i + 1])
        back = a * back + b * torch.lerp(none(back, path[i]), cond(back, path[i]), w)
    return pivot, back
