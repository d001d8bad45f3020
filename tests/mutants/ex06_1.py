"""Answers to 06-1: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def wrong_upside_down(schedule, t, u):
    """a is upside down"""
    a = math.sqrt(schedule.level(t) / schedule.level(u))
    return a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))


def wrong_levels(schedule, t, u):
    """the levels themselves were divided"""
    a = schedule.level(u) / schedule.level(t)
    return a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))


def wrong_not_cleared(schedule, t, u):
    """cleared of its old scale"""
    a = math.sqrt(schedule.level(u))
    return a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))


def wrong_forgets_a(schedule, t, u):
    """b forgets that"""
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return a, math.sqrt(1 - schedule.level(u)) - math.sqrt(1 - schedule.level(t))


def wrong_sign(schedule, t, u):
    """b has the other sign"""
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return a, a * math.sqrt(1 - schedule.level(t)) - math.sqrt(1 - schedule.level(u))


def wrong_variances(schedule, t, u):
    """here a root is missing"""
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return a, 1 - schedule.level(u) - a * (1 - schedule.level(t))


def wrong_takes_off_nothing(schedule, t, u):
    """counted twice"""
    return math.sqrt(schedule.level(u) / schedule.level(t)), math.sqrt(1 - schedule.level(u))


def wrong_order(schedule, t, u):
    """a and b have changed places"""
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t)), a


def wrong_direction(schedule, t, u):
    """the hop goes from t to u"""
    a = math.sqrt(schedule.level(t) / schedule.level(u))
    return a, math.sqrt(1 - schedule.level(t)) - a * math.sqrt(1 - schedule.level(u))


def wrong_tensors(schedule, t, u):
    """two Python floats are asked for"""
    a = torch.sqrt(schedule.abar[u] / schedule.abar[t])
    return a, torch.sqrt(1 - schedule.abar[u]) - a * torch.sqrt(1 - schedule.abar[t])


def wrong_list(schedule, t, u):
    """came list of 2, wanted tuple of 2"""
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return [a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))]


def wrong_nothing(schedule, t, u):
    """is there a return"""
    math.sqrt(schedule.level(u) / schedule.level(t))


def wrong_library(schedule, t, u):
    """refuses while your answer runs"""
    from coursekit.diffusion.inversion import ddim_line

    return ddim_line(schedule, t, u)


def right_plain(schedule, t, u):
    now, then = schedule.level(t), schedule.level(u)
    a = math.sqrt(then / now)
    return a, math.sqrt(1 - then) - a * math.sqrt(1 - now)


def right_barred(schedule, t, u):
    now, then = schedule.level(t), schedule.level(u)
    return math.sqrt(then) / math.sqrt(now), math.sqrt(then) * (
        math.sqrt(1 / then - 1) - math.sqrt(1 / now - 1))


def right_tensors(schedule, t, u):
    abar = schedule.abar.double()
    a = (abar[u] / abar[t]) ** 0.5
    return a.item(), ((1 - abar[u]) ** 0.5 - a * (1 - abar[t]) ** 0.5).item()
