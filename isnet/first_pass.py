"""The first of two passes: what the second one, over some of its images, need not compute again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from isnet.batch_statistics import BatchStatistics
from isnet.calls import Call, Kind

_LAYERS = (Kind.CONVOLUTION, Kind.BATCH_NORM)


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
        call = Call(func, args, kwargs or {})
        if call.kind in _LAYERS:
            # A copy of these rows, since the network may overwrite the output.
            rows = out.index_select(0, self._chosen) if len(out) > self._last else None
            self._in_autocast |= torch.is_autocast_enabled(out.device.type)
            self._outputs.append(_Output(call.arguments().get("weight"), rows))
        return out

    @property
    def reusable(self) -> bool:
        """Whether outputs are kept."""
        return bool(self._outputs)

    def outputs(self, images: Tensor) -> tuple[Iterator[_Output], int]:
        """Return the outputs kept, in the order of the pass, and how many times `images` hold the chosen ones."""
        copies, rest = divmod(len(images), len(self._chosen))
        if rest:
            raise ValueError(f"the first pass was told of {len(self._chosen)} images, but {len(images)} are explained")
        return iter(self._outputs), copies

    def _random_state(self) -> list[Tensor]:
        device = self._chosen.device
        on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
        return [torch.get_rng_state(), *on_device]


class Reuse:
    """Outputs of a first pass, handed out to a second pass that calls the same layers in the same order.

    Nothing is handed out unless `first` is a :class:`FirstPass`. The `images` of the second pass are the chosen ones,
    or all of them several times after each other; `copies` says how many times.
    """

    def __init__(self, first: BatchStatistics | None, images: Tensor) -> None:
        self._outputs: Iterator[_Output]
        self._outputs, self.copies = first.outputs(images) if isinstance(first, FirstPass) else (iter(()), 1)

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

    def pass_by(self, call: Call) -> None:
        """Take note of a call that does not depend on the images; if it is a layer, the first pass met it, too."""
        if call.kind in _LAYERS:
            self.rows(call.arguments().get("weight"))
