"""Metrics against SciPy and torchmetrics; the bootstrap against a loop; the length baseline."""

import numpy as np
import pytest
import scipy.stats
import torch
from torchmetrics.functional.regression import concordance_corrcoef

from feie.heads.measures.baselines import LengthBaseline
from feie.heads.measures.metrics import bootstrap_pearson, ccc, mae, pearson, score


def arrays(n=60, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random((n, columns))
    return y + rng.normal(0, 0.4, y.shape), y


def test_equal_scipy_and_torchmetrics():
    p, y = arrays()
    expected = [scipy.stats.pearsonr(p[:, i], y[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(pearson(p, y), expected, rtol=1e-12)
    theirs = concordance_corrcoef(torch.from_numpy(p), torch.from_numpy(y)).numpy()
    n = len(p)
    ours = ccc(p, y)
    np.testing.assert_allclose(ours, theirs, rtol=3 / n)  # theirs mixes n and n - 1
    for i in range(3):
        a, b = p[:, i], y[:, i]
        lin = 2 * np.cov(a, b, ddof=0)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
        assert ours[i] == pytest.approx(lin, rel=1e-12)
    np.testing.assert_allclose(mae(p, y), np.abs(p - y).mean(0))


def test_constant_columns_are_undefined_and_left_out_of_the_mean():
    p, y = arrays()
    p[:, 0], y[:, 1] = 0.1, 0.3
    found = score(p, y)
    assert np.isnan(found.pearson[:2]).all()
    assert np.isnan(found.interval[:2]).all()
    assert found.mean == found.pearson[2]
    np.testing.assert_array_equal(found.mean_interval, found.interval[2])
    everything = score(np.full_like(p, 0.25), y)
    assert np.isnan(everything.mean)
    assert np.isnan(everything.mean_interval).all()


def test_one_video_is_undefined_without_warning():
    p, y = arrays(1)
    assert np.isnan(score(p, y).mean)


def test_bootstrap_equals_a_loop_over_resampled_splits():
    p, y = arrays(25)
    found = bootstrap_pearson(p, y, samples=130, seed=4)
    rng = np.random.default_rng(4)
    for start, rows in ((0, 100), (100, 30)):
        for i, drawn in enumerate(rng.integers(25, size=(rows, 25))):
            np.testing.assert_allclose(found[start + i], pearson(p[drawn], y[drawn]), rtol=1e-9)


def test_intervals_cover_and_repeat():
    p, y = arrays(200)
    one, two = score(p, y, seed=1), score(p, y, seed=1)
    np.testing.assert_array_equal(one.interval, two.interval)
    assert (one.interval[:, 0] < one.pearson).all()
    assert (one.pearson < one.interval[:, 1]).all()
    fisher = np.tanh(np.arctanh(one.pearson[0]) + np.array([-1.96, 1.96]) / np.sqrt(197))
    np.testing.assert_allclose(one.interval[0], fisher, atol=0.04)


def test_length_baseline():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 481, 400)
    y = np.stack([np.log(lengths) + rng.normal(0, 0.3, 400), rng.random(400)], axis=1)
    baseline = LengthBaseline.fit(lengths[:300], y[:300])
    rho = pearson(baseline.predict(lengths[300:]), y[300:])
    assert rho[0] > 0.9
    assert abs(rho[1]) < 0.3
    constant = LengthBaseline.fit(np.full(10, 7), y[:10])
    np.testing.assert_allclose(constant.predict(np.full(3, 7)), np.tile(y[:10].mean(0), (3, 1)))
