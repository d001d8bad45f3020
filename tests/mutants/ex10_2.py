"""Answers to 10-2: wrong_* must be told what their docstring says, right_* must pass."""

from contextlib import contextmanager

import torch


@contextmanager
def hooked(module, f):
    """Sends what a module puts out through f."""
    handle = module.register_forward_hook(lambda _m, _inputs, out: f(out))
    try:
        yield
    finally:
        handle.remove()


def answer(new):
    """An answer in which the edits' rows are new(sources, edits, b)."""
    return lambda net, name, b: hooked(net.get_submodule(name), lambda out: torch.cat(
        [out[:b], new(out[:b], out[b:], b)]))


def groups(edits, b):
    return len(edits) // b


def right_plain(net, name, b):
    return answer(lambda s, e, b: torch.cat([s] * groups(e, b)))(net, name, b)


@contextmanager
def right_in_place(net, name, b):
    def hook(module, given, output):
        for at in range(b, len(output), b):
            output[at:at + b] = output[:b]

    handle = net.get_submodule(name).register_forward_hook(hook)
    try:
        yield handle
    finally:
        handle.remove()


class right_object:
    def __init__(self, net, name, b):
        self.module, self.b = net.get_submodule(name), b

    def hook(self, module, given, output):
        return output[:self.b].repeat(len(output) // self.b, 1, 1, 1)

    def __enter__(self):
        self.handle = self.module.register_forward_hook(self.hook)

    def __exit__(self, *problem):
        self.handle.remove()


def right_split(net, name, b):
    return hooked(net.get_submodule(name), lambda out: torch.cat(
        [out.split(b)[0] for _ in out.split(b)]))


@contextmanager
def right_inputs(net, name, b):
    """A convolution treats each row alone: what goes in may be handed on as well."""
    handle = net.get_submodule(name).register_forward_pre_hook(
        lambda _m, given: torch.cat([given[0][:b]] * (len(given[0]) // b)))
    try:
        yield
    finally:
        handle.remove()


def wrong_first_source(*args):
    """of the first source"""
    return answer(lambda s, e, b: s[:1].repeat(len(e), 1, 1, 1))(*args)


def wrong_order(*args):
    """in the wrong order"""
    return answer(lambda s, e, b: s.repeat_interleave(groups(e, b), 0))(*args)


def wrong_last_part(*args):
    """only the last part"""
    return answer(lambda s, e, b: torch.cat([e[:-b], s]))(*args)


def wrong_second_part(*args):
    """only the second part"""
    return answer(lambda s, e, b: torch.cat([s, e[b:]]))(*args)


def wrong_from_last(net, name, b):
    """taken from the last part"""
    return hooked(net.get_submodule(name), lambda out: torch.cat([out[-b:]] * (len(out) // b)))


def wrong_exchanged(net, name, b):
    """the sources were changed, too"""
    return hooked(net.get_submodule(name), lambda out: torch.cat(
        [out[-b:], *[out[:b]] * (len(out) // b - 1)]))


def wrong_added(*args):
    """the feature is added"""
    return answer(lambda s, e, b: e + torch.cat([s] * groups(e, b)))(*args)


def wrong_mixed(*args):
    """the feature is mixed"""
    return answer(lambda s, e, b: e.lerp(torch.cat([s] * groups(e, b)), 0.5))(*args)


def wrong_three_parts(net, name, b):
    """not as many rows come out"""
    return hooked(net.get_submodule(name), lambda out: torch.cat([out[:b]] * 3))


def wrong_edits_alone(net, name, b):
    """not as many rows come out"""
    return hooked(net.get_submodule(name), lambda out: out[:b])


def wrong_nothing_returned(net, name, b):
    """nothing is handed on"""
    def f(out):
        torch.cat([out[:b]] * (len(out) // b))

    return hooked(net.get_submodule(name), f)


def wrong_new_name(net, name, b):
    """nothing is handed on"""
    def f(out):
        out = torch.cat([out[:b]] * (len(out) // b))

    return hooked(net.get_submodule(name), f)


@contextmanager
def wrong_every_block(net, name, b):
    """more modules than the one of that name"""
    last = name.rpartition(".")[2]
    hooks = [m.register_forward_hook(lambda _m, _given, out: torch.cat(
        [out[:b]] * (len(out) // b))) for n, m in net.named_modules() if n.endswith(last)]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def wrong_network(net, name, b):
    """the whole network hands on"""
    return hooked(net, lambda out: torch.cat([out[:b]] * (len(out) // b)))


@contextmanager
def wrong_left(net, name, b):
    """the hook is still there afterwards"""
    net.get_submodule(name).register_forward_hook(
        lambda _m, _given, out: torch.cat([out[:b]] * (len(out) // b)))
    yield


@contextmanager
def wrong_no_finally(net, name, b):
    """try and finally remove it"""
    handle = net.get_submodule(name).register_forward_hook(
        lambda _m, _given, out: torch.cat([out[:b]] * (len(out) // b)))
    yield
    handle.remove()


@contextmanager
def wrong_swallowed(net, name, b):
    """an error of the network is swallowed"""
    with right_plain(net, name, b):
        try:
            yield
        except RuntimeError:
            pass


def wrong_generator(net, name, b):
    """a context manager is asked for"""
    handle = net.get_submodule(name).register_forward_hook(
        lambda _m, _given, out: torch.cat([out[:b]] * (len(out) // b)))
    yield
    handle.remove()


def wrong_hook_alone(net, name, b):
    """a context manager is asked for"""
    return net.get_submodule(name).register_forward_hook(
        lambda _m, _given, out: torch.cat([out[:b]] * (len(out) // b))).id


def wrong_handle(net, name, b):
    """the hook is still there afterwards"""
    net.get_submodule(name).register_forward_hook(
        lambda _m, _given, out: torch.cat([out[:b]] * (len(out) // b)))
    return hooked(net.get_submodule(name), lambda out: None)


def wrong_library(net, name, b):
    """own refuses while your answer runs"""
    from coursekit.nets.control import tapped

    return tapped(net.get_submodule(name), lambda out: torch.cat([out[:b]] * (len(out) // b)))
