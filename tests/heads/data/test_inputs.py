"""Ragged arrays, policies, spaces and standardisation against loops over videos."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feie.features.errors import HeadError, UsageError
from feie.features.schema import AFFECT, Schema
from feie.features.store.reader import RaggedRows
from feie.heads.config import InputConfig
from feie.heads.data import inputs
from feie.heads.data.inputs import (
    Standardiser,
    find_columns,
    pick_columns,
    prepare,
    to_logits,
)
from feie.heads.data.ragged import Ragged, fill_missing, shorten

videos_of_flags = st.lists(st.lists(st.booleans(), max_size=8), min_size=1, max_size=6)


def ragged_of(videos, columns=2):
    parts = [np.asarray(v, np.float32).reshape(-1, columns) for v in videos]
    return Ragged(np.concatenate(parts), np.cumsum([0] + [len(p) for p in parts]))


def with_gaps(flags):
    """Videos whose rows are numbered, NaN where the flag is down."""
    videos, count = [], 0
    for video in flags:
        rows = np.arange(count, count + 2 * len(video), dtype=np.float32).reshape(-1, 2)
        count += 2 * len(video)
        rows[~np.array(video, bool)] = np.nan
        videos.append(rows)
    return videos


def slow_fill(video, flags, policy):
    if not any(flags):
        return video[:0]
    if policy == "drop":
        return video[np.array(flags)]
    if policy == "zero":
        return video
    out, last = video.copy(), video[flags.index(True)]
    for i, flag in enumerate(flags):
        last = video[i] if flag else last
        out[i] = last
    return out


@pytest.mark.parametrize("policy", ["drop", "hold", "zero"])
@given(videos_of_flags)
def test_missing_faces(policy, flags):
    videos = with_gaps(flags)
    ragged = ragged_of(videos)
    valid = np.array([f for video in flags for f in video], bool)
    filled = fill_missing(ragged, valid, policy)
    assert len(filled) == len(videos)
    for i, (video, up) in enumerate(zip(videos, flags, strict=True)):
        np.testing.assert_array_equal(filled[i], slow_fill(video, up, policy))


@given(videos_of_flags)
def test_a_row_with_one_bad_value_counts_as_missing(flags):
    videos = with_gaps(flags)
    everywhere = np.ones(sum(map(len, flags)), bool)
    half = [v.copy() for v in videos]
    for video in half:
        video[np.isnan(video[:, 1]), 0] = 0.5
    expected = fill_missing(ragged_of(videos), everywhere, "drop")
    np.testing.assert_array_equal(
        fill_missing(ragged_of(half), everywhere, "drop").values, expected.values
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 12))
def test_long_videos(lengths, t):
    videos = [np.repeat(np.arange(n), 2) for n in lengths]
    ragged = ragged_of(videos)
    for policy in ("uniform", "head"):
        short = shorten(ragged, t, policy)
        for i, n in enumerate(lengths):
            rows = short[i][:, 0].astype(int).tolist()
            if n <= t or policy == "head":
                assert rows == list(range(min(n, t)))
            else:
                assert rows == [int((k + 0.5) * n / t + 1e-9) for k in range(t)]
                assert len(set(rows)) == t
                assert abs(rows[0] - (n - 1 - rows[-1])) <= 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_selection(lengths, data):
    ragged = ragged_of([np.random.default_rng(i).random((n, 2)) for i, n in enumerate(lengths)])
    picked = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    chosen = ragged.select(picked)
    assert len(chosen) == len(picked)
    for i, video in enumerate(picked):
        np.testing.assert_array_equal(chosen[i], ragged[video])


def test_offsets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="offsets"):
        Ragged(np.zeros((3, 2), np.float32), np.array([0, 2]))


def test_standardiser_ignores_gaps_and_survives_constant_columns():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (500, 3)).astype(np.float32)
    values[:, 1] = 0.1
    gaps = values.copy()
    gaps[::5] = np.nan
    found = Standardiser.fit(Ragged(gaps, np.array([0, 300, 300, 500])))
    kept = values[~np.isnan(gaps[:, 0])].astype(np.float64)
    np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.sd[[0, 2]], kept.std(0)[[0, 2]], rtol=1e-12)
    assert found.sd[1] == 1
    out = found.apply(Ragged(gaps, np.array([0, 500]))).values
    assert (out[::5] == 0).all()
    np.testing.assert_allclose(out[1::5], (values[1::5] - kept.mean(0)) / found.sd, atol=1e-5)


def test_logits_undo_tanh_softmax_and_sigmoid():
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1.5, (40, 26))
    expression = np.exp(raw[:, 2:9])
    stored = np.concatenate(
        [
            np.tanh(raw[:, :2]),
            expression / expression.sum(1, keepdims=True),
            1 / (1 + np.exp(-raw[:, 9:])),
        ],
        axis=1,
    ).astype(np.float32)
    expected = raw.copy()
    expected[:, 2:9] -= expected[:, 2:9].mean(1, keepdims=True)
    found = to_logits(stored, dict(AFFECT.groups))
    np.testing.assert_allclose(found, expected, atol=2e-2)
    extreme = np.tile(np.array([1.0] * 9 + [0.0] * 17, np.float32), (2, 1))
    assert np.isfinite(to_logits(extreme, dict(AFFECT.groups))).all()


def test_intensities_have_no_logits():
    values = np.full((3, 26), 2.5, np.float32)
    with pytest.raises(UsageError, match=r"leave \[0, 1\]"):
        to_logits(values, {"au": (9, 26)})


def test_columns_of_a_subset():
    columns, groups = pick_columns(AFFECT, ["au", "va"])
    assert columns == AFFECT.columns[:2] + AFFECT.columns[9:]
    assert groups == {"va": (0, 2), "au": (2, 19)}
    with pytest.raises(UsageError, match="unknown group emb"):
        pick_columns(AFFECT, ["emb"])


def test_a_store_of_other_columns_is_refused_by_name():
    columns, groups = pick_columns(AFFECT, ["va", "au"])
    config = InputConfig(columns=columns, groups=groups)
    assert find_columns(AFFECT, config, "s") == [0, 1, *range(9, 26)]
    fewer = Schema(AFFECT.columns[:25], {"va": (0, 2), "au": (9, 25)})
    with pytest.raises(HeadError, match=r"s lacks AU26, .* 19 columns"):
        find_columns(fewer, config, "s")
    more = Schema((*AFFECT.columns, "AU28"), {"va": (0, 2), "au": (9, 27)})
    with pytest.raises(HeadError, match="s adds AU28"):
        find_columns(more, config, "s")
    other = Schema(("a", "b"), {"emb": (0, 2)})
    with pytest.raises(HeadError, match="s lacks valence, arousal"):
        find_columns(other, config, "s")


def test_prepare_counts_what_it_did():
    values = np.random.default_rng(0).random((12, 2)).astype(np.float32)
    valid = np.ones(12, bool)
    valid[[0, 5, 6, 7]] = False
    values[~valid] = np.nan
    rows = RaggedRows(values, valid, np.array([0, 5, 8, 12]), ["a", "b", "c"])
    config = InputConfig(columns=("valence", "arousal"), groups={"va": (0, 2)}, t=4)
    done = prepare(rows, config)
    assert done.frames.lengths.tolist() == [4, 0, 4]
    assert (done.faceless, done.shortened) == (1, 0)
    done = prepare(rows, config.model_copy(update={"t": 3, "space": "logit"}))
    assert done.frames.lengths.tolist() == [3, 0, 3]
    assert (done.faceless, done.shortened) == (1, 2)


def test_standardiser_measures_the_chosen_videos_block_by_block(monkeypatch):
    rng = np.random.default_rng(0)
    lengths = [3, 0, 40, 1, 7, 25, 0, 9]
    ragged = ragged_of([rng.normal(2, 3, (n, 2)) for n in lengths])
    chosen = np.array([7, 2, 1, 4, 0])
    kept = ragged.select(chosen).values.astype(np.float64)
    for block in (5, 1000):
        monkeypatch.setattr(inputs, "_BLOCK", block)
        found = Standardiser.fit(ragged, chosen)
        np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.sd, kept.std(0), rtol=1e-12)


def test_a_nearly_constant_column_is_not_blown_up():
    values = np.random.default_rng(0).normal(0.5, [1e-5, 1e-2, 0], (500, 3)).astype(np.float32)
    found = Standardiser.fit(Ragged(values, np.array([0, 500])), floor=inputs.SD_FLOOR["prob"])
    assert found.sd[0] == 1e-3
    assert found.sd[1] == pytest.approx(1e-2, rel=0.1)
    assert found.sd[2] == 1
