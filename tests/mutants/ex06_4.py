"""Answers to 06-4: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise

import torch


def hop(eps, schedule, x, t, u, at):
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    b = math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))
    return a * x + b * eps(x, at)


def up(eps, schedule, x, path):
    for s, t in pairwise(reversed(path)):
        x = hop(eps, schedule, x, s, t, t)
    return x


def down(eps, schedule, x, path):
    for t, s in pairwise(path):
        x = hop(eps, schedule, x, t, s, t)
    return x


def error(x, back):
    return (x - back).square().flatten(1).mean(1)


def walks(eps, schedule, x, path):
    code = up(eps, schedule, x, path)
    return code, down(eps, schedule, code, path)


def wrong_target_time_down(eps, schedule, x, path):
    """where it begins, point and time are both known"""
    code = back = up(eps, schedule, x, path)
    for t, s in pairwise(path):
        back = hop(eps, schedule, back, t, s, max(s, 1))
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_asked_at_zero(eps, schedule, x, path):
    """at level zero there is nothing to ask"""
    code = back = up(eps, schedule, x, path)
    for t, s in pairwise(path):
        back = hop(eps, schedule, back, t, s, s)
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_back_from_x(eps, schedule, x, path):
    """the way back begins at x"""
    code, back = up(eps, schedule, x, path), down(eps, schedule, x, path)
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_asks_about_the_code(eps, schedule, x, path):
    """ask about where the walk stands"""
    code = back = up(eps, schedule, x, path)
    for t, s in pairwise(path):
        back = hop(lambda _, t: eps(code, t), schedule, back, t, s, t)
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_back_starts_again(eps, schedule, x, path):
    """on the way back every hop begins at the code"""
    code = up(eps, schedule, x, path)
    for t, s in pairwise(path):
        back = hop(eps, schedule, code, t, s, t)
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_back_stops_early(eps, schedule, x, path):
    """on the way back the last hop is not taken"""
    code = up(eps, schedule, x, path)
    back = down(eps, schedule, code, path[:-1])
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_up_again(eps, schedule, x, path):
    """on the way back the line is that of the way up"""
    code = back = up(eps, schedule, x, path)
    for t, s in pairwise(path):
        back = hop(eps, schedule, back, s, t, t)
    return code, back, 10 * torch.log10(4 / error(x, back))


def wrong_order(eps, schedule, x, path):
    """the code comes first"""
    code, back = walks(eps, schedule, x, path)
    return back, code, 10 * torch.log10(4 / error(x, back))


def wrong_range_one(eps, schedule, x, path):
    """their range is not 1"""
    code, back = walks(eps, schedule, x, path)
    return code, back, -10 * torch.log10(error(x, back))


def wrong_range_two(eps, schedule, x, path):
    """must be squared as well"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(2 / error(x, back))


def wrong_root(eps, schedule, x, path):
    """this takes the root of the error"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(2 / error(x, back).sqrt())


def wrong_twenty(eps, schedule, x, path):
    """this is twice the decibels"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 20 * torch.log10(4 / error(x, back))


def wrong_logarithm(eps, schedule, x, path):
    """decibels have base ten"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log(4 / error(x, back))


def wrong_upside_down(eps, schedule, x, path):
    """the ratio is upside down"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(error(x, back) / 4)


def wrong_code_compared(eps, schedule, x, path):
    """this compares the code with x"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(4 / error(x, code))


def wrong_sum(eps, schedule, x, path):
    """squared errors are summed"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(4 / (x - back).square().flatten(1).sum(1))


def wrong_one_number(eps, schedule, x, path):
    """one number an item is asked for"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(4 / (x - back).square().mean())


def wrong_one_axis(eps, schedule, x, path):
    """one number an item is asked for"""
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(4 / (x - back).square().mean(0))


def wrong_float(eps, schedule, x, path):
    """one number an item is asked for"""
    code, back = walks(eps, schedule, x, path)
    return code, back, float(10 * torch.log10(4 / (x - back).square().mean()))


def wrong_back_alone(eps, schedule, x, path):
    """three things are returned"""
    return walks(eps, schedule, x, path)


def wrong_nothing(eps, schedule, x, path):
    """is there a return"""
    walks(eps, schedule, x, path)


def wrong_library(eps, schedule, x, path):
    """refuses while your answer runs"""
    from coursekit.classroom.metrics import psnr

    code, back = walks(eps, schedule, x, path)
    return code, back, psnr(x, back)


def right_means(eps, schedule, x, path):
    code, back = walks(eps, schedule, x, path)
    return code, back, 10 * torch.log10(4 / error(x, back))


def right_roots(eps, schedule, x, path):
    code, back = walks(eps, schedule, x, path)
    axes = list(range(1, x.ndim))
    return code, back, 20 * torch.log10(2 / (x - back).square().mean(axes).sqrt())


def right_one_by_one(eps, schedule, x, path):
    code, back = walks(eps, schedule, x, path)
    numbers = [10 * math.log10(4 / float((a - b).square().mean())) for a, b in zip(x, back)]
    return code, back, torch.tensor(numbers, dtype=x.dtype)
