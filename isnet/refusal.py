"""The error that says what a network holds for which there is no rule, where, why, and what to do."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint, hooks

from isnet.calls import calling_modules

REMEDY = (
    "LRP-Flex and LRP-Block explain ReLU networks: use a ReLU variant of the architecture "
    "(in timm, for instance, create_model(..., act_layer=torch.nn.ReLU)) or Gradient x Input instead"
)
NO_FIRST_LAYER = (
    "choose a network that begins so; input_rule='epsilon' explains this one, too, but black pixels then have no "
    "relevance, and training sees nothing of what is made of them"
)
OF_HOOKS = (
    "A forward hook is part of the network here: if it only logs, let it keep the output or a clone of it, and detach "
    "that after the call"
)
OF_PRODUCTS = (
    "A product of activations has no rule; one with weights is followed as torch.nn.functional.linear or as a "
    "convolution: write it so"
)
OF_LOST = (
    "Something before it is no torch function, such as a custom autograd function, scripted or compiled code, or what "
    "another library's context puts in place of layers: leave it out"
)
OF_EXPORTS = "Exported and traced graphs call other functions than modules do: give the network that they were made of"
_OF_CHECKPOINTS = (
    "Gradient checkpointing with use_reentrant=True hides how this part of the network is computed: use "
    "use_reentrant=False, or switch it off"
)
_OF_BACKWARD_HOOKS = (
    "A full backward hook of this module puts a function that LRP cannot follow around it, and would be called with "
    "relevance, too: remove it, or register hooks on parameters instead"
)
_PRODUCTS = {"einsum", "matmul", "mm", "bmm", "addmm", "baddbmm", "tensordot", "bilinear", "__matmul__", "__rmatmul__"}
_FILES = {checkpoint.__file__: _OF_CHECKPOINTS, hooks.__file__: _OF_BACKWARD_HOOKS}


class UnsupportedNetworkError(ValueError):
    """The network holds an operation through which LRP's rules are not defined here."""


def unsupported_operation(
    model: nn.Module, function: str, why: str = "no LRP rule for the operation", remedy: str = REMEDY
) -> Exception:
    """Build the error for a function met during the forward pass, naming the module that called it.

    Module and cause are found by walking the Python stack, which costs nothing unless there is an error to report.
    """
    names = {id(module): name or "the network itself" for name, module in model.named_modules()}
    callers = (module for module in calling_modules() if id(module) in names)
    where = next((f"{names[id(module)]} ({type(module).__name__})" for module in callers), "the network")
    if remedy == REMEDY and function in _PRODUCTS:
        remedy = OF_PRODUCTS
    if remedy == REMEDY and "." in function and not function.startswith("torch."):
        remedy = OF_EXPORTS
    return UnsupportedNetworkError(f"{why} '{function}' in {where}. {cause() or remedy}.")


def cause() -> str | None:
    """Return what to do about a call that torch's own machinery or a hook makes, not the network's forward pass."""
    called, custom = None, None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename in _FILES:
            return _FILES[frame.f_code.co_filename]
        owner = frame.f_locals.get("self")
        if called is not None and frame.f_code is nn.Module._call_impl.__code__ and isinstance(owner, nn.Module):
            registered = (*owner._forward_hooks.values(), *owner._forward_pre_hooks.values())
            return OF_HOOKS if any(_code(hook) is called.f_code for hook in registered) else custom
        if frame.f_code.co_filename != nn.modules.module.__file__:
            called = frame
        if frame.f_code.co_filename == torch.autograd.function.__file__:
            custom = OF_LOST
        frame = frame.f_back
    return custom


def _code(hook: Any) -> CodeType | None:
    """Return the code that a hook runs: of a function, a method, a partial or an object that can be called."""
    hook = getattr(hook, "func", hook)
    code: CodeType | None = getattr(hook, "__code__", None) or getattr(type(hook).__call__, "__code__", None)
    return code
