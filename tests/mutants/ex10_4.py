"""Answers to 10-4: wrong_* must be told what their docstring says, right_* must pass."""

import math
from contextlib import ExitStack, contextmanager

import torch

from coursekit.nets.control import controlled


def lent(x, b):
    return torch.cat([x[:b]] * (len(x) // b))


@contextmanager
def hooked(net, name, f):
    handle = net.get_submodule(name).register_forward_hook(lambda _m, _given, out: f(out))
    try:
        yield
    finally:
        handle.remove()


kept = []  # contexts that nobody closes


def count(share, S):
    return math.floor(share * S + 1e-9)


def guide(source, none, told, w):
    return none + w * (told - none)


def hop(schedule, z, e, t, s):
    return schedule.noise(schedule.denoise(z, e, t), e, s)


def loop(net, name, layers, schedule, pivot, path, w, tau_f, tau_A, *, count=count, feature=lent,
         map_=lent, parts="qk", mix=guide, shown=lambda i, pivot, z: pivot[i], begin=0,
         is_open=lambda i, n, S: i < n, swap=False, inject=lambda name, layers: name in layers,
         ask=lambda t, s: t, cut=0, move=hop, closes=True):
    b, S, z = len(pivot[0]), len(path) - 1, pivot[begin]
    shares = (count(tau_A, S), count(tau_f, S)) if swap else (count(tau_f, S), count(tau_A, S))

    def qkv(site, *three):
        if not inject(site.name, layers):
            return three
        return tuple(map_(x, b) if p in parts else x for p, x in zip("qkv", three, strict=True))

    for i in range(S - cut):
        stack = ExitStack()
        if is_open(i, shares[0], S):
            stack.enter_context(hooked(net, name, lambda out: feature(out, b)))
        if is_open(i, shares[1], S):
            stack.enter_context(controlled(net, qkv))
        e = net(torch.cat([shown(i, pivot, z), z, z]), ask(path[i], path[i + 1]))
        if closes:
            stack.close()
        else:
            kept.append(stack)
        z = move(schedule, z, mix(*e.split(b), w), path[i], path[i + 1])
    return z


def altered(**how):
    return lambda *args: loop(*args, **how)


def right_plain(net, name, layers, schedule, pivot, path, w, tau_f, tau_A):
    return loop(net, name, layers, schedule, pivot, path, w, tau_f, tau_A)


def right_maps(net, name, layers, schedule, pivot, path, w, tau_f, tau_A):
    """The map itself is handed on."""
    b, S, z = len(pivot[0]), len(path) - 1, pivot[0]
    for i, (t, s) in enumerate(zip(path, path[1:], strict=False)):
        with ExitStack() as stack:
            if i + 1 <= tau_f * S + 1e-6:
                stack.enter_context(hooked(net, name, lambda out: lent(out, b)))
            if i + 1 <= tau_A * S + 1e-6:
                stack.enter_context(controlled(net, probs=lambda site, A: lent(A, b),
                                               where=lambda site: site.name in layers))
            _, none, told = net(torch.cat([pivot[i], z, z]), t).chunk(3)
        e = (1 - w) * none + w * told
        a, d = schedule.scales(t, z)
        a_s, d_s = schedule.scales(s, z)
        z = a_s / a * (z - d * e) + d_s * e
    return z


def right_always_there(net, name, layers, schedule, pivot, path, w, tau_f, tau_A):
    """One hook and one control for all hops, which look at the hop's number."""
    b, S, now = len(pivot[0]), len(path) - 1, {"i": 0}
    f, A = (math.floor(share * S + 1e-7) for share in (tau_f, tau_A))

    def qkv(site, q, k, v):
        if site.name in layers and now["i"] < A:
            q, k = lent(q, b), lent(k, b)
        return q, k, v

    z = pivot[0]
    with controlled(net, qkv), hooked(net, name, lambda out: lent(out, b)
                                      if now["i"] < f else None):
        for i in range(S):
            now["i"] = i
            _, none, told = net(torch.cat([pivot[i], z, z]), path[i]).chunk(3)
            z = hop(schedule, z, torch.lerp(none, told, w), path[i], path[i + 1])
    return z


def wrong_from_picture(*args):
    """the edit begins at the picture"""
    return altered(begin=-1)(*args)


def wrong_source_is_edit(*args):
    """the sources' rows show the edit"""
    return altered(shown=lambda i, pivot, z: z)(*args)


def wrong_source_later(*args):
    """the sources' rows show the state where the hop ends"""
    return altered(shown=lambda i, pivot, z: pivot[i + 1])(*args)


def wrong_source_first(*args):
    """always show the first state"""
    return altered(shown=lambda i, pivot, z: pivot[0])(*args)


def wrong_source_picture(*args):
    """always show the picture"""
    return altered(shown=lambda i, pivot, z: pivot[-1])(*args)


def wrong_source_backwards(*args):
    """the pivot is read from the clean end"""
    return altered(shown=lambda i, pivot, z: pivot[-1 - i])(*args)


def wrong_hop_longer(*args):
    """windows are a hop too long"""
    return altered(is_open=lambda i, n, S: i <= n)(*args)


def wrong_clean_end(*args):
    """windows are counted from the clean end"""
    return altered(is_open=lambda i, n, S: i >= S - n)(*args)


def wrong_turned_about(*args):
    """windows are turned about"""
    return altered(is_open=lambda i, n, S: i >= n)(*args)


def wrong_exchanged(*args):
    """the two windows have changed places"""
    return altered(swap=True)(*args)


def wrong_always(*args):
    """the windows have no effect"""
    return altered(is_open=lambda i, n, S: True)(*args)


def wrong_rounded(*args):
    """rounded to the nearest"""
    return altered(count=lambda share, S: round(share * S))(*args)


def wrong_rounded_up(*args):
    """rounded up"""
    return altered(count=lambda share, S: math.ceil(share * S - 1e-9))(*args)


def wrong_by_time(net, name, layers, schedule, pivot, path, *rest):
    """not of the times"""
    return loop(net, name, layers, schedule, pivot, path, *rest,
                count=lambda share, S: len([t for t in path[:-1] if t / 1000 > 1 - share]))


def wrong_no_features(*args):
    """features are not injected"""
    return altered(feature=lambda out, b: None)(*args)


def wrong_no_maps(*args):
    """self-attention is not injected"""
    return altered(parts="")(*args)


def wrong_plain_sampling(*args):
    """nothing is injected"""
    return altered(is_open=lambda i, n, S: False)(*args)


def wrong_every_layer(*args):
    """the self-attention of every layer"""
    return altered(inject=lambda name, layers: True)(*args)


def wrong_other_layers(*args):
    """the layers are turned about"""
    return altered(inject=lambda name, layers: name not in layers)(*args)


def wrong_values(*args):
    """the values are injected, too"""
    return altered(parts="qkv")(*args)


def wrong_queries(*args):
    """only the queries"""
    return altered(parts="q")(*args)


def wrong_keys(*args):
    """only the keys"""
    return altered(parts="k")(*args)


def wrong_mutual(*args):
    """that is MasaCtrl"""
    return altered(parts="kv")(*args)


def wrong_target_alone(*args):
    """only the target's half"""
    one = lambda x, b: torch.cat([x[:-b], x[:b]])
    return altered(feature=one, map_=one)(*args)


def wrong_negative_alone(*args):
    """only the target's half is injected, or only the negative's"""
    return altered(map_=lambda x, b: torch.cat([x[:b], x[:b], x[2 * b:]]))(*args)


def wrong_first_source(*args):
    """every picture takes from the first source"""
    return altered(map_=lambda x, b: torch.cat([x[:b], *[x[:1]] * (len(x) - b)]))(*args)


def wrong_no_guidance(*args):
    """there is no guidance"""
    return altered(mix=lambda source, none, told, w: told)(*args)


def wrong_ends(*args):
    """the two ends of guidance have changed places"""
    return altered(mix=lambda source, told, none, w: none + w * (told - none))(*args)


def wrong_from_source(*args):
    """guidance leads away from the source"""
    return altered(mix=lambda source, none, told, w: source + w * (told - source))(*args)


def wrong_too_strong(*args):
    """too strong by one"""
    return altered(mix=lambda source, none, told, w: told + w * (told - none))(*args)


def wrong_source_noise(*args):
    """the noise is the source's"""
    return altered(mix=lambda source, none, told, w: source)(*args)


def wrong_last_hop(*args):
    """the last hop is missing"""
    return altered(cut=1)(*args)


def wrong_no_noise(*args):
    """noise of the level where it ends"""
    return altered(move=lambda schedule, z, e, t, s: schedule.denoise(z, e, t))(*args)


def wrong_left(*args):
    """something of this is left in the network"""
    return altered(closes=False)(*args)


def wrong_source(net, name, layers, schedule, pivot, *rest):
    """this is the source"""
    return pivot[-1]


def wrong_two_parts(net, name, layers, schedule, pivot, path, w, tau_f, tau_A):
    """the network sees three parts at once"""
    z, b = pivot[0], len(pivot[0])
    for i, t in enumerate(path[:-1]):
        source = net(pivot[i][:, :1], t)
        none, told = net(torch.cat([z, z]), t).split(b)
        z = hop(schedule, z, guide(source, none, told, w), t, path[i + 1])
    return z


def wrong_list(*args):
    """one tensor"""
    return [loop(*args)]


def wrong_library(net, name, layers, schedule, pivot, path, w, tau_f, tau_A):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import ddim, last

    b = len(pivot[0])

    def eps(x, t):
        _, none, told = net(torch.cat([pivot[path.index(t)], x, x]), t).split(b)
        return guide(None, none, told, w)

    return last(ddim(eps, schedule, pivot[0], path)).x
