"""Answers to 10-1: wrong_* must be told what their docstring says, right_* must pass."""

from contextlib import contextmanager


@contextmanager
def listening(net, name, hear):
    hook = net.get_submodule(name).register_forward_hook(hear)
    try:
        yield
    finally:
        hook.remove()


def heard(net, name, pairs, keep=lambda inputs, out: out.clone()):
    """What a module says about pairs (x, t), by one hook for all of them."""
    found = []
    with listening(net, name, lambda _m, inputs, out: found.append(keep(inputs, out))):
        for x, t in pairs:
            net(x, t)
    return found


def right_plain(net, name, pivot, path, n):
    return heard(net, name, list(zip(pivot[:n], path[:n], strict=True)))


def right_hook_for_each_hop(net, name, pivot, path, n):
    found = [None] * n
    module = dict(net.named_modules())[name]
    for i in range(n):
        def note(_module, _inputs, output, i=i):
            found[i] = output.detach().clone()

        handle = module.register_forward_hook(note)
        try:
            net(pivot[i], path[i])
        finally:
            handle.remove()
    return found


def right_forward_replaced(net, name, pivot, path, n):
    module, found = net.get_submodule(name), []
    inner = module.forward

    def forward(x):
        found.append(1 * inner(x))
        return found[-1] + 0

    module.forward = forward
    try:
        for i, t in enumerate(path[:n]):
            net(pivot[i], t)
    finally:
        del module.forward
    return found


def wrong_no_copy(net, name, pivot, path, n):
    """so keep a copy"""
    return heard(net, name, list(zip(pivot[:n], path[:n], strict=True)), lambda inputs, out: out)


def wrong_detached(net, name, pivot, path, n):
    """so keep a copy"""
    return heard(net, name, list(zip(pivot[:n], path[:n], strict=True)),
                 lambda inputs, out: out.detach())


def wrong_inputs(net, name, pivot, path, n):
    """this is what goes into the module"""
    return heard(net, name, list(zip(pivot[:n], path[:n], strict=True)),
                 lambda inputs, out: inputs[0].clone())


def wrong_network(net, name, pivot, path, n):
    """this is what the whole network puts out"""
    return [net(x, t) for x, t in zip(pivot[:n], path[:n], strict=True)]


def wrong_other_module(net, name, *rest):
    """this is another convolution"""
    return right_plain(net, name[:-1] + {"1": "2", "2": "1"}[name[-1]], *rest)


def wrong_left(net, name, pivot, path, n):
    """the hook is still there afterwards"""
    found = []
    net.get_submodule(name).register_forward_hook(lambda m, i, out: found.append(out.clone()))
    for x, t in list(zip(pivot, path, strict=True))[:n]:
        net(x, t)
    return list(found)


def wrong_left_for_each(net, name, pivot, path, n):
    """the hook is still there afterwards"""
    found = []
    for i in range(n):
        hook = net.get_submodule(name).register_forward_hook(
            lambda m, given, out: found.append(out.clone()))
        net(pivot[i], path[i])
    hook.remove()
    return list(found)


def wrong_no_finally(net, name, pivot, path, n):
    """try and finally remove it"""
    found = []
    hook = net.get_submodule(name).register_forward_hook(lambda m, i, o: found.append(o.clone()))
    for x, t in list(zip(pivot, path, strict=True))[:n]:
        net(x, t)
    hook.remove()
    return found


def wrong_swallowed(net, name, pivot, path, n):
    """an error of the network is swallowed"""
    try:
        return right_plain(net, name, pivot, path, n)
    except RuntimeError:
        return []


def wrong_one_more(net, name, pivot, path, n):
    """one hop too many"""
    return right_plain(net, name, pivot, path, n + 1)


def wrong_one_less(net, name, pivot, path, n):
    """one hop too few"""
    return right_plain(net, name, pivot, path, max(n - 1, 0))


def wrong_all(net, name, pivot, path, n):
    """all hops were recorded"""
    return right_plain(net, name, pivot, path, len(path) - 1)


def wrong_last(net, name, pivot, path, n):
    """these are the last n hops"""
    begin = len(path) - 1 - n
    return right_plain(net, name, pivot[begin:], path[begin:], n)


def wrong_clean_end(net, name, pivot, path, n):
    """the states are read from the clean end"""
    return right_plain(net, name, pivot[::-1], path, n)


def wrong_time_of_end(net, name, pivot, path, n):
    """each state is shown with the time where its hop ends"""
    return right_plain(net, name, pivot, path[1:], min(n, len(path) - 1))


def wrong_state_of_end(net, name, pivot, path, n):
    """each time is shown with the state where its hop ends"""
    return right_plain(net, name, pivot[1:], path, n)


def wrong_one_place(net, name, pivot, path, n):
    """every hop has the same feature"""
    return n * right_plain(net, name, pivot, path, n)[-1:]


def wrong_first_place(net, name, pivot, path, n):
    """every hop has the same feature"""
    return n * right_plain(net, name, pivot, path, n)[:1]


def wrong_reversed(net, name, pivot, path, n):
    """the features come clean to noisy"""
    return right_plain(net, name, pivot, path, n)[::-1]


def wrong_too_many(net, name, pivot, path, n):
    """there are more features than hops"""
    found, hooks = [], []
    try:
        for i in range(n):
            hooks.append(net.get_submodule(name).register_forward_hook(
                lambda m, given, out: found.append(out.clone())))
            net(pivot[i], path[i])
    finally:
        for hook in hooks:
            hook.remove()
    return found


def wrong_first_picture(net, name, pivot, path, n):
    """only the first picture's feature"""
    return [f[:1] for f in right_plain(net, name, pivot, path, n)]


def wrong_asked_twice(net, name, pivot, path, n):
    """the network is asked more often"""
    for x, t in list(zip(pivot, path, strict=True))[:n]:
        net(x, t)
    return right_plain(net, name, pivot, path, n)


def wrong_dict(net, name, pivot, path, n):
    """a list is asked for"""
    return dict(zip(path, right_plain(net, name, pivot, path, n), strict=False))


def wrong_tuple(*args):
    """a list is asked for"""
    return tuple(right_plain(*args))


def wrong_library(net, name, pivot, path, n):
    """own refuses while your answer runs"""
    from coursekit.nets.control import tapped

    found = []
    with tapped(net.get_submodule(name), lambda f: found.append(f.clone())):
        for x, t in list(zip(pivot, path, strict=True))[:n]:
            net(x, t)
    return found
