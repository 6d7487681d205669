"""What a method is to the benchmark: all that is asked of it is declared in `Method`, and nothing is guessed.

A method's module has ``forward(images) -> logits (N, classes)`` and ``training_loss(images, masks, labels) -> Losses``,
whose parts have the same names in every batch, and which is also called in evaluation mode, for validation. Masks are
(N, 1, H, W) with 1 = foreground. A method that says so (`Method.groups`) is given the groups of the images, int64 (N,),
as a fourth argument. **The mask of an image without one is NaN everywhere**: such an image takes part in
classification alone, which `of_masked` sees to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic
from torch import Tensor, nn

from isnet import Losses

__all__ = ["Losses", "Method", "NoHyperparameters", "Range", "Task", "Visible", "of_masked", "with_mask"]


@dataclass(frozen=True)
class Task:
    """What a method is to learn, and with which backbone.

    ``make_backbone()`` makes a new classifier with random weights: images (N, channels, image_size, image_size) to
    logits (N, classes). `class_weights`, shape (classes,), are those of the cross-entropy; None: all 1. `group_images`
    says how many training images each group has, by the groups' names, in the order of their numbers; empty where the
    data have no groups.
    """

    make_backbone: Callable[[], nn.Module]
    classes: int
    channels: int
    image_size: int
    class_weights: Tensor | None = None
    group_images: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """The natural range [C1, C2] of heatmaps, which is measured on an ordinary classifier before a method is built.

    Attributes
    ----------
    totals : callable
        ``totals(hyperparameters, classifier, images)`` maps ``"input"``, and each supervised layer, to the total
        absolute relevance sum|R| of each image, shape (N, ranges): one column for each range that is to be told apart.
    fields : tuple of str
        Hyper-parameters on which the totals depend: rows of one method that agree in them share a range.
    measured : tuple of str
        Hyper-parameters that the range stands in for where they are "auto".
    """

    totals: Callable[[Any, nn.Module, Tensor], Mapping[str, Tensor]]
    fields: tuple[str, ...] = ()
    measured: tuple[str, ...] = ("c1", "c2")

    def needed(self, hyperparameters: Any) -> bool:
        """Say whether these hyper-parameters leave the range open."""
        return any(getattr(hyperparameters, name) == "auto" for name in self.measured)


@dataclass(frozen=True)
class Visible:
    """How a method hides a part of each image from its own classifier, where the hidden part has no relevance.

    `classifier` is the name of the submodule that sees the rest; ``part(module, images, masks)`` says where it sees
    images, 1 = visible, shape (N, 1, H, W).
    """

    classifier: str
    part: Callable[[nn.Module, Tensor, Tensor], Tensor]


@pydantic.dataclasses.dataclass(frozen=True)
class NoHyperparameters:
    """Of methods that have none of their own."""


@dataclass(frozen=True)
class Method:
    """A method: what the benchmark must know to configure, build, explain and name it.

    Attributes
    ----------
    name : str
        Unique; the method's name in the configuration.
    label : str
        Its name in tables and figures.
    hyperparameters : type
        Frozen pydantic dataclass, all of whose fields have defaults and bounds.
    module : callable
        ``module(task, hyperparameters)``: usually the module's class. With a `range`: ``module(task, hyperparameters,
        ranges)``; ``ranges`` maps ``"input"`` and each supervised layer to mappings with the keys c1 and c2, one for
        each column of the totals; None where no range is needed. ValueError: backbone and hyper-parameters do not fit.
    family : {"baseline", "isnet"}
        For the order of tables and figures.
    oracle : bool
        Whether the module sees the true masks of test images, ``module(images, masks)``: a ceiling, and no competitor.
    kept : str
        Name of the submodule that alone is the method after training; "": all of it. Only its weights are kept.
    visible : Visible or None
        For methods that hide a part of the images from their classifier.
    explainer : {"lrp", "gradient_input"}
        What the background's relevance is measured with: LRP, if that fits the backbone, or Gradient x Input.
    range : Range or None
        For methods whose heatmap loss needs one.
    groups : bool
        Whether it is defined only where every group has training images: ``training_loss(images, masks, labels,
        groups)``.
    """

    name: str
    label: str
    hyperparameters: type
    module: Callable[..., nn.Module]
    family: Literal["baseline", "isnet"] = "baseline"
    oracle: bool = False
    kept: str = ""
    visible: Visible | None = None
    explainer: Literal["lrp", "gradient_input"] = "lrp"
    range: Range | None = None
    groups: bool = False

    def build(
        self, task: Task, hyperparameters: Any, ranges: Mapping[str, Sequence[Mapping[str, float]]] | None = None
    ) -> nn.Module:
        """Build the module, with random weights. ValueError: it needs groups, and one has no training images."""
        if self.groups:
            _check_groups(task.group_images)
        return self.module(task, hyperparameters, *([] if self.range is None else [ranges]))

    def trained(self, module: nn.Module) -> nn.Module:
        """Return the part of the module that is left after training."""
        return module.get_submodule(self.kept)

    def classify(self, module: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W); only oracles see the masks (N, 1, H, W)."""
        return module(images, masks) if self.oracle else module(images)


def _check_groups(images: Mapping[str, int]) -> None:
    empty = [name for name, number in images.items() if not number]
    if empty or not images:
        found = (
            f"there are none of {empty[0]!r}" if empty else "these data have no groups, as where marks never contradict"
        )
        raise ValueError(
            f"it is undefined without training images of every group, and {found}; take it out of the rows"
        )


def with_mask(masks: Tensor) -> Tensor:
    """Return which of the masks (N, 1, H, W) there are, bool (N,): one that there is not, is NaN."""
    return ~masks[:, 0, 0, 0].isnan()


def of_masked(term: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Compute a term of a loss, a scalar, over the images that have a mask; it is 0 where none has.

    The tensors have shapes (N, ...); the last are the masks (N, 1, H, W).
    """
    there = with_mask(tensors[-1])
    if bool(there.all()):
        return term(*tensors)
    return term(*(tensor[there] for tensor in tensors)) if bool(there.any()) else tensors[0].new_zeros(())
