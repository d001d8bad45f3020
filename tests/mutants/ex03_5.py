"""Answers to 03-5: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def loss_of(net, schedule, x0, t, eps, goal):
    a, b = schedule.scales(t, x0)
    says = {"eps": eps, "x0": x0, "v": a * eps - b * x0}[goal]
    return (net(a * x0 + b * eps, t) - says).square().mean()


def wrong_adds_up(net, optimiser, schedule, x0, t, eps, goal):
    """clear them before each backward pass"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    loss.backward()
    optimiser.step()
    return loss.item()


def wrong_no_step(net, optimiser, schedule, x0, t, eps, goal):
    """the weights have not moved"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    loss.backward()
    return float(loss.detach())


def wrong_no_backward(net, optimiser, schedule, x0, t, eps, goal):
    """the weights have not moved"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    optimiser.step()
    return loss.item()


def wrong_cleared_too_late(net, optimiser, schedule, x0, t, eps, goal):
    """the weights have not moved"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    loss.backward()
    optimiser.zero_grad()
    optimiser.step()
    return loss.item()


def wrong_step_first(net, optimiser, schedule, x0, t, eps, goal):
    """the slope of the update before"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.step()
    optimiser.zero_grad()
    loss.backward()
    return loss.item()


def wrong_uphill(net, optimiser, schedule, x0, t, eps, goal):
    """uphill"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    (-loss).backward()
    optimiser.step()
    return loss.item()


def wrong_tensor(net, optimiser, schedule, x0, t, eps, goal):
    """as a Python float"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss


def wrong_after(net, optimiser, schedule, x0, t, eps, goal):
    """the one from before it"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss_of(net, schedule, x0, t, eps, goal).item()


def wrong_no_return(net, optimiser, schedule, x0, t, eps, goal):
    """nothing is returned"""
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def wrong_library(net, optimiser, schedule, x0, t, eps, goal):
    """refuses while your answer runs"""
    from coursekit.diffusion.train import train

    return next(train(net, lambda k: x0, schedule, steps=1, prediction=goal)).loss


def right_usual(net, optimiser, schedule, x0, t, eps, goal):
    loss = loss_of(net, schedule, x0, t, eps, goal)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def right_cleared_after(net, optimiser, schedule, x0, t, eps, goal):
    loss = loss_of(net, schedule, x0, t, eps, goal)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    return float(loss)


def right_group_by_group(net, optimiser, schedule, x0, t, eps, goal):
    loss = loss_of(net, schedule, x0, t, eps, goal)
    for group in optimiser.param_groups:
        for p in group["params"]:
            p.grad = None
    loss.backward()
    optimiser.step()
    return loss.item()


def right_by_hand(net, optimiser, schedule, x0, t, eps, goal):
    weights = list(net.parameters())
    loss = loss_of(net, schedule, x0, t, eps, goal)
    for p, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        p.grad = slope
    optimiser.step()
    return loss.detach().item()
