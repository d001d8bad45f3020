"""Answers to 09-4: wrong_* must be told what their docstring says, right_* must pass."""

import difflib
from functools import cache


def placed(pairs, new):
    """A list with the place of each new word, from pairs (i, j)."""
    out = [None] * len(new)
    for i, j in pairs:
        out[j] = i
    return out


def right_table(old, new):
    """Lengths for beginnings, then back from the end."""
    n, m = len(old), len(new)
    best = [[0] * (m + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            best[i][j] = max(best[i - 1][j], best[i][j - 1],
                             best[i - 1][j - 1] + (old[i - 1] == new[j - 1]))
    out, i, j = [None] * m, n, m
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            out[j] = i
    return out


def right_recursion(old, new):
    @cache
    def pairs(i, j):
        if i == len(old) or j == len(new):
            return ()
        found = [pairs(i + 1, j), pairs(i, j + 1)]
        if old[i] == new[j]:
            found.append(((i, j), *pairs(i + 1, j + 1)))
        return max(found, key=len)

    return placed(pairs(0, 0), new)


def right_growing(old, new):
    """The longest chain among all pairs of equal words."""
    pairs = sorted((i, j) for i, a in enumerate(old) for j, b in enumerate(new) if a == b)
    chains = []
    for i, j in pairs:
        before = [c for c in chains if c[-1][0] < i and c[-1][1] < j]
        chains.append([*max(before, key=len, default=[]), (i, j)])
    return placed(max(chains, key=len, default=[]), new)


def right_needleman(old, new):
    """Scores 1 for a match, -1 for a mismatch, 0 for a gap, as the paper's code has it."""
    n, m = len(old), len(new)
    score = [[0] * (m + 1) for _ in range(n + 1)]
    back = [[""] * (m + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            ways = {"left": score[i][j - 1], "up": score[i - 1][j],
                    "both": score[i - 1][j - 1] + (1 if old[i - 1] == new[j - 1] else -1)}
            back[i][j] = max(ways, key=ways.get)
            score[i][j] = ways[back[i][j]]
    out, i, j = [None] * m, n, m
    while i and j:
        way = back[i][j]
        if way == "both" and old[i - 1] == new[j - 1]:
            out[j - 1] = i - 1
        i, j = i - (way in ("both", "up")), j - (way in ("both", "left"))
    return out


def wrong_index(old, new):
    """each word takes the first one like it"""
    return [old.index(word) if word in old else None for word in new]


def wrong_dictionary(old, new):
    """each word takes the last one like it"""
    place = {word: i for i, word in enumerate(old)}
    return [place.get(word) for word in new]


def wrong_zip(old, new):
    """words are compared place by place"""
    out = [i if a == b else None for i, (a, b) in enumerate(zip(old, new))]
    return out + [None] * (len(new) - len(out))


def wrong_greedy(old, new):
    """each word takes the next one like it that is left"""
    out, i = [], 0
    for word in new:
        rest = old[i:]
        if word in rest:
            i += rest.index(word)
            out.append(i)
            i += 1
        else:
            out.append(None)
    return out


def wrong_difflib(old, new):
    """the longest run is taken first"""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return placed([(a + k, b + k) for a, b, n in matcher.get_matching_blocks()
                   for k in range(n)], new)


def wrong_ends_alone(old, new):
    """what the sentences begin and end with alike"""
    out, k = [None] * len(new), 0
    while k < min(len(old), len(new)) and old[k] == new[k]:
        out[k] = k
        k += 1
    i, j = len(old), len(new)
    while i > k and j > k and old[i - 1] == new[j - 1]:
        i, j = i - 1, j - 1
        out[j] = i
    return out


def wrong_replacement(old, new):
    """in a refinement it is new"""
    out = right_table(old, new)
    at = 0
    for j in range(len(new)):
        if out[j] is not None:
            at = out[j] + 1
            continue
        after = next((i for i in out[j:] if i is not None), len(old))
        if at < after:
            out[j], at = at, at + 1
    return out


def wrong_minus_one(old, new):
    """a new word has None"""
    return [-1 if i is None else i for i in right_table(old, new)]


def wrong_start(old, new):
    """the places count the start token"""
    return [None if i is None else i + 1 for i in right_table(old, new)]


def wrong_exchanged(old, new):
    """the two sentences have changed places"""
    return right_table(new, old)


def wrong_pairs(old, new):
    """a place or None"""
    return [(i, j) for j, i in enumerate(right_table(old, new)) if i is not None]


def wrong_shorter(old, new):
    """a place or None"""
    return [i for i in right_table(old, new) if i is not None]


def wrong_nothing(old, new):
    """nothing is found"""
    return [None] * len(new)


def wrong_library(old, new):
    """own refuses while your answer runs"""
    from coursekit.nets.words import common

    return placed(common(old, new), new)
