"""What is made of the marks: the same bytes every time, and nobody's words do anything."""

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

import marked
from coursekit.grading import report
from coursekit.grading.names import slug
from coursekit.grading.record import Mark
from coursekit.grading.report import gradebook, overview
from coursekit.grading.report.line import Column, entry
from coursekit.grading.report.text import cell, clean
from coursekit.grading.similar import Alike, Pair
from coursekit.labs.build import SOLUTIONS
from marked import PLAN

PAIR = Pair("anna", "ben", 0.876, 61.4, {"05-2": 1.0, "05-4": 0.5}, ("05-2",))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    report.write(folder, marked.marks(), PLAN)
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(path, encoding="utf-8-sig"):
    with path.open(encoding=encoding, newline="") as stream:
        return list(csv.DictReader(stream))


# ---- the same bytes

def test_equal_marks_give_equal_bytes(out, tmp_path):
    report.write(tmp_path, iter(marked.marks()), PLAN)
    assert files(tmp_path) == files(out) and len(files(out)) == 6 + 2 * len(marked.marks())
    report.write(tmp_path, marked.marks(), PLAN)  # over what is there
    assert files(tmp_path) == files(out)


def test_pages_of_students_who_are_no_longer_there_go(tmp_path):
    report.write(tmp_path, marked.marks(), PLAN)
    (tmp_path / "students/notes.txt").write_text("the instructor's own")
    report.write(tmp_path, marked.marks()[:3], PLAN)
    assert sorted(p.name for p in (tmp_path / "students").iterdir()) == [
        "notes.txt", "student000.html", "student001.html", "student002.html"]
    assert len(list((tmp_path / "gradescope").iterdir())) == 3


def test_a_failure_on_the_way_leaves_every_file_whole(tmp_path):
    report.write(tmp_path, marked.marks(), PLAN)
    before = files(tmp_path)

    def broken():
        yield marked.marks()[0]
        raise OSError("the store is gone")
    with pytest.raises(OSError, match="gone"):
        report.write(tmp_path, broken(), PLAN)
    assert files(tmp_path) == before


def test_what_a_killed_run_left_is_gone_after_the_next(tmp_path):
    report.write(tmp_path, marked.marks(), PLAN)
    before = files(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "students" / f".student001.html.{ended.pid}.part").write_text("<htm")
    report.write(tmp_path, marked.marks(), PLAN)
    assert files(tmp_path) == before


def test_a_class_without_anybody_has_its_outputs(tmp_path):
    report.write(tmp_path, [], PLAN)
    assert rows(tmp_path / "marks.csv") == [] and "0</b>graded" in (
        tmp_path / "overview.html").read_text()


# ---- what stands in them

def test_marks_csv_has_a_row_a_student(out):
    found = {row["student"]: row for row in rows(out / "marks.csv")}
    assert len(found) == len(marked.marks())
    hand, late = found["zz hand"], found["zz late"]
    assert hand["05-2"] == "3" and hand["points"] == hand["before lateness"] == "20"
    assert "05-2: 3 by Prof. X, 2026-05-06" in hand["set by hand"]
    assert (late["before lateness"], late["points"], late["hours late"]) == ("20", "16.5", "26.5")
    assert found["zz two"]["to be looked at"].startswith("2 notebooks could be lab 05")
    for mark in marked.marks(24)[:24]:
        row = found[mark.student]
        assert [row[e.id] for e in mark.record.exercises] == [
            str(e.points) for e in mark.record.exercises]
        assert float(row["points"]) == mark.record.points and row["trust"] == "trusted"


def test_gradescope_gets_the_fields_that_it_documents(out):
    top = {"score", "output", "output_format", "test_output_format", "test_name_format",
           "visibility", "stdout_visibility", "extra_data", "tests"}
    each = {"score", "max_score", "status", "name", "number", "output", "visibility", "extra_data"}
    for mark in marked.marks():
        page = json.loads((out / "gradescope" / f"{slug(mark.student)}.json").read_text())
        assert set(page) == top and page["score"] == mark.final
        assert page["output_format"] == page["test_output_format"] == "text"
        assert [t["number"] for t in page["tests"]] == [c.id for c in PLAN.columns]
        for test, column in zip(page["tests"], PLAN.columns, strict=True):
            assert set(test) == each and test["max_score"] == column.of
            assert test["status"] == ("passed" if test["score"] == column.of else "failed")
    assert sum(t["score"] for t in page["tests"]) == 0  # of one without a record


def test_the_overview_counts_and_names_nobody(out):
    page = (out / "overview.html").read_text()
    assert not any(m.student in page for m in marked.marks()) and "zz" not in page
    view = overview.Overview(out, PLAN)
    for mark in marked.marks():
        view.add(entry(mark, PLAN))
    graded = [m for m in marked.marks() if m.record]
    values = view.values()
    assert (values["n"], values["absent"], values["ungraded"]) == (len(graded), 1, 1)
    assert sum(count for _, count in values["bars"]) == len(graded)
    assert values["bars"][-1] == ("18 to 20", sum(m.final >= 18 for m in graded))
    for i, tally in enumerate(view.tallies):
        made = [m.record.exercises[i] for m in graded]
        for words, counts in values["heat"]:
            alike = [e for e in made if e.verdict in ("wrong", "partial")
                     and (e.mistake or overview.UNKNOWN) == words]
            assert counts[i] == len(alike)
            assert not alike or f"{words} ({len(alike)})" in clean_page(page)
        assert tally.points.total() == len(graded)


def clean_page(page):
    return page.replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")


def test_pairs_that_look_alike_are_listed_without_a_verdict(tmp_path):
    report.write(tmp_path, marked.marks(3), PLAN, Alike((PAIR,), 7, 3))
    (row,) = rows(tmp_path / "similar.csv")
    assert (row["student"], row["other student"], row["share"]) == ("anna", "ben", "0.88")
    assert (row["05-2"], row["05-3"], row["letter for letter"]) == ("1.00", "", "05-2")
    page = (tmp_path / "similar.html").read_text()
    assert "3 students were compared, 7 pairs" in page and "the first 1 are listed" in page
    assert "88 %" in page and "100 %+" in page and 'href="students/anna.html"' in page


@pytest.mark.parametrize("count, of, step", [(0, 9, 0), (1, 100, 1), (50, 100, 3), (9, 9, 6),
                                             (0, 0, 0)])
def test_shades_grow_with_the_share(count, of, step):
    assert overview.shade(count, of) == step


def test_the_listing_begins_with_who_needs_a_look(out):
    page = (out / "index.html").read_text()
    assert "To be looked at: 2" in page
    assert page.index("05-1: tampered") < page.index("Every mark")
    assert f'href="students/{slug("zz two")}.html"' in page


def test_a_mark_set_by_hand_closes_the_matter():
    rude = marked.odd()[2]
    by = replace(marked.odd()[0].overrides[0], exercise="05-1")
    assert entry(rude, PLAN).open == ("05-1: tampered, words about tampered",)
    assert entry(replace(rude, overrides=(by,)), PLAN).open == ()
    other = replace(by, exercise="05-2")
    assert entry(replace(rude, overrides=(other,)), PLAN).open != ()


def test_the_last_of_several_overrides_counts_and_all_are_shown(tmp_path):
    hand = marked.odd()[0]
    later = replace(hand.overrides[0], points=1, reason="looked at again")
    hand = replace(hand, overrides=(*hand.overrides, later))
    assert entry(hand, PLAN).cells[1].points == 1
    report.write(tmp_path, [hand], PLAN)
    page = (tmp_path / f"students/{slug('zz hand')}.html").read_text()
    assert "looked at again" in page and page.count("counts no longer") == 1


def test_without_walls_every_output_says_so(tmp_path):
    report.write(tmp_path, marked.marks(2), replace(PLAN, trusted=False))
    found = files(tmp_path)
    assert len(found) == 6 + 2 * 7
    del found["similar.csv"]  # no marks in it
    for name, content in found.items():
        assert b"untrusted" in content.lower(), name


# ---- strangers' words

BAD = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "a;=1", "a,=1",
       'a"=1', "a\n=cmd|' /C calc'!A0", "\x1b[31m=1", "\u202e=1", "-", "=HYPERLINK(\"x\")"]


@pytest.mark.parametrize("text", BAD, ids=ascii)
def test_no_cell_is_a_formula_in_any_spreadsheet(tmp_path, text):
    odd = replace(marked.marks(1)[0], student=text, source=text, rule=text, problem=text)
    report.write(tmp_path, [odd], PLAN, Alike((replace(PAIR, a=text),), 1, 2))
    for name, encoding in (("marks.csv", "utf-8-sig"), ("nbgrader.csv", "utf-8"),
                           ("similar.csv", "utf-8-sig")):
        content = (tmp_path / name).read_text(encoding)
        for delimiter in ",;\t":  # whichever the reader takes for the end of a cell
            for row in csv.reader(content.splitlines(), delimiter=delimiter):
                for value in row:
                    for part in re.split('[,;"]', value) if delimiter != "," else [value]:
                        assert not re.match(r"\s*[=+\-@\uff1d]", part), (delimiter, value)
        assert len(content.splitlines()) == 2


def test_plain_cells_stay_as_they_are():
    for text in ("Anna-Lena M\u00fcller", "05_ddim.ipynb", "14.5", "a = b", "x@y.org", "O'Neil", ""):
        assert cell(text) == text


def test_what_steers_or_hides_is_taken_out():
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2Jx\x00\u202ey\ud800z") == "red xyz"
    assert clean("\u0915\u094d\u200d\u0937 e\u0301 \U0001f469\u200d\U0001f52c") == \
        "\u0915\u094d\u200d\u0937 e\u0301 \U0001f469\u200d\U0001f52c"


class Tags(HTMLParser):
    ALLOWED = set("html head meta title style body header main footer p h1 h2 h3 strong span b bdi "
                  "table caption thead tbody tr th td article ul li dl dt dd code a div svg desc "
                  "rect text line".split())

    def __init__(self):
        super().__init__()
        self.links, self.text, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            assert not name.startswith("on") and name not in ("src", "style", "srcset"), name
            self.links += [value] if name == "href" else []

    def handle_data(self, data):
        self.text.append(data)


RUDE = ['<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '"><svg onload=alert(1)>',
        "{{ 7 * 7 }}{% raw %}", "javascript:alert(1)", "</style><script>x</script>", "&lt;b&gt;",
        "' onmouseover='x", "\x1b[31mred", "a\x00b", "\u202egnp.exe"]


@pytest.mark.parametrize("text", RUDE, ids=ascii)
def test_no_word_of_a_student_becomes_html(tmp_path, text):
    odd = marked.marks(1)[0]
    exercises = tuple(replace(e, verdict="partial", points=0, words=text, mistake=text, cases=tuple(
        replace(c, what=text, words=text) for c in e.cases)) for e in odd.record.exercises)
    odd = replace(odd, student=text, source=text, rule=text, problem=text, overrides=(
        replace(marked.odd()[0].overrides[0], reason=text, by=text),), record=replace(
            odd.record, exercises=exercises, found=(text,)))
    report.write(tmp_path, [odd], PLAN, Alike((replace(PAIR, a=text),), 1, 2))
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == 4
    for page in pages:
        content = page.read_text()
        tags = Tags()
        tags.feed(content)
        assert tags.tags <= Tags.ALLOWED and "script" not in tags.tags
        assert not any(sign in content for sign in "\x1b\x00\u202e") and "49" not in content
        assert all(re.fullmatch(r"(students/)?[\w.-]+", link) for link in tags.links)
        if page.parent.name == "students":
            assert "".join(tags.text).count(clean(text)) >= 12


def test_a_page_allows_its_own_style_and_nothing_else(out):
    for path in out.rglob("*.html"):
        page = path.read_text()
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
        text = re.search(r"<style>(.*?)</style>", page, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy == (f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
                          "form-action 'none'")
        assert "http:" not in page and "https:" not in page


# ---- nbgrader itself

@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A gradebook with the assignment and nobody in it: nbgrader takes seconds to make a new one."""
    pytest.importorskip("nbgrader")
    path = tmp_path_factory.mktemp("empty") / "gradebook.db"
    assert gradebook.enter(str(path), [], PLAN) == 0
    return path


@pytest.fixture
def book(empty, tmp_path):
    return shutil.copy(empty, tmp_path / "gradebook.db")


def opened(path):
    from nbgrader.api import Gradebook

    return closing(Gradebook(f"sqlite:///{path}"))


@pytest.mark.slow
def test_nbgrader_exports_of_its_gradebook_what_we_export(book, out, tmp_path):
    from nbgrader.plugins import CsvExportPlugin

    plain = [m for m in marked.marks() if m.record and "<" not in m.student]
    assert gradebook.enter(str(book), plain, PLAN) == len(plain)
    with opened(book) as found:
        CsvExportPlugin(to=str(tmp_path / "theirs.csv")).export(found)
    theirs = {row["student_id"]: row for row in rows(tmp_path / "theirs.csv", "utf-8")}
    ours = [r for r in rows(out / "nbgrader.csv", "utf-8") if r["student_id"] in
            {m.student for m in plain}]
    assert len(theirs) == len(ours) == len(plain)
    for row in ours:
        other = theirs[row["student_id"]]
        assert list(row) == list(other) == list(report.nbgrader.HEAD)
        assert {k: number(v) for k, v in row.items()} == {k: number(v) for k, v in other.items()}
    assert theirs["zz late"]["late_submission_penalty"] == "3.5"


def number(text):
    return float(text) if re.fullmatch(r"[\d.]+", text) else text


@pytest.mark.slow
def test_marks_set_by_hand_are_nbgraders_manual_scores(book):
    gradebook.enter(str(book), marked.odd(), PLAN)
    gradebook.enter(f"sqlite:///{book}", marked.odd(), PLAN)  # once more changes nothing
    with opened(book) as found:
        hand = found.find_grade("05-2-check", "05_ddim", "05_ddim", "zz hand")
        assert (hand.auto_score, hand.manual_score, hand.score) == (0, 3, 3)
        look = found.find_grade("05-1-check", "05_ddim", "05_ddim", marked.odd()[2].student)
        assert look.needs_manual_grade and not hand.needs_manual_grade
        assert {s.id for s in found.students} == {m.student for m in marked.odd()[:3]}


@pytest.mark.slow
def test_an_assignment_that_nbgrader_made_of_the_lab_is_used_as_it_is(tmp_path):
    """`nbgrader generate_assignment` of the real solution, then our marks."""
    pytest.importorskip("nbgrader")
    source = tmp_path / "source/05_ddim"
    source.mkdir(parents=True)
    (source / "05_ddim.ipynb").write_bytes((SOLUTIONS / "05_ddim.ipynb").read_bytes())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run([sys.executable, "-m", "nbgrader", "generate_assignment", "05_ddim"], check=True,
                   cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True)
    plain = marked.marks(3)[:3]
    gradebook.enter(str(tmp_path / "gradebook.db"), plain, PLAN)
    with opened(tmp_path / "gradebook.db") as found:
        for mark in plain:
            entered = found.find_submission("05_ddim", mark.student)
            assert (entered.score, entered.max_score) == (mark.record.points, 20)
            assert not entered.needs_manual_grade
        assert len(found.find_assignment("05_ddim").notebooks) == 1


@pytest.mark.slow
def test_what_does_not_fit_the_gradebook_is_refused(book, tmp_path):
    more = replace(PLAN, columns=(*PLAN.columns, Column("05-7", "More", 1)))
    with pytest.raises(ValueError, match="has no cell 05-7-check"):
        gradebook.enter(str(book), [], more)
    first = replace(PLAN.columns[0], of=9)
    with pytest.raises(ValueError, match="gives 05-1-check 2 points, the lab 9"):
        gradebook.enter(str(book), [], replace(PLAN, columns=(first, *PLAN.columns[1:])))
    for where in (tmp_path / "no" / "folder.db", "nonsense://x"):
        with pytest.raises(ValueError, match="--gradebook="):
            gradebook.enter(str(where), [], PLAN)


def test_untrusted_marks_are_not_entered():
    with pytest.raises(ValueError, match="without walls"):
        gradebook.enter("gradebook.db", [], replace(PLAN, trusted=False))


def test_times_are_nbgraders():
    assert report.nbgrader.stamp(datetime(2026, 5, 4, 22, tzinfo=UTC)) == "2026-05-04 22:00:00"
    assert report.nbgrader.stamp(None) == ""
    assert isinstance(marked.odd()[0], Mark)
