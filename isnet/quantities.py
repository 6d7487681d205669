"""What an LRP heatmap explains: the quantity from which relevance starts at the network's output.

Each quantity maps logits ``(N, classes)`` to scores ``(N, K)``: one heatmap is made per score. The number of maps is
what separates the ISNets: the original explains every logit (K = classes), the Faster variants one quantity (K = 1).
Source: Bassi, Decherchi, Cavalli, "Faster ISNet for Background Bias Mitigation on Deep Neural Networks",
arXiv 2401.08409, Section III.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor


class Quantity(ABC):
    """A quantity to explain. Instances hold no tensors of a particular network and can be reused across calls."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Return the explained scores.

        Parameters
        ----------
        logits : Tensor
            Shape ``(N, classes)``.

        Returns
        -------
        Tensor
            Shape ``(N, K)``, differentiable with respect to ``logits``.
        """


class ClassQuantity(Quantity):
    """A quantity that belongs to chosen classes."""

    @abstractmethod
    def classes(self, logits: Tensor) -> Tensor:
        """Return the class that each of the K maps explains, shape ``(N, K)``, int64."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits.gather(1, self.classes(logits))


@dataclass(frozen=True)
class EveryLogit(ClassQuantity):
    """Every logit, one map per class (original ISNet, Nature Communications 15, 291, 2024)."""

    def classes(self, logits: Tensor) -> Tensor:
        number = logits.shape[1]
        return torch.arange(number, device=logits.device).expand(logits.shape[0], number)


@dataclass(frozen=True)
class Logit(ClassQuantity):
    """One given logit per image.

    Parameters
    ----------
    labels : int or Tensor
        One class for all images, or an integer tensor of shape ``(N,)``.
    """

    labels: int | Tensor

    def classes(self, logits: Tensor) -> Tensor:
        return as_classes(self.labels, logits)


@dataclass(frozen=True)
class RandomLogit(ClassQuantity):
    """One random logit per image: the top logit with probability `p_top`, else another one uniformly.

    Drawn independently for every image and call (Stochastic ISNet). The paper says that half of the draws take the
    top logit (``p_top=0.5``); the authors' LRP-Flex code takes it in 5 of 11.

    Parameters
    ----------
    p_top : float
        Probability of the top logit, in [0, 1].
    generator : torch.Generator, optional
        Source of randomness, on the CPU. By default torch's global generator.
    """

    p_top: float = 0.5
    generator: torch.Generator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.p_top <= 1.0:
            raise ValueError(f"p_top must lie in [0, 1], got {self.p_top}")

    def classes(self, logits: Tensor) -> Tensor:
        images, number = logits.shape
        top = logits.detach().argmax(1)
        if number == 1:
            return top[:, None]
        # Drawn on the CPU whatever the device, so that one seed gives the same classes everywhere.
        take_top = torch.rand(images, generator=self.generator) < self.p_top
        offset = torch.randint(1, number, (images,), generator=self.generator)
        offset = torch.where(take_top, torch.zeros_like(offset), offset).to(logits.device)
        return ((top + offset) % number)[:, None]


@dataclass(frozen=True)
class SoftmaxEta(ClassQuantity):
    """The softmax-based quantity eta of one class per image (Selective ISNet).

    ``eta_c = log(p_c + eps) - log(1 - p_c + eps)`` with ``p = softmax(logits)``. It depends on all logits, and in the
    limit of small `eps` it is the log-odds of class c. For multi-class (softmax) classifiers only: multi-label
    (sigmoid) outputs are out of scope.

    Parameters
    ----------
    eps : float
        Stabiliser inside both logarithms, > 0.
    labels : int or Tensor, optional
        Class to explain, an int or shape ``(N,)``. By default the class of the lowest logit.
    """

    eps: float = 1e-2
    labels: int | Tensor | None = None

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps of SoftmaxEta must be positive, got {self.eps}")

    def classes(self, logits: Tensor) -> Tensor:
        if self.labels is None:
            return logits.detach().argmin(1)[:, None]
        return as_classes(self.labels, logits)

    def scores(self, logits: Tensor) -> Tensor:
        if logits.shape[1] < 2:
            raise ValueError("SoftmaxEta needs at least two classes: eta of a single softmax output is constant")
        p = logits.softmax(1).gather(1, self.classes(logits))
        return (p + self.eps).log() - (1 - p + self.eps).log()


@dataclass(frozen=True)
class JointLogits(Quantity):
    """All outputs at once, one map: the sum over classes of the maps of :class:`EveryLogit` (Dual ISNet)."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sum(1, keepdim=True)


def as_classes(labels: int | Tensor, logits: Tensor) -> Tensor:
    """Return labels as classes of shape ``(N, 1)``, int64; raise ValueError if they are none."""
    images, number = logits.shape
    if not isinstance(labels, Tensor):
        labels = torch.full((images,), labels)
    if labels.shape != (images,) or labels.is_floating_point():
        raise ValueError(
            f"labels must be an int or an integer tensor of shape ({images},), one class per image, got {labels.dtype} "
            f"of shape {tuple(labels.shape)}; several labels per image and regression are out of scope"
        )
    labels = labels.to(logits.device, torch.int64)
    if images and (int(labels.min()) < 0 or int(labels.max()) >= number):
        raise ValueError(f"labels must lie in 0..{number - 1} (the network has {number} logits)")
    return labels[:, None]
