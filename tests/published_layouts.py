"""Miniatures of the layouts in which the collections are published; headers are those of the real files."""

import json

import numpy as np
from PIL import Image


def put(folder, *names):
    """Files that nobody decodes."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")


def table(path, header, *rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)


def brixia(folder, separator=";"):
    columns = (
        ",Filename,StudyDate,Modality,Manufacturer,PhotometricInterpretation,Rows,Columns,StudyId,BrixiaScore,"
        "BrixiaScoreGlobal,ConsensusTestset,Subject,Sex,AgeAtStudyDateFiveYear"
    )
    rows = [
        "0,100.dcm,20200304,CR,X,MONOCHROME1,9,9,1,001111,4,0,7,M,12",
        "1,101.dcm,20200305,CR,X,MONOCHROME1,9,9,2,000000,0,1,7,M,12",
        "2,102.dcm,20200305,DX,X,MONOCHROME2,9,9,3,333333,18,0,8,F,10",
    ]
    lines = [line.replace(",", separator) for line in (columns, *rows)]
    table(folder / "metadata_global_v2.csv", *lines, encoding="utf-8-sig")
    put(folder / "dicom_clean", "100.dcm", "101.dcm", "102.dcm")


def bimcv(folder, report="labels_covid_posi.tsv"):
    root = folder / "covid19_posi"
    table(
        root / "participants.tsv",
        "participant\tmodality_dicom\tbody_parts\tage\tgender",
        "sub-S01\t['CR', 'DX']\t[['chest']]\t[64]\tF",
        "sub-S02\t['CT']\t[['chest']]\t[50]\tM",
        "derivatives\t\t\t\t",
    )
    table(
        root / "derivatives" / "labels" / report,
        "PatientID\tReportID\tReport\tLabels\tLocalizations",
        "sub-S01\tses-E1\tuno\t['pneumonia', 'COVID 19']\t[]",
        "sub-S01\tses-E2\tdos\t['normal']\t[]",
    )
    stem = "sub-S01_{}_run-1_bp-chest"
    images = {
        ("ses-E1", "_vp-pa_cr"): {"00280004": {"vr": "CS", "Value": ["MONOCHROME2"]}},
        ("ses-E1", "_vp-ll_cr"): {},
        ("ses-E1", "_cr"): {},
        ("ses-E2", "_vp-ap_dx"): {"00280004": {"Value": ["MONOCHROME1"]}},
        ("ses-E2", "_acq-2_vp-pa_dx"): {"0008103E": {"Value": ["W034 Torax Lat."]}},
        ("ses-E3", "_vp-ap_dx"): {"0008103E": {"Value": ["TORAX SUPINO AP"]}, "00280004": {"vr": "CS"}},
    }
    for (session, end), tags in images.items():
        name = f"sub-S01/{session}/mod-rx/{stem.format(session)}{end}"
        put(root, f"{name}.png")
        (root / f"{name}.json").write_text(json.dumps(tags))
    put(root, "sub-S01/ses-E2/mod-rx/sub-S01_ses-E2_run-2_bp-chest_vp-pa_cr.png")
    put(root, "sub-S03/ses-E9/mod-rx/sub-S03_ses-E9_run-1_bp-chest_vp-pa_cr.png")


def chexpert(folder):
    header = (
        "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,"
        "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
        "Support Devices"
    )
    start = "CheXpert-v1.0-small/train/patient0000"
    rows = [
        f"{start}1/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
        f"{start}1/study2/view1_frontal.jpg,Female,68,Frontal,PA,1.0,,,,,,,,,,,,,",
        f"{start}1/study2/view2_lateral.jpg,Female,68,Lateral,,1.0,,,,,,,,,,,,,",
        f"{start}2/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,,,,,1.0,,,,,,",
        f"{start}3/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,,,,,-1.0,,,,,,",
        f"{start}4/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,1.0,,,,,,,,,,",
    ]
    table(folder / "train.csv", header, *rows)
    other = "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg"
    table(folder / "valid.csv", header, f"{other},Male,73,Frontal,AP,0.0,1.0,0.0,,,,0.0,1.0,,,,,,")
    put(folder, *(row.split(",")[0].partition("/")[2] for row in [*rows, other]))


def nih(folder, header_end=""):
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    rows = [
        "00000001_000.png,No Finding,0,1,57,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,Pneumonia,1,1,58,M,AP,2894,2729,0.143,0.143,",
        "00000002_000.png,Infiltration|Pneumonia,0,2,80,M,PA,2500,2048,0.171,0.171,",
        "00000003_000.png,Hernia,0,3,81,F,PA,2582,2991,0.143,0.143,",
        "00000004_000.png,No Finding,0,4,82,F,PA,2582,2991,0.143,0.143,",
        "00000005_000.png,No Finding,0,5,82,F,PA,2582,2991,0.143,0.143,",
    ]
    table(folder / "Data_Entry_2017.csv", header + header_end, *rows)
    (folder / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png\n00000003_000.png")
    (folder / "test_list.txt").write_text("00000004_000.png\n00000005_000.png\n")
    put(folder / "images_001" / "images", *(f"0000000{name}.png" for name in ("1_000", "1_001", "2_000")))
    put(folder / "images_002" / "images", "00000003_000.png", "00000004_000.png")


def mask(path, rows, columns, value):
    pixels = np.zeros((6, 8), np.uint8)
    pixels[rows, columns] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def montgomery(folder):
    put(folder / "CXR_png", "MCUCXR_0001_0.png", "MCUCXR_0104_1.png", "MCUCXR_0002_0.png", "Thumbs.db")
    for side, columns in (("leftMask", slice(5, 7)), ("rightMask", slice(1, 3))):
        mask(folder / "ManualMask" / side / "MCUCXR_0001_0.png", slice(2, 5), columns, 255)
        mask(folder / "ManualMask" / side / "MCUCXR_0104_1.png", slice(1, 2), columns, 1)
    mask(folder / "ManualMask" / "leftMask" / "MCUCXR_0002_0.png", slice(1, 2), slice(1, 2), 255)


def shenzhen(folder):
    put(folder / "CXR_png", "CHNCXR_0001_0.png", "CHNCXR_0327_1.png", "CHNCXR_0002_0.png")
    put(folder / "mask" / "mask", "CHNCXR_0001_0_mask.png", "CHNCXR_0327_1_mask.png")


def cohen(folder):
    header = (
        "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,"
        "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,"
        "lymphocyte_count,view,modality,date,location,folder,filename,doi,url,license,clinical_notes,other_notes,"
    )

    def row(patient, finding, view, name, modality="X-ray", folder="images"):
        return f'{patient},0,M,65,{finding}{"," * 14}{view},{modality},2020,"Rome, Italy",{folder},{name},,,,"a, b",,'

    table(
        folder / "metadata.csv",
        header,
        row(2, "Pneumonia/Viral/COVID-19", "PA", "a.jpeg"),
        row(2, "No Finding", "AP Supine", "b.jpeg"),
        row(2, "Pneumonia/Viral/COVID-19", "L", "c.jpeg"),
        row(3, "Pneumonia/Viral/SARS", "AP", "d.jpg"),
        row(4, "Pneumonia", "AP Erect", "e.png"),
        row(4, "Pneumonia", "PA", "e.png"),
        row(5, "Pneumonia/Viral/COVID-19", "Axial", "f.nii.gz", "CT", "volumes"),
        row(6, "Tuberculosis", "PA", "g.png"),
        row(7, "Pneumonia/Bacterial", "", "h.png"),
        row(8, "Pneumonia/Viral/COVID-19", "PA", "gone.png"),
        row(9, "todo", "PA", "i.gif"),
        row(9, "No Finding", "PA", "j.gif"),
    )
    put(folder / "images", *(f"{name}.jpeg" for name in "abc"), "d.jpg", "e.png", "g.png", "h.png", "i.gif", "j.gif")


def covid_cxnet(folder):
    header = (
        "filename,patient_id,sex,age,view,label,pcr_test,survival,location,admission_offset,symptom_offset,also_had_ct,"
        "has_fever,has_cough,has_dyspnea,has_diarrhea,spo2,other_symptoms,medical_background,opacification,other,"
        "is_bilateral,url"
    )
    rest = "," * 12 + "{},,,"
    table(
        folder / "metadata.csv",
        header,
        f"260.jpg,10,female,68,,COVID-19,positive,{rest.format(1)}",
        f"364.jfif,55,male,56,AP,COVID-19,,{rest.format(0)}",
        f"444.png,118,female,38,PA,COVID-19,negative,{rest.format(0)}",
        f"446p.jpg,120,female,7,,COVID-19,negative,{rest.format(0)}",
        f"465.webp,134,female,99,,COVID-19,positive,{rest.format(1)}",
    )
    put(folder / "chest_xray_images" / "covid19", "001.jpeg", "260.jpg", "364.jfif", "444.png", "446p.jpg", "465.webp")


def figure1(folder):
    header = (
        "patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,artifacts/distortion,notes"
    )
    table(
        folder / "metadata.csv",
        header,
        "COVID-00001,13,M,33,COVID-19,,,58,AP erect,X-ray,,",
        'COVID-00015a,,,67+,COVID-19,,39°,,,X-ray,,"a, b"',
        "COVID-00015b,,,67+,COVID-19,,,,,X-ray,,",
        "COVID-00005,,,,,,,,,X-ray,,",
        "COVID-00028,,,,No finding,,,,,X-ray,,",
        "COVID-00031,,,,Pneumonia,,,,L,X-ray,,",
        "COVID-00034,,,,Pneumonia,,,,PA,X-ray,,",
        encoding="latin-1",
    )
    put(folder / "images", "COVID-00001.jpg", "COVID-00015a.png", "COVID-00015b.jpg", "COVID-00005.jpg")
    put(folder / "images", "COVID-00028.png", "COVID-00031.jpg", "COVID-00034.jpg")


def actualmed(folder):
    header = (
        "patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,imagename,"
        "artifacts/distortion,notes"
    )
    names = [f"CR.1.2.840.{number}.png" for number in range(4)]
    table(
        folder / "metadata.csv",
        header,
        f'ANON196,,,,,,,,PA,X-ray,{names[0]},,"Inconclusive, date taken (YYYYMMDD): 20200313"',
        f'ANON56,,,,No finding,,,,PA,X-ray,{names[1]},,"Negative, date taken (YYYYMMDD): 20200317"',
        f'ANON196,,,,COVID-19,,,,AP,X-ray,{names[2]},,", date taken (YYYYMMDD): 20200318"',
        f'ANON58,,,,COVID-19,,,,,X-ray,{names[3]},,", date taken (YYYYMMDD): 20200318"',
    )
    put(folder / "images", *names)


LAYOUTS = {
    function.__name__: function
    for function in (actualmed, bimcv, brixia, chexpert, cohen, covid_cxnet, figure1, montgomery, nih, shenzhen)
}
