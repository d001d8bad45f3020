"""Training: the loss is the right one, resume is exact, a failed write leaves the old file."""

import errno
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from coursekit.diffusion import train as module
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import fast_dtype, train

COSINE = Schedule.cosine(T=50)


class Net(nn.Module):
    """A small network with dropout, so that the global generator's state matters too."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(5, 16), nn.Linear(16, 4), nn.Dropout(0.2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, t):
        if self.training:
            self.calls += 1
        time = (t / 50.0)[:, None, None, None].expand(-1, 1, 2, 2)
        h = torch.cat([x, time.to(x)], 1).movedim(1, -1)  # b 2 2 c+1
        return self.b(self.drop(self.a(h).relu())).movedim(-1, 1)


def batches(k):
    return torch.randn(8, 4, 2, 2, generator=torch.Generator().manual_seed(k)).clamp(-1, 1)


def settings(**more):
    return {"steps": 12, "warmup": 3, "lr": 1e-2, "ema": 0.9, **more}


def state(net, last):
    return {**net.state_dict(), **{f"ema.{k}": v for k, v in last.ema.state_dict().items()}}


@pytest.fixture
def net():
    return Net()


def uninterrupted():
    torch.manual_seed(0)
    net = Net()
    *_, last = train(net, batches, COSINE, **settings())
    return state(net, last)


# ---- resume ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_run_resumed_after_ctrl_c_is_the_run_that_was_not(tmp_path, net, stop_at):
    expected = uninterrupted()
    torch.manual_seed(0)
    net, file = Net(), tmp_path / "checkpoint.pt"
    updates = train(net, batches, COSINE, checkpoint=file, **settings())
    for update in updates:
        if update.step == stop_at:
            break
    updates.close()  # what `with closing(..)` does at Ctrl-C outside of the generator
    torch.manual_seed(77)
    other = Net()  # different weights and a different generator: all must come from the file
    *_, last = train(other, batches, COSINE, checkpoint=file, **settings())
    assert (last.step, last.images) == (12, 12 * 8)
    torch.testing.assert_close(state(other, last), expected, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_ctrl_c_in_the_middle_of_an_update_counts_it_as_not_done(tmp_path, where):
    expected, file = uninterrupted(), tmp_path / "checkpoint.pt"
    torch.manual_seed(0)
    net, raised = Net(), []

    def interrupt(*_):
        if net.calls == 5 and not raised:
            raised.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    net.b.register_forward_hook(interrupt) if where == "forward" else \
        net.b.weight.register_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        for update in train(net, batches, COSINE, checkpoint=file, **settings()):
            pass
    assert update.step == 4
    other = Net()
    *_, last = train(other, batches, COSINE, checkpoint=file, **settings())
    found = state(other, last)
    for key in ("calls", "ema.calls"):  # a counter of forward passes has seen one more
        found.pop(key), expected.pop(key)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_checkpoints_come_by_the_clock(tmp_path, net):
    file = tmp_path / "checkpoint.pt"
    dates = []
    for _ in train(net, batches, COSINE, checkpoint=file, every=0.0, **settings(steps=3)):
        dates.append(torch.load(file, weights_only=True)["step"])
    assert dates == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_finished_run_yields_its_result_again(tmp_path, net):
    file = tmp_path / "checkpoint.pt"
    *_, last = train(net, batches, COSINE, checkpoint=file, **settings(steps=3))
    again = list(train(Net(), batches, COSINE, checkpoint=file, **settings(steps=3)))
    assert len(again) == 1 and again[0].step == 3 and math.isnan(again[0].loss)
    torch.testing.assert_close(again[0].ema.state_dict(), last.ema.state_dict(), rtol=0, atol=0)


def test_no_resume_starts_anew(tmp_path, net):
    file = tmp_path / "checkpoint.pt"
    list(train(net, batches, COSINE, checkpoint=file, **settings(steps=3)))
    first = next(train(Net(), batches, COSINE, checkpoint=file, resume=False, **settings()))
    assert first.step == 1


# ---- failed writes --------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(tmp_path, net, monkeypatch):
    file = tmp_path / "checkpoint.pt"
    list(train(net, batches, COSINE, checkpoint=file, **settings(steps=3)))
    before = file.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*checkpoint\.pt") as caught:
        list(train(net, batches, COSINE, checkpoint=file, every=0.0, **settings(steps=9)))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(file)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert file.read_bytes() == before


def test_a_disk_that_is_full_from_the_start_is_noticed_before_the_first_update(tmp_path, net,
                                                                               monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError):
        next(train(net, batches, COSINE, checkpoint=tmp_path / "x" / "checkpoint.pt",
                   **settings()))
    assert net.calls == 0 and list((tmp_path / "x").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="root may write everywhere")
def test_no_permission_names_the_file(tmp_path, net):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(PermissionError, match="checkpoint"):
        next(train(net, batches, COSINE, checkpoint=tmp_path / "checkpoint.pt", **settings()))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "another network"])
def test_a_checkpoint_that_cannot_be_used_is_refused_and_kept(tmp_path, content):
    file = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        list(train(Oracle("v"), batches, COSINE, checkpoint=file, **settings(steps=1)))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint '.*checkpoint\.pt' is damaged or of another"):
        next(train(Net(), batches, COSINE, checkpoint=file, **settings()))
    assert file.read_bytes() == before


def test_a_place_that_is_no_folder_names_the_file(tmp_path, net):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(OSError, match=r"x/checkpoint\.pt"):
        next(train(net, batches, COSINE, checkpoint=tmp_path / "x" / "checkpoint.pt",
                   **settings()))


# ---- the loss -------------------------------------------------------------------------------


class Oracle(nn.Module):
    """Says the exact target of one known x0, plus a constant error that can be learnt away."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction, self.error = prediction, nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t, t):
        x0 = batches(0)
        a = COSINE.abar[t].sqrt().float()[:, None, None, None]
        b = (1 - COSINE.abar[t]).sqrt().float()[:, None, None, None]
        eps = (x_t - a * x0) / b
        exact = {"x0": x0, "eps": eps, "v": a * eps - b * x0}[self.prediction]
        return exact + self.error


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_the_oracle_has_no_loss_but_its_error(prediction):
    net = Oracle(prediction)
    first = next(train(net, lambda k: batches(0), COSINE, steps=3, prediction=prediction))
    assert first.loss == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_min_snr_weighs_errors_in_x0_alike(prediction):
    """Eq. 5 of the paper: one weight min(SNR, gamma) on the error in x0, whatever is predicted."""
    t = torch.arange(1, 51)
    x0, eps, wrong = (torch.randn(50, 4, 2, 2, dtype=torch.float64) for _ in range(3))
    a = COSINE.abar[t].sqrt()[:, None, None, None]
    b = (1 - COSINE.abar[t]).sqrt()[:, None, None, None]
    x_t, found = a * x0 + b * eps, x0 + 0.1 * wrong
    said = {"x0": found, "eps": (x_t - a * found) / b,
            "v": (a * x_t - found) / b}[prediction]
    snr = (a / b).square()
    for floor in (0.0, 1.0):
        loss = module._loss(said, x0, eps, t, COSINE, prediction, 5.0, floor)
        expected = (snr.clamp(floor, 5.0) * (found - x0).square()).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_contrast_weighs_the_difference_of_two_errors_beside_their_mean(prediction, min_snr):
    t = torch.randint(1, 51, (4,)).repeat_interleave(2)
    x0, eps, out = (torch.randn(8, 4, 2, 2, dtype=torch.float64) for _ in range(3))
    odds = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.5, 0.5], [math.nan] * 2], dtype=torch.float64)

    def loss(out, contrast=1.0, odds=odds):
        return module._loss(out, x0, eps, t, COSINE, prediction, min_snr, 0.0, odds, contrast)

    each = torch.stack([module._loss(*(v[i:i + 1] for v in (out, x0, eps, t)), COSINE, prediction,
                                     min_snr) for i in range(8)]).view(4, 2)
    torch.testing.assert_close(loss(out), (odds.nan_to_num(0.5) * each).sum(1).mean())
    a, b = COSINE.scales(t, x0)
    exact = {"x0": x0, "eps": eps, "v": a * eps - b * x0}[prediction]
    p = odds.nan_to_num(0.5).flatten()[:, None, None, None]
    wrong = (out - exact).unflatten(0, (-1, 2))
    middle = (p.unflatten(0, (-1, 2)) * wrong).sum(1).repeat_interleave(2, 0)
    counts = torch.tensor([1, 1, 1, 0.0]).repeat_interleave(2)[:, None, None, None]
    for contrast in (0.5, 1.0, 10.0):  # a pair with noisy pictures of their own is not contrasted
        scale = contrast**0.5 * counts + (1 - counts)
        wanted = loss(exact + middle + scale * (out - exact - middle))
        torch.testing.assert_close(loss(out, contrast), wanted)


def drawn(x0, time):
    """Times, noises and odds of pairs that share a noisy picture, all at one time."""
    draws = torch.Generator().manual_seed(0)
    t, eps = module._draw(x0, 2, COSINE.T, lambda n, draws: torch.full((n,), time), draws)
    return t, *module._shared(x0, eps, t, COSINE, draws)


def test_a_pair_shares_its_noisy_picture_and_the_odds_are_those_of_bayes():
    x0 = torch.randn(40, 1, 2, 2, dtype=torch.float64)
    x0[1::2] = x0[::2] + 0.5 * torch.randn(20, 1, 2, 2, dtype=torch.float64)
    t, eps, odds = drawn(x0, 30)
    a, s = COSINE.scales(30, x0)
    x_t = COSINE.noise(x0, eps, t)
    torch.testing.assert_close(x_t[::2], x_t[1::2])
    likely = torch.distributions.Normal(a * x0, s).log_prob(x_t).flatten(1).sum(1)
    torch.testing.assert_close(odds, likely.view(20, 2).softmax(1))
    assert 0 < odds.min() and not torch.equal(eps[::2], eps[1::2])


def test_where_a_noisy_picture_would_tell_the_two_of_a_pair_have_their_own():
    x0 = torch.zeros(4, 1, 2, 2)
    x0[1], x0[3] = 0.01, 3.0
    t, eps, odds = drawn(x0, 25)
    a, s = COSINE.scales(25, x0)
    assert 4 * (a / s * 0.01)**2 / 2 < module.TOLD < 4 * (a / s * 3.0)**2 / 2
    assert odds.isnan().tolist() == [[False, False], [True, True]]
    assert torch.equal(eps[2], eps[3]) and not torch.equal(eps[0], eps[1])


@pytest.mark.parametrize("t", [15, 25, 40])
def test_the_expected_loss_of_shared_noisy_pictures_is_the_usual_one(t):
    """Of any network: here one that is wrong by something that depends on picture and word."""
    n = 400_000
    x0 = torch.tensor([-0.6, 0.5], dtype=torch.float64).repeat(n)[:, None, None, None]
    word = torch.tensor([0.3, -0.8], dtype=torch.float64).repeat(n)[:, None, None, None]

    def net(x_t):
        return torch.sin(2 * x_t + word) + word

    at, eps, odds = drawn(x0, t)
    assert not odds.isnan().any()
    found = module._loss(net(COSINE.noise(x0, eps, at)), x0, eps, at, COSINE, "eps", None, 0.0,
                         odds)
    eps = torch.randn(2 * n, 1, 1, 1, dtype=torch.float64)
    usual = module._loss(net(COSINE.noise(x0, eps, at)), x0, eps, at, COSINE, "eps", None)
    torch.testing.assert_close(found, usual, rtol=0.01, atol=0)


def test_pairs_share_their_times_and_are_weighed_alike_to_the_end(monkeypatch):
    net, seen = Oracle("v"), []

    def loss(out, x0, eps, t, *rest):
        seen.append((t, eps, *rest[-2:]))
        return (out - out.detach() + net.error).square().mean()

    monkeypatch.setattr(module, "_loss", loss)
    list(train(net, batches, COSINE, steps=30, warmup=5, decay=0.5, lr=1.0, contrast=9.0))
    for t, eps, odds, contrast in seen:
        assert torch.equal(t[::2], t[1::2]) and not torch.equal(eps[0], eps[2])
        assert len(set(t.tolist())) > 1 and len(odds) == len(t) // 2 and contrast == 9.0
    with pytest.raises(ValueError, match="batches give 3 pictures: under contrast accepted is an"):
        next(train(net, lambda k: torch.zeros(3, 3, 4, 4), COSINE, steps=1, contrast=2.0))


def test_times_may_be_drawn_otherwise_one_a_pair(monkeypatch):
    seen, asked = [], []

    def times(n, draws):
        asked.append(n)
        return torch.randint(40, 45, (n,), generator=draws)

    def loss(out, x0, eps, t, *rest):
        seen.append(t)
        return (out - out.detach() + net.error).square().mean()

    net = Oracle("v")
    monkeypatch.setattr(module, "_loss", loss)
    for contrast in (None, 2.0):
        list(train(net, batches, COSINE, steps=3, lr=1e-3, contrast=contrast, times=times))
    b = len(seen[0])
    assert asked == [b] * 3 + [b // 2] * 3 and all(40 <= t < 45 for t in torch.cat(seen))
    assert all(torch.equal(t[::2], t[1::2]) for t in seen[3:])
    assert not torch.equal(seen[0], seen[1])
    for wrong in (torch.zeros(b), torch.full((b,), COSINE.T + 1), torch.ones(b + 1)):
        with pytest.raises(ValueError, match=r"times\(.*accepted are"):
            next(train(net, batches, COSINE, steps=1, times=lambda n, draws, t=wrong: t))


def test_times_cover_the_schedule_evenly_and_noise_is_fresh():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x, t):
            seen.append((x.detach(), t))
            return self.w * x

    for _ in train(Spy(), lambda k: torch.zeros(25, 4, 2, 2), COSINE, steps=200, seed=3):
        pass
    t = torch.cat([t for _, t in seen])
    assert (t.min(), t.max()) == (1, 50)
    counts = torch.bincount(t, minlength=51)[1:]
    assert (counts - 100).abs().max() < 5 * 100**0.5
    a = torch.stack([x / (1 - COSINE.abar[t]).sqrt().float()[:, None, None, None]
                     for x, t in seen])
    assert abs(a.mean()) < 0.02 and abs(a.std() - 1) < 0.02
    assert len({float(x) for x in a.flatten()[:1000]}) > 990


def test_it_learns_a_single_picture():
    """The best v for a constant x0 is known, and a linear net can say it at each time."""
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.shift = (nn.Parameter(torch.zeros(51, 4, 2, 2)) for _ in range(2))

        def forward(self, x, t):
            return self.scale[t] * x + self.shift[t]

    x0 = batches(0)[:1]
    *_, last = train(Table(), lambda k: x0.expand(64, -1, -1, -1), COSINE, steps=300, lr=0.1,
                     warmup=20, ema=0.9)
    t = torch.full((1,), 25)
    eps = torch.randn(1, 4, 2, 2)
    a, b = COSINE.abar[25].sqrt().float(), (1 - COSINE.abar[25]).sqrt().float()
    torch.testing.assert_close(last.ema(a * x0 + b * eps, t), a * eps - b * x0, rtol=0, atol=0.05)


# ---- the rest -------------------------------------------------------------------------------


def test_lr_rises_holds_and_falls():
    lrs = [u.lr for u in train(Net(), batches, COSINE, steps=40, lr=1.0, warmup=4, decay=0.5,
                               clip=1e-9)]
    assert lrs[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert lrs[5:20] == pytest.approx([1.0] * 15)
    assert all(a > b for a, b in zip(lrs[20:], lrs[21:], strict=False)) and lrs[-1] < 0.01


def test_the_clock_ends_a_run_and_lowers_lr(net, monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(now)))
    updates = list(train(net, batches, COSINE, steps=10**6, seconds=50.0, lr=1.0, warmup=0,
                         decay=0.5))
    assert updates[-1].seconds >= 50 > updates[-2].seconds
    assert updates[-1].lr < 0.05 and updates[0].lr == 1.0


def test_the_average_is_the_recursion(net):
    shadow = None
    for k, update in enumerate(train(net, batches, COSINE, **settings())):
        weight = net.a.weight.detach().clone()
        if shadow is None:
            torch.manual_seed(0)
            shadow = Net().a.weight.detach().clone()  # the weights it began with
        d = min(0.9, (1 + k) / (10 + k))
        shadow = d * shadow + (1 - d) * weight
        torch.testing.assert_close(update.ema.a.weight, shadow, rtol=0, atol=1e-6)
        assert not update.ema.training and not update.ema.a.weight.requires_grad


def test_gradients_are_clipped_and_the_norm_is_told_before(net):
    update = next(train(net, lambda k: 1000 * batches(k), COSINE, steps=1, clip=1e-3))
    assert update.grad_norm > 1
    kept = nn.utils.get_total_norm([p.grad for p in net.parameters()])
    assert kept == pytest.approx(1e-3, rel=1e-3)


def test_conditions_travel_with_their_batch():
    class Conditional(Net):
        def forward(self, x, t, code):
            torch.testing.assert_close(code, torch.full((8,), 3.0))
            return super().forward(x, t)

    list(train(Conditional(), lambda k: (batches(k), {"code": torch.full((8,), 3.0)}), COSINE,
               **settings(steps=1)))


def test_global_generator_is_left_alone():
    torch.manual_seed(5)
    net = Net().eval()
    net.drop.p = 0.0
    before = torch.get_rng_state()
    list(train(net, batches, COSINE, **settings(steps=2)))
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_accelerate_on_one_process_is_the_plain_loop(tmp_path):
    from accelerate import Accelerator

    expected = uninterrupted()
    torch.manual_seed(0)
    net = Net()
    *_, last = train(net, batches, COSINE, accelerator=Accelerator(cpu=True), **settings(),
                     checkpoint=tmp_path / "checkpoint.pt")
    torch.testing.assert_close(state(net, last), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_stop_together_with_the_same_weights(tmp_path):
    """By the clock, which differs between them: without agreement one would wait for ever."""
    script = tmp_path / "job.py"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from accelerate import Accelerator
from test_train import COSINE, Net, batches, train
from pathlib import Path
accelerator = Accelerator(cpu=True)
net, rank = Net(), accelerator.process_index
for update in train(net, batches, COSINE, steps=10**6, seconds=1.0, accelerator=accelerator,
                    checkpoint=Path({str(tmp_path)!r}) / "checkpoint.pt"):
    pass
torch.save([update.step, update.images, update.seconds, net.state_dict(),
            update.ema.state_dict()], Path({str(tmp_path)!r}) / f"rank{{rank}}.pt")
accelerator.wait_for_everyone()
os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down under them
""")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         str(script)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2)]
    assert ranks[0][0] > 1 and ranks[0][1] == 16 * ranks[0][0]
    ranks[0][3].pop("calls"), ranks[1][3].pop("calls")
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0, atol=0)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == ranks[0][0]


def test_bfloat16_keeps_the_loss_in_float32(net):
    update = next(train(net, batches, COSINE, autocast=torch.bfloat16, **settings()))
    plain = next(train(Net(), batches, COSINE, **settings()))
    assert update.loss == pytest.approx(plain.loss, rel=0.3) and update.loss != plain.loss
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("units, dtype", [
    ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16),
    ({"avx2": True, "avx512_bf16": False}, None), ({}, None)])
def test_fast_dtype_asks_the_hardware(monkeypatch, units, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert fast_dtype("cpu") is dtype and fast_dtype("meta") is None


def test_a_loss_that_is_not_finite_stops_and_says_what_to_do(net):
    def broken(k):
        return batches(k) * (math.nan if k == 2 else 1)

    with pytest.raises(FloatingPointError, match="loss is nan .* at step 2: try a smaller lr"):
        list(train(net, broken, COSINE, **settings()))


@pytest.mark.parametrize("bad, words", [
    ({"prediction": "noise"}, "prediction='noise': accepted are v, eps, x0"),
    ({"steps": 0}, "steps=0"), ({"lr": 0.0}, "lr=0.0"), ({"lr": math.nan}, "lr=nan"),
    ({"ema": 1.0}, "ema=1.0"), ({"decay": 1.5}, "decay=1.5"), ({"clip": -1.0}, "clip=-1.0"),
    ({"min_snr": 0.0}, "min_snr=0.0"), ({"seconds": 0.0}, "seconds=0.0"),
    ({"contrast": 0.0}, "contrast=0.0"),
    ({"floor": 1.0}, "floor=1.0.*min_snr, which is None"),
    ({"floor": 6.0, "min_snr": 5.0}, "floor=6.0"), ({"floor": -1.0, "min_snr": 5.0}, "floor=-1.0"),
])
def test_arguments_out_of_range_are_named(net, bad, words):
    with pytest.raises(ValueError, match=words):
        next(train(net, batches, COSINE, **{**settings(), **bad}))
