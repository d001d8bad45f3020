"""Answers to 06-5: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise


def line(schedule, t, u):
    a = math.sqrt(schedule.level(u) / schedule.level(t))
    return a, math.sqrt(1 - schedule.level(u)) - a * math.sqrt(1 - schedule.level(t))


def wrong_moving_base(eps, schedule, x, path, rounds, length):
    """in the equation of a hop it stands still"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        for _ in range(rounds):
            x = x + length * (A * x + B * eps(x, t) - x)
    return x


def wrong_old_point(eps, schedule, x, path, rounds, length):
    """ask about the newest guess"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = guess + length * (A * x + B * eps(x, t) - guess)
        x = guess
    return x


def wrong_side(eps, schedule, x, path, rounds, length):
    """length is on the wrong side"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = length * guess + (1 - length) * (A * x + B * eps(guess, t))
        x = guess
    return x


def wrong_full_steps(eps, schedule, x, path, rounds, length):
    """length has no effect"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = A * x + B * eps(guess, t)
        x = guess
    return x


def wrong_step_from_x(eps, schedule, x, path, rounds, length):
    """the step starts at x_s in every round"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = (1 - length) * x + length * (A * x + B * eps(guess, t))
        x = guess
    return x


def wrong_added(eps, schedule, x, path, rounds, length):
    """length times G is added to the whole guess"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = guess + length * (A * x + B * eps(guess, t))
        x = guess
    return x


def counted(eps, schedule, x, path, rounds, length):
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = guess + length * (A * x + B * eps(guess, t) - guess)
        x = guess
    return x


def wrong_one_round(eps, schedule, x, path, rounds, length):
    """the rounds have no effect"""
    return counted(eps, schedule, x, path, 1, length)


def wrong_too_few(eps, schedule, x, path, rounds, length):
    """one round too few"""
    return counted(eps, schedule, x, path, rounds - 1, length)


def wrong_too_many(eps, schedule, x, path, rounds, length):
    """one round too many"""
    return counted(eps, schedule, x, path, rounds + 1, length)


def wrong_first_guess(eps, schedule, x, path, rounds, length):
    """it must be x_s as it is"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = A * x
        for _ in range(rounds):
            guess = guess + length * (A * x + B * eps(guess, t) - guess)
        x = guess
    return x


def wrong_source_time(eps, schedule, x, path, rounds, length):
    """ask it about the old point at the target time"""
    for s, t in pairwise(reversed(path)):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = guess + length * (A * x + B * eps(guess, max(s, 1)) - guess)
        x = guess
    return x


def wrong_noisy_end_first(eps, schedule, x, path, rounds, length):
    """inversion begins at its last time"""
    for t, s in pairwise(path):
        A, B = line(schedule, s, t)
        guess = x
        for _ in range(rounds):
            guess = guess + length * (A * x + B * eps(guess, t) - guess)
        x = guess
    return x


def wrong_twice(eps, schedule, x, path, rounds, length):
    """more often than once a round"""
    return counted(lambda x, t: (eps(x, t) + eps(x, t)) / 2, schedule, x, path, rounds, length)


def wrong_library(eps, schedule, x, path, rounds, length):
    """refuses while your answer runs"""
    from coursekit.diffusion.inversion import fixed_point
    from coursekit.diffusion.sample import last

    return last(fixed_point(eps, schedule, x, path, rounds, adaptive=False)).x


def right_residual(eps, schedule, x, path, rounds, length):
    return counted(eps, schedule, x, path, rounds, length)


def right_mixed(eps, schedule, x, path, rounds, length):
    up = path[::-1]
    for i in range(1, len(up)):
        A, B = line(schedule, up[i - 1], up[i])
        base, k = A * x, 0
        while k < rounds:
            x = (1 - length) * x + length * (base + B * eps(x, up[i]))
            k += 1
    return x


def right_undone(eps, schedule, x, path, rounds, length):
    for s, t in pairwise(reversed(path)):
        a, b = line(schedule, t, s)
        guess = x.clone()
        for _ in range(rounds):
            guess = guess - length * (guess - (x - b * eps(guess, t)) / a)
        x = guess
    return x
