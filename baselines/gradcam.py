"""Grad-CAM as a differentiable part of a training loss.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.base import Task

SIDE = 7
"""Least height and width of the maps that are explained where no layer is named."""


def find_layer(backbone: nn.Module, task: Task, layer: str | None = None) -> str:
    """Return the name of the layer to explain: the one that is asked for, if it has maps (else ValueError).

    Grad-CAM explains the last convolutional maps, which in the common networks for 224-pixel images are 7 x 7. On
    small images the last maps may be 2 x 2, where foreground and background can no longer be told apart: this is
    the last module whose maps are at least `SIDE` x `SIDE`, or as large as any.
    """
    sides = _sides(backbone, task)
    if layer is not None:
        if sides.get(layer, 0) < 2:
            raise ValueError(
                f"layer must name a module with maps, such as {', '.join(list(sides)[-5:])}, not {layer!r}"
            )
        return layer
    if not sides:
        raise ValueError("Grad-CAM needs a network with two-dimensional maps: use a convolutional backbone")
    wanted = min(SIDE, max(sides.values()))
    return [name for name, side in sides.items() if side >= wanted][-1]


def attention_maps(backbone: nn.Module, layer: str, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Classify images (N, C, H, W) and make Grad-CAM maps of classes (N,), differentiable by all weights.

    Returns logits (N, classes), and of the named module's output f the maps ``ReLU(sum_k w_k f_k)`` with w_k the
    spatial mean of the logit's gradient by f_k, bilinearly resized to the images: (N, 1, H, W), values >= 0.
    """
    with _outputs(backbone, [layer]) as outputs:
        logits = backbone(images)
    features = outputs[layer]
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features, create_graph=True)
    maps = (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    return logits, F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _sides(backbone: nn.Module, task: Task) -> dict[str, int]:
    """Name and side of all maps, in the order in which they are made; each is named by the outermost module."""
    names = [name for name, _ in backbone.named_modules() if name]
    training = backbone.training
    backbone.eval()
    with torch.no_grad(), _outputs(backbone, names) as outputs:
        backbone(torch.zeros(1, task.channels, task.image_size, task.image_size))
    backbone.train(training)
    return {name: min(out.shape[2:]) for name, out in outputs.items() if out.ndim == 4 and min(out.shape[2:]) > 1}


@contextmanager
def _outputs(backbone: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the last outputs of modules, in the order in which they were made."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: object, output: object) -> None:
        outputs.pop(name, None)
        if isinstance(output, Tensor):
            outputs[name] = output

    with ExitStack() as stack:
        for name in names:
            handle = backbone.get_submodule(name).register_forward_hook(partial(keep, name))
            stack.callback(handle.remove)
        yield outputs
