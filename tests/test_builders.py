"""Each collection's builder on a miniature of its layout: labels, patients, views, masks, and what it says if not."""

import numpy as np
import pandas as pd
import pytest
from photograph_layouts import PHOTOGRAPHS
from PIL import Image
from published_layouts import LAYOUTS, bimcv, brixia, mask, nih, put, table

from isnet_bench.data import builders
from isnet_bench.data.builders import assembly, base
from isnet_bench.data.images import manifest as listing
from isnet_bench.data.xray import checks as xray_checks
from isnet_bench.io.errors import BenchError

COVID, PNEUMONIA, NORMAL = "covid19", "pneumonia", "normal"
SESSION = "covid19_posi/sub-S01/{0}/mod-rx/sub-S01_{0}_run-{1}_bp-chest_vp-{2}"
# Image -> label and patient; an image that is not here is left out.
EXPECTED = {
    "brixia": {
        "dicom_clean/100.dcm": (COVID, "7"),
        "dicom_clean/101.dcm": (COVID, "7"),
        "dicom_clean/102.dcm": (COVID, "8"),
    },
    "bimcv": {
        SESSION.format("ses-E1", 1, "pa_cr.png"): (COVID, "sub-S01"),
        SESSION.format("ses-E2", 2, "pa_cr.png"): (COVID, "sub-S01"),
        SESSION.format("ses-E3", 1, "ap_dx.png"): (COVID, "sub-S01"),
    },
    "chexpert": {
        "train/patient00001/study1/view1_frontal.jpg": (NORMAL, "patient00001"),
        "train/patient00001/study2/view1_frontal.jpg": (NORMAL, "patient00001"),
        "train/patient00002/study1/view1_frontal.jpg": (PNEUMONIA, "patient00002"),
        "valid/patient64541/study1/view1_frontal.jpg": (PNEUMONIA, "patient64541"),
    },
    "nih": {
        "images_001/images/00000001_000.png": (NORMAL, "1"),
        "images_001/images/00000001_001.png": (PNEUMONIA, "1"),
        "images_001/images/00000002_000.png": (PNEUMONIA, "2"),
        "images_002/images/00000004_000.png": (NORMAL, "4"),
    },
    "montgomery": {
        "CXR_png/MCUCXR_0001_0.png": (NORMAL, "MCUCXR_0001"),
        "CXR_png/MCUCXR_0002_0.png": (NORMAL, "MCUCXR_0002"),
    },
    "shenzhen": {
        "CXR_png/CHNCXR_0001_0.png": (NORMAL, "CHNCXR_0001"),
        "CXR_png/CHNCXR_0002_0.png": (NORMAL, "CHNCXR_0002"),
    },
    "cohen": {
        "images/a.jpeg": (COVID, "2"),
        "images/b.jpeg": (NORMAL, "2"),
        "images/d.jpg": (PNEUMONIA, "3"),
        "images/e.png": (PNEUMONIA, "4"),
    },
    "covid_cxnet": {
        "chest_xray_images/covid19/260.jpg": (COVID, "10"),
        "chest_xray_images/covid19/364.jfif": (COVID, "55"),
        "chest_xray_images/covid19/444.png": (COVID, "118"),
        "chest_xray_images/covid19/446p.jpg": (COVID, "120"),
    },
    "figure1": {
        "images/COVID-00001.jpg": (COVID, "COVID-00001"),
        "images/COVID-00015a.png": (COVID, "COVID-00015"),
        "images/COVID-00015b.jpg": (COVID, "COVID-00015"),
        "images/COVID-00028.png": (NORMAL, "COVID-00028"),
        "images/COVID-00034.jpg": (PNEUMONIA, "COVID-00034"),
    },
    "actualmed": {
        "images/CR.1.2.840.1.png": (NORMAL, "ANON56"),
        "images/CR.1.2.840.2.png": (COVID, "ANON196"),
    },
}
# Without their metadata, or what stands for them.
METADATA = {
    "actualmed": "metadata.csv",
    "bimcv": "covid19_posi/participants.tsv",
    "brixia": "metadata_global_v2.csv",
    "chexpert": "train.csv",
    "cohen": "metadata.csv",
    "covid_cxnet": "metadata.csv",
    "figure1": "metadata.csv",
    "nih": "Data_Entry_2017.csv",
}


@pytest.fixture
def make(tmp_path):
    """Make a miniature if need be, and build its manifest; all images go to test_ood unless said otherwise."""

    def build(name, layout=None, **changes):
        folder = tmp_path / name
        if not folder.exists():
            (layout or LAYOUTS[name])(folder)
        settings = assembly.Settings(**{"split": "test_ood", **changes})
        assembly.build(name, folder, tmp_path / "manifest.csv", settings)
        return pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False)

    return build


def labels(manifest, name):
    return {
        image.removeprefix(f"{name}/"): (label, patient)
        for image, label, patient in zip(manifest["image"], manifest["label"], manifest["patient"], strict=True)
    }


def test_all_collections_are_found():
    assert set(builders.known().things) == {*EXPECTED, *PHOTOGRAPHS}
    with pytest.raises(BenchError, match=r"unknown collection 'nhi'; did you mean 'nih'\? known: actualmed, bimcv, "):
        builders.known()["nhi"]


@pytest.mark.parametrize("name", EXPECTED)
def test_images_labels_and_patients(make, name):
    manifest = make(name)
    assert labels(manifest, name) == EXPECTED[name]
    assert list(manifest.columns) == ["image", "label", "source", "split", "mask", "patient"]
    assert set(manifest["source"]) == {name}
    assert set(manifest["split"]) == {"test_ood"}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_data_set_takes_the_manifest(make, tmp_path, name):
    make(name)
    path = tmp_path / "manifest.csv"
    table = listing.read(path, xray_checks.COLUMNS)
    assert list(xray_checks.rows(table, path, [COVID, PNEUMONIA, NORMAL], tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cohen", ["images/a.jpeg", "images/e.png"]),
        ("nih", ["images_001/images/00000001_000.png", "images_001/images/00000002_000.png"]),
        ("figure1", ["images/COVID-00001.jpg", "images/COVID-00034.jpg"]),
        ("covid_cxnet", ["chest_xray_images/covid19/444.png"]),
    ],
)
def test_erect_views_are_those_known_to_be(make, name, kept):
    views = labels(make(name, views="erect"), name)
    assert [image for image in views if "00000004" not in image] == kept


def test_lying_patients_are_known_by_the_series_name(make):
    assert not any("ses-E3" in image for image in make("bimcv", views="erect")["image"])


@pytest.mark.parametrize(
    ("name", "mapping", "left_out"),
    [
        ("brixia", {"COVID-19/score 0": ""}, ["101.dcm"]),
        ("bimcv", {"COVID-19/no report": ""}, ["ses-E3_run-1_bp-chest_vp-ap_dx.png"]),
        ("bimcv", {"COVID-19/reported normal": ""}, ["ses-E2_run-2_bp-chest_vp-pa_cr.png"]),
        ("bimcv", {"COVID-19/reported": ""}, ["ses-E1_run-1_bp-chest_vp-pa_cr.png"]),
        ("chexpert", {"No Finding/support devices": ""}, ["patient00001/study1/view1_frontal.jpg"]),
        ("nih", {"Pneumonia/with others": ""}, ["00000002_000.png"]),
        ("cohen", {"Pneumonia/Viral/SARS": ""}, ["d.jpg"]),
        ("cohen", {"Pneumonia": ""}, ["d.jpg", "e.png"]),
        ("covid_cxnet", {"COVID-19/PCR negative": ""}, ["444.png"]),
        ("covid_cxnet", {"COVID-19/child": ""}, ["446p.jpg"]),
        ("covid_cxnet", {"COVID-19/no opacity": ""}, ["364.jfif"]),
        ("actualmed", {"No finding": ""}, ["CR.1.2.840.1.png"]),
    ],
)
def test_findings_can_be_left_out(make, name, mapping, left_out):
    kept = labels(make(name, labels=mapping), name)
    assert len(EXPECTED[name]) - len(kept) == len(left_out)
    assert all(sum(image.endswith(end) for image in EXPECTED[name]) == 1 for end in left_out)
    assert not any(image.endswith(end) for image in kept for end in left_out)


@pytest.mark.parametrize(
    ("name", "mapping", "added"),
    [
        ("chexpert", {"Pneumonia/uncertain": PNEUMONIA}, {"train/patient00003/study1/view1_frontal.jpg": PNEUMONIA}),
        ("cohen", {"Tuberculosis": "tuberculosis"}, {"images/g.png": "tuberculosis"}),
        ("nih", {"Hernia": "hernia"}, {"images_002/images/00000003_000.png": "hernia"}),
        ("shenzhen", {"tuberculosis": "tb"}, {"CXR_png/CHNCXR_0327_1.png": "tb"}),
        ("bimcv", {"COVID-19/inverted": COVID}, {SESSION.format("ses-E2", 1, "ap_dx.png"): COVID}),
    ],
)
def test_findings_can_be_given_a_label(make, name, mapping, added):
    found = {image: label for image, (label, _) in labels(make(name, labels=mapping), name).items()}
    assert found == {image: label for image, (label, _) in EXPECTED[name].items()} | added


def test_the_longest_beginning_of_a_finding_counts(make):
    found = labels(make("cohen", labels={"Pneumonia/Viral": "viral", "Pneumonia/Viral/SARS": "sars"}), "cohen")
    assert {image: label for image, (label, _) in found.items()} == {
        "images/a.jpeg": COVID,
        "images/b.jpeg": NORMAL,
        "images/d.jpg": "sars",
        "images/e.png": PNEUMONIA,
    }


def test_a_finding_that_the_collection_does_not_have_is_refused(make):
    with pytest.raises(BenchError, match=r"has no finding 'Pneumonia/Vir'; it has No Finding, Pneumonia, Pneumonia/B"):
        make("cohen", labels={"Pneumonia/Vir": ""})


@pytest.mark.parametrize(
    ("name", "part", "number"), [("nih", "train_val", 3), ("nih", "test", 1), ("chexpert", "train", 3)]
)
def test_a_collections_own_parts(make, name, part, number):
    assert len(make(name, part=part)) == number


def test_a_part_that_the_collection_does_not_have_is_refused(make):
    with pytest.raises(BenchError, match="NIH ChestX-ray14 has no part 'tests'; its parts: train_val, test"):
        make("nih", part="tests")
    with pytest.raises(BenchError, match="COVID-CXNet has no part 'test'; its parts: none"):
        make("covid_cxnet", part="test")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("brixia", lambda folder: brixia(folder, ",")),
        ("brixia", lambda folder: brixia(folder / "data")),
        ("bimcv", lambda folder: bimcv(folder, "labels_covid19_posi.tsv")),
        ("bimcv", lambda folder: bimcv(folder, "Labels_covid_123.tsv")),
        ("nih", lambda folder: nih(folder, ",")),
    ],
)
def test_other_releases(make, name, layout):
    found = labels(make(name, layout), name)
    assert {image.removeprefix("data/"): row for image, row in found.items()} == EXPECTED[name]
    if name == "bimcv":
        assert len(make(name, labels={"COVID-19/no report": ""})) == len(found) - 1


def test_damaged_tags_beside_an_image_do_no_harm(make, tmp_path):
    make("bimcv")
    for path in (tmp_path / "bimcv").rglob("*.json"):
        path.write_text('["no", "object"]' if "ses-E1" in path.name else "{")
    assert len(make("bimcv")) == len(EXPECTED["bimcv"]) + 2


def test_montgomerys_lungs_are_united(make, tmp_path):
    manifest = make("montgomery", labels={"tuberculosis": "tuberculosis"}).set_index("patient")
    assert manifest["mask"].to_dict() == {
        "MCUCXR_0001": "manifest_masks/montgomery/MCUCXR_0001_0.png",
        "MCUCXR_0002": "",
        "MCUCXR_0104": "manifest_masks/montgomery/MCUCXR_0104_1.png",
    }
    for patient, rows in (("MCUCXR_0001", slice(2, 5)), ("MCUCXR_0104", slice(1, 2))):
        expected = np.zeros((6, 8), np.uint8)
        expected[rows, [1, 2, 5, 6]] = 255
        with Image.open(tmp_path / manifest["mask"][patient]) as united:
            assert united.mode == "L"
            np.testing.assert_array_equal(np.asarray(united), expected)


def test_masks_that_cannot_be_united(make, tmp_path):
    LAYOUTS["montgomery"](tmp_path / "montgomery")
    path = tmp_path / "montgomery" / "ManualMask" / "rightMask" / "MCUCXR_0001_0.png"
    path.write_bytes(b"no mask")
    with pytest.raises(BenchError, match=r"mask .*rightMask/MCUCXR_0001_0.png cannot be read \(.*unpack"):
        make("montgomery")
    mask(path, slice(0, 1), slice(0, 1), 1)
    Image.open(path).resize((3, 3)).save(path)
    with pytest.raises(BenchError, match=r"masks .*leftMask.*rightMask.* differ in size"):
        make("montgomery")
    assert not (tmp_path / "manifest.csv").exists()


def test_shenzhens_masks_stay_where_they_are(make):
    manifest = make("shenzhen").set_index("patient")
    assert manifest["mask"].to_dict() == {"CHNCXR_0001": "shenzhen/mask/mask/CHNCXR_0001_0_mask.png", "CHNCXR_0002": ""}


def test_images_without_a_mask_can_be_left_out(make):
    kept = {name: set(make(name, masked=True)["patient"]) for name in ("montgomery", "shenzhen")}
    assert kept == {"montgomery": {"MCUCXR_0001"}, "shenzhen": {"CHNCXR_0001"}}
    with pytest.raises(BenchError, match=r"none of the 6 images of .* can be used \(.*[1-9] without a mask"):
        make("nih", masked=True)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_empty_folder_names_what_is_missing_and_where_to_get_it(make, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(BenchError) as caught:
        make(name)
    assert f"{tmp_path / name} holds no " in str(caught.value)
    assert f"from {builders.known()[name].home} (docs/data.md says how)" in str(caught.value)
    assert not (tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize(("name", "metadata"), METADATA.items())
def test_a_missing_column_is_named(make, tmp_path, name, metadata):
    LAYOUTS[name](tmp_path / name)
    path = tmp_path / name / metadata
    table(path, "one,two", "1,2")
    with pytest.raises(BenchError, match=rf"{metadata} has no column .*; its columns: one,two|.*two: get .* from http"):
        make(name)


def test_metadata_that_are_no_table(make, tmp_path):
    (tmp_path / "cohen").mkdir()
    (tmp_path / "cohen" / "metadata.csv").write_bytes(b"")
    with pytest.raises(BenchError, match=r"metadata.csv cannot be read as a table \(.*\): get the COVID-19 Image"):
        make("cohen")


def test_a_collection_without_images_says_why(make, tmp_path):
    LAYOUTS["actualmed"](tmp_path / "actualmed")
    for path in (tmp_path / "actualmed" / "images").iterdir():
        path.unlink()
    reason = (
        r"none of the 4 images of .* can be used \(1 of a view that is not frontal, 1 of a finding without label, "
        r"2 listed, but not there\): unpack all of it; get the Actualmed"
    )
    with pytest.raises(BenchError, match=reason):
        make("actualmed")


def test_what_is_left_out_is_counted(make, caplog):
    caplog.set_level("INFO")
    make("cohen")
    told = (
        "4 images used, left out: 2 of a view that is not frontal, 2 of a finding without label, 1 in another format "
        "than .png, .jpg, .jpeg, .jfif, .dcm, .dicom, 1 listed again, 1 listed, but not there"
    )
    assert told in caplog.text


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("PA", "PA"), ("AP", "AP"), ("AP erect", "AP erect"), ("AP Erect", "AP erect"), ("AP semi erect", "AP"),
        ("AP Supine", "AP supine"), ("APS", "AP supine"), ("L", "other"), ("Axial", "other"), ("LL", "other"), ("", ""),
    ],
)  # fmt: skip
def test_views(text, view):
    assert base.view(text) == view


def test_files_of_other_collections_are_let_alone(make, tmp_path):
    LAYOUTS["shenzhen"](tmp_path / "shenzhen")
    put(tmp_path / "shenzhen" / "CXR_png", "MCUCXR_0001_0.png", "CHNCXR_0009_2.png")
    assert labels(make("shenzhen"), "shenzhen") == EXPECTED["shenzhen"]
