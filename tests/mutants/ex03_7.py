"""Answers to 03-7: wrong_* must be told what their docstring says, right_* must pass."""

import math
from itertools import pairwise

import torch


def step(eps, schedule, x, t, s, z, clip, beta=None):
    now, then = schedule.level(t), schedule.level(s)
    beta = 1 - now / then if beta is None else beta
    x0 = (x - math.sqrt(1 - now) * eps(x, t)) / math.sqrt(now)
    x0 = x0 if clip is None else x0.clamp(-clip, clip)
    mean = (math.sqrt(then) * beta * x0 + math.sqrt(1 - beta) * (1 - then) * x) / (1 - now)
    return mean + math.sqrt(beta * (1 - then) / (1 - now)) * z


def walk(eps, schedule, x, path, draw, clip):
    states = [x]
    for t, s in pairwise(path):
        states.append(step(eps, schedule, states[-1], t, s, draw(x), clip))
    return states


def wrong_end_alone(eps, schedule, x, path, draw, clip):
    """all states are wanted"""
    return walk(eps, schedule, x, path, draw, clip)[-1]


def wrong_one_tensor(eps, schedule, x, path, draw, clip):
    """one tensor a time of the path"""
    return torch.stack(walk(eps, schedule, x, path, draw, clip))


def wrong_without_x(eps, schedule, x, path, draw, clip):
    """x is missing"""
    return walk(eps, schedule, x, path, draw, clip)[1:]


def wrong_one_place(eps, schedule, x, path, draw, clip):
    """the same tensor"""
    x, states = x.clone(), []
    states.append(x)
    for t, s in pairwise(path):
        x.copy_(step(eps, schedule, x, t, s, draw(x), clip))
        states.append(x)
    return states


def wrong_last_hop(eps, schedule, x, path, draw, clip):
    """the last hop of the path is not taken"""
    return walk(eps, schedule, x, path[:-1], draw, clip)


def wrong_first_hop(eps, schedule, x, path, draw, clip):
    """the first hop of the path is not taken"""
    return walk(eps, schedule, x, path[1:], draw, clip)


def wrong_one_noise(eps, schedule, x, path, draw, clip):
    """one and the same noise"""
    z = draw(x)
    return walk(eps, schedule, x, path, lambda x: z, clip)


def wrong_no_noise(eps, schedule, x, path, draw, clip):
    """fresh noise never enters"""
    return walk(eps, schedule, x, path, torch.zeros_like, clip)


def wrong_to_the_neighbour(eps, schedule, x, path, draw, clip):
    """each step goes from t to t - 1"""
    states = [x]
    for t in path[:-1]:
        states.append(step(eps, schedule, states[-1], t, t - 1, draw(x), clip))
    return states


def wrong_beta(eps, schedule, x, path, draw, clip):
    """beta of the neighbours"""
    states = [x]
    for t, s in pairwise(path):
        states.append(step(eps, schedule, states[-1], t, s, draw(x), clip, schedule.beta(t)))
    return states


def wrong_begins_again(eps, schedule, x, path, draw, clip):
    """begins at the first x again"""
    return [x, *(step(eps, schedule, x, t, s, draw(x), clip) for t, s in pairwise(path))]


def wrong_not_clipped(eps, schedule, x, path, draw, clip):
    """clip has no effect"""
    return walk(eps, schedule, x, path, draw, None)


def wrong_time(eps, schedule, x, path, draw, clip):
    """ask where it begins"""
    states = [x]
    for t, s in pairwise(path):
        asks = lambda x, t, s=s: eps(x, s)  # noqa: E731
        states.append(step(asks, schedule, states[-1], t, s, draw(x), clip))
    return states


def wrong_asks_twice(eps, schedule, x, path, draw, clip):
    """more often than once a hop"""
    states = [x]
    for t, s in pairwise(path):
        eps(states[-1], t)
        states.append(step(eps, schedule, states[-1], t, s, draw(x), clip))
    return states


def wrong_in_place(eps, schedule, x, path, draw, clip):
    """it changes its argument x in place"""
    states = [x.clone()]
    for t, s in pairwise(path):
        x.copy_(step(eps, schedule, x, t, s, draw(x), clip))
        states.append(x.clone())
    return states


def wrong_for_ever(eps, schedule, x, path, draw, clip):
    """a loop that does not end"""
    while path:
        pass


def wrong_library(eps, schedule, x, path, draw, clip):
    """refuses while your answer runs"""
    from coursekit.diffusion.sample import ddpm

    return [state.x for state in ddpm(eps, schedule, x, path, clip=clip)]


def right_list(eps, schedule, x, path, draw, clip):
    return walk(eps, schedule, x, path, draw, clip)


def right_generator(eps, schedule, x, path, draw, clip):
    yield x
    for t, s in pairwise(path):
        x = step(eps, schedule, x, t, s, draw(x), clip)
        yield x


def right_index(eps, schedule, x, path, draw, clip):
    states = [x.clone()]
    for i in range(1, len(path)):
        z = draw(x) if path[i] > 0 else 0.0
        states.append(step(eps, schedule, states[i - 1], path[i - 1], path[i], z, clip))
    return states
