"""Answers to 06-2: wrong_* must be told what their docstring says, right_* must pass."""

import math


def line(schedule, t, u):
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))


def wrong_source_time(eps, schedule, x, s, t):
    """ask it about the old point at the target time"""
    A, B = line(schedule, s, t)
    return A * x + B * eps(x, s)


def wrong_source_time_kept_above_zero(eps, schedule, x, s, t):
    """ask it about the old point at the target time"""
    A, B = line(schedule, s, t)
    return A * x + B * eps(x, max(s, 1))


def wrong_down(eps, schedule, x, s, t):
    """this is the hop down"""
    a, b = line(schedule, t, s)
    return a * x + b * eps(x, t)


def wrong_sign(eps, schedule, x, s, t):
    """on the way up it is added"""
    A, B = line(schedule, s, t)
    return A * x - B * eps(x, t)


def wrong_mixed(eps, schedule, x, s, t):
    """take the whole line from s to t"""
    A, _ = line(schedule, s, t)
    _, b = line(schedule, t, s)
    return A * x - b * eps(x, t)


def wrong_unscaled(eps, schedule, x, s, t):
    """x keeps its size"""
    return x + line(schedule, s, t)[1] * eps(x, t)


def wrong_all_noise(eps, schedule, x, s, t):
    """a part of it is in x already"""
    return line(schedule, s, t)[0] * x + math.sqrt(1 - schedule.level(t)) * eps(x, t)


def wrong_clean(eps, schedule, x, s, t):
    """x is taken for a clean picture"""
    return schedule.noise(x, eps(x, t), t)


def wrong_twice(eps, schedule, x, s, t):
    """asked more often"""
    return schedule.noise(schedule.denoise(x, eps(x, t), s), eps(x, t), t)


def wrong_no_op(eps, schedule, x, s, t):
    """comes back unchanged"""
    return x


def wrong_half(eps, schedule, x, s, t):
    """must keep the dtype"""
    A, B = line(schedule, s, t)
    result = A * x + B * eps(x, t)
    return result.float() if result.element_size() == 8 else result.double()


def wrong_library(eps, schedule, x, s, t):
    """refuses while your answer runs"""
    from coursekit.diffusion.sample import invert

    return list(invert(eps, schedule, x, [t, s]))[-1].x


def right_line(eps, schedule, x, s, t):
    A, B = line(schedule, s, t)
    return A * x + B * eps(x, t)


def right_undone(eps, schedule, x, s, t):
    a, b = line(schedule, t, s)
    return (x - b * eps(x, t)) / a


def right_primitives(eps, schedule, x, s, t):
    e = eps(x, t)
    return schedule.noise(schedule.denoise(x, e, s), e, t)
