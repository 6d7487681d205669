"""Training images without a mask: which keep theirs, how those get into batches, and what is refused."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch

import isnet
from isnet_bench import config as configuration
from isnet_bench.config import MaskSubset
from isnet_bench.data import Split
from isnet_bench.evaluation import swap
from isnet_bench.io.errors import BenchError
from isnet_bench.training import fit as fitting
from isnet_bench.training import runs
from isnet_bench.training import train as training
from isnet_bench.training.mask_subset import keep_masks

ALL = 40


def split(labels, without=()):
    """Images whose masks differ, of which those at some places have none."""
    masks = torch.arange(1.0, len(labels) + 1).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    masks[list(without)] = torch.nan
    return Split(torch.zeros(len(labels), 1, 2, 2), masks, torch.tensor(labels))


TRAIN, VAL = split([0, 1, 2, 3] * 10), split([0, 1, 2, 3] * 2)


def kept(given):
    """Which images of a split have a mask, after checking that these are whole and their own."""
    there = ~given.masks[:, 0, 0, 0].isnan()
    assert bool(given.masks[~there].isnan().all())
    places = there.nonzero().flatten()
    assert torch.equal(given.masks[there], (places + 1.0).view(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    return places.tolist()


def places(seed=0, train=TRAIN, val=VAL, **subset):
    return tuple(kept(given) for given in keep_masks(train, val, MaskSubset(**subset), seed))


@pytest.mark.parametrize(
    ("number", "of_train", "of_val"), [(10, 10, 2), (0.5, 20, 4), (1, 1, 1), (0.01, 1, 1), (40, 40, 8), (0.99, 40, 8)]
)
def test_so_many_masks_are_kept_and_validation_has_the_same_share(number, of_train, of_val):
    assert tuple(map(len, places(number=number))) == (of_train, of_val)


def test_validation_never_has_more_masks_than_training_and_none_where_there_is_none():
    assert [len(found) for found in places(number=2, train=split([0] * 2), val=split([0] * 30))] == [2, 2]
    assert [len(found) for found in places(number=2, val=split([0] * 3, without=range(3)))] == [2, 0]


def test_each_seed_has_another_subset_and_larger_ones_include_smaller_ones():
    drawn = [places(seed, number=10)[0] for seed in range(20)]
    assert drawn[0] == places(0, number=10)[0]
    assert len({tuple(found) for found in drawn}) == 20
    # Each image is drawn 5 times on average; more than 14 times of 20 has a probability of 4e-6.
    assert torch.tensor(drawn).flatten().bincount(minlength=ALL).max() <= 14
    for choose in ("random", "per_class", "one_class"):
        assert set(places(number=4, choose=choose)[0]) < set(places(number=9, choose=choose)[0])


def test_masks_of_each_class_and_of_one():
    rare = split([0, 1, 2, 2, 2, 2, 1, 0, 2, 2], without=[7])
    of_class = [rare.labels[places(seed, rare, VAL, number=6, choose="per_class")[0]] for seed in range(9)]
    # One image of class 0 has a mask, two of class 1; the rest must be of class 2.
    assert {tuple(labels.bincount().tolist()) for labels in of_class} == {(1, 2, 3)}
    numbers = [TRAIN.labels[places(seed, number=6, choose="per_class")[0]].bincount().tolist() for seed in range(9)]
    assert {tuple(sorted(number)) for number in numbers} == {(1, 1, 2, 2)}
    assert len(set(map(tuple, numbers))) > 1
    for found, labels in zip(places(number=8, choose="one_class"), (TRAIN.labels, VAL.labels), strict=True):
        assert set(labels[found].tolist()) == {0}


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ({"number": 41}, "asks for 41 masks, but 40 training images have one; lower it"),
        ({"number": 0.5, "choose": "one_class"}, "asks for 20 masks, but 10 training images of the lowest label have"),
    ],
)
def test_more_masks_than_there_are_are_refused(subset, message):
    with pytest.raises(BenchError, match=message):
        places(**subset)


def test_images_without_a_mask_stay_so():
    few = split([0, 1] * 5, without=[0, 3, 4, 5, 6, 9])
    assert places(train=few, number=4)[0] == [1, 2, 7, 8]
    assert len(places(train=few, number=0.5)[0]) == 2
    with pytest.raises(BenchError, match="asks for 5 masks, but 4 training images"):
        places(train=few, number=5)


# --- batches ------------------------------------------------------------------------------------------------


def batches(masked, added, seed=3, epoch=0):
    made = fitting.SeededBatches(90, 20, seed, torch.tensor(masked), added)
    made.set_epoch(epoch)
    return list(made)


def test_images_with_a_mask_are_added_to_each_batch():
    masked = list(range(0, 90, 7))
    found, plain = batches(masked, 5), list(fitting.SeededBatches(90, 20, seed=3))
    assert len(found) == len(plain) == 4
    for batch, without in zip(found, plain, strict=True):
        assert torch.equal(batch[:20], without)
        assert len(set(batch[20:].tolist())) == len(batch[20:]) == 5
        assert set(batch[20:].tolist()) <= set(masked)
    added = {tuple(batch[20:].tolist()) for epoch in (0, 1) for batch in batches(masked, 5, epoch=epoch)}
    assert len(added) == 8
    again = batches(masked, 5)
    assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))


def test_where_there_are_too_few_each_is_added_equally_often():
    for batch in batches([4, 5, 6], 8):
        assert sorted(batch[20:].bincount()[4:].tolist()) == [2, 3, 3]


# --- runs ---------------------------------------------------------------------------------------------------


def changed(given, masks=None, **settings):
    given = copy.deepcopy(given)
    section = given["experiments"]["tiny"]
    section["data"]["masks"] = masks
    section["training"].update(settings)
    return configuration.check(given, "the test's configuration")


def seen_in_training(config, data, out, monkeypatch, seed=0):
    """Train; return for each batch how many images it has, and how many with a mask."""
    seen = {"training": [], "validation": []}
    step, validate = fitting.Loop.training_step, fitting.Loop.validation_step

    def note(place, batch):
        seen[place].append((len(batch[0]), int((~batch[1][:, 0, 0, 0].isnan()).sum())))

    def training_step(self, batch, number):
        note("training", batch)
        return step(self, batch, number)

    def validation_step(self, batch, number):
        note("validation", batch)
        return validate(self, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Loop, "training_step", training_step)
        patch.setattr(fitting.Loop, "validation_step", validation_step)
        training.train(runs.Job(config, "tiny", "stochastic_isnet", seed, data), out, None)
    return seen


def test_a_run_has_the_masks_and_the_batches_that_it_asks_for(tiny_given, tiny_data, tmp_path, monkeypatch):
    config = changed(tiny_given, masks=6, masked_images=4)
    seen = seen_in_training(config, tiny_data, tmp_path / "run", monkeypatch)
    size = config.row("tiny", "stochastic_isnet").training.batch_size
    assert {number for number, _ in seen["training"]} == {size + 4}
    assert all(4 <= masked <= 4 + 6 for _, masked in seen["training"])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["experiments"]["tiny"]["data"]["masks"] == {"number": 6}
    assert record["training"]["masked_images"] == 4
    epochs = record["epochs"]
    share = round(6 / record["data"]["splits"]["train"] * record["data"]["splits"]["val"])
    assert sum(masked for _, masked in seen["validation"]) == epochs * max(1, share)


def test_an_interrupted_run_draws_the_same_images(tiny_given, tiny_data, tmp_path, monkeypatch):
    config, step, done = changed(tiny_given, masks=6, masked_images=4), fitting.Loop.training_step, []
    job = runs.Job(config, "tiny", "stochastic_isnet", 0, tiny_data)
    training.train(job, tmp_path / "whole", None)

    def interrupted(self, batch, number):
        done.append(number)
        if len(done) == 10:
            raise ConnectionAbortedError("the power failed")
        return step(self, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Loop, "training_step", interrupted)
        with pytest.raises(ConnectionAbortedError):
            training.train(job, tmp_path / "resumed", None)
    training.train(job, tmp_path / "resumed", None)
    for name in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_there_must_be_a_mask_to_be_added(tmp_path):
    nothing = split([0] * 4, without=range(4))
    settings = configuration.Training(epochs=1, batch_size=2, learning_rate=1e-3, masked_images=1)
    with pytest.raises(BenchError, match="it: no training image has a mask; set training"):
        fitting.fit(
            torch.nn.Linear(1, 1),
            nothing,
            nothing,
            settings,
            seed=0,
            name="it",
            folder=tmp_path,
            identity="it",
            device=torch.device("cpu"),
        )


# --- configuration ------------------------------------------------------------------------------------------


def test_masks_are_part_of_a_run_and_not_of_its_data(tiny_given):
    few, all_masks = changed(tiny_given, masks={"number": 0.1, "choose": "per_class"}), changed(tiny_given)
    assert few.part("prepare", "tiny") == all_masks.part("prepare", "tiny")
    assert few.part("train", "tiny", "resnet") != all_masks.part("train", "tiny", "resnet")
    again = configuration.load(few.part("train", "tiny", "resnet")).experiment("tiny").data
    assert again.masks == MaskSubset(number=0.1, choose="per_class")
    assert "masks" not in again.settings


@pytest.mark.parametrize(
    "masks", [0, -1, 0.0, 1.0, 1.5, "10", True, {"choose": "random"}, {"number": 3, "choose": "x"}]
)
def test_impossible_numbers_of_masks_are_refused(tiny_given, masks):
    with pytest.raises(BenchError, match=r"experiments\.tiny\.data\.masks"):
        changed(tiny_given, masks=masks)


def test_the_oracle_needs_all_masks(tiny_given):
    given = copy.deepcopy(tiny_given)
    given["experiments"]["tiny"]["methods"]["masked_input"] = {}
    with pytest.raises(BenchError, match=r"methods\.masked_input: masked_input sees the mask of every image and is"):
        changed(given, masks=6)
    changed(given)


# --- docs/few_masks.md --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snippets():
    page = Path(__file__).resolve().parents[1] / "docs" / "few_masks.md"
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_loop_of_the_docs_trains_with_few_masks(snippets, monkeypatch):
    torch.manual_seed(0)
    images, labels = torch.rand(130, 3, 32, 32), torch.arange(130) % 3
    masks = torch.full((130, 1, 32, 32), torch.nan)
    masks[::13], masks[::13, :, 8:24] = 0, 1
    seen, loss_of = [], isnet.StochasticISNet.training_loss

    def note(self, images, masks, labels):
        losses = loss_of(self, images, masks, labels)
        seen.append((len(images), int((~masks[:, 0, 0, 0].isnan()).sum()), losses.parts["heatmap"].item()))
        return losses

    monkeypatch.setattr(isnet.StochasticISNet, "training_loss", note)
    exec(snippets[0], {"images": images, "masks": masks, "labels": labels})
    assert [number for number, _, _ in seen] == [72, 72]
    assert all(masked >= 8 and heatmap > 0 for _, masked, heatmap in seen)


class Second(torch.nn.Module):
    """Class 1 if the second pixel is brighter than 1/2."""

    def forward(self, images):
        return torch.stack([0 * images[:, 0, 0, 0] + 0.5, images[:, 0, 0, 1]], 1)


def foregrounds_and_backgrounds():
    """Return two images, three others, and their masks.

    The backgrounds' second pixels, holes filled, are 1, 0.7 and 0.3: two of three change the first prediction, and none
    the second, whose pixel belongs to its foreground.
    """
    images = torch.tensor([[[[0.1, 0.0, 0.0]]], [[[0.9, 0.8, 0.0]]]])
    masks = torch.tensor([[[[1.0, 0.0, 0.0]]], [[[1.0, 1.0, 0.0]]]])
    others = torch.tensor([[[[0.0, 1.0, 1.0]]], [[[0.4, 0.9, 1.0]]], [[[0.9, 0.9, 0.3]]]])
    masks_of_others = torch.tensor([[[[1.0, 0.0, 0.0]]], [[[0.0, 1.0, 0.0]]], [[[1.0, 1.0, 0.0]]]])
    return images, masks, others, masks_of_others


def test_the_check_of_the_docs_counts_changed_predictions(snippets):
    place = {}
    exec(snippets[1], place)
    found = place["changed_predictions"](Second(), *foregrounds_and_backgrounds())
    assert found == pytest.approx(2 / 6)


@pytest.mark.parametrize(("pairs", "share"), [(2000, 2 / 6), (4, 2 / 4), (1, 1 / 2)])
def test_the_benchmark_counts_the_same(monkeypatch, pairs, share):
    monkeypatch.setattr(swap, "PAIRS", pairs)
    images, masks, others, masks_of_others = foregrounds_and_backgrounds()
    # An image without a mask has neither a foreground to show nor a background to give.
    without = torch.full((1, 1, 1, 3), torch.nan)
    val = Split(torch.cat([without * 0 + 1, images]), torch.cat([without, masks]), torch.zeros(3))
    train = Split(torch.cat([others, torch.ones(1, 1, 1, 3)]), torch.cat([masks_of_others, without]), torch.zeros(4))

    def found(val, train):
        return swap.swap_changes(lambda images, masks: Second()(images), val, train, 4, torch.device("cpu"))

    assert found(val, train) == pytest.approx(share)
    nothing = Split(without, without, torch.zeros(1))
    assert found(nothing, train) is None
    assert found(val, nothing) is None
