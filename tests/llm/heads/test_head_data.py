"""Features of one's own: what is refused, in what precision they are kept, and that an offset changes no margin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from preference_data import preferences

from cvxrelu.support.errors import InputError
from cvxrelu_llm.heads.data import as_pair_features, data_hash
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.heads.standardise import standardise

X = np.random.default_rng(0).standard_normal((4, 3))
PAIRS = [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pairs": [[0.9, 1], [2, 3]]}, "pairs must be whole numbers, rows of X, got 0.9"),
        ({"pairs": [[np.nan, 1], [2, 3]]}, r"pairs must be finite .*got nan at \(0, 0\)"),
        ({"pairs": np.eye(2, dtype=bool)}, "pairs must be numbers of rows of X, got truth values"),
        ({"pairs": [[0, 4]]}, "pairs must be rows of X from 0 to 3, got 4"),
        ({"pairs": [[0, -1]]}, "pairs must be rows of X from 0 to 3, got -1"),
        ({"pairs": [[0, 1e300]]}, "pairs must be rows of X from 0 to 3"),
        ({"pairs": [0, 1]}, r"pairs must be finite real numbers of shape \(any, 2\), got shape \(2,\)"),
        ({"pairs": [[0, 1, 2]]}, r"got shape \(1, 3\)"),
        ({"pairs": [[0, 1], [2]]}, "pairs must be finite real numbers"),
        ({"pairs": [["0", "1"]]}, "pairs must be finite real numbers .*got values of type <U1"),
        ({"pairs": None}, "pairs must be finite real numbers"),
        ({"pairs": np.array([[1j, 0]])}, "pairs must be finite real numbers .*complex128"),
        ({"X": X * 1j}, r"X must be finite real numbers of shape \(any, any\), got values of type complex128"),
        ({"X": X[0]}, r"X must be .*got shape \(3,\)"),
        ({"X": X[None]}, r"X must be .*got shape \(1, 4, 3\)"),
        ({"X": np.where(X[3, 2] == X, np.nan, X)}, r"X must be .*got nan at \(3, 2\)"),
        ({"X": np.where(X[1, 0] == X, np.inf, X)}, r"X must be .*got inf at \(1, 0\)"),
        ({"X": X.astype(str)}, "X must be finite real numbers"),
        ({"X": X.astype(object)}, "X must be finite real numbers .*of type object"),
        ({"X": [[1.0, 2.0], [3.0]]}, "X must be finite real numbers"),
        ({"weight": [1.0]}, "weight must have one entry per pair, 2, got 1"),
        ({"weight": 1.0}, r"weight must be .*got shape \(\)"),
        ({"weight": [1.0, -1.0]}, "weight must be nonnegative, got -1"),
        ({"weight": [1.0, np.nan]}, "weight must be finite real numbers .*got nan at 1"),
        ({"weight": [[1.0], [1.0]]}, r"weight must be .*got shape \(2, 1\)"),
        ({"margin": [0.0, 0.0, 0.0]}, "margin must have one entry per pair, 2, got 3"),
        ({"margin": [0.0, np.inf]}, "margin must be finite real numbers"),
        ({"group": [0]}, "group must have one entry per pair, 2, got 1"),
        ({"group": "ab"}, r"group must be a list of names, got shape \(\)"),
        ({"group": [[0], [1]]}, "group must be a list of names"),
        ({"settings": [1]}, "settings must be a mapping, got list"),
    ],
)
def test_bad_arguments_are_one_error_that_names_them(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_pair_features(**{"X": X, "pairs": PAIRS, **given})


@pytest.mark.parametrize(
    "pairs", [np.array(PAIRS, np.uint8), np.array(PAIRS, float), tuple(map(tuple, PAIRS)), np.array(PAIRS, np.int32)]
)
def test_whole_numbers_of_every_kind_are_rows(pairs: Any) -> None:
    found = as_pair_features(X, pairs)
    assert found.pairs.tolist() == PAIRS and found.pairs.dtype == np.int64


def test_groups_by_name() -> None:
    codes = {
        "numbers": [7, 3],
        "texts": ["b", "a"],
        "missing": [None, float("nan")],
        "a text and none": ["a", None],
        "mixed": [1, "a"],
    }
    found = {name: as_pair_features(X, PAIRS, group=group).group.tolist() for name, group in codes.items()}
    expected = {"numbers": [1, 0], "texts": [1, 0], "missing": [0, 1], "a text and none": [0, 1], "mixed": [0, 1]}
    assert found == expected
    assert as_pair_features(X, PAIRS, group=np.array([np.nan, 2.0])).group.tolist() == [1, 0]


def test_precision_is_what_tells_rows_apart() -> None:
    """float32 as for models, unless rounding would change a column by more than a millionth of its deviation."""
    for given in (X, X.astype(np.float32), X.astype(np.float16), (10 * X).astype(int), X * 1e-30, X + 1.0, 0 * X + 0.1):
        assert as_pair_features(given, PAIRS).X.dtype == np.float32
    for given in (X + 1e7, X * 1e200, X * 1e50, X * 1e-60, np.column_stack([X, X[:, 0] + 1e5])):
        kept = as_pair_features(given, PAIRS)
        assert kept.X.dtype == np.float64
        np.testing.assert_array_equal(kept.differences, given[[0, 2]] - given[[1, 3]])


@pytest.mark.parametrize("offset", [1e7, -1e9])
def test_an_offset_of_the_features_changes_no_margin(offset: float) -> None:
    plain = preferences(m=40, d=3)
    rows = plain.X.astype(np.float64)
    margins, standardised = [], []
    for X in (rows, rows + offset):
        features = as_pair_features(X, plain.pairs, group=plain.group)
        head = ConvexRewardHead(beta=np.inf, skip_l2=1.0, seed=0).fit(features)
        margins.append(head.margins(features.X, features.pairs))
        standardised.append(standardise(features.X, features.pairs.ravel(), None).apply(features.X))
    np.testing.assert_allclose(standardised[1], standardised[0], rtol=0, atol=1e-6)  # what every mode is fitted on
    np.testing.assert_allclose(margins[1], margins[0], rtol=0, atol=1e-4 * np.abs(margins[0]).max())


def test_the_same_data_have_the_same_hash() -> None:
    """As lists, in other integer types and in float32: what was saved with a head is found again."""
    hashes = {
        data_hash(as_pair_features(rows, pairs, group=group), np.zeros(2))
        for rows, pairs, group in (
            (X, PAIRS, [0, 1]),
            (X.tolist(), np.array(PAIRS, np.int32), np.array([0, 1])),
            (X.astype(np.float32), np.array(PAIRS, float), ["0", "1"]),
        )
    }
    assert len(hashes) == 1
