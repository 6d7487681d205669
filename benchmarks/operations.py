"""What is timed, made ready: a method's module, and random images, masks and labels that are on the device already."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from measuring import storage_bytes

import isnet
from isnet_bench import methods

# Any range does: the time of a step does not depend on it, so none is measured here.
RANGE = (1.0, 25.0)


class Operation(ABC):
    """One operation of a method at one number of classes. It is called without arguments and returns a tensor."""

    def __init__(self, entry, classes, settings, device, plugins=()):
        torch.manual_seed(0)
        size, batch, channels = settings.image_size, settings.batch_size, settings.channels
        form = {"classes": range(classes), "channels": channels, "image_size": size}
        self.method = methods.get(entry.method, plugins)
        self.settings = methods.hyperparameters(entry, plugins)
        needed = self.method.range
        if needed is not None and needed.needed(self.settings):
            self.settings = replace(self.settings, **dict(zip(needed.measured, RANGE, strict=True)))
        self.images = torch.rand(batch, channels, size, size, device=device)
        self.masks = torch.zeros(batch, 1, size, size, device=device)
        self.masks[:, :, size // 4 : -(size // 4), size // 4 : -(size // 4)] = 1
        self.labels = torch.randint(classes, (batch,), device=device)
        module = self.method.build(methods.task(settings.backbone, form), self.settings)
        # As the trainer has it.
        self.module = module.to(device=device, memory_format=torch.channels_last).train()

    @staticmethod
    def exists(entry, plugins=()):
        """Say whether a row has this operation."""
        return True

    @abstractmethod
    def __call__(self): ...

    def held(self):
        """Return the bytes of all tensors that stay; what the last call left behind for the next one is freed."""
        self.module.zero_grad(set_to_none=True)
        return storage_bytes(self.tensors())

    def tensors(self):
        yield from (self.images, self.masks, self.labels)
        yield from self.module.parameters()
        yield from self.module.buffers()


class TrainingStep(Operation):
    """Forward pass, heatmaps, losses, backward pass, optimizer."""

    def __init__(self, *args):
        super().__init__(*args)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, fused=True)

    def __call__(self):
        self.optimizer.zero_grad()
        losses = self.module.training_loss(self.images, self.masks, self.labels)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        return losses.total.detach()

    def tensors(self):
        yield from super().tensors()
        for state in self.optimizer.state.values():
            yield from state.values()


class Heatmaps(Operation):
    """Forward pass and relevance of the whole batch, with the graph that training needs."""

    def __init__(self, *args):
        super().__init__(*args)
        h = self.settings
        options = {"epsilon": h.epsilon, "input_rule": h.input_rule, "layers": h.layers, "rules": self.module.rules}
        if h.propagation == "flex":
            self.explain = isnet.LRPFlex(self.module.backbone, batch_statistics=h.batch_statistics, **options)
        else:
            self.explain = isnet.LRPBlock(self.module.backbone, **options)

    @staticmethod
    def exists(entry, plugins=()):
        """Rows that explain a part of the batch explain it in the same way."""
        return methods.get(entry.method, plugins).family == "isnet" and entry.params.get("heatmap_fraction", 1) == 1

    def __call__(self):
        return self.explain(self.images, self.module.quantity()).relevance.detach()


class HeatmapLoss(Operation):
    """The loss of heatmaps that are there already, and its gradient with respect to them."""

    def __init__(self, *args):
        super().__init__(*args)
        self.calls = []
        losses = [module for module in self.module.modules() if isinstance(module, isnet.HeatmapLoss)]
        hooks = [loss.register_forward_pre_hook(self._keep) for loss in losses]
        self.module.training_loss(self.images, self.masks, self.labels)
        for hook in hooks:
            hook.remove()

    exists = staticmethod(Heatmaps.exists)

    def __call__(self):
        total = sum(loss(relevance, *others) for loss, relevance, *others in self.calls)
        torch.autograd.grad(total, [relevance for _, relevance, *_ in self.calls])
        return total.detach()

    def tensors(self):
        yield from super().tensors()
        for _, relevance, masks, *_ in self.calls:
            yield from (relevance, masks)

    def _keep(self, loss, inputs):
        relevance, *others = inputs
        self.calls.append((loss, relevance.detach().requires_grad_(), *others))


class Inference(Operation):
    """Logits of a trained network, without graph."""

    def __init__(self, *args):
        super().__init__(*args)
        self.module.eval()

    @torch.inference_mode()
    def __call__(self):
        return self.method.classify(self.module, self.images, self.masks)

    @torch.inference_mode()
    def is_backbone(self):
        """Say whether the logits are those of the bare backbone."""
        return torch.equal(self(), self.method.trained(self.module)(self.images))


def is_finite(value):
    """Say whether all of a tensor is finite."""
    return math.isfinite(value.sum().item())
