"""LRP-Flex against the authors' heatmaps, losses and parameter gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference_networks import build_network, heatmap_loss, load_fixture, tensor, variants
from small_networks import difference
from torch import Tensor
from torch.nn import functional as F

import isnet

_HEATMAPS = ("c_flex_seq_plain", "c_flex_seq_nopool", "c_flex_seq_bn", "c_flex_resnet")


def _keys(prefix: str) -> list[tuple[str, str]]:
    return [(name, key) for name in _HEATMAPS for key in load_fixture(name)[0] if key.startswith(prefix)]


def _quantity(mode: str, labels: Tensor) -> isnet.Quantity:
    return {
        "label": isnet.Logit(labels),
        "all": isnet.EveryLogit(),
        "eta_min": isnet.SoftmaxEta(1e-2),
        "eta_label": isnet.SoftmaxEta(1e-2, labels),
    }[mode]


def _explain(
    name: str, mode: str, dtype: torch.dtype = torch.float32, training: bool = False, **options: Any
) -> isnet.Explanation:
    arrays, meta = load_fixture(name)
    network = build_network(meta, arrays, dtype=dtype).train(training)
    images, labels = tensor(arrays, "x", dtype), tensor(arrays, "y")
    return isnet.LRPFlex(network, **options)(images, _quantity(mode, labels))


def _rule(flag: str | bool) -> str:
    return "zb" if flag in ("Zb1", True) else "epsilon"


def test_every_heatmap_of_the_reference_is_compared() -> None:
    compared = {*_keys("flex/"), *_keys("flex_train/"), *_keys("flex_lds/")}
    stored = {(name, key) for name in _HEATMAPS for key in load_fixture(name)[0] if key.startswith("flex")}
    assert compared == stored
    assert len(stored) == 3 * 32 + 16 + 12 + 2 * 4


@pytest.mark.parametrize(("name", "key"), _keys("flex/"))
def test_heatmaps_in_evaluation_mode(name: str, key: str) -> None:
    _, mode, flag, epsilon, *double = key.split("/")
    dtype = torch.float64 if double else torch.float32
    # The authors' code casts eta to single precision even in double precision.
    tolerance = 1e-5 if not double else 1e-6 if mode.startswith("eta") else 1e-10
    logits, relevance, _ = _explain(name, mode, dtype, epsilon=float(epsilon[1:]), input_rule=_rule(flag))
    arrays, _ = load_fixture(name)
    assert difference(relevance, tensor(arrays, key, torch.float64 if double else dtype)) < tolerance
    assert difference(logits.float(), tensor(arrays, "logits_eval")) < 1e-5


@pytest.mark.parametrize(("name", "key"), _keys("flex_train/"))
def test_heatmaps_with_differentiated_batch_statistics(name: str, key: str) -> None:
    _, mode, flag, epsilon = key.split("/")
    options = {"epsilon": float(epsilon[1:]), "input_rule": _rule(flag)}
    logits, relevance, _ = _explain(name, mode, training=True, batch_statistics="differentiated", **options)
    arrays, _ = load_fixture(name)
    assert difference(relevance, tensor(arrays, key)) < 1e-4
    assert difference(logits, tensor(arrays, "logits_train")) < 1e-4
    frozen = _explain(name, mode, training=True, batch_statistics="frozen", **options)
    assert difference(frozen.logits, tensor(arrays, "logits_train")) < 1e-4
    assert difference(frozen.relevance, tensor(arrays, key)) > 1e-2


@pytest.mark.parametrize("rule", ["zb", "epsilon"])
@pytest.mark.parametrize("mode", ["label", "eta_min", "all"])
def test_heatmaps_of_deep_supervision(mode: str, rule: str) -> None:
    layers = ("layer3", "layer1", "layer4", "layer2")
    found = _explain("c_flex_resnet", mode, input_rule=rule, layers=layers).layers
    assert tuple(found) == layers
    arrays, _ = load_fixture("c_flex_resnet")
    for layer in layers:
        assert difference(found[layer], tensor(arrays, f"flex_lds/{mode}/e0.01/{layer}")) < 1e-4


def test_default_class_of_selective_is_the_reference_one() -> None:
    for name in _HEATMAPS:
        arrays, _ = load_fixture(name)
        found = isnet.SoftmaxEta().classes(tensor(arrays, "logits_eval"))
        assert np.array_equal(found[:, 0].numpy(), arrays["argmin_class"])


def _training_parts(name: str, variant: dict[str, Any]) -> tuple[isnet.Explanation, Tensor, Tensor, torch.nn.Module]:
    arrays, meta = load_fixture(name)
    network = build_network(meta, arrays).train(variant["bn_train"])
    images, labels, masks = (tensor(arrays, key) for key in ("x", "y", "mask"))
    engine = isnet.LRPFlex(network, variant["e"], _rule(variant["Zb"]), batch_statistics="differentiated")
    explanation = engine(images, _quantity(variant["mode"], labels))
    criterion = heatmap_loss(variant)
    return explanation, F.cross_entropy(explanation.logits, labels), criterion(explanation.relevance, masks), network


@pytest.mark.parametrize(("name", "variant"), variants("flex"))
def test_losses_and_parameter_gradients(name: str, variant: dict[str, Any]) -> None:
    arrays, _ = load_fixture(name)
    explanation, classification, heat, network = _training_parts(name, variant)
    loss = (1 - variant["P"]) * classification + variant["P"] * heat
    loss.backward()
    prefix = variant["id"]
    assert difference(explanation.relevance, tensor(arrays, f"{prefix}/heatmap")) < 1e-4
    assert difference(explanation.logits, tensor(arrays, f"{prefix}/logits")) < 1e-4
    for key, value in (("cls_loss", classification), ("heat_loss", heat), ("loss", loss)):
        assert value.item() == pytest.approx(float(arrays[f"{prefix}/{key}"]), rel=1e-4), key
    expected = {
        key.removeprefix(f"{prefix}/grad/"): tensor(arrays, key) for key in arrays if key.startswith(f"{prefix}/grad/")
    }
    found = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert found.keys() == expected.keys()
    # The bias of a convolution before a batch norm in training mode has gradient 0 but for rounding.
    floor = max(gradient.abs().max().item() for gradient in expected.values()) if variant["bn_train"] else 0
    for key, gradient in expected.items():
        error = (found[key] - gradient).abs().max().item()
        assert error < 1e-4 * max(gradient.abs().max().item(), 1e-2 * floor), key


def test_every_flex_variant_of_the_reference_is_compared() -> None:
    assert len(variants("flex")) == 4 + 8 + 2
