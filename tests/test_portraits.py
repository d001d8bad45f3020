"""The Portraits world: records, pictures, captions and exact ground truth."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from coursekit import portraits
from coursekit.bench.render import plain
from coursekit.portraits import CATEGORICAL, CONTINUOUS, GROUPS, TRAINING

SAME = dict(rtol=0, atol=0)


@pytest.fixture(scope="module")
def world():
    return portraits.sample(24, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def person():
    """One bare person in the middle of everything, twelve times over."""
    p = portraits.sample(1, torch.Generator().manual_seed(0), style="photo", background="plain",
                         subject="woman", hair_style="short", glasses="none", hat="none",
                         eyes="open", mouth="closed", earrings="none", yaw=0.1, pitch=0.0,
                         roll=0.0, age=0.5, smile=0.0)  # fmt: skip
    return portraits.stack(*[p] * 12)


def test_same_seed_same_records():
    one, two = (portraits.sample(50, torch.Generator().manual_seed(4)) for _ in range(2))
    for field in dataclasses.fields(one):
        assert torch.equal(getattr(one, field.name), getattr(two, field.name))


def test_every_value_is_drawn_and_every_range_is_filled():
    p = portraits.sample(4000, torch.Generator().manual_seed(0))
    for name, values in CATEGORICAL.items():
        assert getattr(p, name).unique().tolist() == list(range(len(values))), name
    for name, (low, high) in CONTINUOUS.items():
        column = getattr(p, name)
        assert low <= column.min() < low + 0.01 * (high - low), name
        assert high - 0.01 * (high - low) < column.max() <= high, name


def test_attributes_are_independent_and_correlated_on_demand():
    def pearson(a, b):
        return torch.corrcoef(torch.stack([a.float(), b.float()]))[0, 1].item()

    n = 20_000
    free = portraits.sample(n, torch.Generator().manual_seed(1))
    tied = portraits.correlated(n, torch.Generator().manual_seed(1), rho=0.5)
    pairs = {
        ("hat", "glasses"): lambda p: (p.hat > 0, p.glasses > 0),
        ("smile", "warmth"): lambda p: (p.smile > 0, p.warmth > 0),
    }
    for pair in pairs.values():
        assert abs(pearson(*pair(free))) < 0.03
        assert abs(pearson(*pair(tied)) - 0.5) < 0.03
    men = tied.where("subject", "man")
    assert abs(pearson(tied.beard[men] > 0, tied.age[men] > 0.5) - 0.5) < 0.05
    long = tied.where("hair_style", "bob", "long", "bangs")
    assert pearson(tied.earrings, long) > 0.4
    none = portraits.correlated(n, torch.Generator().manual_seed(1), rho=0.0)
    assert abs(pearson(none.hat > 0, none.glasses > 0)) < 0.03


def test_the_training_distribution_is_a_part_of_the_world():
    p = portraits.sample(300, torch.Generator().manual_seed(2), **TRAINING)
    assert p.where("style", "photo").all()
    assert p.where("background", *TRAINING["background"]).all()
    assert len(p.subject.unique()) == len(CATEGORICAL["subject"])


def test_replace_changes_only_what_it_names(world):
    edited = world.replace(hat="party", smile=0.25)
    assert edited.describe(5)["hat"] == "party" and edited.describe(5)["smile"] == 0.25
    for field in dataclasses.fields(world):
        if field.name not in ("hat", "smile"):
            assert torch.equal(getattr(edited, field.name), getattr(world, field.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moustache": 1}, "unknown attribute 'moustache'; attributes are subject"),
        ({"hat": "crown"}, "hat must be one of none, beanie, cap, party; got 'crown'"),
        ({"smile": 1.5}, r"smile must lie in \[-1, 1\], got 1.5"),
        ({"smile": float("nan")}, r"smile must lie in \[-1, 1\], got nan"),
        ({"age": "old"}, "age must be a number, got 'old'"),
        ({"age": torch.zeros(3)}, r"age must have shape \(24,\), got \(3,\)"),
        ({"age": torch.full((24,), 2.0)}, r"age must lie in \[0, 1\], got 2"),
        ({"hat": torch.full((24,), 7)}, r"hat must lie in \[0, 3\], got 7"),
    ],
)
def test_bad_values_are_refused(world, change, message):
    with pytest.raises(ValueError, match=message):
        world.replace(**change)


def test_bad_requests_are_refused(world):
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        portraits.sample(0)
    with pytest.raises(ValueError, match=r"rho must lie in \[0, 1\], got 2"):
        portraits.correlated(5, rho=2)
    with pytest.raises(ValueError, match=r"size must be an integer in \[32, 256\], got 16"):
        portraits.render(world, size=16)
    with pytest.raises(ValueError, match="changes must name at least one attribute"):
        portraits.counterfactual(world)
    with pytest.raises(ValueError, match="kernel must be odd"):
        portraits.strokes(torch.zeros(1, 3, 64, 64), kernel=4)
    with pytest.raises(IndexError, match="index 24 is outside a batch of 24"):
        world[24]


def test_pictures_are_finite_in_range_and_the_same_in_any_batch(world):
    whole = portraits.render(world)
    assert whole.shape == (24, 3, 64, 64) and whole.dtype == torch.float32
    assert whole.isfinite().all() and whole.min() >= -1 and whole.max() <= 1
    alone = torch.cat([portraits.render(world[i]) for i in range(len(world))])
    assert_close(alone, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("style", ["photo", "bronze"])
def test_the_plain_renderer_draws_the_same_picture(world, style):
    """The other styles are the same function of this picture, with thresholds that round-off
    can cross."""
    few = world[:12].replace(style=style)
    assert_close(plain(few), portraits.render(few), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [32, 100, 256])
def test_any_size_shows_the_same_scene(world, size):
    few = world[:6].replace(style="photo")
    image = portraits.render(few, size=size)
    assert image.shape == (6, 3, size, size)
    small = torch.nn.functional.interpolate(image, size=32, mode="area")
    ours = torch.nn.functional.interpolate(portraits.render(few), size=32, mode="area")
    assert (small - ours).abs().mean() < 0.05


def test_an_ellipsoid_is_hit_where_geometry_says(person):
    """The head's outline is an ellipse of known area, so the silhouette of a bald head is too."""
    bald = person[0].replace(hair_style="bald", yaw=0.0, subject="man", ear_size=-1.0,
                             face_width=0.0, face_height=0.0, ageing="grey")  # fmt: skip
    mask = portraits.part_masks(bald, 256)
    face = mask["skin"] | mask["eyes"] | mask["brows"] | mask["mouth"] | mask["ears"]
    rows = 256 * (1 - torch.tensor([0.40, 0.10])) / 2  # between brow and crown: only the head
    wide = face[0, int(rows[0]) : int(rows[1])].sum(1) * (2 / 256)
    y = 1 - (torch.arange(int(rows[0]), int(rows[1])) + 0.5) * (2 / 256) - 0.03
    expected = 2 * 0.47 * (1 - (y / 0.565) ** 2).sqrt()
    high = y > 0.25  # above the ears
    assert_close(wide[high].float(), expected[high], rtol=0, atol=0.02)


def test_light_comes_from_where_the_record_says(person):
    bald = person[:2].replace(hair_style="bald", warmth=0.0, light=torch.tensor([-1.0, 1.0]))
    left, right = (portraits.render(bald)[:, :, 20:50, s].mean((1, 2, 3))
                   for s in (slice(18, 30), slice(34, 46)))  # fmt: skip
    assert left[0] > right[0] + 0.1 and right[1] > left[1] + 0.1


def test_every_attribute_changes_the_picture(person):
    """And where nothing of it can be seen, nothing changes."""
    one, edits, names = person[0].replace(age=0.9), [], []
    for name, values in CATEGORICAL.items():
        other = values[-1] if one.describe(0)[name] != values[-1] else values[0]
        edits.append(one.replace(**{name: other}))
        names.append(name)
    for name, (low, high) in CONTINUOUS.items():
        far = high if one.describe(0)[name] < (low + high) / 2 else low
        edits.append(one.replace(**{name: far}))
        names.append(name)
    pictures = portraits.render(portraits.stack(one, *edits))
    for name, picture in zip(names, pictures[1:], strict=True):
        assert portraits.difference(pictures[:1], picture[None]).sum() >= 8, name
    bald = one.replace(hair_style="bald", glasses="sunglasses", eyes="open")
    assert portraits.counterfactual(bald, eyes="closed").mask.sum() < 12
    assert not portraits.counterfactual(bald, hair_colour="blue", beard="none").mask[:, :20].any()


def test_the_counterfactual_mask_is_where_the_edit_is(person):
    c = portraits.counterfactual(person, hat="beanie")
    assert_close(c.source, portraits.render(person), **SAME)
    before, after = (x.masked_fill(c.mask[:, None], 0) for x in (c.source, c.image))
    assert_close(after, before, rtol=0, atol=2 / 255)
    assert not c.mask[:, 40:].any(), "a beanie reaches no chin"
    same = portraits.counterfactual(person, hat="none")
    assert not same.mask.any()


def test_masks_partition_the_picture(world):
    masks = portraits.part_masks(world)
    assert tuple(masks) == GROUPS
    assert (torch.stack(list(masks.values())).sum(0) == 1).all()
    assert torch.equal(portraits.silhouette(world), ~masks["background"])
    bare = world.replace(hat="none", glasses="none", earrings="none")
    masks = portraits.part_masks(bare)
    assert not any(masks[name].any() for name in ("hat", "glasses", "earrings"))


def test_depth_and_edges_agree_with_the_silhouette(world):
    depth, line, body = (f(world) for f in (portraits.depth, portraits.edges, portraits.silhouette))
    assert depth.min() >= 0 and depth.max() <= 1
    assert (depth[:, 0][~body] < 0.6).all()
    assert depth[:, 0][body].mean() > 0.3
    assert set(line.unique().tolist()) == {0.0, 1.0}
    assert 0.02 < line.mean() < 0.25
    outline = body[:, :, 1:] != body[:, :, :-1]
    assert (line[:, 0, :, :-1][outline] == 1).all()


def test_strokes_use_few_colours_and_keep_the_layout(world):
    x = portraits.render(world[:4].replace(style="photo"))
    painted = portraits.strokes(x, colours=6)
    for image in painted:
        assert len(image.flatten(1).T.unique(dim=0)) <= 6
    coarse = [torch.nn.functional.avg_pool2d(i, 16) for i in (x, painted)]
    assert (coarse[0] - coarse[1]).abs().mean() < 0.12
    flat = torch.full((1, 3, 64, 64), 0.3)
    assert_close(portraits.strokes(flat), flat, rtol=0, atol=1e-6)


def test_captions_name_only_what_is_there(world):
    for i, c in enumerate(portraits.caption(world, torch.Generator().manual_seed(0), details=20)):
        row = world.describe(i)
        text = f" {c.text} "
        assert " an " not in text and "  " not in text
        assert (row["glasses"] == "none") == (not c.naming("glasses"))
        assert (row["hat"] == "none") == (not c.naming("hat"))
        assert (row["beard"] == "none") == (not c.naming("beard"))
        assert bool(c.naming("clothes")) == (row["style"] != "bronze")
        assert c.text.split() == [w for w, _ in c.words]
        if c.naming("hair_colour"):
            assert c.words[c.naming("hair_colour")[0]][0] == row["hair_colour"]


def test_a_plain_wall_is_named_by_what_it_looks_like(person):
    seen = {"red": (0.0, 0.99), "orange": (1 / 12,), "yellow": (1 / 6,), "green": (0.25, 1 / 3),
            "teal": (0.5,), "blue": (0.58, 2 / 3), "purple": (0.77,), "pink": (0.9,)}
    for name, hues in seen.items():
        for hue in hues:
            p = person[:1].replace(hue=hue)
            text = portraits.caption(p, torch.Generator().manual_seed(0), details=20)[0].text
            assert f"plain {name} " in text, (hue, text)
            corner = portraits.render(p)[0, :, 2:8, 2:8].mean((1, 2))
            if name in ("red", "green", "blue"):
                assert corner.argmax() == ("red", "green", "blue").index(name)


def test_captions_of_an_edit_differ_by_the_edited_words():
    p = portraits.sample(60, torch.Generator().manual_seed(5), hat="cap", clothes="red",
                         style="photo", subject="fox")  # fmt: skip
    before = portraits.caption(p, torch.Generator().manual_seed(1), details=20)
    for name, value in (("hat", "party"), ("clothes", "blue"), ("subject", "bear")):
        after = portraits.recaption(before, p.replace(**{name: value}), name)
        for a, b in zip(before, after, strict=True):
            rest = [[w for w, named in c.words if named != name] for c in (a, b)]
            assert rest[0] == rest[1]
            assert a.text != b.text
    bare = p.replace(hat="none")
    added = portraits.recaption(portraits.caption(bare, torch.Generator().manual_seed(1)), p, "hat")
    assert all(c.naming("hat") for c in added)
    with pytest.raises(ValueError, match="no caption names 'roll'"):
        portraits.recaption(before, p, "roll")


def test_fine_detail_follows_the_seed_alone(person):
    few = person[:2]
    again, other = few.replace(seed=few.seed[0].item()), few.replace(seed=99)
    assert_close(portraits.render(again)[0], portraits.render(few)[0], **SAME)
    gap = (portraits.render(other) - portraits.render(few)).abs()
    assert 0.005 < gap.mean() < 0.1
    assert gap[:, :, :8, :8].amax() > 0  # film grain is everywhere
