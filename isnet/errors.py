"""Errors of the library, and the checks that make a wrong heatmap impossible rather than silent."""

from __future__ import annotations

import sys

import torch
from torch import nn

__all__ = ["UnsupportedNetworkError"]

REMEDY = (
    "LRP-Flex and LRP-Block explain ReLU networks: use a ReLU variant of the architecture "
    "(in timm, for instance, create_model(..., act_layer=torch.nn.ReLU)) or Gradient x Input instead"
)
OF_HOOKS = (
    "A forward hook is part of the network here: if it only logs, let it keep the output or a clone of it, and detach "
    "that after the call"
)

_ALLOWED_ACTIVATIONS = (nn.ReLU, nn.Identity)
_DATA_DEPENDENT = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)


class UnsupportedNetworkError(ValueError):
    """The network holds an operation through which LRP's rules are not defined here."""


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


def unsupported_operation(
    model: nn.Module, function: str, why: str = "no LRP rule for the operation", remedy: str = REMEDY
) -> Exception:
    """Build the error for a function met during the forward pass, naming the module that called it.

    The module is found by walking the Python stack, which costs nothing unless there is an error to report.
    """
    names = {id(module): name or "the network itself" for name, module in model.named_modules()}
    frame, where = sys._getframe(1), None
    while frame is not None and where is None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            where = f"{names[id(owner)]} ({type(owner).__name__})"
        frame = frame.f_back
    return UnsupportedNetworkError(f"{why} '{function}' in {where or 'the network'}. {remedy}.")
