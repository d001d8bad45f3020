"""The S x eta table: what is measured is what is stored, and what is stored is read back."""

import json

import pytest
import torch

from coursekit import portraits, pretrained
from coursekit.bench import judge as bench_judge
from coursekit.bench import samples, steps_eta

SMALL = {24: [(10, 0.0), (10, 0.2), (20, 1.0)], 12: [(1000, 1.0)]}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(steps_eta, "CELLS", SMALL)
    monkeypatch.setattr(steps_eta, "FLOORS", 4)


def draw(n, steps, eta):
    """Fresh renders, blurred where eta is not 0."""
    generator = torch.Generator().manual_seed(steps)
    x = portraits.render(portraits.sample(n, generator, **portraits.TRAINING))
    return bench_judge.blur(x, 1.5) if eta else x


@pytest.fixture(scope="module")
def lines():
    """The rows of a small table, as the command prints them."""
    judge = pretrained.load("judge").net
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps_eta, "CELLS", SMALL)
        patch.setattr(steps_eta, "FLOORS", 4)
        return [row.as_dict() for row in steps_eta.measure(judge, draw, seed=0, device="cpu")]


def test_a_table_comes_back_as_it_was_measured(tmp_path, lines):
    assert steps_eta.stored(tmp_path) == []
    file = tmp_path / steps_eta.TABLE
    file.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    many, long = steps_eta.stored(tmp_path)
    assert (many.n, long.n) == (24, 12)
    assert [list(table.fid) for table in (many, long)] == [SMALL[24][::-1], SMALL[12]]
    assert many.fid[20, 1.0] == lines[3]["ours"] and long.fid[1000, 1.0] == lines[5]["ours"]
    assert (many.floor, many.scatter) == (lines[0]["ours"], lines[0]["peer"])


def test_renders_lie_at_the_floor_and_blurred_ones_far_from_it(lines):
    floor, sharp, *blurred = lines[:4]
    assert abs(sharp["ours"] - floor["ours"]) < 6 * floor["peer"]
    assert all(line["ours"] > floor["ours"] + 4 * floor["peer"] for line in blurred)
    assert all(line["peer"] == floor["ours"] for line in (sharp, *blurred))
    assert lines[4]["ours"] > floor["ours"]  # fewer pictures: a higher floor


def test_the_bench_draws_from_the_shipped_model_with_one_noise(few, monkeypatch):
    asked = []

    def noted(model, n, steps, *, eta, seed, device):
        asked.append((n, steps, eta, seed, device))
        return draw(n, steps, eta)

    monkeypatch.setattr(samples, "samples", noted)
    made = list(steps_eta.rows(seed=7, device="cpu"))
    assert asked == [(n, *cell, 7, "cpu") for n, cells in SMALL.items() for cell in cells]
    assert [row.n for row in made] == [24] * 4 + [12] * 2


@pytest.mark.parametrize("spoil", [
    lambda text: text[:-9], lambda text: "", lambda text: "[]\n",
    lambda text: text.replace("peer", "pair"),
], ids=["cut", "empty", "list", "key"])
def test_a_damaged_table_is_refused_in_one_line(tmp_path, lines, spoil):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / steps_eta.TABLE).write_text(spoil(text))
    with pytest.raises(ValueError, match="steps_eta.jsonl' is damaged") as refusal:
        steps_eta.stored(tmp_path)
    assert "\n" not in str(refusal.value)
