"""Tables of text: which line is the header, which column the target, and what counts as a number."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.data import Data, load_data
from cvxrelu.command_line.main import main
from cvxrelu.command_line.tables import read_table

ROWS = "5.1,0,3.5\n4.9,1,3.0\n4.7,0,3.2\n"
NUMBERS = np.array([[5.1, 0, 3.5], [4.9, 1, 3.0], [4.7, 0, 3.2]])


def loaded(folder: Path, text: str, target: str, header: bool | None = None) -> Data:
    path = folder / "d.csv"
    path.write_bytes(text.encode())
    return load_data(str(path), target, header)


def refused(folder: Path, text: str, target: str = "-1", header: bool | None = None) -> str:
    with pytest.raises(UserError) as error:
        data = loaded(folder, text, target, header)
        data.target.numbers([data.target_index])
    return str(error.value)


# -- the header --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["0", "1", "2", "-1", "-3"])
@pytest.mark.parametrize("shape", ["{}", "\ufeff{}", "crlf", "semicolon", "tab", "trailing", "quoted", "blank lines"])
def test_numbers_alone_are_data(tmp_path: Path, target: str, shape: str) -> None:
    """No row is lost and no other column taken where a cell of the first line reads like the target."""
    text = {
        "crlf": ROWS.replace("\n", "\r\n"),
        "semicolon": ROWS.replace(",", ";"),
        "tab": ROWS.replace(",", "\t"),
        "trailing": ROWS.replace("\n", ",\n"),
        "quoted": "\n".join(",".join(f'" {cell} "' for cell in row.split(",")) for row in ROWS.split()),
        "blank lines": "\n" + ROWS.replace("\n", "\n \n\n"),
    }.get(shape, shape.format(ROWS))
    data = loaded(tmp_path, text, target)
    others = [k for k in range(3) if k != int(target) % 3]
    np.testing.assert_array_equal(data.X, NUMBERS[:, others])
    np.testing.assert_array_equal(data.target.numbers([data.target_index])[:, 0], NUMBERS[:, int(target)])
    assert data.feature_names is None


def test_every_column_of_a_file_without_header_can_be_the_target(tmp_path: Path) -> None:
    """Whatever its first line holds, numbers of one digit included, unless they are 0, 1, 2, ... in order."""
    for first in itertools.product("012", repeat=3):
        text = ",".join(first) + "\n7,8,9\n"
        for target in range(3):
            if first == ("0", "1", "2"):
                assert "--header or --no-header" in refused(tmp_path, text, str(target))
            data = loaded(tmp_path, text, str(target), False if first == ("0", "1", "2") else None)
            assert data.target.text(data.target_index) == [first[target], "789"[target]]


@pytest.mark.parametrize(
    ("first", "target", "index"),
    [
        ("a,b,price", "price", 2),
        ("a,b,price", " price ", 2),
        ("a,b,price", "0", 0),
        ("0,1,price", "price", 2),  # as pandas writes columns without names beside one with
        ("2018,2019,price", "price", 2),
        (" a ,b , price", "price", 2),
        ('"a,b","c;d","e\nf"', "e\nf", 2),
        ("a;b,c,d", "d", 2),
    ],
)
def test_words_are_a_header(tmp_path: Path, first: str, target: str, index: int) -> None:
    data = loaded(tmp_path, first + "\n" + ROWS, target)
    assert data.target_index == index and data.target.names is not None and len(data.X) == 3


def test_a_word_that_comes_again_is_data(tmp_path: Path) -> None:
    flowers = "5.1,3.5,setosa\n4.9,3.0,setosa\n6.3,3.3,virginica\n"
    data = loaded(tmp_path, flowers, "-1")
    assert data.target.text(data.target_index) == ["setosa", "setosa", "virginica"] and len(data.X) == 3


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("0,1,2\n5,6,7\n", "0"),
        ("0,1,kind\n5,6,a\n7,8,b\n", "-1"),  # pandas's header, or a row of a class of its own
        ("5.1,12O,3.5\n" + ROWS, "0"),  # a slip in the first row
        ("1,2,x\n1,2,x\n3,4,y\n", "x"),  # a class called like the target
        ("a,b,c\n1,2,3\na,b,c\n4,5,6\n", "c"),  # two files, one behind the other
        ("NA,setosa\n5,setosa\n6,virginica\n", "-1"),
        ("2018.5,2019.5\n1,2\n", "2018.5"),
    ],
)
def test_what_could_be_either_is_refused_and_decided_by_an_option(tmp_path: Path, text: str, target: str) -> None:
    said = refused(tmp_path, text, target)
    assert "d.csv: the first line may be a header or data" in said and "--header or --no-header" in said
    path = tmp_path / "d.csv"
    n = text.count("\n")
    assert len(read_table(path, header=False).cells) == n and read_table(path, header=False).names is None
    named = read_table(path, header=True)
    assert len(named.cells) == n - 1 and named.names == text.split("\n")[0].split(",")


def test_arrays_have_no_header(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", NUMBERS)
    np.savez(tmp_path / "d.npz", X=NUMBERS, y=NUMBERS[:, 0])
    for name, header in (("d.npy", True), ("d.npz", False)):
        with pytest.raises(UserError, match="arrays have no header row"):
            load_data(str(tmp_path / name), "0" if name == "d.npy" else None, header)


# -- the target --------------------------------------------------------------------------------------------------------
def test_a_name_has_precedence_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    header = "x,2,0,y\n1,2,3,4\n5,6,7,8\n"
    assert "count from the end, -2 for the one of that name" in refused(tmp_path, header, "0", True)
    for target, index in (("-2", 2), ("-4", 0), ("y", 3), ("1", 1)):
        assert loaded(tmp_path, header, target, True).target_index == index
    assert loaded(tmp_path, "x,1,z\n1,2,3\n4,5,6\n", "1", True).target_index == 1  # both say the same
    assert loaded(tmp_path, "x,17,z\n1,2,3\n4,5,6\n", "17", True).target_index == 1  # no such position
    assert loaded(tmp_path, "x,-1,z\n1,2,3\n4,5,6\n", "-3", True).target_index == 0


@pytest.mark.parametrize("target", ["3", "-4", "1_0", "+1", "0x1", "1.0", "\u0661", "9" * 5000, "", "price"])
def test_what_is_no_column_is_refused(tmp_path: Path, target: str) -> None:
    assert "--target" in refused(tmp_path, ROWS, target)


# -- numbers -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "cell", ["1", "-1.5", "+.5", "2.", "1e3", "1E-3", " 7 ", "\u00a07\u00a0", "007", "-0", "1e-400"]
)
def test_numbers_are_read_as_python_reads_them(tmp_path: Path, cell: str) -> None:
    data = loaded(tmp_path, f"a,b\n17,2\n{cell},3\n", "b")
    assert data.X[1, 0] == float(cell.strip())


@pytest.mark.parametrize(
    "cell",
    ["1_000", "\u0661\u0662", "\u0967\u0968", "\uff11\uff12", "0x10", "1d5", "+ 1", "--1", "1e", ".", "e5", "True",
     "1 000", "1\u200b"],
)  # fmt: skip
@pytest.mark.parametrize("line", [1, 2, 3])
def test_what_only_looks_like_a_number_is_none(tmp_path: Path, cell: str, line: int) -> None:
    lines = ["a,b", "1,2", "3,4", "5,6"]
    lines[line] = f'"{cell}",9'
    said = refused(tmp_path, "\n".join(lines), "b")
    assert f"line {line + 1}, column 1 (a): {cell!r} is not a number" in said
    said = refused(tmp_path, "\n".join(lines[1:]), "1", False)
    assert f"line {line}, column 1: {cell!r} is not a number" in said
    # as a target it is text, so the target is a class or has a slip
    data = loaded(tmp_path, "\n".join(lines), "a")
    assert cell in data.target.text(0)


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e400", "+nan"])
def test_numbers_without_a_value_are_refused(tmp_path: Path, cell: str) -> None:
    assert f"line 1, column 1: {cell} is not a finite number" in refused(tmp_path, f"{cell},2\n3,4\n", "1")


@pytest.mark.parametrize("cell", ["", "NA", "nan", "?", "null"])
@pytest.mark.parametrize("line", [0, 2])
def test_missing_values_are_filled_and_marked(tmp_path: Path, cell: str, line: int) -> None:
    lines = ["1,2", "3,4", "5,6", "7,8"]
    lines[line] = f"{cell},9"
    X = loaded(tmp_path, "\n".join(lines), "1").X
    assert X[line].tolist() == [np.median(np.delete([1.0, 3.0, 5.0, 7.0], line)), 1.0]
    assert not np.delete(X[:, 1], line).any()


def test_text_arrays_keep_the_same_rule(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=np.eye(2), y=np.array(["1", "1_0"]))
    data = load_data(str(tmp_path / "d.npz"), None)
    with pytest.raises(UserError, match="'1_0' is not a number"):
        data.target.numbers([0])


# -- odd files ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# made today\na,b\n1,2\n", "line 1 begins with #"),
        (b"a,b\n1,2\n# the end\n", "line 3 begins with #"),
        (b"a,b,c\n1,2,3,\n", "line 2: 4 columns, but the first line has 3"),
        ("a,b\n1,2\n".encode("utf-16-le"), "zero bytes, as in UTF-16"),
        (b"a,gr\x81\xf6e\n1,2\n", "not a text file in UTF-8 (byte 4), nor in Windows-1252; save it as UTF-8"),
        (b"\xff\xfea\x00\x00", "not a text file in UTF-16"),
        (b"a,b\n,2\n,3\n", "no column can be a feature: 'a' (no value)"),
        (b"a,b\n1,\n2,\n", "the target 'b' has no value at all"),
        (b"a,b,\n1,2,3\n", "column 3 has no name"),
    ],
)  # fmt: skip
def test_odd_files_are_one_error(tmp_path: Path, content: bytes, words: str) -> None:
    for name, data in (("d.csv", content), ("d.csv.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as error:
            load_data(str(tmp_path / name), "b")
        assert name in str(error.value) and words in str(error.value)


def test_an_empty_cell_of_a_single_column_is_no_blank_line(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('a\n1\n""\n\n2\n')
    with pytest.raises(UserError, match=r"line 3, column 1 \(a\): missing value"):
        read_table(tmp_path / "d.csv").numbers([0])


# -- the command line --------------------------------------------------------------------------------------------------
def test_fit_and_predict_without_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The column at --target 0 is predicted from the others, whatever the first line holds."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 2, 40), rng.standard_normal(40)])
    table = np.column_stack([10 + 3 * X[:, 0] - X[:, 1], X])
    table[0, 1] = 0
    Path("d.csv").write_text("\n".join(f"{a!r},{int(b)},{c!r}" for a, b, c in table.tolist()) + "\n")
    Path("new.csv").write_text("\n".join(f"{int(b)},{c!r}" for _, b, c in table.tolist()) + "\n")
    fast = ["--out", "m", "--quiet", "--backend", "numpy", "--tol", "0.1", "--beta", "0.001", "--test-size", "0"]
    assert main(["fit", "d.csv", "--target", "0", *fast]) == 0
    record = json.loads(Path("m/solution.json").read_text())
    assert record["scores"]["n"] == 40 and record["n_features"] == 2 and record["feature_names"] is None
    assert main(["predict", "m", "new.csv"]) == 0
    found = np.array(capsys.readouterr().out.split()[1:], float)
    assert np.corrcoef(found, table[:, 0])[0, 1] > 0.95
    assert main(["predict", "m", "d.csv"]) == 2  # three columns: which of them is the target?
    assert "3 columns; the model takes 2 features" in capsys.readouterr().err
    Path("turned.csv").write_text("0,1\n" + Path("new.csv").read_text())
    assert main(["predict", "m", "turned.csv"]) == 2
    assert "--header or --no-header" in capsys.readouterr().err
    assert main(["predict", "m", "turned.csv", "--no-header"]) == 0
    assert capsys.readouterr().out.count("\n") == 42
    assert main(["predict", "m", "turned.csv", "--header"]) == 0
    assert capsys.readouterr().out.count("\n") == 41
