"""Answers to 11-6: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def side_by_side(first, second, weights):
    A = torch.cat([first[0], second[0]])
    B = torch.cat([w * alpha / len(a) * b for w, (a, b, alpha) in
                   zip(weights, (first, second), strict=True)], 1)
    return A, B


def truncated(D, q, *, keep=lambda v, q: v[:q], root=torch.sqrt, other=torch.sqrt):
    U, S, V = torch.linalg.svd(D, full_matrices=False)
    U, S, V = keep(U.T, q).T, keep(S, q), keep(V, q)
    return root(S)[:, None] * V, U * other(S), q


def whole(first, second, u, q, *, weights=lambda u: (1 - u, u), **cut):
    A, B = side_by_side(first, second, weights(u))
    return (A, B, len(A)) if q is None else truncated(B @ A, q, **cut)


def altered(**how):
    return lambda *args: whole(*args, **how)


def right_plain(first, second, u, q):
    return whole(first, second, u, q)


def right_weights_in_a(first, second, u, q):
    """Weights and factors stand in A; alpha is a float."""
    A = torch.cat([(1 - u) * first[2] / first[1].shape[1] * first[0],
                   u * second[2] / second[1].shape[1] * second[0]])
    B = torch.hstack([first[1], second[1]])
    if q is None:
        return A, B, float(A.shape[0])
    U, S, V = torch.svd(B @ A)
    half = S[:q].sqrt().diag()
    return half @ V[:, :q].T, U[:, :q] @ half, float(q)


def right_small_matrices(first, second, u, q):
    """The decomposition of the two factors' triangles: the large matrix is never made."""
    A, B = side_by_side(first, second, (1 - u, u))
    if q is None:
        return A, B, len(A)
    Qb, Rb = torch.linalg.qr(B)
    Qa, Ra = torch.linalg.qr(A.T)
    U, S, V = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)
    root = S[:q].sqrt()
    return root[:, None] * (V[:q] @ Qa.T), Qb @ U[:, :q] * root, q


def wrong_share_turned(*args):
    """u is turned about"""
    return altered(weights=lambda u: (u, 1 - u))(*args)


def wrong_sum(*args):
    """both updates come in full"""
    return altered(weights=lambda u: (1, 1))(*args)


def wrong_weights_in_both(first, second, u, q):
    """the weights are there twice"""
    parts = [(w * a, b, alpha) for w, (a, b, alpha) in zip((1 - u, u), (first, second),
                                                           strict=True)]
    return whole(*parts, u, q)


def wrong_no_alpha(first, second, u, q):
    """the factors alpha / r are lost"""
    return whole(*((a, b, len(a)) for a, b, _ in (first, second)), u, q)


def wrong_alpha_twice(first, second, u, q):
    """the factors alpha / r are there twice"""
    return whole(*((a * alpha / len(a), b, alpha) for a, b, alpha in (first, second)), u, q)


def wrong_alpha_alone(first, second, u, q):
    """divided by its own rank, and alpha is in it"""
    return whole(*((a, b, alpha * len(a)) for a, b, alpha in (first, second)), u, q)


def wrong_rank_alone(first, second, u, q):
    """divided by its own rank, and alpha is in it"""
    return whole(*((a, b, 1.0) for a, b, _ in (first, second)), u, q)


def averaged(first, second, u, q, alpha):
    if len(first[0]) != len(second[0]):
        return whole(first, second, u, q)
    A, B = (torch.lerp(a, b, u) for a, b in zip(first[:2], second[:2], strict=True))
    return (A, B, alpha(len(A))) if q is None else truncated(alpha(1) * B @ A, q)


def wrong_factors_averaged(first, second, u, q):
    """factors are averaged"""
    return averaged(first, second, u, q, lambda r: r)


def wrong_factors_averaged_with_alpha(first, second, u, q):
    """factors are averaged"""
    return averaged(first, second, u, q, lambda r: r * first[2] / len(first[0]))


def wrong_first_alpha(first, second, u, q):
    """only the first one's factor"""
    s = first[2] / len(first[0])
    return whole(first, (*second[:2], s * len(second[0])), u, q)


def wrong_cut_before(first, second, u, q):
    """each is cut by itself"""
    if q is None:
        return whole(first, second, u, q)
    cut = [truncated(alpha / len(a) * b @ a, q) for a, b, alpha in (first, second)]
    return whole(*cut, u, None)


def wrong_smallest(*args):
    """the smallest singular values"""
    first, second, u, q = args
    r = len(first[0]) + len(second[0])
    return altered(keep=lambda v, q: v[:r][-q:])(*args)


def wrong_smallest_of_all(*args):
    """the smallest singular values"""
    return altered(keep=lambda v, q: v[-q:])(*args)


def wrong_values_lost(*args):
    """the singular values are lost"""
    return altered(root=torch.ones_like, other=torch.ones_like)(*args)


def wrong_values_twice(*args):
    """or there twice"""
    return altered(root=lambda S: S, other=lambda S: S)(*args)


def wrong_one_root(*args):
    """the singular values are lost"""
    return altered(other=torch.ones_like)(*args)


def wrong_not_cut(first, second, u, q):
    """nothing is cut"""
    return whole(first, second, u, None)


def wrong_full_size(first, second, u, q):
    """keep q rows of A"""
    if q is None:
        return whole(first, second, u, q)
    A, B, _ = truncated(torch.matmul(*side_by_side(first, second, (1 - u, u))[::-1]), None)
    rest = torch.arange(len(A)) < q
    return A * rest[:, None], B * rest, len(A)


def wrong_all_in_b(*args):
    """do not share the singular values evenly"""
    return altered(root=torch.ones_like, other=lambda S: S)(*args)


def wrong_order(*args):
    """do not share the singular values evenly"""
    first, second, u, q = args
    return altered(keep=lambda v, q: v[:q].flip(0))(*args)


def wrong_alpha_kept(first, second, u, q):
    """alpha is the rank of the result"""
    s = first[2] / len(first[0])
    A, B, r = whole(first, second, u, q)
    return A, B / s, s * r


def wrong_alpha_one(first, second, u, q):
    """alpha is the rank of the result"""
    A, B, r = whole(first, second, u, q)
    return A, B, 1.0


def wrong_rank_of_one(first, second, u, q):
    """all ranks stay"""
    return whole(first, second, u, max(len(first[0]), len(second[0])) if q is None else q)


def wrong_axes(first, second, u, q):
    """the first axis of A and the second of B"""
    A = torch.cat([first[0], second[0]], 1)
    B = torch.cat([first[1], second[1]], 1)
    return A, B, len(A)


def wrong_without_none(first, second, u, q):
    """where there is no q, nothing is cut"""
    A, B = side_by_side(first, second, (1 - u, u))
    A, B, _ = truncated(B @ A, None)
    keep = torch.tensor([k < q for k in range(len(A))])
    return A[keep], B[:, keep], q


def wrong_two(*args):
    """A, B and alpha are returned"""
    return whole(*args)[:2]


def wrong_update(first, second, u, q):
    """A, B and alpha are returned"""
    A, B = side_by_side(first, second, (1 - u, u))
    return B @ A


def wrong_library(first, second, u, q):
    """own refuses while your answer runs"""
    from coursekit.nets.lora import Factors, Lora
    from coursekit.nets.lora import mix as theirs

    mixed = theirs(*(Lora({"x": Factors(*f)}) for f in (first, second)), u).layers["x"]
    return mixed.A, mixed.B, mixed.alpha
