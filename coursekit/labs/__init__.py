"""Labs: one source in solutions/, from which labs/ is built; and a reader's copy is verified.

    notebook.py   reading notebooks, also broken ones; the ids of their cells
    build.py      solutions/NN_topic.ipynb -> labs/NN_topic.ipynb
    pristine.py   the lab as it was given out, wherever the package lives
    merge.py      a reader's answers put into the pristine lab; what was odd about their notebook
    verify.py     runs the merged notebook under nbval, in a process of its own
"""
