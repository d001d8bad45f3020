"""Answers to 05-1: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def wrong_variance(schedule, t, s, eta):
    """a square root is missing"""
    now, then = schedule.level(t), schedule.level(s)
    return eta * (1 - then) / (1 - now) * (1 - now / then)


def wrong_eta_under_the_root(schedule, t, s, eta):
    """eta belongs once, in front of the root"""
    now, then = schedule.level(t), schedule.level(s)
    return math.sqrt(eta * (1 - then) / (1 - now) * (1 - now / then))


def wrong_eta_squared(schedule, t, s, eta):
    """eta belongs once, in front of the root"""
    now, then = schedule.level(t), schedule.level(s)
    return eta**2 * math.sqrt((1 - then) / (1 - now) * (1 - now / then))


def wrong_no_eta(schedule, t, s, eta):
    """eta has no effect"""
    now, then = schedule.level(t), schedule.level(s)
    return math.sqrt((1 - then) / (1 - now) * (1 - now / then))


def wrong_beta(schedule, t, s, eta):
    """this is sqrt(beta)"""
    return eta * math.sqrt(1 - schedule.level(t) / schedule.level(s))


def wrong_neighbours(schedule, t, s, eta):
    """the sigma of the neighbours"""
    now, then = schedule.level(t), schedule.level(t - 1)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))


def wrong_swapped(schedule, t, s, eta):
    """the levels of t and s have changed places"""
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - now) / max(1 - then, 1e-30) * (1 - now / then)) if s else 0.0


def wrong_one_level(schedule, t, s, eta):
    """the second root holds the ratio"""
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now)


def wrong_ratio_upside_down(schedule, t, s, eta):
    """a square root or logarithm of something negative"""
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - then / now)


def wrong_tensor(schedule, t, s, eta):
    """no float"""
    now, then = schedule.abar[t], schedule.abar[s]
    return eta * torch.sqrt((1 - then) / (1 - now) * (1 - now / then))


def wrong_nothing(schedule, t, s, eta):
    """is there a return"""
    eta * math.sqrt(schedule.level(s))


def wrong_library(schedule, t, s, eta):
    """own refuses while your answer runs"""
    return eta * math.sqrt(schedule.beta_tilde(t, s))


def right_one_line(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now / then)


def right_from_tensors(schedule, t, s, eta):
    abar = schedule.abar
    spread = (1 - abar[s]) * (abar[s] - abar[t]) / ((1 - abar[t]) * abar[s])
    return float(eta * spread**0.5)


def right_by_beta(schedule, t, s, eta):
    ratio = (1 - schedule.level(s)) / (1 - schedule.level(t))
    return 0 if eta == 0 else eta * (ratio * schedule.beta(t, s)) ** 0.5
