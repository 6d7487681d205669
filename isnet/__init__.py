"""The ISNet family: networks that optimise LRP heatmaps of their own backbone, so that the background loses its say.

Original ISNet: Bassi, Dertkigil, Cavalli, Nature Communications 15, 291, 2024. Faster ISNets (Dual, Selective,
Stochastic) and LRP-Flex: Bassi, Decherchi, Cavalli, arXiv 2401.08409, IEEE Access 2024.
"""

from isnet.batch_statistics import BatchStatistics
from isnet.block import LRPBlock
from isnet.data_parallel import DataParallelTraining
from isnet.engine import Explanation
from isnet.first_pass import FirstPass
from isnet.flex import LRPFlex
from isnet.loss import HeatmapLoss, Losses, RelevanceRange, gwrp, relevance_range
from isnet.quantities import EveryLogit, JointLogits, Logit, Quantity, RandomLogit, SoftmaxEta
from isnet.refusal import UnsupportedNetworkError
from isnet.rules import pixel_bounds
from isnet.variants import INPUT, DualISNet, ISNet, OriginalISNet, SelectiveISNet, StochasticISNet

__all__ = [
    "INPUT",
    "BatchStatistics",
    "DataParallelTraining",
    "DualISNet",
    "EveryLogit",
    "Explanation",
    "FirstPass",
    "HeatmapLoss",
    "ISNet",
    "JointLogits",
    "LRPBlock",
    "LRPFlex",
    "Logit",
    "Losses",
    "OriginalISNet",
    "Quantity",
    "RandomLogit",
    "RelevanceRange",
    "SelectiveISNet",
    "SoftmaxEta",
    "StochasticISNet",
    "UnsupportedNetworkError",
    "gwrp",
    "pixel_bounds",
    "relevance_range",
]
