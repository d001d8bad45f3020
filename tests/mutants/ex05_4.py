"""Answers to 05-4: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise


def step(eps, schedule, x, t, s, eta, z, sd=None):
    now, then = schedule.level(t), schedule.level(s)
    e = eps(x, t)
    if sd is None:
        sd = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    x0 = (x - math.sqrt(1 - now) * e) / math.sqrt(now)
    return math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * e + sd * z


def wrong_last_hop(eps, schedule, x, path, eta, noise):
    """the last hop of the path is not taken"""
    for i in range(len(path) - 2):
        x = step(eps, schedule, x, path[i], path[i + 1], eta, noise[i])
    return x


def wrong_first_hop(eps, schedule, x, path, eta, noise):
    """the first hop of the path is not taken"""
    for i in range(1, len(path) - 1):
        x = step(eps, schedule, x, path[i], path[i + 1], eta, noise[i])
    return x


def wrong_one_noise(eps, schedule, x, path, eta, noise):
    """one and the same noise"""
    for t, s in pairwise(path):
        x = step(eps, schedule, x, t, s, eta, noise[0])
    return x


def wrong_noise_backwards(eps, schedule, x, path, eta, noise):
    """the noise is used from its end"""
    for i, (t, s) in enumerate(pairwise(path)):
        x = step(eps, schedule, x, t, s, eta, noise[-1 - i])
    return x


def wrong_strict(eps, schedule, x, path, eta, noise):
    """noise may have more rows"""
    for (t, s), z in zip(pairwise(path), noise, strict=True):
        x = step(eps, schedule, x, t, s, eta, z)
    return x


def wrong_along_the_noise(eps, schedule, x, path, eta, noise):
    """noise may have more rows"""
    for i, z in enumerate(noise):
        x = step(eps, schedule, x, path[i], path[i + 1], eta, z)
    return x


def wrong_backwards_from_the_hops(eps, schedule, x, path, eta, noise):
    """the noise is used from its end"""
    for i, (t, s) in enumerate(pairwise(path)):
        x = step(eps, schedule, x, t, s, eta, noise[len(path) - 2 - i])
    return x


def wrong_to_the_neighbour(eps, schedule, x, path, eta, noise):
    """each step goes from t to t - 1"""
    for t, z in zip(path[:-1], noise, strict=False):
        x = step(eps, schedule, x, t, t - 1, eta, z)
    return x


def wrong_old_sigma(eps, schedule, x, path, eta, noise):
    """the sigma of the neighbours"""
    for t, s, z in zip(path, path[1:], noise, strict=False):
        sd = eta * math.sqrt(schedule.beta_tilde(t))
        x = step(eps, schedule, x, t, s, eta, z, sd if s else min(sd, 0.0))
    return x


def wrong_start(eps, schedule, x, path, eta, noise):
    """the walk begins at the noise"""
    x = noise[0]
    for (t, s), z in zip(pairwise(path), noise, strict=False):
        x = step(eps, schedule, x, t, s, eta, z)
    return x


def wrong_deterministic(eps, schedule, x, path, eta, noise):
    """eta has no effect"""
    for t, s in pairwise(path):
        x = step(eps, schedule, x, t, s, 0.0, 0)
    return x


def wrong_time(eps, schedule, x, path, eta, noise):
    """ask where it begins"""
    for (t, s), z in zip(pairwise(path), noise, strict=False):
        x = step(lambda x, t, s=s: eps(x, max(s, 1)), schedule, x, t, s, eta, z)
    return x


def wrong_asks_twice(eps, schedule, x, path, eta, noise):
    """more often than once a hop"""
    for (t, s), z in zip(pairwise(path), noise, strict=False):
        eps(x, t)
        x = step(eps, schedule, x, t, s, eta, z)
    return x


def wrong_no_op(eps, schedule, x, path, eta, noise):
    """comes back unchanged"""
    return x


def wrong_for_ever(eps, schedule, x, path, eta, noise):
    """a loop that does not end"""
    while path:
        pass


def wrong_library(eps, schedule, x, path, eta, noise):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import ddim, last

    return last(ddim(eps, schedule, x, path, eta)).x


def right_pairwise(eps, schedule, x, path, eta, noise):
    for (t, s), z in zip(pairwise(path), noise, strict=False):
        x = step(eps, schedule, x, t, s, eta, z)
    return x


def right_index(eps, schedule, x, path, eta, noise):
    i = 0
    while i < len(path) - 1:
        x = step(eps, schedule, x, path[i], path[i + 1], eta, noise[i])
        i += 1
    return x.clone()


def right_recursion(eps, schedule, x, path, eta, noise):
    if len(path) == 1:
        return x
    x = step(eps, schedule, x, path[0], path[1], eta, noise[0])
    return right_recursion(eps, schedule, x, path[1:], eta, noise[1:])
