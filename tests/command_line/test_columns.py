"""Tables as people have them: what every column is taken for, what becomes of it, and what is asked of the user."""

from __future__ import annotations

import csv
import datetime
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.columns import Column, plan_columns
from cvxrelu.command_line.data import load_data
from cvxrelu.command_line.main import main
from cvxrelu.command_line.tables import Table, read_table
from cvxrelu.command_line.training import decide_task

FAST = ("--quiet", "--tol", "1e-2", "--backend", "numpy")


def table(*columns: list[str]) -> Table:
    names = [f"c{k}" for k in range(len(columns))]
    cells = [list(row) for row in zip(*columns, strict=True)]
    return Table(Path("d.csv"), names, cells, list(range(2, len(cells) + 2)))


def only(cells: list[str], **options: Any) -> tuple[Column, np.ndarray]:
    """What one column becomes."""
    given_table = table(cells)
    plan = plan_columns(given_table, [0], **options)
    return plan.columns[0], plan.encode(given_table, [0])[0]


# -- numbers -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2.5", "+.5", "1e3"], [1, -2.5, 0.5, 1000]),
        (["$1,234.50", "$ 7", "-$12", "($3.25)"], [1234.5, 7, -12, -3.25]),
        (["12 %", "3.5%", "100%"], [12, 3.5, 100]),
        (["1.234,50 €", "7,1 €", "-3 €"], [1234.5, 7.1, -3]),
        (["1,5", "2,25", "-,5"], [1.5, 2.25, -0.5]),
        (["1 234,5", "7,1", "3"], [1234.5, 7.1, 3]),
        (["\u22125", "\u00a04\u00a0", "3"], [-5, 4, 3]),
        (["1.234", "5.678", "9.012"], [1.234, 5.678, 9.012]),  # without commas points are decimal points
        (["1,234,567", "1,000.5", "12"], [1234567, 1000.5, 12]),
        (["12.5 km", "3 km", "-1 km"], [12.5, 3, -1]),
        (["70kg", "82.5kg", "1e2kg"], [70, 82.5, 100]),
        (["1.200,5 m²", "7,25 m²"], [1200.5, 7.25]),
        (["2bhk", "3bhk"], [2, 3]),
        (["20 °C", "-3 °C"], [20, -3]),
        (["1e5", "2e5"], [1e5, 2e5]),
    ],
)
def test_numbers(cells: list[str], values: list[float]) -> None:
    column, X = only(cells)
    assert column.kind == "number" and X[:, 0].tolist() == values


def test_units_are_those_of_the_column() -> None:
    column, _ = only(["12 km", "3 km"])
    with pytest.raises(UserError, match=r"'5 mi' is no number"):
        column.encode(["5 mi"], lambda row: f"row {row}")
    assert column.encode(["5"], str)[0].tolist() == [[5.0]]
    assert Column.of(column.record()) == column
    assert only(["5 stars", "1 star", "4 stars", "1 star"])[0].kind == "category"
    assert only(["1st", "2nd", "1st", "2nd"])[0].kind == "category"


def test_few_whole_numbers_with_a_unit_are_classes(tmp_path: Path) -> None:
    """As a target; their labels stay as they are written, and --task regression takes the numbers."""
    rows = [f"{i % 7},{2 + i % 3}bhk,{10 + i * 1.5} km" for i in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["a,kind,far", *rows]))
    task = decide_task(load_data(str(tmp_path / "d.csv"), "kind"), "auto", 0.2, 0)
    assert task.kind == "classification" and task.classes == ["2bhk", "3bhk", "4bhk"]
    task = decide_task(load_data(str(tmp_path / "d.csv"), "kind"), "regression", 0.2, 0)
    assert task.kind == "regression" and set(task.target.tolist()) == {2.0, 3.0, 4.0}
    task = decide_task(load_data(str(tmp_path / "d.csv"), "far"), "auto", 0.2, 0)
    assert task.kind == "regression" and task.target[:2].tolist() == [10.0, 11.5]


def test_a_comma_that_could_be_either_is_asked_for() -> None:
    cells = ["1,234", "5,678", "9"]
    with pytest.raises(UserError, match=r"'1,234' in column 'c0' is 1234 with a decimal point and 1\.234 with .*--dec"):
        only(cells)
    assert only(cells, decimal=".")[1][:, 0].tolist() == [1234, 5678, 9]
    assert only(cells, decimal=",")[1][:, 0].tolist() == [1.234, 5.678, 9]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (["1,234;97,4", "5,678;3"], [[1.234, 97.4], [5.678, 3]]),
        (["1,234;97.4", "5,678;3"], [[1234, 97.4], [5678, 3]]),
        (["1.234;97,4", "999;3"], [[1234, 97.4], [999, 3]]),  # not 1.234 beside 999
        (["1.234;a, b", "999;c"], [[1.234, 0], [999, 1]]),  # a comma in a text says nothing
    ],
)
def test_the_other_columns_say_which_mark_a_file_has(tmp_path: Path, columns: list[str], values: list) -> None:
    (tmp_path / "d.csv").write_text("\n".join(["a;b;y", *(f"{row};{k}" for k, row in enumerate(columns * 4))]))
    X = load_data(str(tmp_path / "d.csv"), "y").X
    assert X[:2].tolist() == values


@pytest.mark.parametrize("other", ["3.5;3,5", "x;12"])
def test_columns_that_differ_or_say_nothing_decide_nothing(tmp_path: Path, other: str) -> None:
    rows = "".join(f"1,234;{other};{k}\n" for k in range(4))
    (tmp_path / "d.csv").write_text("a;b;c;y\n" + rows + "5,678;x;0;1\n".replace("x;0", other))
    with pytest.raises(UserError, match="--decimal"):
        load_data(str(tmp_path / "d.csv"), "y")


def test_a_slip_among_numbers_is_named_with_its_cure(tmp_path: Path) -> None:
    text = "a,b\n1,2\n3,4\n-99x,6\n7,8\n"
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(UserError, match=r"line 4, column 1 \(a\): '-99x' is not a number.*--na.*--drop"):
        load_data(str(tmp_path / "d.csv"), "b")
    X = load_data(str(tmp_path / "d.csv"), "b", na=["-99X"]).X
    assert X.tolist() == [[1, 0], [3, 0], [3, 1], [7, 0]]
    with pytest.raises(UserError, match="leave no column"):
        load_data(str(tmp_path / "d.csv"), "b", drop=["a"])


@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=2, max_size=8, unique=True))
def test_every_way_to_write_numbers_reads_the_same(values: list[float]) -> None:
    plain = [f"{value:.3f}" for value in values]
    comma = [text.replace(".", ",") for text in plain]
    grouped = [f"{value:,.3f}" for value in values]
    german = [text.replace(",", "_").replace(".", ",").replace("_", ".") for text in grouped]
    for cells, mark in ((plain, "."), (comma, ","), (grouped, "."), (german, ","), ([f"€ {g}" for g in german], ",")):
        np.testing.assert_allclose(only(cells, decimal=mark)[1][:, 0], values, rtol=1e-12, atol=1e-12)


# -- other kinds -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", [("true", "false"), ("Yes", "No"), ("T", "F"), ("y", "n")])
def test_booleans(words: tuple[str, str]) -> None:
    column, X = only([words[0], words[1], words[0].upper()])
    assert column.kind == "boolean" and X.tolist() == [[1], [0], [1]]


@pytest.mark.parametrize(
    "style", ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"]
)
def test_dates(style: str) -> None:
    days = [datetime.datetime(2020, 1, 31), datetime.datetime(2021, 12, 25, 12), datetime.datetime(2022, 6, 17)]
    column, X = only([day.strftime(style) for day in days])
    whole = 12 if "%H" in style else 0
    expected = [(day - datetime.datetime(1970, 1, 1)).days + whole * (day.hour == 12) / 24 for day in days]
    assert column.kind == "date" and X.shape == (3, 3) and X[:, 0].tolist() == expected
    np.testing.assert_allclose(np.hypot(X[:, 1], X[:, 2]), 1.0)


def test_days_and_months_that_could_be_either_are_asked_for() -> None:
    with pytest.raises(UserError, match=r"may begin with the day or with the month; .* --drop c0"):
        only(["01/02/2020", "03/04/2020", "05/06/2020"])
    assert only(["2020-01-02", "2020-01-30"])[0].features == ["c0"]  # of days in one month the season says nothing


def test_categories() -> None:
    cells = ["red", "blue", "red", "green", "blue", "red", "teal"]
    column, X = only(cells)
    assert column.features == ["c0 = blue", "c0 = red", "c0 is other"]
    assert X[:, 1].tolist() == [c == "red" for c in cells] and X[:, 2].tolist() == [
        c in ("green", "teal") for c in cells
    ]
    assert only(["m", "w", "m", "w"])[0].features == ["c0 = w"]
    plan = plan_columns(table(["red", "blue"] * 3), [0])
    values, notes = plan.encode(table(["blue", "pink"]), [0])
    assert values.tolist() == [[0.0], [0.0]] and notes == ["1 cells of 'c0' hold values that the model has not seen"]


def test_what_cannot_be_learned_from_is_left_out_and_said() -> None:
    names = [f"person {k}" for k in range(120)]
    plan = plan_columns(table(names, ["1"] * 120, [""] * 120, [str(k) for k in range(120)]), range(4))
    assert plan.features == ["c3"]
    assert plan.left_out == ["'c0' (text of 120 different values)", "'c1' (one value only)", "'c2' (no value)"]


def test_missing_values_are_filled_from_the_rows_to_train_on() -> None:
    given_table = table(["1", "", "5", "100"] * 2, ["a", "b", "NA", "b"] * 2)
    plan = plan_columns(given_table, [0, 1], rows=[0, 1, 2, 4, 5, 6])
    assert plan.features == ["c0", "c0 is missing", "c1 = b", "c1 is missing"]
    X, _ = plan.encode(given_table, [0, 1])
    assert X[:4].tolist() == [[1, 0, 0, 0], [3, 1, 1, 0], [5, 0, 0, 1], [100, 0, 1, 0]]
    fresh, _ = plan.encode(table(["", "2"], ["", "c"]), [0, 1])
    assert fresh.tolist() == [[3, 1, 0, 1], [2, 0, 0, 0]]


def test_a_plan_survives_json() -> None:
    plan = plan_columns(
        table(["1,5", "2", ""], ["2020-01-31", "2022-01-30", "2021-05-05"], ["a", "b", "a"], ["yes", "no", "no"]),
        range(4),
    )
    for column in plan.columns:
        assert Column.of(json.loads(json.dumps(column.record()))) == column
    record = plan.columns[0].record()
    for name, value in (("kind", "text"), ("fill", None), ("fill", float("nan")), ("levels", ["a", "a"]), ("name", 3)):
        with pytest.raises(ValueError, match="column"):
            Column.of({**record, name: value})
    with pytest.raises(ValueError, match="entries"):
        Column.of({**record, "more": 1})


# -- ten files as people have them -------------------------------------------------------------------------------------
def people(n: int = 200, seed: int = 0) -> tuple[list[str], list[list[Any]]]:
    """Names and rows: a date, a number, a category, yes and no, and what follows from them."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        day = datetime.date(2020, 1, 1) + datetime.timedelta(days=int(rng.integers(900)))
        size, colour, member = (
            float(rng.uniform(0, 2000)),
            str(rng.choice(["red", "blue", "green"])),
            bool(rng.integers(2)),
        )
        price = 0.02 * size + 10 * (colour == "red") + 5 * member + 0.01 * (day - datetime.date(2020, 1, 1)).days
        rows.append([day.isoformat(), size, colour, "yes" if member else "no", price + 0.1 * rng.standard_normal()])
    return ["date", "size", "colour", "member", "price"], rows


def written(rows: list[list[Any]], names: list[str], delimiter: str = ",", number: Any = repr) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[number(cell) if isinstance(cell, float) else cell for cell in row] for row in rows])
    return text.getvalue()


def german(value: float) -> str:
    return f"{value:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")


def holes(rows: list[list[Any]], mark: str) -> list[list[Any]]:
    return [[mark if (k + j) % 9 == 0 and j < 4 else cell for j, cell in enumerate(row)] for k, row in enumerate(rows)]


def umlauts(rows: list[list[Any]]) -> list[list[Any]]:
    return [[*row[:2], row[2].replace("green", "grün"), *row[3:]] for row in rows]


FILES = {
    "plain": lambda names, rows: written(rows, names).encode(),
    "bars": lambda names, rows: written(rows, names, "|").encode(),
    "decimal commas": lambda names, rows: written(rows, names, ";", german).encode(),
    "dollars": lambda names, rows: written(rows, names, number=lambda v: f"${v:,.2f}").encode(),
    "utf-16": lambda names, rows: written(rows, names, "\t").encode("utf-16"),
    "latin-1": lambda names, rows: written(umlauts(rows), names).encode("cp1252"),
    "row numbers": lambda names, rows: written([[k, *r] for k, r in enumerate(rows)], ["", *names]).encode(),
    "missing": lambda names, rows: written(holes(rows, ""), names).encode(),
    "odd marks of missing": lambda names, rows: written(holes(rows, "-"), names).encode(),
    "missing targets": lambda names, rows: written(
        [row if k % 10 else [*row[:4], ""] for k, row in enumerate(rows)], names
    ).encode(),
    "identifiers": lambda names, rows: written(
        [[f"id-{k:05d}", *row] for k, row in enumerate(rows)], ["id", *names]
    ).encode(),
}
HOLES = {"missing", "odd marks of missing"}  # a ninth of the features is gone


@pytest.mark.parametrize("kind", FILES)
def test_a_messy_file_is_fitted_and_predicted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names, rows = people()
    Path("d.csv").write_bytes(FILES[kind](names, rows))
    more = ["--na", "-"] if kind == "odd marks of missing" else []
    assert main(["fit", "d.csv", "--target", "price", "--out", "m", *FAST, *more]) == 0, capsys.readouterr().err
    record = json.loads(Path("m/solution.json").read_text(encoding="utf-8"))
    assert record["scores"]["R2"] > (0.75 if kind in HOLES else 0.97)
    kinds = {column["name"]: column["kind"] for column in record["columns"]}
    assert kinds == {"date": "date", "size": "number", "colour": "category", "member": "boolean"}
    names, fresh = people(40, seed=1)
    Path("new.csv").write_bytes(FILES[kind](names, fresh))
    assert main(["predict", "m", "new.csv", "--out", "p.csv", *more]) == 0
    with open("p.csv", newline="") as file:
        guess = np.array([float(row[0]) for row in list(csv.reader(file))[1:]])
    truth = np.array([row[-1] for row in fresh])
    assert 1 - np.var(guess - truth) / np.var(truth) > (0.7 if kind in HOLES else 0.95)


def test_parquet_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    names, rows = people(80)
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["date"] = [datetime.date.fromisoformat(day) for day in columns["date"]]
    columns["member"] = [word == "yes" for word in columns["member"]]
    columns["size"] = [None, *columns["size"][1:]]
    columns["colour"] = pyarrow.array(columns["colour"]).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table(columns), "d.parquet")
    assert main(["fit", "d.parquet", "--target", "price", "--out", "m", *FAST]) == 0, capsys.readouterr().err
    found = read_table("d.parquet")
    assert found.names == names and found.cells[0][1] == "" and found.cells[1][3] in ("True", "False")
    text = written([[r[0], r[1], r[2], str(r[3] == "yes"), r[4]] for r in rows], names).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    assert main(["predict", "m", "-"]) == 0
    assert capsys.readouterr().out.count("\n") == 81
    pyarrow.parquet.write_table(pyarrow.table({"a": [[1], [2]], "price": [1.0, 2.0]}), "nested.parquet")
    assert main(["fit", "nested.parquet", "--target", "price", "--out", "m2", *FAST]) == 2
    assert "column 'a' holds list" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert main(["predict", "m", "-"]) == 2 and "standard input: nothing came" in capsys.readouterr().err


def test_features_are_chosen_by_name(tmp_path: Path) -> None:
    names, rows = people(30)
    (tmp_path / "d.csv").write_text(written(rows, names))
    path = str(tmp_path / "d.csv")
    assert load_data(path, "price", features=["size"]).planned(None).feature_names == ["size"]
    assert load_data(path, "price", drop=["date", "colour", "3"]).feature_names == ["size"]
    with pytest.raises(UserError, match="--drop 'colur': no such column"):
        load_data(path, "price", drop=["colur"])


def test_features_of_columns_with_awkward_names_are_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [
        ["" if k == 3 else f"{x:.3f}", f"{z:.3f}", f"{x - z:.3f}"] for k, (x, z) in enumerate(rng.normal(size=(20, 2)))
    ]
    Path("d.csv").write_text("\n".join(",".join(row) for row in [["a", "a is missing", "y"], *rows]) + "\n")
    assert main(["fit", "d.csv", "--target", "y", "--out", "m", *FAST]) == 0
    record = json.loads(Path("m/solution.json").read_text())
    assert record["feature_names"] == ["a", "a is missing", "a is missing'"]
    assert main(["predict", "m", "d.csv"]) == 0 and capsys.readouterr().out.count("\n") == 21


def test_without_header_columns_that_were_left_out_may_be_there_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    rows = [["7", f"{x:.3f}", f"{10 + x - z:.3f}", f"{z:.3f}"] for x, z in rng.normal(size=(40, 2))]
    for name, places in (("d.csv", [0, 1, 2, 3]), ("same.csv", [0, 1, 3]), ("less.csv", [1, 3]), ("one.csv", [1])):
        Path(name).write_text("\n".join(",".join(row[k] for k in places) for row in rows) + "\n")
    assert main(["fit", "d.csv", "--target", "2", "--task", "regression", "--out", "m", *FAST]) == 0
    said = []
    for name in ("same.csv", "less.csv"):
        assert main(["predict", "m", name]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].count("\n") == 41
    assert main(["predict", "m", "one.csv"]) == 2
    record = json.loads(Path("m/solution.json").read_text())
    assert record["layout"] == {"columns": 3, "features": [1, 2]}
    for wrong in ({"columns": 3, "features": [1, 1]}, {"columns": 2, "features": [1, 2]}, [3], {"columns": 3}):
        Path("m/solution.json").write_text(json.dumps({**record, "layout": wrong}))
        assert main(["predict", "m", "same.csv"]) == 2 and "layout must be" in capsys.readouterr().err
