"""Answers to 05-5: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def weights(angle, share, a):
    phi = angle.view(-1, *[1] * (a.ndim - 1)) if angle.ndim < a.ndim else angle
    phi = phi.clamp(min=1e-6)
    return ((1 - share) * phi).sin() / phi.sin(), (share * phi).sin() / phi.sin()


def angle(a, b):
    u, v = a.flatten(1), b.flatten(1)
    return ((u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))).clamp(-1, 1).acos()


def wrong_line(a, b, share):
    """this is the straight line"""
    return (1 - share) * a + share * b


def wrong_ends(a, b, share):
    """a and b have changed places"""
    left, right = weights(angle(a, b), share, a)
    return right * a + left * b


def wrong_undivided(a, b, share):
    """the division by sin(phi) is missing"""
    phi = angle(a, b).view(-1, *[1] * (a.ndim - 1))
    return ((1 - share) * phi).sin() * a + (share * phi).sin() * b


def wrong_whole_batch(a, b, share):
    """the whole batch was taken as one vector"""
    cosine = (a * b).sum() / (a.norm() * b.norm())
    left, right = weights(cosine.clamp(-1, 1).acos(), share, a)
    return left * a + right * b


def wrong_last_axis(a, b, share):
    """along the last axis"""
    phi = torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos().unsqueeze(-1)
    left, right = weights(phi, share, a)
    return left * a + right * b


def wrong_unit(a, b, share):
    """the codes were scaled to length one"""
    left, right = weights(angle(a, b), share, a)
    na, nb = (v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1)) for v in (a, b))
    return left * a / na + right * b / nb


def wrong_cosine(a, b, share):
    """arccos is missing"""
    left, right = weights(angle(a, b).cos().abs() * angle(a, b).cos().sign(), share, a)
    phi = angle(a, b).cos().view(-1, *[1] * (a.ndim - 1))
    return (((1 - share) * phi).sin() * a + (share * phi).sin() * b) / phi.sin()


def wrong_unguarded(a, b, share):
    """sin(phi) cannot be divided by"""
    u, v = a.flatten(1), b.flatten(1)
    phi = ((u * v).sum(1) / (u * u).sum(1).sqrt() / (v * v).sum(1).sqrt()).acos()
    phi = torch.where(phi < 1e-2, 0 * phi, phi).view(-1, *[1] * (a.ndim - 1))
    return ((1 - share) * phi).sin() / phi.sin() * a + (share * phi).sin() / phi.sin() * b


def wrong_one_decides_for_all(a, b, share):
    """makes a straight line of all items"""
    if (angle(a, b) < 1e-4).any():
        return (1 - share) * a + share * b
    left, right = weights(angle(a, b), share, a)
    return left * a + right * b


def wrong_only_equal_batches(a, b, share):
    """sin(phi) cannot be divided by"""
    if torch.equal(a, b):
        return a
    u, v = a.flatten(1), b.flatten(1)
    cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    phi = torch.where(cosine > 1 - 1e-9, 1.0, cosine).acos().view(-1, *[1] * (a.ndim - 1))
    return (((1 - share) * phi).sin() * a + (share * phi).sin() * b) / phi.sin()


def wrong_no_op(a, b, share):
    """comes back unchanged"""
    return a


def wrong_library(a, b, share):
    """own refuses while your answer runs"""
    from coursekit.diffusion.sample import slerp

    return slerp(a, b, share)


def right_plain(a, b, share):
    phi = angle(a.double(), b.double()).view(-1, *[1] * (a.ndim - 1))
    arc = (((1 - share) * phi).sin() * a + (share * phi).sin() * b) / phi.sin()
    return torch.where(phi < 1e-4, (1 - share) * a + share * b, arc).to(a.dtype)


def right_item_by_item(a, b, share):
    rows = []
    for u, v in zip(a, b, strict=True):
        cosine = float((u * v).sum() / (u.norm() * v.norm()))
        phi = torch.tensor(max(-1.0, min(1.0, cosine)), dtype=torch.float64).acos()
        if phi < 1e-3:
            rows.append(u + share * (v - u))
        else:
            rows.append(float(torch.sin((1 - share) * phi) / torch.sin(phi)) * u
                        + float(torch.sin(share * phi) / torch.sin(phi)) * v)
    return torch.stack(rows)
