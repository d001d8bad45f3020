"""The judge's network, its recipe on a toy size, and the shipped weights on fresh renders."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy
import pytest
import torch
from torch.testing import assert_close

from coursekit import manifest, portraits, pretrained
from coursekit.classroom import metrics
from coursekit.nets.judge import READ, Judge
from coursekit.portraits import CATEGORICAL, CONTINUOUS, TRAINING, truth
from coursekit.portraits.scene import GROUPS
from coursekit.recipes import judge as recipe

SMALL = {"widths": (4, 6, 8, 8), "depths": (1, 1, 1, 1), "summary": 8}
shipped = pytest.mark.skipif("judge" not in manifest.names(), reason="no judge is shipped yet")


@pytest.fixture
def x(generator):
    return torch.rand(5, 3, 64, 64, generator=generator) * 2 - 1


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


# ---- the network ----------------------------------------------------------------------------


def test_shapes_are_those_promised(x):
    judge = Judge().eval()
    with torch.no_grad():
        features = judge.features(x)
        reading, parts = judge.read(x, features), judge.segment(features)
    assert [tuple(f.shape[1:]) for f in features] == [
        (32, 32, 32), (64, 16, 16), (128, 8, 8), (192, 4, 4)]
    assert {n: v.shape[1] for n, v in reading.logits.items()} == {
        n: len(v) for n, v in CATEGORICAL.items()}
    assert reading.mean.shape == reading.log_var.shape == (5, 17)
    assert reading.identity.shape == (5, 10)
    assert parts.shape == (5, len(GROUPS), 64, 64)
    assert judge.pooled(x).shape == (5, 384)


def test_detail_lets_single_places_of_the_face_through(x):
    """A change within the face at level 1 reaches the reading by the short way alone."""
    judge = Judge(**SMALL, detail=4).eval()
    features = judge.features(x)
    before = judge.read(x, features).mean
    features[1] = features[1].clone()
    features[1][:, :, 0] += 5.0  # above the face: not looked at
    assert_close(judge.read(x, features).mean, before)
    features[1][:, :, 5, 5] += 5.0
    assert (judge.read(x, features).mean - before).abs().max() > 1e-4


def test_the_tower_sees_the_pixels_of_the_face_and_no_more(x):
    judge = Judge(**SMALL, face=4, tower=((4, 1), (6, 1))).eval()
    features = judge.features(x)
    before = judge.read(x, features).mean

    def after(row, column):
        other = x.clone()
        other[:, :, row, column] *= -1
        return judge.read(other, features).mean  # by the tower alone: features are those of x

    for row, column in ((7, 30), (48, 30), (30, 11), (30, 52)):
        assert_close(after(row, column), before, atol=0, rtol=0)
    for row, column in ((8, 12), (47, 51)):
        assert (after(row, column) - before).abs().max() > 1e-6


def test_a_picture_is_read_alike_alone_and_in_a_batch(x):
    judge = Judge(**SMALL).eval()
    whole, alone = judge(x), judge(x[3:4])
    assert_close(whole.mean[3:4], alone.mean, atol=1e-5, rtol=1e-5)
    assert_close(judge.pooled(x)[3:4], judge.pooled(x[3:4]), atol=1e-5, rtol=1e-5)


def test_values_undo_the_standardisation_and_stay_in_range(generator):
    p = portraits.sample(50, generator)
    reading = Judge(**SMALL).eval()(torch.zeros(50, 3, 64, 64))
    reading = replace(reading, mean=recipe.standardised(p))
    for name in READ:
        assert_close(reading.value(name), getattr(p, name), atol=1e-5, rtol=0)
    far = replace(reading, mean=torch.full_like(reading.mean, 9.0))
    assert all((far.value(name) == CONTINUOUS[name][1]).all() for name in READ)


@pytest.mark.parametrize("bad, words", [
    (torch.zeros(1, 3, 32, 32), r"x has shape \(1, 3, 32, 32\): accepted is \(b, 3, 64, 64\)"),
    (torch.zeros(1, 1, 64, 64), r"shape \(1, 1, 64, 64\)"),
    (torch.zeros(3, 64, 64), r"shape \(3, 64, 64\)"),
    (torch.zeros(0, 3, 64, 64), r"shape \(0, 3, 64, 64\)"),
    (torch.full((1, 3, 64, 64), 255.0), r"values in \[255, 255\]: accepted are \[-1, 1\]"),
    (torch.full((1, 3, 64, 64), float("nan")), "nan"),
])
def test_pictures_of_another_kind_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        Judge(**SMALL).eval()(bad)


def test_what_it_does_not_read_is_refused(x):
    reading = Judge(**SMALL).eval()(x)
    with pytest.raises(ValueError, match="name='hue': accepted are face_width"):
        reading.value("hue")
    with pytest.raises(ValueError, match="name='nose': accepted are subject"):
        reading.index("nose")


# ---- the recipe -----------------------------------------------------------------------------


def test_standardised_columns_have_unit_spread(generator):
    values = recipe.standardised(portraits.sample(4000, generator))
    assert_close(values.std(0), torch.ones(17), atol=0.04, rtol=0)
    assert_close(values.mean(0), torch.zeros(17), atol=0.07, rtol=0)


def test_a_mirrored_picture_has_the_mirrored_record(generator):
    """The augmentation's claim: turning three signs is what a mirror does, but for fine detail."""
    p = portraits.sample(24, generator, style="photo", background="plain")
    turned = p.replace(yaw=-p.yaw, roll=-p.roll, light=-p.light)
    agree = truth.labels(turned) == truth.labels(p).flip(-1)
    assert agree.float().mean() > 0.98
    unturned = truth.labels(p) == truth.labels(p).flip(-1)
    assert unturned.float().mean() < 0.9
    error = portraits.render(turned) - portraits.render(p).flip(-1)
    assert error.square().mean().sqrt() < 0.15


def test_weights_leave_out_only_what_cannot_be_seen(generator):
    p = portraits.sample(60, generator)
    weights = recipe.weights(p)
    for name, other in (("clothes", "red"), ("eyes", "closed"), ("ageing", "wrinkles")):
        q = p.replace(**{name: other})
        hidden = p[weights[name] == 0]
        assert len(hidden) > 0
        change = (portraits.render(hidden) - portraits.render(q[weights[name] == 0])).abs()
        allowed = 0.02 if name != "ageing" else 0.5  # a little ageing shows from 0.4 on
        assert change.mean((1, 2, 3)).max() < allowed


def test_noise_and_blur_are_weak_and_stay_in_range(x, generator):
    worn = recipe.worn(x.clone(), generator)
    assert worn.abs().max() <= 1
    flat = torch.zeros(64, 3, 64, 64)
    assert 0.01 < recipe.worn(flat, generator).std() < 0.04


def test_cycle_rises_then_falls_to_almost_nothing():
    shares = [recipe.cycle(k / 100) for k in range(101)]
    top = shares.index(max(shares))
    assert top == 6 and shares[:7] == sorted(shares[:7])
    assert shares[6:] == sorted(shares[6:], reverse=True) and shares[-1] < 0.01


def test_likelihood_is_least_at_the_true_values_and_variance(x, generator):
    reading = Judge(**SMALL).eval()(x)
    values = torch.randn(5, 17, generator=generator)

    def at(shift, log_var):
        said = replace(reading, mean=values + shift, log_var=torch.full((5, 17), log_var))
        return recipe.likelihood(said, values) / torch.tensor(log_var).exp()

    variance = 2 * torch.tensor(0.3).log().item()  # of an error of 0.3
    assert at(0.0, variance) < at(0.1, variance)
    assert at(0.3, variance) < min(at(0.3, variance - 0.5), at(0.3, variance + 0.5))


def test_means_learn_from_the_squared_error_whatever_the_variance(x, generator):
    reading = Judge(**SMALL).eval()(x)
    values = torch.randn(5, 17, generator=generator)
    found = []
    for log_var in (-3.0, 0.0, 1.5):
        mean = (values + 0.3).requires_grad_()
        said = replace(reading, mean=mean, log_var=torch.full((5, 17), log_var))
        recipe.likelihood(said, values).backward()
        found.append(mean.grad)
    weighted = 0.3 * recipe.care(values) / (5 * 17)
    for gradient in found:
        assert_close(gradient, weighted.expand(5, 17))


def test_the_difference_of_twins_leaves_out_what_they_share(generator):
    values = torch.randn(6, 17, generator=generator)
    values[1::2] = values[::2]
    k = READ.index("smile")
    values[1::2, k] += 1.0
    shared = torch.randn(3, 17, generator=generator).repeat_interleave(2, 0)
    assert recipe.difference(values + shared, values) < 1e-12
    wrong = values.clone()
    wrong[1::2, k] += 0.5
    expected = 0.5 * 0.5**2 * recipe.CARE["smile"] / 17
    assert_close(recipe.difference(wrong, values), torch.tensor(expected))
    wrong[:, k + 1] += torch.randn(6, generator=generator)  # both have the same yaw
    assert_close(recipe.difference(wrong, values), torch.tensor(expected))


def test_twins_differ_in_one_thing_that_can_be_seen():
    p = portraits.stack(*(recipe.records(k, 512) for k in range(4)))
    first, second = p[torch.arange(0, len(p), 2)], p[torch.arange(1, len(p), 2)]
    names = [*CATEGORICAL, *CONTINUOUS, "seed"]
    differ = torch.stack([getattr(first, name) != getattr(second, name) for name in names])
    beard = names.index("beard")  # a child grows none
    assert (differ.sum(0) == 1).float().mean() > 0.95
    assert ((differ.sum(0) == 1) | (differ[beard] & (differ.sum(0) == 2))).all()
    changed = {name: int(row.sum()) for name, row in zip(names, differ, strict=True) if row.any()}
    assert set(changed) == {*recipe.CHANGED, "beard"}
    assert max(changed, key=changed.get) == "smile"
    assert (first.age[differ[names.index("ageing")]] > recipe.OLD).all()
    hair = differ[names.index("hair_style")]
    mixed = hair & first.where("hair_style", *recipe.ALIKE) & second.where(
        "hair_style", *recipe.ALIKE)
    assert mixed.sum() > 3
    change = (portraits.render(first[:64]) - portraits.render(second[:64])).abs().amax((1, 2, 3))
    assert (change > 0.02).float().mean() > 0.8  # a hat or glasses hide the rest


def test_a_batch_depends_on_its_number_alone(cache):
    list(recipe.draw(cache / "set", 16, 5, 3, "cpu"))
    one = recipe.Renders(cache / "set", 16, 8, seed=3)
    late = recipe.Renders(cache / "set", 16, 8, seed=3)
    for k in range(13):
        first = one(k)
    again = late(12)
    assert_close(first.x, again.x, atol=0, rtol=0)
    assert_close(first.values, again.values, atol=0, rtol=0)
    assert_close(first.maps, again.maps, atol=0, rtol=0)


def test_twins_stay_together(cache):
    list(recipe.draw(cache / "set", 16, 5, 3, "cpu"))
    batch = recipe.Renders(cache / "set", 16, 8, seed=3)(2)
    apart = (batch.values[::2] != batch.values[1::2]).sum(1)
    for name in CATEGORICAL:
        apart += batch.codes[name][::2] != batch.codes[name][1::2]
    assert ((apart == 1) | (apart == 2)).all()  # 2 where a child loses its beard
    with pytest.raises(ValueError, match="batch=7 parts twins"):
        recipe.Renders(cache / "set", 16, 7, seed=3)


def test_batches_fit_their_records(cache):
    """What a batch says of its pictures is what the world says, mirrored or not."""
    list(recipe.draw(cache / "set", 16, 4, 0, "cpu"))
    batch = recipe.Renders(cache / "set", 16, 32, seed=0)(0)
    assert len(batch.mapped) == len(batch.maps) > 0
    p = portraits.stack(*(recipe.records(k, 16) for k in range(4)))
    sign = torch.ones(17)
    sign[recipe.MIRRORED] = -1
    for row, true in zip(batch.mapped.tolist(), batch.maps, strict=True):
        found = [(k, flip) for k, v in enumerate(recipe.standardised(p))
                 for flip in (False, True)
                 if torch.equal(batch.values[row], v * sign if flip else v)
                 and all(batch.codes[a][row] == getattr(p, a)[k] for a in CATEGORICAL)]
        ((k, flip),) = found
        labels = truth.labels(p[k])[0].long()
        assert torch.equal(true, labels.flip(-1) if flip else labels)
        picture = portraits.render(p[k])[0]
        assert (batch.x[row] - (picture.flip(-1) if flip else picture)).abs().mean() < 0.08


@pytest.mark.slow
def test_two_processes_draw_the_set_of_one_and_learn_together(cache):
    script = cache / "job.py"  # gloo's threads now and then abort an interpreter that shuts down
    script.write_text(f"""
import os
from pathlib import Path
from coursekit.recipes import judge
for update in judge.run(Path({str(cache)!r}) / "two", steps=3, tiny=True):
    pass
print("reached", update.step, update.images)
os.sys.stdout.flush()
os._exit(0)
""")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         str(script)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("reached 3 24") == 2
    assert isinstance(pretrained.load(cache / "two").net, Judge)
    (drawn,) = (cache / "cache" / "coursekit").glob("judge-twins-16x5-0-*")
    list(recipe.draw(cache / "one", 16, 5, 0, "cpu"))
    for name in ("images", "labels", "done"):
        one, two = (numpy.load(folder / f"{name}.npy") for folder in (cache / "one", drawn))
        assert (one == two).all() and one.any()


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(cache):
    *_, whole = recipe.run(cache / "a", steps=6, tiny=True)
    updates = recipe.run(cache / "b", steps=6, tiny=True)
    while next(updates).step < 4:
        pass
    updates.close()  # what Ctrl-C comes to
    rest = list(recipe.run(cache / "b", steps=6, tiny=True))
    assert [u.step for u in rest] == [5, 6] and rest[-1].loss == whole.loss
    one, two = (pretrained.load(cache / name).net.state_dict() for name in "ab")
    assert_close(one, two, atol=0, rtol=0)


def test_the_clock_counts_what_the_optimiser_takes(cache, monkeypatch):
    step = torch.optim.AdamW.step

    def slow(self):
        time.sleep(0.2)
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", slow)
    *_, last = recipe.run(cache / "a", steps=6, tiny=True)
    assert last.seconds > 5 * 0.2


def test_statistics_of_batch_norms_are_those_of_many_pictures(cache, monkeypatch):
    """Settled over one batch, a judge in eval mode reads in it what it reads in training mode."""
    monkeypatch.setattr(recipe, "SETTLING", 80)
    list(recipe.draw(cache / "set", 16, 5, 3, "cpu"))
    renders = recipe.Renders(cache / "set", 16, 80, seed=3)
    net = recipe.begin(None, recipe.TINY["config"], 0)
    for name in recipe.KEPT:
        getattr(net, name).requires_grad_(False)
    frozen = [v.clone() for name in recipe.KEPT for v in getattr(net, name).buffers()]
    recipe.settle(net, renders, "cpu")
    kept = [v for name in recipe.KEPT for v in getattr(net, name).buffers()]
    assert_close(kept, frozen, atol=0, rtol=0)
    x = renders(0).x
    with torch.no_grad():
        trained = net(x).mean
        settled = net.eval()(x).mean
    assert_close(settled, trained, atol=0.02, rtol=0.02)  # a variance over 80 or over 79
    list(recipe.run(cache / "a", steps=2, tiny=True))
    last = torch.load(cache / "a" / "checkpoint.pt", weights_only=True)["net"]
    left = pretrained.load(cache / "a").net.state_dict()
    assert (left["summary.2.running_mean"] - last["summary.2.running_mean"]).abs().max() > 0.01


def test_weights_without_a_second_look_are_read_at_first_as_before(cache, x):
    old = Judge(**SMALL, detail=4).eval()
    pretrained.save(cache / "old", old, old.config)
    config = {"face": 4, "tower": ((4, 1), (4, 1))}
    net = recipe.begin(str(cache / "old"), config, seed=0).eval()
    assert net.config == {**old.config, **config}
    old = pretrained.load(cache / "old").net.eval()
    with torch.no_grad():
        mine, wanted = net(x), old(x)
        assert net.look(x, net.features(x)).shape == (5, 2 * SMALL["summary"])
    assert_close(mine.mean, wanted.mean)
    assert_close(mine.logits, wanted.logits)


def test_from_given_weights_distances_and_parts_stay_as_they_are(cache, x):
    list(recipe.run(cache / "a", steps=2, tiny=True))
    list(recipe.run(cache / "b", steps=6, tiny=True, start=str(cache / "a")))
    one, two = (pretrained.load(cache / name).net.eval() for name in "ab")
    with torch.no_grad():
        features = one.features(x)
        assert_close(two.features(x), features, atol=0, rtol=0)
        assert_close(two.segment(features), one.segment(features), atol=0, rtol=0)
        assert (two(x).mean - one(x).mean).abs().max() > 1e-3


def test_a_damaged_checkpoint_is_refused_in_one_line(cache):
    list(recipe.run(cache / "a", steps=2, tiny=True))
    assert "Updates | 2 of 8" in (cache / "a" / "card.md").read_text()
    file = cache / "a" / "checkpoint.pt"
    torch.save({"net": {}, "step": 2}, file)
    with pytest.raises(ValueError, match="damaged or of another network") as refusal:
        list(recipe.run(cache / "a", steps=4, tiny=True))
    assert "\n" not in str(refusal.value)


def test_a_folder_of_pictures_is_refused(cache):
    with pytest.raises(ValueError, match="renders its own"):
        next(recipe.run(cache / "a", data=cache, tiny=True))


# ---- what is shipped ------------------------------------------------------------------------


FLOORS = {"ageing": 0.85}  # the card says why; 0.9 elsewhere


@shipped
def test_the_shipped_judge_reads_fresh_renders():
    judge = pretrained.load("judge").net
    p = portraits.sample(192, torch.Generator().manual_seed(10**9 + 5), **TRAINING)
    x = portraits.render(p)
    reading, weights = metrics.readings(judge, x), recipe.weights(p)
    for name in CATEGORICAL:
        seen = weights[name] > 0
        right = reading.index(name)[seen] == getattr(p, name)[seen]
        assert right.float().mean() > FLOORS.get(name, 0.9), name
    for name in ("yaw", "light", "smile", "age"):
        error = (reading.value(name) - getattr(p, name)).square().mean()
        assert error < 0.06 * getattr(p, name).var(), name
    with torch.no_grad():
        said, true = judge.silhouette(x), truth.silhouette(p)
    assert (said & true).sum() / (said | true).sum() > 0.96
