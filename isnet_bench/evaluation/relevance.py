"""Relevance of the background in a network's heatmaps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import isnet
from baselines.base import with_mask
from isnet_bench.data import Split
from isnet_bench.methods import Method

log = logging.getLogger(__name__)

LRP = "LRP-epsilon with z^B input rule"
GRADIENT_INPUT = "Gradient × Input"

EXPLAINED = 500
"""Images of each test set that are explained, at most."""

_EPSILON = 1e-2
_EXAMPLES = 8


class Explainer(NamedTuple):
    """A network and a way to explain it.

    ``classify`` takes images (N, C, H, W) and masks (N, 1, H, W), 1 = foreground, and gives logits (N, classes);
    ``explain`` takes labels (N,), too, and gives the relevance (N, C, H, W) for each image's own label. ``name`` is
    `LRP` or `GRADIENT_INPUT`.
    """

    name: str
    classify: Callable[[Tensor, Tensor], Tensor]
    explain: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Examination:
    """What a network made of a test set.

    Attributes
    ----------
    labels, probabilities, background_relevance : ndarray
        Shapes (N,), (N, classes) and (M,), of the M <= N images that were explained; the last is NaN where a heatmap
        is zero everywhere, or the image has no mask.
    background_area : float
        Mean share of background pixels; NaN where no image has a mask.
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


def explainer(method: Method, network: nn.Module, probe: Tensor) -> Explainer:
    """Return how a trained method is explained: as it says itself, by LRP only where the network is a ReLU network.

    Where the method hides a part of the image from its own classifier, the classifier is explained on what it sees, and
    the hidden part has no relevance.

    Parameters
    ----------
    method : Method
        What was trained.
    network : nn.Module
        Maps images (N, C, H, W) in [0, 1] to logits; in evaluation mode.
    probe : Tensor
        Some images, to find out whether LRP can explain the network.
    """
    classify, visible = partial(method.classify, network), method.visible
    explained = network if visible is None else network.get_submodule(visible.classifier)
    if method.explainer == "gradient_input":
        name, explain = GRADIENT_INPUT, partial(_gradient_input, explained)
    else:
        name, explain = _by_lrp(explained, probe)
    if visible is None:
        return Explainer(name, classify, lambda images, masks, labels: explain(images, labels))

    def explain_visible(images: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
        seen = visible.part(network, images, masks)
        return explain(images * seen, labels) * seen

    return Explainer(name, classify, explain_visible)


def _by_lrp(network: nn.Module, probe: Tensor) -> tuple[str, Callable[[Tensor, Tensor], Tensor]]:
    try:
        lrp = isnet.LRPFlex(network, epsilon=_EPSILON, input_rule="zb", low=0.0, high=1.0)
        lrp(probe, isnet.Logit(0))
    except isnet.UnsupportedNetworkError as error:
        log.warning("background relevance is measured by %s, since LRP does not fit: %s", GRADIENT_INPUT, error)
        return GRADIENT_INPUT, partial(_gradient_input, network)
    return LRP, lambda images, labels: lrp(images, isnet.Logit(labels))[1][:, 0]


def _gradient_input(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each label's logit times the image (Shrikumar et al., arXiv:1605.01713)."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network(images).gather(1, labels[:, None]).sum(), images)
    return gradient * images.detach()


def examine(
    explainer: Explainer, split: Split, shown: np.ndarray, batch_size: int, device: torch.device
) -> Examination:
    """Classify a test set, and explain `EXPLAINED` of its images or more, spread over it evenly.

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
    number, pixels, foreground = len(split.labels), 0, 0.0
    chosen = np.union1d(np.linspace(0, number - 1, min(EXPLAINED, number)).astype(int), shown)
    probabilities, shares, examples = [], [], []
    with torch.no_grad():
        for images, masks, _ in _batches(split, np.arange(number), batch_size, device):
            probabilities.append(explainer.classify(images, masks).softmax(1).cpu())
            there = masks[with_mask(masks)]
            pixels, foreground = pixels + there.numel(), foreground + float(there.double().sum())
        example = np.split(np.isin(chosen, shown), range(batch_size, len(chosen), batch_size))
        for here, (images, masks, labels) in zip(example, _batches(split, chosen, batch_size, device), strict=True):
            relevance = explainer.explain(images, masks, labels)
            shares.append(background_relevance(relevance, masks).cpu())
            examples.append(relevance.cpu()[torch.from_numpy(here)])
    return Examination(
        labels=split.labels.numpy(),
        probabilities=torch.cat(probabilities).numpy(),
        background_relevance=torch.cat(shares).numpy(),
        background_area=1 - foreground / pixels if pixels else float("nan"),
        examples={
            "images": split.images[shown].numpy(),
            "masks": split.masks[shown].numpy(),
            "relevance": torch.cat(examples).numpy(),
            "labels": split.labels[shown].numpy(),
        },
    )


def _batches(split: Split, chosen: np.ndarray, batch_size: int, device: torch.device) -> Iterator[list[Tensor]]:
    for indices in torch.from_numpy(chosen).split(batch_size):
        yield [tensor[indices].to(device) for tensor in split]


def spread(labels: np.ndarray, number: int = _EXAMPLES) -> np.ndarray:
    """Return the sorted indices of up to `number` images, spread over the classes as evenly as possible."""
    place = pd.Series(labels).groupby(labels).cumcount()
    return np.sort(np.lexsort((labels, place))[:number])
