"""The four losses against slow float64 references, and the metrics against torchmetrics."""

import numpy as np
import pytest
import torch
import torchmetrics.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from feie.features.mma.config import LossConfig
from feie.features.mma.scoring import metrics
from feie.features.mma.training.losses import (
    action_unit_loss,
    ccc_loss,
    entailed_units,
    expression_loss,
    matching_loss,
)
from feie.features.mma.training.objective import Objective
from feie.features.mma.training.relations import relation_matrix
from feie.features.mma.training.sampling import Batch
from feie.features.mma.training.soft_targets import one_hot
from feie.features.schema import ACTION_UNITS, AFFECT, EXPRESSIONS, VA_EXPR8, Schema

RELATIONS = torch.from_numpy(relation_matrix()).double()


def _labels(seed: int, n: int) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    va = rng.uniform(-1, 1, (n, 2))
    va[rng.random(n) < 0.3] = np.nan
    expression = rng.integers(-1, 7, n)
    units = rng.random((n, 17))
    units[rng.random((n, 17)) < 0.4] = np.nan
    raw = rng.normal(size=(n, 26))
    return tuple(torch.from_numpy(x) for x in (raw, va, expression, units))


def _sharp(expression: torch.Tensor, classes: int = 7) -> torch.Tensor:
    """Distributions from labels, NaN where unknown."""
    return torch.from_numpy(one_hot(expression.numpy(), classes)).double()


def _ccc(p: np.ndarray, t: np.ndarray) -> float:
    n = len(p)
    mp, mt = sum(p) / n, sum(t) / n
    cov = sum((a - mp) * (b - mt) for a, b in zip(p, t, strict=True)) / n
    vp = sum((a - mp) ** 2 for a in p) / n
    vt = sum((b - mt) ** 2 for b in t) / n
    return 2 * cov / (vp + vt + (mp - mt) ** 2)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_losses_equal_references_on_ragged_labels(seed: int, n: int) -> None:
    raw, va, expression, units = _labels(seed, n)
    r, v, e, u = (x.numpy() for x in (raw, va, expression, units))

    rows = [i for i in range(n) if not np.isnan(v[i]).any()]
    p = np.tanh(r[:, :2])
    want = 0.0
    if len(rows) >= 2:
        want = 1 - sum(_ccc(p[rows, c], v[rows, c]) for c in (0, 1)) / 2
    assert float(ccc_loss(torch.from_numpy(p), va)) == pytest.approx(want, abs=1e-6)

    softmax = np.exp(r[:, 2:9]) / np.exp(r[:, 2:9]).sum(axis=1, keepdims=True)
    terms = [-np.log(softmax[i, e[i]]) for i in range(n) if e[i] >= 0]
    got = float(expression_loss(raw[:, 2:9], _sharp(expression)))
    assert got == pytest.approx(np.mean(terms) if terms else 0.0, abs=1e-9)

    # [S]: each sample's part times its class's weight, averaged over the labelled samples.
    weights = np.random.default_rng(seed).uniform(0.5, 30, 7)
    terms = [-weights[e[i]] * np.log(softmax[i, e[i]]) for i in range(n) if e[i] >= 0]
    class_weights = torch.from_numpy(weights)
    got = float(expression_loss(raw[:, 2:9], _sharp(expression), class_weights=class_weights))
    assert got == pytest.approx(np.mean(terms) if terms else 0.0, rel=1e-9, abs=1e-9)

    # Soft targets: -sum_k w_k ((1 - s) q_k + s / 7) log p_k.
    soft = np.random.default_rng(seed + 1).dirichlet(np.ones(7), n)
    terms = [
        -sum(weights[k] * (0.9 * soft[i, k] + 0.1 / 7) * np.log(softmax[i, k]) for k in range(7))
        for i in range(n)
        if e[i] >= 0
    ]
    soft[e < 0] = np.nan
    got = float(expression_loss(raw[:, 2:9], torch.from_numpy(soft), 0.1, class_weights))
    assert got == pytest.approx(np.mean(terms) if terms else 0.0, rel=1e-9, abs=1e-9)

    q = 1 / (1 + np.exp(-r[:, 9:]))
    for weight in (1.0, 3.0, 0.25):
        terms = [
            -(weight * u[i, j] * np.log(q[i, j]) + (1 - u[i, j]) * np.log(1 - q[i, j]))
            for i in range(n)
            for j in range(17)
            if not np.isnan(u[i, j])
        ]
        got = float(action_unit_loss(raw[:, 9:], units, weight))
        assert got == pytest.approx(np.mean(terms) if terms else 0.0, abs=1e-9)

    matrix = relation_matrix()
    nll = bce = 0.0
    for i in range(n):
        for j in range(17):
            entailed = sum(softmax[i, k] * matrix[k, j] for k in range(7))
            nll -= entailed * np.log(q[i, j]) / n
            bce -= (entailed * np.log(q[i, j]) + (1 - entailed) * np.log(1 - q[i, j])) / n
    probabilities = torch.from_numpy(softmax)
    for form, value in (("nll", nll), ("bce", bce)):
        got = float(matching_loss(probabilities, raw[:, 9:], RELATIONS, form))
        assert got == pytest.approx(value, rel=1e-9)


def test_distribution_matching_by_hand() -> None:
    """Happiness alone entails AU12, AU25 (prototypical) and AU06 (observational), nothing else."""
    expression = torch.zeros(1, 7, dtype=torch.float64)
    expression[0, EXPRESSIONS.index("happiness")] = 1
    entailed = entailed_units(expression, RELATIONS)[0]
    assert {ACTION_UNITS[i] for i in torch.nonzero(entailed).flatten()} == {"AU06", "AU12", "AU25"}
    assert entailed.sum() == 3
    # All units at probability one half: -3 log(1/2), and with the second term -17 log(1/2).
    logits = torch.zeros(1, 17, dtype=torch.float64)
    assert float(matching_loss(expression, logits, RELATIONS)) == pytest.approx(3 * np.log(2))
    full = matching_loss(expression, logits, RELATIONS, "bce")
    assert float(full) == pytest.approx(17 * np.log(2))
    half = torch.zeros(1, 17, dtype=torch.bool)
    half[0, ACTION_UNITS.index("AU12")] = True
    one = matching_loss(expression, logits, RELATIONS, counted=half)
    assert float(one) == pytest.approx(np.log(2))


def test_table_one_has_the_published_sums() -> None:
    matrix = relation_matrix()
    assert dict(zip(EXPRESSIONS, matrix.sum(axis=1).astype(int).tolist(), strict=True)) == {
        "neutral": 0, "anger": 6, "disgust": 5, "fear": 7, "happiness": 3, "sadness": 6,
        "surprise": 5,
    }  # fmt: skip
    assert matrix[EXPRESSIONS.index("sadness"), ACTION_UNITS.index("AU11")] == 1
    np.testing.assert_array_equal(relation_matrix(("contempt", *EXPRESSIONS))[1:], matrix)
    assert not relation_matrix(("contempt",)).any()
    assert matrix[:, ACTION_UNITS.index("AU11")].sum() == 1


@pytest.mark.parametrize("n", [0, 1, 5])
def test_unlabelled_batches_cost_exactly_nothing(n: int) -> None:
    raw = torch.randn(n, 26, dtype=torch.float64, requires_grad=True)
    losses = [
        ccc_loss(raw[:, :2].tanh(), torch.full((n, 2), torch.nan, dtype=torch.float64)),
        expression_loss(raw[:, 2:9], torch.full((n, 7), torch.nan, dtype=torch.float64)),
        action_unit_loss(raw[:, 9:], torch.full((n, 17), torch.nan, dtype=torch.float64)),
    ]
    total = torch.stack(losses).sum()
    assert total.item() == 0.0
    total.backward()
    assert raw.grad is not None
    assert torch.equal(raw.grad, torch.zeros_like(raw))


def test_gradients_are_right() -> None:
    raw, va, expression, units = _labels(3, 6)
    va[0], expression[0], units[0, 0] = torch.tensor([0.2, -0.4]), 2, 0.7
    va[1], va[2] = torch.tensor([0.6, 0.1]), torch.tensor([-0.5, 0.9])
    raw = raw.requires_grad_()
    weights = torch.arange(1.0, 8.0).double()

    def total(x: torch.Tensor) -> torch.Tensor:
        return (
            ccc_loss(x[:, :2].tanh(), va)
            + expression_loss(x[:, 2:9], _sharp(expression), smoothing=0.1)
            + expression_loss(x[:, 2:9], _sharp(expression), class_weights=weights)
            + action_unit_loss(x[:, 9:], units)
            + action_unit_loss(x[:, 9:], units, positive=3.0)
            + matching_loss(x[:, 2:9].softmax(dim=1), x[:, 9:], RELATIONS)
            + matching_loss(x[:, 2:9].softmax(dim=1), x[:, 9:], RELATIONS, "bce")
        )

    assert torch.autograd.gradcheck(total, (raw,))


def test_the_objective_masks_each_task_for_itself() -> None:
    """A task that nobody in the batch carries adds exactly zero and moves none of its outputs."""
    raw, va, expression, units = _labels(5, 16)
    labels = {
        "ccc": va.float(),
        "cce": _sharp(expression).float(),
        "bce": units.float(),
    }
    nothing = {"ccc": torch.full((16, 2), torch.nan), "cce": torch.full((16, 7), torch.nan)}
    nothing["bce"] = torch.full((16, 17), torch.nan)
    spans = {"ccc": slice(0, 2), "cce": slice(2, 9), "bce": slice(9, 26)}
    config = LossConfig(cce=0.5, dm=0.0, positive=2.0)
    objective = Objective(config, AFFECT)
    assert objective.tasks == ["ccc", "cce", "bce", "dm"]
    for present in labels:
        x = raw.float().requires_grad_()
        given = {task: (labels if task == present else nothing)[task] for task in labels}
        batch = Batch(torch.empty(0), given["cce"], given["ccc"], given["bce"])
        losses = objective(x, batch)
        for task in labels:
            assert (losses[task].item() == 0) == (task != present)
        assert losses["loss"].item() == getattr(config, present) * losses[present].item()
        losses["loss"].backward()
        assert x.grad is not None
        for task, span in spans.items():
            assert bool((x.grad[:, span] == 0).all()) == (task != present), (task, present)
    # Weights and forms come from the configuration, and what the labels say from outside.
    sharp = _sharp(expression)
    batch = Batch(torch.empty(0), sharp, va.float(), units)
    full = Objective(LossConfig(positive=3.0, class_weights="rarity", smoothing=0.1), AFFECT)
    with pytest.raises(RuntimeError, match="class weights"):
        full(raw, batch)
    full.class_weights = torch.arange(1.0, 8.0)
    got = full(raw, batch)
    part = raw.float()
    want = expression_loss(part[:, 2:9], sharp, 0.1, full.class_weights)
    assert got["cce"] == want != expression_loss(part[:, 2:9], sharp, 0.1)
    assert got["bce"] == action_unit_loss(part[:, 9:], units, 3.0)
    smaller = Objective(LossConfig(), VA_EXPR8)
    assert smaller.tasks == ["ccc", "cce"]
    got = smaller(raw[:, :10], Batch(torch.empty(0), _sharp(expression, 8), va.float(), units))
    assert list(got) == ["loss", "ccc", "cce"]
    assert got["loss"] == got["ccc"] + got["cce"]
    # Without expressions there is nothing to weigh.
    units_only = Objective(LossConfig(class_weights="rarity"), Schema.of({"au": ACTION_UNITS}))
    assert list(units_only(raw[:, 9:], batch)) == ["loss", "bce"]


def test_the_loss_of_va_is_torchmetrics() -> None:
    rng = np.random.default_rng(4)
    target = torch.from_numpy(rng.uniform(-1, 1, (5000, 2)))
    prediction = (target + torch.from_numpy(rng.normal(0, 0.3, (5000, 2)))).clamp(-1, 1)
    want = 1 - float(reference.concordance_corrcoef(prediction, target).mean())
    assert float(ccc_loss(prediction, target)) == pytest.approx(want, abs=1e-3)


def test_concordance_is_torchmetrics_and_safe_on_constants() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=200), rng.normal(size=200)
    want = float(reference.concordance_corrcoef(torch.from_numpy(p), torch.from_numpy(t)))
    # torchmetrics takes moments with n - 1, ours are the population's: they differ by O(1/n).
    assert metrics.concordance(p, t) == pytest.approx(want, abs=1e-3)
    assert metrics.concordance(p, t) == pytest.approx(_ccc(p, t), abs=1e-12)
    for value in (0.1, 0.25, 1 / 3):
        constant = np.full(1000, value)
        assert metrics.concordance(constant, constant) == 0
        assert metrics.concordance(constant, rng.normal(size=1000)) == 0
    assert metrics.concordance(p, p) == pytest.approx(1)
    prediction = torch.full((4, 2), 0.25, dtype=torch.float64, requires_grad=True)
    loss = ccc_loss(prediction, torch.full((4, 2), 0.25, dtype=torch.float64))
    loss.backward()
    assert loss.item() == 1.0
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_expression_figures_are_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    probability = rng.dirichlet(np.ones(7), size=300)
    target = rng.integers(0, 7, 300)
    counts = metrics.confusion(probability.argmax(axis=1), target, 7)
    p, t = torch.from_numpy(probability), torch.from_numpy(target)
    options = {"num_classes": 7}
    assert metrics.accuracy(counts) == pytest.approx(
        float(reference.classification.multiclass_accuracy(p, t, average="micro", **options))
    )
    assert metrics.balanced_accuracy(counts) == pytest.approx(
        float(reference.classification.multiclass_accuracy(p, t, average="macro", **options))
    )
    assert metrics.macro_f1(counts) == pytest.approx(
        float(reference.classification.multiclass_f1_score(p, t, average="macro", **options))
    )
    assert metrics.calibration_error(probability, target) == pytest.approx(
        float(reference.classification.multiclass_calibration_error(p, t, n_bins=15, **options)),
        abs=1e-6,
    )


def test_unit_f1_counts_annotated_samples_only() -> None:
    target = np.array([[1.0, np.nan, 0.0], [0.0, np.nan, 0.0], [0.6, 1.0, np.nan]])
    said = np.array([[0.9, 0.9, 0.1], [0.8, 0.1, 0.2], [0.7, 0.2, 0.9]])
    scores = metrics.unit_f1(said, target)
    assert scores[0] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert scores[1] == 0.0
    assert np.isnan(scores[2])


def test_bootstrap_covers_and_repeats() -> None:
    values = np.random.default_rng(2).normal(size=400)
    interval = metrics.bootstrap(lambda rows: float(values[rows].mean()), 400, 500)
    assert interval is not None
    assert interval[0] < values.mean() < interval[1]
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 / 20, rel=0.25)
    assert interval == metrics.bootstrap(lambda rows: float(values[rows].mean()), 400, 500)
    assert metrics.bootstrap(lambda rows: 0.0, 0) is None
