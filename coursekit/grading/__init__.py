"""Marks that can be defended: `coursekit grade SUBMISSIONS --lab 05`.

The process that holds a verdict never runs a student's code, and the process that runs a student's
code never holds an expected value.

    record.py    what is known of a submission and of its marks     intake.py    files -> submissions
    extract.py   a notebook -> its answers, as text                 policy.py    lateness, variants
    store.py     every result once, append-only                     crew.py      one machine or many
    similar.py   pairs that look alike, no verdicts                 report/      tables and pages

    archive.py   files of a folder, zip or tar, in bounds           layout.py    whose a file is
    choice.py    which notebook counts, told by what it holds       names.py     strangers' names
    roster.py    the class list                                     rules.py     a policy's file

    trusted.py   bytes and a lab in, a record out                   sandbox.py   the walls, limits
    sitting.py   one submission at its workers                      view.py      what is seen inside
    judging.py   hidden cases -> verdict and points                 slot.py      a uid for nobody
    line.py      one worker: in time, or what ended it              watch.py     processes, memory
    protocol.py  frames of plain arrays between the two sides

    forker.py    inside: imports once, forks confined workers       seccomp.py   calls refused there
    worker.py    the untrusted side: cells and calls

`trusted.grade` is the function underneath: submission bytes and a lab in, a record out. It knows
no database and no folder layout. GRADING.md says what all this holds against, and what not.
"""
