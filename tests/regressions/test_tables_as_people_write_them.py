"""Reports: tables that spreadsheets and surveys write are read wrongly, or end in a riddle.

Delimiters told from commas in names, encodings, ``sep=;``, comments, percent signs, questions in
row 2, rows of numbers taken for names, codes for missing labels, workbooks and JSON.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from feie.features.errors import LabelError, UsageError
from feie.features.store.reader import open_store
from feie.features.table_text import dialect_of
from feie.heads.data.labels import load_labels
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.evaluate.job import run as evaluate
from feie.pipeline.imports.job import ImportFeaturesOptions, run
from feie.pipeline.train.job import run as train_head
from feie.pipeline.train.options import TrainHeadOptions

PLAIN = "id,split,Joy,Fear\na,train,0.25,1\nb,val,0.5,0\n"
WANTED = [[0.25, 1], [0.5, 0]]


def labels_of(folder, text, name="labels.csv", **options):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_labels(path, **options)


def semicolons(text):
    return text.replace(",", ";").replace(".", ",")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-8-sig"),
        "sep=;\n" + semicolons(PLAIN),
        "\ufeffsep=;\r\n" + semicolons(PLAIN).replace("\n", "\r\n"),
        '"sep=|"\n' + PLAIN.replace(",", "|"),
        PLAIN.replace(",", "|"),
        "# made by a tool, 2024\n# second, line, of, it\n\n" + PLAIN,
        "#" + PLAIN,
        PLAIN.replace("\nb,", "\n# b is another, person\nb,"),
        PLAIN.replace("Joy", '"Joy"').replace("0.5", '"0.5"'),
    ],
)
def test_what_is_certain_is_read(tmp_path, text):
    found = labels_of(tmp_path, text)
    assert (found.ids, found.targets) == (("a", "b"), ("Joy", "Fear"))
    np.testing.assert_array_equal(found.values, WANTED)
    assert found.split.tolist() == ["train", "val"]


@pytest.mark.parametrize("quote", ['"', ""])
def test_commas_in_names_separate_nothing(tmp_path, quote):
    names = [f"{quote}{name}{quote}" for name in ("Fear, 0 to 1", "Joy, fun, glee, 0 to 1")]
    rows = ["a;train;0.25;1", "b;val;0.5;0"]
    found = labels_of(tmp_path, "\n".join([";".join(["id", "split", *names]), *rows, ""]))
    assert found.targets == ("Fear, 0 to 1", "Joy, fun, glee, 0 to 1")
    np.testing.assert_array_equal(found.values, WANTED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,split,Überraschung\na,train,0.5\n".encode("cp1252"),
            r"line 1 has the byte 0xdc; save it as UTF-8",
        ),
        (
            PLAIN.replace("0.25", "63.69%").replace("0.5", "7%"),
            r"Joy of 'a' is '63.69%', not a number; write a number without the percent sign",
        ),
        (
            PLAIN.replace("0.25", '"0,25"').replace("0.5", '"0,5"'),
            r"Joy of 'a' is '0,25', not a number; write a point for the decimal comma",
        ),
        (
            PLAIN.replace("\na,", '\n"Which video?",Part?,"How much joy?",How much fear?\na,'),
            r"row 2 holds text over numbers, such as 'How much joy\?' in Joy; .*delete it",
        ),
        (
            "# of a survey\n" + PLAIN.replace("\na,", "\nq,q,q1,q2\ni,i,ImportId,ImportId\na,"),
            r"row 3 and 4 holds text over numbers",
        ),
        ("# note\nid,split,Joy\na,train,1\n,val,2\n", r"1 rows have no id, the first is row 4"),
        ("a,train,0.25,1\nb,val,0.5,0\n", r"are these values\? Its first line must name"),
        (b"PK\x03\x04" + b"0" * 99, r"zip archive, as Excel and LibreOffice write: save .* CSV"),
        (b"\xd0\xcf\x11\xe0" + b"0" * 99, r"an old Excel workbook \(\.xls\): save"),
    ],
)  # fmt: skip
def test_what_is_not_is_named_with_its_cure(tmp_path, text, message):
    with pytest.raises(LabelError, match=message):
        labels_of(tmp_path, text)


def test_a_slip_in_one_cell_is_no_second_header(tmp_path):
    with pytest.raises(LabelError, match=r"Joy of 'a' is '0\.2\.5', not a number"):
        labels_of(tmp_path, PLAIN.replace("0.25", "0.2.5") + "c,val,1,1\nd,val,1,1\n")


def test_a_million_columns_end_soon(tmp_path):
    names = ",".join(f"c{i}" for i in range(200_000))
    with pytest.raises(LabelError, match="has 200000 columns"):
        labels_of(tmp_path, f"{names}\n{'0,' * 199_999}0\n")


# ---- other files --------------------------------------------------------------------------------


def test_workbooks_and_json_say_the_same_as_csv(tmp_path):
    rows = [
        {"id": "a", "split": "train", "Joy": 0.25, "Fear": 1},
        {"id": "b", "split": "val", "Joy": 0.5, "Fear": None},
    ]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = ["l.json", "l.jsonl"]
    try:
        pd.DataFrame(rows).to_excel(tmp_path / "l.xlsx", index=False)
        kinds.append("l.xlsx")
    except ImportError:
        (tmp_path / "l.xlsx").write_bytes(b"PK\x03\x04")
        with pytest.raises(LabelError, match=r"install feie\[excel\], or save .* as CSV"):
            load_labels(tmp_path / "l.xlsx")
    for name in kinds:
        found = load_labels(tmp_path / name)
        assert (found.ids, found.targets) == (("a", "b"), ("Joy", "Fear"))
        np.testing.assert_array_equal(found.values, [[0.25, 1], [0.5, np.nan]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.json", '{"a": {"Joy": 1}}', "no list of labels: it wants one object a video"),
        ("l.json", "[1, 2]", "no list of labels"),
        ("l.json", "[" * 100_000, "no readable JSON"),
        ("l.json", "", "no list of labels"),
        ("l.jsonl", '{"id": 1}\n{"id', "no readable JSON"),
        ("l.xlsx", "no zip", "no readable Excel workbook|install feie"),
    ],
)
def test_other_files_that_are_none(tmp_path, name, text, message):
    with pytest.raises(LabelError, match=message):
        labels_of(tmp_path, text, name)


# ---- codes for missing labels -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "others", "spoken"),
    [
        (-1, [0.0, 0.4, 1.0], True),
        (-1, [1, 4, 7], True),
        (-5, [-0.9, 0.1, 1.0], True),
        (999, [0.2, 0.3, 1.0], True),
        (99, [1, 4, 7], True),
        (-1, [-0.8, 0.2, 1.0], False),
        (-1, [-2.5, 0.0, 3.0], False),
        (99, [12, 50, 100], False),
    ],
)
def test_codes_beside_a_range_are_spoken_of_and_can_be_named(tmp_path, code, others, spoken):
    cells = [code, *others, code]
    rows = [f"v{i},train,{cell},{i / 10}" for i, cell in enumerate(cells)]
    text = "\n".join(["id,split,Joy,Fear", *rows, ""])
    notes = labels_of(tmp_path, text).notes
    said = [note for note in notes if f"--missing-label {code:g}" in note]
    assert len(said) == spoken
    assert not spoken or ("Joy (2 of 5)" in said[0] and "Fear" not in said[0])
    named = labels_of(tmp_path, text, missing=[code])
    assert not any("--missing-label" in note for note in named.notes)
    np.testing.assert_array_equal(named.values[:, 0], [np.nan, *others, np.nan])


# ---- features -----------------------------------------------------------------------------------

FEATURES = "time,a,b\n0.0,0.5,1\n0.1,0.25,0\n"


def imported(folder, text, name="v.csv", **options):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    store = folder / "s.zarr"
    run(ImportFeaturesOptions(source=folder / name, store=store, **options))
    return open_store(store)["v"]


@pytest.mark.parametrize(
    "text",
    [
        FEATURES.encode("utf-16"),
        "sep=;\n" + semicolons(FEATURES),
        semicolons(FEATURES),
        "# by a tool, of 2024\n" + FEATURES,
        "#" + FEATURES,
        FEATURES + "# end\n",
        FEATURES.replace("a,b", '"a","b"'),
    ],
)
def test_features_in_the_same_dialects(tmp_path, text):
    video = imported(tmp_path, text)
    np.testing.assert_array_equal(video.affect, [[0.5, 1], [0.25, 0]])
    np.testing.assert_allclose(video.time, [0, 0.1])


def test_features_under_names_with_line_ends_and_commas(tmp_path):
    video = imported(tmp_path, FEATURES.replace("a,b", '"a,\nof ""it""",b').replace(".5", ".75"))
    np.testing.assert_array_equal(video.affect, [[0.75, 1], [0.25, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0.1,0.5,-1.2,\n1,0.2,0.4,0.3,\n", "begins with numbers"),
        ("0,0.1,0.5,-1.2\n1,0.2,0.4,0.3\n", "begins with numbers"),
        ("v,0.1,0.5\nv,0.2,0.4\n", "begins with numbers"),
        (FEATURES.replace("0.25", "25%"), r"row 3: column a holds '25%'.*without the percent"),
        (FEATURES.replace("a,b", "ä,b").encode("cp1252"), "line 1 has the byte 0xe4; save it as"),
    ],
)
def test_features_that_are_no_such_table(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        imported(tmp_path, text, fps=25)


@pytest.mark.parametrize(
    "header", ["0,1,2", ",0,1,2", "time,31.25,62.5,a", "name,1,2,4", "frame,1.5,2.5,x"]
)
def test_names_that_are_numbers_are_names(header):
    text = f"{header}\n{','.join(['0.5'] * (header.count(',') + 1))}\n"
    assert not dialect_of(text.encode()).lacks_header


@pytest.fixture
def coded(example_folder, tmp_path):
    """The example's labels with a third target, of which -1 stands in one row of the test split."""
    text = (example_folder / "labels.csv").read_text()
    for video in ("face-003", "face-004"):
        text = text.replace(f"{video},train", f"{video},test")
    lines = text.splitlines()
    thirds = ["Joy", "0.5", "0.25", "0.75", "-1", "0.1", "0.2"]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(f"{a},{b}" for a, b in zip(lines, thirds, strict=True)) + "\n")
    return {"store": str(example_folder / "features.zarr"), "labels": labels}


def test_a_run_knows_its_codes_and_evaluate_takes_them(coded, tmp_path):
    short = {"epochs": 1, "width": 4, "t": 8, "name": "a", "runs": tmp_path / "runs"}
    train_head(TrainHeadOptions(**coded, **short, missing_label="-1,-5"))
    noted = json.loads((tmp_path / "runs" / "a" / "head.json").read_text())
    assert (noted["labels"]["missing_label"], noted["targets"][-1]) == ([-1, -5], "Joy")
    given = {"run": tmp_path / "runs" / "a", "split": "test"}
    with pytest.raises(LabelError, match="1 labels of split 'test' are missing"):
        evaluate(EvaluateOptions(**given))
    evaluate(EvaluateOptions(**given, missing_label=(-7,)))
