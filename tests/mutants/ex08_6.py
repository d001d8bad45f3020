"""Answers to 08-6: wrong_* must be told what their docstring says, right_* must pass."""

from itertools import pairwise

import torch


def mixed(eps, schedule, x, e_c, null, t, s, w):
    e = eps(x, t, null)
    e = e + w * (e_c - e)
    return schedule.noise(schedule.denoise(x, e, t), e, s)


def null_hop(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    e_c = eps(x, t, cond).detach()
    null = null.clone().requires_grad_()
    adam = torch.optim.Adam([null], lr=lr)
    for _ in range(updates):
        value = (mixed(eps, schedule, x, e_c, null, t, s, w) - goal).square().mean()
        if value < enough:
            break
        null.grad, = torch.autograd.grad(value, null)
        adam.step()
    null = null.detach()
    return null, mixed(eps, schedule, x, e_c, null, t, s, w).detach()


def walk(eps, cond, null, schedule, pivot, path, w, updates, *, on_pivot=False, anew=False,
         goal=lambda pivot, i: pivot[i + 1], rate=lambda share: 0.01 * (1 - share / 2),
         enough=lambda share: 1e-5 + 1e-3 * share):
    x, first, nulls = pivot[0], null, []
    for i, (t, s) in enumerate(pairwise(path)):
        share = i / (len(path) - 1)
        null, x = null_hop(eps, cond, first if anew else null, schedule,
                           pivot[i] if on_pivot else x, goal(pivot, i), t, s, w, rate(share),
                           updates, enough(share))
        nulls.append(null)
    return nulls, x


def wrong_on_pivot(*args):
    """each hop begins on the pivot"""
    return walk(*args, on_pivot=True)


def wrong_anew(*args):
    """each hop begins with the embedding of the empty text"""
    return walk(*args, anew=True)


def wrong_goal(*args):
    """it is the one where it ends"""
    return walk(*args, goal=lambda pivot, i: pivot[i])


def wrong_picture(*args):
    """every hop aims at the picture"""
    return walk(*args, goal=lambda pivot, i: pivot[-1])


def wrong_rate(*args):
    """the rate is the same at every hop"""
    return walk(*args, rate=lambda share: 0.01)


def wrong_rate_to_zero(*args):
    """the rate falls to zero"""
    return walk(*args, rate=lambda share: 0.01 * (1 - share))


def wrong_enough(*args):
    """the losses do not end the updates where they should"""
    return walk(*args, enough=lambda share: 1e-5)


def wrong_never_enough(*args):
    """the losses do not end the updates where they should"""
    return walk(*args, enough=lambda share: -1)


def wrong_order(*args):
    """the embeddings come clean to noisy"""
    nulls, x = walk(*args)
    return nulls[::-1], x


def wrong_with_first(eps, cond, null, *args):
    """there is one for each hop"""
    nulls, x = walk(eps, cond, null, *args)
    return [null, *nulls], x


def wrong_last(*args):
    """only the last embedding came"""
    nulls, x = walk(*args)
    return nulls[-1], x


def wrong_picture_back(eps, cond, null, schedule, pivot, path, w, updates):
    """x is the picture"""
    return walk(eps, cond, null, schedule, pivot, path, w, updates)[0], pivot[-1].clone()


def wrong_unhelped(eps, cond, null, schedule, pivot, path, w, updates):
    """x was drawn with the first embedding"""
    nulls, _ = walk(eps, cond, null, schedule, pivot, path, w, updates)
    x = walk(eps, cond, null, schedule, pivot, path, w, 0)[1]
    return nulls, x


def wrong_list(*args):
    """two things are returned, in a tuple"""
    return walk(*args)[0]


def wrong_library(eps, cond, null, schedule, pivot, path, w, updates):
    """own refuses while your answer runs"""
    from coursekit.diffusion.guided import null_text
    from coursekit.diffusion.sample import State

    run = list(null_text(lambda text: lambda x, t: eps(x, t, text),
                         lambda x, t: eps(x, t, cond), schedule,
                         [State(t, x) for t, x in zip(path, pivot)], null, w, updates))
    return [state.null for state in run[1:]], run[-1].x


def right_plain(*args):
    return walk(*args)


def right_by_hand(eps, cond, null, schedule, pivot, path, w, updates):
    S, x, nulls = len(path) - 1, pivot[0], []
    for i in range(S):
        lr, enough = 0.01 - 0.005 * i / S, 1e-5 + i / S / 1000
        t, s = path[i], path[i + 1]
        with torch.no_grad():
            e_c = eps(x, t, cond)
        null = torch.nn.Parameter(null.detach().clone())
        adam, left = torch.optim.Adam([null], lr), updates
        there = mixed(eps, schedule, x, e_c, null, t, s, w)
        while left and (loss := (there - pivot[i + 1]).pow(2).mean()) >= enough:
            adam.zero_grad()
            loss.backward()
            adam.step()
            there, left = mixed(eps, schedule, x, e_c, null, t, s, w), left - 1
        nulls.append(null.data.clone())
        x = there.detach()
    return nulls, x
