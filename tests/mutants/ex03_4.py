"""Answers to 03-4: wrong_* must be told what their docstring says, right_* must pass."""

import torch
import torch.nn.functional as F


def roots(schedule, x0, t):
    level = schedule.abar[t].view(-1, *[1] * (x0.ndim - 1))
    return level.sqrt().to(x0.dtype), (1 - level).sqrt().to(x0.dtype)


def target(x0, eps, a, b, goal):
    return {"eps": eps, "x0": x0, "v": a * eps - b * x0}[goal]


def off(net, schedule, x0, t, eps, goal, given=None):
    a, b = roots(schedule, x0, t)
    x = a * x0 + b * eps if given is None else given(a, b)
    return net(x, t) - target(x0, eps, a, b, goal)


def wrong_sum(net, schedule, x0, t, eps, goal):
    """the sum of the squares"""
    return off(net, schedule, x0, t, eps, goal).square().sum()


def wrong_sum_of_a_picture(net, schedule, x0, t, eps, goal):
    """summed over a picture"""
    return off(net, schedule, x0, t, eps, goal).square().flatten(1).sum(1).mean()


def wrong_absolute(net, schedule, x0, t, eps, goal):
    """absolute differences"""
    return off(net, schedule, x0, t, eps, goal).abs().mean()


def wrong_root(net, schedule, x0, t, eps, goal):
    """a root is taken"""
    return off(net, schedule, x0, t, eps, goal).square().mean().sqrt()


def wrong_clean(net, schedule, x0, t, eps, goal):
    """it must see noisy ones"""
    return off(net, schedule, x0, t, eps, goal, lambda a, b: x0).square().mean()


def wrong_no_roots(net, schedule, x0, t, eps, goal):
    """lacks its roots"""
    given = lambda a, b: a**2 * x0 + b**2 * eps  # noqa: E731
    return off(net, schedule, x0, t, eps, goal, given).square().mean()


def wrong_places(net, schedule, x0, t, eps, goal):
    """signal and noise have changed places"""
    given = lambda a, b: b * x0 + a * eps  # noqa: E731
    return off(net, schedule, x0, t, eps, goal, given).square().mean()


def wrong_full_size(net, schedule, x0, t, eps, goal):
    """keeps its full size"""
    return off(net, schedule, x0, t, eps, goal, lambda a, b: x0 + b * eps).square().mean()


def wrong_goal(net, schedule, x0, t, eps, goal):
    """goal has no effect"""
    return off(net, schedule, x0, t, eps, "eps").square().mean()


def with_v(net, schedule, x0, t, eps, goal, v):
    a, b = roots(schedule, x0, t)
    says = v(a, b) if goal == "v" else target(x0, eps, a, b, goal)
    return F.mse_loss(net(a * x0 + b * eps, t), says)


def wrong_v_sign(net, schedule, x0, t, eps, goal):
    """v has the other sign"""
    return with_v(net, schedule, x0, t, eps, goal, lambda a, b: b * x0 - a * eps)


def wrong_v_sum(net, schedule, x0, t, eps, goal):
    """not a sum"""
    return with_v(net, schedule, x0, t, eps, goal, lambda a, b: a * eps + b * x0)


def wrong_v_factors(net, schedule, x0, t, eps, goal):
    """the two factors of v"""
    return with_v(net, schedule, x0, t, eps, goal, lambda a, b: b * eps - a * x0)


def wrong_v_roots(net, schedule, x0, t, eps, goal):
    """the factors of v are roots"""
    return with_v(net, schedule, x0, t, eps, goal, lambda a, b: a**2 * eps - b**2 * x0)


def wrong_time_from_zero(net, schedule, x0, t, eps, goal):
    """is asked at t - 1"""
    return off(lambda x, t: net(x, t - 1), schedule, x0, t, eps, goal).square().mean()


def wrong_time_in_parts(net, schedule, x0, t, eps, goal):
    """as they come"""
    return off(lambda x, t: net(x, t / 1000), schedule, x0, t, eps, goal).square().mean()


def wrong_one_time(net, schedule, x0, t, eps, goal):
    """every picture has a time of its own"""
    return off(net, schedule, x0, t[0].expand(len(t)), eps, goal).square().mean()


def wrong_detached(net, schedule, x0, t, eps, goal):
    """no gradient reaches the network"""
    with torch.no_grad():
        return off(net, schedule, x0, t, eps, goal).square().mean()


def wrong_item(net, schedule, x0, t, eps, goal):
    """no gradient reaches the network"""
    return off(net, schedule, x0, t, eps, goal).square().mean().item()


def wrong_one_a_picture(net, schedule, x0, t, eps, goal):
    """one number is wanted"""
    return off(net, schedule, x0, t, eps, goal).square().flatten(1).mean(1)


def wrong_axes(net, schedule, x0, t, eps, goal):
    """axes of length one"""
    a = schedule.abar[t].sqrt().to(x0.dtype)
    return F.mse_loss(net(a * x0 + (1 - a**2).sqrt() * eps, t), eps)


def wrong_library(net, schedule, x0, t, eps, goal):
    """refuses while your answer runs"""
    from coursekit.diffusion.train import _loss

    return _loss(net(schedule.noise(x0, eps, t), t), x0, eps, t, schedule, goal, None)


def right_plain(net, schedule, x0, t, eps, goal):
    return off(net, schedule, x0, t, eps, goal).square().mean()


def right_schedule(net, schedule, x0, t, eps, goal):
    says = net(schedule.noise(x0, eps, t), t)
    if goal == "eps":
        return F.mse_loss(says, eps)
    if goal == "x0":
        return F.mse_loss(says, x0)
    return F.mse_loss(says, schedule.noise(eps, -x0, t))


def right_means(net, schedule, x0, t, eps, goal):
    return (off(net, schedule, x0, t, eps, goal) ** 2).flatten(1).mean(1).mean()
