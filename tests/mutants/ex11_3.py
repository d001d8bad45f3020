"""Answers to 11-3: wrong_* must be told what their docstring says, right_* must pass."""

import math

import torch


def count(share, S):
    return math.floor(share * S + 1e-9)


def logspace(K):
    return [10 ** (k / K - 1) for k in range(K + 1)]


def predictor(eps, prompt, path, K, w, strength, window, both, fade, *, factors=logspace,
              faded=lambda fade: fade, inside=lambda i, a, b, S: count(a, S) <= i < count(b, S),
              times=lambda strength, f, fade: strength * f,
              negative=lambda both, scales: scales if both else None,
              positive=lambda both, scales: scales, mix=lambda n, p, w: n + w * (p - n),
              away="", hop=lambda path, t: path.index(t)):
    S = len(path) - 1
    made = factors(K) if faded(fade) else [1.0] * (K + 1)
    scales = [times(strength, f, fade) for f in made]

    def steer(z, t):
        on = scales if inside(hop(path, t), *window, S) else None
        n = eps(z, t, prompt if away is None else away, negative(both, on) if on else None)
        p = eps(z, t, prompt, positive(both, on) if on else None)
        return mix(n, p, w)

    return steer


def altered(**how):
    return lambda *args: predictor(*args, **how)


def right_plain(eps, prompt, path, K, w, strength, window, both, fade):
    return predictor(eps, prompt, path, K, w, strength, window, both, fade)


def right_torch(eps, prompt, path, K, w, strength, window, both, fade):
    """Factors by logspace, the set of times in which the hint acts, zeros for no hint."""
    S = len(path) - 1
    first, end = (int(share * S + 1e-6) for share in window)
    acting = set(path[first:end])
    rows = torch.logspace(-1, 0, K + 1) if fade else torch.ones(K + 1)

    def steer(z, t):
        scales = strength * rows * (t in acting)
        bare = torch.zeros(K + 1)
        return (1 - w) * eps(z, t, "", scales if both else bare) + w * eps(z, t, prompt, scales)

    return steer


def right_window_of_whole_hops(eps, prompt, path, K, w, strength, window, both, fade):
    """One pass where w is one; hops as a list."""
    S = len(path) - 1
    open_ = [(i + 1) > 0 and count(window[0], S) <= i < count(window[1], S) for i in range(S)]
    scales = tuple(strength * (0.1 ** (1 - k / K) if fade else 1) for k in range(K + 1))

    class Steered:
        def __call__(self, z, t):
            on = scales if open_[path.index(t)] else (0,) * (K + 1)
            p = eps(z, t, prompt, on)
            if w == 1:
                return p
            return torch.lerp(eps(z, t, "", on if both else None), p, w)

    return Steered()


def wrong_always_both(*args):
    """the hint is in the negative half, too"""
    return altered(negative=lambda both, s: s)(*args)


def wrong_never_both(*args):
    """the hint is missing in the negative half"""
    return altered(negative=lambda both, s: None)(*args)


def wrong_both_turned(*args):
    """`both` is turned about"""
    return altered(negative=lambda both, s: None if both else s)(*args)


def wrong_negative_alone(*args):
    """in the negative half alone"""
    return altered(negative=lambda both, s: s,
                   positive=lambda both, s: s if both else None)(*args)


def wrong_no_hint(*args):
    """the hint has no effect"""
    return altered(negative=lambda both, s: None, positive=lambda both, s: None)(*args)


def wrong_falling(*args):
    """the factors fall"""
    return altered(factors=lambda K: logspace(K)[::-1])(*args)


def wrong_not_to_one(*args):
    """the factors do not reach one"""
    return altered(factors=lambda K: [10 ** (k / (K + 1) - 1) for k in range(K + 1)])(*args)


def wrong_even_steps(*args):
    """the factors rise by the same amount"""
    return altered(factors=lambda K: torch.linspace(0.1, 1, K + 1).tolist())(*args)


def wrong_growing(*args):
    """the factors begin at one"""
    return altered(factors=lambda K: [10 ** (k / K) for k in range(K + 1)])(*args)


def wrong_powers_of_e(*args):
    """the factors are powers of e"""
    return altered(factors=lambda K: [math.e ** (k / K - 1) for k in range(K + 1)])(*args)


def wrong_always_faded(*args):
    """where `fade` says so, and there alone"""
    return altered(faded=lambda fade: True)(*args)


def wrong_never_faded(*args):
    """`fade` has no effect"""
    return altered(faded=lambda fade: False)(*args)


def wrong_fade_turned(*args):
    """`fade` is turned about"""
    return altered(faded=lambda fade: not fade)(*args)


def wrong_no_strength(*args):
    """the strength has no effect"""
    return altered(times=lambda strength, f, fade: f)(*args)


def wrong_strength_or_fade(eps, prompt, path, K, w, strength, window, both, fade):
    """the two are multiplied"""
    scales = logspace(K)[:-1] + [strength] if fade else [strength] * (K + 1)
    return altered(factors=lambda K: scales, faded=lambda fade: True,
                   times=lambda strength, f, fade: f)(
        eps, prompt, path, K, w, strength, window, both, fade)


def wrong_strength_added(eps, prompt, path, K, w, strength, window, both, fade):
    """strength and factor are added"""
    return altered(times=lambda strength, f, fade: strength + f if f < 1 else strength)(
        eps, prompt, path, K, w, strength, window, both, fade)


def wrong_strength_twice(*args):
    """the strength is multiplied twice"""
    return altered(times=lambda strength, f, fade: strength * strength * f)(*args)


def wrong_no_window(*args):
    """the window has no effect"""
    return altered(inside=lambda i, a, b, S: True)(*args)


def wrong_window_turned(*args):
    """the window is turned about"""
    return altered(inside=lambda i, a, b, S: i < count(a, S) or i >= count(b, S))(*args)


def wrong_too_long(*args):
    """the window is a hop too long"""
    return altered(inside=lambda i, a, b, S: count(a, S) <= i <= count(b, S))(*args)


def wrong_too_late(*args):
    """the window begins a hop too late"""
    return altered(inside=lambda i, a, b, S: count(a, S) < i < count(b, S))(*args)


def wrong_no_beginning(*args):
    """the beginning of the window has no effect"""
    return altered(inside=lambda i, a, b, S: i < count(b, S))(*args)


def wrong_no_end(*args):
    """the end of the window has no effect"""
    return altered(inside=lambda i, a, b, S: i >= count(a, S))(*args)


def wrong_clean_end(*args):
    """counted from the clean end"""
    return altered(inside=lambda i, a, b, S: count(a, S) <= S - 1 - i < count(b, S))(*args)


def wrong_shares(*args):
    """shares are not compared themselves"""
    return altered(inside=lambda i, a, b, S: a <= i / S + 1e-12 and i / S + 1e-12 < b)(*args)


def wrong_rounded(*args):
    """cut off, not rounded"""
    return altered(inside=lambda i, a, b, S: round(a * S) <= i < round(b * S))(*args)


def wrong_rounded_up(*args):
    """cut off, not rounded"""
    return altered(inside=lambda i, a, b, S: math.ceil(round(a * S, 6)) <= i
                   < math.ceil(round(b * S, 6)))(*args)


def wrong_times(*args):
    """not of the times"""
    return altered(inside=lambda t, a, b, S: count(a, S) <= (1000 - t) / 1000 * S < count(b, S),
                   hop=lambda path, t: t)(*args)


def counting(step):
    def answer(*args):
        calls = iter(range(10**6))
        return altered(hop=lambda path, t: step(next(calls), len(path) - 1))(*args)
    return answer


def wrong_by_calls(*args):
    """windows are counted by calls"""
    return counting(lambda n, S: n)(*args)


def wrong_by_calls_in_a_circle(*args):
    """windows are counted by calls"""
    return counting(lambda n, S: n % S)(*args)


def wrong_no_guidance(*args):
    """there is no guidance"""
    return altered(mix=lambda n, p, w: p)(*args)


def wrong_ends(*args):
    """the two ends of guidance have changed places"""
    return altered(mix=lambda n, p, w: p + w * (n - p))(*args)


def wrong_too_strong(*args):
    """too strong by one"""
    return altered(mix=lambda n, p, w: p + w * (p - n))(*args)


def wrong_words_twice(*args):
    """the negative half has the words as well"""
    return altered(away=None)(*args)


def wrong_one_number(*args):
    """scales are K + 1 numbers"""
    return altered(negative=lambda both, s: s[0], positive=lambda both, s: s[0])(*args)


def wrong_too_few(*args):
    """scales are K + 1 numbers"""
    return altered(factors=lambda K: logspace(K)[:-1], faded=lambda fade: True)(*args)


def wrong_value(eps, prompt, path, *rest):
    """a function of z and t is asked for"""
    return predictor(eps, prompt, path, *rest)(torch.zeros(1, 2, 3).to(eps.added), path[0])


def wrong_library(eps, prompt, path, K, w, strength, window, both, fade):
    """own refuses while your answer runs"""
    from coursekit.diffusion.predict import guided

    scales = [strength] * (K + 1)
    return guided(lambda z, t: eps(z, t, "", scales), lambda z, t: eps(z, t, prompt, scales), w)
