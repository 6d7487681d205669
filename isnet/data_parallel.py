"""The training loss as a forward pass, for DistributedDataParallel to wrap."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isnet.loss import Losses
from isnet.process_group import global_means, number_of_processes
from isnet.variants import ISNet


class DataParallelTraining(nn.Module):
    """An ISNet whose forward pass is its training loss: what ``DistributedDataParallel`` (DDP) must wrap.

    DDP averages gradients over processes, but of its own forward pass only: ``training_loss`` of what lies inside, or
    of an ISNet around a DDP module, would train each process on its own, and is refused.

    The losses are those of the global batch, the same in each process, and so is the gradient after DDP's average,
    also with class weights, and where processes hold different numbers of images or masks. With `heatmap_fraction` each
    process draws from its own images; both are then estimates, right on average. Statistics of batch norm in training
    mode are each process's own. In a single process the losses are those of ``training_loss``.

    Parameters
    ----------
    network : ISNet
        Made around the bare backbone.

    Raises
    ------
    ValueError
        If a heatmap loss is not reduced to a mean or a sum.

    Examples
    --------
    >>> parallel = DistributedDataParallel(isnet.DataParallelTraining(network))
    >>> parallel(images, masks, labels).total.backward()
    """

    def __init__(self, network: ISNet) -> None:
        super().__init__()
        if any(loss.reduction == "none" for loss in network.heatmap_losses):
            raise ValueError('training on several processes needs heatmap losses with reduction="mean" or "sum"')
        self.network = network

    def forward(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the losses of the global batch, see :meth:`isnet.ISNet.training_loss`."""
        means = self.network.means(images, masks, labels)
        processes = number_of_processes()
        if processes == 1:
            return self.network.combine(means)
        masked = (~masks.flatten(1)[:, 0].isnan()).sum()
        weights = self.network.class_weights
        counts = [torch.tensor(len(labels)) if weights is None else weights[labels.long()].sum()]
        for loss in self.network.heatmap_losses:
            # A sum over the global batch is the number of processes times the mean of their sums.
            counts.append(masked if loss.reduction == "mean" else torch.tensor(1 / processes))
        values = torch.stack([mean.to(means[-1].dtype) for mean in means])
        counted = torch.stack([count.to(values) for count in counts])
        return self.network.combine(list(global_means(values, counted).unbind()))
