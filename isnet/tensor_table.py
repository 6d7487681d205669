"""A table keyed by tensors, told apart by identity and forgotten when they die."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

__all__ = ["TensorTable"]

Entry = TypeVar("Entry")


class TensorTable(Generic[Entry]):
    """What is known of tensors, as long as they live.

    ``torch.utils.weak.WeakTensorKeyDictionary`` does the same, but every look-up builds a key object, and following a
    forward pass is made of look-ups.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Entry]] = {}

    def __setitem__(self, tensor: Tensor, entry: Entry) -> None:
        key, entries = id(tensor), self._entries
        entries[key] = (weakref.ref(tensor, lambda _: entries.pop(key, None)), entry)

    def __contains__(self, tensor: Tensor) -> bool:
        found = self._entries.get(id(tensor))
        return found is not None and found[0]() is tensor

    def __getitem__(self, tensor: Tensor) -> Entry:
        if tensor not in self:
            raise KeyError("unknown tensor")
        return self._entries[id(tensor)][1]

    def get(self, tensor: Tensor, default: Entry | None = None) -> Entry | None:
        """Return the entry of `tensor`, or `default`."""
        return self._entries[id(tensor)][1] if tensor in self else default
