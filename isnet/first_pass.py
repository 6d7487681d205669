"""The first of two passes: what the second one, over some of its images, need not compute again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from isnet.batch_statistics import BatchStatistics

__all__ = ["FirstPass", "Reuse"]

# Position of the weight among the arguments.
_LAYERS = {F.conv1d: 1, F.conv2d: 1, F.conv3d: 1, F.batch_norm: 3}


class _Output(NamedTuple):
    """What a layer with `weight` made of the chosen images, in the first pass's graph; no rows if it met fewer."""

    weight: Tensor | None
    rows: Tensor | None


class FirstPass(BatchStatistics):
    """Classify a batch, and keep what convolutions and batch norms make of some of its images.

    ``with FirstPass(chosen, images.device) as first: logits = model(images)`` computes what it would without the
    context. LRP-Flex, asked to explain ``images[chosen]`` by ``explain(images[chosen], quantity, first)``, then reads
    the layers' outputs instead of computing them. Their gradients go back into the graph of the first pass, where they
    join those of the classification: one backward pass serves both, and batch statistics are differentiated as they
    are for the whole batch.

    Parameters
    ----------
    chosen : Tensor
        Positions in the batch, shape ``(n,)``, int64. On the CPU no time is lost in waiting for a GPU.
    device : torch.device
        The images'.

    Notes
    -----
    Outputs are not kept where a second pass might compute others: if the network draws from torch's random generators
    (dropout), and under autocast. LRP-Flex then computes them anew.
    """

    def __init__(self, chosen: Tensor, device: torch.device) -> None:
        super().__init__()
        self._chosen, self._last = chosen.to(device), int(chosen.max())
        self._outputs: list[_Output] = []
        self._state: list[Tensor] = []
        self._in_autocast = False

    def __enter__(self) -> Self:
        self._state = self._random_state()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        drawn = any(not torch.equal(*pair) for pair in zip(self._state, self._random_state(), strict=True))
        if drawn or self._in_autocast:
            self._outputs = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = super().__torch_function__(func, types, args, kwargs)
        if func in _LAYERS:
            # A copy of these rows, since the network may overwrite the output.
            rows = out.index_select(0, self._chosen) if len(out) > self._last else None
            self._in_autocast |= torch.is_autocast_enabled(out.device.type)
            self._outputs.append(_Output(_weight(func, args, kwargs or {}), rows))
        return out

    @property
    def reusable(self) -> bool:
        """Whether outputs are kept."""
        return bool(self._outputs)

    def outputs(self) -> Iterator[_Output]:
        """Iterate over the outputs kept, in the order of the pass."""
        return iter(self._outputs)

    def copies(self, images: Tensor) -> int:
        """Return how many times `images` hold the chosen ones.

        Raises
        ------
        ValueError
            If they cannot be the chosen ones.
        """
        copies, rest = divmod(len(images), len(self._chosen))
        if rest:
            raise ValueError(f"the first pass was told of {len(self._chosen)} images, but {len(images)} are explained")
        return copies

    def _random_state(self) -> list[Tensor]:
        device = self._chosen.device
        on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
        return [torch.get_rng_state(), *on_device]


class Reuse:
    """Outputs of a first pass, handed out to a second pass that calls the same layers in the same order.

    Parameters
    ----------
    first : BatchStatistics or None
        The first pass. Nothing is handed out unless it is a :class:`FirstPass`.
    images : Tensor
        The images of the second pass: the chosen ones, or all of them several times after each other.

    Attributes
    ----------
    copies : int
        How many times.
    """

    def __init__(self, first: BatchStatistics | None, images: Tensor) -> None:
        given = isinstance(first, FirstPass)
        self._outputs = first.outputs() if given else iter(())
        self.copies = first.copies(images) if given else 1

    def rows(self, weight: Tensor | None) -> Tensor | None:
        """Return what the next layer made of the images, if it has this weight; None if it must be computed."""
        found = next(self._outputs, None)
        if found is None or found.weight is not weight:
            self._outputs = iter(())
            return None
        rows = found.rows
        if rows is None or self.copies == 1:
            return rows
        return rows.expand(self.copies, *rows.shape).flatten(0, 1)

    def pass_by(self, func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
        """Take note of a call that does not depend on the images; if it is a layer, the first pass met it, too."""
        if func in _LAYERS:
            self.rows(_weight(func, args, kwargs))


def _weight(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
    position = _LAYERS[func]
    return args[position] if len(args) > position else kwargs.get("weight")
