"""Answers to 02-3: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def scales(schedule, t):
    level = schedule.level(t)
    return math.sqrt(level), math.sqrt(1 - level)


def through(out, x, a, b, said, asked):
    """By way of picture and noise."""
    if said == asked:
        return out
    if said == "eps":
        x0, eps = (x - b * out) / a, out
    elif said == "x0":
        x0, eps = out, (x - a * out) / b
    else:
        x0, eps = a * x - b * out, b * x + a * out
    return {"x0": x0, "eps": eps, "v": a * eps - b * x0}[asked]


def wrong_swapped_names(schedule, out, x, t, said, asked):
    """`said` and `asked` have changed places"""
    return through(out, x, *scales(schedule, t), asked, said)


def wrong_sign_of_v(schedule, out, x, t, said, asked):
    """the sign of v is the other way round"""
    a, b = scales(schedule, t)
    if said == asked:
        return out
    if said == "v":
        return through(-out, x, a, b, "v", asked)
    return -through(out, x, a, b, said, "v") if asked == "v" else through(out, x, a, b, said, asked)


def wrong_levels(schedule, out, x, t, said, asked):
    """is its square root"""
    level = schedule.level(t)
    if said == "v" and asked == "x0":
        return level * x - (1 - level) * out
    det = level**2 + (1 - level) ** 2
    if said == "v" and asked == "eps":
        return ((1 - level) * x + level * out) / det
    return through(out, x, level, 1 - level, said, asked)


def wrong_scales(schedule, out, x, t, said, asked):
    """the two scales have changed places"""
    b, a = scales(schedule, t)
    return through(out, x, a, b, said, asked)


def wrong_place(schedule, out, x, t, said, asked):
    """read one place off"""
    return through(out, x, *scales(schedule, t - 1), said, asked)


def wrong_always_noise(schedule, out, x, t, said, asked):
    """taken for the noise whatever"""
    return through(out, x, *scales(schedule, t), "eps", asked)


def wrong_always_to_noise(schedule, out, x, t, said, asked):
    """the noise comes back whatever"""
    return through(out, x, *scales(schedule, t), said, "eps")


def wrong_always_to_picture(schedule, out, x, t, said, asked):
    """the picture comes back whatever"""
    return through(out, x, *scales(schedule, t), said, "x0")


def wrong_always_to_v(schedule, out, x, t, said, asked):
    """v comes back whatever"""
    return through(out, x, *scales(schedule, t), said, "v")


def wrong_undivided(schedule, out, x, t, said, asked):
    """a division is missing"""
    a, b = scales(schedule, t)
    if (said, asked) == ("eps", "x0"):
        return x - b * out
    return x - a * out if (said, asked) == ("x0", "eps") else through(out, x, a, b, said, asked)


def wrong_v_from_x(schedule, out, x, t, said, asked):
    """v is a mixture of noise and picture"""
    a, b = scales(schedule, t)
    if asked == "v" and said == "eps":
        return a * out - b * x
    if asked == "v" and said == "x0":
        return a * x - b * out
    return through(out, x, a, b, said, asked)


def wrong_by_way_of_the_noise(schedule, out, x, t, said, asked):
    """a way to the picture without any division"""
    a, b = scales(schedule, t)
    eps = through(out, x, a, b, said, "eps")
    return out if said == asked else through(eps, x, a, b, "eps", asked)


def wrong_no_op(schedule, out, x, t, said, asked):
    """out comes back as it is"""
    return out


def wrong_nothing(schedule, out, x, t, said, asked):
    """is there a return"""
    a, b = scales(schedule, t)
    if (said, asked) == ("eps", "x0"):
        return (x - b * out) / a


def wrong_library(schedule, out, x, t, said, asked):
    """refuses while your answer runs"""
    from coursekit.diffusion.predict import from_eps, to_eps

    return from_eps(schedule, asked, to_eps(schedule, said, out, x, t), x, t)


def right_pair(schedule, out, x, t, said, asked):
    return through(out, x, *scales(schedule, t), said, asked)


def right_table(schedule, out, x, t, said, asked):
    a, b = scales(schedule, t)
    ways = {"eps x0": lambda: (x - b * out) / a, "x0 eps": lambda: (x - a * out) / b,
            "v x0": lambda: a * x - b * out, "v eps": lambda: b * x + a * out,
            "eps v": lambda: (out - b * x) / a, "x0 v": lambda: (a * x - out) / b}
    return out.clone() if said == asked else ways[f"{said} {asked}"]()


def right_solve(schedule, out, x, t, said, asked):
    a, b = scales(schedule, t)
    rows = {"x": [a, b], "x0": [1.0, 0.0], "eps": [0.0, 1.0], "v": [-b, a]}
    known = torch.tensor([rows["x"], rows[said]], dtype=torch.float64)
    p, q = torch.linalg.solve(known.T, torch.tensor(rows[asked], dtype=torch.float64)).tolist()
    return p * x + q * out
