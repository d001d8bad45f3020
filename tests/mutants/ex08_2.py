"""Answers to 08-2: wrong_* must be told what their docstring says, right_* must pass."""

import math


def line(schedule, t, s):
    a = math.sqrt(schedule.level(s) / schedule.level(t))
    return a, math.sqrt(1 - schedule.level(s)) - a * math.sqrt(1 - schedule.level(t))


def star(schedule, x, goal, t, s):
    a, b = line(schedule, t, s)
    return (goal - a * x) / b


def wrong_star(cond, schedule, x, goal, t, s, w):
    """this is the noise of the hop"""
    e = cond(x, t)
    return e if w == 1 else star(schedule, x, goal, t, s)


def wrong_limit(cond, schedule, x, goal, t, s, w):
    """this is the conditional prediction"""
    return cond(x, t)


def wrong_sign(cond, schedule, x, goal, t, s, w):
    """the difference has the wrong sign"""
    e = cond(x, t)
    return e if w == 1 else e - (e - star(schedule, x, goal, t, s)) / (w - 1)


def wrong_weight(cond, schedule, x, goal, t, s, w):
    """the difference is divided by w"""
    e = cond(x, t)
    return e if w == 1 else e + (e - star(schedule, x, goal, t, s)) / w


def wrong_multiplied(cond, schedule, x, goal, t, s, w):
    """the difference is multiplied by w - 1"""
    e = cond(x, t)
    return e + (e - star(schedule, x, goal, t, s)) * (w - 1)


def wrong_base(cond, schedule, x, goal, t, s, w):
    """the difference is added to the noise of the hop"""
    e, hop = cond(x, t), star(schedule, x, goal, t, s)
    return e if w == 1 else hop + (e - hop) / (w - 1)


def wrong_end(cond, schedule, x, goal, t, s, w):
    """the conditional end was solved for"""
    e, hop = cond(x, t), star(schedule, x, goal, t, s)
    return e if w == 1 else e + (hop - e) / w


def wrong_unscaled(cond, schedule, x, goal, t, s, w):
    """x must first be multiplied by a"""
    e, hop = cond(x, t), (goal - x) / line(schedule, t, s)[1]
    return e if w == 1 else e + (e - hop) / (w - 1)


def wrong_undivided(cond, schedule, x, goal, t, s, w):
    """the noise of the hop is not divided by b"""
    e, hop = cond(x, t), goal - line(schedule, t, s)[0] * x
    return e if w == 1 else e + (e - hop) / (w - 1)


def wrong_way(cond, schedule, x, goal, t, s, w):
    """the hop was taken the other way"""
    e, hop = cond(x, t), star(schedule, x, goal, s, t)
    return e if w == 1 else e + (e - hop) / (w - 1)


def wrong_at_one(cond, schedule, x, goal, t, s, w):
    """at weight one nothing is divided"""
    e = cond(x, t)
    return e + (e - star(schedule, x, goal, t, s)) / (w - 1)


def wrong_point(cond, schedule, x, goal, t, s, w):
    """the network is asked about the goal"""
    e = cond(goal, t)
    return e if w == 1 else e + (e - star(schedule, x, goal, t, s)) / (w - 1)


def wrong_time(cond, schedule, x, goal, t, s, w):
    """asked at the time where the hop ends"""
    e = cond(x, s)
    return e if w == 1 else e + (e - star(schedule, x, goal, t, s)) / (w - 1)


def wrong_twice(cond, schedule, x, goal, t, s, w):
    """more often than needed"""
    if w == 1:
        return cond(x, t)
    return cond(x, t) + (cond(x, t) - star(schedule, x, goal, t, s)) / (w - 1)


def wrong_library(cond, schedule, x, goal, t, s, w):
    """own refuses while your answer runs"""
    from coursekit.diffusion.inversion import ddim_line

    a, b = ddim_line(schedule, t, s)
    e = cond(x, t)
    return e if w == 1 else e + (e - (goal - a * x) / b) / (w - 1)


def right_plain(cond, schedule, x, goal, t, s, w):
    e = cond(x, t)
    return e if w == 1 else e + (e - star(schedule, x, goal, t, s)) / (w - 1)


def right_weights(cond, schedule, x, goal, t, s, w):
    e = cond(x, t)
    if w == 1:
        return e
    return (star(schedule, x, goal, t, s) - w * e) / (1 - w)


def right_unit_hop(cond, schedule, x, goal, t, s, w):
    e = cond(x, t)
    if w - 1 == 0:
        return e.clone()
    landed = schedule.noise(schedule.denoise(x, e, t), e, s)
    return e + (landed - goal) / (line(schedule, t, s)[1] * (w - 1))
