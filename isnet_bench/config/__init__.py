"""The configuration: typed models, studies expanded, all errors at once. Nothing here imports torch."""

from isnet_bench.config.configuration import CLASSIFIER, Config, check, load
from isnet_bench.config.grids import Axis, Cell
from isnet_bench.config.models import Backbone, Row, Segment, Training
from isnet_bench.config.reading import fill

__all__ = ["CLASSIFIER", "Axis", "Backbone", "Cell", "Config", "Row", "Segment", "Training", "check", "fill", "load"]
