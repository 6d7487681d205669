"""Global weighted rank pooling and the heatmap loss: reference fixtures, hand-worked values, finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference_networks import heatmap_loss, load_fixture, tensor
from small_networks import difference
from torch import Tensor

import isnet

_GWRP, _GWRP_META = load_fixture("a_gwrp")
_LOSS, _LOSS_META = load_fixture("b_loss")


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("index", "decay"), _GWRP_META["cases"])
def test_gwrp_matches_the_reference(index: int, decay: float) -> None:
    values = tensor(_GWRP, f"x{index}").requires_grad_()
    pooled = isnet.gwrp(values.flatten(3), decay)
    assert difference(pooled, tensor(_GWRP, f"x{index}_d{decay}_out")) < 1e-5
    (gradient,) = torch.autograd.grad(pooled, values, tensor(_GWRP, f"x{index}_d{decay}_cot"))
    assert difference(gradient, tensor(_GWRP, f"x{index}_d{decay}_grad")) < 1e-5


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_gwrp_pools_the_last_axis_of_a_matrix(decay: float) -> None:
    assert difference(isnet.gwrp(tensor(_GWRP, "oned_x"), decay), tensor(_GWRP, f"oned_d{decay}_out")) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 1e-12, 0.01, 0.5, 0.9, 0.996, 1 - 1e-6, 1.0])
def test_gwrp_equals_the_formula_for_many_values(decay: float, dtype: torch.dtype) -> None:
    values = _normal(3, 4000).abs().to(dtype)
    ranked = np.sort(values.double().numpy(), axis=-1)[:, ::-1]
    weights = decay ** np.arange(4000.0)
    expected = torch.from_numpy((ranked * weights).sum(-1) / weights.sum())
    # Weights near 1 are powers of a number that float32 holds to 6e-8: the error grows with the rank.
    assert difference(isnet.gwrp(values, decay).double(), expected) < (1e-4 if dtype == torch.float32 else 1e-9)


def test_gwrp_worked_by_hand() -> None:
    pooled = isnet.gwrp(torch.tensor([1.0, 4.0, 2.0]), 0.5)
    assert pooled.item() == pytest.approx((4 + 0.5 * 2 + 0.25 * 1) / 1.75)


def test_gwrp_does_not_depend_on_the_order_of_values() -> None:
    values = _normal(50)
    assert torch.equal(isnet.gwrp(values, 0.9), isnet.gwrp(values.flip(0), 0.9))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 1.0])
def test_gwrp_gradients_match_finite_differences(decay: float) -> None:
    values = _normal(2, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: isnet.gwrp(v, decay), values)
    assert torch.autograd.gradgradcheck(lambda v: isnet.gwrp(v.square(), decay), values)


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan])
def test_gwrp_refuses_a_decay_outside_its_range(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        isnet.gwrp(torch.ones(3), decay)


@pytest.mark.parametrize("case", _LOSS_META["cases"], ids=lambda case: case["id"])
def test_loss_matches_the_reference(case: dict) -> None:
    name = case["id"]
    heatmap, mask = tensor(_LOSS, f"{name}/heatmap").requires_grad_(), tensor(_LOSS, f"{name}/mask")
    assert difference(heatmap_loss(case, reduction="none")(heatmap, mask), tensor(_LOSS, f"{name}/loss_none")) < 1e-5
    mean = heatmap_loss(case)(heatmap, mask)
    assert mean.item() == pytest.approx(float(_LOSS[f"{name}/loss_mean"]), rel=1e-5)
    assert heatmap_loss(case, reduction="sum")(heatmap, mask).item() == pytest.approx(3 * mean.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(mean, heatmap)
    expected = tensor(_LOSS, f"{name}/grad_mean")
    assert bool(gradient.isfinite().all())
    assert (gradient - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()


def test_every_case_of_the_reference_is_compared() -> None:
    assert [case["id"] for case in _LOSS_META["cases"]] == [f"c{index:02d}" for index in range(32)]


def test_nonfinite_relevance_gets_no_gradient() -> None:
    heatmap = tensor(_LOSS, "c29/heatmap").requires_grad_()
    (gradient,) = torch.autograd.grad(isnet.HeatmapLoss(10, 50, decay=0.9)(heatmap, tensor(_LOSS, "c29/mask")), heatmap)
    nonfinite = ~heatmap.isfinite()
    assert nonfinite.sum() >= 3
    assert not gradient[nonfinite].any()
    assert gradient[~nonfinite].any()


@pytest.mark.parametrize("fill", [math.nan, math.inf])
def test_a_wholly_nonfinite_heatmap_gives_a_finite_loss_without_gradient(fill: float) -> None:
    heatmap = torch.full((2, 1, 3, 4, 4), fill).requires_grad_()
    mask = torch.zeros(2, 1, 4, 4)
    mask[..., :2] = 1
    loss = isnet.HeatmapLoss(1, 5)(heatmap, mask)
    assert loss.isfinite()
    assert not torch.autograd.grad(loss, heatmap)[0].any()


def test_loss_worked_by_hand() -> None:
    heatmap = torch.tensor([[2.0, -2.0], [3.0, -1.0]]).view(1, 1, 1, 2, 2)
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    # F = 4, its mean 2: background / 2 = 1.5, 0.5 and two foreground zeros; d = 0.5.
    pooled = (1.5 + 0.5 * 0.5) / (1 + 0.5 + 0.25 + 0.125)
    background = -math.log(1 - pooled / (pooled + 2))
    for c1, c2, foreground, penalty in [
        (1, 3, "l2", ((4 - 3) / 1) ** 2),
        (1, 3, "l1", 1.0),
        (8, 9, "l2", (4 / 8 - 1) ** 2),
        (2, 5, "hybrid", 0.0),
        (0.5, 1, "hybrid", 4 - 1.5 + 1),
        (2, 3, "hybrid", 0.25),
    ]:
        loss = isnet.HeatmapLoss(c1, c2, w1=3, w2=2, decay=0.5, saturation=2, foreground=foreground)(heatmap, mask)
        assert loss.item() == pytest.approx(3 * background + 2 * penalty, rel=1e-6), (c1, c2, foreground)


def test_hybrid_foreground_term_is_continuous_and_ends_linear() -> None:
    mask = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    loss = isnet.HeatmapLoss(2, 3, foreground="hybrid")

    def at(total: float) -> float:
        return loss(torch.full((1, 1, 1, 1, 1), total, dtype=torch.float64), mask).item()

    assert at(5 - 1e-9) == pytest.approx(at(5 + 1e-9), abs=1e-8)
    assert at(1e6 + 1) - at(1e6) == pytest.approx(1, rel=1e-9)


def test_background_term_ignores_scale_and_foreground_term_ignores_background() -> None:
    heatmap, mask = tensor(_LOSS, "c00/heatmap", torch.float64), tensor(_LOSS, "c00/mask", torch.float64)
    background = isnet.HeatmapLoss(1, 2, w1=1, w2=0)
    assert background(1000 * heatmap, mask).item() == pytest.approx(background(heatmap, mask).item(), rel=1e-8)
    foreground = isnet.HeatmapLoss(1, 2, w1=0, w2=1)
    emptied = heatmap * mask[:, None]
    assert torch.equal(foreground(heatmap, mask), foreground(emptied, mask))
    assert background(emptied, mask).item() == 0


def test_images_of_a_batch_do_not_affect_each_other() -> None:
    heatmap, mask = tensor(_LOSS, "c00/heatmap"), tensor(_LOSS, "c00/mask")
    loss = isnet.HeatmapLoss(1, 2, reduction="none")
    together = loss(heatmap, mask)
    for index in range(len(heatmap)):
        assert torch.allclose(loss(heatmap[[index]], mask[[index]]), together[[index]])


@pytest.mark.parametrize("normalization", ["abs_roi_mean", "roi_mean", "none"])
@pytest.mark.parametrize("foreground", ["hybrid", "l2", "l1"])
def test_loss_gradients_match_finite_differences(foreground: str, normalization: str) -> None:
    heatmap = _normal(2, 2, 1, 3, 4).requires_grad_()
    mask = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    mask[..., 1:3] = 1
    # F of the four maps lies below c1, inside, above c2, and beyond c1 + c2.
    scale = torch.tensor([0.1, 1.0, 2.0, 5.0], dtype=torch.float64).view(2, 2, 1, 1, 1)
    loss = isnet.HeatmapLoss(3.0, 6.0, decay=0.7, foreground=foreground, normalization=normalization, reduction="none")
    assert torch.autograd.gradcheck(lambda h: loss(h * scale, mask), heatmap)
    assert torch.autograd.gradgradcheck(lambda h: loss(h * scale, mask), heatmap, atol=1e-4)


def test_loss_has_no_state_of_its_own() -> None:
    assert not isnet.HeatmapLoss((1, 2), (3, 4)).state_dict()


_SEVERAL = [(0.9, 0.99, 0.999), (0.0, 0.5, 1.0), (0.9, 0.9), (1.0,), (0.3,)]


@pytest.mark.parametrize("decays", _SEVERAL)
def test_the_loss_of_several_decays_is_the_mean_of_their_losses(decays: tuple[float, ...]) -> None:
    source = torch.Generator().manual_seed(0)
    heatmap = torch.randn(3, 2, 2, 40, 50, generator=source, dtype=torch.float64).requires_grad_()
    mask = (torch.rand(3, 1, 40, 50, generator=source) > 0.6).double()
    losses = [isnet.HeatmapLoss(3.0, 6.0, decay=given, w2=0.5) for given in (decays, *decays)]
    several, *single = ([loss(heatmap, mask), *torch.autograd.grad(loss(heatmap, mask), heatmap)] for loss in losses)
    for found, *expected in zip(several, *single, strict=True):
        assert difference(found, torch.stack(expected).mean(0)) < 1e-12


def test_several_decays_take_one_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_by, topk = [], torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda *given, **options: sorted_by.append(1) or topk(*given, **options))
    isnet.HeatmapLoss(3.0, 6.0, decay=(0.5, 0.9, 0.99))(torch.ones(1, 1, 1, 60, 60), torch.ones(1, 1, 60, 60))
    assert len(sorted_by) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"c1": 0.0}, "c1"),
        ({"c1": -1.0}, "c1"),
        ({"c1": 5.0}, "c1"),
        ({"c2": math.inf}, "c1"),
        ({"c1": math.nan}, "c1"),
        ({"c1": (1.0, 2.0)}, "same length"),
        ({"w1": -1.0}, "w1"),
        ({"w2": -1.0}, "w2"),
        ({"w1": math.nan}, "w1"),
        ({"decay": 1.5}, "decay"),
        ({"decay": -0.5}, "decay"),
        ({"decay": (0.9, 1.5)}, "decay"),
        ({"decay": ()}, "decay"),
        ({"channel_decay": 2.0}, "channel_decay"),
        ({"saturation": 0.0}, "saturation"),
        ({"foreground": "L2"}, "foreground"),
        ({"normalization": "mean"}, "normalization"),
        ({"reduction": "max"}, "reduction"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        isnet.HeatmapLoss(**{"c1": 1.0, "c2": 5.0, **arguments})


@pytest.mark.parametrize(
    ("relevance", "masks"),
    [((2, 1, 3, 4), (2, 1, 4, 4)), ((2, 1, 3, 4, 4), (2, 4, 4)), ((2, 1, 3, 4, 4), (3, 1, 4, 4))],
)
def test_shapes_that_do_not_fit_are_refused(relevance: tuple[int, ...], masks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected relevance"):
        isnet.HeatmapLoss(1, 2)(torch.ones(relevance), torch.ones(masks))


def test_a_wrong_number_of_foreground_ranges_is_refused() -> None:
    with pytest.raises(ValueError, match="2 foreground ranges"):
        isnet.HeatmapLoss((1, 2), (3, 4))(torch.ones(1, 3, 1, 2, 2), torch.ones(1, 1, 2, 2))
