"""Which torch calls LRP-Block knows, and what relevance does at each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from isnet.affine_layers import (
    AdaptiveAverage,
    Affine,
    AveragePool,
    Convolution,
    Diagonal,
    Linear,
    Mean,
    Weighted,
)
from isnet.batch_statistics import Statistics
from isnet.block_tape import Call, Node, NoRuleError, Operation, Value
from isnet.rules import Rule

__all__ = ["Layer", "Reshape", "build", "fuse_batch_norms", "is_weighted", "leading_to"]


class _Operation:
    """Default: a call that keeps the sign of its inputs."""

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        return all(value.nonnegative for value in inputs)

    def ones(self, call: Call) -> Tensor | None:
        return None


@dataclass(frozen=True, eq=False)
class Layer(_Operation):
    """An affine layer."""

    layer: Affine

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        return not isinstance(self.layer, Weighted) and super().nonnegative(inputs)

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        source = inputs[0]
        if rule.input_range is not None and source.ones is not None and isinstance(self.layer, Weighted):
            return [rule.first_layer(self.layer, source.tensor, source.ones, relevance)]
        return [rule.affine(self.layer, source.tensor, relevance, source.nonnegative)]


@dataclass(frozen=True, eq=False)
class BatchNorm(_Operation):
    """A batch norm with constant statistics, before it becomes a layer or part of one.

    Without `statistics` they are those of its batch, with unbiased variance.
    """

    statistics: Statistics | None
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        return False

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return batch norm as a scale and a shift per channel: all but gamma is constant."""
        statistics = self.statistics
        if statistics is None:
            variance, mean = torch.var_mean(x.detach(), [0, *range(2, x.ndim)], correction=1)
            statistics = Statistics.running(mean, variance, self.eps)
        return statistics.scale_and_shift(self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Pass(_Operation):
    """A call by which relevance passes unchanged: ReLU (sign 1), dropout (0), multiplication by a number."""

    sign: int

    def nonnegative(self, inputs: Sequence[Value]) -> bool:
        return self.sign > 0 or (self.sign == 0 and super().nonnegative(inputs))

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        return [relevance]


class _OfPixels(_Operation):
    """A call that computes nothing, so that it can be repeated for an image of ones."""

    def ones(self, call: Call) -> Tensor | None:
        ones = call.inputs[0].ones
        return None if ones is None else call.repeated(ones)


class Reshape(_OfPixels):
    """A call that keeps all elements in their order: flatten, view, clone, a change of type."""

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        source = inputs[0].tensor
        return [relevance.reshape(-1, *source.shape).to(source)]


@dataclass(frozen=True, eq=False)
class Rearrange(_OfPixels):
    """A call that selects, moves, repeats or zero-pads elements: relevance goes where they came from."""

    positions: Tensor

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        source = inputs[0].tensor
        collected = relevance.new_zeros(len(relevance), source.numel() + 1)
        collected = collected.index_add(1, self.positions.flatten(), relevance.flatten(1))
        return [collected[:, 1:].unflatten(1, source.shape)]


@dataclass(frozen=True, eq=False)
class Concatenation(_Operation):
    """Concatenation along one dimension."""

    dim: int

    def ones(self, call: Call) -> Tensor | None:
        parts = [value.ones for value in call.inputs]
        return None if any(part is None for part in parts) else torch.cat(parts, self.dim)

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        return relevance.split([value.tensor.shape[self.dim] for value in inputs], self.dim + 1)


class Sum(_Operation):
    """The sum at the end of a residual block."""

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        return rule.shares([value.tensor for value in inputs], relevance)


@dataclass(frozen=True, eq=False)
class MaxPool(_Operation):
    """Max pooling, fixed or adaptive: `pool(x)` returns the maxima and their places."""

    pool: Callable[[Tensor], tuple[Tensor, Tensor]]

    def relevances(self, relevance: Tensor, inputs: Sequence[Value], rule: Rule) -> Sequence[Tensor]:
        a = inputs[0].tensor
        return [rule.max_pool(a, *self.pool(a), relevance)]


def leading_to(root: Value, nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes on which a value depends; raise the error of one that has no rule."""
    needed, found = {root}, []
    for node in reversed(nodes):
        if node.output in needed:
            if isinstance(node.operation, Exception):
                raise node.operation
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]


def fuse_batch_norms(nodes: Sequence[Node]) -> tuple[list[Node], dict[Value, Value]]:
    """Make one layer of every convolution or linear layer and the batch norm that alone reads its output.

    Any other batch norm becomes a layer of its own. Returns the nodes, and for each layer output that
    vanished inside a fused layer the batch norm's output.
    """
    producers = {node.output: node for node in nodes}
    consumers = Counter(value for node in nodes for value in node.inputs)
    result, inside = [], {}
    for node in nodes:
        if isinstance(node.operation, BatchNorm):
            source = node.inputs[0]
            before = producers.get(source) if consumers[source] == 1 else None
            scale, shift = node.operation.scale_and_shift(source.tensor)
            if before is not None and _is_fusible(before):
                inside[source] = node.output
                layer = before.operation.layer.followed_by(scale, shift)
                node = Node(Layer(layer), before.inputs, node.output)
            else:
                node = Node(Layer(Diagonal(scale, shift)), node.inputs, node.output)
        result.append(node)
    return [node for node in result if node.output not in inside], inside


def _is_fusible(node: Node) -> bool:
    layer = node.operation.layer if isinstance(node.operation, Layer) else None
    return isinstance(layer, Convolution) or (isinstance(layer, Linear) and node.output.tensor.ndim == 2)


def is_weighted(node: Node) -> bool:
    """Say whether a node is a layer with weights of its own, not a pool."""
    return isinstance(node.operation, Layer) and isinstance(node.operation.layer, Weighted)


def build(name: str, call: Call) -> Operation:
    """Turn a recorded call into the operation that relevance meets there.

    Raises
    ------
    NoRuleError
        If LRP-Block has no rule for the call.
    """
    builder = _BUILDERS.get(name) or _BUILDERS_OF_MANY.get(name)
    if builder is None:
        raise NoRuleError("LRP-Block has no rule for the operation")
    if name in _BUILDERS and call.inputs != (call.first,):
        raise NoRuleError("LRP-Block needs parameters that do not depend on the image in")
    try:
        arguments = signature(builder).bind(call, *call.args, **call.kwargs)
    except TypeError as error:
        raise NoRuleError(f"LRP-Block does not know all arguments ({error}) of") from error
    return builder(*arguments.args, **arguments.kwargs)


def _convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Operation:
    try:
        return Layer(Convolution.of(weight, _constant(bias), stride, padding, dilation, groups))
    except ValueError as error:
        raise NoRuleError(f"LRP-Block has no rule for {error}") from error


def _linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Operation:
    return Layer(Linear(weight, _constant(bias)))


def _batch_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Operation:
    statistics = None
    if call.statistics is not None:
        statistics = call.statistics.unbiased()
    elif not training:
        statistics = Statistics.running(running_mean, running_var, eps)
    return BatchNorm(statistics, weight, _constant(bias), eps)


def _average_pool(
    call: Call,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Operation:
    size = _pair(kernel_size)
    return Layer(
        AveragePool(size, _pair(stride) or size, _pair(padding), ceil_mode, count_include_pad, divisor_override)
    )


def _adaptive_average(call: Call, input: Tensor, output_size: Any) -> Operation:
    return Layer(AdaptiveAverage(output_size))


def _mean(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False) -> Operation:
    dims = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(sorted(d % input.ndim for d in dims))
    if not dims or dims[0] == 0:
        raise NoRuleError("LRP-Block has no rule for a mean over images,")
    return Layer(Mean(dims, keepdim))


def _max_pool(
    call: Call,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Operation:
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return MaxPool(lambda x: F.max_pool2d(x, *options, return_indices=True))


def _adaptive_max_pool(call: Call, input: Tensor, output_size: Any, return_indices: bool = False) -> Operation:
    return MaxPool(lambda x: F.adaptive_max_pool2d(x, output_size, return_indices=True))


def _relu(call: Call, *_: Any, **__: Any) -> Operation:
    return Pass(sign=1)


def _dropout(call: Call, *_: Any, **__: Any) -> Operation:
    return Pass(sign=0)


def _scale(call: Call, input: Tensor, other: Any) -> Operation:
    if not isinstance(other, int | float):
        raise NoRuleError("LRP-Block has no rule for scaling activations by a tensor in")
    return Pass(sign=0 if other >= 0 else -1)


def _reshape(call: Call, *_: Any, **__: Any) -> Operation:
    return Reshape()


def _rearrange(call: Call, *_: Any, **__: Any) -> Operation:
    source = call.inputs[0].tensor
    # Position 0 stands for the zeros of a padding.
    positions = call.repeated(torch.arange(1, source.numel() + 1, device=source.device).view(source.shape))
    return Rearrange(positions)


def _pad(
    call: Call, input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Operation:
    if mode == "constant" and value not in (None, 0):
        raise NoRuleError("LRP-Block has no rule for padding with numbers other than 0 by")
    return _rearrange(call)


def _sum(call: Call, input: Any, other: Any, *, alpha: float = 1) -> Operation:
    if not isinstance(other, Tensor) and other == 0:
        return Pass(sign=0)
    if len(call.inputs) != 2 or alpha != 1:
        raise NoRuleError("LRP-Block has no rule for adding what does not come from the image in")
    if call.inputs[0].tensor.shape != call.inputs[1].tensor.shape:
        raise NoRuleError("LRP-Block has no rule for the broadcasting sum")
    return Sum()


def _concatenation(call: Call, tensors: Sequence[Tensor], dim: int = 0) -> Operation:
    if len(call.inputs) != len(tensors):
        raise NoRuleError("LRP-Block has no rule for joining what does not come from the image in")
    return Concatenation(dim % tensors[0].ndim)


def _pair(value: Any) -> tuple[int, ...]:
    if value is None or value == ():
        return ()
    return (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)


def _constant(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _table(*rows: tuple[Callable[..., Operation], str]) -> dict[str, Callable[..., Operation]]:
    return {name: builder for builder, names in rows for name in names.split()}


_BUILDERS = _table(
    (_convolution, "conv2d"),
    (_linear, "linear"),
    (_batch_norm, "batch_norm"),
    (_average_pool, "avg_pool2d"),
    (_adaptive_average, "adaptive_avg_pool2d"),
    (_mean, "mean"),
    (_max_pool, "max_pool2d _max_pool2d"),
    (_adaptive_max_pool, "adaptive_max_pool2d _adaptive_max_pool2d"),
    (_relu, "relu relu_"),
    (_dropout, "dropout dropout_ dropout1d dropout2d dropout3d"),
    (_scale, "mul mul_ multiply div div_ divide true_divide __mul__ __rmul__ __truediv__"),
    (
        _reshape,
        "flatten view view_as reshape reshape_as squeeze unsqueeze unflatten contiguous clone detach "
        "to type float double half bfloat16 alias",
    ),
    (
        _rearrange,
        "permute transpose swapaxes swapdims movedim chunk split tensor_split unbind narrow select "
        "__getitem__ pixel_shuffle pixel_unshuffle channel_shuffle expand repeat flip roll",
    ),
    (_pad, "pad"),
)
_BUILDERS_OF_MANY = _table(
    (_sum, "add add_ __add__ __radd__ __iadd__"),
    (_concatenation, "cat concat concatenate"),
)
