"""The regression problems of `bench.networks`: UCI sets, one digit against the rest, planted networks, a text task.

Columns are standardised (mean 0, variance 1), constant and repeated columns dropped, and a constant column is appended:
its weights are the neurons' biases, penalised with them. Targets of the UCI sets are standardised, the digits' are
+1 and -1 as they are, planted problems as `bench.common.problems.planted` makes them, without a constant column.
The UCI sets and the sentences are files of the folder `shared/data` beside the checkout; problems whose file is absent
are left out. The digits come with scikit-learn.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.common.problems import planted
from bench.common.report import ROOT

__all__ = [
    "DATA",
    "PROBLEMS",
    "UCI",
    "Problem",
    "Split",
    "available",
    "fingerprint",
    "sentence_polarity",
    "with_constant",
]

DATA = ROOT.parent / "shared" / "data"
DIGIT = 3  # the one against the rest
COMPONENTS = 384  # of the truncated SVD: as many features as MiniLM's embeddings have


class Problem(NamedTuple):
    """X (n, d) and y (n,), float64."""

    X: np.ndarray
    y: np.ndarray


class Split(NamedTuple):
    """Features and labels (0 or 1) of a text task, training and test rows, and the features' name."""

    train: Problem
    test: Problem
    features: str


def with_constant(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Standardise by the rows of `train`, drop its constant and repeated columns, append a column of ones."""
    mean, deviation = train.mean(0), train.std(0)
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1.0)
    mean, deviation = mean[varies], deviation[varies]
    standardised = [(X[:, varies] - mean) / deviation for X in (train, *others)]
    # A column and its negative span the same; their first entry that is not small tells the sign.
    columns = np.round(standardised[0], 9)
    columns = columns * np.sign(columns[np.argmax(np.abs(columns) > 1e-6, axis=0), np.arange(columns.shape[1])])
    _, first = np.unique(columns, axis=1, return_index=True)
    return [np.column_stack([X[:, np.sort(first)], np.ones(len(X))]) for X in standardised]


def _uci(name: str) -> Problem:
    table = np.loadtxt(DATA / "uci" / f"{name}.csv.gz", delimiter=",", ndmin=2)
    y = table[:, -1]
    return Problem(with_constant(table[:, :-1])[0], (y - y.mean()) / y.std())


def _digits() -> Problem:
    from sklearn.datasets import load_digits

    X, label = load_digits(return_X_y=True)
    return Problem(with_constant(X)[0], np.where(label == DIGIT, 1.0, -1.0))


def _planted(n: int, d: int) -> Problem:
    problem = planted(n, d, 1)
    return Problem(problem.X, problem.y)


UCI = ["yacht", "breastcancer", "housing", "energy", "airfoil", "wine", "pol", "bike"]  # from small to large

# In the order in which they are run: the long ones last.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{name: partial(_uci, name) for name in UCI[:6]},
    "planted-500-10": partial(_planted, 500, 10),
    "planted-1000-20": partial(_planted, 1000, 20),
    "planted-2000-50": partial(_planted, 2000, 50),
    "digits": _digits,
    "planted-5000-100": partial(_planted, 5000, 100),
    **{name: partial(_uci, name) for name in UCI[6:]},
}


def available(name: str) -> bool:
    """Whether the problem's file is there."""
    return name not in UCI or (DATA / "uci" / f"{name}.csv.gz").exists()


def fingerprint(problem: Problem) -> str:
    """Twelve hexadecimal digits of the data rounded to float32: a cached result belongs to its data."""
    digest = hashlib.sha256(repr(problem.X.shape).encode())
    for array in problem:
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return digest.hexdigest()[:12]


def sentence_polarity(embeddings: Path | None = None, *, train_share: float = 0.8, seed: int = 0) -> Split:
    """Sentence polarity (Pang & Lee 2005), split once at random: features of one row per sentence, label 1 = positive.

    Parameters
    ----------
    embeddings : .npz with an array `embeddings` (n, k), one row per line of the data file, in its order: MiniLM's
        embeddings, say. None: TF-IDF of words and word pairs, reduced to 384 components by a truncated SVD, both
        fitted on the training rows alone.
    train_share : share of the rows to train on.
    seed : of the split and of the SVD's random start.

    Raises
    ------
    FileNotFoundError : the data file or `embeddings` is absent.
    ValueError : `embeddings` does not have one row per sentence.
    """
    with gzip.open(DATA / "sentence_polarity.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    label = np.array([float(row["label"]) for row in rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    train, test = np.split(order, [round(train_share * len(rows))])
    if embeddings is None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        texts = [row["text"] for row in rows]
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            TruncatedSVD(COMPONENTS, random_state=seed),
        )
        parts = [model.fit_transform([texts[i] for i in train]), model.transform([texts[i] for i in test])]
        features = f"TF-IDF + truncated SVD ({COMPONENTS})"
    else:
        with np.load(embeddings) as archive:
            table = np.asarray(archive["embeddings"], dtype=np.float64)
        if len(table) != len(rows):
            raise ValueError(f"embeddings has {len(table)} rows; expected {len(rows)}, one per sentence")
        parts, features = [table[train], table[test]], embeddings.stem
    first, second = with_constant(*parts)
    return Split(Problem(first, label[train]), Problem(second, label[test]), features)
