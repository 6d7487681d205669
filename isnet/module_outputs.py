"""Collect what named modules return during one call."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

__all__ = ["check_layers", "collect_outputs", "unwrap"]

Record = TypeVar("Record")
# torch numbers hooks without a lock of its own.
_HOOK_LOCK = threading.Lock()


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside ``DataParallel``-, ``DistributedDataParallel``- or ``torch.compile``-style wrappers.

    Raises
    ------
    TypeError
        If `model` is not an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected an nn.Module, got {type(model).__name__}")
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, parallel) else model._orig_mod
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


@contextmanager
def collect_outputs(
    model: nn.Module, layers: Sequence[str], read: Callable[[Tensor], tuple[Record, Tensor] | None]
) -> Iterator[dict[str, Record]]:
    """Collect what named modules return during one forward pass of this thread; no hook stays behind.

    Parameters
    ----------
    model : nn.Module
        The network that runs inside the context.
    layers : sequence of str
        Names of its modules. The records come in this order.
    read : callable
        Called with each output as soon as it exists; returns what to record and the tensor to go on with, or None if
        the output does not depend on the images.

    Raises
    ------
    ValueError
        If a layer does not run, runs more than once, or returns no tensor that depends on the images.
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
