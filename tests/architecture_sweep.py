"""What LRP-Flex makes of the ReLU architectures of timm and torchvision: ``python tests/architecture_sweep.py`` writes
docs/architectures.md again, and test_architecture_sweep.py holds each of its rows against a new look.
"""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from small_networks import difference, epsilon_map, pixels, without_biases
from torch import Tensor, nn

import isnet

import timm  # isort: skip
from torchvision import models  # isort: skip

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
MILLIONS = 30
_CLASSES = 4
_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
# Architectures whose layers ask for larger images than the others get.
_SIZES = {
    "inception_v3": 96,
    "botnet26t_256": 256,
    "lambda_resnet26rpt_256": 256,
    "halonet26t": 256,
    "halonet_h1": 256,
}
_ZB = (
    "the z^B rule needs the images, perhaps rearranged or normalised, to enter a convolution or linear layer, perhaps "
    "batch norm or max pool, then ReLU, but "
)
_BEGIN, _END = "| architecture |", "\n\n"


class Outcome(NamedTuple):
    """A row of the table: "exact" or why not, for LRP-Flex and for its z^B rule."""

    name: str
    millions: str
    flex: str
    zb: str


def build(name: str) -> nn.Module:
    """Make "timm NAME" or "torchvision NAME" with random weights."""
    library, _, model = name.partition(" ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        if library == "timm":
            return timm.create_model(model, num_classes=_CLASSES)
        auxiliary = {"aux_logits": False, "init_weights": False} if model in ("googlenet", "inception_v3") else {}
        return models.get_model(model, weights=None, num_classes=_CLASSES, **auxiliary)


def names() -> list[str]:
    """Return the architectures whose activation modules are all ReLUs, below `MILLIONS` parameters."""
    found = []
    known = {"timm": timm.list_models(), "torchvision": models.list_models(models)}
    for name in (f"{library} {model}" for library, listed in known.items() for model in listed):
        try:
            with torch.device("meta"):
                network = build(name)
        except NotImplementedError:
            # torchvision's RegNets start from numbers, which are not made here.
            network = build(name)
        used = {type(module).__name__ for module in network.modules() if type(module).__module__ in _ACTIVATIONS}
        if used == {"ReLU"} and _millions(network) < MILLIONS:
            found.append(name)
    return found


def look_at(name: str) -> Outcome:
    """Explain an architecture, and compare with what autograd and a rewrite with patched ReLUs say."""
    network, size = build(name), _SIZES.get(name.partition(" ")[2], 64)
    images = pixels(1, 3, size, size)
    _enliven(network, size)
    network.double().eval()
    with torch.no_grad():
        top = int(network(images).argmax())
    try:
        isnet.LRPFlex(network, input_rule="epsilon")(images, isnet.Logit(top))
    except isnet.UnsupportedNetworkError as error:
        return Outcome(name, f"{_millions(network):.1f}", _reason(error), "")
    _compare(network, images, top)
    try:
        found = isnet.LRPFlex(network)(images, isnet.Logit(top)).relevance
    except isnet.UnsupportedNetworkError as error:
        return Outcome(name, f"{_millions(network):.1f}", "exact", _reason(error))
    assert bool(found.isfinite().all())
    assert bool(found.any())
    return Outcome(name, f"{_millions(network):.1f}", "exact", "yes")


def _compare(network: nn.Module, images: Tensor, top: int) -> None:
    """Assert that maps are exact, by three computations that know nothing of the engine."""
    quantity = isnet.Logit(top)
    # Without epsilon relevance is gradient times input.
    entrance = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(entrance)[:, top].sum(), entrance)
    found = isnet.LRPFlex(network, 1e-13, "epsilon")(images, quantity).relevance[:, 0]
    assert difference(found, images * gradient) < 1e-6
    # With a large one each ReLU counts.
    found = isnet.LRPFlex(network, 0.1, "epsilon")(images, quantity).relevance[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        assert difference(found, epsilon_map(network, images, 0.1, lambda logits: logits[:, top], patch)) < 1e-8
    # Nothing but ReLUs and linear maps: without biases, relevance is conserved.
    bare = without_biases(copy.deepcopy(network))
    logits, found, _ = isnet.LRPFlex(bare, 1e-13, "epsilon")(images, isnet.JointLogits())
    assert difference(found.sum((1, 2, 3, 4)), logits.sum(1)) < 1e-6


def _enliven(network: nn.Module, size: int) -> None:
    """Give batch norms the statistics of random images, and factors that hide no branch, as timm's zeros would."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.momentum = None
    with torch.no_grad():
        network.train()(pixels(4, 3, size, size, dtype=torch.float32))


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def _reason(error: Exception) -> str:
    """Return what is refused and where, the first of several, without the remedy."""
    return re.split(r"\. [A-Z]|: choose|, \w+\.\w", str(error).removeprefix(_ZB))[0]


def table(outcomes: list[Outcome]) -> str:
    """Return the rows as a table in Markdown."""
    head = ["| architecture | parameters (millions) | LRP-Flex | z^B |", "|---|---|---|---|"]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in outcomes)])


def rows() -> list[Outcome]:
    """Return the rows of the page."""
    text = PAGE.read_text(encoding="utf-8")
    lines = text[text.index(_BEGIN) :].split(_END)[0].splitlines()[2:]
    return [Outcome(*(cell.strip() for cell in line.strip("|").split(" | "))) for line in lines]


def main() -> None:
    """Write the table of the page again."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(_BEGIN)
    outcomes = []
    for name in names():
        try:
            outcomes.append(look_at(name))
        except Exception as error:
            outcomes.append(Outcome(name, "", f"{type(error).__name__}: {error}".splitlines()[0], ""))
        print(*outcomes[-1], sep=" | ", flush=True)
    PAGE.write_text(text[:start] + table(outcomes) + "\n" + text[start:].partition(_END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
