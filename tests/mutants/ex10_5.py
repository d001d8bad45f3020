"""Answers to 10-5: wrong_* must be told what their docstring says, right_* must pass."""

import torch
from torch.nn import functional as F


def lent(x, b):
    return torch.cat([x[:b]] * (len(x) // b))


def small(mask, size):
    step = mask.shape[1] // size[0], mask.shape[2] // size[1]
    return mask[:, ::step[0], ::step[1]].flatten(1)


def share(A, alike):
    kept = A * alike[:, None]
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=1e-30), A)


def equal(here, there):
    return here[:, :, None] == there[:, None]


def verbs(i, first, b, layers, here, there, *, parts="kv", take=lent, is_open=lambda i, f: i >= f,
          map_open=None, of=lambda site, layers: site.name in layers, map_of=None, small=small,
          alike=equal, share=share, spread=lent,
          masked=lambda A, new, b: torch.cat([A[:b], new[b:]])):
    map_open, map_of = map_open or is_open, map_of or of

    def qkv(site, *three):
        if not is_open(i, first) or not of(site, layers):
            return three
        return tuple(take(x, b) if p in parts else x for p, x in zip("qkv", three, strict=True))

    def probs(site, A):
        if here is None or not map_open(i, first) or not map_of(site, layers):
            return A
        places = [spread(torch.cat([small(m, site.size)] * (len(A) // b)), b)
                  for m in (here, there)]
        return masked(A, share(A, alike(*places)), b)

    return qkv, probs


def altered(**how):
    return lambda *args: verbs(*args, **how)


def right_plain(i, first, b, layers, here, there):
    return verbs(i, first, b, layers, here, there)


def right_two_maps(i, first, b, layers, here, there):
    """One map for the object and one for the background, added, as in the official code."""
    def on(site):
        return i >= first and site.name in layers

    def qkv(site, q, k, v):
        return (q, lent(k, b), lent(v, b)) if on(site) else (q, k, v)

    def probs(site, A):
        if here is None or not on(site):
            return A
        ask, seen = (F.interpolate(m[:, None].to(A), site.size).flatten(2)[:, 0]
                     for m in (here, there))
        out = [A[:b]]
        for edit in A[b:].split(b):
            halves = []
            for mask in (seen, 1 - seen):
                some = edit * mask[:, None, None]
                total = some.sum(-1, keepdim=True)
                halves.append(torch.where(total == 0, edit, some / total))
            pick = ask[:, None, :, None]
            out.append(pick * halves[0] + (1 - pick) * halves[1])
        return torch.cat(out)

    return qkv, probs


class right_object:
    def __new__(cls, i, first, b, layers, here, there):
        self = super().__new__(cls)
        self.b, self.layers = b, set(layers) if i >= first else set()
        self.masks = None if here is None else (here, there)
        return self.qkv, self.probs

    def qkv(self, site, q, k, v):
        if site.name not in self.layers:
            return q, k, v
        rows = [row % self.b for row in range(len(k))]
        return q, k[rows], v[rows]

    def probs(self, site, A):
        if site.name not in self.layers or self.masks is None:
            return A
        h, w = site.size
        ask, seen = (m.reshape(len(m), h, m.shape[1] // h, w, -1)[:, :, 0, :, 0].reshape(len(m), -1)
                     for m in self.masks)
        out = A.clone()
        for row in range(self.b, len(A)):
            own = row % self.b
            for place in range(h * w):
                fits = seen[own] == ask[own, place]
                if fits.any():
                    out[row, :, place] = A[row, :, place] * fits
                    out[row, :, place] /= out[row, :, place].sum(-1, keepdim=True)
        return out


def wrong_plug_and_play(*args):
    """that is Plug-and-Play"""
    return altered(parts="qk")(*args)


def wrong_all_three(*args):
    """the queries are the source's, too"""
    return altered(parts="qkv")(*args)


def wrong_keys(*args):
    """only the keys"""
    return altered(parts="k")(*args)


def wrong_values(*args):
    """only the values"""
    return altered(parts="v")(*args)


def wrong_nothing(*args):
    """keys and values are the edit's own"""
    return altered(parts="")(*args)


def wrong_first_source(*args):
    """every picture takes from the first source"""
    return altered(take=lambda x, b: torch.cat([x[:b], *[x[:1]] * (len(x) - b)]))(*args)


def wrong_order(*args):
    """taken in the wrong order"""
    return altered(take=lambda x, b: torch.cat(
        [x[:b], x[:b].repeat_interleave(len(x) // b - 1, 0)]))(*args)


def wrong_last_part(*args):
    """only the last part of the batch takes anything"""
    return altered(take=lambda x, b: torch.cat([x[:-b], x[:b]]))(*args)


def wrong_second_part(*args):
    """only the second part of the batch takes anything"""
    return altered(take=lambda x, b: torch.cat([x[:b], x[:b], x[2 * b:]]))(*args)


def wrong_from_last(*args):
    """the sources stand first"""
    return altered(take=lambda x, b: torch.cat([x[-b:]] * (len(x) // b)))(*args)


def wrong_later(*args):
    """a hop too late"""
    return altered(is_open=lambda i, first: i > first)(*args)


def wrong_earlier(*args):
    """a hop too early"""
    return altered(is_open=lambda i, first: i + 1 >= first)(*args)


def wrong_always(*args):
    """the first hops are not left free"""
    return altered(is_open=lambda i, first: True)(*args)


def wrong_hops_turned(*args):
    """the hops are turned about"""
    return altered(is_open=lambda i, first: i < first)(*args)


def wrong_masks_early(*args):
    """masks act before the first hop"""
    return altered(map_open=lambda i, first: True)(*args)


def wrong_all_layers(*args):
    """other layers were changed, too"""
    return altered(of=lambda site, layers: not site.is_cross)(*args)


def wrong_words(*args):
    """attention to words was changed, too"""
    return altered(of=lambda site, layers: True, map_of=lambda site, layers: site.name in layers)(
        *args)


def wrong_layers_turned(*args):
    """the layers are turned about"""
    return altered(of=lambda site, layers: site.name not in layers,
                   map_of=lambda site, layers: not site.is_cross and site.name not in layers)(*args)


def wrong_masks_everywhere(*args):
    """masks act in other layers, too"""
    return altered(map_of=lambda site, layers: not site.is_cross)(*args)


def wrong_no_masks(*args):
    """the masks have no effect"""
    return altered(share=lambda A, alike: A)(*args)


def wrong_masks_exchanged(*args):
    """the two masks have changed places"""
    return altered(alike=lambda here, there: equal(there, here))(*args)


def wrong_source_mask(*args):
    """only the source's mask"""
    return altered(alike=lambda here, there: equal(there, there))(*args)


def wrong_edit_mask(*args):
    """only the edit's mask"""
    return altered(alike=lambda here, there: equal(here, here))(*args)


def wrong_masks_turned(*args):
    """the masks are turned about"""
    return altered(alike=lambda here, there: ~equal(here, there))(*args)


def wrong_background_sees_all(*args):
    """the background sees everything"""
    return altered(alike=lambda here, there: there[:, None] | ~here[:, :, None])(*args)


def wrong_object_sees_all(*args):
    """the object sees everything"""
    return altered(alike=lambda here, there: ~there[:, None] | here[:, :, None])(*args)


def wrong_background_as_object(*args):
    """the background sees the object, as the object does"""
    return altered(alike=lambda here, there: there[:, None].expand(-1, here.shape[1], -1))(*args)


def wrong_background_left(*args):
    """the background sees everything"""
    return altered(alike=lambda here, there: there[:, None] & here[:, :, None])(*args)


def wrong_sum(*args):
    """does not sum to one"""
    return altered(share=lambda A, alike: torch.where(
        alike.any(-1)[:, None, :, None], A * alike[:, None], A))(*args)


def wrong_sum_and_nothing(*args):
    """does not sum to one"""
    return altered(share=lambda A, alike: A * alike[:, None])(*args)


def wrong_softmax_again(*args):
    """put through a softmax again"""
    return altered(share=lambda A, alike: torch.where(
        alike.any(-1)[:, None, :, None],
        A.masked_fill(~alike[:, None], -torch.inf).softmax(-1), A))(*args)


def wrong_sees_nothing(*args):
    """sees nothing: it sees all"""
    return altered(share=lambda A, alike: A * alike[:, None] / (
        A * alike[:, None]).sum(-1, keepdim=True).clamp(min=1e-30))(*args)


def wrong_nan(*args):
    """is NaN"""
    return altered(share=lambda A, alike: A * alike[:, None] / (
        A * alike[:, None]).sum(-1, keepdim=True))(*args)


def wrong_masks_on_sources(*args):
    """masks act on the sources, too"""
    return altered(masked=lambda A, new, b: new)(*args)


def wrong_masks_on_last(*args):
    """masks act on the last part of the batch alone"""
    return altered(masked=lambda A, new, b: torch.cat([A[:-b], new[-b:]]))(*args)


def wrong_mask_order(*args):
    """the masks come in the wrong order"""
    return altered(spread=lambda m, b: torch.cat(
        [m[:b], m[:b].repeat_interleave(len(m) // b - 1, 0)]))(*args)


def wrong_first_mask(*args):
    """the first one's masks"""
    return altered(spread=lambda m, b: m[:1].expand_as(m))(*args)


def wrong_mask_mean(*args):
    """not the whole square"""
    return altered(small=lambda m, size: F.adaptive_avg_pool2d(m.double(), size).flatten(1) > 0.5)(
        *args)


def wrong_mask_any(*args):
    """not the whole square"""
    return altered(small=lambda m, size: F.adaptive_max_pool2d(m.double(), size).flatten(1) > 0.5)(
        *args)


def wrong_none(i, first, b, layers, here, there):
    """the masks are None where there are none"""
    shape = here.shape
    return verbs(i, first, b, layers, here.view(shape), there)


def wrong_in_place(i, first, b, layers, here, there):
    """what came was written into"""
    qkv, probs = verbs(i, first, b, layers, here, there)

    def over(site, A):
        A.copy_(probs(site, A))
        return A

    return qkv, over


def wrong_keys_in_place(i, first, b, layers, here, there):
    """what came was written into"""
    def qkv(site, q, k, v):
        if i >= first and site.name in layers:
            k.copy_(lent(k, b))
            v.copy_(lent(v, b))
        return q, k, v

    return qkv, verbs(i, first, b, layers, here, there)[1]


def wrong_nothing_where_free(i, first, b, layers, here, there):
    """qkv always gives three tensors"""
    qkv, probs = verbs(i, first, b, layers, here, there)
    return lambda site, *three: qkv(site, *three) if site.name in layers else None, probs


def wrong_no_map_where_free(i, first, b, layers, here, there):
    """probs always gives A"""
    qkv, probs = verbs(i, first, b, layers, here, there)
    return qkv, lambda site, A: probs(site, A) if site.name in layers else None


def wrong_rows_lost(*args):
    """rows were lost"""
    return altered(masked=lambda A, new, b: new[b:])(*args)


def wrong_one_function(*args):
    """two functions are returned"""
    return verbs(*args)[0]


def wrong_library(i, first, b, layers, here, there):
    """own refuses while your answer runs"""
    from coursekit.edits.masactrl import _mutual, apart

    give = _mutual(layers)[1]
    return give, lambda site, A: apart(A, here.flatten(1), there.flatten(1))
