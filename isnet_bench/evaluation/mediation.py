"""Which units carry what a change of the background does to a network's predictions, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import pandas as pd
import torch
from torch import Tensor, nn

from isnet_bench import methods
from isnet_bench.data import Split

KINDS = ("silenced", "lowered", "raised", "woken")
"""What the change does to a unit: a > 0 becomes 0; stays above 0, but falls; rises from above 0; rises from 0."""


def mediation(
    network: nn.Module,
    before: Split,
    after: Split,
    batch_size: int,
    device: torch.device,
    classify: methods.Classify = methods.without_masks,
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
    classify : callable
        How it classifies images, given their masks.

    Returns
    -------
    table : DataFrame
        One row for each layer and kind, in order: "layer"; "shift", how far the change moves the layer's output,
        ``|after - before| / |before|`` (Euclidean norms), the mean of all images; "kind"; "units", the mean share of a
        layer's units that are of this kind, in [0, 1]; "restored", the share of changed predictions that are again what
        they were before, in [0, 1]. The latter two are NaN where no prediction changes.
    changed : int
        Number of images whose prediction changes: those that are examined.

    Raises
    ------
    ValueError
        If the network has no ``nn.ReLU`` module that takes part.
    """
    shift, units, restored, changed = Counter(), Counter(), Counter(), 0
    layers: dict[str, Tensor] = {}
    run = partial(_run, network, classify)
    for indices in torch.arange(len(before.labels)).split(batch_size):
        pair = [[part[indices].to(device) for part in (split.images, split.masks)] for split in (before, after)]
        (old, layers), (new, marked) = (run(*part) for part in pair)
        if not layers:
            raise ValueError("its predictions use no nn.ReLU module, so there are no layers to examine")
        for layer, output in layers.items():
            shift[layer] += float(_relative(marked[layer] - output, output).sum()) / len(before.labels)
        differ = old != new
        if not differ.any():
            continue
        changed += int(differ.sum())
        images, masks, old = pair[1][0][differ], pair[1][1][differ], old[differ]
        for layer, output in layers.items():
            was, now = output[differ], marked[layer][differ]
            for kind, chosen in _kinds(was, now).items():
                mended, _ = run(images, masks, {layer: torch.where(chosen, was, now)})
                units[layer, kind] += float(chosen.flatten(1).double().mean(1).sum())
                restored[layer, kind] += int((mended == old).sum())
    places = [(layer, kind) for layer in layers for kind in KINDS]
    per_image = 1 / changed if changed else float("nan")
    rows = [
        (layer, shift[layer], kind, units[layer, kind] * per_image, restored[layer, kind] * per_image)
        for layer, kind in places
    ]
    return pd.DataFrame(rows, columns=["layer", "shift", "kind", "units", "restored"]), changed


def _relative(difference: Tensor, value: Tensor) -> Tensor:
    """Return the Euclidean norm of each image's difference, in units of that of its value (N,)."""
    return difference.flatten(1).double().norm(dim=1) / value.flatten(1).double().norm(dim=1).clamp(min=1e-12)


def _kinds(was: Tensor, now: Tensor) -> dict[str, Tensor]:
    silenced, woken = (was > 0) & (now <= 0), (was <= 0) & (now > 0)
    lowered, raised = (now > 0) & (now < was), (was > 0) & (was < now)
    return dict(zip(KINDS, (silenced, lowered, raised, woken), strict=True))


def _run(
    network: nn.Module,
    classify: methods.Classify,
    images: Tensor,
    masks: Tensor,
    instead: Mapping[str, Tensor] = MappingProxyType({}),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return predictions (N,) and the outputs (N, ...) of all layers by name; some give what stands in `instead`."""
    layers: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def record(name: str, output: Tensor) -> Tensor:
        calls[name] += 1
        layer = name if calls[name] == 1 else f"{name}, call {calls[name]}"
        output = instead.get(layer, output)
        # A copy, since a later operation may be in place.
        layers[layer] = output.clone()
        return output

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: record(name, output))
        for name, module in network.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        with torch.no_grad():
            return classify(network, images, masks).argmax(1), layers
    finally:
        for hook in hooks:
            hook.remove()
