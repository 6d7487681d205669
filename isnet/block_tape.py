"""Record what a network computes from its images, call by call, and what relevance does at each recorded call.

LRP-Block needs to know which layers a network applied to what, in order. An operation without a rule is recorded as the
error to raise if relevance has to pass it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import resolve_name

from isnet.affine_layers import Affine, AveragePool, Convolution, Diagonal, Linear, Mean, Weighted
from isnet.batch_statistics import BatchNormCall, Statistics
from isnet.calls import Call, Kind, TensorTable, tensors_in
from isnet.engine import Trace
from isnet.first_pass import Replay
from isnet.refusal import unsupported_operation
from isnet.rules import ZB, Bounds, Rule


@dataclass(eq=False)
class Value:
    """One activation: its tensor and what is known about it.

    `bounds` are the lowest and highest values it can take, as long as it only rearranges the image's pixels.
    """

    tensor: Tensor
    nonnegative: bool = False
    bounds: Bounds | None = None


class Operation:
    """What relevance does at one recorded call; by default it passes unchanged, and so does the sign of values."""

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        """Say whether the output is certainly >= 0."""
        return all(value.nonnegative for value in inputs)

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        """Return the relevance ``(K, N, ...)`` that each input receives from the output's."""
        return [relevance]


@dataclass(frozen=True)
class Pass(Operation):
    """A call by which relevance passes unchanged: ReLU (sign 1), dropout (0), multiplication by a number."""

    sign: int

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        return self.sign > 0 or (self.sign == 0 and super().nonnegative(inputs))


@dataclass(frozen=True, eq=False)
class Layer(Operation):
    """An affine layer."""

    layer: Affine

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        return not isinstance(self.layer, Weighted) and super().nonnegative(inputs)

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        source = inputs[0]
        if rule.first is not None and source.bounds is not None and isinstance(self.layer, Weighted):
            return [rule.first.through(self.layer, source.tensor, source.bounds, relevance)]
        return [rule.through(self.layer, source.tensor, relevance, source.nonnegative)]


class Reshape(Operation):
    """A call that keeps all elements in their order: flatten, view, clone, a change of type."""

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        source = inputs[0].tensor
        return [relevance.reshape(-1, *source.shape).to(source)]


@dataclass(frozen=True, eq=False)
class Rearrange(Operation):
    """A call that selects, moves, repeats or zero-pads elements: relevance goes where they came from."""

    positions: Tensor

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        source = inputs[0].tensor
        collected = relevance.new_zeros(len(relevance), source.numel() + 1)
        collected = collected.index_add(1, self.positions.flatten(), relevance.flatten(1))
        return [collected[:, 1:].unflatten(1, source.shape)]


@dataclass(frozen=True, eq=False)
class Concatenation(Operation):
    """Concatenation along one dimension."""

    dim: int

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        return relevance.split([value.tensor.shape[self.dim] for value in inputs], self.dim + 1)


class Sum(Operation):
    """The sum at the end of a residual block."""

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        left, right = inputs
        return rule.shares(left.tensor, right.tensor, relevance)


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """Max pooling, fixed or adaptive: `pool(x)` returns the maxima and their places."""

    pool: Callable[[Tensor], tuple[Tensor, Tensor]]

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        a = inputs[0].tensor
        return [rule.max_pool(a, *self.pool(a), relevance)]


@dataclass(eq=False)
class Node:
    """An operation between values, or the error to raise if relevance has to pass it."""

    operation: Operation | Exception
    inputs: tuple[Value, ...]
    output: Value


class _NoRuleError(Exception):
    """There is no LRP rule for a call; the message says why."""


class Tape(Trace):
    """Records, while it is entered, every torch call whose arguments depend on `images`."""

    def __init__(self, model: nn.Module, images: Tensor, first: ZB | None, replay: Replay) -> None:
        super().__init__(model, replay)
        self.nodes: list[Node] = []
        self._values: TensorTable[Value] = TensorTable()
        self.images = Value(images, bounds=None if first is None else first.bounds(images))
        self._values[images] = self.images

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._values.clear()

    def value(self, tensor: object) -> Value | None:
        """Return the value that a tensor holds now; None if it does not depend on the images."""
        return self._values.get(tensor)

    def read(self, tensor: Tensor) -> tuple[Value, Tensor] | None:
        """Return a module's output as a value, and the tensor itself; None if it does not depend on the images."""
        value = self.value(tensor)
        return None if value is None else (value, tensor)

    def follow(self, call: Call) -> Any:
        inputs = tuple(value for value in map(self.value, call.tensors) if value is not None)
        met = self.replay.next(call)
        if not inputs or call.kind is Kind.FACTORY:
            return call.run()
        if call.kind is Kind.ESCAPE:
            raise unsupported_operation(self.model, call.name, "LRP-Block cannot follow activations through")
        first, written = self.value(call.first), call.written()
        if written is not None:
            self._preserve(written)
        statistics = None if met is None else met.statistics
        result = call.run() if statistics is None else BatchNormCall(**call.arguments()).with_constants(statistics)
        outputs = [written] if call.name == "__setitem__" else tensors_in((result,))
        for position, output in enumerate(outputs):
            if output.is_floating_point() and (written is not None or self.value(output) is None):
                self._record(_Recorded(call, inputs, first, position, statistics), output)
        return result

    def _record(self, recorded: _Recorded, result: Tensor) -> None:
        operation: Operation | Exception
        try:
            operation = _operation(recorded)
        except _NoRuleError as error:
            known_as = resolve_name(recorded.call.function) or recorded.call.name
            operation = unsupported_operation(self.model, known_as, str(error))
            output = Value(result)
        else:
            output = Value(result, operation.nonnegative(recorded.inputs), recorded.bounds(operation))
        self.nodes.append(Node(operation, recorded.inputs, output))
        self._values[result] = output

    def _preserve(self, tensor: Tensor) -> None:
        """Copy what a call in place is about to overwrite: the rules must see what the layers saw."""
        storage = tensor.untyped_storage().data_ptr()
        for other, value in self._values.items():
            if other.untyped_storage().data_ptr() == storage:
                value.tensor = value.tensor.clone()
                if other is not tensor:
                    self._values[other] = self._overwritten(value)

    def _overwritten(self, value: Value) -> Value:
        """Replace a value that is about to change through another tensor with the same storage."""
        error = unsupported_operation(self.model, "view", "an activation is overwritten in place through a")
        lost = Value(value.tensor)
        self.nodes.append(Node(error, (value,), lost))
        return lost


@dataclass(frozen=True, eq=False)
class _Recorded:
    """A call on activations, with one tensor that it returned (number `position`).

    `inputs` are the activations among the arguments, `first` is the first argument's if that is one.
    `statistics` are the constants with which a batch norm in training mode replaced those of its batch.
    """

    call: Call
    inputs: tuple[Value, ...]
    first: Value | None
    position: int
    statistics: Statistics | None

    def on(self, tensor: Any) -> Tensor:
        """Return the same call's result for another first argument."""
        result = self.call.on(tensor)
        return result if isinstance(result, Tensor) else result[self.position]

    def bounds(self, operation: Operation) -> Bounds | None:
        """Return the output for the lowest and the highest image if the call only rearranges pixels, else None."""
        bounds = [value.bounds for value in self.inputs if value.bounds is not None]
        if not isinstance(operation, Reshape | Rearrange | Concatenation) or len(bounds) < len(self.inputs):
            return None
        low, high = zip(*bounds, strict=True)
        if not isinstance(operation, Concatenation):
            return None if low[0] is None else self.on(low[0]), self.on(high[0])
        return None if low[0] is None else self.on(low), self.on(high)


# ---- from calls to operations ----


def _operation(recorded: _Recorded) -> Operation:
    """Turn a recorded call into the operation that relevance meets there; raise _NoRuleError if there is none."""
    call = recorded.call
    builder = _BUILDERS.get(call.kind) if call.kind in _BUILDERS else _BUILDERS.get(call.name.removeprefix("_"))
    if builder is None:
        raise _NoRuleError("LRP-Block has no rule for the operation")
    if call.kind not in (Kind.ADD, Kind.CONCATENATE) and recorded.inputs != (recorded.first,):
        raise _NoRuleError("LRP-Block needs parameters that do not depend on the image in")
    try:
        return builder(recorded)
    except ValueError as error:
        raise _NoRuleError(f"LRP-Block has no rule for {error}") from error


def _affine(recorded: _Recorded) -> Operation:
    given = _options(recorded)
    given["bias"] = _constant(given.get("bias"))
    return Layer(Linear(**given) if recorded.call.kind is Kind.LINEAR else Convolution.of(**given))


def _batch_norm(recorded: _Recorded) -> Operation:
    """Take a batch norm as an affine layer: all but gamma is constant, batch variances are unbiased."""
    norm = BatchNormCall(**recorded.call.arguments())
    if recorded.statistics is not None:
        statistics = recorded.statistics.unbiased()
    elif norm.training:
        dims = [0, *range(2, norm.input.ndim)]
        variance, mean = torch.var_mean(norm.input.detach(), dims, correction=1)
        statistics = Statistics.running(mean, variance, norm.eps)
    else:
        statistics = norm.running_statistics()
    return Layer(Diagonal(*statistics.scale_and_shift(norm.weight, _constant(norm.bias))))


def _average_pool(recorded: _Recorded) -> Operation:
    given = _options(recorded)
    size, stride = given["kernel_size"], given.get("stride") or ()
    options = (size, stride, *(given.get(name, default) for name, default in _POOL_DEFAULTS.items()))
    return Layer(AveragePool(F.avg_pool2d, torch.ops.aten.avg_pool2d_backward, options))


def _adaptive_average_pool(recorded: _Recorded) -> Operation:
    push = torch.ops.aten._adaptive_avg_pool2d_backward
    options = (_options(recorded)["output_size"],)
    return Layer(AveragePool(F.adaptive_avg_pool2d, lambda s, like, _: push(s, like), options))


def _mean(recorded: _Recorded) -> Operation:
    given = recorded.call.arguments()
    dim = given.get("dim")
    dims = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(sorted(d % given["input"].ndim for d in dims))
    if not dims or dims[0] == 0:
        raise ValueError("a mean over images,")
    return Layer(Mean(dims, given.get("keepdim", False)))


def _max_pool(recorded: _Recorded) -> Operation:
    given = _options(recorded) | {"return_indices": True}
    pool = F.adaptive_max_pool2d if "output_size" in given else F.max_pool2d
    return MaxPool(lambda x: pool(x, **given))


def _scale(recorded: _Recorded) -> Operation:
    other = recorded.call.arguments()["other"]
    if not isinstance(other, int | float):
        raise ValueError("scaling activations by a tensor in")
    return Pass(0 if other >= 0 else -1)


def _rearrange(recorded: _Recorded) -> Operation:
    source = recorded.inputs[0].tensor
    # Position 0 stands for the zeros of a padding.
    positions = torch.arange(1, source.numel() + 1, device=source.device).view(source.shape)
    return Rearrange(recorded.on(positions))


def _pad(recorded: _Recorded) -> Operation:
    given = recorded.call.arguments()
    if given.get("mode", "constant") == "constant" and given.get("value") not in (None, 0):
        raise ValueError("padding with numbers other than 0 by")
    return _rearrange(recorded)


def _sum(recorded: _Recorded) -> Operation:
    given = recorded.call.arguments()
    if not isinstance(given["other"], Tensor) and given["other"] == 0:
        return Pass(0)
    if len(recorded.inputs) != 2 or given.get("alpha", 1) != 1:
        raise ValueError("adding what does not come from the image in")
    if recorded.inputs[0].tensor.shape != recorded.inputs[1].tensor.shape:
        raise ValueError("the broadcasting sum")
    return Sum()


def _concatenation(recorded: _Recorded) -> Operation:
    given = recorded.call.arguments()
    if len(recorded.inputs) != len(given["tensors"]):
        raise ValueError("joining what does not come from the image in")
    return Concatenation(given.get("dim", 0) % recorded.inputs[0].tensor.ndim)


def _options(recorded: _Recorded) -> dict[str, Any]:
    return {key: value for key, value in recorded.call.arguments().items() if key != "input"}


def _constant(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


_POOL_DEFAULTS = {"padding": 0, "ceil_mode": False, "count_include_pad": True, "divisor_override": None}
_BUILDERS: dict[Kind | str | None, Callable[[_Recorded], Operation]] = {
    Kind.CONVOLUTION: _affine,
    Kind.LINEAR: _affine,
    Kind.BATCH_NORM: _batch_norm,
    "avg_pool2d": _average_pool,
    "adaptive_avg_pool2d": _adaptive_average_pool,
    Kind.MEAN: _mean,
    "max_pool2d": _max_pool,
    "adaptive_max_pool2d": _max_pool,
    Kind.RELU: lambda _: Pass(1),
    Kind.DROPOUT: lambda _: Pass(0),
    Kind.MULTIPLY: _scale,
    Kind.DIVIDE: _scale,
    Kind.RESHAPE: lambda _: Reshape(),
    "detach": lambda _: Reshape(),
    Kind.REARRANGE: _rearrange,
    Kind.PAD: _pad,
    Kind.ADD: _sum,
    Kind.CONCATENATE: _concatenation,
}
