"""The metrics against trusted libraries, closed forms, and an oracle that reads without error."""

import math

import numpy
import pytest
import scipy.linalg
import torch
from scipy.stats import multivariate_normal
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F
from torch.testing import assert_close

from coursekit import portraits
from coursekit.classroom import metrics
from coursekit.nets.judge import MIDDLES, READ, SPREADS, Judge, Reading
from coursekit.portraits import CATEGORICAL, IDENTITY

SMALL = {"widths": (4, 6, 8, 8), "depths": (1, 1, 1, 1), "summary": 8}


class Oracle(Judge):
    """Knows the record behind each picture: picture k of its world has the value k / 100."""

    def __init__(self, record):
        super().__init__(**SMALL)
        self.record = record
        self.eval()

    def forward(self, x):
        p = self.record[(x[:, 0, 0, 0] * 100).round().long()]
        logits = {n: 50.0 * F.one_hot(getattr(p, n), len(v)).float()
                  for n, v in CATEGORICAL.items()}
        columns = [(getattr(p, n) - m) / s for n, m, s in zip(READ, MIDDLES, SPREADS, strict=True)]
        return Reading(logits, torch.stack(columns, 1), torch.zeros(len(p), len(READ)))


def pictures(*indices):
    return torch.stack([torch.full((3, 64, 64), k / 100) for k in indices])


@pytest.fixture
def judge():
    return Judge(**SMALL).eval()


@pytest.fixture
def pair(generator):
    a = torch.rand(3, 3, 64, 64, generator=generator) * 2 - 1
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)


# ---- pixels ---------------------------------------------------------------------------------


def test_psnr_is_that_of_skimage(pair):
    a, b = pair
    peer = [peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=2)
            for x, y in zip(a.double(), b.double(), strict=True)]
    assert_close(metrics.psnr(a, b), torch.tensor(peer).float())


def test_psnr_of_a_copy_is_infinite(pair):
    assert metrics.psnr(pair[0], pair[0]).tolist() == [math.inf] * 3


def test_ssim_is_that_of_skimage(pair):
    a, b = pair
    peer = [structural_similarity(x.numpy(), y.numpy(), data_range=2, channel_axis=0,
                                  gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            for x, y in zip(a.double(), b.double(), strict=True)]
    assert_close(metrics.ssim(a, b), torch.tensor(peer).float(), atol=1e-6, rtol=0)


def test_locality_tells_inside_from_outside():
    source = torch.zeros(2, 3, 64, 64)
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, :16] = True
    edited = source.clone()
    edited[0, :, :8] = 0.5  # half of the mask
    edited[1, :, :32] = 0.5  # the second mask is empty
    inside, outside = metrics.locality(source, edited, mask)
    assert_close(inside, torch.tensor([0.25, math.nan]), equal_nan=True)
    assert_close(outside, torch.tensor([0.0, 0.25]))


def test_overlap_of_masks():
    a = torch.tensor([[[True, True], [False, False]]])
    b = torch.tensor([[[True, False], [True, False]]])
    none = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert metrics.iou(a, b).tolist() == pytest.approx([1 / 3])
    assert metrics.iou(none, none).tolist() == [1.0] and metrics.iou(a, none).tolist() == [0.0]


# ---- readings -------------------------------------------------------------------------------


def test_tas_is_the_truth_with_an_oracle(generator):
    p = portraits.sample(40, generator)
    oracle, x = Oracle(p), pictures(*range(40))
    assert_close(metrics.tas(oracle, x, {"hat": "cap"}), p.where("hat", "cap"))
    near = metrics.tas(oracle, x, {"smile": 0.3}, tolerance=0.1)
    assert_close(near, (p.smile - 0.3).abs() <= 0.2)
    both = metrics.tas(oracle, x, {"hat": p.hat, "mouth": "open"})
    assert_close(both, p.where("mouth", "open"))


def test_drift_counts_one_attribute_as_its_share(generator):
    p = portraits.sample(4, generator, hat="none", yaw=-0.5)
    oracle = Oracle(portraits.stack(p, p.replace(hat="cap"), p.replace(yaw=0.0)))
    source, hat, yaw = pictures(*range(4)), pictures(*range(4, 8)), pictures(*range(8, 12))
    count = len(CATEGORICAL) + len(READ)
    assert_close(metrics.drift(oracle, source, hat), torch.full((4,), 1 / count))
    assert_close(metrics.drift(oracle, source, yaw), torch.full((4,), 0.5 / count))
    assert metrics.drift(oracle, source, hat, except_for=["hat"]).abs().max() < 1e-6


def test_ntd_is_net_of_reconstruction_and_blind_to_the_target(generator):
    p = portraits.sample(4, generator, hat="none", yaw=-0.5)
    worn = p.replace(hat="cap")
    oracle = Oracle(portraits.stack(p, worn, p.replace(yaw=0.0), worn.replace(yaw=0.0)))
    source, hat, yaw, both = (pictures(*range(k, k + 4)) for k in (0, 4, 8, 12))
    zero = torch.zeros(4)
    assert_close(metrics.ntd(oracle, source, hat, source, ["hat"]), zero, atol=1e-6, rtol=0)
    assert_close(metrics.ntd(oracle, source, both, yaw, ["hat"]), zero, atol=1e-6, rtol=0)
    share = torch.full((4,), 0.5 / (len(CATEGORICAL) + len(READ) - 1))
    assert_close(metrics.ntd(oracle, source, both, source, ["hat"]), share)
    assert_close(metrics.ntd(oracle, source, source, yaw, ["hat"]), -share)


def test_kept_counts_readings_that_stay(generator):
    p = portraits.sample(4, generator, hat="none", mouth="open")
    oracle = Oracle(portraits.stack(p, p.replace(hat="cap", mouth="closed", yaw=0.0)))
    source, other = pictures(*range(4)), pictures(*range(4, 8))
    assert_close(metrics.kept(oracle, source, source), torch.ones(4))
    share = torch.full((4,), 1 - 2 / len(CATEGORICAL))
    assert_close(metrics.kept(oracle, source, other), share)


def test_identity_is_blind_to_everything_else(generator):
    p = portraits.sample(8, generator)
    other = portraits.sample(8, generator).replace(
        **{name: getattr(p, name) for name in IDENTITY})
    opposite = p.replace(**{name: -getattr(p, name) for name in IDENTITY})
    oracle = Oracle(portraits.stack(p, other, opposite))
    one, two, three = (pictures(*range(k, k + 8)) for k in (0, 8, 16))
    assert_close(metrics.id_w(oracle, one, two), torch.ones(8))
    assert_close(metrics.id_w(oracle, one, three), -torch.ones(8))


def test_same_is_the_likelihood_ratio_of_joint_normals(generator, monkeypatch):
    """Measurements z + e of identities z, as scipy's normals have them."""
    normal = multivariate_normal.logpdf
    noise = torch.rand(2, 4, len(IDENTITY), generator=generator, dtype=torch.float64) + 0.05
    seen = torch.randn(2, 4, len(IDENTITY), generator=generator, dtype=torch.float64)
    told = [Reading({}, *(F.pad(h, (0, 7)) for h in (seen[k] / (1 + noise[k]),
                                                     (noise[k] / (1 + noise[k])).log())))
            for k in (0, 1)]
    monkeypatch.setattr(metrics, "readings", lambda judge, x: told[int(x.amax())])
    x = torch.zeros(4, 3, 64, 64)
    peer = torch.zeros(4, dtype=torch.float64)
    for row in range(4):
        for k in range(len(IDENTITY)):
            a, b = seen[:, row, k].tolist()
            va, vb = (1 + noise[:, row, k]).tolist()
            peer[row] += normal([a, b], cov=[[va, 1], [1, vb]]) - normal(a, cov=va) - normal(
                b, cov=vb)
    assert_close(metrics.same_w(None, x, x + 1), peer, atol=1e-10, rtol=0)
    assert_close(metrics.same_w(None, x + 1, x), peer, atol=1e-10, rtol=0)


def test_same_hears_nothing_of_what_one_picture_hides(generator, monkeypatch):
    mean, log_var = torch.randn(2, 4, 17, generator=generator), torch.full((2, 4, 17), -2.0)
    hidden = [mean.clone(), log_var.clone()]
    hidden[0][0, :, 4:], hidden[1][0, :, 4:] = 0.0, 1.5  # less sure than the prior: as the prior
    other = [hidden[0].clone(), hidden[1].clone()]
    other[0][1, :, 4:], other[1][1, :, 4:] = 0.7, -6.0
    x, found = torch.zeros(4, 3, 64, 64), []
    for means, log_vars in (hidden, other):
        told = [Reading({}, m, v) for m, v in zip(means, log_vars, strict=True)]
        monkeypatch.setattr(metrics, "readings", lambda judge, x, told=told: told[int(x.amax())])
        found.append(metrics.same_w(None, x, x + 1))
    assert_close(found[0], found[1], atol=1e-4, rtol=0)
    assert found[0].abs().max() > 0.1


def test_lpips_is_a_symmetric_distance_within_its_range(judge, pair):
    a, b = pair
    d = metrics.lpips_w(judge, a, b)
    assert_close(metrics.lpips_w(judge, a, a), torch.zeros(3))
    assert_close(d, metrics.lpips_w(judge, b, a))
    assert ((d > 0) & (d <= 8)).all()


def test_lpips_is_two_minus_two_cosines_of_the_features(judge, pair):
    a, b = pair
    total = 0
    for f, g in zip(judge.features(a), judge.features(b), strict=True):
        alive = (f > 0).any(1).float() + (g > 0).any(1).float()  # 2 but where no channel answers
        total = total + (alive - 2 * torch.cosine_similarity(f, g, dim=1)).mean((1, 2))
    assert_close(metrics.lpips_w(judge, a, b), total.detach())


# ---- sets -----------------------------------------------------------------------------------


def gaussian(n, d, shift, generator):
    h = torch.randn(n, d, generator=generator, dtype=torch.float64)
    h = h @ torch.randn(d, d, generator=generator, dtype=torch.float64) + shift
    return metrics.Statistics(n, h.mean(0), torch.cov(h.T))


def test_frechet_is_that_of_the_general_matrix_root(generator):
    a, b = gaussian(200, 12, 0.0, generator), gaussian(200, 12, 0.5, generator)
    root = scipy.linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    peer = ((a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()).item()
    assert metrics.frechet(a, b) == pytest.approx(peer - 2 * numpy.trace(root).real, rel=1e-9)


def test_frechet_of_commuting_gaussians_is_closed_form():
    s, t = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([3.0, 0.5, 1.0]).double()
    a = metrics.Statistics(9, torch.zeros(3).double(), torch.diag(s**2))
    b = metrics.Statistics(9, torch.ones(3).double(), torch.diag(t**2))
    assert metrics.frechet(a, b) == pytest.approx(3 + float((s - t).square().sum()), rel=1e-12)


def test_frechet_to_itself_is_zero_with_fewer_pictures_than_features(generator):
    a = gaussian(8, 20, 0.0, generator)
    assert abs(metrics.frechet(a, a)) < 1e-5 * float(a.covariance.trace())


def test_statistics_do_not_depend_on_the_batches(judge, generator):
    x = torch.rand(10, 3, 64, 64, generator=generator) * 2 - 1
    whole, split = metrics.statistics(judge, x), metrics.statistics(judge, iter(x.split(3)))
    assert whole.n == split.n == 10
    assert_close(whole.covariance, split.covariance, atol=1e-7, rtol=1e-5)
    assert whole.covariance.dtype == torch.float64


def test_fid_says_its_number_and_floor(judge, generator):
    x, y, z = torch.rand(3, 12, 3, 64, 64, generator=generator)
    found = metrics.fid_w(judge, x * 0.1, y, z)
    assert found.value > found.floor > 0
    assert f"N = 12, floor {found.floor:.3f}" in str(found)


def test_nearest_is_that_of_sklearn(generator):
    seen = torch.rand(30, 3, 64, 64, generator=generator) * 2 - 1
    asked = torch.rand(5, 3, 64, 64, generator=generator) * 2 - 1
    asked[2] = seen[17]
    distance, index = metrics.nearest(asked, seen.split(7), k=3)
    peer = NearestNeighbors(n_neighbors=3).fit(seen.flatten(1).numpy())
    far, where = peer.kneighbors(asked.flatten(1).numpy())
    assert_close(index, torch.from_numpy(where))
    assert_close(distance, torch.from_numpy(far / 64 / 3**0.5).float(), atol=1e-5, rtol=1e-4)
    assert index[2, 0] == 17 and distance[2, 0] == 0


# ---- the table ------------------------------------------------------------------------------


def test_report_always_has_the_trivial_rows(generator):
    p = portraits.sample(4, generator, hat="none")
    record = portraits.stack(p, p.replace(hat="cap"), portraits.sample(4, generator, hat="cap"))
    source, perfect, other = (pictures(*range(k, k + 4)) for k in (0, 4, 8))
    mask = torch.ones(4, 64, 64, dtype=torch.bool)
    rows = metrics.report(
        Oracle(record), source, {"hat": "cap"},
        {"perfect": lambda: metrics.Edited(perfect, calls=7)},
        reconstruction=source, generated=other, counterfactual=perfect, mask=mask)
    by = {row.name: row for row in rows}
    assert list(by) == ["copy", "reconstruct", "generate", "perfect"]
    assert [row.tas for row in rows] == [0, 0, 1, 1]
    assert by["copy"].id_w == pytest.approx(1) and by["copy"].lpips_w == 0
    assert by["generate"].ntd > 0.05 and abs(by["perfect"].ntd) < 1e-6
    assert by["perfect"].psnr_cf == metrics.PSNR_CAP and by["perfect"].lpips_w_cf == 0
    assert by["perfect"].calls == 7 and by["perfect"].seconds > 0 and by["copy"].seconds is None
    assert by["copy"].inside == 0 and math.isnan(by["copy"].outside)


BAD = {
    "shape": (lambda j, x: metrics.psnr(x, x[:, :, :32]), r"b has shape \(2, 3, 32, 64\)"),
    "numbers of pictures": (lambda j, x: metrics.psnr(x, x[:1]), "accepted is one shape"),
    "range": (lambda j, x: metrics.psnr(x, x + 3), r"accepted are \[-1, 1\]"),
    "nan": (lambda j, x: metrics.id_w(j, x, x * math.nan), "nan"),
    "same, of one": (lambda j, x: metrics.same_w(j, x, x[:1]), "a and b have shapes"),
    "attribute": (lambda j, x: metrics.tas(j, x, {"nose": 1.0}), "attribute 'nose': accepted are"),
    "value": (lambda j, x: metrics.tas(j, x, {"hat": "crown"}), "beanie"),
    "number": (lambda j, x: metrics.tas(j, x, {"age": 2.0}), r"\[0, 1\]"),
    "unread": (lambda j, x: metrics.tas(j, x, {"hue": 0.5}), "attribute 'hue'"),
    "length": (lambda j, x: metrics.tas(j, x, {"age": torch.zeros(3)}), r"accepted is \(2,\)"),
    "nothing wanted": (lambda j, x: metrics.tas(j, x, {}), "wanted is empty"),
    "tolerance": (lambda j, x: metrics.tas(j, x, {"age": 0.5}, tolerance=0), "tolerance=0"),
    "sure": (lambda j, x: metrics.kept(j, x, x, sure=1.0), "sure=1.0"),
    "mask": (lambda j, x: metrics.locality(x, x, torch.ones(2, 64, 64)), "mask is torch.float32"),
    "training mode": (lambda j, x: metrics.readings(j.train(), x), "training mode"),
    "one picture": (lambda j, x: metrics.statistics(j, x[:1]), "at least 2"),
    "unequal sets": (lambda j, x: metrics.fid_w(j, x, x, x[:1].repeat(3, 1, 1, 1)), "one N"),
    "k": (lambda j, x: metrics.nearest(x, [x], k=0), "k=0"),
    "few": (lambda j, x: metrics.nearest(x, [x], k=3), "at least k=3"),
    "name": (lambda j, x: metrics.report(j, x, {"hat": "cap"}, {"copy": x}, reconstruction=x,
                                         generated=x), "'copy' is taken"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(judge, case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words) as refusal:
        call(judge, torch.zeros(2, 3, 64, 64))
    assert "\n" not in str(refusal.value)


def test_a_wrong_type_is_refused(judge):
    x = torch.zeros(2, 3, 64, 64)
    with pytest.raises(TypeError, match="judge is a Identity"):
        metrics.readings(torch.nn.Identity(), x)
    with pytest.raises(TypeError, match=r"x is torch.uint8: accepted is a floating tensor"):
        metrics.readings(judge, x.byte())
