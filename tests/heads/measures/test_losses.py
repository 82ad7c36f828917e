"""Losses against NumPy and SciPy, and on the batches that break naive code."""

import numpy as np
import pytest
import scipy.stats
import torch

from feie.heads.measures.losses import LOSSES, ccc_loss, mse_loss, pearson_loss


def arrays(n=20, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random((n, columns))
    return y + rng.normal(0, 0.5, y.shape), y


def test_pearson_equals_scipy():
    p, y = arrays()
    rho = [scipy.stats.pearsonr(p[:, i], y[:, i]).statistic for i in range(3)]
    loss = pearson_loss(torch.from_numpy(p), torch.from_numpy(y)).item()
    assert loss == pytest.approx(1 - np.mean(rho), abs=1e-6)


def test_ccc_and_mse_equal_their_formulas():
    p, y = arrays()
    ccc = [
        2 * np.cov(a, b, ddof=0)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
        for a, b in zip(p.T, y.T, strict=True)
    ]
    tensors = torch.from_numpy(p), torch.from_numpy(y)
    assert ccc_loss(*tensors).item() == pytest.approx(1 - np.mean(ccc), abs=1e-6)
    assert mse_loss(*tensors).item() == pytest.approx(np.mean((p - y) ** 2))


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    p, y = arrays(6)
    prediction = torch.from_numpy(p).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (prediction, torch.from_numpy(y)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", ["one video", "constant label", "constant prediction", "both"])
def test_degenerate_batches_are_finite(name, case):
    p, y = (torch.from_numpy(a).float() for a in arrays(1 if case == "one video" else 5))
    if case in ("constant label", "both"):
        y[:, 1] = 0.3
    if case in ("constant prediction", "both"):
        p[:, 1] = 0.7
    p.requires_grad_()
    loss = LOSSES[name](p, y)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(p.grad).all()


def test_a_constant_label_pulls_in_no_direction():
    p, y = (torch.from_numpy(a).float() for a in arrays(5))
    y[:, 1] = 0.1
    p.requires_grad_()
    pearson_loss(p, y).backward()
    assert p.grad[:, 1].abs().max() < 1e-5 < p.grad[:, 0].abs().max()
