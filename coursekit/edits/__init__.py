"""Edits: one file a paper, each with one function `edit`; none imports another.

A file here has

* a docstring with the citation, the idea in two sentences, and a table of the paper's symbols that
  begins with the line `paper ... here`;
* `edit(...)`, which returns pictures in the shape, dtype and place of those it was given, leaves
  its arguments alone, carries no gradients, and draws from `generator` only;
* `NULL`, the keyword arguments under which `edit` is the plain reconstruction: the picture itself,
  or what DDIM inversion and sampling along the path make of it;
* `tiny()` if it needs weights: a dict of the arguments of `edit` that hold them, small and random.

Arguments that mean the same have the same name everywhere:

    eps         noise predictor (x, t) -> eps, its conditions closed over
    schedule    the Schedule it was trained on
    image       the picture to edit, (b, c, h, w) in [-1, 1] or latents; SDEdit's is called `guide`
    path        times from noisy to clean, e.g. schedule.trailing(50)
    t0          a time 0..T at which something starts or ends
    sd          a text-to-image model, for what needs its words or its inside; `image` are then
                latents to be inverted, or the list of their states
    prompt      what the picture shows; `target` is what the edit shall show
    negative    what guidance leads away from; `w` is its weight
    generator   for what is drawn; the default is torch's global one

`tests/test_edits_contract.py` holds every file to this, on a network of ours and one of diffusers.
"""
