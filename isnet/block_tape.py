"""Record what a network computes from its images, function by function.

LRP-Block needs to know which layers a network applied to what, in order. The tape is a `TorchFunctionMode`:
torch keeps the stack of modes per thread, so nothing is attached to the network and concurrent calls do not
see each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name

from isnet.affine_layers import per_channel
from isnet.batch_statistics import BatchStatistics, Statistics, batch_counters
from isnet.errors import unsupported_operation
from isnet.rules import Rule
from isnet.tensor_table import tensors_in

__all__ = ["Call", "NoRuleError", "Node", "Operation", "Tape", "Value"]

_BATCH_NORM_SIGNATURE = inspect.signature(F.batch_norm)
# They read shapes and types only: what they return does not depend on activations.
_FACTORIES = frozenset(
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
        "rand_like",
        "randn_like",
    }
)
# They take values out of torch's sight.
_EXITS = frozenset({"item", "tolist", "numpy", "__array__", "__float__", "__int__", "__complex__"})
_INPLACE_OPERATORS = frozenset(
    {"__setitem__", *(f"__i{name}__" for name in ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow"))}
)
_INPLACE_FLAG_POSITION = {"relu": 1, "dropout": 3, "dropout1d": 3, "dropout2d": 3, "dropout3d": 3}


class NoRuleError(Exception):
    """There is no LRP rule for a call; the message says why."""


@dataclass(eq=False)
class Value:
    """One activation: its tensor and what is known about it.

    `ones` is what this value would be for an image of ones, as long as it only rearranges the image's pixels.
    """

    tensor: Tensor
    nonnegative: bool = False
    ones: Tensor | None = None


class Operation(Protocol):
    """What relevance does at one recorded call."""

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        """Say whether the output is certainly >= 0."""

    def ones(self, call: Call) -> Tensor | None:
        """Return the output for an image of ones if the call only rearranges pixels, else None."""

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        """Return the relevance ``(K, N, ...)`` that each input receives from the output's."""


@dataclass(eq=False)
class Node:
    """An operation between values, or the error to raise if relevance has to pass it."""

    operation: Operation | Exception
    inputs: tuple[Value, ...]
    output: Value


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a torch function on activations, with one tensor that it returned (number `position`).

    `inputs` are the activations among the arguments, `first` is the first argument's if that is one.
    `statistics` are the constants with which a batch norm in training mode replaced those of its batch.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Value, ...]
    first: Value | None
    result: Tensor
    position: int
    statistics: Statistics | None

    def repeated(self, tensor: Tensor) -> Tensor:
        """Return the same call's result for another first argument."""
        if self.args:
            result = self.function(tensor, *self.args[1:], **self.kwargs)
        else:
            result = self.function(**{**self.kwargs, "input": tensor})
        return result if isinstance(result, Tensor) else result[self.position]


@dataclass
class _Memory:
    """Which value each tensor object holds now. Tensors are kept alive, so that their ids stay theirs."""

    tensors: list[Tensor] = field(default_factory=list)
    values: dict[int, Value] = field(default_factory=dict)
    sharing: dict[int, list[int]] = field(default_factory=dict)

    def get(self, tensor: Tensor) -> Value | None:
        return self.values.get(id(tensor))

    def set(self, tensor: Tensor, value: Value) -> None:
        if id(tensor) not in self.values:
            self.tensors.append(tensor)
            self.sharing.setdefault(_storage(tensor), []).append(id(tensor))
        self.values[id(tensor)] = value

    def sharing_with(self, tensor: Tensor) -> list[int]:
        return self.sharing.get(_storage(tensor), [])


class Tape(TorchFunctionMode):
    """Records, while it is entered, every torch call whose arguments depend on `images`.

    Parameters
    ----------
    model : nn.Module
        Only read, to name modules in errors.
    images : Tensor
        The root of the record.
    build : callable
        ``build(name, call) -> Operation``; raises :class:`NoRuleError` for a call that it does not know.
    statistics : BatchStatistics, optional
        Constants for batch norms in training mode, which then neither use nor collect statistics themselves.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        build: Callable[[str, Call], Operation],
        statistics: BatchStatistics | None = None,
    ) -> None:
        super().__init__()
        self._replay = None if statistics is None else statistics.replay()
        self._counters = set() if statistics is None else batch_counters(model)
        self.nodes: list[Node] = []
        self._model = model
        self._build = build
        self._memory = _Memory()
        self.images = Value(images, ones=torch.ones_like(images))
        self._memory.set(images, self.images)

    def value(self, tensor: Any) -> Value | None:
        """Return the value that a tensor holds now; None if it does not depend on the images."""
        return self._memory.get(tensor)

    def read(self, tensor: Tensor) -> tuple[Value, Tensor] | None:
        """Return a module's output as a value, and the tensor itself; None if it does not depend on the images."""
        value = self.value(tensor)
        return None if value is None else (value, tensor)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.__name__
        found = tuple(value for value in map(self.value, tensors_in((args, kwargs))) if value is not None)
        if name == "add_" and id(args[0]) in self._counters:
            return args[0]
        if not found or name in _FACTORIES:
            return function(*args, **kwargs)
        if name in _EXITS:
            raise unsupported_operation(self._model, name, "LRP-Block cannot follow activations through")
        first = args[0] if args else kwargs.get("input")
        value, written = self.value(first), _written(name, first, args, kwargs)
        if written is not None:
            self._preserve(written)
        result, statistics = self._called(function, args, kwargs)
        outputs = [written] if name == "__setitem__" else tensors_in((result,))
        for position, output in enumerate(outputs):
            if output.is_floating_point() and (written is not None or self.value(output) is None):
                self._record(name, Call(function, args, kwargs, found, value, output, position, statistics))
        return result

    def _called(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Statistics | None]:
        if self._replay is not None and function is F.batch_norm:
            call = _BATCH_NORM_SIGNATURE.bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"]:
                statistics = next(self._replay, None)
                if statistics is None:
                    raise ValueError("fewer batch statistics than batch norms: they are another network's")
                x = call.arguments["input"]
                scale, shift = statistics.scale_and_shift(call.arguments["weight"], call.arguments["bias"])
                return torch.addcmul(per_channel(shift, x.ndim), x, per_channel(scale, x.ndim)), statistics
        return function(*args, **kwargs), None

    def _record(self, name: str, call: Call) -> None:
        try:
            operation = self._build(name, call)
        except NoRuleError as error:
            known_as = resolve_name(call.function) or name
            operation = unsupported_operation(self._model, known_as, str(error))
            output = Value(call.result)
        else:
            output = Value(call.result, operation.nonnegative(call.inputs), operation.ones(call))
        self.nodes.append(Node(operation, call.inputs, output))
        self._memory.set(call.result, output)

    def _preserve(self, tensor: Tensor) -> None:
        """Copy what a call in place is about to overwrite: the rules must see what the layers saw."""
        for key in self._memory.sharing_with(tensor):
            value = self._memory.values[key]
            value.tensor = value.tensor.clone()
            if key != id(tensor):
                self._memory.values[key] = self._overwritten(value)

    def _overwritten(self, value: Value) -> Value:
        """Replace a value that is about to change through another tensor with the same storage."""
        error = unsupported_operation(self._model, "view", "an activation is overwritten in place through a")
        lost = Value(value.tensor)
        self.nodes.append(Node(error, (value,), lost))
        return lost


def _written(name: str, first: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the tensor that a call writes into, by torch's naming conventions; None for a pure function."""
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]
    position = _INPLACE_FLAG_POSITION.get(name, len(args))
    flagged = kwargs.get("inplace", False) or args[position : position + 1] == (True,)
    underscored = name.endswith("_") and not name.startswith("__") and name != "requires_grad_"
    return first if flagged or underscored or name in _INPLACE_OPERATORS else None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
