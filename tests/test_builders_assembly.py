"""From a collection to a manifest: splits by patient, limits, several manifests as one, and the command line."""

import logging

import pandas as pd
import pytest
from published_layouts import put, table

from isnet_bench import cli
from isnet_bench.data.builders import assembly
from isnet_bench.io.errors import BenchError

LABELS = {"COVID-19": "covid19", "No finding": "normal"}


def many(folder, patients=40, images=3):
    """Actualmed's layout with many patients, two thirds of them with COVID-19; every tenth also has a normal image."""
    header = "patientid,finding,view,modality,imagename"
    rows = []
    for patient in range(patients):
        finding = "No finding" if patient % 3 == 2 else "COVID-19"
        for image in range(images):
            seen = "No finding" if patient % 10 == 0 and image == 0 else finding
            rows.append(f"ANON{patient},{seen},PA,X-ray,{patient:03}_{image}.png")
    table(folder / "metadata.csv", header, *rows)
    put(folder / "images", *(row.rpartition(",")[2] for row in rows))


@pytest.fixture
def make(tmp_path):
    def build(out="manifest.csv", folder="actualmed", **changes):
        if not (tmp_path / folder).exists():
            many(tmp_path / folder)
        assembly.build("actualmed", tmp_path / folder, tmp_path / out, assembly.Settings(**changes))
        return read(tmp_path / out)

    return build


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def patients(manifest, **where):
    for column, value in where.items():
        manifest = manifest[manifest[column] == value]
    return set(manifest["patient"])


def test_training_patients_are_shared_out(make):
    manifest = make()
    splits = {split: patients(manifest, split=split) for split in ("train", "val", "test_iid")}
    assert {split: len(chosen) for split, chosen in splits.items()} == {"train": 28, "val": 6, "test_iid": 6}
    assert set().union(*splits.values()) == patients(manifest)
    assert len(manifest) == 120


def test_no_patient_is_in_two_splits(make):
    for seed in range(5):
        assert make(seed=seed).groupby("patient")["split"].nunique().max() == 1


def test_each_label_is_shared_out_alike(make):
    manifest = make(val_share=0.25, test_iid_share=0.25)
    kinds = manifest.groupby("patient")["label"].min()
    for label, number in kinds.value_counts().items():
        for split, share in (("val", 0.25), ("test_iid", 0.25), ("train", 0.5)):
            chosen = patients(manifest, split=split) & set(kinds.index[kinds == label])
            assert abs(len(chosen) - share * number) <= 1, (label, split)


def test_the_seed_decides(make):
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    pd.testing.assert_frame_equal(first, again)
    assert patients(first, split="val") != patients(other, split="val")


def test_shares_of_zero_leave_splits_out(make):
    assert set(make(val_share=0.2, test_iid_share=0)["split"]) == {"train", "val"}
    assert set(make(val_share=0, test_iid_share=0)["split"]) == {"train"}


@pytest.mark.parametrize("split", ["val", "test_iid", "test_ood"])
def test_all_images_go_to_any_other_split(make, split):
    assert set(make(split=split)["split"]) == {split}


def test_too_few_patients_for_a_split(make, tmp_path):
    many(tmp_path / "few", patients=2)
    with pytest.raises(BenchError, match="2 patients are too few for split val: choose other values of val_share"):
        make(folder="few", val_share=0.1, test_iid_share=0.4)
    assert not (tmp_path / "manifest.csv").exists()


def test_a_limit_for_each_label(make):
    manifest = make(limit=7, split="test_ood")
    assert manifest["label"].value_counts().to_dict() == {"covid19": 7, "normal": 7}
    # Patient by patient: seven images of three a patient are of three or, with a mixed one, four patients.
    assert len(patients(manifest, label="covid19")) <= 4
    assert patients(manifest, label="covid19") != patients(make(limit=7, split="test_ood", seed=1), label="covid19")
    assert len(make(limit=1000)) == 120


def test_paths_are_relative_to_the_manifest(make, tmp_path):
    manifest = make(out="deeper/manifest.csv", folder="deeper/still/actualmed")
    assert manifest["image"].str.startswith("still/actualmed/images/").all()
    assert all((tmp_path / "deeper" / image).is_file() for image in manifest["image"])


def test_the_manifest_must_lie_above_the_images(make):
    with pytest.raises(BenchError, match=r"does not lie below .*elsewhere, the manifest's folder: write the manifest"):
        make(out="elsewhere/manifest.csv")


def test_a_failure_leaves_the_old_manifest(make, tmp_path):
    make()
    before = (tmp_path / "manifest.csv").read_bytes()
    with pytest.raises(BenchError):
        make(labels={"no such": ""})
    assert (tmp_path / "manifest.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["actualmed", "manifest.csv"]


def test_several_manifests_as_one(make, tmp_path):
    make(out="a/one.csv", folder="a/actualmed", split="test_ood")
    own = "image,label,source,split,mask\nx.png,normal,mine,train,m/x.png\ny.png,normal,mine,val,\n"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.csv").write_text(own)
    assembly.combine([tmp_path / "a" / "one.csv", tmp_path / "b" / "two.csv"], tmp_path / "all.csv")
    whole = read(tmp_path / "all.csv")
    assert len(whole) == 122
    assert whole["image"][0] == "a/actualmed/images/000_0.png"
    assert whole.iloc[-2:].to_numpy().tolist() == [
        ["b/x.png", "normal", "mine", "train", "b/m/x.png", ""],
        ["b/y.png", "normal", "mine", "val", "", ""],
    ]


def test_an_image_may_be_listed_once(make, tmp_path):
    make(out="one.csv", split="test_ood")
    make(out="two.csv", split="train")
    with pytest.raises(BenchError, match=r"actualmed/images/000_0.png is listed twice in .*one.csv, .*two.csv: keep"):
        assembly.combine([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()


def test_a_patient_may_be_in_one_split(tmp_path):
    header = "image,label,source,split,mask,patient"
    table(tmp_path / "one.csv", header, "a.png,normal,nih,train,,7", "b.png,normal,nih,val,,8")
    table(tmp_path / "two.csv", header, "c.png,normal,nih,train,,7", "d.png,normal,chexpert,test_ood,,7")
    assembly.combine([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "all.csv")
    assert len(read(tmp_path / "all.csv")) == 4
    table(tmp_path / "two.csv", header, "c.png,normal,nih,test_iid,,7")
    with pytest.raises(BenchError, match=r"patient 7 of nih is in train and test_iid \(.*one.csv, .*two.csv\): build"):
        assembly.combine([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "all.csv")


def test_a_manifest_to_combine_must_be_one(make, tmp_path):
    make(out="one.csv")
    with pytest.raises(BenchError, match=r"two.csv is missing: name manifests that are there"):
        assembly.combine([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "all.csv")
    table(tmp_path / "two.csv", "image,label,source,mask", "x.png,normal,mine,")
    with pytest.raises(BenchError, match=r"two.csv has no column split; its columns: image, label, source, mask"):
        assembly.combine([tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "all.csv")
    with pytest.raises(BenchError, match=r"does not lie below .*/deep, the manifest's folder"):
        assembly.combine([tmp_path / "one.csv"], tmp_path / "deep" / "all.csv")


ACTUALMED = ("--collection", "actualmed", "--folder", "actualmed")


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """Run the verb in a folder that holds no configuration; give the exit status."""
    many(tmp_path / "actualmed")
    monkeypatch.chdir(tmp_path)
    levels = {name: logging.getLogger(name).level for name in ("isnet", "baselines", "isnet_bench")}
    yield lambda *words: cli.main(["manifest", *words])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_the_command_line_builds_and_combines(verb, tmp_path):
    build = [*ACTUALMED, "--map", "No finding=", "COVID-19=sick"]
    assert verb(*build, "--val-share", "0.2", "--test-iid-share", "0", "--seed", "2", "--out", "one.csv") == 0
    manifest = read(tmp_path / "one.csv")
    assert set(manifest["label"]) == {"sick"}
    assert set(manifest["split"]) == {"train", "val"}
    assert verb(*build[:4], "--masked", "--out", "two.csv") == cli.FAILED
    assert verb("--combine", "one.csv", "--out", "all.csv") == 0
    pd.testing.assert_frame_equal(read(tmp_path / "all.csv"), manifest)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--collection", "actualmed"], "needs either --collection and --folder, or --combine"),
        (["--collection", "actualmed", "--folder", "actualmed", "--combine", "x.csv"], "needs either"),
        (["--collection", "actual", "--folder", "actualmed"], "unknown collection 'actual'"),
        ([*ACTUALMED, "--split", "test_ood", "--val-share", "0.1"], "for split train or own only, not for test_ood"),
        ([*ACTUALMED, "--val-share", "-0.1"], "manifest: val_share: Input should be greater than or equal to 0"),
        ([*ACTUALMED, "--val-share", "0.5", "--test-iid-share", "0.5"], "must sum to less than 1"),
        ([*ACTUALMED, "--limit", "0"], "manifest: limit: Input should be greater than 0"),
        (["--collection", "actualmed", "--folder", "nowhere"], "nowhere holds no metadata.csv: get the Actualmed"),
    ],
)
def test_the_command_line_says_what_is_wrong(verb, tmp_path, capsys, words, reason):
    assert verb(*words, "--out", "one.csv") == cli.FAILED
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "one.csv").exists()


def test_a_mapping_without_equals_sign(verb, capsys):
    with pytest.raises(SystemExit):
        verb("--collection", "actualmed", "--folder", "actualmed", "--map", "COVID-19", "--out", "one.csv")
    assert "'COVID-19' is not FINDING=LABEL" in capsys.readouterr().err
