"""Background swap: each foreground is learnt on the background of another image of its batch ("mixed-rand").

Xiao, Engstrom, Ilyas, Madry, "Noise or Signal: The Role of Image Backgrounds in Object Recognition", ICLR 2021.
Where the other image had its own foreground, there is the mean colour of its background; the authors tile.
"""

from __future__ import annotations

from torch import Generator, Tensor

from baselines.backgrounds import ChangedBackgrounds, Hyperparameters, swap
from baselines.base import Method


class BackgroundSwap(ChangedBackgrounds):
    """Minimises the cross-entropy of ``mask * x + (1 - mask) * background of another image``."""

    def change(self, images: Tensor, masks: Tensor, generator: Generator | None) -> Tensor:
        """Swap the backgrounds of images (N, C, H, W) with masks (N, 1, H, W)."""
        return swap(images, masks, generator)


METHOD = Method("background_swap", "Background swap", Hyperparameters, BackgroundSwap, kept="backbone")
