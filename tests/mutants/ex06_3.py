"""Answers to 06-3: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise


def hop_up(eps, schedule, x, s, t, at=None):
    a = math.sqrt(schedule.level(t) / schedule.level(s))
    b = math.sqrt(1 - schedule.level(t)) - a * math.sqrt(1 - schedule.level(s))
    return a * x + b * eps(x, t if at is None else at)


def wrong_noisy_end_first(eps, schedule, x, path):
    """inversion begins at its last time"""
    for t, s in pairwise(path):
        x = hop_up(eps, schedule, x, s, t)
    return x


def wrong_sampling(eps, schedule, x, path):
    """inversion goes up"""
    for t, s in pairwise(path):
        x = hop_up(eps, schedule, x, t, s, at=t)
    return x


def wrong_sampling_at_target(eps, schedule, x, path):
    """the network is asked at the time where the hop begins"""
    for t, s in pairwise(path):
        x = hop_up(eps, schedule, x, t, s)
    return x


def wrong_first_hop(eps, schedule, x, path):
    """the first hop up is not taken"""
    for s, t in pairwise(path[-2::-1]):
        x = hop_up(eps, schedule, x, s, t)
    return x


def wrong_last_hop(eps, schedule, x, path):
    """the last hop up is not taken"""
    for s, t in pairwise(path[:0:-1]):
        x = hop_up(eps, schedule, x, s, t)
    return x


def wrong_source_time(eps, schedule, x, path):
    """ask it about the old point at the target time"""
    for s, t in pairwise(path[::-1]):
        x = hop_up(eps, schedule, x, s, t, at=max(1, s))
    return x


def wrong_start_again(eps, schedule, x, path):
    """each must go on from the last"""
    for s, t in pairwise(path[::-1]):
        code = hop_up(eps, schedule, x, s, t)
    return code


def wrong_one_leap(eps, schedule, x, path):
    """the times between are left out"""
    return hop_up(eps, schedule, x, path[-1], path[0])


def wrong_neighbours(eps, schedule, x, path):
    """each hop goes from t - 1 to t"""
    for t in path[-2::-1]:
        x = hop_up(eps, schedule, x, t - 1, t)
    return x


def wrong_states(eps, schedule, x, path):
    """only the last one is asked for"""
    states = [x]
    for s, t in pairwise(path[::-1]):
        states.append(hop_up(eps, schedule, states[-1], s, t))
    return states


def wrong_turns_the_path(eps, schedule, x, path):
    """it changes its argument path in place"""
    path.reverse()
    for s, t in pairwise(path):
        x = hop_up(eps, schedule, x, s, t)
    return x


def wrong_library(eps, schedule, x, path):
    """refuses while your answer runs"""
    from coursekit.diffusion.sample import invert, last

    return last(invert(eps, schedule, x, path)).x


def right_reversed(eps, schedule, x, path):
    for s, t in pairwise(reversed(path)):
        x = hop_up(eps, schedule, x, s, t)
    return x


def right_index(eps, schedule, x, path):
    for i in range(len(path) - 1, 0, -1):
        x = hop_up(eps, schedule, x, path[i], path[i - 1])
    return x.clone()


def right_recursion(eps, schedule, x, path):
    if len(path) == 1:
        return x
    return hop_up(eps, schedule, right_recursion(eps, schedule, x, path[1:]), path[1], path[0])
