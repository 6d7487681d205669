"""The plain classifier: the backbone trained on the labels alone, with nothing against the bias."""

from __future__ import annotations

from baselines.base import Method, NoHyperparameters
from baselines.classifier import BackboneClassifier

METHOD = Method("resnet", "Standard classifier", NoHyperparameters, BackboneClassifier, kept="backbone")
