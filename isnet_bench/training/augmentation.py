"""Changes of training images and their masks, drawn anew for each of a batch."""

from __future__ import annotations

from torch import Tensor

from isnet_bench.config import Augmentation
from isnet_bench.io import torchvision_shim
from isnet_bench.io.errors import BenchError

torchvision_shim.ensure()

from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402


class Augment:
    """Flips, shifts and recolours images (N, C, H, W) in [0, 1], with torch's random numbers; masks move with them."""

    def __init__(self, settings: Augmentation) -> None:
        self.settings = settings

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return changed images and masks (N, 1, H, W), of which NaN stays NaN.

        An image whose foreground would leave the frame stays as it is. Raises BenchError if images are too small for
        the shift.
        """
        change = self._transform(images.shape[-1])
        changed = images.clone(), masks.clone()
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            shown, moved = change(tv_tensors.Image(image), tv_tensors.Mask(mask))
            if moved.any() or not mask.any():
                changed[0][number], changed[1][number] = shown.as_subclass(Tensor), moved.as_subclass(Tensor)
        return changed

    def _transform(self, size: int) -> v2.Transform:
        flip, shift, color = self.settings.flip, self.settings.shift, self.settings.color
        if shift >= size:
            raise BenchError(f"training.augmentation.shift must be less than the image's side, {size}, not {shift}")
        crop = v2.RandomCrop(size, padding=shift, padding_mode="reflect") if shift else v2.Identity()
        return v2.Compose([v2.RandomHorizontalFlip(flip), crop, v2.ColorJitter(color, color, color)])
