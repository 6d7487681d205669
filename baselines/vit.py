"""Vision Transformer: attention without supervision.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021; timm's
implementation.
"""

from __future__ import annotations

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from baselines.base import Method, Task
from baselines.classifier import Classifier

_LEAST_PATCHES = 7


@dataclass(frozen=True)
class Hyperparameters:
    """Of the transformer.

    Attributes
    ----------
    patch_size : int or None
        Height and width of a patch, a divisor of the image size; None: see `patch_size`.
    dim, depth, heads : int
        Width of a token, a multiple of the number of heads, number of blocks, and of attention heads in each.
    """

    patch_size: PositiveInt | None = None
    dim: PositiveInt = 48
    depth: PositiveInt = 3
    heads: PositiveInt = 4

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, not {self.dim} with {self.heads} heads")


class ViT(Classifier):
    """A Vision Transformer, sized for the image, under cross-entropy."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        h = hyperparameters
        if h.patch_size is not None and task.image_size % h.patch_size:
            raise ValueError(f"patch_size must divide the image size {task.image_size}, not be {h.patch_size}")
        self.backbone = VisionTransformer(
            img_size=task.image_size,
            patch_size=h.patch_size or patch_size(task.image_size),
            in_chans=task.channels,
            num_classes=task.classes,
            embed_dim=h.dim,
            depth=h.depth,
            num_heads=h.heads,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W): logits (N, classes)."""
        return self.backbone(images)


def patch_size(image_size: int) -> int:
    """Return the largest patch, 16 at most, that divides the image into 7 x 7 patches or more: 4 for 28, 16 for 224."""
    largest = min(16, max(1, image_size // _LEAST_PATCHES))
    return max(size for size in range(1, largest + 1) if image_size % size == 0)


METHOD = Method("vit", "Vision Transformer", Hyperparameters, ViT, kept="backbone", explainer="gradient_input")
