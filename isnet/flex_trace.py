"""Follow one forward pass function by function, so that LRP-Flex can change its backward pass.

A ``TorchFunctionMode`` sees every torch function that the network calls, in this thread and for this call alone: the
modules are neither changed nor hooked, in-place, reused and functional ReLUs are all reached, and an operation without
an LRP rule is an error instead of a silently wrong heatmap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from isnet import function_names as names
from isnet import positive_part
from isnet.affine_layers import Linear
from isnet.batch_statistics import BatchNormCall, BatchStatistics, Statistics, batch_counters
from isnet.errors import OF_HOOKS, unsupported_operation
from isnet.first_pass import Reuse
from isnet.flex_convolution import FlexConvolution
from isnet.flex_functions import DampedReLU, Propagation, ReusedBatchNorm, TrainingBatchNorm, per_channel
from isnet.positive_part import Signed
from isnet.stem import Stem
from isnet.tensor_table import TensorTable, tensors_in

__all__ = ["FlexTrace"]

_AFFINE_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NETWORK_NODES = ("Convolution", "_Convolve", "_Reused", "Relu", "NativeBatchNorm", "MaxPool", "Addmm")
_HANDLERS = {
    **dict.fromkeys(names.NONNEGATIVE, "_nonnegative"),
    **dict.fromkeys(names.ADD | names.SUBTRACT | names.REVERSED_SUBTRACT, "_add"),
    **dict.fromkeys(names.MULTIPLY | names.DIVIDE | names.NEGATE, "_scale"),
    **dict.fromkeys(names.CONCATENATE, "_concatenate"),
    **dict.fromkeys(names.MAX_POOL, "_max_pool"),
    **dict.fromkeys(names.MAXIMUM, "_maximum"),
    **dict.fromkeys(names.DROPOUT, "_dropout"),
}


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor that depends on the images."""

    signed: Signed | None = None
    is_images: bool = False
    stem: Stem | None = None


_ORDINARY = _Value()


class FlexTrace(TorchFunctionMode):
    """Run a network's forward pass so that its graph can be traversed under an LRP rule.

    Attributes
    ----------
    stems : list of Stem
        First layers met, with their ReLU outputs.
    not_a_stem : str or None
        Name of a function that used the images, or a first layer's output, in a way the z^B rule does not cover.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        propagation: Propagation,
        positive_parts: bool,
        stem_needs_positive: bool,
        statistics: BatchStatistics | None,
        reuse: Reuse,
    ) -> None:
        super().__init__()
        self._model, self._propagation = model, propagation
        self._positive_parts, self._stem_needs_positive = positive_parts, stem_needs_positive
        self._replay = None if statistics is None else statistics.replay()
        self._reuse = reuse
        self._counters = set() if statistics is None else batch_counters(model)
        self._values: TensorTable[_Value] = TensorTable()
        self._looked_at: TensorTable[bool] = TensorTable()
        signed = None
        if positive_parts and stem_needs_positive and bool((images < 0).any()):
            signed = Signed(images.clamp(min=0))
        self._values[images] = _Value(signed, is_images=True)
        self.stems: list[Stem] = []
        self.not_a_stem: str | None = None

    def follows(self, value: Tensor) -> bool:
        """Say whether `value` is known to depend on the images."""
        return value in self._values

    def positive_output(self, value: Tensor) -> Tensor:
        """Return the z-plus rule's virtual positive output of `value`."""
        signed = self._values[value].signed
        return value if signed is None else signed.denominator(value)

    def parts(self, value: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Return the positive part and the bias part of `value`; None if it is its own positive part."""
        signed = self._values[value].signed
        return None if signed is None else signed.materialise(value)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = names.name_of(func)
        tensors = tensors_in((*args, *kwargs.values()))
        operands = [tensor for tensor in tensors if tensor in self._values or tensor in self._looked_at]
        if not operands:
            self._reuse.pass_by(func, args, kwargs)
            return args[0] if name == "add_" and id(args[0]) in self._counters else func(*args, **kwargs)
        self._refuse_escapes(name, args, kwargs, tensors)
        if name in names.AFFINE:
            return self._affine(func, name, args, kwargs)
        if name in ("relu", "relu_"):
            return self._relu(name, args, kwargs)
        if func is F.batch_norm:
            return self._batch_norm(BatchNormCall.of(*args, **kwargs))
        if name in _HANDLERS:
            self._leave_stem(name, operands)
            return getattr(self, _HANDLERS[name])(func, name, args, kwargs)
        return self._look_at(func, name, args, kwargs)

    def _refuse_escapes(self, name: str, args: tuple, kwargs: dict, tensors: list[Tensor]) -> None:
        if name == "__setitem__" or kwargs.get("out") is not None or kwargs.get("rounding_mode") is not None:
            raise unsupported_operation(self._model, name)
        if name in names.ESCAPES or (name in names.DETACH and tensors[0].is_floating_point()):
            raise unsupported_operation(self._model, name, "a value is taken out of the graph by", OF_HOOKS)
        if self._positive_parts and names.writes_in_place(name, args, kwargs) and args[0]._is_view():
            raise unsupported_operation(self._model, name, "the z-plus rule cannot follow writing through a view, by")
        if not torch.is_grad_enabled():
            raise unsupported_operation(self._model, name, "gradients are switched off inside the network at", OF_HOOKS)
        for tensor in tensors:
            if tensor.grad_fn is not None and tensor not in self._values and _reaches_activations(tensor):
                raise unsupported_operation(self._model, name, "an activation was lost from sight before")

    def _look_at(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Any:
        """Shapes, types and comparisons pass no relevance on, as long as nothing is computed with the comparison."""
        out = func(*args, **kwargs)
        for tensor in () if name in names.FACTORIES else tensors_in((out,)):
            if tensor.is_floating_point():
                raise unsupported_operation(self._model, name)
            self._looked_at[tensor] = True
        return out

    def _leave_stem(self, name: str, operands: list[Tensor]) -> None:
        for operand in operands:
            value = self._values.get(operand, _ORDINARY)
            if (value.stem is not None and name != "clone") or (value.is_images and name not in names.RESHAPE):
                self.not_a_stem = self.not_a_stem or name

    def _affine(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        given = dict(zip(_AFFINE_ARGUMENTS, args, strict=False)) | kwargs
        inputs = given.pop("input")
        value = self._values.get(inputs)
        if value is None or self._traced(given["weight"], given.get("bias")):
            raise unsupported_operation(self._model, name, "no LRP rule for weights that depend on the image, in")
        try:
            layer = Linear(given["weight"], given.get("bias")) if name == "linear" else self._convolution(given)
        except ValueError as error:
            raise unsupported_operation(self._model, name, f"no LRP rule for {error}") from error
        if value.stem is not None:
            self.not_a_stem = self.not_a_stem or name
        signed = stem = None
        if self._positive_parts and (self._stem_needs_positive or not value.is_images):
            signed = Signed.affine(layer, inputs, value.signed)
        if value.is_images:
            stem = Stem(replace(layer, bias=None if layer.bias is None else layer.bias.detach()), inputs)
        out = func(*args, **kwargs) if name == "linear" else self._convolve(layer, inputs)
        self._values[out] = _Value(signed, stem=stem)
        return out

    def _convolve(self, layer: FlexConvolution, inputs: Tensor) -> Tensor:
        rows = self._reuse.rows(layer.weight)
        return layer(inputs) if rows is None else layer.reused(inputs, rows)

    def _convolution(self, given: dict[str, Any]) -> FlexConvolution:
        return replace(FlexConvolution.of(**given), propagation=self._propagation)

    def _relu(self, name: str, args: tuple, kwargs: dict) -> Tensor:
        z = args[0] if args else kwargs["input"]
        inplace = name == "relu_" or bool(kwargs.get("inplace", args[1] if len(args) > 1 else False))
        value = self._values[z]
        positive = None
        if self._positive_parts and (value.stem is None or self._stem_needs_positive):
            # A clone, since the ReLU may overwrite z.
            positive = z.clone() if value.signed is None else value.signed.denominator(z)
        activation = DampedReLU.apply(z, positive, self._propagation, inplace)
        if value.stem is not None:
            self.stems.append(replace(value.stem, output=activation))
        elif value.is_images:
            self.not_a_stem = self.not_a_stem or name
        self._values[activation] = _ORDINARY
        return activation

    def _batch_norm(self, call: BatchNormCall) -> Tensor:
        value = self._values[call.x]
        out, statistics = self._normalise(call)
        signed = None
        if self._positive_parts and not (value.stem is not None and not self._stem_needs_positive):
            scale, shift = statistics.scale_and_shift(call.weight, call.bias)
            signed = (value.signed or Signed(call.x)).scaled(call.x, scale, shift)
        stem = None
        if value.stem is not None and not value.stem.normalised:
            stem = value.stem.followed_by(statistics, call.weight, call.bias)
        else:
            self._leave_stem("batch_norm", [call.x])
        self._values[out] = _Value(signed, stem=stem)
        return out

    def _normalise(self, call: BatchNormCall) -> tuple[Tensor, Statistics]:
        x, running = call.x, (call.running_mean, call.running_var)
        statistics = None
        if not call.training:
            statistics = Statistics.running(*running, call.eps)
        elif self._replay is not None:
            statistics = next(self._replay)
        rows = self._reuse.rows(call.weight)
        if rows is not None:
            out = ReusedBatchNorm.apply(x, call.weight, statistics.inverse_std, rows, self._propagation)
            return out, statistics
        if not call.training:
            return F.batch_norm(*call), statistics
        if statistics is not None:
            scale, shift = statistics.scale_and_shift(call.weight, call.bias)
            return torch.addcmul(per_channel(shift, x.ndim), x, per_channel(scale, x.ndim)), statistics
        out, mean, inverse_std = TrainingBatchNorm.apply(
            x, call.weight, call.bias, running, call.momentum, call.eps, self._propagation
        )
        return out, call.statistics(mean, inverse_std)

    def _nonnegative(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Any:
        source = args[0] if args else kwargs["input"]
        value = self._values.get(source)
        if value is None:
            raise unsupported_operation(self._model, name, "no LRP rule for indices that depend on the image, in")
        signed = None
        if self._positive_parts and names.has_other_terms(name, args, kwargs):
            raise unsupported_operation(
                self._model, name, "no z-plus rule for padding with a value other than 0 or negative weights, in"
            )
        if value.signed is not None:
            signed = value.signed.mapped(source, lambda part: func(part, *args[1:], **kwargs))
        out = func(*args, **kwargs)
        for index, item in enumerate(out if isinstance(out, (tuple, list)) else (out,)):
            if item.is_floating_point():
                self._values[item] = _Value(
                    None if signed is None else signed[index],
                    is_images=value.is_images and name in names.RESHAPE,
                    stem=value.stem if name == "clone" else None,
                )
        return out

    def _add(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        if kwargs.get("alpha", 1) != 1:
            raise unsupported_operation(self._model, name, "no LRP rule for a sum with alpha, in")
        left, right = args[0], args[1] if len(args) > 1 else kwargs["other"]
        signed = None
        if self._positive_parts:
            pair = (right, left) if name in names.REVERSED_SUBTRACT else (left, right)
            signed = self._signed_sum(*pair, subtract=name not in names.ADD)
        out = func(*args, **kwargs)
        self._values[out] = _Value(signed)
        return out

    def _signed_sum(self, left: Any, right: Any, subtract: bool) -> Signed | None:
        traced = self._traced(left, right)
        if len(traced) == 2:
            return positive_part.add(traced, [self._values[item].signed for item in traced], subtract)
        value, constant = (left, right) if traced[0] is left else (right, left)
        factor = -1.0 if subtract and value is right else 1.0
        constant = torch.as_tensor(constant, dtype=value.dtype, device=value.device)
        signed = self._values[value].signed or Signed(value)
        return signed.times(value, factor, -constant if subtract and value is left else constant)

    def _scale(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        left, right = args[0], -1.0
        if name not in names.NEGATE:
            right = args[1] if len(args) > 1 else kwargs["other"]
        traced = self._traced(left, right)
        if (
            len(traced) != 1
            or any(item in self._looked_at for item in tensors_in((left, right)))
            or (name in names.DIVIDE and traced[0] is right)
        ):
            raise unsupported_operation(
                self._model, name, "no LRP rule for the product of two activations (a gate), in"
            )
        value, factor = (left, right) if traced[0] is left else (right, left)
        signed = None
        if self._positive_parts:
            factor = 1 / factor if name in names.DIVIDE else factor
            signed = (self._values[value].signed or Signed(value)).times(value, factor)
        out = func(*args, **kwargs)
        self._values[out] = _Value(signed)
        return out

    def _traced(self, *items: Any) -> list[Tensor]:
        return [item for item in items if isinstance(item, Tensor) and item in self._values]

    def _concatenate(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        tensors = list(args[0] if args else kwargs["tensors"])
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        if name == "stack" and len(self._traced(*tensors)) < len(tensors):
            # A maximum over a stack with zeros would be a ReLU.
            raise unsupported_operation(self._model, name, "no LRP rule for constants beside activations, in")
        signed = None
        if self._positive_parts:
            values = [self._values.get(item, _Value(Signed(torch.zeros_like(item), item))) for item in tensors]
            signed = positive_part.concatenate(
                tensors, [value.signed for value in values], lambda parts: func(parts, dim)
            )
        out = func(*args, **kwargs)
        self._values[out] = _Value(signed)
        return out

    def _max_pool(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        source = args[0] if args else kwargs["input"]
        signed = self._values[source].signed
        if signed is None:
            out = func(*args, **kwargs)
            self._values[out] = _ORDINARY
            return out
        pool = getattr(F, f"{name.removeprefix('_')}_with_indices")
        out, indices = pool(*args, **{key: value for key, value in kwargs.items() if key != "return_indices"})
        spatial = 2 if source.ndim > 2 else 1

        def routed(part: Tensor) -> Tensor:
            return part.flatten(spatial).gather(-1, indices.flatten(spatial)).view_as(indices)

        self._values[out] = _Value(signed.mapped(source, routed)[0])
        return out

    def _maximum(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Any:
        source = args[0] if args else kwargs["input"]
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        if source not in self._values or not names.over_space(dims, source.ndim):
            return self._look_at(func, name, args, kwargs)
        out = func(*args, **kwargs)
        largest, *indices = tensors_in((out,))
        for item in indices:
            self._looked_at[item] = True
        signed = self._values[source].signed
        if signed is not None:
            where = source.flatten(2).argmax(2, keepdim=True)
            signed = signed.mapped(source, lambda part: part.flatten(2).gather(2, where).view_as(largest))[0]
        self._values[largest] = _Value(signed)
        return out

    def _dropout(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Tensor:
        source = args[0] if args else kwargs["input"]
        signed = self._values[source].signed
        if signed is None:
            out = func(*args, **kwargs)
            self._values[out] = _ORDINARY
            return out
        # The same units must be dropped from the value and from its positive part.
        kept = func(torch.ones_like(source), *args[1:], **kwargs)
        out = source * kept
        self._values[out] = _Value(signed.times(source, kept))
        return out


def _reaches_activations(item: Tensor) -> bool:
    """Say whether an unknown tensor was computed from an activation or by layers; one of parameters alone was not."""
    pending, seen = [item.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, (DampedReLU._backward_cls, TrainingBatchNorm._backward_cls, ReusedBatchNorm._backward_cls)):
            return True
        if node.name().startswith(_NETWORK_NODES):
            return True
        seen.add(node)
        pending.extend(parent for parent, _ in node.next_functions)
    return False
