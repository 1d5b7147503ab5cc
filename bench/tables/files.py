"""Twelve messy CSV files, each drawn from a seed: what people's programs write, with something to learn in it.

All have the same things behind them: four numbers, a town, a yes or no and a date; the target bends along one number,
steps along another, and depends on the town how strongly it follows a third. What differs is how it is written down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FILES", "Messy", "write"]

TOWNS = np.array(["Ash", "Birch", "Cedar", "Dogwood"])
Columns = dict[str, np.ndarray]  # of texts, ready to be joined


@dataclasses.dataclass(frozen=True)
class Messy:
    """One kind of file.

    make : from what is behind the rows, the columns as texts, the target last.
    mended : what a user adds to the script with scikit-learn for this file, in words; "" where nothing is needed.
    read : what `mended` amounts to, as `bench/tables/pipeline.py` takes it.
    """

    what: str
    make: Callable[[dict[str, np.ndarray], np.random.Generator], Columns]
    task: str = "regression"
    target: str = "price"
    separator: str = ","
    encoding: str = "utf-8"
    header: bool = True
    mended: str = ""
    read: dict[str, Any] = dataclasses.field(default_factory=dict)


def behind(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """What the rows are about, and `signal`, what their targets are made of (standard deviation near 2)."""
    x = rng.standard_normal((4, n))
    town, yes = rng.integers(len(TOWNS), size=n), rng.random(n) < 0.5
    day = rng.integers(0, 730, size=n)
    slope = np.array([1.5, 0.5, -0.5, -1.5])[town]
    signal = 2 * np.abs(x[0]) - x[1] + slope * x[2] + (x[3] > 0.5) + 0.7 * yes + 0.002 * day
    return {"x": x, "town": town, "yes": yes, "day": day, "signal": signal + 0.4 * rng.standard_normal(n)}


def fixed(values: np.ndarray, digits: int = 2) -> np.ndarray:
    return np.array([f"{value:.{digits}f}" for value in values])


def holes(texts: np.ndarray, rng: np.random.Generator, *marks: str, share: float = 0.08) -> np.ndarray:
    texts = texts.astype(object)
    gone = rng.random(len(texts)) < share
    texts[gone] = rng.choice(list(marks), gone.sum())
    return texts


def dates(day: np.ndarray, form: str) -> np.ndarray:
    return np.array([date.strftime(form) for date in (np.datetime64("2022-01-01") + day).astype(object)])


def plain(b: dict[str, np.ndarray]) -> Columns:
    """The columns that most files have."""
    x = b["x"]
    return {
        "size": fixed(100 + 20 * x[0], 1), "age": fixed(40 + 9 * x[1], 0), "slope": fixed(x[2]),
        "height": fixed(300 + 80 * x[3], 0), "town": TOWNS[b["town"]], "garden": np.where(b["yes"], "yes", "no"),
    }  # fmt: skip


def price(b: dict[str, np.ndarray]) -> np.ndarray:
    return 250_000 + 40_000 * b["signal"]


def missing(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    columns = {name: holes(texts, rng, "", "NA", "?") for name, texts in plain(b).items()}
    return columns | {"price": fixed(price(b), 0)}


def money(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    rent = [f'"${1500 + 400 * value:,.2f}"' for value in b["x"][2]]
    columns = {name: texts for name, texts in plain(b).items() if name != "slope"}
    return columns | {"rent": np.array(rent), "price": np.array([f'"${value:,.2f}"' for value in price(b)])}


def decimal_commas(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    columns = plain(b) | {"price": fixed(price(b) / 1000, 3)}
    return {name: np.char.replace(texts.astype(str), ".", ",") for name, texts in columns.items()}


def index_column(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    return {"": np.arange(len(b["day"])).astype(str)} | plain(b) | {"price": fixed(price(b), 0)}


def latin_1(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    towns = np.array(["Zürich", "Genève", "Neuchâtel", "Graubünden"])[b["town"]]
    columns = {"Größe" if name == "size" else name: texts for name, texts in plain(b).items()}
    return columns | {"town": towns, "price": fixed(price(b), 0)}


def utf_16(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    return plain(b) | {"price": fixed(price(b), 0)}


def pipes(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    sold = {"sold": dates(b["day"], "%d.%m.%Y"), "remarks": np.full(len(b["day"]), "")}
    return sold | plain(b) | {"price": fixed(price(b), 0)}


def ids_and_text(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    n = len(b["day"])
    words = ["quiet", "sunny", "near", "far", "old", "new", "wide", "street", "garden", "view", "house", "river"]
    said = np.array([f'"{" ".join(rng.choice(words, 7))}, no. {k}"' for k in range(n)])
    ids = np.array([f"H-{k:06d}" for k in rng.choice(10**6, n, replace=False)])
    kind = np.array(["cheap", "fair", "dear"])[np.digitize(b["signal"], [1.5, 3.2])]
    return {"id": ids, "said": said} | plain(b) | {"price": kind}


def no_header(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    return plain(b) | {"price": fixed(price(b), 0)}


def units(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    columns = plain(b)
    columns["size"] = np.array([f"{text} m2" for text in columns["size"]])
    columns["height"] = np.array([f"{text} m" for text in columns["height"]])
    columns["slope"] = np.array([f"{text} %" for text in columns["slope"]])
    return columns | {"price": fixed(price(b), 0)}


def rare(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    return plain(b) | {"price": np.where(b["signal"] > 5.2, "sold", "open")}


def letters(b: dict[str, np.ndarray], rng: np.random.Generator) -> Columns:
    columns = plain(b) | {"garden": np.where(b["yes"], "Y", "N")}
    return columns | {"price": np.where(b["signal"] > 2.4, "Y", "N")}


FILES = {
    "missing": Messy("missing values as blanks, NA and ?", missing,
                     mended='na_values="?"', read={"na_values": "?"}),
    "money": Messy("$1,234.50 in a feature and in the target", money,
                   mended="two columns stripped of $ and ,", read={"repair": ["rent", "price"]}),
    "decimal commas": Messy("semicolons and decimal commas", decimal_commas, separator=";",
                            mended='decimal=","', read={"decimal": ",", "sep": ";"}),
    "index": Messy("row numbers in a first column without a name", index_column,
                   mended="index_col=0", read={"index_col": 0}),
    "Latin-1": Messy("Zürich and Größe in Latin-1", latin_1, encoding="latin-1",
                     mended='encoding="latin-1"', read={"encoding": "latin-1"}),
    "UTF-16": Messy("UTF-16 and tabs, as spreadsheets write them", utf_16, separator="\t", encoding="utf-16",
                    mended='encoding="utf-16"', read={"encoding": "utf-16", "sep": "\t"}),
    "pipes": Messy("bars, dd.mm.yyyy, an empty column", pipes, separator="|",
                   mended="the date as a number of days, the empty column dropped",
                   read={"sep": "|", "dates": ["sold"], "drop": ["remarks"]}),
    "ids": Messy("ids and free text beside three text labels", ids_and_text, task="classification",
                 mended="two columns dropped", read={"drop": ["id", "said"]}),
    "no header": Messy("no line of names", no_header, target="-1", header=False,
                       mended="header=None", read={"header": None}),
    "units": Messy("m2, m and % in the cells", units,
                   mended="three columns stripped of units", read={"repair": ["size", "height", "slope"]}),
    "rare": Messy("one class of about one row in twenty", rare, task="classification"),
    "letters": Messy("Y and N, in a feature and as labels", letters, task="classification"),
}  # fmt: skip


def write(name: str, seed: int, folder: Path, n: int = 500) -> tuple[Path, Path, np.ndarray]:
    """(training file, file of new rows without the target, their targets as numbers or labels), n rows in each."""
    kind = FILES[name]
    rng = np.random.default_rng([seed, list(FILES).index(name)])
    b = behind(rng, 2 * n)
    columns = kind.make(b, rng)
    target = columns["price"]
    if kind.task == "regression":
        marks = str.maketrans(",", ".") if kind.read.get("decimal") == "," else str.maketrans("", "", '$,"')
        truth = np.array([float(text.translate(marks)) for text in target[n:]])
    else:
        truth = target[n:]
    paths = []
    for part, rows, kept in (("train", slice(0, n), list(columns)), ("new", slice(n, None), list(columns)[:-1])):
        lines = [kind.separator.join(kept)] if kind.header else []
        lines += [kind.separator.join(cells) for cells in zip(*(columns[key][rows] for key in kept), strict=True)]
        paths.append(folder / f"{part}.csv")
        paths[-1].write_text("\n".join(lines) + "\n", encoding=kind.encoding)
    return paths[0], paths[1], truth
