"""Builders of photographs on miniatures of their layouts: labels, splits, groups, masks, and what they refuse."""

import json

import numpy as np
import pandas as pd
import pytest
from photograph_layouts import PHOTOGRAPHS, birds_on_places, folders, save, spawrious
from PIL import Image
from published_layouts import put, table

from isnet_bench import config as configuration
from isnet_bench import data
from isnet_bench.data import builders
from isnet_bench.data.builders import assembly
from isnet_bench.evaluation import evaluate as evaluation
from isnet_bench.io.errors import BenchError
from isnet_bench.training import runs
from isnet_bench.training import train as training

NO_SHARES = {"split": "own", "val_share": 0, "test_iid_share": 0}
BIRDS = "001.Black_footed_Albatross"
# Image -> label, split, group.
EXPECTED = {
    "waterbirds": {
        f"{BIRDS}/a_1.jpg": ("waterbird", "train", "water"),
        f"{BIRDS}/a_2.jpg": ("waterbird", "val", "land"),
        "002.Wren/w_3.jpg": ("landbird", "test_ood", "land"),
        "002.Wren/w_4.jpg": ("landbird", "train", "water"),
    },
    "cub": {
        f"images/{BIRDS}/a_1.jpg": ("Black_footed_Albatross", "train", ""),
        f"images/{BIRDS}/a_2.jpg": ("Black_footed_Albatross", "test_iid", ""),
        "images/002.Wren/w_3.jpg": ("Wren", "train", ""),
    },
    "oxford_pets": {
        "images/Abyssinian_100.jpg": ("cat", "train", ""),
        "images/pug_3.jpg": ("dog", "train", ""),
        "images/great_pyrenees_7.jpg": ("dog", "test_iid", ""),
    },
    "leeds_butterflies": {
        "images/0010001.png": ("monarch", "train", ""),
        "images/0010002.png": ("monarch", "train", ""),
        "images/0100001.png": ("painted_lady", "train", ""),
    },
    "folders": {
        "cats/a.jpg": ("cats", "train", ""),
        "cats/b.JPEG": ("cats", "train", ""),
        "dogs/a.png": ("dogs", "train", ""),
    },
    "imagenet9": {
        "original/train/00_dog/n1_1.JPEG": ("dog", "train", "original"),
        "original/val/00_dog/fg_n1_2.JPEG": ("dog", "test_iid", "original"),
        "mixed_rand/val/02_wheeled vehicle/fg_n2_bg_n1.JPEG": ("wheeled_vehicle", "test_ood", "mixed_rand"),
    },
    "spawrious": {
        "spawrious224/0/desert/bulldog/desert_bulldog_1.png": ("bulldog", "train", "desert"),
        "spawrious224/1/desert/bulldog/desert_bulldog_2.png": ("bulldog", "train", "desert"),
        "spawrious224/0/dirt/bulldog/dirt_bulldog_1.png": ("bulldog", "test_ood", "dirt"),
        "spawrious224/0/beach/corgi/beach_corgi_1.png": ("corgi", "train", "beach"),
        "spawrious224/0/dirt/labrador/dirt_labrador_1.png": ("labrador", "train", "dirt"),
    },
}
WITHOUT_SPLITS = {"leeds_butterflies", "folders"}


@pytest.fixture
def make(tmp_path):
    """Make a miniature if need be, and build its manifest, by default with the collection's own splits."""

    def build(name, layout=None, **changes):
        folder = tmp_path / name
        if not folder.exists():
            (layout or PHOTOGRAPHS[name])(folder)
        own = {"split": "train", "val_share": 0, "test_iid_share": 0} if name in WITHOUT_SPLITS else NO_SHARES
        part = {"part": "o2o_easy"} if name == "spawrious" else {}
        settings = assembly.Settings(**{**own, **part, **changes})
        assembly.build(name, folder, tmp_path / "manifest.csv", settings)
        return pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False)

    return build


def listed(manifest, name):
    groups = manifest["group"] if "group" in manifest else [""] * len(manifest)
    images = manifest["image"].str.removeprefix(f"{name}/")
    return dict(zip(images, zip(manifest["label"], manifest["split"], groups, strict=True), strict=True))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_labels_splits_and_groups(make, name):
    manifest = make(name)
    assert listed(manifest, name) == EXPECTED[name]
    assert "patient" not in manifest
    assert ("group" in manifest) == (name in {"waterbirds", "imagenet9", "spawrious"})
    assert set(manifest["source"]) == {name}


@pytest.mark.parametrize(
    ("name", "image", "foreground"),
    [
        ("waterbirds", f"{BIRDS}/a_1.jpg", [[0, 0, 0, 0], [1, 1, 1, 1]]),
        ("cub", "images/002.Wren/w_3.jpg", [[0, 0, 0, 0], [1, 1, 1, 1]]),
        ("oxford_pets", "images/pug_3.jpg", [[0, 1, 1, 1], [0, 0, 1, 1]]),
        ("leeds_butterflies", "images/0010001.png", [[0, 1, 0, 1]]),
    ],
)
def test_masks_hold_the_foreground_alone(make, tmp_path, name, image, foreground):
    masks = make(name).set_index("image")["mask"]
    path = masks[f"{name}/{image}"]
    assert path.startswith(f"manifest_masks/{name}/")
    with Image.open(tmp_path / path) as opened:
        assert opened.mode == "L"
        np.testing.assert_array_equal(np.asarray(opened), 255 * np.array(foreground))
    assert "" in set(masks)


def test_masks_of_folders_lie_beside_images_or_below_masks(make):
    masks = make("folders").set_index("image")["mask"].to_dict()
    assert masks == {
        "folders/cats/a.jpg": "folders/cats/a_mask.png",
        "folders/cats/b.JPEG": "",
        "folders/dogs/a.png": "folders/masks/dogs/a.png",
    }


def test_folders_of_splits(make):
    def layout(folder):
        put(folder / "images/train/cats", "a.jpg", "b.jpg")
        put(folder / "images/valid/cats", "c.jpg")
        put(folder / "images/test/dogs", "d.jpg")
        save([[0, 255]], folder / "masks/test/dogs/d.png")

    manifest = make("folders", layout, **NO_SHARES)
    assert manifest["split"].tolist() == ["test_iid", "train", "train", "val"]
    assert manifest["mask"].tolist() == ["folders/masks/test/dogs/d.png", "", "", ""]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["a.jpg"], r"a\.jpg is in no folder CLASS or SPLIT/CLASS of .*, where SPLIT is one of train, val"),
        (["autumn/cats/a.jpg"], "is in no folder CLASS or SPLIT/CLASS"),
        (["train/cats/a.jpg", "dogs/b.jpg"], "has classes inside and outside of folders of splits"),
    ],
)
def test_folders_in_disorder_are_refused(make, files, sentence):
    with pytest.raises(BenchError, match=sentence):
        make("folders", lambda folder: put(folder, *files))


def test_splits_that_a_collection_lacks_are_taken_from_its_training_images(make):
    def layout(folder):
        for split, number in (("train", 40), ("test", 10)):
            put(folder / split / "cats", *(f"{split}{index}.jpg" for index in range(number)))

    manifest = make("folders", layout, split="own", val_share=None, test_iid_share=None)
    assert manifest["split"].value_counts().to_dict() == {"train": 34, "val": 6, "test_iid": 10}
    assert manifest["image"][manifest["split"] == "test_iid"].str.contains("/test/").all()
    limited = make("folders", limit=5, split="own", val_share=0.4)
    assert limited["split"].value_counts().to_dict() == {"train": 3, "val": 2, "test_iid": 5}


def test_own_splits_must_be_there(make):
    with pytest.raises(BenchError, match="has no splits of its own: choose another value of --split"):
        make("leeds_butterflies", split="own")


def test_breeds_of_pets_can_be_labels(make):
    found = listed(
        make("oxford_pets", labels={"dog": "", "dog/pug": "pug", "cat/abyssinian": "abyssinian"}), "oxford_pets"
    )
    assert {image: label for image, (label, *_) in found.items()} == {
        "images/Abyssinian_100.jpg": "abyssinian",
        "images/pug_3.jpg": "pug",
    }


def test_challenges_of_spawrious_share_images(make):
    with pytest.raises(BenchError, match="parts of Spawrious share images: choose one of them with --part: o2o_easy"):
        make("spawrious", part=None)
    # Many to many: dachshunds and bulldogs of the hard challenge are trained in dirt and jungle.
    found = listed(make("spawrious", part="m2m_hard"), "spawrious")
    assert found == {
        "spawrious224/0/dirt/bulldog/dirt_bulldog_1.png": ("bulldog", "train", "dirt"),
        "spawrious224/0/beach/corgi/beach_corgi_1.png": ("corgi", "train", "beach"),
        "spawrious224/0/dirt/labrador/dirt_labrador_1.png": ("labrador", "test_ood", "dirt"),
    }


def test_few_of_all_breeds_are_trained_where_none_is_at_home(make, tmp_path):
    def layout(folder):
        spawrious(folder)
        put(folder / "spawrious224/0/beach/corgi", *(f"{number:03}.png" for number in range(120)))
        put(folder / "spawrious224/1/beach/corgi", *(f"{number:03}.png" for number in range(420)))

    manifest = make("spawrious", layout)
    places = manifest["image"].str.extract(r"224/(\d)/beach/corgi")[0].value_counts()
    # 3 % and 13 % of 3168, to whole images.
    assert places.to_dict() == {"0": 3168 - 3072, "1": 3168 - 2756}


@pytest.mark.parametrize(
    ("name", "file", "lines", "sentence"),
    [
        (
            "waterbirds",
            "metadata.csv",
            ["img_id,img_filename,y,split,place", "1,a.jpg,2,0,0"],
            "column y: '2' is none of 0, 1",
        ),
        ("waterbirds", "metadata.csv", ["img_id,y", "1,1"], r"metadata\.csv has no column img_filename, split, place"),
        ("cub", "image_class_labels.txt", ["1 1", "3 2"], "lists the image 2, but the other lists do not have it"),
        ("oxford_pets", "annotations/test.txt", ["pug_1 27 5 20"], r"test\.txt, line 1: '5' is no species"),
    ],
)
def test_metadata_that_say_something_else_are_refused(make, tmp_path, name, file, lines, sentence):
    PHOTOGRAPHS[name](tmp_path / name)
    table(tmp_path / name / file, *lines)
    with pytest.raises(BenchError, match=sentence):
        make(name)
    assert not (tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_an_empty_folder_names_what_is_missing_and_where_to_get_it(make, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(BenchError) as caught:
        make(name)
    assert f"{tmp_path / name} holds no " in str(caught.value)
    assert f"from {builders.known()[name].home} (docs/data.md says how)" in str(caught.value)


def test_manifests_of_photographs_can_be_combined(make, tmp_path):
    make("waterbirds")
    (tmp_path / "manifest.csv").rename(tmp_path / "birds.csv")
    folders(tmp_path / "folders")
    make("folders")
    assembly.combine([tmp_path / "birds.csv", tmp_path / "manifest.csv"], tmp_path / "both.csv")
    both = pd.read_csv(tmp_path / "both.csv", keep_default_na=False)
    assert both["group"].tolist() == ["water", "land", "land", "water", "", "", ""]
    assert "patient" not in both


# --- from a collection to a trained network -----------------------------------------------------------------


def test_waterbirds_from_the_collection_to_the_worst_group(make, tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    make("waterbirds", birds_on_places, test_iid_share=0.25)
    experiment = {
        "data": {"name": "images", "manifest": "manifest.csv", "image_size": 32},
        "backbone": {"name": "resnet_small"},
        "training": {"epochs": 1, "batch_size": 6, "learning_rate": 1e-3, "epoch": "worst_group"},
        "methods": {"group_dro": {}},
    }
    given = {"seeds": [0], "device": "cpu", "experiments": {"birds": experiment}}
    config = configuration.check(given, "test")
    data.prepare("birds", config, tmp_path / "data")
    told = data.info(tmp_path / "data")
    assert told["group_names"] == ["land", "water"]
    assert told["group_images"]["ood"] == [4, 4, 4, 4]
    assert (data.load(tmp_path / "data", "train").masks.mean((1, 2, 3)) > 0).all()
    job = runs.Job(config, "birds", "group_dro", 0, tmp_path / "data")
    training.train(job, tmp_path / "run", None)
    evaluation.evaluate(job, tmp_path / "run")
    found = json.loads((tmp_path / "run/metrics.json").read_text())["sets"]["ood"]
    assert [(one["class"], one["group"]) for one in found["per_group"]] == [
        ("landbird", "land"), ("landbird", "water"), ("waterbird", "land"), ("waterbird", "water"),
    ]  # fmt: skip
    # All groups are equally large.
    assert found["mean_group_accuracy"] == pytest.approx(found["accuracy"])
