"""Relevance of the background in a network's heatmaps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import isnet
from isnet_bench.data import Split

__all__ = [
    "GRADIENT_INPUT",
    "LRP",
    "Examination",
    "Explainer",
    "background_relevance",
    "examine",
    "explainer",
    "spread",
]

log = logging.getLogger(__name__)

LRP = "LRP-epsilon with z^B input rule"
GRADIENT_INPUT = "Gradient × Input"

_EPSILON = 1e-2
_EXAMPLES = 8


class Explainer(NamedTuple):
    """A way to explain a network.

    ``explain`` takes images (N, C, H, W), masks (N, 1, H, W), 1 = foreground, and labels (N,); it gives logits (N,
    classes) and the relevance (N, C, H, W) for each image's own label. ``name`` is `LRP` or `GRADIENT_INPUT`.
    """

    name: str
    explain: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Examination:
    """What a network made of a test set.

    Attributes
    ----------
    labels, probabilities, background_relevance : ndarray
        Shapes (N,), (N, classes) and (N,); the last is NaN where a heatmap is zero everywhere.
    background_area : float
        Mean share of background pixels.
    examples : dict of ndarray
        Of some images: "images" and "relevance" (n, C, H, W), "masks" (n, 1, H, W), float32, and "labels"
        (n,).
    """

    labels: np.ndarray
    probabilities: np.ndarray
    background_relevance: np.ndarray
    background_area: float
    examples: dict[str, np.ndarray]


def background_relevance(relevance: Tensor, masks: Tensor) -> Tensor:
    r"""Return the background's share of the relevance, :math:`\sum |R| (1 - M) / \sum |R|`, for each image.

    It is 1 minus the Relevance Mass Accuracy (Arras, Osman, Samek, Information Fusion 81, 2022) of \|R\|.

    Parameters
    ----------
    relevance : Tensor
        Heatmaps, shape (N, C, H, W).
    masks : Tensor
        Shape (N, 1 or C, H, W), 1 = foreground.

    Returns
    -------
    Tensor
        Shape (N,), in [0, 1]; NaN where a heatmap is zero everywhere.
    """
    magnitude = relevance.abs().double()
    total = magnitude.sum((1, 2, 3))
    share = (magnitude * (1 - masks)).sum((1, 2, 3)) / total
    return torch.where(total > 0, share, torch.nan)


def explainer(network: nn.Module, probe: Tensor) -> Explainer:
    """Choose how a network is explained: by LRP where it is a ReLU network, else by Gradient × Input.

    Where a network hides a part of the image from its own ``classifier`` (it then has a method ``visible_part``), the
    classifier is explained on what it sees, and the hidden part has no relevance.

    Parameters
    ----------
    network : nn.Module
        Maps images (N, C, H, W) in [0, 1] to logits; in evaluation mode.
    probe : Tensor
        Some images, to find out whether LRP can explain the network.
    """
    if not hasattr(network, "visible_part"):
        name, explain = _explain_all(network, probe)
        return Explainer(name, lambda images, masks, labels: explain(images, labels))
    name, explain = _explain_all(network.classifier, probe)

    def explain_visible(images: Tensor, masks: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        seen = network.visible_part(images, masks)
        logits, relevance = explain(images * seen, labels)
        return logits, relevance * seen

    return Explainer(name, explain_visible)


def _explain_all(network: nn.Module, probe: Tensor) -> tuple[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    try:
        lrp = isnet.LRPFlex(network, epsilon=_EPSILON, input_rule="zb", low=0.0, high=1.0)
        lrp(probe, isnet.Logit(0))
    except isnet.UnsupportedNetworkError as error:
        log.warning("background relevance is measured by %s, since LRP does not fit: %s", GRADIENT_INPUT, error)
        return GRADIENT_INPUT, partial(_gradient_input, network)

    def explain(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, relevance, _ = lrp(images, isnet.Logit(labels))
        return logits, relevance[:, 0]

    return LRP, explain


def _gradient_input(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of each label's logit times the image (Shrikumar et al., arXiv:1605.01713)."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = network(images)
        (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), images)
    return logits.detach(), gradient * images.detach()


def examine(
    explainer: Explainer, split: Split, shown: np.ndarray, batch_size: int, device: torch.device
) -> Examination:
    """Classify and explain a test set.

    Parameters
    ----------
    explainer : Explainer
        Of the network.
    split : Split
        The test set.
    shown : ndarray
        Sorted indices of the images that the examples are.
    batch_size : int
        Images at a time.
    device : torch.device
        Where the network is.
    """
    probabilities, shares, examples = [], [], []
    for indices in torch.arange(len(split.labels)).split(batch_size):
        images, masks, labels = (tensor[indices].to(device) for tensor in split)
        with torch.no_grad():
            logits, relevance = explainer.explain(images, masks, labels)
        probabilities.append(logits.softmax(1).cpu())
        shares.append(background_relevance(relevance, masks).cpu())
        examples.append(relevance.cpu()[torch.isin(indices, torch.from_numpy(shown))])
    return Examination(
        labels=split.labels.numpy(),
        probabilities=torch.cat(probabilities).numpy(),
        background_relevance=torch.cat(shares).numpy(),
        background_area=1 - float(split.masks.double().mean()),
        examples={
            "images": split.images[shown].numpy(),
            "masks": split.masks[shown].numpy(),
            "relevance": torch.cat(examples).numpy(),
            "labels": split.labels[shown].numpy(),
        },
    )


def spread(labels: np.ndarray, number: int = _EXAMPLES) -> np.ndarray:
    """Return the sorted indices of up to `number` images, spread over the classes as evenly as possible."""
    place = np.zeros(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = np.arange(len(members))
    return np.sort(np.lexsort((labels, place))[:number])
