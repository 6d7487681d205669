"""What lung segmentation refuses before any training, and which masks it reads."""

import shutil

import lung_collection
import numpy as np
import pandas as pd
import pytest
from lung_collection import checked, read
from PIL import Image

from isnet_bench.io.errors import BenchError
from isnet_bench.training import segmentation, segmentation_data

folder = lung_collection.folder


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
            r"mask3\.png has 7 x 5 pixels, and its image .*lungs/3\.png 88 x 72; resize",
        ),
        (save("lungs/mask9.png", np.zeros((72, 88))), r"mask9\.png is all black"),
        (lambda f: (f / "lungs/5.png").write_text("no image"), r"lungs/5\.png cannot be read as PNG"),
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
        ({"size": 64}, "segment: unknown key 'size'; known: augmentation, "),
        ({"image_size": 100}, "segment.image_size: Input should be a multiple of 32, not 100"),
        ({"batch_size": 1}, "segment.batch_size: Input should be greater than or equal to 2, not 1"),
        ({"augmentation": {"gamma": 0.5}}, "segment.augmentation.gamma: Input should be greater than or equal to 1, "),
        (
            {"augmentation": {"scale": [1.4, 0.8]}},
            "segment.augmentation: scale must be a smaller and a larger number, not [1.4, 0.8]",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_one_sentence(changes, sentence):
    with pytest.raises(BenchError) as caught:
        checked(**changes)
    assert str(caught.value).startswith("mine.yaml")
    assert sentence in str(caught.value)


def test_masks_need_not_be_0_and_255(folder):
    given = read(folder / "lungs/mask0.png")
    pair = segmentation_data.Pair("lungs/0.png", "lungs/mask0.png")
    for mask in (given // 255, np.where(given > 0, 200, 40).astype(np.uint8)):
        Image.fromarray(mask).save(folder / "lungs/mask0.png")
        assert np.array_equal(segmentation_data.read_pair(folder, pair)[1], given > 0)
