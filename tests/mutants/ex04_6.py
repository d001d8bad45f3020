"""Answers to 04-6: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def k(x, y, power=3, one=1.0):
    return (x @ y.T / x.shape[1] + one) ** power


def off(matrix):
    return matrix.sum() - matrix.diagonal().sum()


def among(x, **form):
    return off(k(x, x, **form)) / (len(x) * (len(x) - 1))


def wrong_with_itself(a, b):
    """only distinct pairs count"""
    return float(k(a, a).mean() + k(b, b).mean() - 2 * k(a, b).mean())


def wrong_count(a, b):
    """divided by the number of all pairs"""
    return float(off(k(a, a)) / len(a) ** 2 + off(k(b, b)) / len(b) ** 2 - 2 * k(a, b).mean())


def wrong_sum(a, b):
    """in the sum, but not in the count"""
    m, n = len(a), len(b)
    own = k(a, a).sum() / (m * (m - 1)) + k(b, b).sum() / (n * (n - 1))
    return float(own - 2 * k(a, b).mean())


def wrong_cut_at_zero(a, b):
    """may be below zero"""
    return max(0.0, float(among(a) + among(b) - 2 * k(a, b).mean()))


def wrong_absolute(a, b):
    """may be below zero"""
    return abs(float(among(a) + among(b) - 2 * k(a, b).mean()))


def wrong_half(a, b):
    """each pair is counted once"""
    m, n = len(a), len(b)
    own = k(a, a).triu(1).sum() / (m * (m - 1)) + k(b, b).triu(1).sum() / (n * (n - 1))
    return float(own - 2 * k(a, b).mean())


def wrong_cross_once(a, b):
    """the cross term belongs there twice"""
    return float(among(a) + among(b) - k(a, b).mean())


def wrong_cross_sign(a, b):
    """it must be taken off"""
    return float(among(a) + among(b) + 2 * k(a, b).mean())


def wrong_no_cross(a, b):
    """the cross term is missing"""
    return float(among(a) + among(b))


def wrong_sign(a, b):
    """the sign is the other way round"""
    return float(2 * k(a, b).mean() - among(a) - among(b))


def wrong_not_divided(a, b):
    """not divided by the length n of a feature"""
    def p(x, y):
        return (x @ y.T + 1) ** 3

    def own(x):
        return off(p(x, x)) / (len(x) * (len(x) - 1))

    return float(own(a) + own(b) - 2 * p(a, b).mean())


def wrong_rows(a, b):
    """divided by the number of features"""
    def p(x, y):
        return (x @ y.T / len(x) + 1) ** 3

    def own(x):
        return off(p(x, x)) / (len(x) * (len(x) - 1))

    return float(own(a) + own(b) - 2 * p(a, b).mean())


def wrong_no_one(a, b):
    """the one in the kernel is missing"""
    return float(among(a, one=0) + among(b, one=0) - 2 * k(a, b, one=0).mean())


def wrong_power(a, b):
    """the third power is missing"""
    return float(among(a, power=1) + among(b, power=1) - 2 * k(a, b, power=1).mean())


def wrong_square(a, b):
    """the power is three, not two"""
    return float(among(a, power=2) + among(b, power=2) - 2 * k(a, b, power=2).mean())


def wrong_tensor(a, b):
    """float(..) makes it one"""
    return among(a) + among(b) - 2 * k(a, b).mean()


def wrong_nothing(a, b):
    """is there a return"""
    float(among(a) + among(b) - 2 * k(a, b).mean())


def right_matrices(a, b):
    return float(among(a) + among(b) - 2 * k(a, b).mean())


def right_loops(a, b):
    def inside(x):
        found = [float(torch.dot(u, v) / len(u) + 1) ** 3
                 for i, u in enumerate(x) for j, v in enumerate(x) if i != j]
        return sum(found) / len(found)

    across = [(float((u * v).mean()) + 1) ** 3 for u in a for v in b]
    return inside(a) + inside(b) - 2 * sum(across) / len(across)


def right_masked_mean(a, b):
    def inside(x):
        apart = ~torch.eye(len(x), dtype=torch.bool)
        return k(x, x)[apart].mean()

    return (inside(a) + inside(b) - 2 * k(a, b).mean()).item()
