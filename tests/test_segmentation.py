"""Lung segmentation: drawn radiographs in, masks and their scores out; what is refused; what the workflow plans."""

import dataclasses
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional as F

from isnet_bench import cli, fields, segmentation, segmentation_data
from isnet_bench import config as configuration
from isnet_bench.errors import BenchError
from isnet_bench.segmentation_data import Augmentation, Settings
from isnet_bench.segmentation_masks import fault, overlap, tidy

ROOT = Path(__file__).resolve().parents[1]
# timm's own network for tests, in place of a ResNet-18.
TINY = "tu-test_resnet"
SECTION = {
    "masks": "set/lungs/masks.csv",
    "manifest": "set/manifest.csv",
    "image_size": 64,
    "encoder": TINY,
    "epochs": 6,
    "batch_size": 2,
    "learning_rate": 1e-2,
}
NONE = Augmentation(degrees=0.0, translate=0.0, scale=(1.0, 1.0), gamma=1.0)


def lungs(height, width, rng):
    """Two ellipses, bool (H, W)."""
    rows, columns = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    shift = rng.uniform(-0.04, 0.04, 2)
    return sum(
        ((rows - 0.5 - shift[0]) / 0.36) ** 2 + ((columns - middle - shift[1]) / 0.15) ** 2 < 1 for middle in (0.3, 0.7)
    ).astype(bool)


def draw(folder, name, rng, mask=None, size=(72, 88)):
    """Draw an image, and its mask where that has a name."""
    shape = lungs(*size, rng)
    image = np.where(shape, 60, 190) + rng.normal(0, 12, size)
    for path, array in ((name, image), (mask, shape * 255)):
        if path:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(array, 0, 255).astype(np.uint8)).save(folder / path)


def make(root):
    """Eight images to train on, two to test on, and a data set of five, two of which have masks; return its folder."""
    folder, rng = root / "set", np.random.default_rng(0)
    masks = [(f"lungs/{i}.png", f"lungs/mask{i}.png", "train" if i < 8 else "val") for i in range(10)]
    manifest = [
        ("images/a/0.png", "x", "a", "train", "masks/0.png"),
        ("images/a/1.png", "y", "a", "test_iid", "masks/1.png"),
        ("images/a/2.jpg", "x", "a", "val", ""),
        ("images/b/3.png", "y", "b", "test_ood", ""),
        ("images/b/4.png", "y", "b", "train", ""),
    ]
    for image, mask, _ in masks:
        draw(folder, image, rng, mask)
    for i, (image, *_, mask) in enumerate(manifest):
        draw(folder, image, rng, mask, size=(80 + i, 70))
    pd.DataFrame(masks, columns=["image", "mask", "split"]).to_csv(folder / "lungs/masks.csv", index=False)
    columns = ["image", "label", "source", "split", "mask"]
    pd.DataFrame(manifest, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder


def checked(**changes):
    section = {**SECTION, **changes}
    return configuration.check({"seeds": [0], "device": "cpu", "experiments": {}, "segment": section}, "mine.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    return make(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data set, and the folder of a segmentation of it."""
    root = tmp_path_factory.mktemp("data")
    folder = make(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISNET_BENCH_DATA", str(root))
        segmentation.segment(checked(), root / "out")
    return folder, root / "out"


def read(path):
    return np.asarray(Image.open(path))


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
        image = Image.open(folder / row["image"])
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


def test_a_broken_image_costs_no_second_training(folder, tmp_path, caplog):
    config, out, image = checked(epochs=1, batch_size=8), tmp_path / "out", folder / "images/b/4.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    with pytest.raises(BenchError, match=r"images/b/4\.png cannot be read as a PNG"):
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


def test_implausible_masks_are_reported(folder, tmp_path, monkeypatch, caplog):
    def pretend(network, images):
        masks = [np.zeros(image.shape, bool) for image in images]
        masks[-1][20:60, 5:30] = True
        return masks

    monkeypatch.setattr(segmentation.Network, "masks", pretend)
    segmentation.segment(checked(epochs=1, batch_size=8), tmp_path / "out")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["faults"] == {"area below 5%": 2, "one lung only": 1}
    assert [row["image"] for row in metrics["implausible"]] == ["images/a/2.jpg", "images/b/3.png", "images/b/4.png"]
    text = (tmp_path / "out/report.md").read_text()
    assert "- images/b/4.png: one lung only" in text
    row = next(line for line in text.splitlines() if line.startswith("| b "))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["b", "1", "0", "1", "2"], text
    assert "3 of 3 predicted masks can hardly be right" in caplog.text


def break_manifest(change):
    def apply(folder):
        table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
        change(table).to_csv(folder / "manifest.csv", index=False)

    return apply


def break_masks(change):
    def apply(folder):
        table = pd.read_csv(folder / "lungs/masks.csv", dtype=str, keep_default_na=False)
        change(table).to_csv(folder / "lungs/masks.csv", index=False)

    return apply


def put(row, column, value):
    return lambda table: table.assign(**{column: [*table[column][:row], value, *table[column][row + 1 :]]})


def save(name, array):
    return lambda folder: Image.fromarray(np.asarray(array, np.uint8)).save(folder / name)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda f: (f / "manifest.csv").unlink(),
            r"there is no manifest .*set/manifest\.csv: put it there, or let ISNET_BENCH_DATA ",
        ),
        (lambda f: (f / "lungs/masks.csv").unlink(), r"there is no manifest .*lungs/masks\.csv: "),
        (lambda f: (f / "manifest.csv").write_text(""), r"manifest\.csv cannot be read as CSV"),
        (
            break_manifest(lambda t: t.drop(columns="source")),
            r"manifest\.csv lacks the column 'source'; it needs image, ",
        ),
        (
            break_masks(lambda t: t.drop(columns="mask")),
            r"masks\.csv lacks the column 'mask'; it needs image, mask, split",
        ),
        (break_masks(put(2, "mask", "")), r"masks\.csv, line 4: the mask is missing"),
        (
            break_masks(put(1, "image", "lungs/no.png")),
            r"masks\.csv, line 3: the image .*set/lungs/no\.png does not exist",
        ),
        (
            break_masks(put(1, "mask", "lungs/no.png")),
            r"masks\.csv, line 3: the mask .*set/lungs/no\.png does not exist",
        ),
        (
            break_manifest(put(3, "image", "images/no.png")),
            r"manifest\.csv, line 5: the image .*images/no\.png does not exist",
        ),
        (
            break_manifest(put(0, "image", "../../x.png")),
            r"line 2: the image \.\./\.\./x\.png lies outside the data root",
        ),
        (break_manifest(put(0, "image", "/x.png")), r"line 2: the image /x\.png lies outside the data root"),
        (
            break_masks(put(9, "split", "vall")),
            r"masks\.csv, line 11: the split 'vall' is none of train, val; did you mean 'val'",
        ),
        (break_masks(lambda t: t.assign(split="train")), r"masks\.csv has no image with split val"),
        (break_masks(lambda t: t.assign(split="val")), r"masks\.csv has no image with split train"),
        (
            break_masks(put(0, "mask", "masks/1.png")),
            r"masks/1\.png has split train, and is in a test set of .*manifest\.csv",
        ),
        (
            lambda f: shutil.copy(f / "images/b/3.png", f / "lungs/2.png"),
            r"lungs/2\.png has split train, and is in a test set of .*manifest\.csv, too",
        ),
        (
            lambda f: shutil.copy(f / "lungs/9.png", f / "lungs/1.png"),
            r"lungs/1\.png has split train, and is in the part val, too",
        ),
        (
            lambda f: (
                shutil.copy(f / "images/a/2.jpg", f / "images/a/2.png"),
                break_manifest(put(4, "image", "images/a/2.png"))(f),
            ),
            r"manifest\.csv, line 6: another image has the name images/a/2\.png but for the suffix",
        ),
        (
            save("lungs/mask3.png", np.ones((5, 7))),
            r"mask3\.png has 7 x 5 pixels, and its image lungs/3\.png 88 x 72; resize",
        ),
        (save("lungs/mask9.png", np.zeros((72, 88))), r"mask9\.png is all black"),
        (lambda f: (f / "lungs/5.png").write_text("no image"), r"lungs/5\.png cannot be read as a PNG"),
        (lambda f: (f / "lungs/5.png").write_bytes((f / "lungs/5.png").read_bytes()[:300]), r"5\.png cannot be read"),
    ],
)
def test_a_mistake_in_the_data_is_one_sentence_before_any_training(folder, tmp_path, spoil, sentence):
    spoil(folder)
    with pytest.raises(BenchError, match=sentence) as caught:
        segmentation.segment(checked(), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_encoder_is_refused(folder, tmp_path):
    with pytest.raises(BenchError, match=r"cannot have the encoder 'resnet17'; common ones: resnet18, "):
        segmentation.segment(checked(encoder="resnet17"), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": 64}, "unknown key 'size' in segment; known keys: augmentation, "),
        ({"image_size": 100}, "segment.image_size: 100 is not a multiple of 32"),
        ({"batch_size": 1}, "segment.batch_size: 1 is less than the minimum of 2"),
        ({"augmentation": {"gamma": 0.5}}, "segment.augmentation.gamma: 0.5 is less than the minimum of 1"),
        (
            {"augmentation": {"scale": [1.4, 0.8]}},
            "segment: scale must be a smaller and a larger positive number, not [1.4, 0.8]",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_one_sentence(changes, sentence):
    with pytest.raises(BenchError) as caught:
        checked(**changes)
    assert str(caught.value).startswith("mine.yaml: ")
    assert sentence in str(caught.value)


def test_schema_and_dataclasses_have_the_same_keys():
    schema = json.loads(configuration.SCHEMA.read_text())["$defs"]["segment"]["properties"]
    for kind, properties in ((Settings, schema), (Augmentation, schema["augmentation"]["properties"])):
        assert {field.name for field in dataclasses.fields(kind)} == set(properties)


def test_only_its_own_settings_make_the_job_run_again():
    config = checked()
    part = configuration.prune({**config, "seeds": [7]}, verb="segment")
    assert set(part) == {"device", "results", "segment"}
    assert configuration.prune(configuration.load(json.dumps(part)), verb="segment") == part


def test_the_verb(folder, tmp_path, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(segmentation, "segment", lambda config, out: called.append((config["segment"], out)))
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

    spy(dataclasses.replace(NONE, gamma=2.0), training=True)
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
    assert losses.parts["cross_entropy"].item() == pytest.approx(
        -((0.5**3 * 0.75) ** 0.25) and -np.log(0.5**3 * 0.75) / 4
    )
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


def test_masks_need_not_be_0_and_255(folder):
    given = read(folder / "lungs/mask0.png")
    pair = segmentation_data.Pair("lungs/0.png", "lungs/mask0.png")
    for mask in (given // 255, np.where(given > 0, 200, 40).astype(np.uint8)):
        Image.fromarray(mask).save(folder / "lungs/mask0.png")
        assert np.array_equal(segmentation_data.read_pair(folder, pair)[1], given > 0)


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


def test_the_workflow_makes_masks_before_the_data_that_need_them(tmp_path):
    folders = {"asked": "results/segment/masks", "drawn": "by/hand", "none": None}
    xrays = {name: {"data": {"name": "xray", "predicted_masks": folder}} for name, folder in folders.items()}
    config = {"seeds": [0], "experiments": xrays, "segment": SECTION}
    text, commands = dry_run(tmp_path, config, "all", *(f"results/data/{name}" for name in folders))
    (command,) = (command for command in commands if " segment " in command)
    assert " --out results/segment > results/logs/segment.log" in command
    given = configuration.load(re.search(r"'(\{.*\})'", command)[1])
    assert fields.fill(Settings, given["segment"]).encoder == TINY
    inputs = re.findall(
        r"^rule prepare:\n(?:    input: (.*)\n)?    output: results/data/(.*)$", text, flags=re.MULTILINE
    )
    assert {name: found for found, name in inputs} == {"asked": "results/segment/masks", "drawn": "", "none": ""}
    (targets,) = re.findall(r"^rule all:\n    input: (.*)$", text, flags=re.MULTILINE)
    assert "results/segment/metrics.json" in targets.split(", ")


def test_the_workflow_makes_no_masks_where_it_is_not_asked_to(tmp_path):
    xrays = {"data": {"name": "xray", "predicted_masks": "results/segment/masks"}}
    _, commands = dry_run(tmp_path, {"seeds": [0], "experiments": {"covid": xrays}}, "all", "results/data/covid")
    assert not [command for command in commands if " segment " in command]
