"""Names of the torch functions through which LRP-Flex knows how relevance passes, by what they do to it.

Names cover the variants of one function in ``torch``, ``torch.nn.functional`` and ``torch.Tensor`` alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

AFFINE = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
ADD = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
SUBTRACT = frozenset({"sub", "sub_", "subtract", "__sub__", "__isub__"})
REVERSED_SUBTRACT = frozenset({"rsub", "__rsub__"})
NEGATE = frozenset({"neg", "neg_", "negative", "__neg__"})
MULTIPLY = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
DIVIDE = frozenset({"div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"})
CONCATENATE = frozenset({"cat", "concat", "concatenate", "stack"})
MAXIMUM = frozenset({"max", "amax"})
MAX_POOL = frozenset(
    f"{prefix}{kind}max_pool{dimensions}d"
    for prefix in ("", "_")
    for kind in ("", "adaptive_")
    for dimensions in (1, 2, 3)
)
DROPOUT = frozenset({"dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"})
RESHAPE = frozenset({"flatten", "view", "reshape", "contiguous", "clone"})
AVERAGE_POOL = frozenset(f"{kind}avg_pool{dimensions}d" for kind in ("", "adaptive_") for dimensions in (1, 2, 3))
# Linear with coefficients >= 0: they act on the positive part of a value exactly as on the value.
NONNEGATIVE = frozenset(
    RESHAPE
    | AVERAGE_POOL
    | {"mean", "sum", "permute", "transpose", "unsqueeze", "squeeze", "expand", "unflatten", "movedim", "view_as"}
    | {"chunk", "split", "narrow", "__getitem__", "select", "unbind", "tensor_split", "roll", "flip"}
    | {"interpolate", "upsample", "pad", "pixel_shuffle", "channel_shuffle"}
    | {"to", "float", "double", "type_as"}
)
# They take a shape and a type, not values.
FACTORIES = frozenset(
    {
        "new_empty",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_tensor",
        "empty_like",
        "zeros_like",
        "ones_like",
        "full_like",
    }
    | {"rand_like", "randn_like"}
)
# They take values out of the graph. Used again, such a value could not be told from a constant.
DETACH = frozenset({"detach", "detach_", "data"})
ESCAPES = frozenset({"item", "tolist", "numpy", "__array__", "__float__", "__int__"})


def name_of(func: Callable[..., Any]) -> str:
    """Return the name of a torch function, or of the attribute that it reads, such as ``data``."""
    name = getattr(func, "__name__", str(func))
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def writes_in_place(name: str, args: tuple, kwargs: dict) -> bool:
    """Say whether a function changes its first argument in place."""
    if kwargs.get("inplace") or (name in ("relu", "dropout") and args[-1] is True):
        return True
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def over_space(dims: Any, ndim: int) -> bool:
    """Say whether `dims` are all dimensions of a value but image and channel: a maximum over them is a max pool."""
    dims = (dims,) if isinstance(dims, int) else dims
    return isinstance(dims, tuple | list) and ndim > 2 and sorted(dim % ndim for dim in dims) == list(range(2, ndim))


def has_other_terms(name: str, args: tuple, kwargs: dict) -> bool:
    """Say whether a function of `NONNEGATIVE` has negative coefficients or a constant term after all."""
    if name == "pad":
        return bool(kwargs.get("value", args[3] if len(args) > 3 else 0))
    return any(isinstance(item, str) and item == "bicubic" for item in (*args[1:], *kwargs.values()))
