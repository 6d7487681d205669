"""Explained quantities and the C1/C2 heuristic."""

from __future__ import annotations

import pytest
import torch
from reference_networks import load_fixture, tensor
from scipy import stats
from torch import Tensor

import isnet

_CUTS, _CUTS_META = load_fixture("e_cuts")


def _logits(images: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_logit_explains_each_class_in_order() -> None:
    logits = _logits(4, 5)
    assert torch.equal(isnet.EveryLogit().scores(logits), logits)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_logit_picks_the_given_class(dtype: torch.dtype) -> None:
    logits = _logits(4, 5)
    assert torch.equal(isnet.Logit(2).scores(logits), logits[:, [2]])
    labels = torch.tensor([4, 0, 3, 3], dtype=dtype)
    assert torch.equal(isnet.Logit(labels).scores(logits), logits[range(4), labels.long()][:, None])


@pytest.mark.parametrize("labels", [5, -1, torch.tensor([0, 1, 5, 0]), torch.tensor([0, -1, 0, 0])])
@pytest.mark.parametrize("quantity", [isnet.Logit, lambda labels: isnet.SoftmaxEta(labels=labels)])
def test_classes_that_do_not_exist_are_refused(quantity: object, labels: int | Tensor) -> None:
    with pytest.raises(ValueError, match=r"0\.\.4"):
        quantity(labels).scores(_logits(4, 5))


@pytest.mark.parametrize(
    "labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4, 1, dtype=torch.int64), torch.zeros(4)]
)
def test_labels_of_another_shape_or_type_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="labels must be"):
        isnet.Logit(labels).scores(_logits(4, 5))


def test_joint_logits_is_the_sum_of_all() -> None:
    logits = _logits(4, 5)
    assert torch.allclose(isnet.JointLogits().scores(logits), isnet.EveryLogit().scores(logits).sum(1, keepdim=True))


# ---- RandomLogit ----


@pytest.mark.parametrize("p_top", [0.0, 0.25, 0.5, 1.0])
def test_random_logit_draws_the_top_logit_as_often_as_it_says(p_top: float) -> None:
    logits = _logits(8000, 4)
    classes = isnet.RandomLogit(p_top, torch.Generator().manual_seed(1)).classes(logits)[:, 0]
    hits = int((classes == logits.argmax(1)).sum())
    assert stats.binomtest(hits, 8000, p_top).pvalue > 1e-3


def test_half_the_draws_is_told_from_the_authors_five_elevenths() -> None:
    logits = _logits(8000, 4)
    classes = isnet.RandomLogit(generator=torch.Generator().manual_seed(1)).classes(logits)[:, 0]
    assert stats.binomtest(int((classes == logits.argmax(1)).sum()), 8000, 5 / 11).pvalue < 1e-6


def test_random_logit_draws_the_other_classes_uniformly_and_each_image_for_itself() -> None:
    logits = _logits(1, 5).expand(10000, 5)
    top = int(logits[0].argmax())
    quantity = isnet.RandomLogit(0.2, torch.Generator().manual_seed(2))
    counts = torch.bincount(quantity.classes(logits)[:, 0], minlength=5)
    others = [int(count) for index, count in enumerate(counts) if index != top]
    assert stats.chisquare(others).pvalue > 1e-3
    first, second = quantity.classes(logits)[:, 0], quantity.classes(logits)[:, 0]
    joint = torch.zeros(5, 5).index_put_((first, second), torch.tensor(1.0), accumulate=True)
    assert stats.chi2_contingency(joint.numpy()).pvalue > 1e-3
    neighbours = torch.zeros(5, 5).index_put_((first[:-1], first[1:]), torch.tensor(1.0), accumulate=True)
    assert stats.chi2_contingency(neighbours.numpy()).pvalue > 1e-3


def test_random_logit_follows_its_generator_or_else_the_global_one() -> None:
    logits = _logits(50, 6)

    def draw(seed: int) -> Tensor:
        return isnet.RandomLogit(generator=torch.Generator().manual_seed(seed)).classes(logits)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(isnet.RandomLogit().classes(logits), draw(3))


def test_random_logit_of_a_single_class_is_that_class() -> None:
    assert torch.equal(isnet.RandomLogit(0.0).classes(_logits(3, 1)), torch.zeros(3, 1, dtype=torch.int64))


@pytest.mark.parametrize("p_top", [-0.1, 1.1, float("nan")])
def test_random_logit_refuses_what_is_no_probability(p_top: float) -> None:
    with pytest.raises(ValueError, match="p_top"):
        isnet.RandomLogit(p_top)


# ---- SoftmaxEta ----


@pytest.mark.parametrize("eps", [1e-7, 1e-2, 0.3])
def test_eta_and_its_gradient_match_the_formula(eps: float) -> None:
    logits = _logits(4, 5).requires_grad_()
    labels = torch.tensor([4, 0, 3, 3])
    eta = isnet.SoftmaxEta(eps, labels).scores(logits)
    p = logits.detach().softmax(1)
    chosen = p[range(4), labels][:, None]
    assert torch.allclose(eta, (chosen + eps).log() - (1 - chosen + eps).log())
    (gradient,) = torch.autograd.grad(eta.sum(), logits)
    delta = torch.nn.functional.one_hot(labels, 5)
    expected = chosen * (delta - p) * (1 + 2 * eps) / ((chosen + eps) * (1 - chosen + eps))
    assert torch.allclose(gradient, expected)


def test_eta_explains_the_lowest_logit_by_default() -> None:
    logits = _logits(6, 5)
    assert torch.equal(isnet.SoftmaxEta().classes(logits)[:, 0], logits.argmin(1))
    assert torch.equal(isnet.SoftmaxEta().scores(logits), isnet.SoftmaxEta(labels=logits.argmin(1)).scores(logits))
    assert torch.equal(isnet.SoftmaxEta(labels=2).classes(logits), torch.full((6, 1), 2))


def test_eta_tends_to_the_log_odds() -> None:
    logits = _logits(6, 2)
    assert torch.allclose(isnet.SoftmaxEta(1e-12, 1).scores(logits)[:, 0], logits[:, 1] - logits[:, 0])


def test_eta_of_extreme_logits_stays_finite() -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [0.0, 0.0, 1e4]]).requires_grad_()
    for labels in (None, 0, 1, 2):
        eta = isnet.SoftmaxEta(1e-7, labels).scores(logits)
        (gradient,) = torch.autograd.grad(eta.sum(), logits)
        assert bool(eta.isfinite().all())
        assert bool(gradient.isfinite().all())


def test_eta_needs_two_classes_and_a_positive_stabiliser() -> None:
    with pytest.raises(ValueError, match="two classes"):
        isnet.SoftmaxEta().scores(_logits(3, 1))
    for eps in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="eps"):
            isnet.SoftmaxEta(eps)


@pytest.mark.parametrize(
    "quantity",
    [isnet.EveryLogit(), isnet.Logit(1), isnet.SoftmaxEta(), isnet.SoftmaxEta(labels=1), isnet.JointLogits()],
)
def test_quantities_match_finite_differences(quantity: isnet.Quantity) -> None:
    logits = _logits(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(quantity.scores, logits)
    assert torch.autograd.gradgradcheck(lambda y: quantity.scores(y * y), logits)


# ---- relevance_range ----


@pytest.mark.parametrize("name", _CUTS_META["cases"])
def test_range_matches_the_reference(name: str) -> None:
    totals = tensor(_CUTS, f"{name}/total_abs")
    found = isnet.relevance_range(totals)
    assert found.c1 == pytest.approx(float(_CUTS[f"{name}/c1"]), rel=1e-6)
    assert found.c2 == pytest.approx(float(_CUTS[f"{name}/c2"]), rel=1e-6)
    per_image = totals.double().mean(1)
    assert per_image.mean().item() == pytest.approx(float(_CUTS[f"{name}/mean"]), rel=1e-6)
    assert per_image.std().item() == pytest.approx(float(_CUTS[f"{name}/std"]), rel=1e-6)


@pytest.mark.parametrize("column", [0, 1])
def test_ranges_of_dual_maps_match_the_reference(column: int) -> None:
    found = isnet.relevance_range(tensor(_CUTS, "dual/total_abs")[:, column])
    assert found.c1 == pytest.approx(float(_CUTS["dual/c1"][column]), rel=1e-6)
    assert found.c2 == pytest.approx(float(_CUTS["dual/c2"][column]), rel=1e-6)


def test_range_worked_by_hand() -> None:
    # Mean 3, sample standard deviation 2: c1 = max(0.6, -3), c2 = min(15, 9).
    assert isnet.relevance_range(torch.tensor([1.0, 3.0, 5.0])) == pytest.approx((0.6, 9.0))
    # Mean 10, standard deviation 1: c1 = max(2, 7), c2 = min(175, 13).
    assert isnet.relevance_range(torch.tensor([9.0, 10.0, 11.0])) == pytest.approx((7.0, 13.0))
    # Mean 1, standard deviation 10: c1 = max(0.2, -29), c2 = min(5, 31).
    spread = torch.cat([torch.zeros(99), torch.tensor([100.0])])
    assert isnet.relevance_range(spread) == pytest.approx((0.2, 5.0))


def test_range_averages_the_maps_of_an_image_first() -> None:
    totals = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    assert isnet.relevance_range(totals) == pytest.approx(isnet.relevance_range(totals.mean(1)))
    assert isnet.relevance_range(totals) != pytest.approx(isnet.relevance_range(totals.flatten()))


def test_range_is_accurate_for_many_large_totals_in_single_precision() -> None:
    totals = 1e4 + torch.rand(20000, generator=torch.Generator().manual_seed(0))
    mean, std = totals.double().mean().item(), totals.double().std().item()
    assert isnet.relevance_range(totals) == pytest.approx((mean - 3 * std, mean + 3 * std), rel=1e-9)


def test_range_suits_the_heatmap_loss() -> None:
    lower, upper = isnet.relevance_range(torch.tensor([1.0, 2.0, 3.0]))
    assert isnet.HeatmapLoss(lower, upper)(torch.ones(1, 1, 1, 2, 2), torch.ones(1, 1, 2, 2)).isfinite()


@pytest.mark.parametrize(
    ("totals", "message"),
    [
        (torch.tensor([1.0]), "2 images"),
        (torch.ones(2, 2, 2), "shape"),
        (torch.tensor([1.0, -1.0]), "finite"),
        (torch.tensor([1.0, torch.nan]), "finite"),
        (torch.tensor([1.0, torch.inf]), "finite"),
        (torch.zeros(5), "zero"),
        # Their standard deviation, as it is computed, is not 0.
        (torch.full((7,), 7.7, dtype=torch.float64), r"same total relevance, 7\.7, so they have no natural range"),
        (torch.tensor([[1.0, 3.0], [2.5, 1.5]]), "same total relevance, 2"),
    ],
)
def test_totals_without_a_range_are_refused(totals: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        isnet.relevance_range(totals)
