"""What both LRP engines share: their face, what they ask of a network, and the error that says what it lacks."""

from __future__ import annotations

import difflib
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from isnet.batch_statistics import BatchStatistics
from isnet.calls import Call, values_kept
from isnet.first_pass import Replay
from isnet.process_group import check_layers_of_processes
from isnet.quantities import Quantity
from isnet.refusal import REMEDY, UnsupportedNetworkError
from isnet.rules import Bound, make_rules

Record = TypeVar("Record")
# torch numbers hooks without a lock of its own.
_HOOK_LOCK = threading.Lock()
_ALLOWED_ACTIVATIONS = (nn.ReLU, nn.Identity)
_DATA_DEPENDENT = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)


class Explanation(NamedTuple):
    """Result of an LRP engine: logits, relevance at the input, and at the outputs of the requested layers."""

    logits: Tensor
    relevance: Tensor
    layers: dict[str, Tensor]


class Engine(ABC):
    """An LRP engine. Calling it classifies images and explains what a quantity asks for, with one forward pass."""

    def __init__(
        self,
        model: nn.Module,
        rules: Sequence[str],
        epsilon: float,
        input_rule: str,
        low: Bound,
        high: Bound,
        layers: Sequence[str],
        strict: bool,
        inactive_slope: float = 0.0,
    ) -> None:
        self.model = unwrap(model)
        lazy = [name for name, module in self.model.named_modules() if _is_lazy(module)]
        if lazy:
            raise ValueError(f"{lazy[0] or 'the network'} has no weights yet: let the network classify a batch first")
        self._rules = make_rules(rules, epsilon, input_rule, low, high, inactive_slope)
        self._strict, self._warned = strict, False
        self.layers = tuple(layers)
        check_layers(self.model, self.layers)

    @abstractmethod
    def __call__(self, images: Tensor, quantity: Quantity, statistics: BatchStatistics | None = None) -> Explanation:
        """Classify and explain.

        Parameters
        ----------
        images : Tensor
            Shape ``(N, C, H, W)``, values in [low, high].
        quantity : Quantity
            What to explain: K scores per image.
        statistics : BatchStatistics, optional
            Batch statistics of an earlier pass, to be used as constants by batch norms in training mode. Of a
            :class:`isnet.FirstPass` LRP-Flex uses the layers' outputs, too; `images` are then those it was told of, or
            several times those.

        Returns
        -------
        Explanation
            ``logits`` (N, classes); ``relevance`` (N, K x rules, C, H, W), rule by rule; ``layers``: name ->
            (N, K x rules, c, h, w). Differentiable while gradients are enabled, else the same numbers, detached.

        Raises
        ------
        UnsupportedNetworkError
            If an operation between the images and the logits has no rule; the message names it and its module.
        ValueError
            If the batch is empty, the quantity fits neither rules nor logits, or a layer does not run exactly once.
        """

    def check_network(self) -> None:
        """Refuse a network that cannot be followed as it is now: compiled, or spread over processes."""
        check_layers_of_processes(self.model)
        _check_compiled(self.model)

    def _check_images(self, images: Tensor) -> None:
        """Refuse an empty batch; warn once of images outside the z^B rule's bounds, or refuse them if `strict`."""
        check_images(images)
        self.check_network()
        first = self._rules[0].first
        outside = None if first is None or self._warned else first.outside(images)
        if outside is not None and self._strict:
            raise ValueError(outside)
        if outside is not None:
            self._warned = True
            warnings.warn(outside, stacklevel=3)


class Trace(TorchFunctionMode):
    """Follows the torch functions that a network calls, in this thread and for one forward pass.

    The modules are neither changed nor hooked; in-place, reused and functional calls are all reached. With given
    `statistics` batch norms in training mode neither use nor collect statistics of their own.
    """

    def __init__(self, model: nn.Module, replay: Replay) -> None:
        super().__init__()
        self.model, self.replay = model, replay
        # ``nn.BatchNorm`` counts its batches before it normalises; a second pass over a batch must not count again.
        counters = (getattr(module, "num_batches_tracked", None) for module in model.modules() if replay.given)
        self._counters = {id(counter) for counter in counters if counter is not None}

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if error[0] is None:
            self.replay.finish()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        if call.name == "add_" and id(args[0]) in self._counters:
            return args[0]
        with values_kept():
            return self.follow(call)

    @abstractmethod
    def follow(self, call: Call) -> Any:
        """Run a call and take note of it."""


def check_modules(model: nn.Module) -> None:
    """Raise :class:`UnsupportedNetworkError` naming every module whose non-linearity is not a ReLU."""
    offenders = [
        f"{name or 'the network itself'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if _is_unsupported(module)
    ]
    if offenders:
        shown = ", ".join(offenders[:8]) + (f" and {len(offenders) - 8} more" if len(offenders) > 8 else "")
        raise UnsupportedNetworkError(f"no LRP rule for {shown}. {REMEDY}.")


def _is_unsupported(module: nn.Module) -> bool:
    if isinstance(module, _ALLOWED_ACTIVATIONS):
        return False
    if isinstance(module, torch.jit.ScriptModule):
        # Its operations are out of sight.
        return True
    activation = any(
        base.__module__ in ("torch.nn.modules.activation", "timm.layers.activations") for base in type(module).__mro__
    )
    return activation or isinstance(module, _DATA_DEPENDENT)


def _is_lazy(module: nn.Module) -> bool:
    """Say whether a module still waits for its first batch."""
    return any(isinstance(each, UninitializedParameter) for each in module.parameters(recurse=False))


def _check_compiled(model: nn.Module) -> None:
    """Raise UnsupportedNetworkError naming a module that runs as compiled code, in which functions are out of sight."""
    for module in model.modules():
        # Read from dictionaries: a module takes its time to say that it has no such attribute.
        forward = vars(module).get("forward")
        replaced = forward is not None and hasattr(forward, "_torchdynamo_orig_callable")
        if replaced or module._compiled_call_impl is not None or "_orig_mod" in module._modules:
            name = next(name for name, found in model.named_modules() if found is module)
            raise UnsupportedNetworkError(
                f"{name or 'the network itself'} is compiled, but LRP follows a network's functions one by one: "
                "explain and train the network as it was, and compile what comes out of training"
            )


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside ``DataParallel``-, ``DistributedDataParallel``- or ``torch.compile``-style wrappers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected an nn.Module, got {type(model).__name__}")
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or hasattr(model, "_orig_mod"):
        inner: nn.Module = model.get_submodule("module" if isinstance(model, parallel) else "_orig_mod")
        model = inner
    return model


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Raise ValueError if a layer is not the name of a submodule."""
    names = [name for name, _ in model.named_modules() if name]
    for layer in layers:
        if layer not in names:
            near = difflib.get_close_matches(layer, names, 3) or names[:3]
            raise ValueError(
                f"the network has no layer {layer!r}; names are those of named_modules(), such as {', '.join(near)}"
            )


def check_images(images: Tensor) -> None:
    """Raise ValueError for a batch without images, of which networks and rules would make obscure errors."""
    if not len(images):
        raise ValueError(f"the batch holds no images (shape {tuple(images.shape)}): leave empty batches out")


def check_logits(logits: object, images: Tensor, traced: bool) -> None:
    """Raise UnsupportedNetworkError unless the network returned one row of logits per image, `traced` to the images."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedNetworkError(
            f"the network must return logits of shape (N, classes), but returned {found}; switch off "
            "auxiliary outputs (in torchvision, aux_logits=False) or wrap the network"
        )
    if not traced:
        raise UnsupportedNetworkError(
            "the logits cannot be traced back to the images: between them lies an operation that torch's functions "
            "do not show, such as a custom autograd function or compiled code"
        )


@contextmanager
def collect_outputs(
    model: nn.Module, layers: Sequence[str], read: Callable[[Tensor], tuple[Record, Tensor] | None]
) -> Iterator[dict[str, Record]]:
    """Collect what named modules return during one forward pass of this thread; no hook stays behind.

    `read` is called with each output as soon as it exists. It returns what to record and the tensor to go on with, or
    None if the output does not depend on the images. A layer must run exactly once: else ValueError.
    """
    records: dict[str, Record] = {}
    thread = threading.get_ident()

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
            if threading.get_ident() != thread:
                return None
            if name in records:
                raise ValueError(f"layer {name!r} runs more than once, so its relevance is ambiguous: choose another")
            found = read(output) if isinstance(output, Tensor) else None
            if found is None:
                what = f"a {type(output).__name__} that does not depend on the images alone"
                raise ValueError(f"layer {name!r} returns {what}, no activation: choose another")
            records[name], output = found
            return output

        return hook

    with ExitStack() as stack:
        for name in layers:
            with _HOOK_LOCK:
                handle = model.get_submodule(name).register_forward_hook(hook_for(name))
            stack.callback(handle.remove)
        yield records
    missing = [name for name in layers if name not in records]
    if missing:
        raise ValueError(f"the forward pass does not use layer {missing[0]!r}")
    ordered = {name: records[name] for name in layers}
    records.clear()
    records.update(ordered)
