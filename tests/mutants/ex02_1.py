"""Answers to 02-1: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def spread(values, like):
    return values.view(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def wrong_levels(schedule, x0, eps, t):
    """what multiplies a picture or a noise is its square root"""
    level = spread(schedule.abar[t], x0)
    return level * x0 + (1 - level) * eps


def wrong_noise_without_root(schedule, x0, eps, t):
    """what multiplies a picture or a noise is its square root"""
    level = spread(schedule.abar[t], x0)
    return level.sqrt() * x0 + (1 - level) * eps


def wrong_rest_of_the_root(schedule, x0, eps, t):
    """it is the variances that add up to one"""
    level = spread(schedule.abar[t], x0)
    return level.sqrt() * x0 + (1 - level.sqrt()) * eps


def wrong_swapped(schedule, x0, eps, t):
    """signal and noise have changed places"""
    level = spread(schedule.abar[t], x0)
    return (1 - level).sqrt() * x0 + level.sqrt() * eps


def wrong_full_size(schedule, x0, eps, t):
    """the picture keeps its full size"""
    return x0 + spread((1 - schedule.abar[t]).sqrt(), x0) * eps


def wrong_place(schedule, x0, eps, t):
    """read one place off"""
    level = spread(schedule.abar[t - 1], x0)
    return level.sqrt() * x0 + (1 - level).sqrt() * eps


def wrong_first_time(schedule, x0, eps, t):
    """every item got the level of the first"""
    level = schedule.level(int(t[0]))
    return math.sqrt(level) * x0 + math.sqrt(1 - level) * eps


def wrong_one_step(schedule, x0, eps, t):
    """the noise of the one step from t - 1 to t"""
    beta = spread(1 - schedule.abar[t] / schedule.abar[t - 1], x0)
    return (1 - beta).sqrt() * x0 + beta.clamp(min=0).sqrt() * eps


def wrong_axis(schedule, x0, eps, t):
    """axes of length one"""
    level = schedule.abar[t].to(x0.dtype)
    return level.sqrt() * x0 + (1 - level).sqrt() * eps


def wrong_dtype(schedule, x0, eps, t):
    """must keep the dtype"""
    level = schedule.abar[t].view(-1, *[1] * (x0.ndim - 1))
    return level.sqrt() * x0 + (1 - level).sqrt() * eps


def wrong_sign(schedule, x0, eps, t):
    """the noise is taken off"""
    level = spread(schedule.abar[t], x0)
    return level.sqrt() * x0 - (1 - level).sqrt() * eps


def wrong_no_op(schedule, x0, eps, t):
    """comes back unchanged"""
    return x0


def wrong_in_place(schedule, x0, eps, t):
    """work on a copy"""
    level = spread(schedule.abar[t], x0)
    x0 *= level.sqrt()
    x0 += (1 - level).sqrt() * eps
    return x0


def wrong_library(schedule, x0, eps, t):
    """refuses while your answer runs"""
    return schedule.noise(x0, eps, t)


def right_item_by_item(schedule, x0, eps, t):
    rows = []
    for clean, noise, time in zip(x0, eps, t.tolist(), strict=True):
        level = schedule.level(time)
        rows.append(level**0.5 * clean + (1 - level) ** 0.5 * noise)
    return torch.stack(rows)


def right_einsum(schedule, x0, eps, t):
    signal, rest = schedule.abar[t].sqrt().to(x0.dtype), (1 - schedule.abar[t]).sqrt().to(x0.dtype)
    return torch.einsum("b,b...->b...", signal, x0) + torch.einsum("b,b...->b...", rest, eps)


def right_float32_level(schedule, x0, eps, t):
    level = spread(schedule.abar[t], x0)
    return level.sqrt() * x0 + (1 - level).sqrt() * eps
