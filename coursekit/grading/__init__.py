"""Marks that can be defended: `coursekit grade SUBMISSIONS --lab 05`.

The process that holds a verdict never runs a student's code, and the process that runs a student's
code never holds an expected value.

    record.py    what is known of a submission and of its marks     intake.py    files -> submissions
    extract.py   a notebook -> its answers, as text                 sandbox.py   the walls
    protocol.py  frames of plain arrays between the two sides       worker.py    the untrusted side
    trusted.py   hidden cases, verdicts, points                     policy.py    lateness, variants
    store.py     every result once, append-only                     crew.py      one machine or many
    similar.py   pairs that look alike, no verdicts                 report/      tables and pages

`trusted.grade` is the function underneath: submission bytes and a lab in, a record out. It knows
no database and no folder layout. GRADING.md says what all this holds against, and what not.
"""
