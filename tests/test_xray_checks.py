"""The report on X-rays: what it counts, what it warns of, and which copies it finds."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from xray_collection import draw

from isnet_bench.data.images import checks
from isnet_bench.data.images import reading as images
from isnet_bench.data.xray import checks as xray_checks
from isnet_bench.data.xray import grey


def seen(rows):
    """What was seen of images: split, source, label, and then mask_origin, area and digest where it matters."""
    filled = [(*row, *("given", 0.3, "")[len(row) - 3 :]) for row in rows]
    table = pd.DataFrame(filled, columns=["split", "source", "label", "mask_origin", "area", "digest"])
    table["digest"] = [digest or f"unique {index}" for index, digest in enumerate(table["digest"])]
    table["image"] = [f"{index}.png" for index in table.index]
    table.index += 2
    table[list(grey.STATISTICS)] = np.random.default_rng(1).normal(size=(len(table), len(grey.STATISTICS)))
    return table.assign(width=30, height=20, rim=0.0)


def report(rows, fingerprints=None):
    table = seen(rows)
    rng = np.random.default_rng(0)
    if fingerprints is None:
        fingerprints = rng.integers(0, 2**63, (len(table), 4)).astype(np.uint64)
    return xray_checks.report(table, fingerprints, Path("a/manifest.csv"), ("sick", "well"))


PLACES = [("train", "a"), ("train", "b"), ("val", "a"), ("test_iid", "b"), ("test_ood", "c")]
PLENTY = [(*place, label) for place in PLACES for label in ("sick", "well")] * 20


def test_a_balanced_collection_gets_no_warning():
    found = report(PLENTY)
    assert found.warnings == ()
    assert "None." in found.markdown()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("train", "d", "sick")] * 9, "in train, every image of source d is sick: its background gives the label"),
        (
            [("train", "d", "sick"), ("train", "e", "well")] * 20,
            "in train, who knows nothing but the source guesses 67% of the labels right, .* nothing at all 50%",
        ),
        ([("test_ood", "a", label) for label in ("sick", "well")], "source a is in train and in test_ood: that part"),
        ([("val", "e", label) for label in ("sick", "well")], "source e is in val but not in train"),
        ([("test_ood", "e", "well")], "in test_ood, source e has no sick: there, too, label and source go together"),
        ([("train", "a", "sick", "predicted")] * 10, "share of given instead .*: sick 80%, well 100%"),
        ([("val", "a", "sick", "given", 0.01)], r"of 1 images is not 5% to 70% of the frame: 200\.png 1% \(given\)"),
        ([("val", "a", "sick", "given", 0.8)], r"of 1 images is not 5% to 70% of the frame: 200\.png 80% \(given\)"),
        ([("val", "a", "sick", "given", 0.3, "x")] * 2, r"200\.png \(sick\) and 201\.png \(sick\) are .* in val$"),
    ],
)  # fmt: skip
def test_the_report_warns(rows, sentence):
    found = report(PLENTY + rows)
    assert any(re.search(sentence, warning) for warning in found.warnings), found.warnings
    assert all(f"- {warning}\n" in found.markdown() for warning in found.warnings)


def test_a_single_training_source_and_rare_classes_are_warned_of():
    found = report([row for row in PLENTY if row[:2] != ("train", "b")] + [("test_ood", "f", "sick")] * 3)
    assert any("all training images have the source a: the table cannot show" in warning for warning in found.warnings)
    assert not any("guesses" in warning for warning in found.warnings)
    rare = report([row for row in PLENTY if row != ("val", "a", "sick")] + [("val", "a", "sick")] * 19)
    assert "val has 19 images of sick: what is measured on them is uncertain" in rare.warnings


def test_images_that_look_the_same_in_two_splits_are_listed():
    rng = np.random.default_rng(0)
    original = np.asarray(Image.fromarray(draw(rng, (12, 12))).resize((200, 180), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    smaller = np.clip(images.resize(original, 128) * 0.8 + 20, 0, 255).astype(np.uint8)
    Image.fromarray(smaller).save(file, "JPEG", quality=60)
    copy = np.asarray(Image.open(file))
    others = [draw(rng, (100, 100)) for _ in range(4)]
    prints = np.stack([checks.fingerprint(image) for image in (original, others[0], copy, *others[1:], original)])
    rows = [("train", "a", label) for label in ("sick", "well")] + [("test_iid", "a", "sick")] * 4
    found = [
        warning for warning in report([*rows, ("train", "a", "sick")], prints).warnings if "look the same" in warning
    ]
    assert len(found) == 1
    assert re.findall(r"(\d)\.png \((\w+)\) and (\d)\.png \((\w+)\), \d+ of 256 bits", found[0]) == [
        ("0", "train", "2", "test_iid"), ("6", "train", "2", "test_iid")
    ]  # fmt: skip


def test_near_copies_are_found_wherever_they_are():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**63, (2500, 4)).astype(np.uint64)
    other = rng.integers(0, 2**63, (60, 4)).astype(np.uint64)
    other[7], other[8] = one[2499], one[1024]
    other[7, 3] ^= np.uint64(0b111111111111)
    other[8, 0] ^= np.uint64(0b1111111111111)
    assert list(checks._near(one, other)) == [(2499, 7, 12)]


def test_the_report_counts():
    rows = [("train", "a", "sick")] * 2 + [("test_ood", "b", "well", "predicted", 0.2)] * 3
    tables = report(rows).tables
    assert tables["Images by class and source"].to_numpy().tolist() == [
        ["train", "a", 2, 0, 2],
        ["test_ood", "b", 0, 3, 3],
    ]
    masks = tables["Masks"].to_numpy().tolist()
    assert masks == [
        ["train", "sick", "given", 2, 0.3, 0.3, 0.3], ["test_ood", "well", "predicted", 3, 0.2, 0.2, 0.2]
    ]  # fmt: skip
    assert tables["Frames"].to_numpy().tolist() == [
        ["a", "sick", 2, 30.0, 20.0, 1.5],
        ["b", "well", 3, 30.0, 20.0, 1.5],
    ]
    text = report(rows).markdown()
    assert text.startswith("# Checks of a/manifest.csv\n\n## Warnings\n\n- ")
    assert "| test_ood | b        |      0 |      3 |     3 |" in text


def test_what_grey_values_tell():
    table = seen(PLENTY)
    assert xray_checks.report(table, np.zeros((len(table), 4), np.uint64), Path("a/b.csv"), ("sick", "well")).warnings
    assert all(0.3 < grey.auc(table, what) < 0.7 for what in ("source", "label"))
    # One source never reaches white, as 8 bits that keep their values do beside windowed files.
    table["maximum"] = np.where(table["source"] == "a", 200.0, 255.0) + np.arange(len(table)) % 3
    assert grey.auc(table, "source") == 1
    (sentence,) = grey.warnings(grey.table(table))
    assert "five statistics of the grey values inside the foreground tell the source (AUC 1.00)" in sentence
    # By hand: of four pixels, the mask shows three.
    found = grey.statistics(np.array([[1, 9], [4, 4]], np.uint8), np.array([[1, 0], [1, 1]]))
    assert found == {"minimum": 1, "median": 4, "maximum": 4, "mean": 3, "deviation": pytest.approx(2**0.5)}
    assert np.isnan(grey.auc(table[:3], "source"))
