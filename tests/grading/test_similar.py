"""Pairs that look alike: copies are seen through their disguises, honest work is not listed."""

import json
import os
import random
import re
import subprocess
import sys
import time

import pytest

from coursekit.grading import similar
from coursekit.grading.extract import given_cells

CELLS = given_cells("05")
GIVEN = [c.source for c in CELLS.values() if c.cell_type == "code"]
BLANK = CELLS["05-5-answer"].source
HEAD = BLANK[:BLANK.index("    # write")]

# The arc between two codes, as five people might write it.
HONEST = [HEAD + body for body in ('''\
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cos = (flat_a * flat_b).sum(1) / (flat_a.norm(dim=1) * flat_b.norm(dim=1))
    phi = torch.arccos(cos.clamp(-1, 1)).reshape(-1, *[1] * (a.dim() - 1))
    arc = (torch.sin((1 - share) * phi) * a + torch.sin(share * phi) * b) / torch.sin(phi)
    return torch.where(phi < 1e-4, (1 - share) * a + share * b, arc)
''', '''\
    out = []
    for p, q in zip(a, b):
        length = math.sqrt(float((p * p).sum()) * float((q * q).sum()))
        angle = math.acos(max(-1.0, min(1.0, float((p * q).sum()) / length)))
        if angle < 1e-4:
            out.append(p + share * (q - p))
        else:
            left = math.sin(angle - share * angle) / math.sin(angle)
            out.append(left * p + math.sin(share * angle) / math.sin(angle) * q)
    return torch.stack(out)
''', '''\
    axes = tuple(range(1, a.ndim))
    inner = torch.sum(a * b, dim=axes, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=axes, keepdim=True)
    norms = norms * torch.linalg.vector_norm(b, dim=axes, keepdim=True)
    theta = torch.acos(torch.clip(inner / norms, min=-1, max=1))
    safe = theta > 1e-4
    bottom = torch.where(safe, theta.sin(), torch.ones_like(theta))
    weights = [torch.where(safe, torch.sin(k * theta) / bottom, torch.full_like(theta, k))
               for k in (1 - share, share)]
    return weights[0] * a + weights[1] * b
''', '''\
    def one(u, v):
        c = torch.dot(u.view(-1), v.view(-1)) / u.norm() / v.norm()
        w = torch.atan2((1 - c ** 2).clamp_min(0).sqrt(), c)
        if w.item() < 0.0001:
            return u.lerp(v, share)
        s = w.sin()
        return u * ((1 - share) * w).sin().div(s) + v * (share * w).sin().div(s)
    return torch.cat([one(u, v)[None] for u, v in zip(a, b)])
''', '''\
    batch = a.shape[0]
    va = torch.nn.functional.normalize(a.view(batch, -1), dim=-1)
    vb = torch.nn.functional.normalize(b.view(batch, -1), dim=-1)
    dots = torch.einsum("ij,ij->i", va, vb).clip(-1, 1)
    angles = dots.acos()
    result = torch.empty_like(a)
    for i in range(batch):
        w = angles[i]
        if w < 1e-4:
            result[i] = torch.lerp(a[i], b[i], share)
            continue
        result[i] = (w * (1 - share)).sin() * a[i] / w.sin() + (w * share).sin() * b[i] / w.sin()
    return result
''')]
ANSWERS = {f"honest {i}": {"05-5": text} for i, text in enumerate(HONEST)}
ANSWERS |= {f"absent {i}": {"05-5": BLANK} for i in range(5)}


def renamed(text):
    names = {"out": "pictures", "p": "first", "q": "second", "angle": "omega", "length": "size",
             "left": "w1", "a": "codes_a", "b": "codes_b", "share": "k"}
    return re.sub(r"\b[a-z_]+\b", lambda m: names.get(m[0], m[0]), text)


def shuffled(text):
    """The branches turned round, and lines of the copier's own before and between."""
    begin, end = text.index("        if angle"), text.index("    return torch.stack")
    turned = ('        print("item")\n        if not angle < 1e-4:\n'
              "            left = math.sin(angle - share * angle) / math.sin(angle)\n"
              "            out.append(left * p + math.sin(share * angle) / math.sin(angle) * q)\n"
              "        else:\n            out.append(p + share * (q - p))\n")
    first = text[:begin].replace("    out", "    assert a.shape == b.shape\n    out", 1)
    return first + turned + text[end:]


DISGUISES = {
    "none": lambda t: t, "names": renamed, "order": shuffled,
    "comments": lambda t: re.sub(r"(?m)$", "  # my own idea", t).replace("#", "#", 1),
    "layout": lambda t: t.replace("    ", "\t").replace(" * ", "*").replace(", ", ",\n\t\t\t"),
    "numbers": lambda t: t.replace("1e-4", "0.00009").replace("-1.0", "-0.999999"),
    "texts": lambda t: t.replace('"""The point', '"""What I wrote. The point'),
    "all": lambda t: re.sub(r"(?m)$", "  # mine", renamed(shuffled(t))).replace("1e-4", "2e-5"),
}


def alike(**more):
    return similar.alike(ANSWERS | {k: {"05-5": t} for k, t in more.items()}, GIVEN)


def test_honest_answers_to_one_exercise_are_not_listed():
    result = alike()
    assert result.pairs == () and (result.found, result.students) == (0, 10)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_copy_is_seen_through_its_disguise(disguise):
    result = alike(copier=DISGUISES[disguise](HONEST[1]))
    assert [(p.a, p.b) for p in result.pairs] == [("copier", "honest 1")]
    pair = result.pairs[0]
    assert pair.share >= (0.6 if disguise in ("order", "all") else 0.8)
    assert pair.exercises == {"05-5": pair.share} and pair.bits >= similar.LEAST_BITS
    assert pair.verbatim == (("05-5",) if disguise == "none" else ())


def test_what_was_handed_out_does_not_count():
    setup = CELLS["judge"].source + "\n" + CELLS["05-6-picture"].source
    two = {"ada": {"05-1": setup}, "bob": {"05-1": setup}}
    assert similar.alike(ANSWERS | two, []).found == 1
    assert similar.alike(ANSWERS | two, GIVEN).found == 0
    assert similar.alike({k: {"05-5": BLANK} for k in "abcdef"}, GIVEN).found == 0


def test_what_most_have_does_not_count_but_a_group_does():
    def class_of(copies):
        many = {f"copy {i}": {"05-5": HONEST[1]} for i in range(copies)}
        rest = {f"blank {i}": {"05-5": BLANK} for i in range(20 - copies)}
        return similar.alike(many | rest, GIVEN).found
    assert class_of(11) == 0 and class_of(5) == 10 and class_of(2) == 1


def test_the_exercises_are_told_apart():
    blank = {f"z{i}": {"05-5": BLANK} for i in range(9)}
    own = {"ada": {"05-4": HONEST[0], "05-5": HONEST[1]},
           "bob": {"05-4": HONEST[2], "05-5": HONEST[1]}, "eve": {"05-4": HONEST[1]}}
    pair, = similar.alike(blank | own, GIVEN).pairs
    assert (pair.a, pair.b) == ("ada", "bob") and pair.exercises["05-5"] == 1
    assert pair.exercises.get("05-4", 0) < 0.2 and 0.3 < pair.share < 0.9
    assert pair.verbatim == ("05-5",)


def test_rare_things_count_more_than_frequent_ones():
    def bits(others):
        group = {f"g{i}": {"05-5": HONEST[1]} for i in range(others)}
        rest = {f"z{i}": {"05-5": BLANK} for i in range(50)}
        result = similar.alike(group | rest | {"ada": {"05-5": HONEST[1]}}, GIVEN)
        return result.pairs[0].bits
    assert bits(1) > bits(3) > bits(9)


def test_shares_and_order():
    result = alike(**{f"copier {i}": DISGUISES["all"](HONEST[1]) for i in range(3)})
    assert result.found == len(result.pairs) == 6
    assert [p.bits for p in result.pairs] == sorted((p.bits for p in result.pairs), reverse=True)
    assert all(p.a < p.b and 0 <= p.share <= 1 for p in result.pairs)
    short = similar.alike(ANSWERS | {k: {"05-5": HONEST[1]} for k in "ab"}, GIVEN, most=1)
    assert len(short.pairs) == 1 and short.found == 3


def test_the_guarantee_of_winnowing():
    """Any K + W - 1 tokens in common, wherever they stand, leave a trace in common."""
    rng = random.Random(0)
    pool = ["+", "-", "*", "/", "(", ")", "[", "]", ".", ",", "if", "for", "in", "torch", "len"]
    for _ in range(100):
        common = [rng.choice(pool) for _ in range(similar.K + similar.W - 1)]
        texts = [" ".join([rng.choice(pool) for _ in range(rng.randrange(60))] + common +
                          [rng.choice(pool) for _ in range(rng.randrange(60))]) for _ in "ab"]
        assert similar.traces(texts[0]) & similar.traces(texts[1])


@pytest.mark.parametrize("text", ["", "x", "\x00" * 100, "(" * 100_000, "'''" + "x" * 100_000,
                                  "a = 1\n" * 100_000, "\ufffd?" * 1000, "def ſ(): pass"])
def test_any_text_has_traces_in_a_short_time(text):
    begin = time.process_time()
    assert all(0 <= trace < 2**64 for trace in similar.traces(text))
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("students", [0, 1, 2, 3])
def test_a_class_of_few(students):
    few = {str(i): {"05-5": HONEST[1], "05-4": HONEST[2]} for i in range(students)}
    assert similar.alike(few, GIVEN).found == {0: 0, 1: 0, 2: 1, 3: 0}[students]
    assert similar.alike({k: {} for k in few}, GIVEN).found == 0


def test_the_result_does_not_depend_on_the_order_of_anything():
    more = {f"c{i}": DISGUISES["all"](HONEST[1]) for i in range(3)}
    more |= {"x": HONEST[2] + HONEST[3], "y": HONEST[2] + HONEST[0]}
    page = json.dumps([ANSWERS | {k: {"05-5": t} for k, t in more.items()}, GIVEN])
    code = ("import json, sys; from coursekit.grading.similar import alike\n"
            "print(alike(*json.load(sys.stdin)))")
    said = {subprocess.run([sys.executable, "-c", code], input=page, capture_output=True, text=True,
                           check=True, env=os.environ | {"PYTHONHASHSEED": str(seed)}).stdout
            for seed in (1, 2)}
    assert len(said) == 1 and "Pair(" in said.pop()
    turned = dict(reversed(ANSWERS.items())) | {"ada": {"05-5": HONEST[4]}}
    forth = {"ada": {"05-5": HONEST[4]}} | ANSWERS
    assert similar.alike(turned, GIVEN) == similar.alike(forth, GIVEN)


def test_blocks_are_seamless(monkeypatch):
    many = {f"s{i:02}": {"05-5": HONEST[i % 5] if i % 7 else BLANK} for i in range(40)}
    whole = similar.alike(many, GIVEN)
    monkeypatch.setattr(similar, "BLOCK", 7)
    assert similar.alike(many, GIVEN) == whole and whole.found > 50


def test_a_class_of_two_hundred_takes_a_moment():
    rng = random.Random(1)

    def own():
        lines = [f"    v{i} = torch.{rng.choice(['sin', 'cos', 'exp', 'sqrt'])}(x)"
                 f" {rng.choice('+-*/')} {rng.choice(['a', '2', 't[0]', 'f(x)'])}"
                 for i in range(9)]
        return HEAD + "\n".join(lines)

    many = {f"s{i}": {id: own() for id in ("05-1", "05-5")} for i in range(200)}
    many["copier"] = many["s7"]
    begin = time.process_time()
    result = similar.alike(many, GIVEN)
    assert time.process_time() - begin < 5  # 0.2 s
    assert (result.pairs[0].a, result.pairs[0].b) == ("copier", "s7")
