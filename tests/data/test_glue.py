"""GLUE folders: every task in its own columns, and what is wrong with a broken row."""

import numpy as np
import pytest

from jaxsplit.data.sources import glue

# Header and rows of each training file; what the rows become.
CASES = {
    "SST-2": ("sentence\tlabel", ["a fine film \t1", "dull \t0"], [1, 0]),
    "CoLA": (None, ["gj04\t1\t\tThe cat sat.", "gj04\t0\t*\tCat the sat."], [1, 0]),
    "MRPC": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ['1\t70\t71\tHe said "so.\tSo he said.', "0\t72\t73\tYes.\tNo."],
        [1, 0],
    ),
    "QQP": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["0\t1\t2\tWhy?\tHow?\t0", "1\t3\t4\tWho?\tWho is it?\t1"],
        [0, 1],
    ),
    "STS-B": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        ["0\tg\tf\t2012\t1\tnone\tnone\tA plane.\tA jet.\t5.000", "1" + "\tx" * 8 + "\t0.25"],
        [5.0, 0.25],
    ),
    "MNLI": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        ["0" + "\tx" * 10 + "\tneutral", "1" + "\tx" * 10 + "\tcontradiction"],
        [1, 2],
    ),
    "QNLI": (
        "index\tquestion\tsentence\tlabel",
        ["0\tWhen?\tIn 1999.\tentailment", "1\tWhere?\tIn 1999.\tnot_entailment"],
        [0, 1],
    ),
    "RTE": (
        "index\tsentence1\tsentence2\tlabel",
        ["0\tIt rains.\tIt is wet.\tentailment", "1\tIt rains.\tIt is dry.\tnot_entailment"],
        [0, 1],
    ),
    "WNLI": (
        "index\tsentence1\tsentence2\tlabel",
        ["0\tIt sank.\tThe ship sank.\t1", "1\tIt sank.\tThe sea sank.\t0"],
        [1, 0],
    ),
}  # fmt: skip


def write(folder, header, rows, dev="dev.tsv", start="", end="\n"):
    folder.mkdir(parents=True, exist_ok=True)
    text = start + end.join(([header] if header else []) + rows) + end
    for name in ("train.tsv", dev):
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("known_folder", [True, False])
@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_tasks_are_read_in_their_columns(name, known_folder, start, end, tmp_path):
    header, rows, labels = CASES[name]
    dev = "dev_matched.tsv" if name == "MNLI" else "dev.tsv"
    folder = write(tmp_path / (name if known_folder else "mine"), header, rows, dev, start, end)
    assert glue.SOURCE.files(folder) == (folder / "train.tsv", folder / dev)
    raw = glue.SOURCE.read(folder)
    np.testing.assert_array_equal(raw.train.labels, np.array(labels))
    assert raw.train.labels.dtype == (np.float32 if name == "STS-B" else np.int32)
    assert raw.task == ("regression" if name == "STS-B" else "classification")
    task = next(task for task in glue.TASKS if task.folder == name)
    assert raw.label_names == (task.label_names or task.labels)
    columns = list(task.header) or header.split("\t")
    for texts, column in zip(raw.test.inputs, task.text_columns, strict=False):
        assert texts == [row.split("\t")[columns.index(column)] for row in rows]
    assert raw.train.where(1).endswith("train.tsv, line 2" if name == "CoLA" else ", line 3")


def test_other_line_separators_belong_to_the_text(tmp_path):
    folder = write(tmp_path / "SST-2", "sentence\tlabel", ["one\u2028two\x85three\x0c\t1"])
    assert glue.SOURCE.read(folder).train.inputs.first == ["one\u2028two\x85three\x0c"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("SST-2", ["good\t1", "bad"],
         r"train.tsv, line 3: columns: found 1, expected 2 \(sentence, label\): separate"),
        ("SST-2", ["good\t1", "", "bad\t0"], "train.tsv, line 3: columns: found 1, expected 2"),
        ("SST-2", ["good\t2"], "train.tsv, line 2: found label '2', expected one of '0', '1'"),
        ("QNLI", ["0\tq\ts\tmaybe"],
         "line 2: found label 'maybe', expected one of 'entailment', 'not_entailment'"),
        ("STS-B", ["0" + "\tx" * 8 + "\thigh"], "line 2: found label 'high', expected a number"),
        ("STS-B", ["0" + "\tx" * 8 + "\tnan"], "line 2: label nan: give a finite score"),
        ("CoLA", ["gj04\tx\t\tThe cat sat."], "train.tsv, line 1: found label 'x'"),
        ("SST-2", [], "training set is empty: .*train.tsv is not there"),
    ],
)  # fmt: skip
def test_broken_rows_are_named(name, rows, message, tmp_path):
    folder = write(tmp_path / name, CASES[name][0], rows)
    with pytest.raises(ValueError, match=message) as caught:
        glue.SOURCE.read(folder)
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path):
    folder = write(tmp_path / "SST-2", "sentence\tlabel", ["good\t1"])
    (folder / "dev.tsv").write_bytes(b"sentence\tlabel\ngood\t1\nbad\xff\t0\n")
    with pytest.raises(ValueError, match=r"dev.tsv, line 3: byte 0xff is not UTF-8: save"):
        glue.SOURCE.read(folder)
    (folder / "dev.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dev.tsv: the file is empty"):
        glue.SOURCE.read(folder)
    (folder / "dev.tsv").write_text("text\tlabel\ngood\t1\n")
    with pytest.raises(ValueError, match=r"line 1: found columns 'text', 'label', expected 'sent"):
        glue.SOURCE.read(folder)
    (folder / "dev.tsv").unlink()
    with pytest.raises(ValueError, match=r"holds train.tsv but neither dev.tsv nor dev_matched"):
        glue.SOURCE.files(folder)
    write(tmp_path / "mine", "a\tb", ["1\t2"])
    with pytest.raises(ValueError, match=r"columns 'a', 'b' are of no GLUE task: name the folder"):
        glue.SOURCE.read(tmp_path / "mine")


def test_the_malformed_rows_of_qqp_are_dropped(tmp_path):
    header, rows, labels = CASES["QQP"]
    folder = write(tmp_path / "QQP", header, [rows[0], "7\t8\t9\thalf a row", rows[1]])
    (folder / "dev.tsv").write_text("\n".join([header, *rows]))
    with pytest.warns(UserWarning, match=r"train.tsv: rows dropped that have not 6 columns: 1"):
        raw = glue.SOURCE.read(folder)
    assert raw.train.labels.tolist() == labels
    assert raw.train.where(1).endswith("train.tsv, line 4")
