"""A ControlNet for portraits-sd without zero convolutions: the ablation of its paper.

All else is the recipe portraits-controlnet. The joints begin normal, with the deviation that keeps
what goes in as large as it was, so the copy disturbs the model from the first update on.
"""

from functools import partial

from coursekit.recipes import portraits_controlnet

NAME = "portraits-controlnet-gaussian"
run = partial(portraits_controlnet.run, gaussian=True)
