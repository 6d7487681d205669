"""The ISNets: a classifier trained together with LRP heatmaps of its own decisions."""

from __future__ import annotations

import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isnet.block import LRPBlock
from isnet.engine import Engine, check_images, check_layers, unwrap
from isnet.first_pass import FirstPass
from isnet.flex import LRPFlex
from isnet.loss import HeatmapLoss, Losses, gwrp
from isnet.process_group import (
    check_backbone,
    check_not_bypassed,
    in_wrapper,
    number_of_processes,
)
from isnet.quantities import EveryLogit, JointLogits, Logit, Quantity, RandomLogit, SoftmaxEta, as_classes
from isnet.rules import Bound

INPUT = "input"
"""Key of the heatmap at the image, beside the names of supervised layers."""


class ISNet(nn.Module, ABC):
    """Base of the variants: they differ in which quantities are explained, under which rules.

    During training the loss is ``(1 - heatmap_weight) * cross-entropy + heatmap_weight * heatmap loss``. At run time an
    ISNet is its backbone, ``isnet.backbone``: inference costs nothing extra.

    Parameters
    ----------
    backbone : nn.Module
        Maps images ``(N, C, H, W)`` to logits ``(N, classes)`` of mutually exclusive classes (multi-label outputs are
        out of scope). With propagation "flex" any ReLU network.
    loss : HeatmapLoss or mapping of str to HeatmapLoss
        One for all heatmaps, or one for each of ``"input"`` and the names in `layers`, whose natural relevance ranges
        differ.
    heatmap_weight : float
        P in [0, 1].
    propagation : {"flex", "block"}
        LRP engine: :class:`isnet.LRPFlex` or :class:`isnet.LRPBlock`.
    layers : sequence of str
        LRP deep supervision: modules at whose outputs the relevance is supervised too.
    layer_decay : float
        GWRP decay d in [0, 1] over the losses of input and layers; 1 is their mean.
    heatmap_fraction : float
        Share of each batch, in (0, 1], whose heatmaps are made and supervised; 1 is the published method. Below 1, and
        where images have no mask, the whole batch is classified first. ``max(1, round(fraction * N))`` images, drawn
        uniformly without replacement among those with a mask, or all of these, pass a second time and are explained.
        The second pass reads the layers' outputs from the first (see :class:`isnet.FirstPass`), so that each heatmap is
        that of the whole batch's network, and loss and gradient are the full ones on average. With LRP-Block, and where
        the network draws random numbers (dropout, which is then drawn anew), it computes them again with the first
        pass's batch statistics as constants: its gradient then does not take them into account. With LRP-Block, and
        with ``batch_statistics="differentiated"``, a fraction of 1 therefore explains the whole batch, masks or not.
    epsilon : float
        LRP stabiliser, > 0.
    input_rule, low, high, batch_statistics, strict, inactive_slope
        Of the engine, see :class:`isnet.LRPFlex`; `inactive_slope` concerns the maps of the epsilon rule and needs
        propagation "flex".
    maps_at_once : int, optional
        How many heatmaps of an image have their graphs in memory at one time in training; None: all. Loss and gradient
        are the same but for rounding. With a number, ``training_loss`` already takes the heatmap loss's gradient,
        group by group, and the backward pass hands it on: it cannot be differentiated a second time. All heatmaps are
        made at one time in any case with LRP-Block, `layers`, ``heatmap_fraction`` below 1, images without a mask, and
        losses that are not the sum of the heatmaps' own.
    class_weights : Tensor, optional
        Shape ``(classes,)``: weights of the cross-entropy.
    generator : torch.Generator, optional
        CPU generator for random choices; by default torch's global one.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Nature Communications 15, 291, 2024; arXiv 2401.08409, Section III. `heatmap_fraction` is this project's own.
    """

    rules: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __init__(
        self,
        backbone: nn.Module,
        loss: HeatmapLoss | Mapping[str, HeatmapLoss],
        heatmap_weight: float = 0.7,
        propagation: Literal["flex", "block"] = "flex",
        layers: Sequence[str] = (),
        layer_decay: float = 1.0,
        heatmap_fraction: float = 1.0,
        epsilon: float = 1e-2,
        input_rule: Literal["zb", "epsilon"] = "zb",
        low: Bound = 0.0,
        high: Bound = 1.0,
        batch_statistics: Literal["frozen", "differentiated"] = "frozen",
        class_weights: Tensor | None = None,
        generator: torch.Generator | None = None,
        strict: bool = False,
        inactive_slope: float = 0.0,
        maps_at_once: int | None = 1,
    ) -> None:
        super().__init__()
        if maps_at_once is not None and maps_at_once < 1:
            raise ValueError(f"maps_at_once must be at least 1, or None for all maps, got {maps_at_once}")
        for name, value in (("heatmap_weight", heatmap_weight), ("layer_decay", layer_decay)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if not 0 < heatmap_fraction <= 1:
            raise ValueError(f"heatmap_fraction must lie in (0, 1], got {heatmap_fraction}")
        check_backbone(backbone)
        check_layers(unwrap(backbone), layers)
        self.backbone = backbone
        self.heatmap_weight, self.layer_decay, self.heatmap_fraction = heatmap_weight, layer_decay, heatmap_fraction
        self.generator, self.maps_at_once = generator, maps_at_once
        self._told, self._bypass_excluded = False, False
        # Whether heatmaps of a part of the batch, or their gradients, are others than those of the whole.
        self._couples = propagation == "block" or batch_statistics == "differentiated"
        self.heatmap_losses = nn.ModuleList(_one_loss_each(loss, (INPUT, *layers)))
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        options: dict[str, Any] = {"epsilon": epsilon, "input_rule": input_rule, "low": low, "high": high}
        options |= {"layers": layers, "rules": self.rules, "strict": strict}
        self._explain: Engine
        if propagation == "flex":
            options |= {"batch_statistics": batch_statistics, "inactive_slope": inactive_slope}
            self._explain = LRPFlex(backbone, **options)
        elif propagation == "block":
            if inactive_slope:
                raise ValueError(
                    "inactive_slope is defined for propagation 'flex': LRP-Block sends relevance itself backwards, not "
                    "relevance per unit of activation, and a silent unit has none to send"
                )
            self._explain = LRPBlock(backbone, **options)
        else:
            raise ValueError(f"propagation must be flex or block, got {propagation!r}")

    @abstractmethod
    def quantity(self) -> Quantity:
        """Return what the heatmaps explain."""

    def forward(self, images: Tensor) -> Tensor:
        """Classify images ``(N, C, H, W)``: logits ``(N, classes)`` of the bare backbone."""
        return self.backbone(images)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of one batch.

        Parameters
        ----------
        images : Tensor
            Shape ``(N, C, H, W)``, values in ``[low, high]``.
        masks : Tensor
            Shape ``(N, 1, H, W)``, 1 = foreground, 0 = background; or ``(N, C, H, W)`` with equal channels. NaN
            everywhere: this image has no mask, and takes part in classification alone, at the cost of that.
        labels : Tensor
            Shape ``(N,)``, integers.

        Returns
        -------
        Losses
            ``total``, and the parts ``classification`` and ``heatmap`` without their weights.

        Raises
        ------
        ValueError
            If the batch is empty, or masks or labels are not what is expected.
        """
        return self.combine(self.means(images, masks, labels))

    def means(self, images: Tensor, masks: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the cross-entropy and the loss of each heatmap (input, then layers) that make up the training loss."""
        self._check_processes()
        self._follow_backbone()
        check_images(images)
        masks = self._check_masks(images, masks)
        logits, of_heatmaps = self._explained_losses(images, masks)
        if logits.shape[1] < 2:
            raise ValueError("the backbone returns a single logit, but cross-entropy needs one per class, 2 or more")
        classes = as_classes(labels, logits)[:, 0]
        classification = F.cross_entropy(logits, classes, weight=self.class_weights)
        return [classification, *of_heatmaps]

    def combine(self, means: Sequence[Tensor]) -> Losses:
        """Return the training loss that is made up of these `means`."""
        classification, *of_heatmaps = means
        heatmap = of_heatmaps[0] if len(of_heatmaps) == 1 else gwrp(torch.stack(of_heatmaps), self.layer_decay)
        total = (1 - self.heatmap_weight) * classification + self.heatmap_weight * heatmap
        return Losses(total, {"classification": classification, "heatmap": heatmap})

    def _follow_backbone(self) -> None:
        """Explain the backbone that there is now, which may be another one than at first."""
        model = unwrap(self.backbone)
        if model is not self._explain.model or model is not self.backbone:
            check_backbone(self.backbone)
            check_layers(model, self._explain.layers)
            self._explain.model = model

    def _check_processes(self) -> None:
        """Refuse, at the first training step, to bypass the DistributedDataParallel module that holds the network."""
        if self._bypass_excluded or number_of_processes() == 1 or in_wrapper() or not torch.is_grad_enabled():
            return
        check_not_bypassed(unwrap(self.backbone))
        self._bypass_excluded = True

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise ValueError(
            "DataParallel cannot train an ISNet on several devices: use DistributedDataParallel, one process for each "
            "device, around isnet.DataParallelTraining(network)"
        )

    def _check_masks(self, images: Tensor, masks: Tensor) -> Tensor:
        """Return masks with one channel, of the images' shape but for their resolution."""
        size, found = images.shape[2:], masks.shape[2:]
        if masks.ndim != images.ndim or len(masks) != len(images) or masks.shape[1] not in (1, images.shape[1]):
            expected = (len(images), 1, *size)
            raise ValueError(
                f"masks must have shape {expected}, got {tuple(masks.shape)}; of a one-hot mask or one with an alpha "
                "channel give the channel of the foreground, masks[:, k : k + 1]"
            )
        if any(a * size[0] != b * found[0] for a, b in zip(found, size, strict=True)):
            raise ValueError(f"masks of {tuple(found)} do not fit images of {tuple(size)}: transpose or resize them")
        mask = masks[:, :1]
        if masks.shape[1] > 1 and not torch.equal(masks.nan_to_num(2), mask.expand_as(masks).nan_to_num(2)):
            raise ValueError("the channels of the masks differ: give that of the foreground, masks[:, k : k + 1]")
        filled = mask.flatten(1).any(1)
        if not bool(filled.all()):
            self._tell_of_empty(int((~filled).sum()), len(images))
        return mask

    def _tell_of_empty(self, empty: int, number: int) -> None:
        message = (
            f"{empty} of {number} masks have no foreground, so that their heatmaps get no gradient: set the masks of "
            "images without one to NaN everywhere, which leaves these to classification"
        )
        if empty == number:
            raise ValueError(message)
        if not self._told:
            self._told = True
            warnings.warn(message, stacklevel=4)

    def _explained_losses(self, images: Tensor, masks: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits of all images, and the losses of the heatmaps at the input and each layer."""
        if self._whole(masks) and self.maps_at_once is not None and isinstance(self._explain, LRPFlex):
            loss = self.heatmap_losses[0]
            if len(self.heatmap_losses) == 1 and _sums_over_maps(loss, len(self.rules)) and torch.is_grad_enabled():
                of_maps = functools.partial(_loss_of_maps, loss, masks)
                logits, found = self._explain.loss_by_maps(images, self.quantity(), of_maps, self.maps_at_once)
                return logits, [found]
        logits, heatmaps, explained = self._heatmaps(images, masks)
        if not heatmaps:
            # Nothing to explain where no image has a mask.
            return logits, [logits.new_zeros(()) for _ in self.heatmap_losses]
        pairs = zip(self.heatmap_losses, heatmaps, strict=True)
        return logits, [loss(heatmap, masks[explained]) for loss, heatmap in pairs]

    def _whole(self, masks: Tensor) -> bool:
        """Say whether heatmaps are those of the whole batch."""
        there = ~masks.flatten(1).isnan().all(1)
        return self.heatmap_fraction == 1 and bool(there.any() if self._couples else there.all())

    def _heatmaps(self, images: Tensor, masks: Tensor) -> tuple[Tensor, list[Tensor], Tensor | slice]:
        """Return logits of all images, heatmaps of those with a mask or some of these, and which these are."""
        if self._whole(masks):
            logits, relevance, layers = self._explain(images, self.quantity())
            return logits, [relevance, *layers.values()], slice(None)
        chosen = (~masks.flatten(1).isnan().all(1)).cpu().nonzero().flatten()
        number = max(1, round(self.heatmap_fraction * len(images)))
        if self.heatmap_fraction < 1:
            chosen = chosen[torch.randperm(len(chosen), generator=self.generator)[:number]]
        if not len(chosen):
            return self.backbone(images), [], slice(0)
        self._explain.check_network()
        there = chosen.to(images.device)
        # Before the first pass, since a network may overwrite its images.
        explained = images[there]
        with FirstPass(chosen, images.device) as first:
            logits = self.backbone(images)
        return logits, self._explain_again(explained, first, logits), there

    def _explain_again(self, images: Tensor, first: FirstPass, logits: Tensor) -> list[Tensor]:
        """Return the heatmaps of chosen images, of a batch with these logits."""
        _, relevance, layers = self._explain(images, self.quantity(), first)
        return [relevance, *layers.values()]


class OriginalISNet(ISNet):
    """Explains every logit: as many heatmaps as classes (Nature Communications 15, 291, 2024)."""

    def quantity(self) -> Quantity:
        return EveryLogit()

    def _explain_again(self, images: Tensor, first: FirstPass, logits: Tensor) -> list[Tensor]:
        if not (isinstance(self._explain, LRPFlex) and first.reusable):
            return super()._explain_again(images, first, logits)
        # One image of each class in place of several maps of one image: no layer is computed again for them, and each
        # reads its weights once for all. As many at a time as the batch has images, so that memory keeps its measure.
        number, classes = logits.shape
        parts = math.ceil(classes * len(images) / number)
        found = []
        for part in torch.arange(classes, device=logits.device).tensor_split(parts):
            copies = images.repeat(len(part), *(1,) * (images.ndim - 1))
            labels = part.repeat_interleave(len(images))
            _, relevance, layers = self._explain(copies, Logit(labels), first)
            found.append([relevance, *layers.values()])
        return [
            torch.cat([maps.unflatten(0, (-1, len(images))) for maps in each]).squeeze(2).transpose(0, 1)
            for each in zip(*found, strict=True)
        ]


class DualISNet(ISNet):
    """Explains all outputs at once, under the z-plus and under the epsilon rule: two heatmaps (arXiv 2401.08409).

    Its `loss` takes one foreground range per heatmap, z-plus first: ``HeatmapLoss(c1=(z, e), c2=(z, e), ...)``.
    """

    rules = ("zplus", "epsilon")

    def quantity(self) -> Quantity:
        return JointLogits()


class SelectiveISNet(ISNet):
    """Explains the softmax-based quantity eta of the lowest logit's class: one heatmap (arXiv 2401.08409).

    Parameters
    ----------
    eta_eps : float
        Stabiliser of eta, see :class:`isnet.SoftmaxEta`. All other arguments are those of :class:`isnet.ISNet`.
    """

    def __init__(self, *args: Any, eta_eps: float = 1e-2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quantity = SoftmaxEta(eta_eps)

    def quantity(self) -> Quantity:
        return self._quantity


class StochasticISNet(ISNet):
    """Explains one random logit per image: one heatmap (arXiv 2401.08409).

    Parameters
    ----------
    p_top : float
        Probability of the top logit, see :class:`isnet.RandomLogit`. All other arguments are those of
        :class:`isnet.ISNet`.
    """

    def __init__(self, *args: Any, p_top: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quantity = RandomLogit(p_top, self.generator)

    def quantity(self) -> Quantity:
        return self._quantity


def _sums_over_maps(loss: nn.Module, number: int) -> bool:
    """Say whether a loss is known to be the mean of the heatmaps' own, with one foreground range or `number` ranges."""
    if type(loss) is not HeatmapLoss or loss.reduction == "none":
        return False
    return loss.c1.ndim == 0 or len(loss.c1) == number


def _loss_of_maps(loss: nn.Module, masks: Tensor, relevance: Tensor, maps: slice) -> Tensor:
    found: Tensor = loss(relevance, masks, maps)
    return found


def _one_loss_each(loss: HeatmapLoss | Mapping[str, HeatmapLoss], keys: Sequence[str]) -> list[HeatmapLoss]:
    if not isinstance(loss, Mapping):
        return [loss for _ in keys]
    if set(loss) != set(keys):
        raise ValueError(f"losses are needed for {', '.join(keys)}, got {', '.join(loss)}")
    return [loss[key] for key in keys]
