"""What the lung segmentation is told."""

from __future__ import annotations

import glob

from pydantic import Field, model_validator

from isnet_bench.config.values import Count, Model, Positive, Seed, Share, Text
from isnet_bench.io import inputs


class Augmentation(Model):
    """How training images of the segmentation are changed, each anew in every epoch; masks move with them."""

    degrees: float = Field(10.0, ge=0, le=180, description="Largest rotation, either way.")
    translate: Share = Field(0.1, description="Largest shift, either way, as a share of the side.")
    scale: tuple[Positive, Positive] = Field((0.8, 1.4), description="Smallest and largest magnification.")
    gamma: float = Field(
        1.8, ge=1, description="Largest exponent of the intensities in [0, 1]; the smallest is its inverse. 1: none."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be a smaller and a larger number, not {list(self.scale)}")
        return self


class Segment(Model):
    """Lung segmentation: a U-Net learns from images with masks, and gives one to each X-ray without."""

    masks: Text = Field(
        description="Manifest under the data root, columns image, mask, split (train or val); its paths are relative "
        "to the folder of `manifest`."
    )
    manifest: Text = Field(description="Manifest of the X-rays, under the data root; those without a mask get one.")
    image_size: int = Field(128, ge=64, multiple_of=32, description="Side in pixels of the network's square images.")
    encoder: str = Field("resnet18", description="Of the U-Net, as segmentation-models-pytorch names it; not trained.")
    epochs: Count = 40
    batch_size: int = Field(8, ge=2)
    learning_rate: Positive = Field(2e-3, description="The highest of a one-cycle schedule.")
    weight_decay: float = Field(1e-4, ge=0)
    gradient_clip: Positive | None = Field(1.0, description="Largest norm of the gradient; null: not clipped.")
    augmentation: Augmentation = Field(Augmentation(), description="Of the training images.")
    seed: Seed = Field(0, description="Of initial weights, batches and augmentation.")
    optional: bool = Field(
        False,
        description="Whether nothing is segmented where there are no X-rays: not even the folder of `manifest`. false: "
        "that is an error.",
    )

    @property
    def absent(self) -> bool:
        """Whether there are no X-rays, so that the phantom may stand in: neither `manifest` nor its folder is there.

        A folder without the manifest is a mistake, which the jobs that need it tell of.
        """
        return inputs.nothing_there(inputs.data_root() / self.manifest)

    def files(self) -> str:
        """Return the digest of the files that the manifests list."""
        listed = map(glob.escape, (self.masks, self.manifest))
        return inputs.digest(listed, (inputs.data_root() / self.manifest).parent)
