"""Answers to 09-6: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def edited(M, M_target, R, own, c, open_):
    return torch.where(open_, c * (M @ R + M_target * own), M_target)


def answer(qkv_of, probs_of):
    """An answer from what is done with a layer's parts; both get the arguments first."""
    def controller(i, b, R, own, c, open_, itself, largest):
        given = (i, b, R, own, c, open_, itself, largest)

        def qkv(site, q, k, v):
            return qkv_of(given, site, q, k, v)

        def probs(site, A):
            return probs_of(given, A)

        return qkv, probs
    return controller


def lent(b, *parts):
    """Parts in which the targets have what the sources have."""
    return tuple(torch.cat([x[:-b], x[-2 * b:-b]]) for x in parts)


def good_qkv(given, site, q, k, v):
    i, b, *_, itself, largest = given
    n = site.size[0] * site.size[1]
    if not site.is_cross and itself[i] and n <= largest:
        q, k = lent(b, q, k)
    return q, k, v


def good_probs(given, A):
    i, b, R, own, c, open_, *_ = given
    return torch.cat([A[:-b], edited(A[-2 * b:-b], A[-b:], R, own, c, open_[i])])


def right_plain(*given):
    return answer(good_qkv, good_probs)(*given)


def right_by_shapes(i, b, R, own, c, open_, itself, largest):
    """Sizes read off the queries; a clone that is written into."""
    def probs(site, A):
        out = A.clone()
        out[-b:] = edited(A[-2 * b:-b], A[-b:], R, own, c, open_[i])
        return out

    def qkv(site, q, k, v):
        if site.is_cross or not itself[i] or q.shape[2] > largest:
            return q, k, v
        rows = list(range(len(q) - b)) + list(range(len(q) - 2 * b, len(q) - b))
        return q[rows], k[rows], v

    return qkv, probs


class right_object:
    def __new__(cls, i, b, R, own, c, open_, itself, largest):
        self = super().__new__(cls)
        self.b, self.gate, self.now, self.largest = b, open_[i].to(c), bool(itself[i]), largest
        self.mix = R * (self.gate * c)
        self.keep = own * self.gate * c + 1 - self.gate
        return self.qkv, self.probs

    def qkv(self, site, q, k, v):
        h, w = site.size
        if self.now and not site.is_cross and h * w <= self.largest:
            q, k = lent(self.b, q, k)
        return q, k, v

    def probs(self, site, A):
        rest, M, T = A.split([len(A) - 2 * self.b, self.b, self.b])
        return torch.cat([rest, M, M @ self.mix + T * self.keep])


def wrong_first_rows(*given):
    """count from the end"""
    def qkv(given, site, q, k, v):
        i, b, *_, itself, largest = given
        if not site.is_cross and itself[i] and q.shape[2] <= largest:
            q, k = (torch.cat([x[:-b], x[:b]]) for x in (q, k))
        return q, k, v

    def probs(given, A):
        i, b, R, own, c, open_, *_ = given
        return torch.cat([A[:-b], edited(A[:b], A[-b:], R, own, c, open_[i])])

    return answer(qkv, probs)(*given)


def wrong_exchanged(*given):
    """source and target have changed places"""
    def qkv(given, site, q, k, v):
        i, b, *_, itself, largest = given
        if not site.is_cross and itself[i] and q.shape[2] <= largest:
            q, k = (torch.cat([x[:-2 * b], x[-b:], x[-b:]]) for x in (q, k))
        return q, k, v

    def probs(given, A):
        i, b, R, own, c, open_, *_ = given
        new = edited(A[-b:], A[-2 * b:-b], R, own, c, open_[i])
        return torch.cat([A[:-2 * b], new, A[-b:]])

    return answer(qkv, probs)(*given)


def wrong_both_halves(*given):
    """the rows of the negative text are edited, too"""
    def both(f, *parts):
        n = 2 * given[1]
        halves = [f(*some) for some in zip(*(x.split(n) for x in parts), strict=True)]
        if isinstance(halves[0], tuple):
            return tuple(torch.cat(some) for some in zip(*halves, strict=True))
        return torch.cat(halves)

    return answer(lambda given, site, *parts: both(lambda *x: good_qkv(given, site, *x), *parts),
                  lambda given, A: both(lambda x: good_probs(given, x), A))(*given)


def wrong_first_source(*given):
    """the first source"""
    def qkv(given, site, q, k, v):
        i, b, *_, itself, largest = given
        if not site.is_cross and itself[i] and q.shape[2] <= largest:
            q, k = (torch.cat([x[:-b], *[x[-2 * b, None]] * b]) for x in (q, k))
        return q, k, v

    def probs(given, A):
        i, b, R, own, c, open_, *_ = given
        return torch.cat([A[:-b], edited(A[-2 * b, None], A[-b:], R, own, c, open_[i])])

    return answer(qkv, probs)(*given)


def wrong_hop_zero(i, *rest):
    """windows are read at hop 0"""
    return right_plain(0, *rest)


def wrong_next_hop(i, *rest):
    """one hop too late"""
    return right_plain(i + 1, *rest)


def wrong_values(*given):
    """the values were taken over, too"""
    def qkv(given, site, q, k, v):
        taken = good_qkv(given, site, q, k, v)
        return taken if taken[0] is q else lent(given[1], q, k, v)

    return answer(qkv, good_probs)(*given)


def wrong_queries_alone(*given):
    """only the queries were taken over"""
    return answer(lambda given, site, q, k, v: (good_qkv(given, site, q, k, v)[0], k, v),
                  good_probs)(*given)


def wrong_keys_alone(*given):
    """only the keys were taken over"""
    return answer(lambda given, site, q, k, v: (q, *good_qkv(given, site, q, k, v)[1:]),
                  good_probs)(*given)


def wrong_no_self(*given):
    """self-attention is not taken over"""
    return answer(lambda given, site, q, k, v: (q, k, v), good_probs)(*given)


def wrong_self_always(i, b, R, own, c, open_, itself, largest):
    """the window of self-attention has no effect"""
    return right_plain(i, b, R, own, c, open_, torch.ones_like(itself), largest)


def wrong_self_turned(i, b, R, own, c, open_, itself, largest):
    """the window of self-attention is turned about"""
    return right_plain(i, b, R, own, c, open_, ~itself, largest)


def wrong_any_size(i, b, R, own, c, open_, itself, largest):
    """maps of any size were taken over"""
    return right_plain(i, b, R, own, c, open_, itself, 10**9)


def wrong_less(i, b, R, own, c, open_, itself, largest):
    """at most, not less than"""
    return right_plain(i, b, R, own, c, open_, itself, largest - 1)


def wrong_rows(*given):
    """not of rows"""
    def qkv(given, site, q, k, v):
        i, b, *_, itself, largest = given
        if not site.is_cross and itself[i] and site.size[0] <= largest:
            q, k = lent(b, q, k)
        return q, k, v

    return answer(qkv, good_probs)(*given)


def wrong_words_too(*given):
    """qkv leaves those layers alone"""
    def qkv(given, site, q, k, v):
        i, b, *_, itself, largest = given
        if itself[i] and site.size[0] * site.size[1] <= largest:
            q, k = lent(b, q, k)
        return q, k, v

    return answer(qkv, good_probs)(*given)


def wrong_no_words(*given):
    """the attention to words is the target's own"""
    return answer(good_qkv, lambda given, A: A)(*given)


def wrong_twice_source(*given):
    """that of source and source"""
    def probs(given, A):
        i, b, R, own, c, open_, *_ = given
        M = A[-2 * b:-b]
        if not open_[i].any():
            return A
        return torch.cat([A[:-b], edited(M, M, R, own, c, open_[i])])

    return answer(good_qkv, probs)(*given)


def wrong_words_always(i, b, R, own, c, open_, itself, largest):
    """the windows of words have no effect"""
    return right_plain(i, b, R, own, c, torch.ones_like(open_), itself, largest)


def wrong_no_factors(i, b, R, own, c, open_, itself, largest):
    """the factors c have no effect"""
    return right_plain(i, b, R, own, torch.ones_like(c), open_, itself, largest)


def wrong_in_place(*given):
    """what came was written into"""
    def probs(given, A):
        i, b, R, own, c, open_, *_ = given
        A[-b:] = edited(A[-2 * b:-b], A[-b:], R, own, c, open_[i])
        return A

    return answer(good_qkv, probs)(*given)


def wrong_nothing_where_shut(*given):
    """qkv always gives three tensors"""
    def qkv(given, site, q, k, v):
        i, b, *_, itself, largest = given
        if not site.is_cross and itself[i] and q.shape[2] <= largest:
            return *lent(b, q, k), v

    return answer(qkv, good_probs)(*given)


def wrong_no_map_where_shut(*given):
    """probs always gives A or a map in its place"""
    def probs(given, A):
        if given[5][given[0]].any():
            return good_probs(given, A)

    return answer(good_qkv, probs)(*given)


def wrong_four_parts(*given):
    """without guidance there are 2b rows"""
    def probs(given, A):
        i, b, R, own, c, open_, *_ = given
        first, second, M, M_target = A.split(b)
        return torch.cat([first, second, M, edited(M, M_target, R, own, c, open_[i])])

    return answer(good_qkv, probs)(*given)


def wrong_rows_lost(*given):
    """all rows come back"""
    return answer(good_qkv, lambda given, A: good_probs(given, A)[-given[1]:])(*given)


def wrong_one_function(*given):
    """two functions are returned"""
    return answer(good_qkv, good_probs)(*given)[1]


def wrong_library(i, b, R, own, c, open_, itself, largest):
    """own refuses while your answer runs"""
    from coursekit.edits.p2p import _probs, _qkv, mixing

    mix, keep = mixing(R[None], own[None], c[None], open_[i].to(c)[None])
    return _qkv(b, largest, None), _probs(b, mix, keep)
