"""Answers out of any bytes: found or said to be missing, never guessed, never in unbounded time."""

import copy
import json
import time

import pytest
from pages import BOOKS, CHECKS, cell

from coursekit.classroom.check.exercises import exercises
from coursekit.grading import extract
from coursekit.labs import pristine
from coursekit.labs.notebook import VALUES, loads, written
from coursekit.labs.source import defines, tokens

LAB = pristine.lab("05_ddim")
ANSWER = "def sigma(schedule, t, s, eta):\n    return 42"
BLANK = next(c.source for c in LAB.cells if c.id == "05-1-answer")


@pytest.fixture
def book():
    return copy.deepcopy(LAB)


def answers(notebook, lab="05"):
    return extract.answers(written(notebook), lab)


def dumped(notebook):
    """As `written`, for what cannot be written as UTF-8."""
    return json.dumps(notebook).encode()


# ---- which cell is the answer ----------------------------------------------------------------


def test_an_untouched_lab_has_every_answer_as_handed_out(book):
    result = answers(book)
    assert list(result.sources) == [e.id for e in exercises("05")]
    assert result.sources["05-1"] == BLANK
    assert (result.missing, result.ambiguous, result.found) == ({}, {}, ())


@pytest.mark.parametrize("lab", ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11"])
def test_every_lab_comes_back_whole(lab):
    stem = next(s for s in pristine.known() if s.startswith(lab))
    result = answers(pristine.lab(stem), lab)
    assert len(result.sources) == len(exercises(lab)) and result.found == ()


def no_id(cell):
    del cell["metadata"]["nbgrader"]
    cell["id"] = "mine"


@pytest.mark.parametrize(("strip", "said"), [
    (lambda c: c.update(id="mine"), ()),
    (lambda c: c.metadata.pop("nbgrader"), ()),
    (no_id, ("05-1: found by its name sigma, not in cell 05-1-answer",)),
])
def test_by_grade_id_then_cell_id_then_name(book, strip, said):
    mine = cell(book, "05-1-answer")
    mine.source = ANSWER
    strip(mine)
    result = answers(book)
    assert result.sources["05-1"] == ANSWER and result.found == said


def test_metadata_stripped_from_everything(book):
    cell(book, "05-1-answer").source = ANSWER
    for c in book.cells:
        c.metadata = {}
        del c["id"]
    result = answers(book)
    assert result.sources["05-1"] == ANSWER and len(result.sources) == 6
    assert not result.missing and not result.ambiguous


def test_an_answer_in_a_cell_of_its_own_is_found_by_name(book):
    cell(book, "05-1-answer").source = "# see below"
    extra = copy.deepcopy(cell(book, "setup"))
    extra.id, extra.source = "extra", ANSWER
    book.cells.append(extra)
    assert answers(book).sources["05-1"] == ANSWER


def twice(book, other, id=None):
    """The first answer, and a copy of its cell that holds something else."""
    cell(book, "05-1-answer").source = ANSWER
    again = copy.deepcopy(cell(book, "05-1-answer"))
    again.source, again.id = other, id or "again"
    book.cells.append(again)
    return answers(book)


def test_two_different_answers_are_not_guessed(book):
    result = twice(book, ANSWER.replace("42", "43"))
    assert result.ambiguous == {
        "05-1": "ambiguous: 2 cells have the grade_id 05-1-answer, keep one"}
    assert "05-1" not in result.sources and "05-1" not in result.missing
    assert len(result.sources) == 5, "the others count"


@pytest.mark.parametrize(("other", "words"), [
    (ANSWER + "\n", "2 cells fit and hold the same"),
    (BLANK, "2 cells fit and are as handed out but one, which was taken"),
])
def test_where_there_is_nothing_to_choose_it_is_taken(book, other, words):
    result = twice(book, other)
    assert result.sources["05-1"].strip() == ANSWER and not result.ambiguous
    assert f"05-1: {words}" in result.found


def test_duplicate_cell_ids_without_metadata_are_ambiguous(book):
    cell(book, "05-1-answer").metadata = {}
    assert "2 cells have the cell id" in twice(book, ANSWER + "\n    pass",
                                               "05-1-answer").ambiguous["05-1"]


def test_two_definitions_without_ids_are_ambiguous(book):
    mine = cell(book, "05-1-answer")
    no_id(mine)
    mine.source = ANSWER
    book.cells.append(dict(mine, source=ANSWER + "\n    pass", id="again"))
    assert "2 cells define sigma" in answers(book).ambiguous["05-1"]


def test_an_answer_may_be_deleted_or_retyped(book):
    book.cells.remove(cell(book, "05-1-answer"))
    cell(book, "05-2-answer").cell_type = "markdown"
    cell(book, "05-3-answer").cell_type = "raw"
    result = answers(book)
    assert result.missing == {"05-1": "no cell has the id 05-1-answer or defines sigma",
                              "05-2": "the cell 05-2-answer is no code any more",
                              "05-3": "the cell 05-3-answer is no code any more"}


def test_an_endless_answer_is_refused_alone(book):
    cell(book, "05-1-answer").source = ANSWER + "\n#" + "x" * extract.LONGEST
    result = answers(book)
    assert "100,047 characters: accepted are 100,000" in result.missing["05-1"]
    assert len(result.sources) == 5


def test_an_unknown_lab_is_refused():
    with pytest.raises(ValueError, match="accepted are 01, 02"):
        extract.answers(written(LAB), "99")


# ---- what is odd is said and changes nothing -------------------------------------------------


@pytest.mark.parametrize(("change", "words"), CHECKS.values(), ids=CHECKS)
def test_a_changed_check_is_said_and_changes_no_answer(book, change, words):
    cell(book, "05-1-answer").source = ANSWER
    before = answers(book)
    change(cell(book, "05-1-check"))
    after = answers(book)
    assert (after.sources, after.missing, after.ambiguous) == (before.sources, {}, {})
    assert words in "\n".join(after.found)


@pytest.mark.parametrize(("change", "words"), BOOKS.values(), ids=BOOKS)
def test_a_changed_notebook_is_said_and_changes_no_answer(book, change, words):
    before = answers(book)
    change(book)
    after = answers(book)
    assert after.sources == before.sources and words in "\n".join(after.found)


def test_outputs_change_nothing_and_nothing_is_said(book):
    for c in book.cells:
        if c.cell_type == "code":
            c.outputs, c.execution_count = [{"output_type": "stream", "text": "all done"}], 1
    assert answers(book) == answers(LAB)


EVIL = "\x1b[2J\u202e<script>alert(1)</script>'\"\x00\ud800" + "x" * 10_000


def test_no_text_of_theirs_gets_into_ours(book):
    for c in book.cells:
        c["id"], c.metadata = EVIL, {"tags": [EVIL, "nbval-skip"], "nbgrader": {"grade_id": EVIL}}
    book.metadata.kernelspec = {"name": EVIL}
    book.metadata[EVIL] = EVIL
    result = extract.answers(dumped(book), "05")
    said = "".join((*result.found, *result.missing.values(), *result.ambiguous.values()))
    assert said.isprintable() and said.isascii() and "<" not in said and "xxx" not in said
    assert "a kernel of another name" in said and len(said) < 5000


def test_what_is_said_has_an_end(book):
    tags = {"tags": ["nbval-skip"]}
    book.cells += [{"cell_type": "code", "metadata": tags, "source": "1"}] * 5000
    found = answers(book).found
    assert len(found) == extract.SAID + 1 and found[-1] == "and 4,970 more lines like these"


# ---- any bytes -------------------------------------------------------------------------------


def of(cells, **metadata):
    return json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells}).encode()


def one(source, **more):
    return of([{"cell_type": "code", "metadata": {}, "source": source, **more}])


MALFORMED = {
    "empty": (b"", "is empty"), "spaces": (b" \n", "is empty"),
    "truncated": (written(LAB)[:-200], "is no whole JSON file"),
    "followed by more": (written(LAB) + b"{}", "is no whole JSON file"),
    "binary": (bytes(range(256)) * 1000, "is no whole JSON file"),
    "zeros": (written(LAB) + b"\0" * 512, "is no whole JSON file"),
    "a raw NUL": (one("ab").replace(b"ab", b"a\0b"), "is no whole JSON file"),
    "UTF-16": (written(LAB).decode().encode("utf-16"), "is no whole JSON file"),
    "nbformat 3": (b'{"nbformat": 3, "worksheets": []}',
                   "is of nbformat 3: accepted is nbformat 4, as `jupyter nbconvert"),
    "nbformat 5": (b'{"nbformat": 5, "cells": []}', "is of nbformat 5"),
    "nbformat NaN": (b'{"nbformat": NaN, "cells": []}', "is no notebook"),
    "nbformat huge": (b'{"nbformat": ' + b"4" * 5000 + b', "cells": []}', "is no notebook"),
    "deep": (b"[" * 100_000, "is nested 100,000 deep: accepted are 100"),
    "deep metadata": (of([], a=json.loads("[" * 150 + "]" * 150)), "is nested 152 deep"),
    "busy": (b"[" + b"0," * VALUES + b"0]", "holds 1,000,001 values: accepted are 1,000,000"),
    "quoted": (b'["' + b'","' * 2 * VALUES + b'"]', "quotes: accepted are 4,000,000"),
    "large": (b" " * 20_000_001, "has 20 MB: accepted are 20; clear its outputs"),
    "much code": (one("x" * 1_000_001), "its code has 1,000,001 characters"),
    "source of numbers": (one([1, 2]), "cell 0 has no source"),
    "no source": (of([{"cell_type": "code", "metadata": {}}]), "cell 0 has no source"),
    "odd metadata": (one("1", metadata=3), "cell 0 has no proper metadata"),
    "types": (one("1", cell_type=3), "cell 0 has no type"),
    "odd cells": (b'{"nbformat": 4, "cells": {}}', "it has no list of cells"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_notebook_is_refused_in_one_line(name):
    content, words = MALFORMED[name]
    with pytest.raises(extract.Malformed) as refused:
        extract.answers(content, "05")
    said = str(refused.value)
    assert words in said and said.startswith("the notebook ") and len(said) < 200
    assert "\n" not in said


def test_outputs_that_are_no_text_are_left_as_they_are():
    outputs = [{"text": [1, 2]}, {"data": {"application/json": [{}], "text/plain": ["a", "b"]}}, 3]
    assert loads(one("1", outputs=outputs)).cells[0].outputs == [
        {"text": [1, 2]}, {"data": {"application/json": [{}], "text/plain": "ab"}}, 3]


def test_a_byte_order_mark_is_passed_over():
    assert extract.answers(b"\xef\xbb\xbf" + written(LAB), "05") == answers(LAB)


def test_of_a_key_given_twice_the_last_counts_as_in_jupyter():
    text = one("first", id="05-1-answer").decode()
    doubled = text.replace('"source": "first"', '"source": "first", "source": "last"').encode()
    assert extract.answers(doubled, "05").sources == {"05-1": "last"}
    assert json.loads(doubled)["cells"][0]["source"] == "last"


@pytest.mark.parametrize("odd", ["9" * 6000, "-" + "9" * 6000, "1e999999", "NaN", "-Infinity"])
def test_odd_numbers_change_nothing(odd):
    content = written(LAB).replace(b'"cells": [', b'"odd": %s, "cells": [' % odd.encode(), 1)
    assert extract.answers(content, "05") == answers(LAB)


@pytest.mark.parametrize("odd", [3, None, ["05-1-answer"], {"a": 1}, True])
def test_ids_and_tags_that_are_no_words_are_no_ids(odd):
    content = of([{"cell_type": "code", "id": odd, "source": ANSWER,
                   "metadata": {"tags": odd, "nbgrader": odd, "otter": odd}}], kernelspec=odd)
    assert extract.answers(content, "05").sources == {"05-1": ANSWER}


def test_half_a_surrogate_pair_is_replaced_and_a_nul_is_kept(book):
    cell(book, "05-1-answer").source = ANSWER + "  # \ud800\x00"
    source = extract.answers(dumped(book), "05").sources["05-1"]
    assert source == ANSWER + "  # ?\x00" and source.encode()


def seconds(content):
    begin = time.process_time()
    try:
        extract.answers(content, "05")
    except extract.Malformed:
        pass
    return time.process_time() - begin


@pytest.mark.parametrize("content", [
    of([{"cell_type": "code", "id": str(i), "metadata": {}, "source": "def sigma(): pass"}
        for i in range(10_000)]),
    one("()" * 100_000), one("'''\\" * 100_000), one("\\" * 200_000), one("a=" * 100_000),
    one("#NBVAL_" + "A" * 200_000 + "!"), one("# " * 100_000), one('"' * 200_000),
    one("1e" * 100_000), one("rb" * 100_000), one("def sigma" * 30_000),
    b'"' + b'\\"' * 1_900_000, b'{"a":' * 30_000,
], ids=range(13))
def test_time_is_in_proportion(content):
    assert seconds(content) < 3  # 0.3 s; what goes back and forth over 200,000 takes minutes


# ---- names in code that may be no Python -----------------------------------------------------


@pytest.mark.parametrize(("source", "names"), [
    ("def f(): pass", {"f"}), ("async def f(): pass", {"f"}), ("class A:\n    x = 1", {"A"}),
    ("@jit\ndef f(x,\ny=1):\n    g = 2", {"f"}), ("f = lambda: 0", {"f"}),
    ("a = b = 3", {"a", "b"}),
    ("f: Callable[[int], int] = g", {"f"}), ("f: int", set()), ("a == 3", set()), ("a += 3", set()),
    ("if True:\n    def f(): pass", set()), ("g(\nf=3\n)", set()), ("x = [\nf\n]", {"x"}),
    ('"""\ndef f(): pass\n"""', set()), ("'''\ndef f(): pass\n'''\ng = 1", {"g"}),
    ("# def f(): pass\ng = 1", {"g"}), ("s = 'it\\'s'\nf = 1", {"s", "f"}),
    ("%%time\ndef f(): pass", {"f"}), ("!echo \"it's (\nf = 1", {"f"}),
    ("%matplotlib inline", set()),
    ("def f(:\n  return (\n\ndef g(): pass", {"f", "g"}), ('x = """\ndef f(): pass', {"x", "f"}),
    ("def ſigma(): pass", {"sigma"}), ("f\\\n= 3", {"f"}),
    ("def f(): pass\r\ndef g(): pass", {"f", "g"}),
    ("x = (1,\n% b)\nf = 1", {"x", "f"}), ("", set()), ("]]]\nf = 1", {"f"}),
    ("f.a = 1\nf[0] = 2\n*f, g = 3", set()), ('f"{x["a"]}"\ng = 1', {"g"}),
])
def test_what_a_source_defines(source, names):
    assert defines(source) == names


def test_tokens_are_the_text_and_nothing_else():
    for c in LAB.cells:
        assert "".join(text for _, text in tokens(c.source)) == c.source
    assert loads(written(LAB)) == LAB
