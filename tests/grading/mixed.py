"""A class of real notebooks: right, wrong and half-done answers from solutions and mutants."""

import random
import re
from functools import cache

import handed
from coursekit.classroom.check.exercises import exercise, exercises


@cache
def mutants(id, kind):
    """The source of a cell for each right or wrong answer of tests/mutants."""
    source = (handed.MUTANTS / f"ex{id.replace('-', '_')}.py").read_text(encoding="utf-8")
    names = re.findall(rf"(?m)^(?:def|class) ({kind}_\w+)", source)
    return [f"{source}\n\n{exercise(id).name} = {name}\n" for name in names]


def notebooks(n, lab="05", seed=0):
    """n notebooks: a third right throughout, a third wrong in places, a third not finished."""
    dice = random.Random(seed)
    for i in range(n):
        moods = ([1, 0, 0], [3, 2, 0], [3, 1, 3])[i % 3]
        own = {}
        for e in exercises(lab):
            kind = dice.choices(["right", "wrong", "blank"], moods)[0]
            own[f"_{e.id.replace('-', '_')}"] = \
                None if kind == "blank" else dice.choice(mutants(e.id, kind))
        yield f"student{i:03}", handed.notebook(lab, **own)


def hand_in(folder, n, **options):
    """The notebooks as files, a folder a student."""
    for student, content in notebooks(n, **options):
        (folder / student).mkdir(parents=True)
        (folder / student / "05_ddim.ipynb").write_bytes(content)
