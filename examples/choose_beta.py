"""How much regularisation? By cross-validation, beside the linear model and gradient-boosted trees, on real data.

Run: python examples/choose_beta.py
"""

from __future__ import annotations

from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split

from cvxrelu import ConvexReLURegressorCV


def main() -> None:
    X, y = load_diabetes(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    model = ConvexReLURegressorCV(verbose=True).fit(X, y)
    print(f"chosen: beta {model.beta_:.4g}, {model.network_.n_neurons} neurons, gap {model.solution_.gap:.1e}")
    for name, other in (("network", model), ("ridge", RidgeCV()), ("trees", HistGradientBoostingRegressor())):
        other = other if name == "network" else other.fit(X, y)
        print(f"test R2 of {name}: {other.score(X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
