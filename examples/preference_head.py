"""A certified reward head on synthetic features: fit, calibration, audit, evaluation; nothing is downloaded.

Run: python examples/preference_head.py
"""

from __future__ import annotations

import numpy as np

from cvxrelu_llm import ConvexRewardHead, PairFeatures, as_pair_features, evaluate


def draw(rng: np.random.Generator, m: int, wrong: float = 0.0) -> PairFeatures:
    """m pairs of answers with 6 features, two to a prompt; a share of the labels is turned around."""
    X = rng.standard_normal((2 * m, 6))
    score = X[:, 0] + 2 * np.abs(X[:, 1]) - 2 * np.abs(X[:, 2])
    pairs = np.arange(2 * m).reshape(-1, 2)
    first = rng.random(m) < 1 / (1 + np.exp(-4 * (score[pairs[:, 0]] - score[pairs[:, 1]])))
    first ^= np.arange(m) < wrong * m
    return as_pair_features(X, np.where(first[:, None], pairs, pairs[:, ::-1]), group=np.arange(m) // 2)


def main() -> None:
    rng = np.random.default_rng(0)
    train, test = draw(rng, 200, wrong=0.05), draw(rng, 1000)
    head = ConvexRewardHead(betas=(0.6, 0.35)).fit(train)
    print(head.summary())
    for name, one in (("head", head), ("linear", ConvexRewardHead(beta=np.inf).fit(train))):
        found = evaluate(one, test).metrics
        print(f"{name:8} accuracy {found['rewards/accuracies']}, log-loss {found['log_loss']}")

    suspects = [suspect.pair for suspect in head.audit(20)]
    print(f"of the 20 most suspicious pairs {sum(pair < 10 for pair in suspects)} are among the 10 that were turned")
    edited = head.edit(remove=suspects[:5])
    print(f"without the first five: {evaluate(edited, test).metrics['rewards/accuracies']}")


if __name__ == "__main__":
    main()
