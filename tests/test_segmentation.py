"""Lung segmentation: drawn radiographs in, masks and their scores out; and what the workflow plans."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import lung_collection
import numpy as np
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from lung_collection import SECTION, TINY, checked, make, read
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional as F

from isnet_bench import cli
from isnet_bench import config as configuration
from isnet_bench.config.segment import Augmentation
from isnet_bench.io.errors import BenchError
from isnet_bench.training import segmentation
from isnet_bench.training.segmentation import fault, overlap, tidy

ROOT = Path(__file__).resolve().parents[1]
NONE = Augmentation(degrees=0.0, translate=0.0, scale=(1.0, 1.0), gamma=1.0)

folder = lung_collection.folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data set, and the folder of a segmentation of it."""
    root = tmp_path_factory.mktemp("data")
    folder = make(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISNET_BENCH_DATA", str(root))
        segmentation.segment(checked(), root / "out")
    return folder, root / "out"


def test_every_image_without_a_mask_gets_one_of_its_own_size(made):
    folder, out = made
    found = sorted(str(path.relative_to(out / "masks")) for path in (out / "masks").rglob("*") if path.is_file())
    assert found == ["images/a/2.png", "images/b/3.png", "images/b/4.png"]
    for name, image in zip(found, ("images/a/2.jpg", "images/b/3.png", "images/b/4.png"), strict=True):
        mask = read(out / "masks" / name)
        assert mask.shape == read(folder / image).shape
        assert set(np.unique(mask)) == {0, 255}
    assert not list(out.glob(".*")), "something temporary was left"
    assert not (out / "checkpoints").exists()


def test_it_learns_what_lungs_look_like(made):
    _, out = made
    metrics = json.loads((out / "metrics.json").read_text())
    history = pd.read_csv(out / "history.csv")
    assert metrics["dice"] > 0.8
    assert history["train_dice"].iloc[-1] < history["train_dice"].iloc[0] / 2
    assert list(history["epoch"]) == list(range(1, SECTION["epochs"] + 1))


def test_scores_are_those_of_the_written_weights(made):
    folder, out = made
    network = smp.Unet(TINY, encoder_weights=None, in_channels=1, classes=2).eval()
    network.load_state_dict(load_file(out / "weights.safetensors"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert [row["image"] for row in metrics["per_image"]] == ["lungs/8.png", "lungs/9.png"]
    for row in metrics["per_image"]:
        values = np.array(Image.open(folder / row["image"]))
        # X-rays are read with the range between two percentiles as 0 to 255.
        scaled = np.interp(values, np.quantile(values, [0.005, 0.995]), [0, 255])
        image = Image.fromarray(scaled.round().astype(np.uint8))
        small = torch.from_numpy(np.array(image.resize((64, 64), Image.Resampling.BILINEAR)) / np.float32(255))
        with torch.no_grad():
            logits = F.interpolate(network(small[None, None]), size=(image.height, image.width), mode="bilinear")
        raw = logits.argmax(1)[0].numpy().astype(bool)
        given = read(folder / row["image"].replace("/", "/mask")) > 0
        for prefix, mask in (("untidied_", raw), ("", tidy(raw))):
            assert row[f"{prefix}dice"] == pytest.approx(f1_score(given.ravel(), mask.ravel()), abs=1e-3)
            assert row[f"{prefix}iou"] == pytest.approx(jaccard_score(given.ravel(), mask.ravel()), abs=1e-3)
    for key in ("dice", "iou"):
        assert metrics[key] == pytest.approx(np.mean([row[key] for row in metrics["per_image"]]))
        assert metrics["untidied"][key] == pytest.approx(
            np.mean([row[f"untidied_{key}"] for row in metrics["per_image"]])
        )


def test_given_and_predicted_masks_are_told_apart(made):
    _, out = made
    table = pd.read_csv(out / "masks.csv", index_col="image", keep_default_na=False)
    assert dict(table["mask_origin"]) == {
        "images/a/0.png": "given",
        "images/a/1.png": "given",
        "images/a/2.jpg": "predicted",
        "images/b/3.png": "predicted",
        "images/b/4.png": "predicted",
    }
    for name in table.index[table["mask_origin"] == "predicted"]:
        mask = read((out / "masks" / name).with_suffix(".png"))
        assert float(table.loc[name, "area"]) == pytest.approx((mask > 0).mean(), abs=1e-4)
    assert set(table.loc[table["mask_origin"] == "given", "area"]) == {""}
    assert json.loads((out / "metrics.json").read_text())["mask_origin"] == {"given": 2, "predicted": 3}


def test_the_record_says_what_the_result_depends_on(made):
    _, out = made
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["segment"] == SECTION
    # The data set's own masks are not learned from: they may show images that the network is tested on.
    assert {part: entry["images"] for part, entry in record["data"].items()} == {"train": 8, "val": 2}
    assert record["segment"]["augmentation"]["gamma"] == 1.8
    assert record["versions"]["segmentation-models-pytorch"]
    assert record["hardware"]["gpu"] is None
    assert record["epochs"] == SECTION["epochs"]


@pytest.mark.slow
def test_a_broken_image_costs_no_second_training(folder, tmp_path, caplog):
    config, out, image = checked(epochs=1, batch_size=8), tmp_path / "out", folder / "images/b/4.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    with pytest.raises(BenchError, match=r"images/b/4\.png cannot be read as PNG"):
        segmentation.segment(config, out)
    assert not (out / "masks").exists()
    assert not (out / "metrics.json").exists()
    weights = (out / "weights.safetensors").read_bytes()

    image.write_bytes(whole)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        segmentation.segment(config, out)
    assert "training resumes from" in caplog.text
    assert "epoch 1 of 1" not in caplog.text
    assert (out / "weights.safetensors").read_bytes() == weights
    assert (out / "masks/images/b/4.png").exists()

    (folder / "images/b/4.png").unlink()
    table = pd.read_csv(folder / "manifest.csv")
    table.iloc[:-1].to_csv(folder / "manifest.csv", index=False)
    segmentation.segment(config, out)
    assert not (out / "masks/images/b/4.png").exists(), "a mask of an image that is no more"
    # From nothing, with the same seed: the same weights.
    assert (out / "weights.safetensors").read_bytes() == weights

    (folder / "images/b/3.png").write_text("no image")
    with pytest.raises(BenchError, match=r"images/b/3\.png cannot be read as PNG"):
        segmentation.segment(config, out)
    assert not (out / "metrics.json").exists(), "a result that is not of these weights"


def test_implausible_masks_are_reported(folder, tmp_path, monkeypatch, caplog):
    def pretend(network, images, size):
        masks = [np.zeros(image.shape, bool) for image in images]
        masks[-1][20:60, 5:30] = True
        return masks

    monkeypatch.setattr(segmentation.Segmenter, "masks", pretend)
    segmentation.segment(checked(epochs=1, batch_size=8), tmp_path / "out")
    faults = pd.read_csv(tmp_path / "out/masks.csv").set_index("image")["fault"].dropna()
    area = "area below 5%"
    assert faults.to_dict() == {"images/a/2.jpg": area, "images/b/3.png": area, "images/b/4.png": "one lung only"}
    text = (tmp_path / "out/report.md").read_text()
    assert "- images/b/4.png: one lung only" in text
    row = next(line for line in text.splitlines() if line.startswith("| b "))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["b", "1", "0", "1", "2"], text
    assert "3 of 3 predicted masks can hardly be right" in caplog.text


def test_only_its_own_settings_make_the_job_run_again():
    config = checked()
    part = config.model_copy(update={"seeds": (7,)}).part("segment")
    assert set(json.loads(part)) == {"device", "segment"}
    assert configuration.load(part).part("segment") == part


def test_the_verb(folder, tmp_path, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(segmentation, "segment", lambda config, out: called.append((config.segment.given(), out)))
    text = json.dumps({"results": "here", "segment": SECTION})
    assert cli.main(["segment", "--config", text]) == 0
    assert cli.main(["segment", "--config", text, "--out", "there"]) == 0
    assert called == [(SECTION, Path("here/segment")), (SECTION, Path("there"))]
    monkeypatch.undo()
    assert cli.main(["segment", "--config", json.dumps({"results": str(tmp_path)})]) == 2
    assert capsys.readouterr().err == "error: the configuration has no key segment, so there is nothing to segment\n"


def test_training_images_vary_and_their_masks_with_them():
    mask = torch.zeros(4, 1, 64, 64)
    mask[..., 16:48, 20:44] = 1
    labels = mask[:, 0].long()
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, *given):
            seen.append(given[-1])
            return torch.cat([1 - given[0], given[0]], 1) if len(given) == 1 else torch.zeros(())

    def spy(augmentation, training):
        module = segmentation.Segmenter(TINY, augmentation).train(training)
        module.network = module.dice = Spy()
        module.training_loss(0.1 + 0.5 * mask, mask, labels)

    torch.manual_seed(0)
    spy(Augmentation(), training=False)
    spy(NONE, training=True)
    for images, targets in (seen[:2], seen[2:4]):
        torch.testing.assert_close(images, 0.1 + 0.5 * mask)
        assert torch.equal(targets, labels)

    spy(Augmentation(gamma=1.0), training=True)
    moved, targets = seen[4:6]
    assert ((moved[:, 0] > 0.35) == targets.bool()).float().mean() > 0.97, "image and mask moved differently"
    assert all(not torch.equal(targets[0], other) for other in (labels[0], targets[1]))

    spy(NONE.model_copy(update={"gamma": 2.0}), training=True)
    brightened, targets = seen[6:8]
    assert torch.equal(targets, labels)
    exponents = brightened[:, 0, 32, 32].log() / torch.tensor(0.6).log()
    assert ((exponents > 0.5) & (exponents < 2)).all()
    assert len(exponents.unique()) == 4


def test_the_loss_is_cross_entropy_plus_dice():
    module = segmentation.Segmenter(TINY, NONE).eval()
    module.network = torch.nn.Identity()
    labels = torch.tensor([[[1, 1], [0, 0]]])
    logits = torch.tensor([1.0, 3.0, 1.0, 1.0]).log().reshape(1, 1, 2, 2)
    losses = module.training_loss(torch.cat([torch.zeros_like(logits), logits], 1), labels[:, None].float(), labels)
    probabilities = torch.tensor([0.5, 0.75, 0.5, 0.5])
    assert losses.parts["cross_entropy"].item() == pytest.approx(-np.log(0.5**3 * 0.75) / 4)
    assert losses.parts["dice"].item() == pytest.approx(1 - 2 * 1.25 / (probabilities.sum().item() + 2))
    assert losses.total.item() == pytest.approx(sum(part.item() for part in losses.parts.values()))


def test_tidy_keeps_two_parts_and_fills_their_holes():
    mask = np.zeros((20, 20), bool)
    mask[2:10, 2:8], mask[2:9, 12:18], mask[15:17, 15:17] = True, True, True
    wanted = mask.copy()
    wanted[15:17, 15:17] = False
    mask[4, 4] = False
    assert np.array_equal(tidy(mask), wanted)
    assert np.array_equal(tidy(wanted), wanted)
    assert not tidy(np.zeros((4, 4), bool)).any()


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ((slice(2, 8), slice(1, 9)), ""),
        ((slice(0, 2), slice(4, 6)), "area below 5%"),
        ((slice(0, 0), slice(0, 0)), "area below 5%"),
        ((slice(0, 8), slice(0, 10)), "area above 70%"),
        ((slice(0, 10), slice(0, 5)), "one lung only"),
        ((slice(0, 10), slice(5, 9)), "one lung only"),
        ((slice(0, 10), slice(1, 7)), ""),
    ],
)
def test_faults(box, found):
    mask = np.zeros((10, 10), bool)
    mask[box] = True
    assert fault(np.kron(mask, np.ones((2, 2), bool)) if found != "area below 5%" else mask) == found


def test_overlap():
    left, right = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    left[:, :2], right[:, 1:] = True, True
    assert overlap(left, right) == pytest.approx({"dice": 2 * 2 / (4 + 6), "iou": 2 / 8})
    assert overlap(left & False, right & False) == {"dice": 1.0, "iou": 1.0}


def dry_run(folder, config, *targets):
    """Return what Snakemake plans, and its commands."""
    (folder / "mine.yaml").write_text(json.dumps(config))
    command = [Path(sys.executable).with_name("snakemake"), *targets, "--snakefile", ROOT / "Snakefile", "--cores", "1"]
    run = subprocess.run(
        [*map(str, command), "--dry-run", "--configfile", "mine.yaml"],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout, re.findall(r"^Shell command: (OMP.*)$", run.stdout, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_workflow_makes_masks_before_the_data_that_need_them(tmp_path):
    folders = {"asked": "results/segment/masks", "drawn": "by/hand", "none": None}
    xrays = {name: {"data": {"name": "xray", "predicted_masks": folder}} for name, folder in folders.items()}
    config = {"seeds": [0], "experiments": xrays, "segment": SECTION}
    text, commands = dry_run(tmp_path, config, "all", *(f"results/data/{name}" for name in folders))
    (command,) = (command for command in commands if " segment " in command)
    assert " --out results/segment > results/logs/segment.log" in command
    given = configuration.load(re.search(r"'(\{.*\})'", command)[1])
    assert given.segment.encoder == TINY
    inputs = re.findall(
        r"^rule prepare:\n(?:    input: (.*)\n)?    output: results/data/(.*)$", text, flags=re.MULTILINE
    )
    assert {name: found for found, name in inputs} == {"asked": "results/segment/masks", "drawn": "", "none": ""}
    (targets,) = re.findall(r"^rule all:\n    input: (.*)$", text, flags=re.MULTILINE)
    assert "results/segment/metrics.json" in targets.split(", ")


@pytest.mark.slow
def test_the_workflow_makes_no_masks_where_it_is_not_asked_to(tmp_path):
    xrays = {"data": {"name": "xray", "predicted_masks": "results/segment/masks"}}
    _, commands = dry_run(tmp_path, {"seeds": [0], "experiments": {"covid": xrays}}, "all", "results/data/covid")
    assert not [command for command in commands if " segment " in command]
