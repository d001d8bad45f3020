"""What time does to marks: every boundary, every zone, and a file that is read strictly."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from coursekit.classroom.check.exercises import exercises
from coursekit.grading import policy, rules
from coursekit.grading.policy import Late, Policy
from coursekit.grading.record import ExerciseResult, Override, Record, Submission

MOST = {e.id: e.points for e in exercises("05")}
OF = sum(MOST.values())
DUE = datetime(2026, 3, 1, 23, 59, tzinfo=timezone(timedelta(hours=1)))
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
DAILY = Policy(DUE, grace=timedelta(minutes=15), cutoff=7 * DAY,
               late=Late(Decimal(10), "day", Decimal(50)))
HOURLY = Policy(DUE, late=Late(Decimal("0.5"), "hour"))


def record(share=1.0, **verdicts):
    """A record with this share of each exercise's points."""
    found = []
    for id, of in MOST.items():
        verdict = verdicts.get(id.replace("-", "_"), "correct" if share == 1 else "partial")
        points = of if verdict == "correct" else 0 if verdict != "partial" else int(of * share)
        found.append(ExerciseResult(id, id, verdict, points, of))
    return Record("0" * 64, "05", "a", "e", tuple(found))


def settle(rules, when, found=None, student="ada", overrides=(), problem=""):
    hand_in = Submission(student, b"", "ada.ipynb", when, problem)
    return policy.settle(hand_in, record() if found is None else found, rules, "05", overrides)


# ---- lateness --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rules", "late", "final", "words"), [
    (DAILY, -100 * DAY, OF, ""), (DAILY, timedelta(0), OF, ""),
    (DAILY, timedelta(minutes=15), OF, ""),
    (DAILY, timedelta(minutes=15) + timedelta(microseconds=1), OF * 0.9, "1 day late: 10 %"),
    (DAILY, DAY, OF * 0.9, "1 day late: 10 % of the points earned taken off"),
    (DAILY, DAY + SECOND, OF * 0.8, "2 days late: 20 %"), (DAILY, 5 * DAY, OF * 0.5, "50 %"),
    (DAILY, 5 * DAY + SECOND, OF * 0.5, "6 days late: 50 % of the points earned taken off, the "
                                        "most that is taken"),
    (DAILY, 7 * DAY, OF * 0.5, "7 days late"),
    (DAILY, 7 * DAY + SECOND, 0, "7 days late: nothing counts after 7 days"),
    (DAILY, 8 * DAY + 5 * HOUR, 0, "8 days 5 h late: nothing counts after 7 days"),
    (HOURLY, SECOND, OF * 0.995, "1 hour late: 0.5 %"), (HOURLY, HOUR, OF * 0.995, "1 hour late"),
    (HOURLY, HOUR + SECOND, OF * 0.99, "2 hours late: 1 %"),
    (HOURLY, 199 * HOUR, OF * 0.005, "199 hours late: 99.5 %"),
    (HOURLY, 200 * HOUR, 0, "200 hours late: 100 % of the points earned taken off"),
    (HOURLY, 9000 * HOUR, 0, "the most that is taken"),
    (replace(DAILY, grace=timedelta(0)), SECOND, OF * 0.9, "1 day late"),
    (replace(DAILY, late=None), 7 * DAY, OF, ""),
    (replace(DAILY, late=None), 8 * DAY, 0, "8 days late: nothing counts after 7 days"),
    (replace(DAILY, cutoff=timedelta(0), grace=timedelta(0)), SECOND, 0, "nothing counts after 0"),
    (replace(DAILY, cutoff=None), 9999 * DAY, OF * 0.5, "9999 days late: 50 %"),
    (replace(HOURLY, late=Late(Decimal(0))), 9 * DAY, OF, "9 days late: 0 %"),
    (Policy(DUE), 999 * DAY, OF, ""), (Policy(), 0 * DAY, OF, ""),
])
def test_every_boundary(rules, late, final, words):
    mark = settle(rules, DUE + late)
    assert mark.final == pytest.approx(final, abs=0.0051) and mark.raw == mark.of == OF
    assert words in mark.rule and bool(words) == bool(mark.rule)
    assert mark.lateness == (max(0.0, late / HOUR) if rules.deadline else 0)


def test_percent_of_all_points_is_never_more_than_was_earned():
    rules = replace(DAILY, late=Late(Decimal(10), of="full"), cutoff=None)
    half = record(0.5)
    for days in range(1, 12):
        late = settle(rules, DUE + days * DAY, half)
        assert late.final == max(0, half.points - OF * days / 10)
        assert settle(replace(DAILY, cutoff=None), DUE + days * DAY, half).final == \
            pytest.approx(half.points * (1 - min(days, 5) / 10), abs=0.0051)
    assert f"% of {OF} points taken off" in late.rule


def test_halves_are_rounded_up_and_nothing_is_lost_to_floats():
    one = replace(record(), exercises=(ExerciseResult("05-1", "", "partial", 1, 2),))
    rules = Policy(DUE, late=Late(Decimal("87.5")))
    assert settle(rules, DUE + SECOND, one).final == 0.13  # 0.125
    third = Policy(DUE, late=Late(Decimal("33.3"), "day", Decimal("66.6")))
    assert settle(third, DUE + 2 * DAY).final == float(Decimal(OF) * Decimal("0.334"))


def test_zones_are_moments():
    for zone in (UTC, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/Los_Angeles")):
        assert settle(DAILY, DUE.astimezone(zone)).rule == ""
        assert "1 day" in settle(DAILY, (DUE + HOUR).astimezone(zone)).rule
    assert settle(DAILY, DUE.replace(tzinfo=UTC)).lateness == 1  # the same clock, an hour later


@pytest.mark.parametrize(("due", "when", "hours"), [
    ((2026, 3, 28, 12), (2026, 3, 29, 12), 23), ((2026, 10, 24, 12), (2026, 10, 25, 12), 25)])
def test_a_day_has_24_hours_when_clocks_change(due, when, hours):
    berlin = ZoneInfo("Europe/Berlin")
    rules = Policy(datetime(*due, tzinfo=berlin), late=Late(Decimal(1), "hour"))
    mark = settle(rules, datetime(*when, tzinfo=berlin))
    assert mark.lateness == hours and f"{hours} hours late" in mark.rule
    longer = replace(rules, extensions={"ada": DAY})
    assert settle(longer, datetime(*when, tzinfo=berlin)).lateness == max(0, hours - 24)


def test_without_a_time_nothing_is_taken_and_that_is_said():
    mark = settle(DAILY, None)
    assert (mark.final, mark.lateness) == (OF, 0)
    assert "not known: nothing was taken off" in mark.rule
    assert settle(Policy(DUE), None).rule == settle(Policy(), None).rule == ""


def test_a_time_without_a_zone_is_refused_everywhere():
    naive = datetime(2026, 3, 1)
    for make in (lambda: settle(DAILY, naive), lambda: Policy(naive),
                 lambda: Policy(DUE, extensions={"ada": naive})):
        with pytest.raises(ValueError, match="zone"):
            make()


# ---- extensions ------------------------------------------------------------------------------


@pytest.mark.parametrize(("extra", "late", "hours"), [
    (2 * DAY, 2 * DAY, 0), (2 * DAY, 2 * DAY + HOUR, 1), (DUE + 3 * DAY, 3 * DAY, 0),
    (DUE + 3 * DAY, 3 * DAY + HOUR, 1), (DUE - DAY, HOUR, 1), (timedelta(0), HOUR, 1),
    ((DUE + DAY).astimezone(UTC), DAY + HOUR, 1)])
def test_an_extension_moves_everything_for_its_student_alone(extra, late, hours):
    rules = replace(DAILY, extensions={"ada": extra, "Émile": DAY})
    assert settle(rules, DUE + late).lateness == hours
    assert settle(rules, DUE + late, student="bob").lateness == late / HOUR
    own = rules.until("ada") - DUE
    assert settle(rules, DUE + own + timedelta(minutes=15)).final == OF
    assert settle(rules, DUE + own + 7 * DAY).final == OF * 0.5
    assert settle(rules, DUE + own + 7 * DAY + SECOND).final == 0
    assert rules.until("E\u0301mile") == DUE + DAY


def test_extensions_of_a_class_list():
    more = policy.extended(replace(DAILY, extensions={"ada": DAY}), {"bob": 2 * DAY, "ada": DAY})
    assert more.until("bob") == DUE + 2 * DAY and more.until("ada") == DUE + DAY
    with pytest.raises(ValueError, match="'ada' has one extension in the policy and another one"):
        policy.extended(more, {"ada": 2 * DAY})


# ---- overrides -------------------------------------------------------------------------------


def by_hand(id, points, days=0, student="ada"):
    return Override(student, id, points, "a good reason", "E. N.", DUE + days * DAY)


def test_overrides_stand_over_raw_points_and_lateness_over_them():
    wrong = record(0)
    entries = [by_hand("05-2", 3), by_hand("05-1", 1, 1), by_hand("05-1", 2, 2),
               by_hand("05-1", 0, 0), by_hand("05-3", 3, 0, "bob")]
    mark = settle(DAILY, DUE, wrong, overrides=entries)
    assert (mark.raw, mark.final) == (0, 5) and mark.overrides == (entries[2], entries[0])
    assert settle(DAILY, DUE + DAY, wrong, overrides=entries).final == 4.5
    inside = replace(DAILY, overrides=tuple(entries))
    assert settle(inside, DUE, wrong) == mark
    assert settle(inside, DUE, wrong, overrides=[by_hand("05-2", 0, 9)]).final == 2
    assert settle(DAILY, DUE, overrides=[by_hand("05-1", 0)]).final == OF - MOST["05-1"]


def test_a_mark_by_hand_where_there_is_no_record():
    mark = policy.settle(Submission("ada", None, "x", None, "no notebook of lab 05"), None, DAILY,
                         "05", [by_hand("05-1", 2)])
    assert (mark.record, mark.raw, mark.final, mark.of) == (None, 0, 2, OF)
    assert mark.problem == "no notebook of lab 05" and mark.rule == ""


@pytest.mark.parametrize(("id", "points", "words"), [
    ("05-9", 1, "accepted are 05-1, 05-2"), ("05-1", 3, "3 points, accepted are 0..2"),
    ("05-1", -1, "accepted are 0..2")])
def test_an_override_that_cannot_be_is_refused(id, points, words):
    with pytest.raises(ValueError, match=words):
        settle(DAILY, DUE, overrides=[by_hand(id, points)])


def test_what_failed_on_our_side_is_no_mark_yet():
    failed = record(**{"05_1": "infra-error", "05_2": "infra-error"})
    mark = settle(DAILY, DUE, failed)
    assert mark.problem == "no mark yet: 05-1, 05-2 could not be graded, grade again"
    both = settle(DAILY, DUE, failed, overrides=[by_hand("05-1", 1), by_hand("05-2", 1)])
    assert both.problem == "" and both.final == failed.points + 2


def test_a_mark_depends_on_nothing_but_its_arguments():
    assert settle(DAILY, DUE + DAY) == settle(DAILY, DUE + DAY)


# ---- variants --------------------------------------------------------------------------------


def test_a_variant_is_a_students_and_a_keys():
    key, other = bytes(range(32)), bytes(range(1, 33))
    assert policy.variant(key, "ada") == "ce12cbf975118439", "a variant once given stays"
    assert policy.variant(key, "E\u0301mile") == policy.variant(key, "Émile")
    many = {policy.variant(k, f"student {i}") for i in range(3000) for k in (key, other)}
    assert len(many) == 6000 and all(len(v) == 16 and int(v, 16) >= 0 for v in many)
    assert policy.variant(key, "\udcff")
    with pytest.raises(ValueError, match="key: 3 bytes, accepted are 16 and more"):
        policy.variant(b"abc", "ada")


# ---- the file --------------------------------------------------------------------------------

TOML = '''
deadline = 2026-03-01T23:59:00+01:00
grace = "15 minutes"
cut-off = "7 days"
[late]
off = 10
each = "day"
most = 50.0
[extensions]
ada = "48 hours"
"Bob, B" = 2026-03-09T12:00:00Z
[[overrides]]
student = "ada"
exercise = "05-2"
points = 3
reason = "because"
by = "E. N."
at = 2026-03-12T10:00:00+01:00
'''
JSON = '''{"deadline": "2026-03-01T23:59:00+01:00", "grace": "0.25 hours", "cut-off": "1 week",
"late": {"off": 10, "each": "day", "most": 50.0},
"extensions": {"ada": "2 days", "Bob, B": "2026-03-09T12:00:00Z"},
"overrides": [{"student": "ada", "exercise": "05-2", "points": 3, "reason": "because",
"by": "E. N.", "at": "2026-03-12T10:00:00+01:00"}]}'''


def read(tmp_path, text, suffix="toml"):
    path = tmp_path / f"policy.{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return rules.read(path)


def test_both_languages_say_the_same(tmp_path):
    wanted = replace(DAILY, extensions={"ada": 2 * DAY,
                                        "Bob, B": datetime(2026, 3, 9, 12, tzinfo=UTC)},
                     overrides=(Override("ada", "05-2", 3, "because", "E. N.",
                                         datetime.fromisoformat("2026-03-12T10:00:00+01:00")),))
    assert read(tmp_path, TOML) == read(tmp_path, JSON, "json") == wanted
    assert read(tmp_path, "") == read(tmp_path, "{}", "json") == Policy()
    assert read(tmp_path, "\ufeff" + TOML) == wanted
    assert settle(wanted, DUE + 3 * DAY, record(0)).final == 2.7


def test_the_example_in_the_module_is_one(tmp_path):
    text = "\n".join(line[4:] for line in rules.__doc__.split("\n") if line.startswith("    "))
    found = read(tmp_path, text)
    assert found.late == Late(Decimal(10), "day", Decimal(50)) and len(found.overrides) == 1


DEADLINE = "deadline = 2026-03-01T23:59:00+01:00\n"


@pytest.mark.parametrize(("text", "words"), [
    ("dead-line = 3", "'dead-line' is not known: accepted are deadline, grace, cut-off, late"),
    (DEADLINE + "[late]\noff = 3\nper = 'day'", "late: 'per' is not known: accepted are off, each"),
    (DEADLINE + "[late]\neach = 'day'", "late: off is missing: needed are off"),
    (DEADLINE + "[late]\noff = 101", "late: off: '101': accepted are 0 to 100"),
    (DEADLINE + "[late]\noff = -1", "accepted are 0 to 100"),
    (DEADLINE + "[late]\noff = nan", "accepted are 0 to 100"),
    (DEADLINE + "[late]\noff = inf", "accepted are 0 to 100"),
    (DEADLINE + "[late]\noff = true", "late: off: 'True': accepted are 0 to 100"),
    (DEADLINE + "[late]\noff = '10'", "late: off: '10': accepted are 0 to 100"),
    (DEADLINE + "[late]\noff = 1\neach = 'week'", "each: 'week': accepted are hour, day"),
    (DEADLINE + "[late]\noff = 1\nof = 'half'", "of: 'half': accepted are earned, full"),
    (DEADLINE + "late = 10", "late: '10': accepted is a table with off, each, most, of"),
    ("deadline = 2026-03-01T23:59:00", "deadline: '2026-03-01T23:59:00': accepted is a time with"),
    ("deadline = 2026-03-01", "accepted is a time with its zone"),
    ("deadline = 'tomorrow'", "deadline: 'tomorrow': accepted is a time with its zone"),
    ("deadline = 2026", "deadline: '2026': accepted is a time"),
    (DEADLINE + "grace = 15", "grace: '15': accepted is a number and its unit"),
    (DEADLINE + "grace = '-1 hour'", "accepted is a number and its unit"),
    (DEADLINE + "grace = '15 parsecs'", "accepted is a number and its unit"),
    (DEADLINE + "cut-off = '999999 weeks'", "accepted is a number and its unit"),
    (DEADLINE + "grace = '2 days'\ncut-off = '1 day'", "comes before the end of the grace"),
    ("grace = '1 hour'", "grace without a deadline"),
    ("[extensions]\nada = '1 day'", "extensions without a deadline"),
    (DEADLINE + "[extensions]\nada = 'long'", "extensions: 'ada': 'long': accepted is a number"),
    (DEADLINE + "[extensions]\nada = 2026-02-01T00:00:00Z", "'ada' would have less time"),
    (DEADLINE + "extensions = 3", "extensions: '3': accepted is a table of students"),
    ("overrides = 3", "overrides: '3': accepted is a list"),
    ("[[overrides]]\nstudent = 'ada'", "overrides: entry 1: exercise is missing"),
    ("[[overrides]]\nstudent = 'a'\nexercise = '05-1'\npoints = 1.5\nreason = 'x'\nby = 'y'\n"
     "at = 2026-03-01T00:00:00Z", "entry 1: points: '1.5': accepted are whole points"),
    ("[[overrides]]\nstudent = 'a'\nexercise = '05-1'\npoints = 1\nreason = ' '\nby = 'y'\n"
     "at = 2026-03-01T00:00:00Z", "reason: ' ': accepted is a text that is not empty"),
    ("deadline = ", "policy.toml"), ("a = 1\na = 2", "policy.toml"),
    (b"\xff", "is no TOML in UTF-8"),
    ("a = " + "[" * 100_000, "policy.toml"), ("a = " + "9" * 9000, "policy.toml"),
    ("'\\u001b[2J' = 1", "is not known"), ("'" + "x" * 10_000 + "' = 1", "is not known"),
])
def test_what_is_not_a_policy_is_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(ValueError) as refused:
        read(tmp_path, text)
    said = str(refused.value)
    assert words in said and "policy.toml" in said and "\n" not in said
    assert len(said) < 400 + len(str(tmp_path)) and "\x1b" not in said


@pytest.mark.parametrize(("text", "words"), [
    ('{"grace": "1 day", "grace": "2 days"}', "'grace' is there twice"), ("[]", "'[]': accepted"),
    ('{"late": {"off": NaN}, "deadline": "2026-03-01T00:00Z"}', "accepted are 0 to 100"),
    ("{", "policy.json"), ("[" * 100_000, "is no JSON in UTF-8"), ('"x"', "accepted is a table"),
    ('{"deadline": "0001-01-01T00:00+23:59"}', "accepted is a time with its zone"),
])
def test_json_is_read_as_strictly(tmp_path, text, words):
    with pytest.raises(ValueError) as refused:
        read(tmp_path, text, "json")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1")
    for name, words in (("none.toml", "there is no such"), ("x.yaml", "accepted are .toml and")):
        with pytest.raises(ValueError, match=words):
            rules.read(tmp_path / name)
    with (tmp_path / "big.toml").open("wb") as out:
        out.truncate(11_000_000)
    with pytest.raises(ValueError, match="has 11 MB: accepted are 10"):
        rules.read(tmp_path / "big.toml")


@pytest.mark.parametrize(("text", "wanted"), [
    ("48 hours", 2 * DAY), ("1 day", DAY), ("1.5 days", 36 * HOUR), ("90 minutes", 1.5 * HOUR),
    ("2 weeks", 14 * DAY), (" 2days ", 2 * DAY),
    ("2026-03-09T12:00:00+01:00", datetime(2026, 3, 9, 11, tzinfo=UTC))])
def test_an_extension_in_a_class_list(text, wanted):
    assert rules.extension(text) == wanted


@pytest.mark.parametrize("text", ["", "2", "two days", "2026-03-09", "2026-03-09T12:00", "1e3 day"])
def test_an_extension_that_is_none(text):
    with pytest.raises(ValueError, match="accepted is a number and its unit"):
        rules.extension(text)
