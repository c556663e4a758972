"""Tables as people have them: each case is a whole CSV file, and what is understood or said of it."""

import json

import pytest

from common import paths
from dataset.labels import are_boxes, could_be_predicted, numbers_in
from dataset.people import read_ages, read_sexes, read_views
from dataset.records import load_dataset, load_official_test
from synthetic.foreign_images import read_ids
from utils import UserError

HEAD, ROWS = "patientId,Target,age,sex,position", ["a,1,58,F,AP", "b,0,40,M,PA"]
PLAIN = "\n".join([HEAD, *ROWS]) + "\n"


def load(folder, text: str | bytes, **options):
    (folder / paths.TRAIN_METADATA).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_dataset(folder, **options)


# --- the file --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace("\n", ",,\n").replace("position,,", "position"),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("\n", "\r"),
        "\n\n" + PLAIN.replace("\n", "\n,,,,\n\n"),
        "# of the clinic, in May\n" + PLAIN + "# the end\n",
        PLAIN.replace("patientId", "PatientId").replace("Target", " TARGET "),
        PLAIN.replace("a,1", '="a",1.0').replace("b,0", '"b","0,0"'),
        PLAIN.replace("a,1", "a,True").replace("b,0", "b,FALSE"),
        "".join(f'"{line}"\n' for line in [HEAD, *ROWS]),
        ",".join(["", HEAD]) + "".join(f"\n{n},{row}" for n, row in enumerate(ROWS)),
        HEAD + "".join(f"\n{n},{row}" for n, row in enumerate(ROWS, 1)) + "\n",
        PLAIN.replace("Target", "Target,Target").replace("a,1", "a,1,1.0").replace("b,0", "b,0,"),
        HEAD + ",site\n" + "\n".join(f"{row},Köln" for row in ROWS).encode("cp1252").decode("cp1252") + "\n",
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
        (HEAD + ",site\n" + "\n".join(f"{row},Köln" for row in ROWS) + "\n").encode("cp1252"),
    ],
)  # fmt: skip
def test_the_same_table_in_other_forms(tmp_path, text):
    images = load(tmp_path, text).images
    assert list(images["image_id"]) == ["a", "b"] and list(images["label"]) == [1, 0]
    assert list(images["age"]) == [58, 40] and list(images["sex"]) == ["F", "M"]
    assert list(images["view"]) == ["AP", "PA"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN + "c,0,50,F,AP,x\n", "line 4 has 6 cells for 5 names"),
        (PLAIN + "c,0,5", "ends within line 4"),
        (PLAIN.replace("a,1", "ä,1").encode("cp1252"), 'line 2 holds letters that are not UTF-8 .* "CSV UTF-8"'),
        (PLAIN.encode("utf-16")[2:], "holds zero bytes.*CSV UTF-8"),
        (b"PK\x03\x04" + bytes(9), "an Excel workbook"),
        (PLAIN + 'c,0,"50,F,AP\n', "line 4: unexpected end"),
        (PLAIN.replace("age", "Target ").replace("58", "0"), r"'Target' \(column 2\) and .* \(column 3\) disagree"),
        (PLAIN.replace("age", "patientId ").replace("58", "c"), r"\(column 1\) and .* \(column 3\) disagree"),
        (PLAIN.replace("a,1", "x/a,1"), "'x/a' is not a plain file name: it names a folder"),
        (PLAIN.replace("a,1", "..,1"), "begins with a dot"),
        (PLAIN.replace("a,1", "a\x07,1"), "control character"),
        (PLAIN.replace("a,1", "a" * 251 + ",1"), "longer than 250 bytes"),
        (PLAIN.replace("a,1", "a,"), "image a has Target ''"),
        ("", "has no column patientId"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize("missing", range(5))
def test_a_row_that_lacks_an_inner_cell_is_named(tmp_path, missing):
    """Blank cells at the end may be left out, as Excel does; one before them shifts the others."""
    row = ["c", "0", "50", "F", "AP"]
    del row[missing]
    text = PLAIN + "".join(f"d{n},{n % 2},6{n},M,PA\n" for n in range(6)) + ",".join(row) + "\n"
    if missing == 4:
        dataset = load(tmp_path, text)
        assert list(dataset.images["image_id"][dataset.images["view"] == ""]) == ["c"]
        assert any("1 rows have fewer cells" in note for note in dataset.notes)
    else:
        with pytest.raises(UserError, match=r"line 10 has 4 cells for 5 names of columns, and .* write a separator"):
            load(tmp_path, text)


def test_rows_that_all_have_fewer_cells_than_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="line 2 has 5 cells for 6 names of columns; write"):
        load(tmp_path, PLAIN.replace("patientId", "patientId,site"))


@pytest.mark.parametrize("image_id", ["a b", "Müller (1)", "[7]", "<b>&amp;", "_x", "#7", "NA", "{0}", "胸部"])
def test_ids_are_any_file_name(tmp_path, image_id):
    assert image_id in list(load(tmp_path, PLAIN.replace("a,1", f"{image_id},1")).images["image_id"])


# --- people ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("read", "texts", "values", "note"),
    [
        (read_sexes, ["Male", "Female", ""], ["M", "F", ""], "sex: Male, Female -> M, F"),
        (read_sexes, ["m", "W", "O", "NA"], ["M", "F", "", ""], "sex: m, W -> M, F"),
        (read_sexes, ["H", "M"], ["M", ""], "sex: 1 cells are not understood and count as unknown: M"),
        (read_sexes, ["1", "2"], ["", ""], "2 cells are not understood"),
        (read_views, ["AP supine", "PA erect"], ["AP", "PA"], "view: AP supine, PA erect -> AP, PA"),
        (read_views, ["antero-posterior", "Posteroanterior", "P.A.", "A/P"], ["AP", "PA", "PA", "AP"], "->"),
        (read_views, ["LL", "Left Lateral", "AP lateral decubitus"], ["LATERAL", "LATERAL", "AP"], "->"),
        (read_views, ["PA and lateral", "AP/PA", "frontal"], ["", "", ""], "3 cells are not understood"),
        (read_ages, ["058Y", "018M", "58 y", "58,5", "7 years old"], [58, 1.5, 58, 58.5, 7], "age: 058Y, 018M"),
        (read_ages, ["58M", "50-60", "90+", "1e3"], [None] * 4, "age: 4 cells are not understood"),
    ],
)  # fmt: skip
def test_spellings_of_view_sex_and_age(read, texts, values, note):
    understood = read(texts)
    assert [None if value != value else value for value in understood.values] == values
    assert any(note in text for text in understood.notes)
    assert not read(["AP", "PA"] if read is read_views else ["M", "F"] if read is read_sexes else ["58", "7.5"]).notes


@pytest.mark.parametrize(
    "names", ["PatientAge,PatientSex,ViewPosition", "Patient Age,Patient Gender,View Position", "age,Gender,projection"]
)
def test_names_of_dicom_and_nih(tmp_path, names):
    dataset = load(tmp_path, PLAIN.replace("age,sex,position", names))
    assert list(dataset.images["view"]) == ["AP", "PA"] and list(dataset.images["age"]) == [58, 40]
    assert any("columns understood" in note for note in dataset.notes)


def test_rows_that_disagree_are_unknown_and_said(tmp_path):
    dataset = load(tmp_path, PLAIN + "a,1,60,,PA\n")
    first = dataset.images.iloc[0]
    assert first["age"] != first["age"] and first["view"] == "" and first["sex"] == "F"
    assert any("rows of different age: 1 image (a)" in note for note in dataset.notes)


def test_mostly_unknown_and_lateral_are_red_flags(tmp_path):
    dataset = load(tmp_path, PLAIN.replace("F,AP", "1,lateral").replace(",M,", ",2,"))
    assert any("sex is unknown for 2 of 2 images" in flag for flag in dataset.red_flags)
    assert any("1 image (a) are lateral" in flag for flag in dataset.red_flags)
    assert not load(tmp_path, PLAIN).red_flags


# --- patients --------------------------------------------------------------------------------------
PATIENTS = "patientId,Target,{}\na,1,p\nb,0,p\nc,0,\nd,0,ANONYMOUS\n"


@pytest.mark.parametrize("name", ["Patient ID", "PatientID", "patient_id", "subject_id", "mine"])
def test_a_column_of_patients_groups(tmp_path, name):
    dataset = load(tmp_path, PATIENTS.format(name), patient_column="mine" if name == "mine" else None)
    assert dataset.grouped_by == "patient_column" and dataset.unmapped == 2
    assert list(dataset.images["patient"]) == ["p", "p", "c", "d"]


def test_columns_and_maps_of_patients_that_contradict(tmp_path):
    with pytest.raises(UserError, match="--patient-column who: .* its columns are patientId"):
        load(tmp_path, PATIENTS.format("x1"), patient_column="who")
    entries = [{"subset_img_id": name, "img_id": f"folder/0000000{n}_000.png"} for n, name in enumerate("ab")]
    (tmp_path / paths.PATIENT_MAP).write_bytes(json.dumps(entries).encode("utf-16"))
    with pytest.raises(UserError, match="images a and b show one patient by .*column Patient ID, two by"):
        load(tmp_path, PATIENTS.format("Patient ID"))
    assert load(tmp_path, PATIENTS.format("site")).grouped_by == "nih_patient"


def test_a_name_for_most_images_is_refused(tmp_path):
    rows = "".join(f"i{n},{n % 2},{'x' if n < 25 else n}\n" for n in range(40))
    with pytest.raises(UserError, match="patient 'x' of .* has 25 of 40 images"):
        load(tmp_path, "patientId,Target,subject_id\n" + rows)


# --- the official test -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "boxes", "predicted"),
    [
        ("10 20 30 40", True, False),
        ("[10, 20, 30, 40]", True, False),
        ("10,5 20,0 30,0 40,0", True, False),
        ("0.7 10 20 30 40", False, True),
        ("0.7 10 20 30 40 0.6 1 2 3 4", False, True),
        ("1 10 20 30 40 " * 4, True, True),  # twenty numbers fit both
        ("10 20 0 40", False, False),
    ],
)
def test_boxes_and_submissions(text, boxes, predicted):
    numbers = numbers_in(text)
    assert are_boxes(numbers) is boxes
    assert could_be_predicted(numbers) is predicted


def test_a_submission_is_no_truth(tmp_path):
    file = tmp_path / paths.TEST_METADATA
    for text, labelled in (("0.9 1 2 3 4", False), ("1 2 3 4", True), ("nan", False), ("pneumonia", False)):
        file.write_text(f"patientId,PredictionString\na,{text}\nb,\n")
        official = load_official_test(tmp_path)
        assert official.labelled is labelled, official.why


def test_lists_of_training_images_have_the_same_reader(tmp_path):
    file = tmp_path / "list.csv"
    for content in ("image_id;n\na;1\nb;2\n", "Image Index\tPatient ID\na.png\t7\nb.png\t7\n", "a\nb\n"):
        file.write_bytes(content.encode("utf-16"))
        assert read_ids(file) == ["a", "b"]
