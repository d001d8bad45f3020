"""Answers to 06-6: wrong_* must be told what their docstring says, right_* must pass."""

import math


def line(schedule, t, u):
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))


def unblend(x, y, p):
    y = (y - (1 - p) * x) / p
    return (x - (1 - p) * y) / p, y


def unmove(eps, schedule, x, y, s, t, at=None):
    a, b = line(schedule, t, s)
    y = (y - b * eps(x, t if at is None else at)) / a
    return (x - b * eps(y, t if at is None else at)) / a, y


def wrong_not_unblended(eps, schedule, x, y, s, t, p):
    """the blending is not undone"""
    return unmove(eps, schedule, x, y, s, t)


def wrong_unblended_in_order(eps, schedule, x, y, s, t, p):
    """what was done last is undone first"""
    x = (x - (1 - p) * y) / p
    y = (y - (1 - p) * x) / p
    return unmove(eps, schedule, x, y, s, t)


def wrong_unblended_at_once(eps, schedule, x, y, s, t, p):
    """one of them must be free before it can free the other"""
    x, y = (x - (1 - p) * y) / p, (y - (1 - p) * x) / p
    return unmove(eps, schedule, x, y, s, t)


def wrong_blended_again(eps, schedule, x, y, s, t, p):
    """this blends once more"""
    x = p * x + (1 - p) * y
    y = p * y + (1 - p) * x
    return unmove(eps, schedule, x, y, s, t)


def wrong_undivided(eps, schedule, x, y, s, t, p):
    """without its division by p"""
    y = y - (1 - p) * x
    x = x - (1 - p) * y
    return unmove(eps, schedule, x, y, s, t)


def wrong_unblended_last(eps, schedule, x, y, s, t, p):
    """it must be undone before it"""
    return unblend(*unmove(eps, schedule, x, y, s, t), p)


def wrong_x_first(eps, schedule, x, y, s, t, p):
    """y was moved last"""
    x, y = unblend(x, y, p)
    return unmove(eps, schedule, y, x, s, t)[::-1]


def wrong_move_at_once(eps, schedule, x, y, s, t, p):
    """what y showed before y's own move"""
    x, y = unblend(x, y, p)
    a, b = line(schedule, t, s)
    return (x - b * eps(y, t)) / a, (y - b * eps(x, t)) / a


def wrong_own_noise(eps, schedule, x, y, s, t, p):
    """it must be the noise that the other shows"""
    x, y = unblend(x, y, p)
    a, b = line(schedule, t, s)
    return (x - b * eps(x, t)) / a, (y - b * eps(y, t)) / a


def wrong_down(eps, schedule, x, y, s, t, p):
    """this moves the twins further down"""
    x, y = unblend(x, y, p)
    a, b = line(schedule, t, s)
    x = a * x + b * eps(y, t)
    return x, a * y + b * eps(x, t)


def wrong_line_up(eps, schedule, x, y, s, t, p):
    """the line is that from s to t"""
    x, y = unblend(x, y, p)
    a, b = line(schedule, s, t)
    y = (y - b * eps(x, t)) / a
    return (x - b * eps(y, t)) / a, y


def wrong_source_time(eps, schedule, x, y, s, t, p):
    """the hop down asked it at t"""
    return unmove(eps, schedule, *unblend(x, y, p), s, t, at=max(1, s))


def wrong_order(eps, schedule, x, y, s, t, p):
    """the twins have changed places"""
    return unmove(eps, schedule, *unblend(x, y, p), s, t)[::-1]


def wrong_one_twin(eps, schedule, x, y, s, t, p):
    """two things are returned"""
    return unmove(eps, schedule, *unblend(x, y, p), s, t)[0]


def wrong_three(eps, schedule, x, y, s, t, p):
    """two things are returned"""
    x, y = unmove(eps, schedule, *unblend(x, y, p), s, t)
    return x, y, (x + y) / 2


def wrong_nothing(eps, schedule, x, y, s, t, p):
    """is there a return"""
    unmove(eps, schedule, *unblend(x, y, p), s, t)


def wrong_in_place(eps, schedule, x, y, s, t, p):
    """it changes its argument y in place"""
    y -= (1 - p) * x
    y /= p
    return unmove(eps, schedule, (x - (1 - p) * y) / p, y, s, t)


def wrong_library(eps, schedule, x, y, s, t, p):
    """refuses while your answer runs"""
    from coursekit.diffusion.inversion import edict_invert

    found = list(edict_invert(eps, schedule, x, [t, s], y, p))[-1]
    return found.x, found.y


def right_undone(eps, schedule, x, y, s, t, p):
    return unmove(eps, schedule, *unblend(x, y, p), s, t)


def right_line_up(eps, schedule, x, y, s, t, p):
    A, B = line(schedule, s, t)
    q = (1 - p) / p
    v = y / p - q * x
    u = x / p - q * v
    v = A * v + B * eps(u, t)
    return A * u + B * eps(v, t), v


def right_primitives(eps, schedule, x, y, s, t, p):
    y = (y - x) / p + x
    x = (x - y) / p + y
    e = eps(x, t)
    y = schedule.noise(schedule.denoise(y, e, s), e, t)
    e = eps(y, t)
    return schedule.noise(schedule.denoise(x, e, s), e, t), y
