"""Follow one forward pass call by call, so that LRP-Flex can change its backward pass.

An operation without an LRP rule is an error instead of a silently wrong heatmap. What only the z-plus rule needs, the
split of values by sign, is in :mod:`isnet.positive_part`; what a first pass saves, in :mod:`isnet.first_pass`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isnet import positive_part
from isnet.affine_layers import Linear, TransposedConvolution
from isnet.batch_statistics import BatchNormCall, Met, Statistics
from isnet.calls import Call, Kind, TensorTable, has_other_terms, over_space, tensors_in
from isnet.engine import Trace
from isnet.first_pass import Replay
from isnet.flex_convolution import FlexConvolution
from isnet.flex_functions import DampedReLU, Propagation, Reused, TrainingBatchNorm, comes_of_layers, scaled
from isnet.positive_part import Signed
from isnet.refusal import OF_HOOKS, OF_LOST, REMEDY, cause, unsupported_operation
from isnet.stem import Stem, fused, identity, joined, moved, route_of, summed, with_constant


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor that depends on the images."""

    signed: Signed | None = None
    pixels: Callable[[Tensor], Tensor] | None = None
    """Makes this value of the images, if each element is a multiple of one pixel plus a constant."""
    stem: Stem | None = None


_ORDINARY = _Value()
# What they make of pixels or of a first layer's output is neither.
_LEAVE_STEMS = (Kind.WEIGHTED_SUM, Kind.AVERAGE_POOL, Kind.MEAN, Kind.MAXIMUM, Kind.DROPOUT)


class FlexTrace(Trace):
    """Run a network's forward pass so that its graph can be traversed under an LRP rule.

    `stems` are the first layers met, with the outputs of their ReLUs and, with an inactive slope, of leaky ones;
    `not_a_stem` names a function that used the images, or a first layer's output, in a way the z^B rule does not
    cover. `activations` are the outputs of all ReLUs.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        propagation: Propagation,
        positive_parts: bool,
        stem_needs_positive: bool,
        stem_slope: float,
        replay: Replay,
    ) -> None:
        super().__init__(model, replay)
        self._propagation = propagation
        self._positive_parts, self._stem_needs_positive = positive_parts, stem_needs_positive
        self._stem_slope = stem_slope
        self._values: TensorTable[_Value] = TensorTable()
        self._looked_at: TensorTable[bool] = TensorTable()
        self._constants: set[Any] = set()
        signed = None
        if positive_parts and stem_needs_positive and bool((images < 0).any()):
            signed = Signed(images.clamp(min=0))
        self._values[images] = _Value(signed, pixels=identity)
        self.stems: list[tuple[Stem, Tensor, Tensor | None]] = []
        self.activations: list[Tensor] = []
        self.not_a_stem: str | None = None

    def follows(self, value: Tensor) -> bool:
        """Say whether `value` is known to depend on the images."""
        return value in self._values

    def positive_output(self, value: Tensor) -> Tensor:
        """Return the z-plus rule's virtual positive output of `value`."""
        signed = self._values[value].signed
        return value if signed is None else signed.denominator(value)

    def parts(self, value: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the positive part and the bias part of `value`; Nones if it is its own positive part."""
        signed = self._values[value].signed
        return (None, None) if signed is None else signed.materialise(value)

    def follow(self, call: Call) -> Any:
        tensors = call.tensors
        operands = [tensor for tensor in tensors if tensor in self._values or tensor in self._looked_at]
        if not operands:
            self.replay.next(call)
            return self._pass_by(call, tensors)
        self._refuse_escapes(call, tensors)
        handler = self._HANDLERS.get(call.kind)
        if handler is None:
            return self._look_at(call)
        if call.kind in _LEAVE_STEMS:
            self._leave_stem(call, operands)
        return handler(self, call)

    def _pass_by(self, call: Call, tensors: list[Tensor]) -> Any:
        """Run a call that does not depend on the images, such as one that makes weights out of parameters."""
        lost = any(comes_of_layers(tensor, self._constants) for tensor in tensors)
        out = call.run()
        if not lost:
            self._constants.update(tensor.grad_fn for tensor in tensors_in((out,)) if tensor.grad_fn is not None)
        return out

    def _refuse(self, call: Call, why: str = "no LRP rule for the operation", remedy: str = REMEDY) -> NoReturn:
        raise unsupported_operation(self.model, call.name, why, remedy)

    def _arguments(self, call: Call) -> dict[str, Any]:
        try:
            return call.arguments()
        except ValueError as error:
            self._refuse(call, f"no LRP rule for {error}")

    def _refuse_escapes(self, call: Call, tensors: list[Tensor]) -> None:
        if call.name == "__setitem__" or call.kwargs.get("out") is not None:
            self._refuse(call)
        if call.kind is Kind.ESCAPE or (call.kind is Kind.DETACH and tensors[0].is_floating_point()):
            self._refuse(call, "a value is taken out of the graph by", OF_HOOKS)
        written = call.written()
        if self._positive_parts and written is not None and written._is_view():
            self._refuse(call, "the z-plus rule cannot follow writing through a view, by")
        # A look at a shape or type does no harm, unless it is a hook's or a custom function's.
        if not torch.is_grad_enabled() and (call.kind in self._HANDLERS or cause()):
            self._refuse(call, "gradients are switched off inside the network at", OF_HOOKS)
        for tensor in tensors:
            if tensor not in self._values and comes_of_layers(tensor, self._constants):
                self._refuse(call, "an activation was lost from sight before", OF_LOST)

    def _look_at(self, call: Call) -> Any:
        """Shapes, types and comparisons pass no relevance on, as long as nothing is computed with the comparison."""
        out = call.run()
        for tensor in () if call.kind is Kind.FACTORY else tensors_in((out,)):
            if tensor.is_floating_point():
                self._refuse(call)
            self._looked_at[tensor] = True
        return out

    def _leave_stem(self, call: Call, operands: Iterable[object]) -> None:
        for operand in operands:
            value = self._values.get(operand) or _ORDINARY
            if value.pixels is not None or value.stem is not None:
                self.not_a_stem = self.not_a_stem or call.name

    def _enter(self, out: Tensor, signed: Signed | None = None, stem: Stem | None = None) -> Tensor:
        """Take note of what a call returned."""
        self._values[out] = _Value(signed, stem=stem)
        return out

    def _enter_affine(self, call: Call, operand: Tensor, out: Tensor, signed: Signed | None) -> Tensor:
        """Take note of a call that adds or multiplies a constant: pixels and a first layer stay what they are."""
        value, change = self._values[operand], with_constant(call, operand)
        pixels = None if value.pixels is None else moved(value.pixels, change)
        stem = None if value.stem is None else fused(value.stem, change, operand)
        if value.stem is not None and stem is None:
            self._leave_stem(call, [operand])
        self._values[out] = _Value(signed, pixels, stem)
        return out

    def _affine(self, call: Call) -> Tensor:
        given = self._arguments(call)
        inputs = given.pop("input")
        value = self._values.get(inputs)
        if value is None or self._traced(given["weight"], given.get("bias")):
            self._refuse(call, "no LRP rule for weights that depend on the image, in")
        met = self.replay.next(call)
        rows = None if met is None else met.rows
        if met is not None and met.weight is not None:
            # Weights that are computed anew in each pass, as under spectral norm, may be others now.
            given |= {"weight": met.weight, "bias": met.bias}
        layer: FlexConvolution | TransposedConvolution | Linear
        try:
            if call.kind is Kind.LINEAR:
                layer = Linear(given["weight"], given.get("bias"))
            elif call.kind is Kind.TRANSPOSED_CONVOLUTION:
                layer = TransposedConvolution.of(**given)
            else:
                layer = replace(FlexConvolution.of(**given), propagation=self._propagation)
        except ValueError as error:
            self._refuse(call, f"no LRP rule for {error}")
        if value.stem is not None:
            self.not_a_stem = self.not_a_stem or call.name
        signed = stem = None
        if self._positive_parts and (self._stem_needs_positive or value.pixels is None):
            signed = Signed.affine(layer, inputs, value.signed)
        if isinstance(layer, TransposedConvolution):
            self._leave_stem(call, [inputs])
        elif value.pixels is not None:
            constant = replace(layer, bias=None if layer.bias is None else layer.bias.detach())
            stem = Stem(constant, inputs, value.pixels)
        if rows is None or not isinstance(layer, FlexConvolution):
            return self._enter(layer(inputs), signed, stem)
        out = Reused.apply(inputs, inputs, layer.weight, rows, layer.send_back, self._propagation)
        return self._enter(out, signed, stem)

    def _relu(self, call: Call) -> Tensor:
        z = call.first
        value = self._values[z]
        positive = None
        if self._positive_parts and (value.stem is None or self._stem_needs_positive):
            # A clone, since the ReLU may overwrite z.
            positive = z.clone() if value.signed is None else value.signed.denominator(z)
        # Clones, here too.
        leaky = F.leaky_relu(z.clone(), self._stem_slope) if self._stem_slope and value.stem is not None else None
        activation = DampedReLU.apply(z, positive, self._propagation, call.written() is not None)
        self.activations.append(activation)
        if value.stem is not None:
            self.stems.append((value.stem, activation, leaky))
        elif value.pixels is not None:
            self.not_a_stem = self.not_a_stem or call.name
        return self._enter(activation)

    def _batch_norm(self, call: Call) -> Tensor:
        norm = BatchNormCall(**self._arguments(call))
        value = self._values.get(norm.input)
        if value is None or self._traced(norm.weight, norm.bias):
            self._refuse(call, "no LRP rule for parameters that depend on the image, in")
        met = self.replay.next(call)
        if met is not None and met.rows is not None:
            norm = norm._replace(weight=met.weight, bias=met.bias)
        out, statistics = self._normalise(norm, met)
        signed = stem = None
        if self._positive_parts and not (value.stem is not None and not self._stem_needs_positive):
            scale, shift = statistics.scale_and_shift(norm.weight, norm.bias)
            signed = (value.signed or Signed(norm.input)).scaled(norm.input, scale, shift)
        if value.stem is not None and not value.stem.normalised:
            stem = value.stem.followed_by(statistics, norm.weight, norm.bias)
        else:
            self._leave_stem(call, [norm.input])
        return self._enter(out, signed, stem)

    def _normalise(self, norm: BatchNormCall, met: Met | None) -> tuple[Tensor, Statistics]:
        given = None if met is None else met.statistics
        constants = given if norm.training else norm.running_statistics()
        if constants is None:
            out, mean, inverse_std = TrainingBatchNorm.apply(
                norm.input, norm.weight, norm.bias, norm, self._propagation
            )
            return out, norm.statistics(mean, inverse_std)
        if met is not None and met.rows is not None:

            def send_back(grad: Tensor, weight: Tensor | None, _: None) -> Tensor:
                return scaled(grad, weight, constants.inverse_std)

            return Reused.apply(norm.input, None, norm.weight, met.rows, send_back, self._propagation), constants
        return norm.with_constants(constants) if norm.training else F.batch_norm(*norm), constants

    def _nonnegative(self, call: Call) -> Any:
        """Linear calls with coefficients >= 0: they act on the positive part of a value exactly as on the value."""
        source = call.first
        value = self._values.get(source)
        indices = call.tensors[1:] if call.kind is Kind.REARRANGE else []
        if value is None or any(item in self._values or item in self._looked_at for item in indices):
            self._refuse(call, "no LRP rule for indices that depend on the image, in")
        if self._positive_parts and has_other_terms(call):
            self._refuse(call, "no z-plus rule for padding with a value other than 0 or negative weights, in")
        out = call.run()
        found = tensors_in((out,))
        signed = value.signed.mapped(source, call.on) if value.signed is not None and found else None
        for index, item in enumerate(found):
            if item.is_floating_point():
                self._values[item] = _Value(
                    None if signed is None else signed[index],
                    None if value.pixels is None else moved(value.pixels, call.rest(), index),
                    value.stem if call.name == "clone" else None,
                )
            else:
                self._looked_at[item] = True
        if value.stem is not None and call.name != "clone":
            self._leave_stem(call, [source])
        return out

    def _add(self, call: Call) -> Tensor:
        given = self._arguments(call)
        if given.get("alpha", 1) != 1:
            self._refuse(call, "no LRP rule for a sum with alpha, in")
        signed = None
        if self._positive_parts:
            pair = (given["input"], given["other"])
            left, right = reversed(pair) if call.kind is Kind.SUBTRACT_FROM else pair
            signed = self._signed_sum(left, right, subtract=call.kind is not Kind.ADD)
        traced = self._traced(given["input"], given["other"])
        if len(traced) == 1:
            return self._enter_affine(call, traced[0], call.run(), signed)
        left, right = (self._values[item].stem for item in traced)
        both = summed(left, right) if call.kind is Kind.ADD and left and right else None
        if both is None:
            self._leave_stem(call, traced)
        return self._enter(call.run(), signed, both)

    def _signed_sum(self, left: Any, right: Any, subtract: bool) -> Signed | None:
        traced = self._traced(left, right)
        if len(traced) == 2:
            return positive_part.add(traced, [self._values[item].signed for item in traced], subtract)
        value, constant = (left, right) if traced[0] is left else (right, left)
        factor = -1.0 if subtract and value is right else 1.0
        constant = torch.as_tensor(constant, dtype=value.dtype, device=value.device)
        signed = self._values[value].signed or Signed(value)
        return signed.times(value, factor, -constant if subtract and value is left else constant)

    def _scale(self, call: Call) -> Tensor:
        given = self._arguments(call)
        left, right = given["input"], given.get("other", -1.0)
        traced = self._traced(left, right)
        looked_at = any(item in self._looked_at for item in (left, right))
        if len(traced) != 1 or looked_at or (call.kind is Kind.DIVIDE and traced[0] is right):
            self._refuse(call, "no LRP rule for the product of two activations (a gate), in")
        value, factor = (left, right) if traced[0] is left else (right, left)
        signed = None
        if self._positive_parts:
            factor = 1 / factor if call.kind is Kind.DIVIDE else factor
            signed = (self._values[value].signed or Signed(value)).times(value, factor)
        return self._enter_affine(call, traced[0], call.run(), signed)

    def _traced(self, *items: Any) -> list[Tensor]:
        return [item for item in items if item in self._values]

    def _concatenate(self, call: Call) -> Tensor:
        tensors = list(call.first)
        if call.kind is Kind.STACK and len(self._traced(*tensors)) < len(tensors):
            # A maximum over a stack with zeros would be a ReLU.
            self._refuse(call, "no LRP rule for constants beside activations, in")
        signed = None
        if self._positive_parts:
            values = [self._values.get(item) or _Value(Signed(torch.zeros_like(item), item)) for item in tensors]
            signed = positive_part.concatenate(tensors, [value.signed for value in values], call.on)
        traced = self._traced(*tensors)
        sources = [(self._values[item].pixels, None) if item in self._values else (None, item) for item in tensors]
        if any(self._values[item].pixels is None for item in traced):
            self._leave_stem(call, traced)
            return self._enter(call.run(), signed)
        out = call.run()
        self._values[out] = _Value(signed, joined(sources, call.rest()))
        return out

    def _max_pool(self, call: Call) -> Tensor:
        source = call.first
        value = self._values[source]
        signed, stem = value.signed, value.stem
        if stem is None:
            self._leave_stem(call, [source])
        else:
            stem = replace(stem, routes=(*stem.routes, route_of(call.rest(), source.detach())))
        if signed is None:
            return self._enter(call.run(), stem=stem)
        pool = getattr(F, f"{call.name.removeprefix('_')}_with_indices")
        options = {key: value for key, value in call.kwargs.items() if key != "return_indices"}
        out, indices = pool(*call.args, **options)
        spatial = 2 if source.ndim > 2 else 1

        def routed(part: Tensor) -> Tensor:
            return part.flatten(spatial).gather(-1, indices.flatten(spatial)).view_as(indices)

        return self._enter(out, signed.mapped(source, routed)[0], stem)

    def _maximum(self, call: Call) -> Any:
        given = self._arguments(call)
        source = given["input"]
        if source not in self._values or not over_space(given.get("dim"), source.ndim):
            return self._look_at(call)
        out = call.run()
        largest, *indices = tensors_in((out,))
        for item in indices:
            self._looked_at[item] = True
        signed = self._values[source].signed
        if signed is not None:
            where = source.flatten(2).argmax(2, keepdim=True)
            signed = signed.mapped(source, lambda part: part.flatten(2).gather(2, where).view_as(largest))[0]
        self._enter(largest, signed)
        return out

    def _dropout(self, call: Call) -> Tensor:
        source = call.first
        signed = self._values[source].signed
        if signed is None:
            return self._enter(call.run())
        # The same units must be dropped from the value and from its positive part.
        kept = call.on(torch.ones_like(source))
        return self._enter(source * kept, signed.times(source, kept))

    _HANDLERS: ClassVar[dict[Kind | None, Callable[[FlexTrace, Call], Any]]] = {
        **dict.fromkeys((Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION, Kind.LINEAR), _affine),
        Kind.RELU: _relu,
        Kind.BATCH_NORM: _batch_norm,
        **dict.fromkeys((Kind.RESHAPE, Kind.REARRANGE, Kind.WEIGHTED_SUM, Kind.PAD), _nonnegative),
        **dict.fromkeys((Kind.AVERAGE_POOL, Kind.MEAN), _nonnegative),
        **dict.fromkeys((Kind.ADD, Kind.SUBTRACT, Kind.SUBTRACT_FROM), _add),
        **dict.fromkeys((Kind.MULTIPLY, Kind.DIVIDE, Kind.NEGATE), _scale),
        **dict.fromkeys((Kind.CONCATENATE, Kind.STACK), _concatenate),
        Kind.MAX_POOL: _max_pool,
        Kind.MAXIMUM: _maximum,
        Kind.DROPOUT: _dropout,
    }
