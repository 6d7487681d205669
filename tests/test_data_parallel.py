"""Two processes train as one does on the global batch; what would leave them to themselves is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import batch, conv, generator, heatmap_loss, make
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import isnet

Batch = tuple[Tensor, Tensor, Tensor]
_STEPS, _PROCESSES = 3, 2


def _parts(unequal: bool, few_masks: bool) -> list[Batch]:
    """Return what each process gets of a global batch: images, masks (in the first process's part few), labels."""
    images, masks, labels = batch(8)
    if few_masks:
        masks[[0, 1, 2, 6]] = torch.nan
    first = 3 if unequal else 4
    return [
        tuple(each[:first] for each in (images, masks, labels)),
        tuple(each[first:] for each in (images, masks, labels)),
    ]


def _network(variant: type = isnet.OriginalISNet, rank: int = 0, **options: Any) -> isnet.ISNet:
    # No batch norm in training mode, whose statistics are each process's own.
    return variant(make("residual"), heatmap_loss(), generator=generator(rank), **options)


def _weighted(**options: Any) -> dict[str, Any]:
    return {"class_weights": torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64), **options}


_CASES: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "equal parts": ({}, {"unequal": False, "few_masks": False}),
    "unequal parts, class weights": (_weighted(), {"unequal": True, "few_masks": False}),
    "few masks": ({}, {"unequal": False, "few_masks": True}),
    "few masks, Dual": ({"variant": isnet.DualISNet}, {"unequal": True, "few_masks": True}),
    "layers, worst first": ({"layers": ("3", "5"), "layer_decay": 0.2}, {"unequal": True, "few_masks": True}),
}


def _train(step: Callable[[], Tensor], network: nn.Module) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    totals = []
    for _ in range(_STEPS):
        optimizer.zero_grad()
        total = step()
        total.backward()
        optimizer.step()
        totals.append(total.detach())
    return {"totals": torch.stack(totals), **{key: value.clone() for key, value in network.state_dict().items()}}


def _fraction_draws(rank: int, part: Batch) -> dict[str, Tensor]:
    network = _network(rank=rank, heatmap_fraction=0.5)
    parallel = DistributedDataParallel(isnet.DataParallelTraining(network))
    return _train(lambda: parallel(*part).total, network.backbone)


def _refusals(rank: int, part: Batch) -> dict[str, str]:
    def told(action: Callable[[], object]) -> str:
        try:
            action()
        except ValueError as error:
            return str(error)
        return "nothing"

    around, inside, apart = (make("residual", dtype=torch.float64) for _ in range(3))
    bypassed = isnet.StochasticISNet(inside, heatmap_loss())
    parallel = DistributedDataParallel(bypassed)
    other = DistributedDataParallel(copy.deepcopy(apart))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(make("residual")).train()
    sharded = make("residual")
    fully_shard(sharded, mesh=distributed.device_mesh.init_device_mesh("cpu", (_PROCESSES,)))
    return {
        "around": told(lambda: isnet.StochasticISNet(DistributedDataParallel(around), heatmap_loss())),
        "bypassed": told(lambda: parallel.module.training_loss(*part)),
        "bypassed wrapper": told(lambda: isnet.DataParallelTraining(parallel.module)(*part)),
        "backbone held by another": told(
            lambda: isnet.StochasticISNet(other.module, heatmap_loss()).training_loss(*part)
        ),
        "apart": told(lambda: isnet.StochasticISNet(apart, heatmap_loss()).training_loss(*part)),
        "validation": told(lambda: torch.no_grad()(parallel.module.training_loss)(*part)),
        "synchronised": told(lambda: isnet.StochasticISNet(synchronised, heatmap_loss()).training_loss(*part)),
        "synchronised, frozen": told(lambda: isnet.LRPFlex(synchronised.eval())(part[0], isnet.Logit(0))),
        "sharded": told(lambda: isnet.StochasticISNet(sharded, heatmap_loss()).training_loss(*part)),
    }


def _with_batch_norm(rank: int, part: Batch) -> dict[str, Tensor]:
    network = _network()
    parallel = DistributedDataParallel(isnet.DataParallelTraining(network).train(), broadcast_buffers=False)
    parallel(*part).total.backward()
    return {name: parameter.grad for name, parameter in network.backbone.named_parameters()}


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    options = {"rank": rank, "world_size": _PROCESSES, "init_method": f"file://{folder / 'meeting'}"}
    distributed.init_process_group("gloo", **options)
    found: dict[str, Any] = {}
    for name, (options, kind) in _CASES.items():
        network = _network(rank=rank, **options)
        parallel = DistributedDataParallel(isnet.DataParallelTraining(network))
        part = _parts(**kind)[rank]
        found[name] = _train(lambda parallel=parallel, part=part: parallel(*part).total, network.backbone)
    part = _parts(unequal=False, few_masks=True)[rank]
    found["fraction"] = _fraction_draws(rank, part)
    found["batch norm"] = _with_batch_norm(rank, part)
    found["refusals"] = _refusals(rank, part)
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process found."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(_work, (folder,), _PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(_PROCESSES)]


def _equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-9, atol=1e-11), key


@pytest.mark.slow
@pytest.mark.parametrize("name", _CASES)
def test_weights_are_those_of_one_process_with_the_global_batch(found: list[dict[str, Any]], name: str) -> None:
    options, kind = _CASES[name]
    network, parts = _network(**options), _parts(**kind)
    whole = [torch.cat(each) for each in zip(*parts, strict=True)]
    expected = _train(lambda: network.training_loss(*whole).total, network.backbone)
    for of_process in found:
        _equal(of_process[name], expected)
    assert not torch.equal(expected["0.weight"], make("residual")[0].weight)


@pytest.mark.slow
def test_a_part_of_the_heatmaps_counts_for_all_masked_images_of_its_process(found: list[dict[str, Any]]) -> None:
    parts, backbone = _parts(unequal=False, few_masks=True), make("residual")
    networks = [
        isnet.OriginalISNet(backbone, heatmap_loss(), generator=generator(rank), heatmap_fraction=0.5)
        for rank in (0, 1)
    ]

    def total() -> Tensor:
        # 1 of 4 images of the first process has a mask, 3 of 4 of the second's; it explains 2 of these.
        (one, of_one), (other, of_other) = (net.means(*part) for net, part in zip(networks, parts, strict=True))
        return 0.3 * (one + other) / 2 + 0.7 * (1 * of_one + 3 * of_other) / 4

    expected = _train(total, backbone)
    for of_process in found:
        _equal(of_process["fraction"], expected)


@pytest.mark.slow
def test_batch_statistics_are_each_process_s_own(found: list[dict[str, Any]]) -> None:
    backbone, parts = make("residual").train(), _parts(unequal=False, few_masks=True)
    one, other = (isnet.OriginalISNet(backbone, heatmap_loss()).means(*part) for part in parts)
    total = 0.3 * (one[0] + other[0]) / 2 + 0.7 * (1 * one[1] + 3 * other[1]) / 4
    names = [name for name, _ in backbone.named_parameters()]
    expected = dict(zip(names, torch.autograd.grad(total, list(backbone.parameters())), strict=True))
    for of_process in found:
        _equal(of_process["batch norm"], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("around", "around a DistributedDataParallel module would bypass it"),
        ("bypassed", "bypasses the DistributedDataParallel module"),
        ("bypassed wrapper", "bypasses the DistributedDataParallel module"),
        ("backbone held by another", "bypasses the DistributedDataParallel module"),
        ("apart", "nothing"),
        ("validation", "nothing"),
        ("synchronised", "synchronised batch norm in training mode, in 1 (SyncBatchNorm)"),
        ("synchronised, frozen", "nothing"),
        ("sharded", "spread over processes (FSDP)"),
    ],
)
def test_ways_past_the_wrapper_are_refused(found: list[dict[str, Any]], way: str, told: str) -> None:
    for of_process in found:
        message = of_process["refusals"][way]
        assert told in message
        assert told == "nothing" or "isnet.DataParallelTraining" in message or "evaluation mode" in message


# ---- one process ----


@contextmanager
def _group_of_one(folder: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{folder / 'meeting'}")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def test_alone_the_wrapper_is_the_training_loss(tmp_path: Path) -> None:
    given = batch()
    expected = _network().training_loss(*given)
    assert torch.equal(isnet.DataParallelTraining(_network())(*given).total, expected.total)
    with _group_of_one(tmp_path):
        parallel = DistributedDataParallel(isnet.DataParallelTraining(_network()))
        assert torch.equal(parallel(*given).total, expected.total)
        around = isnet.OriginalISNet(DistributedDataParallel(make("residual")), heatmap_loss())
        assert torch.equal(around.training_loss(*given).total, expected.total)


def test_data_parallel_over_several_devices_is_refused() -> None:
    network = nn.DataParallel(nn.Sequential(conv(3, 4), nn.ReLU()))
    network.device_ids = [0, 1]
    with pytest.raises(ValueError, match=r"around a DataParallel module .* isnet\.DataParallelTraining"):
        isnet.StochasticISNet(network, heatmap_loss())
    with pytest.raises(ValueError, match="DataParallel cannot train an ISNet"):
        _network()._replicate_for_data_parallel()


def test_losses_of_each_image_cannot_be_averaged_over_processes() -> None:
    network = isnet.OriginalISNet(make("plain"), heatmap_loss(reduction="none"))
    with pytest.raises(ValueError, match="reduction"):
        isnet.DataParallelTraining(network)
