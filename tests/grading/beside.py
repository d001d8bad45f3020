"""Other graders on the fixtures of this folder, each really run, and what they give beside it.

    python tests/grading/beside.py                              coursekit and nbgrader
    python tests/grading/beside.py --otter VENV/bin/otter       otter-grader as well
    python tests/grading/beside.py --only input_transformer     these alone, with what was given

All get the same notebooks: lab 05 with one bad answer to 05-1 or 05-2 and five right ones, or with
a wrong answer to 05-1 and a change around it. To nbgrader the lab is given as it stands, whose
check cells return points. In otter a test file asks the same check for each exercise. One run is
one notebook, in a copy of the course that is thrown away, without network, as a user who owns
nothing else, in bounded memory and time: nothing of this may reach the machine. Linux, as root.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import handed
import nbformat
from pages import BOOKS, CHECKS, cell

from coursekit.classroom.check.exercises import exercises
from coursekit.grading import slot, trusted
from coursekit.grading.watch import tree
from coursekit.labs.notebook import written

HERE, LAB, STEM = Path(__file__).parent, "05", "05_ddim"
KEPT = re.compile(r"setup|seeded|05-\d-(answer|check)")  # cells; pictures would take minutes
WRONG = "def sigma(schedule, t, s, eta):\n    return 2.0\n"
SECONDS, MEMORY, ROOM, PROCESSES = 120.0, 6 * 2**30, 2**28, 200
NAMES = {e.name for e in exercises(LAB)} | {"check"}
POINTS = {e.id: e.points for e in exercises(LAB)}
TEST = """OK_FORMAT = False
from otter.test_files import test_case

name = "{id}"
points = {points}


@test_case(points={points})
def whole(env):
    from coursekit.classroom import check
    assert check.ex("{id}", env["{name}"]) == {points}
"""
UNRULY = {"early_reply", "closes_descriptors", "fills_the_disk", "fills_the_inodes",
          "floods_stdout", "tiny_lines"}  # right numbers from code that does harm
PROBE = "# Right only if"  # as the second line of a fixture
ROWS = {  # what can come of a fixture -> in words
    "false pass": "points for a wrong answer",
    "leak": "points because something could be reached that must not be",
    "harm": "points for right numbers from code that does harm",
    "false fail": "no points for a right answer",
    "others lost": "points of other answers lost",
    "no marks": "no marks at all for the notebook",
    "as deserved": "as deserved",
}


@dataclass(frozen=True)
class Fixture:
    """A notebook, the points that the exercise in question deserves, and what more would be."""

    name: str
    content: bytes
    id: str
    points: int
    more: str = "false pass"


def short(content: bytes, change=lambda book: None) -> bytes:
    """The notebook without its pictures; no answer's own names are those of another answer."""
    book = nbformat.reads(content.decode(), as_version=4)
    book.cells = [c for c in book.cells if KEPT.fullmatch(c.id)]
    for answer in (c for c in book.cells if c.id.endswith("-answer")):
        for name in set(re.findall(r"(?m)^(?:def|class) (\w+)", answer.source)) - NAMES:
            answer.source = re.sub(rf"\b{name}\b", f"{name}_{answer.id[3]}", answer.source)
    change(book)
    return written(book)


def fixtures() -> Iterator[Fixture]:
    """The honest notebook first, then bad answers, then changes around a wrong one."""
    yield Fixture("honest", short(handed.alone(LAB)), "05-1", POINTS["05-1"])
    for path in handed.BAD:
        source = path.read_text(encoding="utf-8")
        id, _, points, _, _ = handed.HEAD.match(source).groups()
        page = handed.alone(LAB, **{f"_{id.replace('-', '_')}": source})
        more = "leak" if PROBE in source else "harm" if path.stem in UNRULY else "false pass"
        yield Fixture(path.stem, short(page), id, int(points), more)
    wrong = handed.alone(LAB, _05_1=WRONG)
    for name, (change, _) in CHECKS.items():
        content = short(wrong, lambda book, change=change: change(cell(book, "05-1-check")))
        yield Fixture(f"check {name}", content, "05-1", 0)
    for name, (change, _) in BOOKS.items():
        yield Fixture(f"notebook: {name}", short(wrong, change), "05-1", 0)


def coursekit(content: bytes) -> dict[str, float]:
    record = trusted.grade(content, LAB, key=b"the key of a comparison")
    return {e.id: e.points for e in record.exercises}


class Tool:
    """A grader in a folder: `given` runs it on one notebook in a copy, {} if it gives no marks."""

    def __init__(self, folder: Path) -> None:
        self.course = folder / "course"
        self.course.mkdir(parents=True)

    def given(self, content: bytes) -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=self.course.parent) as name:
            os.chmod(name, 0o755)
            copy = Path(name) / "course"
            shutil.copytree(self.course, copy)
            self.hand_in(copy, content)
            confined(self.command, copy)
            try:
                return self.marks(copy)
            except (OSError, ValueError):
                return {}


class Nbgrader(Tool):
    """`nbgrader autograde`, with the assignment that it makes of the lab's solution."""

    command = (sys.executable, "-m", "nbgrader", "autograde", STEM,
               "--ExecutePreprocessor.timeout=30")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        source = self.course / "source" / STEM
        source.mkdir(parents=True)
        (source / f"{STEM}.ipynb").write_bytes(
            short((handed.SOLUTIONS / f"{STEM}.ipynb").read_bytes()))
        subprocess.run([sys.executable, "-m", "nbgrader", "generate_assignment", STEM], check=True,
                       cwd=self.course, env=environment(self.course), capture_output=True)

    def hand_in(self, course: Path, content: bytes) -> None:
        place = course / "submitted" / "ada" / STEM
        place.mkdir(parents=True)
        (place / f"{STEM}.ipynb").write_bytes(content)

    def marks(self, course: Path) -> dict[str, float]:
        from nbgrader.api import Gradebook

        if not (course / "autograded" / "ada" / STEM / f"{STEM}.ipynb").is_file():
            return {}
        with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
            (notebook,) = book.find_submission(STEM, "ada").notebooks
            return {g.name.removesuffix("-check"): g.auto_score or 0.0 for g in notebook.grades}


class Otter(Tool):
    """`otter run`, with one test file an exercise."""

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__(folder)
        self.command = (str(program), "run", f"{STEM}.ipynb", "-a", "autograder.zip", "-o", "out")
        (self.course / "out").mkdir()
        tests = self.course / "tests"
        tests.mkdir()
        for e in exercises(LAB):
            (tests / f"{e.id}.py").write_text(
                TEST.format(id=e.id, name=e.name, points=e.points), encoding="utf-8")
        subprocess.run([program, "generate", "-t", "tests", "--no-environment"], check=True,
                       cwd=self.course, env=environment(self.course), capture_output=True)
        shutil.rmtree(tests)

    def hand_in(self, course: Path, content: bytes) -> None:
        (course / f"{STEM}.ipynb").write_bytes(content)

    def marks(self, course: Path) -> dict[str, float]:
        results = json.loads((course / "out" / "results.json").read_bytes())
        return {t["name"]: float(t["score"]) for t in results["tests"] if t["name"] in POINTS}


def environment(home: Path) -> dict[str, str]:
    """Few variables, a home that is thrown away, and this Python before all others."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    return {"PATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1"}


def confined(command: tuple[str, ...], course: Path) -> None:
    """Run a command in the copy of a course until it ends or must be ended."""
    uid, lock = slot.take()
    for path in (course, *course.rglob("*")):
        os.chown(path, uid, uid)
    with lock:
        process = subprocess.Popen(
            [*walls(course), "setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups",
             "--no-new-privs", *command], env=environment(course), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=limited)
        end = time.monotonic() + SECONDS
        while process.poll() is None:
            if time.monotonic() > end or sum(p.private for p in tree(process.pid)) > MEMORY:
                process.kill()
            time.sleep(0.1)


def walls(course: Path) -> list[str]:
    """All of the machine to read but homes and scratch, and the copy of the course to write."""
    account = Path(pwd.getpwuid(os.getuid()).pw_dir)  # HOME may name another
    empty = sorted({Path.home(), account, Path("/tmp"), Path("/dev/shm")})
    seen = {path: "--ro-bind" for path in map(Path, (sys.base_prefix, sys.prefix, HERE.parents[1]))}
    seen[course] = "--bind"
    between = {p for path in seen for p in path.parents if set(empty) & set(p.parents)}
    found = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--die-with-parent",
             "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in empty:
        found += ["--perms", "1777", "--size", str(ROOM), "--tmpfs", str(path)]
    for path in sorted(between):
        found += ["--perms", "0755", "--dir", str(path)]
    for path, bind in seen.items():
        found += [bind, str(path), str(path)]
    return [*found, "--chdir", str(course), "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID",
            "--"]


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


def verdict(fixture: Fixture, marks: dict[str, float]) -> str:
    """What a tool's marks come to, the gravest first."""
    if not marks:
        return "no marks"
    others = sum(points for id, points in marks.items() if id != fixture.id)
    if marks.get(fixture.id, 0) > fixture.points:
        return fixture.more
    if others < sum(POINTS.values()) - POINTS[fixture.id]:
        return "others lost"
    right = fixture.points == POINTS[fixture.id]
    return "false fail" if right and marks.get(fixture.id, 0) < fixture.points else "as deserved"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--otter", type=Path, help="the program otter of an environment with it")
    parser.add_argument("--only", nargs="*", help="names of fixtures")
    options = parser.parse_args()
    chosen = [f for f in fixtures() if not options.only or f.name in options.only]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        tools = {"coursekit": coursekit, "nbgrader": Nbgrader(Path(name) / "nbgrader").given}
        if options.otter:
            tools["otter"] = Otter(Path(name) / "otter", options.otter.absolute()).given
        found = [row(fixture, tool, given) for fixture in chosen for tool, given in tools.items()]
    sys.stdout.write(table(found))


def row(fixture: Fixture, tool: str, given: Callable[[bytes], dict[str, float]]) -> dict:
    """One notebook in one tool; it is printed as soon as it is known."""
    begun, marks = time.monotonic(), given(fixture.content)
    found = {"fixture": fixture.name, "tool": tool, "verdict": verdict(fixture, marks),
             "seconds": round(time.monotonic() - begun, 1), "marks": marks}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    return found


def table(found: list[dict]) -> str:
    """How often what came of a notebook, by tool, as Markdown."""
    tools = list(dict.fromkeys(r["tool"] for r in found))
    lines = [["of {} notebooks".format(len({r["fixture"] for r in found})), *tools],
             ["---", *("---:" for _ in tools)]]
    for name, words in ROWS.items():
        lines.append([words, *(str(sum(r["tool"] == tool and r["verdict"] == name for r in found))
                               for tool in tools)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
