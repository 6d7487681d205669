"""Networks and images small enough to work out a loss by hand."""

import math

import pytest
import torch
from torch import nn

from baselines.base import Task

CERTAIN = math.log(3)  # a margin of ln 3 between two logits: probabilities 3/4 and 1/4


class Linear(nn.Sequential):
    """Logits W x of an image of two pixels."""

    def __init__(self, weight):
        super().__init__(nn.Flatten(), nn.Linear(2, 2, bias=False))
        self[1].weight.data = torch.tensor(weight)


def pixels(*rows):
    """One grey image."""
    return torch.tensor([[list(map(list, rows))]], dtype=torch.float32)


def task_of(network, image_size=2, class_weights=None):
    return Task(lambda: network, classes=2, channels=1, image_size=image_size, class_weights=class_weights)


def check(losses, total, **parts):
    assert set(losses.parts) == set(parts)
    for name, value in parts.items():
        assert losses.parts[name].item() == pytest.approx(value, abs=1e-5), name
    assert losses.total.item() == pytest.approx(total, abs=1e-5)
