"""One training step: forward pass, heatmaps, losses, backward pass, optimizer."""

import dataclasses
import math
import time

import pytest
import torch

from isnet_bench import methods, timing

CHANNELS = 1
# Any range does: the time of a step does not depend on it, so none is measured here.
RANGE = {"c1": 1.0, "c2": 25.0}


class Step:
    """One training step of a method on random images, masks and labels that are on the device already."""

    def __init__(self, entry, classes, settings, device):
        torch.manual_seed(0)
        size, batch = settings["image_size"], settings["batch_size"]
        form = {"classes": range(classes), "channels": CHANNELS, "image_size": size}
        if methods.get(entry.method).needs_range(entry.params):
            entry = dataclasses.replace(entry, params={**entry.params, **RANGE})
        self.device = device
        self.images = torch.rand(batch, CHANNELS, size, size, device=device)
        self.masks = torch.zeros(batch, 1, size, size, device=device)
        self.masks[:, :, size // 4 : -(size // 4), size // 4 : -(size // 4)] = 1
        self.labels = torch.randint(classes, (batch,), device=device)
        task = methods.task(settings["backbone"], form)
        self.module = methods.build(entry, task, None).to(device).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), fused=True)

    def __call__(self):
        """Take the step and return the loss, which on a GPU waits for all that was started there."""
        self.optimizer.zero_grad()
        losses = self.module.training_loss(self.images, self.masks, self.labels)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return losses.total.item()


def test_training_step(benchmark, case, settings, device, too_slow):
    limit = settings.get("step_limit_seconds", math.inf)
    row, classes = case.entry.row, case.classes
    if row in too_slow:
        pytest.skip(f"one step of {row} takes more than {limit} s with fewer classes already")
    step = Step(case.entry, classes, settings, device)
    start = time.perf_counter()
    assert math.isfinite(step())
    if time.perf_counter() - start > limit:
        too_slow.add(row)
        pytest.skip(f"one step of {row} takes more than {limit} s with {classes} classes")
    benchmark.group = f"training step, {classes} classes"
    benchmark.extra_info.update(
        measures=timing.MEASURES,
        method=row,
        label=case.entry.label,
        classes=classes,
        sweep=case.sweep,
        backbone=settings["backbone"]["name"],
        batch_size=settings["batch_size"],
        image_size=settings["image_size"],
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
    )
    benchmark.pedantic(step, rounds=case.rounds)
