"""Answers to 08-5: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def mixed(eps, schedule, x, e_c, null, t, s, w):
    e = eps(x, t, null)
    e = e + w * (e_c - e)
    return schedule.noise(schedule.denoise(x, e, t), e, s)


def descend(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough,
            loss=lambda miss: miss.square().mean(), mix=mixed, make=torch.optim.Adam, **how):
    e_c = eps(x, t, cond).detach()
    null = null.clone().requires_grad_()
    adam = make([null], lr=lr, **how)
    for _ in range(updates):
        value = loss(mix(eps, schedule, x, e_c, null, t, s, w) - goal)
        if value < enough:
            break
        null.grad, = torch.autograd.grad(value, null)
        adam.step()
    null = null.detach()
    return null, mix(eps, schedule, x, e_c, null, t, s, w).detach()


def wrong_uphill(*args):
    """the embedding goes uphill"""
    return descend(*args, maximize=True)


def wrong_still(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """the embedding does not move"""
    return descend(eps, cond, null, schedule, x, goal, t, s, w, lr, 0, enough)


def wrong_sgd(*args):
    """this is plain gradient descent"""
    return descend(*args, make=torch.optim.SGD)


def wrong_forgetful(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """Adam is begun anew at each update"""
    e_c = eps(x, t, cond)
    null = null.clone().requires_grad_()
    for _ in range(updates):
        value = (mixed(eps, schedule, x, e_c, null, t, s, w) - goal).square().mean()
        if value < enough:
            break
        adam = torch.optim.Adam([null], lr=lr)
        null.grad, = torch.autograd.grad(value, null)
        adam.step()
    null = null.detach()
    return null, mixed(eps, schedule, x, e_c, null, t, s, w)


def wrong_one_too_few(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """one update too few"""
    return descend(eps, cond, null, schedule, x, goal, t, s, w, lr, updates - 1, enough)


def wrong_one_too_many(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """one update too many"""
    return descend(eps, cond, null, schedule, x, goal, t, s, w, lr, updates + 1, enough)


def wrong_never_enough(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """the loss does not end the updates where it should"""
    return descend(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, -1)


def wrong_sum(*args):
    """the loss does not end the updates where it should"""
    return descend(*args, loss=lambda miss: miss.square().sum())


def wrong_root(*args):
    """the loss is a root"""
    return descend(*args, loss=lambda miss: miss.square().mean().sqrt())


def wrong_unguided(*args):
    """the hop is not guided"""
    def mix(eps, schedule, x, e_c, null, t, s, w):
        e = eps(x, t, null)
        return schedule.noise(schedule.denoise(x, e, t), e, s)
    return descend(*args, mix=mix)


def wrong_ends(*args):
    """the two ends of guidance have changed places"""
    def mix(eps, schedule, x, e_c, null, t, s, w):
        e = e_c + w * (eps(x, t, null) - e_c)
        return schedule.noise(schedule.denoise(x, e, t), e, s)
    return descend(*args, mix=mix)


def wrong_stale(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """where the embedding led before the last update"""
    e_c = eps(x, t, cond)
    null = null.clone().requires_grad_()
    adam = torch.optim.Adam([null], lr=lr)
    there = mixed(eps, schedule, x, e_c, null, t, s, w)
    for _ in range(updates):
        there = mixed(eps, schedule, x, e_c, null, t, s, w)
        value = (there - goal).square().mean()
        if value < enough:
            break
        null.grad, = torch.autograd.grad(value, null)
        adam.step()
    return null.detach(), there.detach()


def wrong_goal(eps, cond, null, schedule, x, goal, *more):
    """x is the goal"""
    return descend(eps, cond, null, schedule, x, goal, *more)[0], goal.clone()


def wrong_in_place(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """in place"""
    e_c = eps(x, t, cond)
    null.requires_grad_()
    adam = torch.optim.Adam([null], lr=lr)
    for _ in range(updates):
        value = (mixed(eps, schedule, x, e_c, null, t, s, w) - goal).square().mean()
        if value < enough:
            break
        adam.zero_grad()
        value.backward()
        adam.step()
    return null.detach(), mixed(eps, schedule, x, e_c, null, t, s, w).detach()


def wrong_no_grad(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """no gradient reaches the embedding"""
    with torch.no_grad():
        e_c = eps(x, t, cond)
        e = eps(x, t, null)
        there = schedule.noise(schedule.denoise(x, e + w * (e_c - e), t), e + w * (e_c - e), s)
    (there - goal).square().mean().backward()
    return null, there


def wrong_kept_graph(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """a result still carries the graph"""
    e_c = eps(x, t, cond)
    null = null.clone().requires_grad_()
    adam = torch.optim.Adam([null], lr=lr)
    for _ in range(updates):
        value = (mixed(eps, schedule, x, e_c, null, t, s, w) - goal).square().mean()
        if value < enough:
            break
        adam.zero_grad()
        value.backward()
        adam.step()
    return null, mixed(eps, schedule, x, e_c, null, t, s, w)


def wrong_asks_again(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """the prompt is asked about in every update"""
    def mix(eps, schedule, x, e_c, null, t, s, w):
        return mixed(eps, schedule, x, eps(x, t, cond), null, t, s, w)
    return descend(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough, mix=mix)


def wrong_null_alone(*args):
    """two things are returned, in a tuple"""
    return descend(*args)[0]


def wrong_library(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """own refuses while your answer runs"""
    from coursekit.diffusion.guided import null_text
    from coursekit.diffusion.sample import State

    run = list(null_text(lambda text: lambda x, t: eps(x, t, text),
                         lambda x, t: eps(x, t, cond), schedule, [State(t, x), State(s, goal)],
                         null, w, updates))
    return run[1].null, run[1].x


def right_plain(*args):
    return descend(*args)


def right_backward(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    with torch.no_grad():
        e_c = eps(x, t, cond)
    found = torch.nn.Parameter(null.clone())
    adam = torch.optim.Adam([found], lr=lr)
    for _ in range(updates):
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(mixed(eps, schedule, x, e_c, found, t, s, w), goal)
        if loss.item() < enough:
            break
        loss.backward()
        adam.step()
    with torch.no_grad():
        return found.detach().clone(), mixed(eps, schedule, x, e_c, found, t, s, w)


def right_nothing_to_learn(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    """At weight one the null text is not even asked about."""
    if w == 1:
        e = eps(x, t, cond)
        return null.clone(), schedule.noise(schedule.denoise(x, e, t), e, s)
    return descend(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough)


def right_while(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough):
    e_c, null = eps(x, t, cond).detach(), null.clone().requires_grad_()
    adam, left = torch.optim.Adam([null], lr), updates
    there = mixed(eps, schedule, x, e_c, null, t, s, w)
    while left and (loss := (there - goal).pow(2).mean()) >= enough:
        adam.zero_grad()
        loss.backward()
        adam.step()
        there, left = mixed(eps, schedule, x, e_c, null, t, s, w), left - 1
    return null.detach(), there.detach()
