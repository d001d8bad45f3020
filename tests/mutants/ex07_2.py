"""Answers to 07-2: wrong_* must be told what their docstring says, right_* must pass."""

import torch
import torch.nn.functional as F


def middle(prompts):
    return F.normalize(F.normalize(prompts, dim=-1).mean(1), dim=-1)


def nearest(pictures, centres):
    return (F.normalize(pictures, dim=-1) @ centres.T).argmax(1)


def wrong_mean_first(pictures, prompts):
    """the mean is taken of prompts as they come"""
    centres = F.normalize(prompts.mean(1), dim=-1)
    return centres, nearest(pictures, centres)


def wrong_short_centres(pictures, prompts):
    """a mean of unit vectors is shorter than one"""
    centres = F.normalize(prompts, dim=-1).mean(1)
    return centres, nearest(pictures, centres)


def wrong_long_centres(pictures, prompts):
    """a sum of unit vectors is longer than one"""
    centres = F.normalize(prompts, dim=-1).sum(1)
    return centres, nearest(pictures, centres)


def wrong_no_length(pictures, prompts):
    """neither the prompts nor the centres have length one"""
    centres = prompts.mean(1)
    return centres, nearest(pictures, centres)


def wrong_default_axis(pictures, prompts):
    """lengths were taken along the templates"""
    centres = F.normalize(F.normalize(prompts).mean(1))
    return centres, nearest(pictures, centres)


def wrong_mean_of_classes(pictures, prompts):
    """the mean runs over the classes"""
    centres = F.normalize(F.normalize(prompts, dim=-1).mean(0), dim=-1)
    return centres, nearest(pictures, centres)


def wrong_first_template(pictures, prompts):
    """only the first template is used"""
    centres = F.normalize(prompts[:, 0], dim=-1)
    return centres, nearest(pictures, centres)


def wrong_argmin(pictures, prompts):
    """these are the least likely classes"""
    centres = middle(prompts)
    return centres, (pictures @ centres.T).argmin(1)


def wrong_axis_of_choice(pictures, prompts):
    """a picture was chosen for each class"""
    centres = middle(prompts)
    return centres, (F.normalize(pictures, dim=-1) @ centres.T).argmax(0)


def wrong_similarities(pictures, prompts):
    """similarities came back"""
    centres = middle(prompts)
    return centres, F.normalize(pictures, dim=-1) @ centres.T


def wrong_largest_similarity(pictures, prompts):
    """similarities came back"""
    centres = middle(prompts)
    return centres, (F.normalize(pictures, dim=-1) @ centres.T).max(1).values


def wrong_order(pictures, prompts):
    """the classes come second"""
    centres = middle(prompts)
    return nearest(pictures, centres), centres


def wrong_classes_alone(pictures, prompts):
    """two things are returned, in a tuple"""
    return nearest(pictures, middle(prompts))


def wrong_list(pictures, prompts):
    """came list of"""
    centres = middle(prompts)
    return centres, nearest(pictures, centres).tolist()


def wrong_first_class(pictures, prompts):
    """classes: largest error"""
    return middle(prompts), torch.zeros(len(pictures), dtype=torch.int64)


def wrong_in_place(pictures, prompts):
    """in place"""
    prompts /= prompts.norm(dim=-1, keepdim=True)
    centres = F.normalize(prompts.mean(1), dim=-1)
    return centres, nearest(pictures, centres)


def right_plain(pictures, prompts):
    centres = middle(prompts)
    return centres, nearest(pictures, centres)


def right_sum(pictures, prompts):
    total = (prompts / prompts.norm(dim=2, keepdim=True)).sum(1)
    centres = total / total.norm(dim=1, keepdim=True)
    return centres, (centres @ pictures.T).max(0).indices


def right_nearest_point(pictures, prompts):
    rows = []
    for some in prompts:
        mean = torch.stack([p / p.norm() for p in some]).mean(0)
        rows.append(mean / mean.norm())
    centres = torch.stack(rows)
    return centres, torch.cdist(pictures, centres).argmin(1)
