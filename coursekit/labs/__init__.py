"""Labs: one source in solutions/, from which labs/ is built; and a reader's copy is verified.

    notebook.py   reading notebooks, also broken ones; the ids of their cells
    source.py     tokens of code, and the names it defines, also where it is no Python
    build.py      solutions/NN_topic.ipynb -> labs/NN_topic.ipynb
    pristine.py   the lab as it was given out, wherever the package lives
    odd.py        what in a reader's notebook was left aside, in words
    merge.py      a reader's answers put into the pristine lab
    verify.py     runs the merged notebook under nbval, in a process of its own
"""
