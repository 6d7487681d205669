"""A small U-Net, and the loss with which it learns masks.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, cat, nn
from torch.nn import functional as F

from baselines.blocks import convolution, halvings
from baselines.heatmaps import Share

_COARSEST = 7


@dataclass(frozen=True)
class Hyperparameters:
    """Of methods whose U-Net learns masks beside a classifier.

    Attributes
    ----------
    width : int
        Channels of the U-Net at full resolution.
    segmentation_weight : float
        Of the U-Net's loss, beside cross-entropy. The two have no weights in common.
    threshold : float
        Probability above which a pixel is foreground.
    """

    width: PositiveInt = 4
    segmentation_weight: PositiveFloat = 1.0
    threshold: Share = 0.5

    def foreground(self, mask_logits: Tensor) -> Tensor:
        """Return the mask, 1 = foreground, that the U-Net's logits (N, 1, H, W) mean; no gradient passes it."""
        return (mask_logits.sigmoid() > self.threshold).to(mask_logits.dtype)


class UNet(nn.Module):
    """Encoder, decoder and the connections between them; resolution is halved until maps are 7 x 7 or smaller.

    There are `width` channels at full resolution; they double at each coarser level: `widths`, finest first.
    """

    def __init__(self, channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.widths = [width * 2**level for level in range(max(1, halvings(image_size, _COARSEST)) + 1)]
        neighbours = list(zip(self.widths, self.widths[1:], strict=False))
        self.encoder = nn.ModuleList([convolution(channels, width)])
        self.encoder.extend(
            nn.Sequential(convolution(fine, coarse, stride=2), convolution(coarse, coarse))
            for fine, coarse in neighbours
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in neighbours)
        self.decoder = nn.ModuleList(convolution(2 * fine, fine) for fine in self.widths[:-1])
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Segment images (N, C, H, W): logits of the foreground (N, 1, H, W)."""
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each level, finest first; those of the last are the bottleneck."""
        maps = [images]
        for block in self.encoder:
            maps.append(block(maps[-1]))
        return maps[1:]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn the encoder's maps into logits of the foreground (N, 1, H, W)."""
        *finer, x = maps
        for up, block, skip in zip(reversed(self.up), reversed(self.decoder), reversed(finer), strict=True):
            # Where a side is odd, going down rounded up, and coming back is one too many.
            height, width = skip.shape[-2:]
            x = block(cat([up(x)[..., :height, :width], skip], 1))
        return self.head(x)


def completed(masks: Tensor, predicted: Tensor) -> Tensor:
    """Return masks (N, 1, H, W), and the predicted ones for images without."""
    return predicted.where(masks.isnan(), masks)


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss of logits and masks (N, 1, H, W), averaged over images.

    Dice: ``1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1)`` (Milletari et al., V-Net, 3DV 2016, without the squares).
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * masks).sum((1, 2, 3))
    dice = (2 * overlap + 1) / (probabilities.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()
