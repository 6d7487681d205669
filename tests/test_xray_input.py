"""What is wrong with a manifest or its files: each mistake has its sentence, and nothing is written."""

import logging

import numpy as np
import pytest
from PIL import Image
from xray_collection import GIVEN, SPLITS, Collection, lungs, make, save

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.io.errors import BenchError


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "data"))
    return Collection(tmp_path / "data")


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_column(collection):
    del collection.table["source"]
    collection.write()


def link(collection):
    outside = collection.root.parent / "outside.png"
    (collection.folder / "train/0.png").replace(outside)
    (collection.folder / "train/0.png").symlink_to(outside)


def remove_split(collection, split):
    collection.table = collection.table[collection.table["split"] != split]
    collection.write()


def remove_class(collection):
    chosen = (collection.table["split"] == "train") & (collection.table["label"] == "well")
    collection.table = collection.table[~chosen]
    collection.write()


def one_source(collection):
    collection.table["source"] = "home"
    collection.write()


def patients(collection, names):
    collection.table["patient"] = ""
    for line, patient in names.items():
        collection.change(line, patient=patient)


def copy_image(collection, one, other):
    Image.open(collection.folder / one).save(collection.folder / other, compress_level=1)


BAD = {
    "no column": (drop_column, r"chests/manifest\.csv lacks the column 'source'; it needs image, label, .* has"),
    "missing image": (lambda c: (c.folder / "train/0.png").unlink(), r"line 2: the image .*0\.png does not exist"),
    "missing mask": (lambda c: (c.folder / "masks/val/0.png").unlink(), r"line 11: the mask .*0\.png does not exist"),
    "truncated": (lambda c: cut_in_half(c.folder / "train/0.png"), r"line 2: .*train/0\.png cannot be read as PNG"),
    "no image": (lambda c: (c.folder / "train/0.png").write_text("?"), r"line 2: .*train/0\.png cannot be read"),
    "no mask": (lambda c: (c.folder / "masks/train/0.png").write_text("?"), r"line 2: .*masks/train/0\.png cannot"),
    "label": (lambda c: c.change(5, label="Wel"), "line 5: the label 'Wel' is none of sick, .*did you mean 'well'"),
    "other label": (lambda c: c.change(5, label="?"), r"line 5: the label '\?' is none of .*; correct it, or add"),
    "no label": (lambda c: c.change(5, label=""), "line 5: the label '' is none of"),
    "split": (lambda c: c.change(5, split="test-iid"), "line 5: the split 'test-iid' .*did you mean 'test_iid'"),
    "no source": (lambda c: c.change(5, source=""), "line 5: the source is missing"),
    "no path": (lambda c: c.change(5, image=""), "line 5: the image is missing; write its path, or delete the line"),
    "folder": (lambda c: c.change(5, image="train"), "line 5: the image .*train does not exist"),
    "same image": (
        lambda c: copy_image(c, "train/3.png", "test_iid/1.png"),
        r"lines 5 and 15: train/3\.png \(train\) and test_iid/1\.png \(test_iid\) are the same image; keep it in one",
    ),
    "same line": (lambda c: c.change(20, image="val/1.png"), r"lines 12 and 20: val/1\.png .* are the same image"),
    "same image, other label": (
        lambda c: copy_image(c, "train/3.png", "train/4.png"),
        r"lines 5 and 6: train/3\.png \(sick\) and train/4\.png \(well\) are the same image with different labels",
    ),
    "patient in two splits": (
        lambda c: patients(c, {2: "7", 11: "7", 3: "8", 4: "8"}),
        r"lines 2 and 11: patient 7 of home is in train and in val; keep all images of a patient in one split",
    ),
    "black X-ray": (
        lambda c: save(np.zeros((40, 48), np.uint8), c.folder / "train/0.png"),
        r"line 2: train/0\.png shows nothing: all of its pixels have one value; replace the file, or delete",
    ),
    "one pixel": (
        lambda c: [save(np.ones((1, 1), np.uint8), c.folder / place / "train/0.png") for place in ("", "masks")],
        r"line 2: train/0\.png has 1 x 1 pixels, fewer than 32 on a side; delete its line",
    ),
    "black mask": (
        lambda c: save(np.zeros((40, 48), np.uint8), c.folder / "masks/train/0.png"),
        "line 2: the mask .* shows no foreground at image_size 32; correct it, or empty the cell",
    ),
    "mask size": (
        lambda c: save(lungs((40, 50)), c.folder / "masks/train/0.png"),
        r"line 2: the mask .*0\.png has 50 x 40 pixels, and its image .*train/0\.png 48 x 40; resize the mask",
    ),
    "upwards": (lambda c: c.change(5, image="../chests/train/3.png"), r"line 5: the image \.\./.* lies outside"),
    "absolute": (lambda c: c.change(5, mask=str(c.folder / "masks/train/3.png")), r"line 5: the mask /.* lies out"),
    "link": (link, r"line 2: the image train/0\.png lies outside the data root"),
    **{
        f"no {split}": (lambda c, split=split: remove_split(c, split), f"manifest.csv has no image with split {split}")
        for split in SPLITS
    },
    "no class": (remove_class, "has no training image of 'well'; add some, or take it out"),
    "one source": (one_source, "all images with split test_ood have the source home, which test_iid has, too"),
    "no rows": (lambda c: c.manifest.write_text("image,label,source,split,mask\n"), "has a header but no rows"),
    "empty": (lambda c: c.manifest.write_text(""), "cannot be read as CSV"),
    "longer line": (lambda c: c.manifest.write_text(c.manifest.read_text() + "a,b,c,d,e,f\n"), "cannot be read as CSV"),
    "no header": (lambda c: c.manifest.write_text("a,b\n1,2,3\n"), "cannot be read as CSV"),
    "encoding": (lambda c: c.manifest.write_bytes(c.manifest.read_bytes() + b"\xe9,,,,\n"), "cannot be read as CSV"),
    "semicolons": (lambda c: c.manifest.write_text("image;label\na;b\n"), "lacks the column 'image'; .*image;label"),
}  # fmt: skip


def test_patients_of_other_sources_and_those_that_are_not_told_may_have_one_name(collection):
    patients(collection, {2: "7", 3: "7", 20: "7", 21: "7", 11: ""})
    assert collection.table["source"].tolist()[18:20] == ["away", "away"]
    assert len(make().splits["train"].labels) == SPLITS["train"]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_its_sentence_and_writes_nothing(collection, tmp_path, name):
    spoil, sentence = BAD[name]
    spoil(collection)
    config = configuration.check({"seeds": [0], "experiments": {"x": {"data": {"name": "xray", **GIVEN}}}}, "test")
    with pytest.raises(BenchError, match=sentence) as caught:
        datasets.prepare("x", config, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_all_problems_are_logged_and_counted(collection, caplog):
    collection.change(5, label="wel")
    collection.change(9, split="tran")
    collection.change(11, image="none.png")
    with pytest.raises(
        BenchError, match=r"line 5: .*did you mean 'well'\? \(the first of 3 such problems, see the log\)"
    ):
        make()
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert [message.split("line ")[1].split(":")[0] for message in errors] == ["5", "9", "11"]
