"""Relevance of the background in a network's heatmaps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import isnet
from isnet_bench.data import Split

__all__ = ["EXPLAINER", "Examination", "background_relevance", "examine", "explainer", "spread"]

log = logging.getLogger(__name__)

Explain = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

EXPLAINER = "LRP-epsilon with z^B input rule"

_EPSILON = 1e-2
_EXAMPLES = 8


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


def explainer(network: nn.Module, probe: Tensor) -> Explain:
    """Return a function that classifies images, and explains the logit of each image's label.

    Parameters
    ----------
    network : nn.Module
        Maps images (N, C, H, W) in [0, 1] to logits; in evaluation mode.
    probe : Tensor
        Some images, to find out whether LRP can explain the network.

    Returns
    -------
    callable
        Of images (N, C, H, W) and labels (N,); gives logits (N, classes) and relevance (N, C, H, W) by
        LRP-epsilon with the z^B input rule, all zero for networks that are no ReLU networks.
    """
    try:
        explain = isnet.LRPFlex(network, epsilon=_EPSILON, input_rule="zb", low=0.0, high=1.0)
        explain(probe, isnet.Logit(0))
    except isnet.UnsupportedNetworkError as error:
        log.warning("no background relevance: %s", error)
        return lambda images, labels: (network(images), torch.zeros_like(images))

    def explain_labels(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, relevance, _ = explain(images, isnet.Logit(labels))
        return logits, relevance[:, 0]

    return explain_labels


def examine(explain: Explain, split: Split, shown: np.ndarray, batch_size: int, device: torch.device) -> Examination:
    """Classify and explain a test set.

    Parameters
    ----------
    explain : callable
        What `explainer` returned.
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
            logits, relevance = explain(images, labels)
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
