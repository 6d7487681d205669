"""Which units carry what a change of the background does to a network's predictions, layer by layer."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from isnet_bench import methods
from isnet_bench.data import Split

__all__ = ["KINDS", "mediation"]

KINDS = ("silenced", "lowered", "raised", "woken")
"""What the change does to a unit: a > 0 becomes 0; stays above 0, but falls; rises from above 0; rises from 0."""


class _Layer(NamedTuple):
    """One call of a ReLU module: its name, and its output (N, ...)."""

    name: str
    output: Tensor


def mediation(
    network: nn.Module, before: Split, after: Split, batch_size: int, device: torch.device
) -> tuple[pd.DataFrame, int]:
    """Undo what a change of the background does to the units of one kind in one layer, and see what that mends.

    Each image whose prediction differs between the two sets goes through the network as it is after the change, but
    that in one layer the units of one kind (see `KINDS`) keep the output that they have before it. All that follows
    is computed from there. This is a causal mediation analysis (Vig et al., "Investigating gender bias in language
    models using causal mediation analysis", NeurIPS 2020, section 3: the natural indirect effect of a set of neurons),
    its effect being the prediction itself. LRP gives no relevance to units that are 0, so that what acts by
    silencing units is not in a heatmap.

    Parameters
    ----------
    network : nn.Module
        Maps images (N, C, H, W) in [0, 1] to logits (N, classes); in evaluation mode, on `device`. Its layers are the
        calls of its ``nn.ReLU`` modules, in their order.
    before, after : Split
        The same images, in the same order, with different backgrounds.
    batch_size : int
        Images at a time.
    device : torch.device
        Where the network is.

    Returns
    -------
    table : DataFrame
        One row for each layer and kind, in order: "layer"; "kind"; "units", the mean share of a layer's
        units that are of this kind, in [0, 1]; "restored", the share of changed predictions that are again what they
        were before, in [0, 1]. The latter two are NaN where no prediction changes.
    changed : int
        Number of images whose prediction changes: those that are examined.

    Raises
    ------
    ValueError
        If the network has no ``nn.ReLU`` module that takes part.
    """
    units, restored, changed = Counter(), Counter(), 0
    layers: list[str] = []
    for indices in torch.arange(len(before.labels)).split(batch_size):
        pair = [[part[indices].to(device) for part in (split.images, split.masks)] for split in (before, after)]
        found, layers = _examine(network, *pair)
        changed += found.pop("changed")
        for place, (number, mended) in found.items():
            units[place] += number
            restored[place] += mended
    places = [(layer, kind) for layer in layers for kind in KINDS]
    per_image = 1 / changed if changed else float("nan")
    rows = [(*place, units[place] * per_image, restored[place] * per_image) for place in places]
    return pd.DataFrame(rows, columns=["layer", "kind", "units", "restored"]), changed


def _examine(network: nn.Module, before: list[Tensor], after: list[Tensor]) -> tuple[dict, list[str]]:
    """For one batch, the number of changed predictions and, summed over these images, both columns of the table."""
    old, clean = _classify(network, *before)
    new, marked = _classify(network, *after)
    if not clean:
        raise ValueError("no nn.ReLU module takes part in its predictions, so that there are no layers to examine")
    changed = old != new
    found: dict = {"changed": int(changed.sum())}
    if found["changed"]:
        images, masks, old = after[0][changed], after[1][changed], old[changed]
        for number, (was, now) in enumerate(zip(clean, marked, strict=True)):
            was_output, now_output = was.output[changed], now.output[changed]
            for kind, chosen in _kinds(was_output, now_output).items():
                mended, _ = _classify(network, images, masks, number, torch.where(chosen, was_output, now_output))
                share = float(chosen.flatten(1).double().mean(1).sum())
                found[was.name, kind] = share, int((mended == old).sum())
    return found, [layer.name for layer in clean]


def _kinds(was: Tensor, now: Tensor) -> dict[str, Tensor]:
    silenced, woken = (was > 0) & (now <= 0), (was <= 0) & (now > 0)
    lowered, raised = (now > 0) & (now < was), (was > 0) & (was < now)
    return dict(zip(KINDS, (silenced, lowered, raised, woken), strict=True))


def _classify(
    network: nn.Module, images: Tensor, masks: Tensor, number: int | None = None, instead: Tensor | None = None
) -> tuple[Tensor, list[_Layer]]:
    """Return predictions (N,) and all layers; layer ``number`` gives ``instead``."""
    layers: list[_Layer] = []
    calls: Counter[str] = Counter()

    def record(name: str, output: Tensor) -> Tensor:
        calls[name] += 1
        output = instead if number == len(layers) else output
        # A copy, since a later operation may be in place.
        layers.append(_Layer(name if calls[name] == 1 else f"{name}, call {calls[name]}", output.clone()))
        return output

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: record(name, output))
        for name, module in network.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        with torch.no_grad():
            return methods.classify(network, images, masks).argmax(1), layers
    finally:
        for hook in hooks:
            hook.remove()
