"""What is done to a notebook around its answers: name -> (change, what the grader says of it)."""

import copy


def cell(book, id):
    return next(c for c in book.cells if c.get("id") == id)


def edited(check):
    check.source = "2"


def repointed(check):
    check.metadata.nbgrader.grade_id = "05-2-check"


def worth_more(check):
    check.metadata.nbgrader.points = 100


def tagged(*tags):
    return lambda check: check.metadata.update(tags=list(tags))


CHECKS = {  # changes of the cell 05-1-check
    "edited": (edited, "05-1-check: the check was edited"),
    "re-pointed": (repointed, "its grade_id and its id are those of two cells"),
    "worth more": (worth_more, "05-1-check: nbgrader's setting points was left out"),
    "retyped": (lambda c: c.update(cell_type="raw"), "05-1-check: it is no code any more"),
    "skipped in nbclient": (tagged("skip-execution"),
                            "05-1-check: the mark skip-execution was left out"),
    "skipped in nbval": (tagged("nbval-skip"), "the mark nbval-skip"),
    "may raise": (tagged("raises-exception"), "the mark raises-exception"),
    "ignored in otter": (tagged("otter_ignore"), "the mark otter_ignore"),
    "followed by more in nbmake": (
        lambda c: c.metadata.update(nbmake={"post_cell_execute": ["x"]}), "settings of nbmake"),
    "output ignored in nbval": (
        lambda c: c.update(source="# NBVAL_IGNORE_OUTPUT\n" + c.source),
        "mark NBVAL_IGNORE_OUTPUT"),
}


def removed(book):
    book.cells.remove(cell(book, "05-1-check"))


def doubled(book):
    book.cells.append(copy.deepcopy(cell(book, "05-1-check")))


BOOKS = {  # changes of the notebook
    "check removed": (removed, "05-1-check: the check is not there"),
    "check doubled": (doubled, "2 cells have this id"),
    "reordered": (lambda b: b.cells.insert(0, b.cells.pop()), "the cells are in another order"),
    "foreign kernel": (lambda b: b.metadata.kernelspec.update(name="julia-1.9"),
                       "the kernel 'julia-1.9' was left"),
    "errors allowed": (lambda b: b.metadata.update(execution={"allow_errors": True}),
                       "setting allow_errors"),
    "tests of its own in otter": (lambda b: b.metadata.update(otter={"tests": {"q1": "1"}}),
                                  "the settings of otter"),
}
