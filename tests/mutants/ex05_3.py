"""Answers to 05-3: wrong_* must be told what their docstring says, right_* must pass."""

import math


def parts(eps, schedule, x, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    e = eps(x, t)
    sd = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    return e, (x - math.sqrt(1 - now) * e) / math.sqrt(now), then, sd


def wrong_no_noise(eps, schedule, x, t, s, eta, z):
    """no fresh noise is added"""
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e


def wrong_noise_on_top(eps, schedule, x, t, s, eta, z):
    """on top of all the old"""
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then) * e + sd * z


def wrong_variance(eps, schedule, x, t, s, eta, z):
    """its factor is the deviation"""
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e + sd**2 * z


def wrong_always_ddim(eps, schedule, x, t, s, eta, z):
    """eta has no effect on the step"""
    e, x0, then, sd = parts(eps, schedule, x, t, s, 0)
    return math.sqrt(then) * x0 + math.sqrt(1 - then) * e


def wrong_neighbours(eps, schedule, x, t, s, eta, z):
    """the sigma of the neighbours"""
    sd = parts(lambda x, t: x, schedule, x, t, t - 1, eta)[3]
    e, x0, then, _ = parts(eps, schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e + sd * z


def wrong_time(eps, schedule, x, t, s, eta, z):
    """the network is asked at s"""
    e, x0, then, sd = parts(lambda x, _: eps(x, s), schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e + sd * z


def wrong_not_divided(eps, schedule, x, t, s, eta, z):
    """not divided by the root of abar_t"""
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    x0 = x - math.sqrt(1 - schedule.level(t)) * e
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e + sd * z


def wrong_not_scaled(eps, schedule, x, t, s, eta, z):
    """not scaled to level s"""
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    return x0 + math.sqrt(1 - then - sd**2) * e + sd * z


def wrong_asks_twice(eps, schedule, x, t, s, eta, z):
    """more often than once"""
    _, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * eps(x, t) + sd * z


def wrong_clean(eps, schedule, x, t, s, eta, z):
    """this is the predicted clean picture"""
    return parts(eps, schedule, x, t, s, eta)[1]


def wrong_no_op(eps, schedule, x, t, s, eta, z):
    """comes back unchanged"""
    return x


def wrong_library(eps, schedule, x, t, s, eta, z):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import ddim, last

    return last(ddim(eps, schedule, x, [t, s], eta)).x


def right_plain(eps, schedule, x, t, s, eta, z):
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    return math.sqrt(then) * x0 + math.sqrt(1 - then - sd**2) * e + sd * z


def right_primitives(eps, schedule, x, t, s, eta, z):
    e, x0, then, sd = parts(eps, schedule, x, t, s, eta)
    quiet = schedule.noise(schedule.denoise(x, e, t), e, s)
    return quiet + (math.sqrt(1 - then - sd**2) - math.sqrt(1 - then)) * e + sd * z


def right_tensors(eps, schedule, x, t, s, eta, z):
    now, then = schedule.abar[t], schedule.abar[s]
    var = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
    e = eps(x, t)
    x0 = x / now.sqrt() - e * (1 / now - 1).sqrt()
    return x0 * then.sqrt() + e * (1 - then - var).sqrt() + z * var.sqrt()
