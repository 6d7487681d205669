"""A table keyed by tensors, told apart by identity and forgotten when they die; and where tensors are in arguments."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor

__all__ = ["TensorTable", "tensors_in"]

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


def tensors_in(items: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among `items` and inside their tuples, lists and dictionaries, in order."""
    found: list[Tensor] = []
    for item in items:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (tuple, list)):
            found += tensors_in(item)
        elif isinstance(item, dict):
            found += tensors_in(item.values())
    return found
