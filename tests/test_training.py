"""The trainer: what it writes, that runs can be repeated and resumed, and how it fails."""

import copy
import csv
import errno
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import isnet
from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.data import Split
from isnet_bench.io.errors import BenchError
from isnet_bench.methods import backbones
from isnet_bench.training import fit as fitting
from isnet_bench.training import runs
from isnet_bench.training import train as training

CPU = torch.device("cpu")
METHODS = ("resnet", "stochastic_isnet")


def run(tiny_config, tiny_data, out, method="resnet", seed=0):
    training.train(runs.Job(tiny_config, "tiny", method, seed, tiny_data), out, None)
    return load_file(out / "weights.safetensors")


def history(out):
    with (out / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def changed(tiny_given, **settings):
    given = copy.deepcopy(tiny_given)
    given["experiments"]["tiny"]["training"].update(settings)
    return configuration.check(given, "the test's configuration")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def finished(tiny_config, tiny_data, tmp_path_factory):
    """Folders of finished runs, by method."""
    folders = {method: tmp_path_factory.mktemp(method) / "run" for method in METHODS}
    for method, folder in folders.items():
        run(tiny_config, tiny_data, folder, method)
    return folders


@pytest.fixture(scope="module")
def few(tiny_data):
    return datasets.load(tiny_data, "train"), datasets.load(tiny_data, "val")


def settings(**changes):
    given = {"epochs": 3, "batch_size": 20, "learning_rate": 0.1, "schedule": "constant", **changes}
    return configuration.Training(**given)


def fit(module, few, folder, **changes):
    return fitting.fit(module, *few, settings(**changes), seed=0, name="it", folder=folder, identity="it", device=CPU)


class Slope(nn.Module):
    """One number that training lowers; ``losses`` tells what it costs in training and in validation."""

    def __init__(self, train=lambda p: p, val=lambda p: p):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(1.0))
        self.losses = {True: train, False: val}

    def forward(self, images):
        return self.p * torch.ones(len(images), 10)

    def training_loss(self, images, masks, labels):
        total = self.losses[self.training](self.p)
        return isnet.Losses(total, {"part": total / 2})


@pytest.mark.parametrize("method", METHODS)
def test_files_of_a_run(finished, tiny_config, tiny_data, method):
    out = finished[method]
    assert {path.name for path in out.iterdir()} == {"weights.safetensors", "history.csv", "run.json"}
    record = json.loads((out / "run.json").read_text())
    assert (record["experiment"], record["row"], record["method"], record["seed"]) == ("tiny", method, method, 0)
    assert record["config"] == json.loads(tiny_config.part("train", "tiny", method))
    assert record["data"] == datasets.info(tiny_data)
    assert record["source"] == tiny_config.source("tiny", method)
    assert record["range"] is None
    assert record["epochs"] == 3
    assert 0 < record["train_seconds"] <= record["seconds"]
    assert record["hardware"]["threads"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert set(record) > {"training", "hyperparameters", "started", "git_commit", "git_dirty", "parameters"}


@pytest.mark.parametrize(
    ("method", "parts"), [("resnet", ["classification"]), ("stochastic_isnet", ["classification", "heatmap"])]
)
def test_history_has_every_part_of_the_loss(finished, method, parts):
    rows = history(finished[method])
    names = ["loss", *parts]
    assert list(rows[0]) == ["epoch", *(f"train_{n}" for n in names), *(f"val_{n}" for n in names), "val_accuracy"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_the_plain_classifiers(finished, method, few):
    network = backbones.create("resnet_small", 10, 1, 28)
    network.load_state_dict(load_file(finished[method] / "weights.safetensors"))
    record = json.loads((finished[method] / "run.json").read_text())
    assert record["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    if method == "resnet":
        network.eval()
        val = few[1]
        loss = nn.functional.cross_entropy(network(val.images), val.labels)
        assert loss.item() == pytest.approx(history(finished[method])[-1]["val_loss"], rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights_other_seed_other_weights(finished, tiny_config, tiny_data, tmp_path, method):
    first = load_file(finished[method] / "weights.safetensors")
    torch.rand(7)
    assert same(first, run(tiny_config, tiny_data, tmp_path / "again", method))
    assert not same(first, run(tiny_config, tiny_data, tmp_path / "other", method, seed=1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [10, 12])
def test_resumed_run_ends_like_an_uninterrupted_one(
    finished, tiny_config, tiny_data, tmp_path, monkeypatch, caplog, method, calls
):
    step, done = fitting.Loop.training_step, []

    def interrupted(self, batch, batch_idx):
        done.append(batch_idx)
        if len(done) == calls:
            raise ConnectionAbortedError("the power failed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(fitting.Loop, "training_step", interrupted)
    with pytest.raises(ConnectionAbortedError):
        run(tiny_config, tiny_data, tmp_path, method)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}
    monkeypatch.setattr(fitting.Loop, "training_step", lambda *given: done.append("resumed") or step(*given))
    caplog.clear()
    with caplog.at_level(logging.INFO, "isnet_bench"):
        weights = run(tiny_config, tiny_data, tmp_path, method)
    assert "training resumes from" in caplog.text
    assert [caplog.text.count(f"epoch {epoch} of 3") for epoch in (1, 2, 3)] == [1, 1, 1]
    assert done.count("resumed") == 4  # the last of three epochs
    assert same(weights, load_file(finished[method] / "weights.safetensors"))
    assert (tmp_path / "history.csv").read_text() == (finished[method] / "history.csv").read_text()


@pytest.mark.parametrize("damage", ["other configuration", "broken file"])
def test_useless_checkpoint_is_not_resumed(
    finished, tiny_config, tiny_given, tiny_data, tmp_path, monkeypatch, caplog, damage
):
    with monkeypatch.context() as patch:
        patch.setattr(training, "write", lambda *_: (_ for _ in ()).throw(BenchError("stop")))
        with pytest.raises(BenchError):
            run(changed(tiny_given, weight_decay=0.5), tiny_data, tmp_path)
    if damage == "broken file":
        (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    weights = run(tiny_config, tiny_data, tmp_path)
    assert "training starts anew" in caplog.text
    assert same(weights, load_file(finished["resnet"] / "weights.safetensors"))


def test_two_trainers_do_not_share_a_folder(tiny_config, tiny_data, tmp_path, monkeypatch):
    write, refused = training.write, []

    def meanwhile(*given):
        with pytest.raises(BenchError, match=r"is using .*: wait until it has ended") as caught:
            run(tiny_config, tiny_data, tmp_path, seed=1)
        refused.append(caught)
        write(*given)

    monkeypatch.setattr(training, "write", meanwhile)
    run(tiny_config, tiny_data, tmp_path)
    assert len(refused) == 1
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 0


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_of_another_training_is_not_taken(few, tmp_path, name):
    fit(Slope(), few, tmp_path / "it", epoch="total")
    state = torch.load(tmp_path / "it" / name, weights_only=True)
    torch.save({**state, "identity": "another"}, tmp_path / "it" / name)
    again = Slope()
    fit(again, few, tmp_path / "it", epoch="total")
    plain = Slope()
    fit(plain, few, tmp_path / "plain", epoch="total")
    assert again.p.item() == plain.p.item()


def test_a_best_epoch_that_another_process_wrote_is_an_error(few, tmp_path, monkeypatch):
    class Crossed(Slope):
        def training_loss(self, images, masks, labels):
            if self.p < -0.1:
                torch.save({"identity": "another", "state_dict": {}}, tmp_path / "best.ckpt")
            return super().training_loss(images, masks, labels)

    with pytest.raises(BenchError, match=r"best\.ckpt is damaged or of another training; delete"):
        fit(Crossed(val=lambda p: p**2), few, tmp_path, epoch="total")


@pytest.mark.parametrize("rule", ["last", "total"])
def test_a_disk_that_fills_up_is_a_sentence_and_leaves_whole_checkpoints(few, tmp_path, monkeypatch, rule):
    write, room = Path.write_bytes, [4 if rule == "total" else 2]

    def full(path, content):
        room[0] -= 1
        if room[0] < 0:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            BenchError, match=r"^it: .*\.ckpt cannot be written \(.*No space left.*\): free .* resumes$"
        ):
            fit(Slope(), few, tmp_path / "it", epoch=rule)
    names = {"last.ckpt"} if rule == "last" else {"best.ckpt", "last.ckpt"}
    assert {path.name for path in (tmp_path / "it").iterdir()} == names
    assert torch.load(tmp_path / "it" / "last.ckpt", weights_only=True)["epoch"] == 1
    resumed, plain = Slope(), Slope()
    fit(resumed, few, tmp_path / "it", epoch=rule)
    fit(plain, few, tmp_path / "plain", epoch=rule)
    assert resumed.p.item() == plain.p.item()


def test_a_checkpoint_with_one_other_byte_is_not_taken(few, tmp_path, caplog):
    fit(Slope(), few, tmp_path / "it")
    path = tmp_path / "it" / "last.ckpt"
    content, place = path.read_bytes(), np.float32(torch.load(path, weights_only=True)["state_dict"]["module.p"])
    found = content.index(place.tobytes())
    path.write_bytes(content[:found] + bytes([content[found] ^ 1]) + content[found + 1 :])
    assert torch.load(path, weights_only=True)["state_dict"]["module.p"] != place, "torch does not notice"
    fit(Slope(), few, tmp_path / "it")
    assert "last.ckpt is damaged or belongs to another configuration; training starts anew" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_loss_names_method_seed_epoch_and_batch(tiny_config, tiny_data, tmp_path, monkeypatch, value):
    from baselines.classifier import BackboneClassifier

    true_loss, calls = BackboneClassifier.training_loss, []

    def loss(self, images, masks, labels):
        losses = true_loss(self, images, masks, labels)
        calls.append(self.training)
        return losses._replace(total=losses.total * value) if calls.count(True) == 7 else losses

    monkeypatch.setattr(BackboneClassifier, "training_loss", loss)
    with pytest.raises(BenchError, match=rf"^tiny, resnet, seed 5: the loss is {value} at epoch 2, batch 3; lower"):
        run(tiny_config, tiny_data, tmp_path, seed=5)
    assert not (tmp_path / "weights.safetensors").exists()


def test_non_finite_gradient_is_an_error(few, tmp_path):
    with pytest.raises(BenchError, match="it: the gradient is inf at epoch 1, batch 1"):
        fit(Slope(lambda p: torch.sqrt(p - 1) + p), few, tmp_path)


def test_non_finite_validation_loss_is_an_error(few, tmp_path):
    with pytest.raises(BenchError, match="it: the validation loss is nan at epoch 1, batch 1"):
        fit(Slope(val=lambda p: p * float("nan")), few, tmp_path)


@pytest.mark.parametrize(
    ("rule", "epoch", "number"), [({}, 3, -0.2), ({"epoch": "classification"}, 1, 0.6), ({"epoch": "total"}, 2, 0.2)]
)
def test_the_epoch_whose_weights_are_kept(few, tmp_path, rule, epoch, number):
    class Two(Slope):
        def training_loss(self, images, masks, labels):
            losses = super().training_loss(images, masks, labels)
            return losses._replace(parts={"classification": (self.p - 0.7) ** 2})

    # Each of the 4 batches of an epoch lowers the number by 0.1, from 1: the epochs end at 0.6, 0.2, -0.2.
    module = Two(val=lambda p: (p - 0.25) ** 2)
    state = fit(module, few, tmp_path, weight_decay=0.0, **rule)
    assert [row["val_loss"] for row in state.history] == pytest.approx([0.35**2, 0.05**2, 0.45**2], abs=1e-4)
    assert settings(**rule).kept(state.history)["epoch"] == epoch
    assert module.p.item() == pytest.approx(number, abs=1e-4)
    # What is resumed when nothing is left to train keeps the same epoch.
    again = Two(val=lambda p: (p - 0.25) ** 2)
    fit(again, few, tmp_path, weight_decay=0.0, **rule)
    assert again.p.item() == pytest.approx(number, abs=1e-4)


def test_an_epoch_cannot_be_chosen_by_a_part_that_the_loss_does_not_have(few, tmp_path):
    with pytest.raises(BenchError, match="it: the loss has no part 'classification'; set training"):
        fit(Slope(), few, tmp_path, epoch="classification")


def test_validation_has_the_same_random_numbers_in_every_epoch(few, tmp_path):
    drawn = {True: [], False: []}

    class Random(Slope):
        def training_loss(self, images, masks, labels):
            drawn[self.training].append(float(torch.rand(())))
            assert torch.is_grad_enabled()
            return super().training_loss(images, masks, labels)

    fit(Random(), few, tmp_path)
    assert len(set(drawn[True])) == 12
    assert len(drawn[False]) == 3
    assert len(set(drawn[False])) == 1


@pytest.mark.parametrize(("limit", "norm"), [(1.0, 1.0), (None, 1000.0)])
def test_gradient_is_clipped(few, tmp_path, limit, norm):
    norms = []

    def note(optimizer, *_):
        norms.append(float(optimizer.param_groups[0]["params"][0].grad.norm()))

    handle = register_optimizer_step_post_hook(note)
    try:
        fit(Slope(lambda p: 1000 * p), few, tmp_path, gradient_clip=limit)
    finally:
        handle.remove()
    assert norms == pytest.approx([norm] * 12, rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", (1, 1, 1)), ("cosine", (1, 0.5, 0)), ("one_cycle", (0.04, 0.7, 0))]
)
def test_schedules(few, tmp_path, schedule, expected):
    rates = []

    def note(optimizer, *_):
        rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(note)
    try:
        fit(Slope(), few, tmp_path, schedule=schedule, learning_rate=0.01)
    finally:
        handle.remove()
    assert len(rates) == 12
    assert [rates[0] / 0.01, rates[6] / 0.01, rates[-1] / 0.01] == pytest.approx(expected, abs=0.1)


def test_batches_are_whole_and_differ_from_epoch_to_epoch():
    batches, again = (fitting.SeededBatches(90, 20, seed=3) for _ in range(2))
    epochs = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        epochs.append(torch.stack(list(batches)))
    assert epochs[0].shape == (len(batches), 20) == (4, 20)
    assert len(epochs[0].unique()) == 80
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], torch.stack(list(again)))
    assert not torch.equal(epochs[0], torch.stack(list(fitting.SeededBatches(90, 20, seed=4))))


def test_batch_larger_than_the_data_is_all_of_them(few, tmp_path, caplog):
    assert len(fit(Slope(), few, tmp_path, batch_size=1000, epochs=1).history) == 1
    assert "it: training.batch_size is 1000, and a batch has all of the 90 training images" in caplog.text


def test_losses_are_means_over_images(few, tmp_path):
    train, val = few

    class Counting(Slope):
        def training_loss(self, images, masks, labels):
            return isnet.Losses(labels.float().mean() + 0 * self.p, {})

    uneven = Split(*(tensor[:17] for tensor in val))
    state = fit(Counting(), (train, uneven), tmp_path, val_batch_size=5, epochs=1)
    assert state.history[0]["val_loss"] == pytest.approx(float(uneven.labels.float().mean()), rel=1e-6)


def test_log_has_one_line_for_each_epoch_and_no_chatter(few, tmp_path, caplog, capfd):
    with caplog.at_level(logging.INFO):
        fit(Slope(), few, tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[1].strip() for line in lines] == [f"epoch {k} of 3" for k in (1, 2, 3)]
    assert "val_accuracy" in lines[0]
    assert capfd.readouterr() == ("", "")


def test_balanced_class_weights():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = training._class_weights(settings(class_weights="balanced"), labels, 3)
    assert weights.tolist() == pytest.approx([6 / 9, 2, 1])
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert training._class_weights(settings(), labels, 3) is None
    with pytest.raises(BenchError, match="a class has no training image"):
        training._class_weights(settings(class_weights="balanced"), labels, 4)


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [runs.device_of(configuration.Config(device=name)).type for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(BenchError, match="torch finds no GPU; set device to auto or cpu"):
        runs.device_of(configuration.Config(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [runs.device_of(configuration.Config(device=name)).type for name in ("auto", "cpu", "cuda")] == [
        "cuda",
        "cpu",
        "cuda",
    ]
