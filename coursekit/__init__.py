"""A course on image editing with diffusion models, and the package it runs on.

The map of the house. A file imports from lower floors and from its own folder, no other way.

    floor 0   diffusion/     the mathematics: schedules, predictors, samplers, bounds, training;
                             knows no network
              portraits/     a procedural world of portraits in which every truth is known
              images.py      files and photographs to tensors in [-1, 1] and back
    floor 1   nets/          networks; control.py is the one seam into them
              pretrained.py  models by name, folder or hub id, with their schedule
              manifest.py    what is shipped in weights/, checked by sha256
    floor 2   edits/         one file per paper, none imports another
    floor 3   classroom/     metrics, pictures, widgets, checks: an edit comes as an argument
    floor 4   recipes/       one file per shipped model: data, loss, steps, gates
              tour/          one file per section of `coursekit tour`
              bench/         one file per table of `coursekit bench`
              labs/          labs built from their solutions, a reader's copy verified
              cli.py         the commands; terminal.py is how they speak
              doctor.py      looks at the machine they run on
              weights/       what is shipped

Import what you need from where it lives: `from coursekit.diffusion.schedule import Schedule`.
Nothing is re-exported here, so that this import costs nothing.
"""

__version__ = "0.1.0"
