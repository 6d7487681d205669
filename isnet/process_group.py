"""Several processes that train one network: means over the global batch, and wrappers that would be bypassed."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

_WRAP = "wrap isnet.DataParallelTraining(network) in DistributedDataParallel and call the wrapper"


def number_of_processes() -> int:
    """Return how many processes train together: 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def global_means(means: Tensor, counts: Tensor) -> Tensor:
    """Return the means over the batches of all processes, given those of this process and what each is a mean of.

    Values are the same in every process. A gradient is this process's share times the number of processes, so that the
    average over the processes, as DistributedDataParallel takes it, is the gradient of the global means. Where nothing
    was counted anywhere, the mean is 0.
    """
    sums = means * counts
    found = torch.stack([sums.detach(), counts])
    distributed.all_reduce(found)
    total, number = found
    return (total + number_of_processes() * (sums - sums.detach())) / number.clamp(min=torch.finfo(number.dtype).tiny)


def check_backbone(backbone: nn.Module) -> None:
    """Raise ValueError for a wrapper whose part in training the engines, which look through it, would leave out."""
    if hasattr(backbone, "_orig_mod"):
        raise ValueError(
            "an ISNet trains by following the functions that its network calls, and would leave compiled code unused: "
            "make it around the network as it was, and compile what comes out of training"
        )
    parallel = isinstance(backbone, DistributedDataParallel) and number_of_processes() > 1
    if parallel or (isinstance(backbone, nn.DataParallel) and len(backbone.device_ids) > 1):
        raise ValueError(
            f"an ISNet around a {type(backbone).__name__} module would bypass it, and train without it: make the ISNet "
            f"around the bare network, then {_WRAP}"
        )


def check_layers_of_processes(model: nn.Module) -> None:
    """Raise ValueError for layers that communicate, or whose parameters are spread over processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    for name, module in model.named_modules():
        where = f"{name or 'the network itself'} ({type(module).__name__})"
        if isinstance(module, nn.SyncBatchNorm) and module.training and number_of_processes() > 1:
            raise ValueError(
                f"no LRP rule for synchronised batch norm in training mode, in {where}: train with BatchNorm, whose "
                "statistics are each process's own, or with batch norms in evaluation mode"
            )
        spread = any(isinstance(parameter, DTensor) for parameter in module.parameters(recurse=False))
        if spread or isinstance(module, FSDPModule | FullyShardedDataParallel):
            raise ValueError(
                f"the parameters of {where} are spread over processes (FSDP), but heatmaps need them whole in the "
                f"forward pass and behind it: {_WRAP}"
            )


def check_not_bypassed(network: nn.Module) -> None:
    """Raise ValueError if `network` is part of a DistributedDataParallel module whose forward pass is not running.

    torch keeps no note of that in the network, so that the living wrappers are looked for among all objects.
    """
    for item in gc.get_objects():
        # Its reducer in Python needs no forward pass of its own.
        found = issubclass(type(item), DistributedDataParallel) and not item._use_python_reducer
        if found and any(module is network for module in item.modules()):
            raise ValueError(
                "training_loss bypasses the DistributedDataParallel module that holds the network, so that each "
                f"process would train on its own: {_WRAP}"
            )


def in_wrapper() -> bool:
    """Say whether a DistributedDataParallel module's forward pass is running."""
    return DistributedDataParallel._active_ddp_module is not None
