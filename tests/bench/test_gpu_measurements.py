"""The engines beside each other and the large refinements: small ones run, counts are those of the formulas."""

import numpy as np
import pytest

from bench.gpu import engines, large
from bench.scaling import model_rows


@pytest.mark.slow
def test_engines_reach_their_gaps(capsys):
    engines.main(["--quick"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| (200, 10, 50)")]
    assert len(rows) == 3 and "gap" not in "".join(rows)
    steps = {row.split("|")[3].strip(): int(row.split("|")[5].split(",")[0]) for row in rows}
    assert 4 * steps["Newton, JAX"] <= steps["ADMM, JAX"]


@pytest.mark.slow
def test_a_large_refinement_in_small():
    found = large.measure(500, 6, 20.0)
    assert 0.0 <= found["priced gap"] <= 1e-2 and found["rounds"] > 0 and found["peak GiB"] > 0
    assert 0 < int(found["in products"].split()[0]) < 100


def test_products_alone_are_counted():
    X = np.ones((30, 4)).view(large.Counted)
    before = large.Counted.seconds
    sums = X + 1.0
    assert type(sums) is np.ndarray and large.Counted.seconds == before
    np.testing.assert_array_equal(X.T @ (X @ np.ones((4, 2))), np.full((4, 2), 120.0))


def test_the_paper_agrees_with_the_model_of_devices():
    """ADMM's flops and bytes are those of `bench.scaling`; eight cards in a row share the work and hold X each."""
    rows = {(row[0], row[1]): row for row in large.paper_rows()}
    for cards, _, _, _, _, _ in model_rows(*large.LARGE, counts=(1, 8)):
        row = rows[cards, "ADMM iteration"]
        expected = next(r for r in model_rows(*large.LARGE) if r[0] == cards)
        assert row[2] == pytest.approx(expected[1]) and row[6] == pytest.approx(expected[2])
    one, eight = rows[1, "round of refinement"], rows[8, "round of refinement"]
    assert one[2] == pytest.approx(8 * eight[2]) and one[6] == 0 < eight[6]
    whole, blocks = 12.0 * large.LARGE[0] * large.LARGE[1] / 1e9, 4.0 * large.LARGE[1] * large.LARGE[2] / 1e6
    assert min(rows[cards, "ADMM iteration"][7] for cards in (1, 8)) >= whole
    # A column of eight: an eighth of X and of the reading; thirteen sums of the blocks' size, 7/8 of them twice.
    column = rows["8 x 1", "ADMM iteration"]
    assert column[2] == pytest.approx(one_of_eight := rows[8, "ADMM iteration"][2]) and one_of_eight > 0
    assert column[6] == pytest.approx(13 * 2 * 7 / 8 * blocks) and whole / 8 < column[7] < whole / 6
    assert column[4] == pytest.approx(rows[8, "ADMM iteration"][4] / 8)
    # Four rows of two: thirteen sums of half of the blocks over the rows, eleven of a quarter of the rows.
    grid = rows["4 x 2", "ADMM iteration"]
    assert grid[6] == pytest.approx(13 * 2 * 3 / 4 * blocks / 2 + 11 * 4e-6 * large.LARGE[0] / 4)
