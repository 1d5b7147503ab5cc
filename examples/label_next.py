"""Which pairs to label next: 40 labels chosen by what they tell, beside 40 drawn at random.

Run it with `python examples/label_next.py`. It needs the base package alone: features are drawn here.
"""

import numpy as np

from cvxrelu_llm import ConvexRewardHead, as_pair_features, compare_heads, suggest

rng = np.random.default_rng(0)
X = rng.standard_normal((1600, 20)) * np.linspace(3.0, 0.3, 20)
better = X @ rng.standard_normal(20) + 0.3 * rng.logistic(size=1600)
pairs = np.arange(1600).reshape(-1, 2)
pairs = np.where((better[pairs[:, 0]] > better[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
pool, test = pairs[:400], as_pair_features(X, pairs[400:])


def fitted(chosen: list[int]) -> ConvexRewardHead:
    """A linear head on the pairs labelled so far."""
    return ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(as_pair_features(X, pool[chosen]))


start = list(range(10))
told, drawn = list(start), list(start)
for _ in range(4):  # ten at a time
    left = [k for k in range(400) if k not in told]
    found = suggest(fitted(told), as_pair_features(X, pool[left]), n=10)
    told += [left[s.pair] for s in found]
    drawn += rng.choice([k for k in range(400) if k not in drawn], 10, replace=False).tolist()

for name, chosen in (("suggested", told), ("random", drawn)):
    margins = fitted(chosen).margins(test.X, test.pairs)
    print(f"{name:10} {len(chosen)} labels: accuracy {np.mean(margins > 0):.3f}")
print(compare_heads(fitted(told), fitted(drawn), test).summary())
