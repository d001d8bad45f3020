"""Answers to 11-5: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def goal(schedule, prediction, x0, eps, t):
    a, b = schedule.scales(t, x0)
    return a * eps - b * x0 if prediction == "v" else eps


def squares(out, wanted):
    return (out - wanted).square().mean()


def loop(net, schedule, prediction, x0, times, noises, lr, *, goal=goal, measure=squares,
         noisy=lambda schedule, x0, eps, t: schedule.noise(x0, eps, t), told=lambda t: t,
         learns=(".A", ".B"), optimiser=torch.optim.Adam, clear=True, step=True, freeze=True,
         anew=False, rows=lambda pairs: pairs, number=float, after=False):
    chosen = []
    for name, p in net.named_parameters():
        if name.endswith(learns):
            chosen.append(p)
        elif freeze:
            p.requires_grad = False
    adam, losses = optimiser(chosen, lr), []
    for t, eps in rows(list(zip(times, noises, strict=True))):
        adam = optimiser(chosen, lr) if anew else adam
        x = x0.expand(len(t), -1, -1)

        def now(t=t, eps=eps, x=x):
            return measure(net(noisy(schedule, x, eps, t), told(t)),
                           goal(schedule, prediction, x, eps, t))

        if clear:
            adam.zero_grad()
        loss = now()
        loss.backward()
        if step:
            adam.step()
        losses.append(number((now() if after else loss).detach()))
    return losses


def altered(**how):
    return lambda *args: loop(*args, **how)


def right_plain(net, schedule, prediction, x0, times, noises, lr):
    return loop(net, schedule, prediction, x0, times, noises, lr)


def right_autograd(net, schedule, prediction, x0, times, noises, lr):
    """Gradients of A and B alone; nothing else is asked for any, so nothing need be frozen."""
    own = [p for name, p in net.named_parameters() if name[-2:] in (".A", ".B")]
    adam, losses = torch.optim.Adam(own, lr=lr), []
    for t, eps in zip(times, noises, strict=True):
        abar = schedule.abar[t].to(x0).view(-1, 1, 1)
        x = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
        wanted = abar.sqrt() * eps - (1 - abar).sqrt() * x0 if prediction == "v" else eps
        loss = torch.nn.functional.mse_loss(net(x, t), wanted)
        for p, slope in zip(own, torch.autograd.grad(loss, own), strict=True):
            p.grad = slope
        adam.step()
        losses.append(loss.item())
    return losses


def right_adam_by_hand(net, schedule, prediction, x0, times, noises, lr):
    net.requires_grad_(False)
    own = [p for name, p in net.named_parameters() if name.endswith((".A", ".B"))]
    m, v, losses = [0 * p for p in own], [0 * p for p in own], []
    for p in own:
        p.requires_grad_(True)
    for k, (t, eps) in enumerate(zip(times, noises, strict=True), 1):
        x = torch.cat([x0] * len(t))
        loss = squares(net(schedule.noise(x, eps, t), t), goal(schedule, prediction, x, eps, t))
        slopes = torch.autograd.grad(loss, own)
        for i, (p, slope) in enumerate(zip(own, slopes, strict=True)):
            m[i], v[i] = 0.9 * m[i] + 0.1 * slope, 0.999 * v[i] + 0.001 * slope**2
            mean, size = m[i] / (1 - 0.9**k), (v[i] / (1 - 0.999**k)).sqrt()
            p.data = p.data - lr * mean / (size + 1e-8)
        losses += [float(loss.detach())]
    return losses


def v(by):
    def wanted(schedule, prediction, x0, eps, t):
        a, b = schedule.scales(t, x0)
        return by(a, b, x0, eps) if prediction == "v" else eps
    return wanted


def wrong_tensors(*args):
    """the losses are tensors"""
    return altered(number=lambda loss: loss)(*args)


def wrong_nothing_returned(*args):
    """is there a return"""
    loop(*args)


def wrong_last_loss(*args):
    """a list of numbers is asked for"""
    return loop(*args)[-1]


def wrong_all_learn(*args):
    """other weights have changed"""
    return altered(learns=("",), freeze=False)(*args)


def wrong_not_frozen(*args):
    """other weights are left with gradients"""
    return altered(freeze=False)(*args)


def wrong_sign(*args):
    """the sign of v"""
    return altered(goal=v(lambda a, b, x0, eps: b * x0 - a * eps))(*args)


def wrong_levels(*args):
    """the two levels have changed places"""
    return altered(goal=v(lambda a, b, x0, eps: b * eps - a * x0))(*args)


def wrong_added(*args):
    """here they are added"""
    return altered(goal=v(lambda a, b, x0, eps: a * eps + b * x0))(*args)


def wrong_noise_for_v(*args):
    """says v, and is asked for the noise"""
    return altered(goal=v(lambda a, b, x0, eps: eps))(*args)


def wrong_picture_for_v(*args):
    """asked for the picture"""
    return altered(goal=v(lambda a, b, x0, eps: x0))(*args)


def wrong_picture(*args):
    """asked for the picture"""
    return altered(goal=lambda schedule, prediction, x0, eps, t: x0)(*args)


def wrong_v_for_eps(*args):
    """says eps, and is asked for v"""
    return altered(goal=lambda schedule, prediction, *rest: goal(schedule, "v", *rest))(*args)


def wrong_clean(*args):
    """shown the clean picture"""
    return altered(noisy=lambda schedule, x0, eps, t: x0)(*args)


def wrong_not_smaller(*args):
    """the picture is not made smaller"""
    return altered(noisy=lambda schedule, x0, eps, t: x0 + schedule.scales(t, x0)[1] * eps)(*args)


def wrong_one_level(*args):
    """its own level of noise"""
    return altered(noisy=lambda schedule, x0, eps, t: schedule.noise(x0, eps, int(t[0])))(*args)


def wrong_one_time(*args):
    """told the first one's"""
    return altered(told=lambda t: torch.full_like(t, int(t[0])))(*args)


def wrong_times_from_zero(*args):
    """times as they come"""
    return altered(told=lambda t: t - 1)(*args)


def wrong_sum(*args):
    """the squares are summed"""
    return altered(measure=lambda a, b: (a - b).pow(2).sum())(*args)


def wrong_half(*args):
    """half of the mean"""
    return altered(measure=lambda a, b: 0.5 * squares(a, b))(*args)


def wrong_absolute(*args):
    """the differences are not squared"""
    return altered(measure=lambda a, b: (a - b).abs().mean())(*args)


def wrong_not_cleared(*args):
    """clear them"""
    return altered(clear=False)(*args)


def wrong_no_step(*args):
    """nothing is learnt"""
    return altered(step=False)(*args)


def wrong_new_adam(*args):
    """it must remember"""
    return altered(anew=True)(*args)


def wrong_descent(*args):
    """this is plain descent"""
    return altered(optimiser=torch.optim.SGD)(*args)


def wrong_decay(*args):
    """without weight decay"""
    return altered(optimiser=torch.optim.AdamW)(*args)


def wrong_b_alone(*args):
    """only B learns"""
    return altered(learns=(".B",))(*args)


def wrong_a_alone(*args):
    """only A learns"""
    return altered(learns=(".A",))(*args)


def wrong_after(*args):
    """that after the update"""
    return altered(after=True)(*args)


def wrong_one_less(*args):
    """the last update is missing"""
    return altered(rows=lambda pairs: pairs[:-1])(*args)


def wrong_one_update(*args):
    """only one update"""
    return altered(rows=lambda pairs: pairs[:1])(*args)


def wrong_reversed(*args):
    """in the wrong order"""
    return altered(rows=lambda pairs: pairs[::-1])(*args)


def wrong_no_grad(*args):
    """under no_grad nothing learns"""
    with torch.no_grad():
        return loop(*args)


def wrong_detached(*args):
    """nothing learns"""
    return altered(measure=lambda a, b: squares(a, b).detach())(*args)


def wrong_item(*args):
    """no detach, no item()"""
    return altered(measure=lambda a, b: squares(a, b).item())(*args)


def wrong_library(net, schedule, prediction, x0, times, noises, lr):
    """own refuses while your answer runs"""
    from coursekit.diffusion.predict import target

    return loop(net, schedule, prediction, x0, times, noises, lr,
                goal=lambda schedule, prediction, x0, eps, t: target(schedule, prediction, x0,
                                                                     eps, t))
