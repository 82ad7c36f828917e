"""The MRNN against equations written out by hand, and against torch's padded layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feie.heads.config import MRNNConfig
from feie.heads.data import packing as packing_module
from feie.heads.data.packing import Packing
from feie.heads.measures.losses import pearson_loss
from feie.heads.models.mrnn import MRNN

CELLS = ["gru", "lstm"]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def slow_layer(cell, part, x):
    """One recurrent layer over one video, frame by frame, in float64."""
    w = {name: p.detach().double().numpy() for name, p in part.items()}
    width = w["w_hidden"].shape[1]
    h, c, out = np.zeros(width), np.zeros(width), []
    for frame in x:
        a = w["w_input"] @ frame + w["b_input"]
        u = w["w_hidden"] @ h + w["b_hidden"]
        if cell == "gru":
            (ar, az, an), (ur, uz, un) = np.split(a, 3), np.split(u, 3)
            r, z = sigmoid(ar + ur), sigmoid(az + uz)
            h = (1 - z) * np.tanh(an + r * un) + z * h
        else:
            i, f, g, o = np.split(a + u, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


def slow_mrnn(model, x):
    """Pad with zeros to t, mask, concatenate everything, multiply."""
    config = model.config
    h = x.astype(np.float64)
    for part in model.recurrent:
        h = slow_layer(config.cell, part, h)
    concatenated = np.zeros((config.t, config.width))
    concatenated[: len(h)] = h
    value = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    dense = value["dense_weight"].reshape(config.t * config.width, config.dense)
    z = np.maximum(concatenated.reshape(-1) @ dense + value["dense_bias"], 0)
    return value["output_weight"] @ z + value["output_bias"]


def make_model(cell="gru", layers=1, t=9, seed=3, dtype=torch.float64):
    config = MRNNConfig(inputs=3, targets=2, t=t, cell=cell, layers=layers, width=5, dense=4)
    model = MRNN(config, seed)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "b_" in name:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.3, parameter.shape)))
        model.dense_weight.mul_(20)
    return model.to(dtype)


def make_videos(lengths, seed=0, columns=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, columns)) for n in lengths]


def run(model, videos):
    lengths = np.array([len(v) for v in videos])
    packing = Packing.of(lengths)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    frames = torch.from_numpy(np.concatenate(videos)).to(model.dense_weight.dtype)
    return model(frames[packing.gather(first)], packing)


def padded(model, videos):
    """The plain way: torch's own layers on padded batches, a mask, one dense matrix."""
    config = model.config
    x = torch.zeros(len(videos), config.t, config.inputs, dtype=torch.float64)
    mask = torch.zeros(len(videos), config.t, 1, dtype=torch.float64)
    for i, video in enumerate(videos):
        x[i, : len(video)], mask[i, : len(video)] = torch.from_numpy(video), 1
    for part in model.recurrent:
        kind = torch.nn.GRU if config.cell == "gru" else torch.nn.LSTM
        layer = kind(x.shape[2], config.width, batch_first=True).double()
        names = {
            "weight_ih_l0": "w_input",
            "weight_hh_l0": "w_hidden",
            "bias_ih_l0": "b_input",
            "bias_hh_l0": "b_hidden",
        }
        state = {theirs: part[ours] for theirs, ours in names.items()}
        x, _ = torch.func.functional_call(layer, state, x)
    z = (x * mask).flatten(1) @ model.dense_weight.view(-1, config.dense) + model.dense_bias
    return torch.relu(z) @ model.output_weight.t() + model.output_bias


@pytest.fixture(params=[3, 512], ids=["many chunks", "one chunk"], autouse=True)
def _chunk_rows(request, monkeypatch):
    monkeypatch.setattr(packing_module, "CHUNK_ROWS", request.param)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_equals_the_equations_written_out(cell, layers):
    model = make_model(cell, layers)
    videos = make_videos([4, 9, 1, 6, 6])
    expected = np.stack([slow_mrnn(model, v) for v in videos])
    np.testing.assert_allclose(run(model, videos).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_loss_and_gradients_equal_torch_padded_and_masked(cell, layers):
    model = make_model(cell, layers)
    videos = make_videos([4, 9, 1, 6, 6, 2])
    target = torch.rand(6, 2, dtype=torch.float64)
    found = {}
    for path in (run, padded):
        model.zero_grad()
        loss = pearson_loss(path(model, videos), target)
        loss.backward()
        found[path] = loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}
    assert found[run][0] == pytest.approx(found[padded][0], abs=1e-12)
    for name, gradient in found[run][1].items():
        torch.testing.assert_close(gradient, found[padded][1][name], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_float32_stays_within_1e_5_of_torch(cell):
    model = make_model(cell, dtype=torch.float32)
    videos = make_videos([4, 9, 1, 6, 6, 2])
    exact = padded(make_model(cell), videos)
    torch.testing.assert_close(run(model, videos).double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck(cell):
    model = make_model(cell, layers=2, t=5)
    packing = Packing.of([3, 5, 1])
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    names = [n for n, _ in model.named_parameters()]

    def score(frames, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(model, given, (frames, packing))

    assert torch.autograd.gradcheck(score, (x, *model.parameters()))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_neither_company_nor_order_changes_a_video(lengths, random):
    model = make_model()
    videos = make_videos(lengths)
    alone = torch.cat([run(model, [v]) for v in videos])
    torch.testing.assert_close(run(model, videos), alone, atol=1e-12, rtol=0)
    order = list(range(len(videos)))
    random.shuffle(order)
    torch.testing.assert_close(
        run(model, [videos[i] for i in order]), alone[order], atol=1e-12, rtol=0
    )


def test_a_larger_t_changes_nothing_for_shorter_videos():
    videos = make_videos([4, 9, 1])
    short, long = (
        MRNN(MRNNConfig(inputs=3, targets=2, t=t, width=5, dense=4), seed=1) for t in (9, 30)
    )
    assert torch.equal(long.dense_weight[:9], short.dense_weight)
    assert torch.equal(run(short, videos), run(long, videos))


def test_padding_frames_would_be_ignored_by_the_mask():
    """What stands in the padding never matters: only frames below the length are packed."""
    model = make_model()
    frames = torch.randn(20, 3, dtype=torch.float64)
    packing = Packing.of([5, 7])
    rows = packing.gather(np.array([0, 10]))
    before = model(frames[rows], packing)
    frames[5:10], frames[17:] = 1e6, float("nan")
    assert torch.equal(model(frames[rows], packing), before)


def test_a_video_longer_than_t_is_refused():
    with pytest.raises(ValueError, match="longer than t=9"):
        run(make_model(), make_videos([10]))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_packing_places_every_frame_once(lengths):
    packing = Packing.of(lengths)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rows = packing.gather(first).numpy()
    expected = [
        first[i] + k
        for k in range(max(lengths))
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i])
        if k < lengths[i]
    ]
    assert rows.tolist() == expected
    earlier = packing.previous.numpy()
    assert np.array_equal(rows[earlier], rows[packing.sizes[0] :] - 1)
    assert sum((b - a) * n for a, b, n, _ in packing.segments) == packing.rows == sum(lengths)
    assert [k for a, b in packing.chunks for k in range(a, b)] == list(range(packing.steps))
    restored = packing.restore(torch.from_numpy(packing.order))
    assert restored.tolist() == list(range(len(lengths)))


@pytest.mark.parametrize("lengths", [[], [3, 0]])
def test_packing_refuses_empty_videos(lengths):
    with pytest.raises(ValueError, match="at least one frame"):
        Packing.of(lengths)


@pytest.mark.parametrize("cell", CELLS)
def test_without_mask_zero_frames_and_all_t_outputs_count(cell):
    model = make_model(cell, layers=2)
    without = MRNN(model.config.model_copy(update={"mask": False}))
    without.load_state_dict(model.state_dict())
    without.double()
    videos = make_videos([4, 9, 1, 6, 6])
    filled = [np.concatenate([v, np.zeros((9 - len(v), 3))]) for v in videos]
    np.testing.assert_allclose(
        run(without, videos).detach(), run(model, filled).detach(), atol=1e-12
    )
    assert not torch.allclose(run(without, videos), run(model, videos))
    packing = Packing.of([4, 2])
    assert (model.reach(packing), without.reach(packing)) == (4, 9)
