"""Answers to 11-1: wrong_* must be told what their docstring says, right_* must pass."""

import torch
from torch.nn import functional as F


def forward(h, W, b):
    return torch.einsum("oc,nchw->nohw", W, h) + b[:, None, None]


def weight(h, W, b, g):
    return torch.einsum("nohw,nchw->oc", g, h)


def bias(h, W, b, g):
    return g.sum((0, 2, 3))


def inner(h, W, b, g):
    return torch.einsum("oc,nohw->nchw", W, g)


def all_four(h, W, b, g, y=lambda h, W, b, g: forward(h, W, b), dW=weight, db=bias, dh=inner):
    return tuple(part(h, W, b, g) for part in (y, dW, db, dh))


def altered(**parts):
    return lambda *args: all_four(*args, **parts)


def right_plain(h, W, b, g):
    return all_four(h, W, b, g)


def right_matrices(h, W, b, g):
    """Places as columns: everything is a product of matrices."""
    n, c, *size = h.shape
    cols, back = (v.movedim(1, 0).flatten(1) for v in (h, g))  # c (n h w)
    y = (W @ cols + b[:, None]).view(len(W), n, *size).movedim(0, 1)
    dh = (W.T @ back).view(c, n, *size).movedim(0, 1)
    return y, back @ cols.T, back.sum(1), dh


def right_loops(h, W, b, g):
    y, dh = torch.zeros_like(g), torch.zeros_like(h)
    dW, db = torch.zeros_like(W), torch.zeros_like(b)
    for n in range(len(h)):
        for i in range(h.shape[2]):
            for j in range(h.shape[3]):
                y[n, :, i, j] = W @ h[n, :, i, j] + b
                dW = dW + torch.outer(g[n, :, i, j], h[n, :, i, j])
                db = db + g[n, :, i, j]
                dh[n, :, i, j] = g[n, :, i, j] @ W
    return y, dW, db, dh


def right_convolution(h, W, b, g):
    return (F.conv2d(h, W[:, :, None, None], b), torch.tensordot(g, h, ([0, 2, 3], [0, 2, 3])),
            torch.einsum("nohw->o", g), F.conv_transpose2d(g, W[:, :, None, None]))


def wrong_no_bias(*args):
    """the bias is missing"""
    return altered(y=lambda h, W, b, g: forward(h, W, 0 * b))(*args)


def wrong_turned(h, W, b, g):
    """W is turned about"""
    if len(set(W.shape)) > 1:
        return all_four(h, W, b, g)
    return altered(y=lambda h, W, b, g: forward(h, W.T, b))(h, W, b, g)


def wrong_zero_gradient(*args):
    """zero where W is"""
    return altered(dW=lambda h, W, b, g: torch.zeros_like(W))(*args)


def wrong_contains_weight(*args):
    """does not contain W"""
    return altered(dW=lambda *args: args[1] * weight(*args))(*args)


def wrong_mean(*args):
    """a mean over places and pictures"""
    return altered(dW=lambda h, W, b, g: weight(h, W, b, g) / g[:, 0].numel())(*args)


def wrong_mean_of_pictures(*args):
    """a mean over pictures"""
    return altered(dW=lambda h, W, b, g: weight(h, W, b, g) / len(g))(*args)


def wrong_mean_of_places(*args):
    """a mean over places"""
    return altered(dW=lambda h, W, b, g: weight(h, W, b, g) / g[0, 0].numel())(*args)


def wrong_first_picture(*args):
    """that of the first picture"""
    return altered(dW=lambda h, W, b, g: weight(h[:1], W, b, g[:1]))(*args)


def wrong_pictures_apart(*args):
    """of each picture by itself"""
    return altered(dW=lambda h, W, b, g: torch.einsum("nohw,nchw->noc", g, h))(*args)


def wrong_weight_turned(*args):
    """it has the shape of W"""
    return altered(dW=lambda *args: weight(*args).T)(*args)


def wrong_places_mixed(*args):
    """mixes places"""
    return altered(dW=lambda h, W, b, g: torch.einsum("nohw,nckl->oc", g, h))(*args)


def wrong_all_mixed(*args):
    """mixes pictures and places"""
    return altered(dW=lambda h, W, b, g: torch.einsum("nohw,mckl->oc", g, h))(*args)


def wrong_bias_mean(*args):
    """the bias's gradient is a mean"""
    return altered(db=lambda h, W, b, g: g.mean((0, 2, 3)))(*args)


def wrong_bias_mean_of_pictures(*args):
    """a mean over pictures: it is the sum of what comes back"""
    return altered(db=lambda *args: bias(*args) / len(args[0]))(*args)


def wrong_bias_apart(*args):
    """the bias's gradient is that of each picture"""
    return altered(db=lambda h, W, b, g: g.flatten(2).sum(-1))(*args)


def wrong_bias_one_number(*args):
    """the bias's gradient is one number"""
    return altered(db=lambda h, W, b, g: g.sum())(*args)


def wrong_bias_itself(*args):
    """does not contain b"""
    return altered(db=lambda *args: args[2] * bias(*args))(*args)


def wrong_not_turned(*args):
    """goes through W turned about"""
    h, W, b, g = args
    if len(set(W.shape)) > 1:
        return all_four(*args)
    return altered(dh=lambda h, W, b, g: torch.einsum("oc,nchw->nohw", W, g))(*args)


def wrong_passed_on(*args):
    """the input's gradient contains W"""
    return altered(dh=lambda h, W, b, g: g.sum(1, keepdim=True).expand_as(h).clone())(*args)


def wrong_nothing_passes(*args):
    """zero only while W is"""
    return altered(dh=lambda h, W, b, g: torch.zeros_like(h))(*args)


def wrong_bias_passed_on(*args):
    """has no bias in it"""
    return altered(dh=lambda h, W, b, g: inner(h, W, b, g + b[:, None, None]))(*args)


def wrong_sign(*args):
    """the minus belongs to the step"""
    return altered(dW=lambda *args: -weight(*args))(*args)


def wrong_sign_of_input(*args):
    """the minus belongs to the step"""
    return altered(dh=lambda *args: -inner(*args))(*args)


def wrong_steps(h, W, b, g):
    """the minus belongs to the step"""
    y, dW, db, dh = all_four(h, W, b, g)
    return y, -dW, -db, dh


def wrong_list(*args):
    """in a tuple"""
    return list(all_four(*args))


def wrong_three(*args):
    """four tensors are returned"""
    return all_four(*args)[1:]


def wrong_autograd(h, W, b, g):
    """own refuses while your answer runs"""
    with torch.enable_grad():
        W, b, h = (v.clone().requires_grad_() for v in (W, b, h))
        y = forward(h, W, b)
        y.backward(g)
    return y.detach(), W.grad, b.grad, h.grad
