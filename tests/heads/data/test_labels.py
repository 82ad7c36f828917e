"""Label files as people write them, and every way in which they cannot be used."""

import numpy as np
import pandas as pd
import pytest

from feie.features.errors import LabelError
from feie.heads.data.joining import join
from feie.heads.data.labels import load_labels, normalise_id

GOOD = "id,split,Joy,Fear\na,train,0.1,1\nb,val,0.2,0\nc,test,0.3,0.5\nd,train,0.4,0\n"


def write(tmp_path, text, name="labels.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_csv(tmp_path):
    labels = load_labels(write(tmp_path, GOOD))
    assert labels.ids == ("a", "b", "c", "d")
    assert labels.targets == ("Joy", "Fear")
    assert labels.split.tolist() == ["train", "val", "test", "train"]
    np.testing.assert_array_equal(labels.values[:, 0], [0.1, 0.2, 0.3, 0.4])
    assert [note.rpartition("/")[2] for note in labels.notes] == [
        "labels.csv: learning Joy, Fear (--targets chooses others)"
    ]
    assert load_labels(tmp_path / "labels.csv", ["Fear"]).notes == ()
    assert not labels.split_made
    assert labels.of_split("train").ids == ("a", "d")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[00001]", "00001"),
        ("'00001'", "00001"),
        (" 00001.mp4 ", "00001"),
        ("./day/clip.v2.MOV", "day/clip.v2"),
        ("day\\clip", "day/clip"),
        ("a.b", "a.b"),
    ],
)
def test_ids(written, meant):
    assert normalise_id(written) == meant


def test_abaw_data_info(tmp_path):
    text = "File_ID,Split,Adoration,Surprise,Age,Country\n" + "".join(
        f"[{i:05d}],{s},{i / 10},0.5,30,South Africa\n"
        for i, s in enumerate(["Train", "Train", "Val", "Test"])
    )
    labels = load_labels(write(tmp_path, text))
    assert labels.targets == ("Adoration", "Surprise")
    assert labels.ids[1] == "00001"
    assert labels.split.tolist() == ["train", "train", "val", "test"]


def test_parquet_semicolons_tabs_and_byte_order_mark(tmp_path):
    expected = load_labels(write(tmp_path, GOOD))
    files = [
        write(tmp_path, GOOD.replace(",", ";"), "semicolon.csv"),
        write(tmp_path, "\ufeff" + GOOD.replace(",", "\t"), "tab.tsv"),
        tmp_path / "labels.parquet",
    ]
    pd.DataFrame(
        {
            "Filename": expected.ids,
            "split": expected.split,
            "Joy": expected.values[:, 0],
            "Fear": expected.values[:, 1],
        }
    ).to_parquet(files[2])
    for file in files:
        labels = load_labels(file)
        assert labels.ids == expected.ids
        np.testing.assert_array_equal(labels.values, expected.values)


def test_integer_ids_of_parquet_find_padded_videos(tmp_path):
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"Filename": [1, 2], "split": ["train", "val"], "Joy": [0.1, None]}).to_parquet(
        path
    )
    labels = load_labels(path)
    assert np.isnan(labels.values[1, 0])
    joined = join(labels, ["00001", "00002", "00003"], "s")
    assert joined.store_ids == ("00001", "00002")


def test_chosen_targets_may_be_any_numeric_column(tmp_path):
    text = "id,split,Joy,Age\na,train,0.1,20\nb,val,0.2,30\n"
    assert load_labels(write(tmp_path, text)).targets == ("Joy",)
    assert load_labels(write(tmp_path, text), ["Age", "Joy"]).targets == ("Age", "Joy")
    with pytest.raises(LabelError, match="no column Anger to learn; it has Joy"):
        load_labels(write(tmp_path, text), ["Anger"])


def test_text_columns_are_no_targets_but_are_said(tmp_path):
    labels = load_labels(write(tmp_path, "id,split,mood,Joy\na,train,calm,1\nb,val,wild,0\n"))
    assert labels.targets == ("Joy",)
    assert "column mood holds text" in labels.notes[0]


def test_unlabelled_test_rows_are_fine_until_used(tmp_path):
    labels = load_labels(write(tmp_path, GOOD.replace("c,test,0.3,0.5", "c,test,,nan")))
    assert len(labels.of_split("train")) == 2
    with pytest.raises(LabelError, match="first is Joy of 'c'"):
        labels.of_split("test")


BAD = {
    "no id column": ("who,split,Joy\na,train,1\n", "no id column.*its columns: who, split, Joy"),
    "duplicate ids": ("id,split,Joy\na,train,1\n[a],val,0\n", "id 'a' stands in more than one row"),
    "empty id": ("id,split,Joy\na,train,1\n,val,0\n", "1 rows have no id, the first is row 3"),
    "unknown split": ("id,split,Joy\na,holdout,1\n", "split of 'a' is 'holdout'"),
    "no targets": ("id,split\na,train\n", "no numeric column to learn"),
    "a typing error": ("id,split,Joy\na,train,0.5\nb,train,O.4\nc,val,1\n", "Joy of 'b' is 'O.4'"),
    "no rows": ("id,split,Joy\n", "a header but no rows"),
    "empty file": ("", "is empty"),
    "ragged rows": ("id,split,Joy\na,train\n", "row 2 has 2 cells, the header has 3"),
    "an open quote": (
        'id,split,Joy\na,train,1\nb,val,"0\nc,val,1\n',
        "row 4 cannot be read .*quote",
    ),
    "columns repeat": ("id,Joy,Joy\na,1,2\n", "more than one column 'Joy'"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_cannot_be_used(tmp_path, case):
    text, message = BAD[case]
    with pytest.raises(LabelError, match=message):
        load_labels(write(tmp_path, text))


def test_missing_binary_and_broken_files(tmp_path):
    with pytest.raises(LabelError, match="no label file"):
        load_labels(tmp_path / "labels.csv")
    with pytest.raises(LabelError, match="folder without labels"):
        load_labels(tmp_path)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="neither UTF-8 nor UTF-16"):
        load_labels(tmp_path / "b.csv")
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(LabelError, match="no readable Parquet"):
        load_labels(tmp_path / "b.parquet")


def test_unusable_labels(tmp_path):
    labels = load_labels(write(tmp_path, GOOD.replace("a,train,0.1", "a,train,")))
    with pytest.raises(LabelError, match=r"1 labels of split 'train' .* Joy of 'a';"):
        labels.of_split("train")
    constant = load_labels(write(tmp_path, GOOD.replace("a,train,0.1,1", "a,train,0.1,0")))
    with pytest.raises(LabelError, match="Fear is constant over all 2 videos of split 'train'"):
        constant.of_split("train").check_varied()
    no_val = load_labels(write(tmp_path, GOOD.replace("val", "test")))
    with pytest.raises(LabelError, match=r"'val' \(it has train 2, val 0, test 2"):
        no_val.of_split("val")


def many(tmp_path, n=100, extra=""):
    rows = "".join(f"v{i:03d},{'train' if i % 2 else 'val'},{i / n}\n" for i in range(n))
    return load_labels(write(tmp_path, "id,split,Joy\n" + rows + extra))


def test_labels_that_do_not_join(tmp_path):
    labels = many(tmp_path)
    ids = [f"v{i:03d}" for i in range(96)]
    joined = join(labels, ids, "s")
    assert joined.missing == ("v096", "v097", "v098", "v099")
    assert joined.labels.ids == joined.store_ids == tuple(ids)
    with pytest.raises(LabelError, match=r"only 90 of the 100 .* lacks 'v090', 'v091', 'v092', …"):
        join(labels, ids[:90], "s")
    assert len(join(labels, ids[:90], "s", tolerance=0.1).missing) == 10
    with pytest.raises(LabelError, match=r"none of the 100 .* store look like 'x/v000'"):
        join(labels, [f"x/{i}" for i in ids], "s")
    with pytest.raises(LabelError, match="none of the 100"):
        join(labels, [], "s", tolerance=1)
    few = labels.take(np.arange(8))
    assert join(few, ids[1:8], "s").missing == ("v000",)
    for strict in ({"tolerance": 0}, {"ids": ids[2:8]}):
        with pytest.raises(LabelError, match="of the 8"):
            join(**{"labels": few, "ids": ids[1:8], "store": "s", **strict})
    with pytest.raises(LabelError, match=r"10 of them failed in extraction, e\.g\. 'v090'"):
        join(labels, ids[:90], "s", failed={f"v{i:03d}": "broken" for i in range(90, 100)})


def test_two_labels_for_one_video(tmp_path):
    labels = load_labels(write(tmp_path, "id,split,Joy\n1,train,1\n01,val,0\n"))
    assert join(labels, ["1", "01"], "s").store_ids == ("1", "01")
    with pytest.raises(LabelError, match="'1' and '01' both mean video '001'"):
        join(labels, ["001"], "s")
    with pytest.raises(LabelError, match="none of the 2"):
        join(labels, ["001", "0001"], "s")  # either could be meant


def test_a_split_is_made_where_there_is_none(tmp_path):
    rows = [f"v{i},{i % 10},{i}\n" for i in range(60)]
    one = load_labels(write(tmp_path, "id,nothing,Joy\n" + "".join(rows)))
    other = load_labels(write(tmp_path, "id,nothing,Joy\n" + "".join(rows[::-1])))
    assert dict(zip(one.ids, one.split, strict=True)) == dict(
        zip(other.ids, other.split, strict=True)
    )
    assert one.split_made
    assert "split by a hash of the video (train 42, val 9, test 9)" in one.notes[-1]
    grouped = load_labels(write(tmp_path, "id,subject,Joy\n" + "".join(rows)))
    assert grouped.targets == ("Joy",)
    for subject in range(10):
        assert len(set(grouped.split[subject::10])) == 1
    assert set(grouped.split) == {"train", "val", "test"}


def test_subjects_in_two_splits_are_said(tmp_path):
    text = "id,split,subject,Joy\na,train,p,1\nb,val,p,0\nc,val,q,1\n"
    assert load_labels(write(tmp_path, text), ["Joy"]).notes == (
        "1 subjects stand in more than one split: results flatter",
    )


TOLD = "labels.csv: learning Joy (--targets chooses others)"


@pytest.mark.parametrize("name", ["title [dQw4]", "it's", "[x] b", "[x] - [y]", 'clip "two"'])
def test_single_brackets_and_quotes_belong_to_the_name(name):
    assert normalise_id(name) == name
    assert normalise_id(f'"[{name}]"') == name


def test_bracketed_file_names_join(tmp_path):
    labels = load_labels(write(tmp_path, "id,split,Joy\n[00001],train,1\n2,val,0\n"))
    assert join(labels, ["[00001]", "[00002]"], "s").store_ids == ("[00001]", "[00002]")


def test_ids_written_as_floats_and_long_numbers(tmp_path):
    long = "9" * 5000
    labels = load_labels(write(tmp_path, f"id,split,Joy\n1.0,train,1\n{long},val,0\n"))
    assert join(labels, ["00001", "0" + long], "s").store_ids == ("00001", "0" + long)


def test_columns_that_are_no_targets(tmp_path):
    text = "Unnamed: 0,id,filename,split,fold,level_0,Index,Joy,Later\n"
    labels = load_labels(write(tmp_path, text + "0,a,7,train,1,5,0,0.5,\n1,b,8,val,2,6,1,0.7,\n"))
    assert labels.targets == ("Joy",)
    assert "column Later is blank" in labels.notes[0]
    assert labels.notes[1].endswith(TOLD)


def test_a_column_of_folds_is_no_split_unless_it_names_splits(tmp_path):
    rows = "".join(f"{v},{i % 3},{i / 10}\n" for i, v in enumerate("abcdefghij"))
    labels = load_labels(write(tmp_path, f"id,fold,Joy\n{rows}"))
    assert (labels.targets, labels.split_made) == (("Joy",), True)
    labels = load_labels(write(tmp_path, "id,fold,Joy\na,train,1\nb,Val,0\n"))
    assert labels.split.tolist() == ["train", "val"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas(tmp_path, delimiter):
    rows = ["id|split|Joy|Fear", "a|train|0,25|1", "b|val|-,5|0,5", "c|test||2"]
    labels = load_labels(write(tmp_path, "\n".join(rows).replace("|", delimiter)))
    np.testing.assert_array_equal(labels.values, [[0.25, 1], [-0.5, 0.5], [np.nan, 2]])
    with pytest.raises(
        LabelError, match=r"no numeric column .*; Joy holds text such as '1\.000,5'"
    ):
        load_labels(write(tmp_path, "id;split;Joy\na;train;1.000,5\n"))


def test_line_ends_of_any_age_and_blank_columns_at_the_end(tmp_path):
    expected = load_labels(write(tmp_path, GOOD))
    for text in (
        GOOD.replace("\n", "\r"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", ",,\n"),
        GOOD.replace("\n", ",,\n").replace("Fear,,", "Fear"),
    ):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode())
        labels = load_labels(path)
        assert labels.ids == expected.ids
        assert labels.targets == expected.targets
        np.testing.assert_array_equal(labels.values, expected.values)


def test_blank_subjects_are_subjects_of_their_own(tmp_path):
    rows = "".join(f"v{i},,{i}\n" for i in range(60))
    split = load_labels(write(tmp_path, "id,subject,Joy\n" + rows)).split
    assert [(split == name).sum() for name in ("train", "val", "test")] == [42, 9, 9]


def test_a_named_index_of_parquet_is_a_column(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "split": ["train", "val"], "Joy": [0.1, 0.2]})
    table.set_index("id").to_parquet(tmp_path / "labels.parquet")
    assert load_labels(tmp_path / "labels.parquet").ids == ("a", "b")


def test_columns_passed_over_are_spoken_of(tmp_path):
    """A numeric column of ages is no target by its name, and that is said."""
    path = tmp_path / "labels.csv"
    path.write_text("id,split,Joy,age\na,train,0.5,30\nb,train,0.2,40\nc,val,0.25,50\n")
    labels = load_labels(path)
    assert labels.targets == ("Joy",)
    assert "no targets by their names: age (--targets names others)" in " | ".join(labels.notes)
    assert load_labels(path, ["age"]).targets == ("age",)
    assert "age" not in " ".join(load_labels(path, ["Joy"]).notes)
