"""Answers to 10-6: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def drift(maps, aims):
    return sum((m - aim).pow(2).sum() / m.shape[1] for m, aim in zip(maps, aims, strict=True))


def each(part):
    return lambda maps, aims: sum(part(m - aim) for m, aim in zip(maps, aims, strict=True))


def slope_of(maps, z, t, text, aims, drift=drift):
    z = z.clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(drift(maps(z, t, text), aims), z)[0]


def hop(schedule, z, e, t, s):
    return schedule.noise(schedule.denoise(z, e, t), e, s)


def walk(eps, maps, schedule, pivot, path, text, by, w, lam, *, drift=drift, sign=1, begin=0,
         source=lambda i, pivot, z: pivot[i], when=lambda t, s: t, told=None, seen=None, aim=None,
         away=None, asks=lambda old, new: new, goes=lambda old, new: new, after=False, steps=1,
         length=lambda slope: slope):
    edit = text + by if told is None else told(text, by)
    look = text + by if seen is None else seen(text, by)
    goal = text if aim is None else aim(text, by)
    none = text if away is None else away(text, by)
    z = pivot[begin]

    def step(z, i, t):
        aims = [m.detach() for m in maps(source(i, pivot, z), t, goal)]
        for _ in range(steps):
            z = z - sign * lam * length(slope_of(maps, z, t, look, aims, drift))
        return z

    for i in range(len(path) - 1):
        t, s = path[i], path[i + 1]
        new = z if after else step(z, i, when(t, s))
        x = asks(z, new)
        e = eps(x, t, none)
        e = e + w * (eps(x, t, edit) - e)
        z = hop(schedule, goes(z, new), e, t, s)
        if after and s > 0:
            z = step(z, i + 1, s)
    return z.detach()


def altered(**how):
    return lambda *args: walk(*args, **how)


def right_plain(eps, maps, schedule, pivot, path, text, by, w, lam):
    return walk(eps, maps, schedule, pivot, path, text, by, w, lam)


def right_backward(eps, maps, schedule, pivot, path, text, by, w, lam):
    """The gradient by backward(), guidance as a mean with weights, a hop by its levels."""
    z = pivot[0].clone()
    for x, t, s in zip(pivot, path, path[1:], strict=False):
        aims = maps(x, t, text)
        z.requires_grad_(True)
        loss = 0
        for m, aim in zip(maps(z, t, text + by), aims, strict=True):
            loss = loss + ((m - aim) ** 2).mean(1).sum()
        loss.backward()
        with torch.no_grad():
            z = z - lam * z.grad
            e = w * eps(z, t, text + by) + (1 - w) * eps(z, t, text)
            a, d = schedule.scales(t, z)
            a_s, d_s = schedule.scales(s, z)
            z = a_s * (z - d * e) / a + d_s * e
    return z


def right_one_by_one(eps, maps, schedule, pivot, path, text, by, w, lam):
    """Each picture alone, head by head."""
    done = []
    for row in range(len(pivot[0])):
        z = pivot[0][row:row + 1]
        for i, (t, s) in enumerate(zip(path, path[1:], strict=False)):
            aims = maps(pivot[i][row:row + 1], t, text)
            x = z.detach().requires_grad_()
            found = maps(x, t, text + by)
            loss = torch.stack([sum((m[:, h] - a[:, h]).square().sum() for h in range(m.shape[1]))
                                / m.shape[1] for m, a in zip(found, aims, strict=True)]).sum()
            slope, = torch.autograd.grad(loss, [x])
            z = x.detach() - lam * slope
            both = eps(z.repeat(2, 1, 1, 1), t, torch.cat([text, text + by]))
            none, told = both[:1], both[1:]
            z = hop(schedule, z, none + w * (told - none), t, s)
        done.append(z)
    return torch.cat(done)


def wrong_uphill(*args):
    """the step goes uphill"""
    return altered(sign=-1)(*args)


def wrong_no_step(*args):
    """the latents do not move towards the maps"""
    return altered(steps=0)(*args)


def wrong_mean(*args):
    """the squares are averaged"""
    return altered(drift=each(lambda d: d.square().mean()))(*args)


def wrong_heads_added(*args):
    """the squares of all heads are added up"""
    return altered(drift=each(lambda d: d.square().sum()))(*args)


def wrong_layers_averaged(*args):
    """half of the sum is used"""
    return altered(drift=lambda maps, aims: drift(maps, aims) / len(maps))(*args)


def wrong_pictures_averaged(*args):
    """the pictures are averaged"""
    return altered(drift=each(lambda d: d.square().sum((2, 3)).mean()))(*args)


def wrong_last_layer(*args):
    """only the last layer counts"""
    return altered(drift=lambda maps, aims: drift(maps[-1:], aims[-1:]))(*args)


def wrong_first_layer(*args):
    """only the first layer counts"""
    return altered(drift=lambda maps, aims: drift(maps[:1], aims[:1]))(*args)


def wrong_mean_head(*args):
    """heads are averaged before they are compared"""
    return altered(drift=each(lambda d: d.mean(1).square().sum()))(*args)


def wrong_half(*args):
    """half of the sum is used"""
    return altered(drift=lambda maps, aims: 0.5 * drift(maps, aims))(*args)


def wrong_differences(*args):
    """the differences are not squared"""
    return altered(drift=each(lambda d: d.abs().sum() / d.shape[1]))(*args)


def wrong_unit_length(*args):
    """made to length one"""
    return altered(length=lambda slope: slope / slope.norm())(*args)


def wrong_sign_alone(*args):
    """only the sign of the gradient"""
    return altered(length=torch.sign)(*args)


def wrong_aim_of_edit(*args):
    """the aim is what the edit looks at"""
    return altered(source=lambda i, pivot, z: z)(*args)


def wrong_aim_later(*args):
    """off the state where the hop ends"""
    return altered(source=lambda i, pivot, z: pivot[i + 1])(*args)


def wrong_aim_first(*args):
    """always that of the first hop"""
    return altered(source=lambda i, pivot, z: pivot[0])(*args)


def wrong_aim_picture(*args):
    """the aim is read off the picture"""
    return altered(source=lambda i, pivot, z: pivot[-1])(*args)


def wrong_aim_with_direction(*args):
    """the aim has the direction in its text"""
    return altered(aim=lambda text, by: text + by)(*args)


def wrong_maps_without_direction(*args):
    """the maps that move lack the direction"""
    return altered(seen=lambda text, by: text)(*args)


def wrong_time(*args):
    """at the time where the hop ends"""
    return altered(when=lambda t, s: max(s, 1))(*args)


def wrong_begins_before(*args):
    """the hop begins where the step began"""
    return altered(goes=lambda old, new: old)(*args)


def wrong_asks_before(*args):
    """that of the latents before the step"""
    return altered(asks=lambda old, new: old)(*args)


def wrong_after(*args):
    """the step comes after the hop"""
    return altered(after=True)(*args)


def wrong_two_steps(*args):
    """more than one step"""
    return altered(steps=2)(*args)


def wrong_from_picture(*args):
    """the edit begins at the picture"""
    return altered(begin=-1)(*args)


def wrong_no_direction(*args):
    """the direction has no effect on the noise"""
    return altered(told=lambda text, by: text)(*args)


def wrong_direction_alone(*args):
    """told the direction alone"""
    return altered(told=lambda text, by: by)(*args)


def wrong_direction_off(*args):
    """the direction is taken off"""
    return altered(told=lambda text, by: text - by, seen=lambda text, by: text - by)(*args)


def wrong_zeros(*args):
    """guidance leads away from zeros"""
    return altered(away=lambda text, by: torch.zeros_like(text))(*args)


def wrong_no_guidance(*args):
    """there is no guidance"""
    return altered(away=lambda text, by: text + by)(*args)


def wrong_ends(*args):
    """the two ends of guidance have changed places"""
    return altered(told=lambda text, by: text, away=lambda text, by: text + by)(*args)


def wrong_source(eps, maps, schedule, pivot, *rest):
    """this is the source"""
    return pivot[-1]


def wrong_no_grad(eps, maps, schedule, pivot, path, text, by, w, lam):
    """no gradient reaches the latents"""
    with torch.no_grad():
        x = pivot[0].clone().requires_grad_()
        return pivot[0] - lam * torch.autograd.grad(
            drift(maps(x, path[0], text + by), maps(pivot[0], path[0], text)), x)[0]


def wrong_other_tensor(eps, maps, schedule, pivot, path, text, by, w, lam):
    """no gradient reaches the latents"""
    x, text = pivot[0].clone().requires_grad_(), text.clone().requires_grad_()
    loss = drift(maps(pivot[0], path[0], text + by), maps(pivot[0], path[0], text))
    return pivot[0] - lam * torch.autograd.grad(loss, x)[0]


def wrong_graph(eps, maps, schedule, pivot, path, text, by, w, lam):
    """the result still carries the graph"""
    z = pivot[0].clone().requires_grad_()
    for i, (t, s) in enumerate(zip(path, path[1:], strict=False)):
        slope = slope_of(maps, z.detach(), t, text + by, maps(pivot[i], t, text))
        z = z - lam * slope
        e = eps(z, t, text)
        z = hop(schedule, z, e + w * (eps(z, t, text + by) - e), t, s)
    return z


def wrong_pair(*args):
    """one tensor"""
    return walk(*args), None


def wrong_library(eps, maps, schedule, pivot, path, text, by, w, lam):
    """own refuses while your answer runs"""
    from coursekit.diffusion.predict import guided
    from coursekit.diffusion.sample import ddim, last

    both = guided(lambda x, t: eps(x, t, text), lambda x, t: eps(x, t, text + by), w)
    return last(ddim(both, schedule, pivot[0], path)).x
