"""What every method must do, checked on images that tell their classes at a glance."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

import isnet
from baselines.base import Losses, Method, Task
from isnet_bench import methods
from isnet_bench.config import Normalization
from isnet_bench.io.checks import problem_of, require, require_settings
from isnet_bench.methods import backbones

CLASSES, SIZE, IMAGES = 4, 28, 8
GROUPS = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
"""Of each image of the batch, one of two for its class."""
_SEEN = {1: None, 3: Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A method, with its default hyper-parameters, and something to learn: images with one or three channels.

    Of three channels, the network sees normalised ones.
    """

    method: Method
    channels: Literal[1, 3] = 1

    def build(self, seed: int = 0, class_weights: Tensor | None = None) -> nn.Module:
        """Return the method's module with random weights."""
        ranges = self.ranges
        torch.manual_seed(seed)
        return self.method.build(self.task(class_weights), self.method.hyperparameters(), ranges)

    def task(self, class_weights: Tensor | None = None) -> Task:
        """Return what is to be learnt."""
        form = CLASSES, self.channels, SIZE
        make = partial(backbones.create_seeing, "resnet_small", *form, normalization=_SEEN[self.channels])
        groups = {f"group {number}": 1 for number in range(len(GROUPS))}
        return Task(make, *form, class_weights, groups)

    def loss(self, module: nn.Module, seed: int = 1, without_masks: int = 0) -> Losses:
        """Return the loss of the batch, of which some images may have no mask."""
        images, masks, labels = batch(self.channels)
        masks[:without_masks] = torch.nan
        torch.manual_seed(seed)
        return module.training_loss(images, masks, labels, *([GROUPS] if self.method.groups else []))

    @cached_property
    def totals(self) -> dict[str, Tensor]:
        """Total relevance in an ordinary classifier, where a range is needed."""
        needed, hyperparameters = self.method.range, self.method.hyperparameters()
        if needed is None or not needed.needed(hyperparameters):
            return {}
        torch.manual_seed(0)
        with torch.no_grad():
            return dict(needed.totals(hyperparameters, self.task().make_backbone().eval(), batch(self.channels)[0]))

    @property
    def ranges(self) -> dict[str, list[dict[str, float]]] | None:
        """The ranges [C1, C2] of these totals."""
        measured = {
            place: [isnet.relevance_range(column)._asdict() for column in totals.unbind(1)]
            for place, totals in self.totals.items()
        }
        return measured or None


def batch(channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return images of bars whose place and brightness tell the class, masks that hold them, and labels."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(IMAGES, 1, SIZE, SIZE, generator=generator)
    labels, masks = torch.arange(IMAGES) % CLASSES, torch.zeros(IMAGES, 1, SIZE, SIZE)
    masks[:, :, 4:24, 4:24] = 1
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 + 5 * label : 9 + 5 * label, 4:24] = 0.4 + 0.2 * label
    return images * torch.linspace(1, 0.5, channels)[:, None, None], masks, labels


def _description(subject: Subject) -> None:
    method = subject.method
    require(method.name.isidentifier(), f"the name {method.name!r} must be letters, digits and underscores")
    require(method.label, "it has no label")
    require_settings(method.hyperparameters, "hyper-parameters")
    needed = [] if method.range is None else [*method.range.measured, *method.range.fields]
    missing = set(needed) - {field.name for field in dataclasses.fields(method.hyperparameters())}
    require(not missing, f"its range names hyper-parameters that it does not have: {', '.join(sorted(missing))}")


def _range(subject: Subject) -> None:
    for place, totals in subject.totals.items():
        require(totals.ndim == 2 and len(totals) == IMAGES, f"totals at {place!r} have no shape (images, ranges)")
    require(subject.ranges is None or "input" in subject.totals, "its totals lack the place 'input'")


def _shapes(subject: Subject) -> None:
    module, (images, masks, _) = subject.build(), batch(subject.channels)
    for mode in (True, False):
        module.train(mode)
        logits = subject.method.classify(module, images, masks)
        require(logits.shape == (IMAGES, CLASSES), f"logits have the shape {tuple(logits.shape)}")
        _require_finite(subject.loss(module))


def _require_finite(losses: Losses) -> None:
    require("classification" in losses.parts, "the loss has no part 'classification', which may choose the epoch")
    for name, value in {"total": losses.total, **losses.parts}.items():
        require(value.shape == (), f"the loss {name} is no scalar")
        require(value.isfinite(), f"the loss {name} is {value.item()}")


def _parts(subject: Subject) -> None:
    module = subject.build().train()
    names = {tuple(subject.loss(module, seed).parts) for seed in range(3)}
    require(len(names) == 1, f"the parts differ from batch to batch: {names}")


def _gradients(subject: Subject) -> None:
    module = subject.build().train()
    # A few steps away from the start, where weights that begin at zero may block the way.
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    for seed in range(3):
        optimizer.zero_grad()
        subject.loss(module, seed).total.backward()
        optimizer.step()
    gradients = {name: value.grad for name, value in module.named_parameters() if value.requires_grad}
    without = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    require(not without, f"no gradient reaches {', '.join(without)}")
    wrong = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    require(not wrong, f"the gradient is not finite at {', '.join(wrong)}")


def _falls(subject: Subject) -> None:
    module = subject.build().train()
    optimizer = torch.optim.AdamW([value for value in module.parameters() if value.requires_grad], 2e-3)
    values = []
    for step in range(16):
        optimizer.zero_grad()
        losses = subject.loss(module, step)
        losses.total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        values.append(losses.total.item())
    first, last = sum(values[:4]) / 4, sum(values[-4:]) / 4
    require(last < 0.9 * first, f"the loss goes from {first:.4g} to {last:.4g} in 16 steps on one batch")


def _seeds(subject: Subject) -> None:
    modules = [subject.build(seed).train() for seed in (0, 0, 1)]
    one, same, other = (subject.loss(module).total for module in modules)
    require(torch.equal(one, same), f"the same seed gives the losses {one.item()} and {same.item()}")
    require(not torch.equal(one, other), "another seed gives the same loss")


def _state(subject: Subject) -> None:
    method, (images, masks, _) = subject.method, batch(subject.channels)
    trained, fresh = subject.build(), subject.build(1)
    subject.loss(trained.train()).total.backward()
    network, target = method.trained(trained.eval()), method.trained(fresh.eval())
    target.load_state_dict(network.state_dict())
    with torch.inference_mode():
        same = torch.equal(method.classify(target, images, masks), method.classify(trained, images, masks))
    require(same, "what is left of it, with the same state_dict, gives other logits")
    hooked = any(module._forward_hooks or module._backward_hooks for module in network.modules())
    require(not hooked, "it leaves hooks behind")


def _evaluation(subject: Subject) -> None:
    module, (images, masks, _) = subject.build().eval(), batch(subject.channels)
    before = copy.deepcopy(module.state_dict())
    classify = partial(subject.method.classify, module)
    alone = torch.cat([classify(image[None], mask[None]) for image, mask in zip(images, masks, strict=True)])
    same = torch.allclose(classify(images, masks), alone, rtol=1e-3, atol=1e-4)
    require(same, "in evaluation mode, logits of an image depend on the other images")
    subject.loss(module)
    changed = [name for name, value in module.state_dict().items() if not torch.equal(before[name], value)]
    require(not changed, f"a validation batch changes {', '.join(changed)}")


def _class_weights(subject: Subject) -> None:
    weighted = subject.build(class_weights=torch.tensor([9.0, 1.0, 1.0, 1.0])).train()
    plain = subject.build().train()
    require(not torch.equal(subject.loss(plain).total, subject.loss(weighted).total), "the loss is the same with them")


def _without_masks(subject: Subject) -> None:
    for number, training in product((IMAGES // 2, IMAGES), (True, False)):
        module = subject.build().train(training)
        losses = subject.loss(module, without_masks=number)
        _require_finite(losses)
        losses.total.backward()
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        require(gradients, f"no gradient where {number} of {IMAGES} images have no mask")
        finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
        require(finite, f"the gradient is not finite where {number} of {IMAGES} images have no mask")


def _visible(subject: Subject) -> None:
    visible, (images, masks, _) = subject.method.visible, batch(subject.channels)
    if visible is None:
        return
    module = subject.method.trained(subject.build().eval())
    module.get_submodule(visible.classifier)
    seen = visible.part(module, images, masks)
    require(seen.shape == masks.shape, f"the visible part has the shape {tuple(seen.shape)}")
    require(bool(((seen == 0) | (seen == 1)).all()), "the visible part is not 0 or 1 everywhere")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "name, label and hyper-parameters": _description,
    "the range, where there is one, can be measured": _range,
    "shapes, and finite losses": _shapes,
    "the same parts in every batch": _parts,
    "a gradient reaches every trainable parameter": _gradients,
    "the loss falls on one batch": _falls,
    "the same seed gives the same numbers": _seeds,
    "what is left after training has all of its state": _state,
    "evaluation treats each image alone and leaves no trace": _evaluation,
    "class weights matter": _class_weights,
    "images without a mask take part in classification": _without_masks,
    "the visible part is one": _visible,
}


def check(file: str) -> Iterator[tuple[str, str]]:
    """Check the method that a Python file defines.

    Yields
    ------
    tuple of str
        What is checked, and what is wrong, empty if nothing.
    """
    for method in methods.known((file,)).of(file, "METHOD"):
        subject = Subject(method)
        for name, run in CHECKS.items():
            yield name, problem_of(run, subject)
