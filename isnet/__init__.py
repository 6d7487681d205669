"""The ISNet family: networks that optimise LRP heatmaps of their own backbone, so that the background loses its say.

Original ISNet: Bassi, Dertkigil, Cavalli, Nature Communications 15, 291, 2024. Faster ISNets (Dual, Selective,
Stochastic) and LRP-Flex: Bassi, Decherchi, Cavalli, arXiv 2401.08409, IEEE Access 2024.
"""

from isnet._compat import ensure_torchvision_imports

ensure_torchvision_imports()

from isnet.batch_statistics import BatchStatistics  # noqa: E402
from isnet.block import LRPBlock  # noqa: E402
from isnet.errors import UnsupportedNetworkError  # noqa: E402
from isnet.first_pass import FirstPass  # noqa: E402
from isnet.flex import Explanation, LRPFlex  # noqa: E402
from isnet.loss import HeatmapLoss, Losses  # noqa: E402
from isnet.pooling import gwrp  # noqa: E402
from isnet.quantities import EveryLogit, JointLogits, Logit, Quantity, RandomLogit, SoftmaxEta  # noqa: E402
from isnet.ranges import RelevanceRange, relevance_range  # noqa: E402
from isnet.variants import INPUT, DualISNet, ISNet, OriginalISNet, SelectiveISNet, StochasticISNet  # noqa: E402

__all__ = [
    "INPUT",
    "BatchStatistics",
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
    "relevance_range",
]
