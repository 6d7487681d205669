"""The configuration: typed models, studies expanded, all errors at once. Nothing here imports torch."""

from isnet_bench.config.checking import check, load
from isnet_bench.config.configuration import CLASSIFIER, PLAIN, Config
from isnet_bench.config.grids import Axis, Cell
from isnet_bench.config.models import Augmentation, Backbone, Data, MaskSubset, Normalization, Row, Training
from isnet_bench.config.reading import fill, parse
from isnet_bench.config.rehearsal import FEW, rehearsal
from isnet_bench.config.segment import Segment

__all__ = ["CLASSIFIER", "Axis", "Backbone", "Cell", "Config", "Data", "MaskSubset", "Row", "Segment", "Training"]
__all__ += ["FEW", "PLAIN", "Augmentation", "Normalization", "check", "fill", "load", "parse", "rehearsal"]
