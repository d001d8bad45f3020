"""Recipes at their toy size: what they leave behind, that they go on, and what they refuse."""

import warnings
from contextlib import closing

import numpy
import pytest
import torch
from PIL import Image

from coursekit import pretrained, recipes
from coursekit.nets.unet import UNet
from coursekit.recipes import Pictures, ddpm, portraits_ddpm, write_pictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Prepared data goes to the test's own folder, not to the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "coursekit"


@pytest.fixture(autouse=True)
def few_renders(monkeypatch):
    """The renderer has its own tests: here a portrait is a noisy rectangle of its number."""
    def renders(n, device):
        generator = torch.Generator().manual_seed(1)
        for i in range(0, n, 12):
            yield torch.rand(min(12, n - i), 3, 64, 64, generator=generator) * 2 - 1

    monkeypatch.setattr(portraits_ddpm, "renders", renders)


def photos(folder, n, size=(80, 60)):
    folder.mkdir(exist_ok=True)
    rng = numpy.random.default_rng(0)
    for i in range(n):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


def weights(folder):
    return pretrained.load(folder).net.state_dict()


# ---- the job --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["portraits-ddpm", "ddpm"])
def test_a_recipe_leaves_a_model_that_loads_and_samples(tmp_path, name):
    module = {"portraits-ddpm": portraits_ddpm, "ddpm": ddpm}[name]
    assert name == module.NAME
    data = {"data": photos(tmp_path / "photos", 20)} if name == "ddpm" else {}
    *_, last = module.run(tmp_path / "out", tiny=True, steps=4, **data)
    assert (last.step, last.images) == (4, 32)

    loaded = pretrained.load(tmp_path / "out")
    assert loaded.prediction == "v" and loaded.schedule.T == 1000
    state = {k: v.half().float() for k, v in last.ema.state_dict().items()}
    torch.testing.assert_close(loaded.net.state_dict(), state, rtol=0, atol=0)
    assert loaded.eps()(torch.randn(2, 3, 64, 64), 500).isfinite().all()
    card = (tmp_path / "out/card.md").read_text()
    assert f"# {name}" in card and "| Images seen | 32 |" in card
    assert len((tmp_path / "out/log.txt").read_text().splitlines()) == 1
    assert [f.name for f in (tmp_path / "out/samples").iterdir()] == ["0000004.png"]


def test_stopped_and_run_again_is_the_run_that_was_not_stopped(tmp_path):
    list(portraits_ddpm.run(tmp_path / "whole", tiny=True, steps=6, seed=3))
    with closing(portraits_ddpm.run(tmp_path / "parts", tiny=True, steps=6, seed=3)) as updates:
        for update in updates:
            if update.step == 2:
                break
    *_, last = portraits_ddpm.run(tmp_path / "parts", tiny=True, steps=6, seed=3)
    assert last.images == 48
    torch.testing.assert_close(weights(tmp_path / "parts"), weights(tmp_path / "whole"), rtol=0,
                               atol=0)


def test_seeds_differ_and_repeat(tmp_path):
    found = []
    for i, seed in enumerate((0, 0, 1)):
        list(portraits_ddpm.run(tmp_path / str(i), tiny=True, steps=2, seed=seed))
        found.append(weights(tmp_path / str(i))["input.weight"])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
    assert (found[2] - found[0]).abs().max() > 0.01


def test_minutes_end_a_run(tmp_path):
    *_, last = portraits_ddpm.run(tmp_path / "out", tiny=True, minutes=0.01)
    assert last.seconds >= 0.6 and last.lr < 5e-5
    assert (tmp_path / "out/model.safetensors").exists()


def test_from_begins_with_those_weights(tmp_path):
    list(portraits_ddpm.run(tmp_path / "first", tiny=True, steps=3))
    first = next(u for u in ddpm.run(tmp_path / "second", tiny=True, steps=3,
                                     data=photos(tmp_path / "photos", 16),
                                     start=str(tmp_path / "first")) if u.step == 1)
    begun = weights(tmp_path / "first")
    drift = max(float((v - begun[k]).abs().max()) for k, v in first.ema.state_dict().items())
    assert drift < 1e-4  # one step of the warm-up, averaged; fresh weights are 0.1 away


def test_pictures_are_prepared_once(tmp_path, own_cache, monkeypatch):
    first = list(portraits_ddpm.run(tmp_path / "a", tiny=True, steps=1))
    assert [u.images for u in first if u.step == 0] == [12, 24, 32]
    assert [len(numpy.load(f)) for f in own_cache.iterdir()] == [32]
    second = list(portraits_ddpm.run(tmp_path / "b", tiny=True, steps=1))
    assert [u.step for u in second] == [1]
    monkeypatch.setattr(portraits_ddpm, "world", lambda: "changed")
    assert len(list(portraits_ddpm.run(tmp_path / "c", tiny=True, steps=1))) == len(first)


def test_the_shipped_size():
    """A fresh network of the shipped configuration is the default U-Net, about 4 M parameters."""
    net = UNet(**portraits_ddpm.CONFIG)
    assert 3.5e6 < sum(p.numel() for p in net.parameters()) < 4.8e6


def test_the_training_set_is_the_training_distribution(monkeypatch):
    monkeypatch.undo()
    asked = []

    def render(batch, size):
        asked.append((batch.describe(0), size))
        return torch.zeros(len(batch), 3, size, size)

    monkeypatch.setattr(portraits_ddpm.portraits, "render", render)
    chunks = list(portraits_ddpm.renders(300, "cpu"))
    assert [len(c) for c in chunks] == [256, 44]
    allowed = portraits_ddpm.portraits.TRAINING
    for described, size in asked:
        assert size == 64
        for name, values in allowed.items():
            assert described[name] in ((values,) if isinstance(values, str) else values)


# ---- a folder of one's own ------------------------------------------------------------------


def test_bad_files_are_named_and_left_out(tmp_path, own_cache):
    folder = photos(tmp_path / "photos", 17)
    Image.new("L", (9, 300), 40).save(folder / "grey.jpg")
    (folder / "deep").mkdir()
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(folder / "deep" / "clear.webp")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden").write_text("not even looked at")
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:200])
    with pytest.warns(UserWarning) as caught:
        list(ddpm.run(tmp_path / "out", data=folder, tiny=True, steps=1))
    assert sorted(str(w.message).partition("'")[2].partition("'")[0].rpartition("/")[2]
                  for w in caught) == ["cut.png", "notes.txt"]
    pixels = numpy.load(next(own_cache.iterdir()))
    assert pixels.shape == (19, 3, 64, 64) and pixels.dtype == numpy.uint8
    assert "the 19 in the folder" in (tmp_path / "out/card.md").read_text()


def test_exif_rotation_is_applied(tmp_path, own_cache):
    folder = photos(tmp_path / "photos", 15)
    half = Image.new("RGB", (64, 64), "white")
    half.paste("black", (0, 0, 64, 32))  # the top is black, as stored
    exif = Image.Exif()
    exif[0x0112] = 3  # but the camera was upside down
    half.save(folder / "zz.png", exif=exif)
    list(ddpm.run(tmp_path / "out", data=folder, tiny=True, steps=1))
    last = numpy.load(next(own_cache.iterdir()))[-1]
    assert last[:, :30].min() == 255 and last[:, 34:].max() == 0


@pytest.mark.parametrize("readable, broken", [(15, 0), (15, 3), (0, 0)])
def test_too_few_pictures_are_refused_with_the_number_needed(tmp_path, own_cache, readable,
                                                             broken):
    folder = photos(tmp_path / "photos", readable)
    for i in range(broken):
        (folder / f"broken{i}.jpg").write_text("no")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=rf"photos'.*{readable} .*at least 16 ") as caught:
            list(ddpm.run(tmp_path / "out", data=folder, tiny=True))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not list(own_cache.glob("*"))


def test_a_changed_folder_is_read_again(tmp_path, own_cache):
    folder = photos(tmp_path / "photos", 16)
    list(ddpm.run(tmp_path / "a", data=folder, tiny=True, steps=1))
    Image.new("RGB", (64, 64)).save(folder / "new.png")
    list(ddpm.run(tmp_path / "b", data=folder, tiny=True, steps=1))
    assert sorted(len(numpy.load(f)) for f in own_cache.iterdir()) == [16, 17]


# ---- pictures on disk -----------------------------------------------------------------------


def test_pictures_come_back_and_each_epoch_is_a_permutation(tmp_path):
    x = torch.arange(20.0).view(20, 1, 1, 1).expand(20, 3, 8, 8) / 10 - 1
    assert list(write_pictures(tmp_path / "x.npy", 8, x.split(7))) == [7, 14, 20]
    pictures = Pictures(tmp_path / "x.npy", batch=6, seed=0)
    assert len(pictures) == 20
    seen = torch.cat([pictures(k) for k in range(10)])  # three epochs
    ids = ((seen[:, 0, 0, 0] + 1) * 10).round().long().tolist()
    for epoch in (ids[:20], ids[20:40], ids[40:]):
        assert sorted(epoch) == list(range(20))
    assert ids[:20] != ids[20:40]
    torch.testing.assert_close(seen, x[ids], rtol=0, atol=1 / 255 + 1e-6)
    again = Pictures(tmp_path / "x.npy", batch=6, seed=0)
    torch.testing.assert_close(again(7), pictures(7), rtol=0, atol=0)  # also out of order


def test_an_interrupted_preparation_leaves_nothing(tmp_path):
    chunks = torch.zeros(20, 3, 8, 8).split(7)
    with closing(write_pictures(tmp_path / "data" / "x.npy", 8, chunks)) as writing:
        next(writing)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_full_disk_while_preparing_is_one_line_and_leaves_nothing(tmp_path):
    def chunks():
        yield torch.zeros(4, 3, 8, 8)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left .*x\.npy"):
        list(write_pictures(tmp_path / "x.npy", 8, chunks()))
    assert list(tmp_path.glob("x*")) == [] and list(tmp_path.glob(".x*")) == []


# ---- refusals -------------------------------------------------------------------------------


def test_a_folder_is_refused_or_required(tmp_path):
    with pytest.raises(ValueError, match="data='x'.*renders its own pictures"):
        next(portraits_ddpm.run(tmp_path, data="x"))
    with pytest.raises(ValueError, match="data is missing: ddpm needs a folder with at least 16"):
        next(ddpm.run(tmp_path))


def test_weights_of_another_kind_are_refused(tmp_path):
    net = recipes.fresh(UNet, portraits_ddpm.TINY, 0)
    pretrained.save(tmp_path / "eps", net, net.config, pretrained_schedule(), "eps")
    with pytest.raises(ValueError, match="predicts eps: accepted is a UNet .* predicts v"):
        list(portraits_ddpm.run(tmp_path / "out", start=str(tmp_path / "eps"), tiny=True))


def pretrained_schedule():
    from coursekit.diffusion.schedule import Schedule

    return Schedule.cosine()
