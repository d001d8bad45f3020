"""A ControlNet for portraits-sd that follows depth maps, else as portraits-controlnet."""

from functools import partial

from coursekit.recipes import portraits_controlnet

NAME = "portraits-controlnet-depth"
run = partial(portraits_controlnet.run, hint="depth")
