"""Any layout, any archive: each student's own notebook or the reason why not; nobody else's."""

import io
import os
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from coursekit.grading import archive, intake, layout, names, roster
from coursekit.labs import pristine
from coursekit.labs.notebook import written


def book(lab="05", words=""):
    """A small notebook with a cell of a lab's."""
    return (b'{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {}, '
            b'"id": "%s-1-answer", "source": "%s"}]}' % (lab.encode(), words.encode()))


BLANK, OTHER = book(), book("03")
ADA, BOB = book(words="Ada"), book(words="Bob")
NO_IDS = b'{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": "%s"}]}'


def zipped(entries):
    """A zip of names -> bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return stream.getvalue()


def tarred(path, entries, mode):
    with tarfile.open(path, mode) as out:
        for name, content in entries.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def foldered(path, entries):
    for name, content in entries.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def stored(tmp_path, entries, kind):
    """The entries as a folder or as an archive of some kind."""
    path = tmp_path / f"all.{kind}"
    if kind == "folder":
        foldered(path, entries)
    elif kind == "zip":
        path.write_bytes(zipped(entries))
    else:
        tarred(path, entries, "w:gz" if kind == "tar.gz" else "w")
    return path


KINDS = ("folder", "zip", "tar", "tar.gz")


def taken(tmp_path, entries, kind="zip", **more):
    """Student -> submission, and what was said."""
    said = []
    path = entries if hasattr(entries, "exists") else stored(tmp_path, entries, kind)
    submissions = intake.submissions(path, "05", say=said.append, **more)
    total, found = len(submissions), list(submissions)
    assert total == len(found)
    assert [s.student for s in found] == sorted(s.student for s in found)
    assert len({s.student for s in found}) == len(found)
    for words in (*said, *(s.problem for s in found)):
        assert words.isprintable() and not set(words) & set("<>=\"&"), words
    return {s.student: s for s in found}, "\n".join(said)


# ---- layouts ---------------------------------------------------------------------------------

STAMP = b"2026-03-01 22:30:00.25 UTC\n"
LAYOUTS = {
    "flat": ({"ada.ipynb": ADA, "bob.ipynb": BOB}, "ada", "bob"),
    "one folder a student": ({"ada/05_ddim.ipynb": ADA, "bob/deep/er/x.ipynb": BOB,
                              "bob/data.csv": b"1"}, "ada", "bob"),
    "flat, with folders beside": ({"ada.ipynb": ADA, "bob/x.ipynb": BOB}, "ada", "bob"),
    "nbgrader": ({"submitted/ada/05_ddim/05_ddim.ipynb": ADA,
                  "submitted/ada/05_ddim/timestamp.txt": STAMP,
                  "submitted/ada/03_ddpm/03_ddpm.ipynb": OTHER,
                  "submitted/bob/05_ddim/05_ddim.ipynb": BOB,
                  "source/05_ddim/05_ddim.ipynb": BLANK, "gradebook.db": b"x"}, "ada", "bob"),
    "Canvas": ({"lovelaceada_12_345_05_ddim.ipynb": ADA,
                "bob_LATE_13_346_my_work.ipynb": BOB}, "lovelaceada_12", "bob_13"),
    "Moodle": ({"Ada Lovelace_12_assignsubmission_file_/05_ddim.ipynb": ADA,
                "Bob_B_13_assignsubmission_file_/w.ipynb": BOB,
                "Bob_B_13_assignsubmission_onlinetext_/onlinetext.html": b"hello"},
               "Ada Lovelace_12", "Bob_B_13"),
}


@pytest.mark.parametrize("around", ["", "week 5/", "a/b/"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_in_every_container(tmp_path, name, kind, around):
    entries, ada, bob = LAYOUTS[name]
    found, said = taken(tmp_path, {around + path: c for path, c in entries.items()}, kind)
    assert set(found) == {ada, bob} and f"layout: {name}, 2 students" in said
    assert (found[ada].content, found[bob].content) == (ADA, BOB)
    assert not any(s.problem or s.review for s in found.values())
    assert found[ada].source.startswith(around)


def test_moodle_without_folders(tmp_path):
    found, said = taken(tmp_path, {"Ada_L_12_assignsubmission_file_05_ddim.ipynb": ADA,
                                   "Bob_13_assignsubmission_file_x.ipynb": BOB})
    assert "layout: Moodle" in said and found["Ada_L_12"].content == ADA


def test_nbgrader_times_and_only_nbgraders(tmp_path):
    found, said = taken(tmp_path, LAYOUTS["nbgrader"][0], "folder")
    assert found["ada"].submitted == datetime(2026, 3, 1, 22, 30, 0, 250_000, UTC)
    assert found["bob"].submitted is None
    assert "1 notebooks outside of 'submitted' were left aside" in said
    assert "'ada': 'submitted/ada/03_ddpm/03_ddpm.ipynb' is of another lab" in said
    inside, _ = taken(tmp_path, tmp_path / "all.folder" / "submitted")
    assert inside["ada"].submitted == found["ada"].submitted and len(inside) == 2


@pytest.mark.parametrize(("text", "wanted"), [
    ("2026-03-01 12:00:00.5 UTC", "2026-03-01T12:00:00.5+00:00"),
    ("2026-03-01 12:00:00", "2026-03-01T12:00:00+00:00"),
    ("2026-07-01 12:00:00 Europe/Berlin", "2026-07-01T12:00:00+02:00"),
    ("2026-03-01T12:00+0530", "2026-03-01T12:00:00+05:30"),
    ("2026-03-01 12:00:00.123456Z", "2026-03-01T12:00:00.123456+00:00"),
    ("2026-03-01 12:00:00 Middle/Earth", None), ("2026-03-01 12:00:00 ../../etc/passwd", None),
    ("2026-03-01 12:00:00 America", None), ("2026-13-01 12:00:00 UTC", None), ("", None),
    ("9999-12-31 23:59:59 America/Los_Angeles", None), ("noon\n" * 1000, None),
])
def test_the_time_of_hand_in(text, wanted):
    found = layout.moment(text)
    assert found == (wanted and datetime.fromisoformat(wanted))
    assert found is None or found.tzinfo is not None


def test_a_class_of_one(tmp_path):
    for n, (entries, who) in enumerate([
            ({"ada/05_ddim.ipynb": ADA, "ada/03_ddpm.ipynb": OTHER}, "ada"),
            ({"submitted/ada/05_ddim/05_ddim.ipynb": ADA}, "ada"), ({"ada.ipynb": ADA}, "ada"),
            ({"ada/05_ddim/05_ddim.ipynb": ADA, "ada/05_ddim/timestamp.txt": STAMP,
              "ada/03_ddpm/03_ddpm.ipynb": OTHER}, "ada"),
            ({"Ada_1_assignsubmission_file_/x.ipynb": ADA}, "Ada_1")]):
        (tmp_path / str(n)).mkdir()
        found, _ = taken(tmp_path / str(n), entries)
        assert list(found) == [who] and found[who].content == ADA


def test_a_single_notebook(tmp_path):
    (tmp_path / "ada.ipynb").write_bytes(ADA)
    assert taken(tmp_path, tmp_path / "ada.ipynb")[0]["ada"].content == ADA


def test_what_does_not_fit_the_layout_is_a_line_and_not_a_loss(tmp_path):
    found, _ = taken(tmp_path, LAYOUTS["Canvas"][0] | {"late by mail.ipynb": ADA})
    one = found["late by mail.ipynb"]
    assert one.content is None and one.review and "does not fit the layout Canvas" in one.problem
    assert found["lovelaceada_12"].content == ADA


def test_copies_that_systems_make_are_no_work(tmp_path):
    found, _ = taken(tmp_path, {"ada/05_ddim.ipynb": ADA, "bob/05_ddim.ipynb": BOB,
                                "ada/.ipynb_checkpoints/05_ddim-checkpoint.ipynb": BLANK,
                                "__MACOSX/ada/._05_ddim.ipynb": b"\0", "ada/._05_ddim.ipynb": b"\0",
                                "bob/.venv/x.ipynb": BLANK})
    assert found["ada"].content == ADA and found["bob"].content == BOB and len(found) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_zips_in_archives(tmp_path, kind):
    work = zipped({"hw/05_ddim.ipynb": ADA, "hw/03_ddpm.ipynb": OTHER, "hw/a.png": b"1"})
    for name, entries, who in (
            ("canvas", {"ada_12_345_work.zip": work, "bob_13_346_x.ipynb": BOB}, "ada_12"),
            ("moodle", {"Ada_1_assignsubmission_file_/work.zip": work,
                        "Bob_2_assignsubmission_file_/x.ipynb": BOB}, "Ada_1"),
            ("flat", {"ada.zip": work, "bob.ipynb": BOB}, "ada"),
            ("folders", {"ada/work.ZIP": work, "bob/x.ipynb": BOB}, "ada")):
        (tmp_path / name).mkdir()
        found, said = taken(tmp_path / name, entries, kind)
        assert len(found) == 2 and found[who].content == ADA and not found[who].review
        assert found[who].source.lower().endswith("work.zip/hw/05_ddim.ipynb") or name == "flat"
        assert "03_ddpm.ipynb' is of another lab" in said


def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"Rar!" * 200)
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04" * 200)
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b" + b"1" * 500)
    whole = stored(tmp_path, LAYOUTS["flat"][0], "tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "none").mkdir()
    for name, words in (("x.rar", "accepted are a folder"), ("x.zip", "is no whole archive"),
                        ("x.tar.gz", "is no whole archive"), ("cut.tar.gz", "is no whole archive"),
                        ("none", "holds no notebook"), ("nowhere", "there is no such folder")):
        with pytest.raises(ValueError, match=words) as refused:
            intake.submissions(tmp_path / name, "05")
        assert "\n" not in str(refused.value) and name in str(refused.value)
    with pytest.raises(ValueError, match="accepted are 01"):
        intake.submissions(tmp_path, "77")


def test_a_real_lab_is_told_from_another(tmp_path):
    labs = {stem: written(pristine.lab(stem)) for stem in ("05_ddim", "03_ddpm")}
    found, _ = taken(tmp_path, {f"ada/{stem[3:]}.ipynb": c for stem, c in labs.items()} |
                     {"bob/x.ipynb": BOB})
    assert found["ada"].content == labs["05_ddim"]


# ---- several notebooks of one student --------------------------------------------------------


@pytest.mark.parametrize(("files", "source"), [
    ({"05_ddim.ipynb": ADA, "03_ddpm.ipynb": OTHER}, "05_ddim.ipynb"),
    ({"05_ddim.ipynb": ADA, "notes.ipynb": b'{"cells": []}'}, "05_ddim.ipynb"),
    ({"a.ipynb": ADA, "b.ipynb": ADA}, "a.ipynb"),
    ({"05_ddim.ipynb": NO_IDS % b"1", "03_ddpm.ipynb": NO_IDS % b"2"}, "05_ddim.ipynb"),
    ({"a.ipynb": NO_IDS % b"def sigma(s): 1", "b.ipynb": NO_IDS % b"def other(s): 1"}, "a.ipynb"),
    ({"05_ddim.ipynb": b"torn", "x.ipynb": b"rest"}, "05_ddim.ipynb"),
])
def test_the_notebook_of_the_lab_is_told_by_what_it_holds(tmp_path, files, source):
    found, said = taken(tmp_path, {"bob/x.ipynb": BOB} | {f"ada/{k}": c for k, c in files.items()})
    assert found["ada"].source == f"ada/{source}" and found["ada"].content == files[source]
    assert not found["ada"].review and "was left aside" in said


@pytest.mark.parametrize("files", [
    {"05_ddim.ipynb": ADA, "05_ddim-Copy1.ipynb": BOB}, {"05_ddim.ipynb": ADA, "x.ipynb": BLANK},
    {"a.ipynb": b"torn", "b.ipynb": b"rest"}, {"old/05_ddim.ipynb": ADA, "05_ddim.ipynb": BOB},
    {"05_ddim.ipynb": ADA, "new.ipynb": NO_IDS % b"def sigma(s): 1"},
    {"05_ddim.ipynb": ADA, "work.zip": zipped({"05_ddim.ipynb": BOB})},
    {"05_ddim.ipynb": ADA, "work.zip": b"torn"},
])
def test_two_that_could_be_it_are_not_guessed(tmp_path, files):
    found, _ = taken(tmp_path, {"bob/x.ipynb": BOB} | {f"ada/{k}": c for k, c in files.items()})
    one = found["ada"]
    assert one.content is None and one.review and "2 notebooks could be lab 05" in one.problem
    assert all(name in one.problem for name in files) and found["bob"].content == BOB


def test_canvas_counts_hand_ins(tmp_path):
    found, said = taken(tmp_path, {"ada_1_10_05_ddim.ipynb": BLANK, "ada_1_12_05_ddim-2.ipynb": ADA,
                                   "ada_1_11_05_ddim-1.ipynb": BOB, "bob_2_1_a.ipynb": BOB,
                                   "bob_2_2_b.ipynb": ADA, "eve_3_1_w-9.ipynb": BOB,
                                   "eve_3_2_w-10.ipynb": ADA, "kim_4_1_hw-1.ipynb": ADA,
                                   "kim_4_2_hw-2.ipynb": OTHER})
    assert found["ada_1"].content == found["eve_3"].content == found["kim_4"].content == ADA
    assert found["ada_1"].source == "ada_1_12_05_ddim-2.ipynb" and not found["ada_1"].review
    assert found["bob_2"].review and found["bob_2"].content is None
    assert "'ada_1_10_05_ddim.ipynb' is not the one that counts" in said


def test_nbgrader_wants_the_labs_own_name(tmp_path):
    found, _ = taken(tmp_path, {"submitted/ada/05_ddim/05_ddim.ipynb": ADA,
                                "submitted/ada/05_ddim/scratch.ipynb": BLANK,
                                "submitted/bob/w5/05_ddim.ipynb": BOB,
                                "submitted/bob/again/05_ddim.ipynb": ADA})
    assert found["ada"].content == ADA and not found["ada"].review
    assert found["bob"].content is None and found["bob"].review


def test_a_student_with_no_notebook_of_the_lab_has_a_line(tmp_path):
    found, _ = taken(tmp_path, {"ada/03_ddpm.ipynb": OTHER, "bob/05_ddim.ipynb": BOB,
                                "eve/w.zip": zipped({"essay.pdf": b"1"})})
    assert found["ada"].problem == found["eve"].problem == "no notebook of lab 05"
    assert found["ada"].content is None and found["ada"].source == "ada/03_ddpm.ipynb"


# ---- hostile members -------------------------------------------------------------------------

HONEST = {"ada/05_ddim.ipynb": ADA, "bob/05_ddim.ipynb": BOB}


def untouched(found):
    return all(found[who].content == c and not found[who].review and not found[who].problem
               for who, c in (("ada", ADA), ("bob", BOB)))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(("name", "words"), [
    ("mallory/../ada/05_ddim.ipynb", "leads out of the archive"),
    ("../ada/05_ddim.ipynb", "leads out of the archive"),
    ("/ada/05_ddim.ipynb", "has an absolute path"), ("C:/ada/05_ddim.ipynb", "an absolute path"),
    ("mallory\\..\\ada\\05_ddim.ipynb", "leads out of the archive"),
    ("mallory/" + "d/" * 30 + "05_ddim.ipynb", "folders deep: accepted are 20"),
])
def test_names_that_climb_touch_nobody(tmp_path, kind, name, words):
    found, said = taken(tmp_path, HONEST | {name: BLANK}, kind)
    assert untouched(found) and words in said
    assert set(found) <= {"ada", "bob", "mallory"}
    assert all(s.content is None and s.review for who, s in found.items() if who == "mallory")


def test_two_members_of_one_name_are_not_guessed(tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as out, pytest.warns(UserWarning, match="Duplicate"):
        for name, content in (*HONEST.items(), ("eve/x.ipynb", ADA), ("eve/x.ipynb", BOB)):
            out.writestr(name, content)
    found, _ = taken(tmp_path, path)
    assert untouched(found) and found["eve"].review and found["eve"].content is None


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "folder"])
def test_links_and_devices_are_not_followed(tmp_path, kind):
    secret = tmp_path / "secret.ipynb"
    secret.write_bytes(BLANK)
    path = stored(tmp_path, HONEST, "folder" if kind == "folder" else "zip")
    if kind == "folder":
        (path / "mallory").mkdir()
        (path / "mallory" / "05_ddim.ipynb").symlink_to(secret)
        (path / "mallory" / "all").symlink_to(path)
        os.mkfifo(path / "mallory" / "pipe.ipynb")
    elif kind == "zip":
        with zipfile.ZipFile(path, "a") as out:
            for name, sort in (("mallory/05_ddim.ipynb", stat.S_IFLNK),
                               ("mallory/pipe.ipynb", stat.S_IFIFO)):
                info = zipfile.ZipInfo(name)
                info.external_attr, info.create_system = (sort | 0o777) << 16, 3
                out.writestr(info, str(secret))
    else:
        path, links = tmp_path / f"all.{kind}", {}
        for name, sort in (("05_ddim", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE),
                           ("null", tarfile.CHRTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"mallory/{name}.ipynb")
            info.type, info.linkname = sort, str(secret)
            links[info] = b""
        tarred(path, HONEST | links, "w:gz" if kind == "tar.gz" else "w")
    found, said = taken(tmp_path, path)
    assert untouched(found) and len(found) == 3
    assert found["mallory"].content is None and found["mallory"].review
    assert "'mallory/05_ddim.ipynb' is a link, which is not followed" in said
    assert "pipe.ipynb' is no" in said


def test_a_link_beside_honest_work_is_for_a_person_to_see(tmp_path):
    path = stored(tmp_path, HONEST | {"eve/05_ddim.ipynb": BLANK}, "folder")
    (path / "eve" / "data").symlink_to("/etc")
    found, _ = taken(tmp_path, path)
    assert untouched(found) and found["eve"].content == BLANK and found["eve"].review


def test_no_byte_of_a_large_file_is_read(tmp_path):
    path = stored(tmp_path, HONEST, "folder")
    (path / "eve").mkdir()
    with (path / "eve" / "05_ddim.ipynb").open("wb") as out:
        out.truncate(500_000_000)
    begin = time.process_time()
    found, _ = taken(tmp_path, path)
    assert untouched(found) and time.process_time() - begin < 2
    assert found["eve"].problem.startswith("the notebook has 500 MB: accepted are 20")
    assert found["eve"].content is None


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_large_member_is_not_unpacked(tmp_path, kind):
    path = tmp_path / f"all.{kind}"
    if kind == "zip":
        path.write_bytes(zipped(HONEST))
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as out, \
                out.open("eve/05_ddim.ipynb", "w") as member:
            for _ in range(30):
                member.write(bytes(1_000_000))
    else:
        tarred(path, HONEST | {"eve/05_ddim.ipynb": bytes(30_000_000)}, "w:gz")
    tracemalloc.start()
    found, _ = taken(tmp_path, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert untouched(found) and "has 30 MB: accepted are 20" in found["eve"].problem
    assert peak < 20_000_000


def bomb(content):
    return {"eve/work.zip": content}


def forged(**fields):
    """A zip with one notebook and other words about it in its directory."""
    content = bytearray(zipped({"05_ddim.ipynb": BLANK}))
    at = content.index(b"PK\x01\x02")
    for name, value in fields.items():
        offset, form = {"flags": (8, "<H"), "method": (10, "<H"), "packed": (20, "<I"),
                        "size": (24, "<I")}[name]
        struct.pack_into(form, content, at + offset, value)
    return bytes(content)


@pytest.mark.parametrize(("content", "words"), [
    (zipped({"05_ddim.ipynb": bytes(15_000_000)}), "unpacks to more than 300 times its size"),
    (zipped({f"{i}.txt": b"" for i in range(2001)}), "the zip holds more than 2,000 files"),
    (b"PK\x01\x02" * 3000 + zipped({}), "the zip holds more than 2,000 files"),
    (zipped({f"{i}.ipynb": b"{%d}" % i for i in range(21)}), "more than 20 notebooks"),
    (b"PK\x03\x04" + b"?" * 1000, "the zip is no whole archive"), (b"", "is no whole archive"),
    (zipped({"05_ddim.ipynb": BLANK})[:-40], "the zip is no whole archive"),
    (forged(flags=1), "the notebook needs a password"),
    (forged(method=14), "compressed in another way than zip's usual one"),
    (forged(method=99), "compressed in another way than zip's usual one"),
    (forged(size=400_000_000), "the notebook has 400 MB"), (forged(size=50), "is damaged"),
    (forged(packed=50), "is damaged"),
    (zipped({"../ada/05_ddim.ipynb": BLANK}), "no notebook of lab 05"),
    (zipped({"again.zip": zipped({"05_ddim.ipynb": BLANK})}), "no notebook of lab 05"),
], ids=range(15))
def test_a_bad_zip_harms_its_student_alone(tmp_path, content, words):
    found, _ = taken(tmp_path, HONEST | bomb(content))
    assert untouched(found) and len(found) == 3
    assert found["eve"].content is None and words in found["eve"].problem


def test_a_zip_is_no_larger_than_an_archive_may_be(tmp_path):
    path = stored(tmp_path, HONEST, "folder")
    (path / "eve").mkdir()
    with (path / "eve" / "w.zip").open("wb") as out:
        out.truncate(50_000_001)
    assert "has 50 MB: accepted are 50 for an archive" in taken(tmp_path, path)[0]["eve"].problem


def test_entries_that_overlap_are_not_read_over_and_over(tmp_path):
    """A thousand entries that all show the same compressed bytes: 15 GB out of 100 kB."""
    one = zipped({"05_ddim.ipynb": b'{"x": "' + bytes(range(48, 58)) * 300_000 + b'"}'})
    at, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    close = bytearray(one[end:])
    struct.pack_into("<HHI", close, 8, 1000, 1000, 1000 * (end - at))
    begin = time.process_time()
    found, _ = taken(tmp_path, HONEST | bomb(one[:at] + one[at:end] * 1000 + bytes(close)))
    assert untouched(found) and time.process_time() - begin < 4
    assert "more than 20 notebooks" in found["eve"].problem


def test_what_is_given_has_limits_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "ENTRIES", 2)
    for kind in KINDS:
        with pytest.raises(ValueError, match="holds more than 2 files"):
            taken(tmp_path, HONEST | {"eve/x.ipynb": ADA}, kind)
    monkeypatch.undo()
    monkeypatch.setattr(archive, "UNPACKED", 1000)
    with pytest.raises(ValueError, match="unpacks to more than 0 GB"):
        taken(tmp_path, HONEST, "tar.gz")


def test_a_tar_header_is_not_read_without_a_limit(tmp_path):
    info = tarfile.TarInfo("eve/05_ddim.ipynb")
    info.pax_headers = {"comment": "x" * 5_000_000}
    tarred(tmp_path / "all.tar", HONEST | {info: BLANK}, "w")
    with pytest.raises(ValueError, match="a header of 5,00.*: accepted are 1,000,000"):
        taken(tmp_path, tmp_path / "all.tar")


# ---- names -----------------------------------------------------------------------------------

NAMES = ["\x1b[31mred", "\u202egnp.exe", "=cmd|' /C calc'!A0", "<script>alert(1)</script>",
         "a\nb", "x" * 10_000, "ö", "\udcff\udcfe", "'; drop table", "@sum(a1)", "ж\u0301",
         "😀"]


def test_names_are_kept_as_data_and_said_in_plain_letters(tmp_path):
    folders = [name for name in NAMES if "\udcff" not in name and "/" not in name]
    entries = {f"{name}/05_ddim.ipynb": ADA for name in folders}
    for kind in ("zip", "tar", "tar.gz"):
        (tmp_path / kind).mkdir()
        found, _ = taken(tmp_path / kind, entries, kind, roster=[])
        assert set(found) == set(map(names.kept, folders)) and len(found) == len(folders)
        assert all(s.content == ADA for s in found.values())


def test_a_name_that_is_no_text_can_be_written(tmp_path):
    folder = tmp_path / "in"
    foldered(folder, {"ada/05_ddim.ipynb": ADA})
    os.makedirs(os.fsencode(folder) + b"/\xff\xfe")
    with open(os.fsencode(folder) + b"/\xff\xfe/05_ddim.ipynb", "wb") as out:
        out.write(BOB)
    found, _ = taken(tmp_path, folder)
    assert set(found) == {"ada", "\\udcff\\udcfe"}
    assert all(f"{s.student}{s.source}".encode() for s in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_shown_and_slug(name):
    said, slug = names.shown(name), names.slug(name)
    assert said.isprintable() and len(said) <= 64 and not set(said) & set("<>=&\"\x1b\u202e")
    assert slug == names.slug(name) and len(slug) <= 57
    assert slug.isascii() and all(c.isalnum() or c in "-_" for c in slug) and slug == slug.lower()


def test_slugs_never_meet():
    taken = "bob-0123456789abcdef"
    many = [*NAMES, "ada", "Ada", "ADA", "ada ", "a da", "a-da", "a/da", "..", ".", "", "con",
            "CON", "nul", "com1", "-", "_", "ä", "a\u0308", taken, names.slug("Ada"), "a" * 41,
            "a" * 42]
    slugs = [names.slug(name) for name in many]
    assert len(set(slugs)) == len(many) and all(slugs)
    assert names.slug("ada") == "ada" and names.slug("ada_l-2") == "ada_l-2"
    assert names.slug(taken) != taken and not set(slugs) & {"con", "nul", "com1", "..", "-"}
    assert names.slug("Ada Lovelace_12").startswith("ada-lovelace_12-")


# ---- the class list --------------------------------------------------------------------------


def test_who_did_not_hand_in_is_listed_and_shorter_names_count(tmp_path):
    found, said = taken(tmp_path, LAYOUTS["Canvas"][0] | {"eve_9_9_05.ipynb": BLANK},
                        roster=["lovelaceada", "13", "Émile", "ghost"])
    assert set(found) == {"lovelaceada", "13", "Émile", "ghost", "eve_9"}
    assert found["lovelaceada"].content == ADA and found["13"].content == BOB
    assert found["ghost"].content is None and found["ghost"].problem == "nothing was handed in"
    assert "1 students are not in the roster: 'eve_9'" in said


def test_a_name_that_fits_two_is_given_to_none(tmp_path):
    found, said = taken(tmp_path, {"ada_1_1_05.ipynb": ADA, "ada_2_2_05.ipynb": BOB},
                        roster=["ada"])
    assert "'ada' of the roster fits 2 students" in said
    assert {who: s.content for who, s in found.items()} == {"ada_1": ADA, "ada_2": BOB, "ada": None}


def test_an_accent_is_one_letter_however_it_is_stored(tmp_path):
    found, _ = taken(tmp_path, {"E\u0301mile.ipynb": ADA, "bob.ipynb": BOB},
                     roster=["Émile", "bob"])
    assert found["Émile"].content == ADA and len(found) == 2


def test_the_roster_file(tmp_path):
    path = tmp_path / "class.csv"
    path.write_text("﻿student,extension\n Ada , 48 hours\n\n\"B, C\",\n\n", encoding="utf-8")
    assert roster.read(path) == {"Ada": "48 hours", "B, C": ""}


@pytest.mark.parametrize(("text", "words"), [
    (b"", "has no column 'student'"), (b"name\nada", "has the column 'name'"),
    (b"student,email\nada,x", "has the column 'email'"), (b"student,student\n", "'student'"),
    (b"student\nada\nada", "line 3: 'ada' is there already"), (b"\xff\xfe", "no CSV in UTF-8"),
    (b"student\nada,3", "line 2: 2 columns, the first line names 1"),
    (b"student,extension\n,3", "line 2: no student"), (b'student\n"ada', "no CSV in UTF-8"),
    (b"student\n" + b"x" * 200_000, "no CSV in UTF-8"),
])
def test_a_bad_roster_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "class.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=words) as refused:
        roster.read(path)
    assert "\n" not in str(refused.value) and "class.csv" in str(refused.value)


# ---- one by one ------------------------------------------------------------------------------


def test_contents_are_read_one_by_one(tmp_path):
    big = BLANK + b" " * 1_000_000
    path = stored(tmp_path, {f"s{i:03}/05_ddim.ipynb": big for i in range(20)}, "folder")
    tracemalloc.start()
    sizes = [len(s.content) for s in intake.submissions(path, "05")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [len(big)] * 20 and peak < 5_000_000


def test_a_deadline_is_not_read_from_a_file_system(tmp_path):
    path = stored(tmp_path, HONEST, "folder")
    old = (datetime.now(UTC) - timedelta(days=9)).timestamp()
    os.utime(path / "ada/05_ddim.ipynb", (old, old))
    assert taken(tmp_path, path)[0]["ada"].submitted is None
