"""Answers to 02-2: wrong_* must be told what their docstring says, right_* must pass."""

import math


def weights(schedule, t, s):
    """Of x, of x0, and the variance."""
    now, then = schedule.level(t), schedule.level(s)
    keep = now / then
    return (math.sqrt(keep) * (1 - then) / (1 - now), math.sqrt(then) * (1 - keep) / (1 - now),
            (1 - then) / (1 - now) * (1 - keep))


def wrong_beta(schedule, x, x0, t, s):
    """this variance is that of the forward hop"""
    p, q, _ = weights(schedule, t, s)
    return p * x + q * x0, 1 - schedule.level(t) / schedule.level(s)


def wrong_deviation(schedule, x, x0, t, s):
    """this is the deviation"""
    p, q, var = weights(schedule, t, s)
    return p * x + q * x0, math.sqrt(var)


def wrong_neighbours(schedule, x, x0, t, s):
    """this is the hop from t to t - 1"""
    p, q, var = weights(schedule, t, t - 1)
    return p * x + q * x0, var


def wrong_beta_of_the_neighbours(schedule, x, x0, t, s):
    """this is the hop from t to t - 1"""
    p, q, _ = weights(schedule, t, s)
    beta = 1 - schedule.level(t) / schedule.level(t - 1)
    return p * x + q * x0, (1 - schedule.level(s)) / (1 - schedule.level(t)) * beta


def wrong_variances_added(schedule, x, x0, t, s):
    """precisions do"""
    now, then = schedule.level(t), schedule.level(s)
    p, q, _ = weights(schedule, t, s)
    return p * x + q * x0, (1 - now / then) / (now / then) + 1 - then


def wrong_swapped(schedule, x, x0, t, s):
    """x and x0 have changed places"""
    p, q, var = weights(schedule, t, s)
    return p * x0 + q * x, var


def wrong_level_for_root_at_x(schedule, x, x0, t, s):
    """is its square root"""
    now, then = schedule.level(t), schedule.level(s)
    _, q, var = weights(schedule, t, s)
    return now / then * (1 - then) / (1 - now) * x + q * x0, var


def wrong_level_for_root_at_x0(schedule, x, x0, t, s):
    """is its square root"""
    p, q, var = weights(schedule, t, s)
    return p * x + q * math.sqrt(schedule.level(s)) * x0, var


def wrong_full_x0(schedule, x, x0, t, s):
    """x0 keeps its full size"""
    p, q, var = weights(schedule, t, s)
    return p * x + q / math.sqrt(schedule.level(s)) * x0, var


def wrong_undivided(schedule, x, x0, t, s):
    """not divided by the noise at t"""
    p, q, var = weights(schedule, t, s)
    return (p * x + q * x0) * (1 - schedule.level(t)), var


def wrong_no_slope(schedule, x, x0, t, s):
    """the slope of the hop is missing"""
    now, then = schedule.level(t), schedule.level(s)
    _, q, var = weights(schedule, t, s)
    return (1 - then) / (1 - now) * x + q * x0, var


def wrong_keeps_all_noise(schedule, x, x0, t, s):
    """leaves room for the variance"""
    now, then = schedule.level(t), schedule.level(s)
    noise = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
    return math.sqrt(then) * x0 + math.sqrt(1 - then) * noise, weights(schedule, t, s)[2]


def wrong_messages_swapped(schedule, x, x0, t, s):
    """the surer one counts for more"""
    now, then = schedule.level(t), schedule.level(s)
    above, below = (1 - now / then) / (now / then), 1 - then
    mean = (x / math.sqrt(now / then) * above + math.sqrt(then) * x0 * below) / (above + below)
    return mean, weights(schedule, t, s)[2]


def wrong_unguarded(schedule, x, x0, t, s):
    """so that s = 0 works, too"""
    now, then = schedule.level(t), schedule.level(s)
    above, below = now / then / (1 - now / then), 1 / (1 - then)
    mean = (x / math.sqrt(now / then) * above + math.sqrt(then) * x0 * below) / (above + below)
    return mean, 1 / (above + below)


def wrong_mean_alone(schedule, x, x0, t, s):
    """return mean, variance"""
    p, q, _ = weights(schedule, t, s)
    return p * x + q * x0


def wrong_tensor(schedule, x, x0, t, s):
    """one for the whole batch"""
    p, q, var = weights(schedule, t, s)
    return p * x + q * x0, var + 0 * x


def wrong_library(schedule, x, x0, t, s):
    """refuses while your answer runs"""
    p, q, _ = weights(schedule, t, s)
    return p * x + q * x0, schedule.beta_tilde(t, s)


def right_precisions(schedule, x, x0, t, s):
    now, then = schedule.level(t), schedule.level(s)
    if s == 0:
        return x0.clone(), 0.0
    keep = now / then
    above, below = keep / (1 - keep), 1 / (1 - then)
    mean = (above * (x / math.sqrt(keep)) + below * math.sqrt(then) * x0) / (above + below)
    return mean, 1 / (above + below)


def right_through_the_noise(schedule, x, x0, t, s):
    now, then = schedule.level(t), schedule.level(s)
    var = (1 - then) * (then - now) / (then * (1 - now))
    noise = (x - now**0.5 * x0) / (1 - now) ** 0.5
    return then**0.5 * x0 + max(0.0, 1 - then - var) ** 0.5 * noise, var


def right_regression(schedule, x, x0, t, s):
    """Condition the pair (x_s, x_t) on x_t: covariance over variance."""
    now, then = schedule.level(t), schedule.level(s)
    shared = math.sqrt(now / then) * (1 - then)
    slope = shared / (1 - now)
    mean = math.sqrt(then) * x0 + slope * (x - math.sqrt(now) * x0)
    return mean, (1 - then) - slope * shared
