"""Answers to 02-4: wrong_* must be told what their docstring says, right_* must pass."""

import math

import numpy as np


def roots(schedule, t, s, sd):
    now, then = schedule.level(t), schedule.level(s)
    return math.sqrt(then * (1 - now) / now), math.sqrt(max(0.0, 1 - then - sd * sd))


def wrong_no_half(schedule, t, s, sd):
    """the half is missing"""
    a, b = roots(schedule, t, s, sd)
    return (a - b) ** 2 / sd**2


def wrong_deviation(schedule, t, s, sd):
    """divided by twice the variance"""
    a, b = roots(schedule, t, s, sd)
    return (a - b) ** 2 / (2 * sd)


def wrong_no_variance(schedule, t, s, sd):
    """the division by the variance is missing"""
    a, b = roots(schedule, t, s, sd)
    return (a - b) ** 2 / 2


def wrong_not_squared(schedule, t, s, sd):
    """the bracket is not squared"""
    a, b = roots(schedule, t, s, sd)
    return (a - b) / (2 * sd**2)


def wrong_sum(schedule, t, s, sd):
    """it is a difference"""
    a, b = roots(schedule, t, s, sd)
    return (a + b) ** 2 / (2 * sd**2)


def wrong_difference_of_squares(schedule, t, s, sd):
    """not the square of the difference"""
    a, b = roots(schedule, t, s, sd)
    return (a**2 - b**2) / (2 * sd**2)


def wrong_all_the_old_noise(schedule, t, s, sd):
    """must shrink as sd grows"""
    a, b = roots(schedule, t, s, 0)
    return (a - b) ** 2 / (2 * sd**2)


def wrong_sd_under_the_root(schedule, t, s, sd):
    """its square is a variance"""
    a, _ = roots(schedule, t, s, sd)
    b = math.sqrt(max(0.0, 1 - schedule.level(s) - sd))
    return (a - b) ** 2 / (2 * sd**2)


def wrong_printed(schedule, t, s, sd):
    """only where sd is the posterior's own deviation"""
    beta = 1 - schedule.level(t) / schedule.level(s)
    return beta**2 / (2 * sd**2 * (1 - beta) * (1 - schedule.level(t)))


def wrong_of_the_picture(schedule, t, s, sd):
    """the weight of the picture's error"""
    now, (a, b) = schedule.level(t), roots(schedule, t, s, sd)
    return (a - b) ** 2 / (2 * sd**2) * now / (1 - now)


def wrong_swapped(schedule, t, s, sd):
    """the levels of t and s have changed places"""
    a, b = roots(schedule, s, t, sd)
    return (a - b) ** 2 / (2 * sd**2)


def wrong_neighbours(schedule, t, s, sd):
    """this is the hop from t to t - 1"""
    a, b = roots(schedule, t, t - 1, sd)
    return (a - b) ** 2 / (2 * sd**2)


def wrong_first_root(schedule, t, s, sd):
    """the first root lacks"""
    a, b = math.sqrt(schedule.level(s)), roots(schedule, t, s, sd)[1]
    return (a - b) ** 2 / (2 * sd**2)


def wrong_constant(schedule, t, s, sd):
    """this is one everywhere"""
    return 1.0


def wrong_library(schedule, t, s, sd):
    """refuses while your answer runs"""
    from coursekit.diffusion import elbo

    return elbo.gamma(schedule, t, s, sd)


def right_plain(schedule, t, s, sd):
    a, b = roots(schedule, t, s, sd)
    return 0.5 * ((a - b) / sd) ** 2


def right_numpy(schedule, t, s, sd):
    abar = schedule.abar.numpy()
    kept = np.clip(1 - abar[s] - sd**2, 0, None)
    return (np.sqrt(abar[s] / abar[t] - abar[s]) - np.sqrt(kept)) ** 2 / (2 * sd**2)


def right_by_two_means(schedule, t, s, sd):
    """The distance of the two means for an error of one in the noise, x = 0."""
    now, then = schedule.level(t), schedule.level(s)

    def mean(noise):
        x0 = -math.sqrt(1 - now) * noise / math.sqrt(now)
        return math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * noise

    return (mean(1.0) - mean(0.0)) ** 2 / (2 * sd**2)
