"""Answers to 09-2: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def gated(new, M_target, open_):
    return torch.where(open_, new, M_target)


def right_plain(M, M_target, R, own, c, open_):
    return gated(c * (M @ R + M_target * own), M_target, open_)


def right_columns(M, M_target, R, own, c, open_):
    columns = []
    for j in range(len(c)):
        column = M_target[..., j]
        if open_[j]:
            column = c[j] * ((M * R[:, j]).sum(-1) + own[j] * column)
        columns.append(column)
    return torch.stack(columns, -1)


def right_shares(M, M_target, R, own, c, open_):
    a = open_.to(M.dtype)
    hat = torch.einsum("bhni,ij->bhnj", M, R * c) + M_target * own * c
    return a * hat + (1 - a) * M_target


def wrong_transposed(M, M_target, R, own, c, open_):
    """R is applied the wrong way round"""
    return gated(c * (M @ R.T + M_target * own), M_target, open_)


def wrong_no_own(M, M_target, R, own, c, open_):
    """new words get nothing"""
    return gated(c * (M @ R), M_target, open_)


def wrong_own_of_source(M, M_target, R, own, c, open_):
    """new words take the source's map"""
    return gated(c * (M @ R + M * own), M_target, open_)


def wrong_added(M, M_target, R, own, c, open_):
    """the whole map of the target is added"""
    return gated(c * (M @ R + M_target), M_target, open_)


def wrong_exchanged(M, M_target, R, own, c, open_):
    """the two maps have changed places"""
    return gated(c * (M_target @ R + M * own), M_target, open_)


def wrong_target_mapped(M, M_target, R, own, c, open_):
    """the target's is not mapped"""
    return gated(c * (M_target @ R + M_target * own), M_target, open_)


def wrong_unmapped(M, M_target, R, own, c, open_):
    """R says which token takes which"""
    return gated(c * torch.where(own.bool(), M_target, M), M_target, open_)


def wrong_empty_columns(M, M_target, R, own, c, open_):
    """own says which ones are"""
    return gated(c * torch.where(R.any(0), M @ R, M_target), M_target, open_)


def wrong_no_factors(M, M_target, R, own, c, open_):
    """c has no effect"""
    return gated(M @ R + M_target * own, M_target, open_)


def wrong_factor_of_mapped(M, M_target, R, own, c, open_):
    """c does not reach new words"""
    return gated(c * (M @ R) + M_target * own, M_target, open_)


def wrong_factor_of_source(M, M_target, R, own, c, open_):
    """c multiplies the source's tokens"""
    return gated((c * M) @ R + c * M_target * own, M_target, open_)


def wrong_normalised(M, M_target, R, own, c, open_):
    """the rows were made to sum to one again"""
    out = right_plain(M, M_target, R, own, c, open_)
    return out / out.sum(-1, keepdim=True)


def wrong_factor_everywhere(M, M_target, R, own, c, open_):
    """c multiplies closed tokens, too"""
    return c * gated(M @ R + M_target * own, M_target, open_)


def wrong_closed_source(M, M_target, R, own, c, open_):
    """closed tokens take the source's map"""
    return gated(c * (M @ R + M_target * own), M, open_)


def wrong_closed_zero(M, M_target, R, own, c, open_):
    """closed tokens get nothing"""
    return open_ * c * (M @ R + M_target * own)


def wrong_no_window(M, M_target, R, own, c, open_):
    """the windows have no effect"""
    return c * (M @ R + M_target * own)


def wrong_window_turned(M, M_target, R, own, c, open_):
    """open and closed have changed places"""
    return gated(c * (M @ R + M_target * own), M_target, ~open_)


def wrong_in_place(M, M_target, R, own, c, open_):
    """changes its argument M_target in place"""
    M_target[..., open_] = (c * (M @ R + M_target * own))[..., open_]
    return M_target


def wrong_library(M, M_target, R, own, c, open_):
    """own refuses while your answer runs"""
    from coursekit.edits.p2p import mixing

    mix, keep = mixing(R[None], own[None], c[None], open_.to(c)[None])
    return M @ mix[0] + M_target * keep[0]
