"""Answers to 04-1: wrong_* must be told what their docstring says, right_* must pass."""


def wrong_twice(path, t0):
    """t0 stands there twice"""
    return [t0] + [t for t in path if t <= t0]


def wrong_without(path, t0):
    """t0 itself is missing"""
    return [t for t in path if t <= t0]


def wrong_strictly_below(path, t0):
    """t0 itself is missing"""
    return [t for t in path if t < t0]


def wrong_above(path, t0):
    """noised to t0 and no further"""
    first = [t for t in path if t >= t0][-1]
    return path[path.index(first):]


def wrong_nearest(path, t0):
    """rounded to the nearest time of the path"""
    first = min(path, key=lambda t: abs(t - t0))
    return path[path.index(first):]


def wrong_strength(path, t0):
    """hops were counted"""
    hops = len(path) - 1
    walked = int(hops * t0 / path[0])
    return path[hops - walked:]


def wrong_one_hop(path, t0):
    """only t0 and the end are left"""
    return [t0, 0]


def wrong_all(path, t0):
    """the whole path came back"""
    return path


def wrong_rising(path, t0):
    """the times rise"""
    return sorted({t for t in path if t < t0} | {t0})


def wrong_end(path, t0):
    """the last time is missing"""
    return [t0, *(t for t in path if 0 < t < t0)]


def wrong_tuple(path, t0):
    """came tuple"""
    return (t0, *(t for t in path if t < t0))


def wrong_nothing(path, t0):
    """is there a return"""
    [t0, *(t for t in path if t < t0)]


def wrong_library(path, t0):
    """own refuses while your answer runs"""
    from coursekit.diffusion.schedule import Schedule
    from coursekit.edits.sdedit import _enter

    return _enter(Schedule.cosine(), t0, path)


def right_unpacked(path, t0):
    return [t0, *(t for t in path if t < t0)]


def right_loop(path, t0):
    times = [t0]
    for t in path:
        if t < times[0]:
            times.append(t)
    return times


def right_set(path, t0):
    return sorted({t0, *filter(lambda t: t <= t0, path)})[::-1]
