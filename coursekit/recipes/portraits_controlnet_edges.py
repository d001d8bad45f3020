"""A ControlNet for portraits-sd that follows line drawings, else as portraits-controlnet."""

from functools import partial

from coursekit.recipes import portraits_controlnet

NAME = "portraits-controlnet-edges"
run = partial(portraits_controlnet.run, hint="edges")
