"""The table of torch calls that the LRP engines know: what a call does to its inputs, and how its arguments are read.

Both engines follow a forward pass call by call and act on a call's :class:`Kind`. Names cover the variants of one
function in ``torch``, ``torch.nn.functional`` and ``torch.Tensor`` alike.
"""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint

Entry = TypeVar("Entry")


def _pools(kind: str) -> str:
    names = [f"{way}{kind}_pool{dimensions}d" for way in ("", "adaptive_") for dimensions in (1, 2, 3)]
    return " ".join([*names, *(f"_{name}" for name in names)])


class Kind(Enum):
    """What a call does to its inputs; the value names the functions."""

    CONVOLUTION = "conv1d conv2d conv3d"
    TRANSPOSED_CONVOLUTION = "conv_transpose1d conv_transpose2d conv_transpose3d"
    LINEAR = "linear"
    BATCH_NORM = "batch_norm"
    RELU = "relu relu_"
    DROPOUT = "dropout dropout_ dropout1d dropout2d dropout3d feature_dropout"
    MAX_POOL = _pools("max")
    AVERAGE_POOL = _pools("avg")
    MAXIMUM = "max amax"
    MEAN = "mean"
    ADD = "add add_ __add__ __radd__ __iadd__"
    SUBTRACT = "sub sub_ subtract __sub__ __isub__"
    SUBTRACT_FROM = "rsub __rsub__"
    NEGATE = "neg neg_ negative __neg__"
    MULTIPLY = "mul mul_ multiply __mul__ __rmul__ __imul__"
    DIVIDE = "div div_ divide true_divide __truediv__ __itruediv__"
    CONCATENATE = "cat concat concatenate"
    STACK = "stack"
    PAD = "pad"
    # All elements stay, in their order.
    RESHAPE = (
        "flatten view view_as reshape reshape_as squeeze unsqueeze unflatten contiguous clone alias "
        "to type type_as float double half bfloat16"
    )
    # Elements are selected, moved or repeated.
    REARRANGE = (
        "permute transpose swapaxes swapdims movedim chunk split tensor_split unbind narrow select "
        "__getitem__ pixel_shuffle pixel_unshuffle channel_shuffle expand repeat flip roll"
    )
    # Other linear maps with coefficients >= 0.
    WEIGHTED_SUM = "sum interpolate upsample"
    # They take a shape and a type, not values.
    FACTORY = (
        "new_empty new_zeros new_ones new_full new_tensor empty_like zeros_like ones_like full_like "
        "rand_like randn_like"
    )
    # They take values out of the graph: used again, such a value could not be told from a constant.
    DETACH = "detach detach_ data"
    # They take values out of torch's sight.
    ESCAPE = "item tolist numpy __array__ __float__ __int__ __complex__"


_KINDS = {name: kind for kind in Kind for name in kind.value.split()}
_PARAMETERS: dict[Kind | str | None, str] = {
    Kind.CONVOLUTION: "input weight bias stride padding dilation groups",
    Kind.TRANSPOSED_CONVOLUTION: "input weight bias stride padding output_padding groups dilation",
    Kind.LINEAR: "input weight bias",
    Kind.BATCH_NORM: "input running_mean running_var weight bias training momentum eps",
    **dict.fromkeys((Kind.ADD, Kind.SUBTRACT, Kind.SUBTRACT_FROM), "input other alpha"),
    **dict.fromkeys((Kind.MULTIPLY, Kind.DIVIDE, Kind.NEGATE), "input other"),
    **dict.fromkeys((Kind.CONCATENATE, Kind.STACK), "tensors dim"),
    **dict.fromkeys((Kind.MEAN, Kind.MAXIMUM), "input dim keepdim"),
    Kind.PAD: "input pad mode value",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "adaptive_max_pool2d": "input output_size return_indices",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "adaptive_avg_pool2d": "input output_size",
}
_PARAMETER_LISTS = {key: parameters.split() for key, parameters in _PARAMETERS.items()}
_IN_PLACE = re.compile("__(setitem|iadd|isub|imul|idiv|itruediv|ifloordiv|imod|ipow)__")
_IN_PLACE_FLAG = {"relu": 1, "dropout": 3, "dropout1d": 3, "dropout2d": 3, "dropout3d": 3}


class Call:
    """One call of a torch function, or read of an attribute such as ``data``; its `kind` is None if it is not known."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        name: str = getattr(function, "__name__", str(function))
        self.name = getattr(function.__self__, "__name__", name) if name == "__get__" else name  # type: ignore[attr-defined]
        self.kind = _KINDS.get(self.name)

    @property
    def first(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else self.kwargs.get("input", self.kwargs.get("tensors"))

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return tensors_in((*self.args, *self.kwargs.values()))

    def run(self) -> Any:
        """Call the function."""
        return self.function(*self.args, **self.kwargs)

    def on(self, item: Any) -> Any:
        """Call the function with another first argument."""
        return self.rest()(item)

    def rest(self) -> Callable[[Any], Any]:
        """Return the call as a function of its first argument, without keeping the one that it has."""
        function, args, kwargs = self.function, self.args[1:], self.kwargs
        if self.args:
            return lambda item: function(item, *args, **kwargs)
        key = "input" if "input" in kwargs else "tensors"
        kwargs = {name: value for name, value in kwargs.items() if name != key}
        return lambda item: function(**{key: item}, **kwargs)

    def arguments(self) -> dict[str, Any]:
        """Return the given arguments by name; raise ValueError if there is one that the engines do not know."""
        names = _PARAMETER_LISTS.get(self.kind) or _PARAMETER_LISTS[self.name.removeprefix("_")]
        unknown = [*(key for key in self.kwargs if key not in names), *map(repr, self.args[len(names) :])]
        if unknown:
            raise ValueError(f"the argument {unknown[0]} of")
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def written(self) -> Any:
        """Return the tensor that the call writes into, by torch's naming conventions; None for a pure function."""
        if self.kwargs.get("out") is not None:
            return self.kwargs["out"]
        position = _IN_PLACE_FLAG.get(self.name, len(self.args))
        flagged = self.kwargs.get("inplace", False) or self.args[position : position + 1] == (True,)
        underscored = self.name.endswith("_") and not self.name.startswith("__") and self.name != "requires_grad_"
        return self.first if flagged or underscored or _IN_PLACE.fullmatch(self.name) else None


class TensorTable(Generic[Entry]):
    """What is known of tensors, told apart by identity, as long as they live.

    ``torch.utils.weak.WeakTensorKeyDictionary`` does the same, but every look-up builds a key object, and following a
    forward pass is made of look-ups.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Entry]] = {}

    def __setitem__(self, tensor: Tensor, entry: Entry) -> None:
        key, entries = id(tensor), self._entries
        entries[key] = (weakref.ref(tensor, lambda _: entries.pop(key, None)), entry)

    def __contains__(self, tensor: object) -> bool:
        found = self._entries.get(id(tensor))
        return found is not None and found[0]() is tensor

    def __getitem__(self, tensor: Tensor) -> Entry:
        if tensor not in self:
            raise KeyError("unknown tensor")
        return self._entries[id(tensor)][1]

    def get(self, tensor: object) -> Entry | None:
        """Return the entry of `tensor`, or None."""
        return self._entries[id(tensor)][1] if tensor in self else None

    def clear(self) -> None:
        """Forget everything. A table whose entries hold its own tensors would else live until garbage is collected."""
        self._entries.clear()

    def items(self) -> list[tuple[Tensor, Entry]]:
        """Return the tensors that live, and their entries."""
        living = [(reference(), entry) for reference, entry in self._entries.values()]
        return [(tensor, entry) for tensor, entry in living if tensor is not None]


def tensors_in(items: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among `items` and inside their tuples, lists and dictionaries, in order."""
    found: list[Tensor] = []
    for item in items:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (tuple, list)):
            found += tensors_in(item)
        elif isinstance(item, dict):
            found += tensors_in(item.values())
    return found


def over_space(dims: Any, ndim: int) -> bool:
    """Say whether `dims` are all dimensions of a value but image and channel: a maximum over them is a max pool."""
    dims = (dims,) if isinstance(dims, int) else dims
    return isinstance(dims, tuple | list) and ndim > 2 and sorted(dim % ndim for dim in dims) == list(range(2, ndim))


def has_other_terms(call: Call) -> bool:
    """Say whether a call has negative coefficients or a constant term after all."""
    if call.kind is Kind.PAD:
        return bool(call.kwargs.get("value", call.args[3] if len(call.args) > 3 else 0))
    return any(isinstance(item, str) and item == "bicubic" for item in (*call.args[1:], *call.kwargs.values()))


def calling_modules() -> Iterator[nn.Module]:
    """Yield the modules whose methods are running, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            yield owner
        frame = frame.f_back


def values_kept() -> AbstractContextManager[object]:
    """Make torch's (not reentrant) gradient checkpointing keep what is computed inside.

    Heatmaps need these values all the same, and what is computed again would be out of an engine's sight.
    """
    found = torch._C._autograd._top_saved_tensors_default_hooks(False)
    if found is None or found[0].__module__ != checkpoint.__name__:
        return nullcontext()
    return saved_tensors_hooks(_same, _same)


def _same(value: Tensor) -> Tensor:
    return value
