"""A pipeline of scikit-learn as a careful user writes it, in a process of its own: fit on one file, predict another.

`python -m bench.tables.pipeline TRAIN NEW OUT --target NAME --task KIND --model trees|mlp [--read JSON]`

The separator is sniffed; numbers get their median and a scale, texts their most frequent value and indicators, texts of
more than 50 values as well. `--read` holds what a user adds for one file: options of `pandas.read_csv`, and `repair`,
`dates` and `drop`, lists of columns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["main"]


def read(path: str, given: dict[str, Any]) -> Any:
    import pandas as pd

    options = {key: value for key, value in given.items() if key not in ("repair", "dates", "drop")}
    frame = pd.read_csv(path, **({"sep": None, "engine": "python"} | options))
    for name in set(given.get("repair", ())) & set(frame.columns):
        frame[name] = frame[name].str.replace(r"[$,]| (?:m2|m|%)$", "", regex=True).astype(float)
    for name in given.get("dates", ()):
        frame[name] = (pd.to_datetime(frame[name], dayfirst=True) - pd.Timestamp(0)).dt.days
    return frame.drop(columns=given.get("drop", []))


def pipeline(frame: Any, task: str, model: str) -> Any:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = list(frame.select_dtypes("number").columns)
    texts = [name for name in frame.columns if name not in numbers]
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        ("texts", make_pipeline(SimpleImputer(strategy="most_frequent"), encode), texts),
    ])  # fmt: skip
    if task == "classification":
        last = HistGradientBoostingClassifier(random_state=0) if model == "trees" else MLPClassifier(
            max_iter=500, random_state=0)  # fmt: skip
        return make_pipeline(columns, last)
    if model == "trees":
        return make_pipeline(columns, HistGradientBoostingRegressor(random_state=0))
    network = MLPRegressor(max_iter=500, random_state=0)
    return TransformedTargetRegressor(make_pipeline(columns, network), transformer=StandardScaler())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("new")
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--task", choices=("regression", "classification"), required=True)
    parser.add_argument("--model", choices=("trees", "mlp"), required=True)
    parser.add_argument("--read", type=json.loads, default={})
    options = parser.parse_args()
    frame = read(options.train, options.read)
    target = frame.columns[-1] if options.target == "-1" else options.target
    rows = frame.drop(columns=target)
    fitted = pipeline(rows, options.task, options.model).fit(rows, frame[target])
    guess = fitted.predict(read(options.new, options.read))
    options.out.write_text("\n".join(map(str, guess)) + "\n")


if __name__ == "__main__":
    main()
