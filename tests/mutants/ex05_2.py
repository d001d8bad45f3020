"""Answers to 05-2: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def parts(schedule, x, x0, t, s):
    now, then = schedule.level(t), schedule.level(s)
    return now, then, (x - math.sqrt(now) * x0) / math.sqrt(1 - now)


def wrong_sd_not_squared(schedule, x, x0, t, s, sd):
    """its square is a variance"""
    now, then, e = parts(schedule, x, x0, t, s)
    return math.sqrt(then) * x0 + max(0, 1 - then - sd) ** 0.5 * e


def wrong_all_the_old_noise(schedule, x, x0, t, s, sd):
    """the fresh noise is not taken off the old"""
    now, then, e = parts(schedule, x, x0, t, s)
    return math.sqrt(then) * x0 + math.sqrt(1 - then) * e


def wrong_no_root(schedule, x, x0, t, s, sd):
    """variances subtract"""
    now, then, e = parts(schedule, x, x0, t, s)
    return math.sqrt(then) * x0 + (1 - then - sd**2) * e


def wrong_level_for_root(schedule, x, x0, t, s, sd):
    """by the square root of its level"""
    now, then, e = parts(schedule, x, x0, t, s)
    return then * x0 + math.sqrt(max(0, 1 - then - sd**2)) * e


def wrong_full_size(schedule, x, x0, t, s, sd):
    """x0 keeps its full size"""
    now, then, e = parts(schedule, x, x0, t, s)
    return x0 + math.sqrt(max(0, 1 - then - sd**2)) * e


def wrong_not_divided(schedule, x, x0, t, s, sd):
    """not divided by its deviation"""
    now, then, e = parts(schedule, x, x0, t, s)
    return math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * (x - math.sqrt(now) * x0)


def wrong_plain_difference(schedule, x, x0, t, s, sd):
    """take off x0 as it stands in x"""
    now, then, e = parts(schedule, x, x0, t, s)
    e = (x - x0) / math.sqrt(1 - now)
    return math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * e


def wrong_swapped(schedule, x, x0, t, s, sd):
    """t and s have changed places"""
    now, then, e = parts(schedule, x, x0, s, t)
    return math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * e


def wrong_sample(schedule, x, x0, t, s, sd):
    """this is a sample"""
    now, then, e = parts(schedule, x, x0, t, s)
    mean = math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * e
    return mean + sd * torch.randn_like(x)


def wrong_unguarded_root(schedule, x, x0, t, s, sd):
    """may round to just below"""
    now, then, e = parts(schedule, x, x0, t, s)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e


def wrong_no_op(schedule, x, x0, t, s, sd):
    """the argument x comes back unchanged"""
    return x


def wrong_in_place(schedule, x, x0, t, s, sd):
    """work on a copy"""
    now, then = schedule.level(t), schedule.level(s)
    x -= math.sqrt(now) * x0
    x *= math.sqrt(max(0, 1 - then - sd**2)) / math.sqrt(1 - now)
    return x + math.sqrt(then) * x0


def wrong_double(schedule, x, x0, t, s, sd):
    """must keep the dtype"""
    now, then, e = parts(schedule, x.double(), x0.double(), t, s)
    return math.sqrt(then) * x0.double() + math.sqrt(max(0, 1 - then - sd**2)) * e


def wrong_library(schedule, x, x0, t, s, sd):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import posterior

    return posterior(schedule, x, x0, t, s, sd)


def right_line_by_line(schedule, x, x0, t, s, sd):
    now, then, e = parts(schedule, x, x0, t, s)
    return math.sqrt(then) * x0 + math.sqrt(max(0.0, 1 - then - sd**2)) * e


def right_two_coefficients(schedule, x, x0, t, s, sd):
    a, b = schedule.scales(t, x)
    k = max(1 - schedule.level(s) - sd * sd, 0) ** 0.5 / b
    return k * x + (schedule.level(s) ** 0.5 - k * a) * x0


def right_tensors(schedule, x, x0, t, s, sd):
    now, then = schedule.abar[t], schedule.abar[s]
    room = (1 - then - sd**2).clamp(min=0)
    return then.sqrt() * x0 + room.sqrt() * (x - now.sqrt() * x0) / (1 - now).sqrt()
