"""Parts of the convolutional networks that baselines bring along instead of the task's backbone."""

from __future__ import annotations

import math

from torch import nn


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """Make a 3 x 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


def halvings(image_size: int, side: int) -> int:
    """Count how often an image must be halved, rounding up, until its maps are `side` x `side` or smaller."""
    return max(0, math.ceil(math.log2(image_size / side)))


def stem(channels: int, out: int, steps: int) -> nn.Sequential:
    """Make `steps` convolutions of stride 2, or one of stride 1 if there are none."""
    strides = [2] * steps or [1]
    return nn.Sequential(
        *(convolution(channels if step == 0 else out, out, stride) for step, stride in enumerate(strides))
    )
