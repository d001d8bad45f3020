"""Answers to 11-2: wrong_* must be told what their docstring says, right_* must pass."""

from copy import deepcopy

import torch
from torch import nn


def zero(inside, out):
    conv = nn.Conv2d(inside, out, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class Control(nn.Module):
    """The whole, in methods that the wrong ones replace."""

    def __init__(self, net, hint_channels):
        super().__init__()
        self.copied(net)
        self.enter = self.joint(hint_channels, net.widths[0])
        self.leave = nn.ModuleList(self.joint(c, c) for c in self.joined(net.widths))

    def copied(self, net):
        self.net = net.requires_grad_(False)
        self.copy = deepcopy(net.encoder).requires_grad_(True)

    def joint(self, inside, out):
        return zero(inside, out)

    def joined(self, widths):
        return widths

    def seen(self, x, z, strength):
        return self.copy.input(x) + z

    def trunk(self, x, z):
        return self.net.encoder.input(x)

    def walk(self, part, h, t):
        found = []
        for block in part.blocks:
            h = block(h, t)
            found.append(h)
        return [*found, part.middle(h, t)]

    def copies(self, h, t):
        return self.walk(self.copy, h, t)

    def residuals(self, maps):
        return [joint(m) for joint, m in zip(self.leave, maps, strict=True)]

    def add(self, own, r, strength, last):
        return own + strength * r

    def forward(self, x, t, hint, strength=1.0):
        z = self.enter(hint)
        own = self.walk(self.net.encoder, self.trunk(x, z), t)
        r = self.residuals(self.copies(self.seen(x, z, strength), t))
        *skips, h = (self.add(a, b, strength, i == len(r) - 1)
                     for i, (a, b) in enumerate(zip(own, r, strict=True)))
        return self.net.decoder(h, skips, t)


class right_plain(Control):
    pass


class right_one_loop(nn.Module):
    """Both encoders side by side in one loop; the copy is made before the trunk is frozen."""

    def __init__(self, net, hint_channels):
        super().__init__()
        self.copy = deepcopy(net.encoder)
        for p in self.copy.parameters():
            p.requires_grad = True
        for p in net.parameters():
            p.requires_grad = False
        self.net = net
        joints = []
        for inside, out in zip([hint_channels, *net.widths], [net.widths[0], *net.widths],
                               strict=True):
            joint = nn.Conv2d(inside, out, kernel_size=1)
            joint.weight.data *= 0
            joint.bias.data *= 0
            joints.append(joint)
        self.enter, self.leave = joints[0], nn.ModuleList(joints[1:])

    def forward(self, x, t, hint, strength=1.0):
        h, c = self.net.encoder.input(x), self.copy.input(x) + self.enter(hint)
        skips = []
        for k, (block, twin) in enumerate(zip(self.net.encoder.blocks, self.copy.blocks,
                                              strict=True)):
            h, c = block(h, t), twin(c, t)
            skips.append(torch.add(h, self.leave[k](c), alpha=strength))
        h, c = self.net.encoder.middle(h, t), self.copy.middle(c, t)
        return self.net.decoder(h + strength * self.leave[-1](c), skips, t)


class right_trunk_without_graph(Control):
    """Nothing of the trunk's encoder needs a graph."""

    def walk(self, part, h, t):
        if part is self.copy:
            return super().walk(part, h, t)
        with torch.no_grad():
            return super().walk(part, h, t)


class wrong_usual_joints(Control):
    """every joint begins at zero"""

    def joint(self, inside, out):
        return nn.Conv2d(inside, out, 1)


class wrong_bias_not_zero(Control):
    """every joint begins at zero"""

    def joint(self, inside, out):
        conv = nn.Conv2d(inside, out, 1)
        nn.init.zeros_(conv.weight)
        return conv


class wrong_wide_joints(Control):
    """a convolution of 1x1 with a bias"""

    def joint(self, inside, out):
        conv = nn.Conv2d(inside, out, 3, padding=1)
        for p in conv.parameters():
            nn.init.zeros_(p)
        return conv


class wrong_bare_joints(Control):
    """a convolution of 1x1 with a bias"""

    def joint(self, inside, out):
        conv = nn.Conv2d(inside, out, 1, bias=False)
        nn.init.zeros_(conv.weight)
        return conv


class wrong_no_joint_for_the_middle(Control):
    """the middle has a joint of its own"""

    def joined(self, widths):
        return widths[:-1]

    def residuals(self, maps):
        return [*(joint(m) for joint, m in zip(self.leave, maps, strict=False)), 0.0]


class wrong_not_copied(Control):
    """the copy is the trunk itself"""

    def copied(self, net):
        self.net, self.copy = net.requires_grad_(False), net.encoder.requires_grad_(True)


class wrong_not_frozen(Control):
    """the trunk is not frozen"""

    def copied(self, net):
        self.net = net.requires_grad_(True)
        self.copy = deepcopy(net.encoder)


class wrong_encoder_alone_frozen(Control):
    """the trunk is not frozen"""

    def copied(self, net):
        super().copied(net)
        self.net.decoder.requires_grad_(True)


class wrong_copy_frozen(Control):
    """a copy of what is frozen is frozen"""

    def copied(self, net):
        self.net = net.requires_grad_(False)
        self.copy = deepcopy(net.encoder)


class wrong_copies_all(Control):
    """something else than the copy of the encoder"""

    def copied(self, net):
        super().copied(net)
        self.spare = deepcopy(net.decoder).requires_grad_(True)


class wrong_residuals_detached(Control):
    """the residuals carry no gradient"""

    def residuals(self, maps):
        with torch.no_grad():
            return super().residuals(maps)

    def add(self, own, r, strength, last):
        return own + strength * r + 0 * sum(p.sum() for p in self.enter.parameters())


class wrong_copy_detached(Control):
    """the copy carries no gradient"""

    def copies(self, h, t):
        return [m.detach() for m in super().copies(h, t)]


class wrong_no_grad(Control):
    """under no_grad nothing learns"""

    def forward(self, *args):
        with torch.no_grad():
            return super().forward(*args)


class wrong_hint_everywhere(Control):
    """the hint enters the trunk, too"""

    def trunk(self, x, z):
        return super().trunk(x, z) + z


class wrong_hint_in_trunk(Control):
    """the hint enters the trunk: the copy sees it"""

    def trunk(self, x, z):
        return super().trunk(x, z) + z

    def seen(self, x, z, strength):
        return self.copy.input(x)


class wrong_no_hint(Control):
    """the hint has no effect"""

    def seen(self, x, z, strength):
        return self.copy.input(x)


class wrong_hint_alone(Control):
    """the copy sees the noisy picture and the hint"""

    def seen(self, x, z, strength):
        return z


class wrong_strength_at_the_hint(Control):
    """the strength multiplies the hint, too"""

    def seen(self, x, z, strength):
        return self.copy.input(x) + strength * z


class wrong_strength_at_the_hint_alone(wrong_strength_at_the_hint):
    """the strength multiplies the hint: it"""

    def add(self, own, r, strength, last):
        return own + r


class wrong_no_strength(Control):
    """the strength has no effect"""

    def add(self, own, r, strength, last):
        return own + r


class wrong_strength_at_all(Control):
    """the strength multiplies the skips as well"""

    def add(self, own, r, strength, last):
        return strength * (own + r)


class wrong_strength_mixes(Control):
    """the strength mixes two outputs"""

    def forward(self, x, t, hint, strength=1.0):
        out = super().forward(x, t, hint, 1.0)
        return (1 - strength) * self.net(x, t) + strength * out


class wrong_lerp(Control):
    """skips are mixed with residuals"""

    def add(self, own, r, strength, last):
        return (1 - strength) * own + strength * r


class wrong_middle_too_strong(Control):
    """the strength is missing at the middle"""

    def add(self, own, r, strength, last):
        return own + (r if last else strength * r)


class wrong_no_middle(Control):
    """the residual of the middle is missing"""

    def add(self, own, r, strength, last):
        return own + (0.0 if last else strength) * r


class wrong_middle_alone(Control):
    """the residuals of the skips are missing"""

    def add(self, own, r, strength, last):
        return own + (strength if last else 0.0) * r


class wrong_replaced(Control):
    """take the place of the skips"""

    def add(self, own, r, strength, last):
        return strength * r


class wrong_taken_off(Control):
    """the residuals are taken off"""

    def add(self, own, r, strength, last):
        return own - strength * r


class wrong_order(Control):
    """come in the wrong order"""

    def residuals(self, maps):
        *skips, last = super().residuals(maps)
        return [*skips[::-1], last]


class wrong_middle_not_passed(Control):
    """the copy's middle has not been passed"""

    def copies(self, h, t):
        found = super().copies(h, t)
        return [*found[:-1], found[-2]]


class wrong_trunk_run_twice(Control):
    """the trunk's own encoder was run with the hint"""

    def copies(self, h, t):
        return self.walk(self.net.encoder, h, t)


class wrong_plain_list(Control):
    """the weights of a plain list are nobody's"""

    def __init__(self, net, hint_channels):
        super().__init__(net, hint_channels)
        joints = list(self.leave)
        del self.leave
        self.leave = joints


class wrong_names(Control):
    """the names are net, copy, enter and leave"""

    def __init__(self, net, hint_channels):
        super().__init__(net, hint_channels)
        self.exits = self.leave
        del self.leave

    def residuals(self, maps):
        return [joint(m) for joint, m in zip(self.exits, maps, strict=True)]


class wrong_forward_without_strength(Control):
    """forward takes x, t, hint and, if given, strength"""

    def forward(self, x, t, hint):
        return super().forward(x, t, hint)


def wrong_function(net, hint_channels):
    """must be a class"""
    return lambda x, t, hint, strength=1.0: net(x, t)


class wrong_library(Control):
    """own refuses while your answer runs"""

    def joint(self, inside, out):
        from coursekit.nets.hinted import zero_conv
        return zero_conv(inside, out)
