"""What a module of this package must say of its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from isnet import Losses

__all__ = ["Explained", "Losses", "Method", "Task"]


def _never(params: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class Task:
    """What a method is to learn, and with which backbone.

    Attributes
    ----------
    make_backbone : callable
        Makes a new classifier with random weights: images (N, channels, image_size, image_size) to logits (N,
        classes).
    classes, channels, image_size : int
        Number of classes, and form of the images.
    class_weights : Tensor or None
        Weights of the cross-entropy, shape (classes,).
    """

    make_backbone: Callable[[], nn.Module]
    classes: int
    channels: int
    image_size: int
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class Explained:
    """What a method explains, so that the natural range of its heatmaps can be measured on an ordinary
    classifier.

    Attributes
    ----------
    name : str
        Methods that explain the same thing have the same name and share the measured range.
    totals : callable
        ``totals(classifier, images)`` maps ``"input"``, and each supervised layer, to the total absolute
        relevance sum|R| of each image, shape (N, ranges): one column for each range that is to be told apart.
    """

    name: str
    totals: Callable[[nn.Module, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Method:
    """A method: what the benchmark must know to configure, build and name it.

    Attributes
    ----------
    name : str
        Unique; the method's name in the configuration.
    label : str
        Its name in tables and figures.
    hyperparameters : type
        Frozen dataclass, all of whose fields have defaults. Its ``__post_init__`` raises ValueError, saying
        which field is wrong and which values it may have.
    build : callable
        ``build(task, hyperparameters, ranges) -> nn.Module``; ``ranges`` is what the verb `range` measured,
        or None. The module has ``forward(images) -> logits`` and ``training_loss(images, masks, labels) ->
        Losses``, whose parts have the same names in every batch, and which is also called in evaluation mode,
        for validation. If it has an attribute ``backbone``, then that alone is what the method is after
        training: only its weights are kept, and ``forward`` gives its logits.
    needs_range : callable
        Whether ``build`` needs ``ranges``, given the hyper-parameters that differ from the defaults.
    explained : callable or None
        ``explained(hyperparameters) -> Explained``, for methods that may need ``ranges``.
    family : {"baseline", "isnet"}
        For the order of tables and figures.
    oracle : bool
        Whether the module sees the true masks of test images: a ceiling, and no competitor.
    """

    name: str
    label: str
    hyperparameters: type
    build: Callable[[Task, Any, Mapping[str, Any] | None], nn.Module]
    needs_range: Callable[[Mapping[str, Any]], bool] = _never
    explained: Callable[[Any], Explained] | None = None
    family: Literal["baseline", "isnet"] = "baseline"
    oracle: bool = False
