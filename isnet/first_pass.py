"""The first of two passes: what the second one, over some of its images, need not compute again."""

from __future__ import annotations

from collections import deque
from typing import Self

import torch
from torch import Tensor

from isnet.batch_statistics import BatchStatistics, Met, layer_key
from isnet.calls import Call, Kind


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
        self._state: list[Tensor] = []
        self._in_autocast = False

    def __enter__(self) -> Self:
        self._state = self._random_state()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        drawn = any(not torch.equal(*pair) for pair in zip(self._state, self._random_state(), strict=True))
        if drawn or self._in_autocast:
            self._met = {
                key: [Met(None, None, each.statistics) for each in met if each.statistics is not None]
                for key, met in self._met.items()
            }

    def _keep(self, key: tuple[object, ...], met: Met, out: Tensor) -> None:
        self._in_autocast |= torch.is_autocast_enabled(out.device.type)
        if key[1] is not Kind.LINEAR and len(out) > self._last:
            # A copy of these rows, since the network may overwrite the output.
            met = met._replace(rows=out.index_select(0, self._chosen))
        self._met.setdefault(key, []).append(met)

    @property
    def reusable(self) -> bool:
        """Whether outputs are kept."""
        return any(each.rows is not None for met in self._met.values() for each in met)

    def copies(self, images: Tensor) -> int:
        """Return how many times `images` hold the chosen ones."""
        copies, rest = divmod(len(images), len(self._chosen))
        if rest:
            raise ValueError(f"the first pass was told of {len(self._chosen)} images, but {len(images)} are explained")
        return copies

    def _random_state(self) -> list[Tensor]:
        device = self._chosen.device
        on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
        return [torch.get_rng_state(), *on_device]


class Replay:
    """What an earlier pass met, handed out to a later one: to each module what the same module met, in order.

    The `images` of the later pass are those that a :class:`FirstPass` was told of, or all of them several times after
    each other; `copies` says how many times.
    """

    def __init__(self, earlier: BatchStatistics | None, images: Tensor) -> None:
        self.given = earlier is not None
        self._left = {} if earlier is None else {key: deque(met) for key, met in earlier.met().items()}
        self.copies = earlier.copies(images) if isinstance(earlier, FirstPass) else 1

    def next(self, call: Call) -> Met | None:
        """Return what the layer that makes this call met; None if that is not known, or the call is no layer's."""
        key = layer_key(call) if self.given else None
        if key is None:
            return None
        left = self._left.get(key)
        if not left:
            if key[2]:
                raise ValueError("fewer batch statistics than batch norms in training mode: they are another network's")
            return None
        met = left.popleft()
        if met.rows is None or self.copies == 1:
            return met
        return met._replace(rows=met.rows.expand(self.copies, *met.rows.shape).flatten(0, 1))

    def finish(self) -> None:
        """Raise ValueError if the later pass did not take all statistics."""
        if any(left for key, left in self._left.items() if key[2]):
            raise ValueError("more batch statistics than batch norms in training mode: they are another network's")
