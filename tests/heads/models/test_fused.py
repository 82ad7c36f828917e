"""The fused GRU against the plain one, which is the reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feie.heads.config import MRNNConfig
from feie.heads.data import packing as packing_module
from feie.heads.data.packing import Packing
from feie.heads.measures.losses import mse_loss, pearson_loss
from feie.heads.models import recurrence
from feie.heads.models.mrnn import MRNN

pytest.importorskip("numba")
fused = pytest.importorskip("feie.heads.models.fused")


@pytest.fixture(params=[3, 512], ids=["many chunks", "one chunk"])
def _chunk_rows(request, monkeypatch):
    monkeypatch.setattr(packing_module, "CHUNK_ROWS", request.param)


def make_model(width=32, layers=2, seed=0, cell="gru"):
    config = MRNNConfig(inputs=5, targets=3, t=14, width=width, layers=layers, dense=6, cell=cell)
    model = MRNN(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "b_" in name:
                parameter.normal_(0, 0.5, generator=generator)
        model.dense_weight.mul_(10)
    return model


def train(model, lengths, choice, scale=1.0, criterion=mse_loss):
    packing = Packing.of(lengths)
    generator = torch.Generator().manual_seed(1)
    frames = scale * torch.randn(packing.rows, 5, generator=generator)
    labels = torch.rand(len(lengths), 3, generator=generator)
    model.zero_grad()
    with recurrence.using(choice):
        loss = criterion(model(frames, packing), labels)
        loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.usefixtures("_chunk_rows")
@pytest.mark.parametrize("width", [32, 96])
@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=27),
    scale=st.sampled_from([0.1, 1.0, 60.0]),
)
def test_loss_and_gradients_equal_the_plain_path(width, lengths, scale):
    same(make_model(width), lengths, scale, mse_loss)


def test_pearson_on_a_whole_batch_too():
    lengths = np.random.default_rng(0).integers(1, 15, 64)
    same(make_model(64), lengths, 1.0, pearson_loss)


def same(model, lengths, scale, criterion):
    loss, gradients = train(model, lengths, "plain", scale, criterion)
    ours, found = train(model, lengths, "fused", scale, criterion)
    assert ours == pytest.approx(loss, abs=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_it_does_run_and_gives_the_same_bytes_again(monkeypatch):
    calls = []
    plain = fused.FusedGru.apply
    monkeypatch.setattr(fused.FusedGru, "apply", lambda *a: calls.append(1) or plain(*a))
    model = make_model()
    first, second = (train(model, [9, 4, 14, 1, 6], "fused") for _ in range(2))
    assert len(calls) == 4
    assert first[0] == second[0]
    assert all(torch.equal(second[1][name], gradient) for name, gradient in first[1].items())
    train(model, [9, 4], "plain")
    assert len(calls) == 4


def test_a_weight_that_is_not_finite_shows():
    model = make_model(layers=1)
    with torch.no_grad():
        model.recurrent[0]["w_hidden"][3, 5] = float("nan")
    assert np.isnan(train(model, [5, 3, 2], "fused")[0])


def test_what_it_does_not_fit_takes_the_plain_path(monkeypatch):
    monkeypatch.setattr(fused.FusedGru, "apply", None)
    train(make_model(width=5), [5, 3], "fused")
    train(make_model(cell="lstm"), [5, 3], "fused")
    x = torch.zeros(4, 5)
    w = torch.zeros(96, 32)
    assert fused.fits(x, w)
    assert not fused.fits(x.double(), w.double())
    assert not fused.fits(x[None], w[None])


def test_the_backend_can_be_chosen(monkeypatch):
    assert recurrence.available() == ("plain", "fused")
    monkeypatch.delenv("FEIE_RECURRENCE", raising=False)
    assert recurrence.backend() == "fused"
    monkeypatch.setenv("FEIE_RECURRENCE", "plain")
    assert recurrence.backend() == "plain"
    with recurrence.using("fused"):
        assert recurrence.backend() == "fused"
    assert recurrence.backend() == "plain"
