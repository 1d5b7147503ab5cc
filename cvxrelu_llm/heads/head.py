"""A reward on features of a language model, fitted to preferences by convex programs.

    pairwise    minimise  sum_k weight_k log(1 + exp(margin_k - (f(x_i(k)) - f(x_j(k)))))
                          + beta sum_j |w_j| |a_j| + skip_l2/2 |theta|^2,     f(x) = sum_j (x @ w_j)_+ a_j + x @ theta
    two_phase   the recipe of CVX-DPO and COALA: `cvxrelu.two_phase`

Features are standardised by the training rows, and that is folded into the saved network, which takes raw features.
A reward is defined up to a constant; it is chosen so that the mean over the training rows is 0.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.calibration import calibrate, log_losses
from cvxrelu_llm.heads.data import IDENTITY, as_pair_features, checked_margins, data_hash
from cvxrelu_llm.heads.fitting import HeadFitting
from cvxrelu_llm.heads.folder import read_head, write_head
from cvxrelu_llm.heads.influence import Influence, Suspect, influence_of, suspects
from cvxrelu_llm.heads.options import checked_options
from cvxrelu_llm.heads.rule import compared
from cvxrelu_llm.heads.selection import Rows
from cvxrelu_llm.heads.standardise import lipschitz_bound, standardise
from cvxrelu_llm.heads.with_model import WithLanguageModel

__all__ = ["ConvexRewardHead", "as_pair_features"]


class ConvexRewardHead(HeadFitting, WithLanguageModel):
    """A certified reward: `fit` it to pair features, `score` features or texts, `save` it with its model card.

    Options that have no effect beside the others must be left at their defaults.

    Parameters
    ----------
    mode : "pairwise", one convex program; "two_phase", a squared-loss classifier over sampled patterns, then a
        logistic last layer.
    skip : pairwise; a linear part beside the neurons. The purely linear model then is always a candidate.
    skip_l2 : its ridge, > 0; "auto" takes the one with the smallest held-out log-loss of the linear model.
    beta : > 0; "auto" chooses along the path by held-out log-loss; with two_phase it is phase I's, and "auto" means a
        tenth of its `beta_max`. np.inf asks for the linear model.
    betas : the path, as shares of `beta_max`, each in (0, 1).
    select : "significant", neurons only where their held-out loss is below the linear model's by a paired t-test over
        groups, corrected for the points of the path, and their accuracy is not; "lowest", wherever the loss is lower.
    folds : of the grouped cross-validation inside the training pairs.
    components : directions of the standardised features to fit on; None for all features. With beta="auto" and skip
        the first is that of the linear model of all features, which thus stays the beginning of the path; the others,
        and all of them elsewhere, are principal components. "auto" is 64 with beta="auto" and skip where there are
        more than 128, else all.
    intercept : whether neurons have biases, penalised with their weights. Pairwise and two_phase.
    gamma : a margin added to that of every pair.
    scale, l2, patterns, refine : two_phase; factor of the score inside the logistic loss, ridge of the last layer
        ("auto": by held-out log-loss), number of sampled patterns, and whether phase I solves the network program.
    tol, path_tol : relative gap of the final solve, and along the path.
    time_limit : seconds for each solve, None for none; with a limit, results depend on the machine.
    seed : nonnegative integer.

    Attributes
    ----------
    network : ReLUNetwork of raw features. choice, calibration, certificate : how it was chosen and what is known.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 4)); pairs = np.arange(200).reshape(-1, 2)
    >>> pairs = np.where((X[pairs[:, 0], 0] > X[pairs[:, 1], 0])[:, None], pairs, pairs[:, ::-1])
    >>> head = ConvexRewardHead(beta=np.inf).fit(as_pair_features(X, pairs))
    >>> head.certificate["rigorous"], head.n_neurons, bool(np.mean(head.margins(X, pairs) > 0) > 0.95)
    (True, 0, True)
    """

    def __init__(
        self,
        mode: str = "pairwise",
        *,
        skip: bool = True,
        skip_l2: float | str = "auto",
        beta: float | str = "auto",
        betas: Sequence[float] = (0.7, 0.5, 0.35, 0.25, 0.15),
        select: str = "significant",
        folds: int = 3,
        components: int | str | None = "auto",
        intercept: bool = True,
        gamma: float = 0.0,
        scale: float = 1.0,
        l2: float | str = "auto",
        patterns: int = 32,
        refine: bool = False,
        tol: float = 1e-3,
        path_tol: float = 1e-2,
        time_limit: float | None = None,
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        self.options = checked_options(given, self.defaults())
        self.data: PairFeatures | None = None
        self.solution: Any = None
        self.metrics: dict[str, Any] = {}  # of a loaded head, as they were saved

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every option and its default."""
        return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}

    def fit(
        self, features: PairFeatures, *, reference: Any = None, folder: str | os.PathLike[str] | None = None
    ) -> ConvexRewardHead:
        """Choose ridge and beta, solve, certify, calibrate.

        Parameters
        ----------
        features : training pairs, of `extract` or `as_pair_features`.
        reference : (m,) log-probability of the preferred answer under a language model minus that of the other, added
            to the margins as in direct preference optimisation: the score becomes the log-probability ratio of a
            policy. See `reference_log_ratios`, and `reference` of the features.
        folder : keeps what is solved, one network a file; a fit that was killed goes on from there to the same answer.

        Returns
        -------
        The head itself. InputError where pairs, groups or weights do not allow it, or `folder` is of another fit.
        """
        margin = checked_margins(features) + self.options["gamma"]
        if reference is not None:
            offsets = np.asarray(reference, dtype=np.float64)
            if offsets.shape != margin.shape or not np.isfinite(offsets).all():
                raise ValueError(f"reference must hold {len(margin)} finite numbers, got shape {offsets.shape}")
            margin = margin + offsets
        self._remember(features, margin)
        self.feature_settings = dict(features.settings)
        work = None if folder is None else self._work_folder(Path(folder))
        width = features.X.shape[1]
        components = None if self._reduces(width) else self._components(width)
        self.standard = standardise(features.X, features.pairs.ravel(), components)
        rows = Rows(self.standard.apply(features.X), features.pairs, features.weight, margin)
        if self.options["mode"] == "two_phase":
            self.choice = self._choose_last_layer(features, margin, rows, work)
        else:
            self.choice = self._choose(features, margin, rows, work)
            if self._reduces(width):
                if self.choice.beta is None:
                    self.standard = standardise(features.X, features.pairs.ravel(), None)
                rows = rows._replace(Z=self.standard.apply(features.X))
        self._solve(rows, None, work)
        held_out = self.choice.margins
        self.calibration = None if held_out is None else calibrate(held_out, features.weight)
        return self

    # -- use ----------------------------------------------------------------------------------------------------------
    @property
    def n_neurons(self) -> int:
        """Neurons of the network; 0 where the linear model was chosen."""
        return self.network.n_neurons

    @property
    def lipschitz(self) -> float:
        """`sum_j |w_j| |a_j| + |skip|` in raw features: no reward changes faster."""
        return lipschitz_bound(self.network)

    @property
    def temperature(self) -> float:
        """Of the calibration by out-of-fold margins; 1 where there was none."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def score(self, X: Any) -> Float[np.ndarray, " n"]:
        """Rewards of raw features (n, D), in float64."""
        return self.network.predict(np.asarray(X, dtype=np.float64))

    def margins(self, X: Any, pairs: Any) -> Float[np.ndarray, " m"]:
        """Reward of the first of each pair minus that of the second."""
        rows, f = np.asarray(pairs), self.score(X)
        return f[rows[:, 0]] - f[rows[:, 1]]

    def probability(self, X: Any, pairs: Any) -> Float[np.ndarray, " m"]:
        """Calibrated probability that the first of each pair is preferred, `sigma(margin / T)`."""
        return np.exp(-log_losses(self.margins(X, pairs) / self.temperature))

    def decide(self, X: Any, pairs: Any, *, margin: float = 0.0) -> np.ndarray:
        """+1 for the first of each pair, -1 for the second, 0 where |margin| is below `margin`, >= 0: no decision."""
        if not 0 <= margin < np.inf:
            raise ValueError(f"margin must be a finite number from 0, got {margin!r}")
        found = self.margins(X, pairs)
        return np.where(np.abs(found) < margin, 0, np.sign(found)).astype(np.int64)

    def check_features(self, settings: Mapping[str, Any]) -> None:
        """InputError unless features with these settings are of the model, layer, pooling and template fitted on."""
        for name in IDENTITY:
            given = settings.get(name, "read" if name == "prompt" else None)
            if name in self.feature_settings and given != self.feature_settings[name]:
                raise InputError(
                    f"wrong features for this head: {name} is {given!r}, but the head was fitted on "
                    f"{self.feature_settings[name]!r}, model {self.feature_settings.get('model')!r}"
                )

    # -- edits --------------------------------------------------------------------------------------------------------
    def edit(
        self, *, add: PairFeatures | None = None, remove: Sequence[int] = (), flip: Sequence[int] = (),
        weight: Mapping[int, float] | None = None,
    ) -> ConvexRewardHead:  # fmt: skip
        """A new head after changes of the pairs, solved from the present network.

        Standardisation, ridge and beta stay what they are, and with two_phase the first layer, so that what changes is
        due to the pairs; calibration is kept too. Indices are those of the pairs of `data`, before anything is added.

        Parameters
        ----------
        add : more pairs, of the same features; their `reference` counts where the head was fitted with one.
        remove, flip : pairs to drop, or to turn around. The margin of a pair stays; its reference changes sign.
        weight : new weights by pair.
        """
        data = self._needed()
        m = len(data.pairs)
        lists = {"remove": list(remove), "flip": list(flip), "weight": list(weight or {})}
        for name, indices in lists.items():
            if any(isinstance(i, bool) or not isinstance(i, (int, np.integer)) or not 0 <= i < m for i in indices):
                raise ValueError(f"{name} must hold numbers of pairs from 0 to {m - 1}, got {indices}")
        pairs, weights, margin = data.pairs.copy(), data.weight.copy(), self.margin.copy()
        pairs[lists["flip"]] = pairs[lists["flip"]][:, ::-1]
        offset = margin - (data.margin + self.options["gamma"])  # the reference's, which changes its sign
        margin[lists["flip"]] -= 2 * offset[lists["flip"]]
        for i, value in (weight or {}).items():
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"weight of pair {i} must be finite and nonnegative, got {value!r}")
            weights[i] = value
        keep = np.setdiff1d(np.arange(m), lists["remove"])
        parts = [data.X, pairs[keep], weights[keep], margin[keep], data.margin[keep], data.group[keep], data.kept[keep]]
        if add is not None:
            self.check_features(add.settings)
            own = checked_margins(add)
            if add.X.shape[1] != data.X.shape[1]:
                raise ValueError(f"add has {add.X.shape[1]} features, expected {data.X.shape[1]}")
            added = own + self.options["gamma"]
            if offset.any():
                if add.reference is None:
                    raise InputError("the head was fitted with a reference, and add holds none")
                added = added + add.reference
            more = [add.X, add.pairs + len(data.X), add.weight, added, own,
                    add.group + data.group.max(initial=-1) + 1, add.kept]  # fmt: skip
            parts = [np.concatenate(both) for both in zip(parts, more, strict=True)]
        X, pairs, weights, margin, own_margin, group, kept = parts
        if not len(pairs) or not weights.sum() > 0:
            raise InputError("nothing would be left to fit on")
        edited = copy.copy(self)
        edited.data = PairFeatures(X, pairs, weights, own_margin, group, kept, data.settings)
        edited._remember(edited.data, margin)
        edited._solve(Rows(self.standard.apply(X), pairs, weights, margin), self.standardised)
        return edited

    def attach(self, features: PairFeatures, *, reference: Any = None) -> ConvexRewardHead:
        """Give a loaded head its training pairs back, for `edit`, `influence` and `audit`; InputError for others.

        reference : what `fit` was given; None tries none, then that of the features.
        """
        margin = checked_margins(features) + self.options["gamma"]
        offsets = [0.0, features.reference] if reference is None else [np.asarray(reference, dtype=np.float64)]
        known = [margin + offset for offset in offsets if offset is not None]
        margin = next((given for given in known if data_hash(features, given) == self.data_hash), None)
        if margin is None:
            raise InputError("these are not the pairs that the head was fitted on")
        self._remember(features, margin)
        rows = Rows(self.standard.apply(features.X), features.pairs, features.weight, margin)
        self._solve(rows, self.standardised)
        return self

    def influence(self) -> Influence:
        """What every training pair's margin would be had the pair not been there; no refit is done."""
        data = self._needed()
        rows = Rows(self.standard.apply(data.X), data.pairs, data.weight, self.margin)
        return influence_of(self.solution, self.standardised, rows, self.choice.skip_l2)

    def audit(self, limit: int | None = None) -> list[Suspect]:
        """Training pairs, the most probably mislabelled first: those that all others contradict most."""
        return suspects(self.influence(), limit)

    def _needed(self) -> PairFeatures:
        if self.data is None or self.solution is None:
            raise InputError("the head does not hold its training pairs; fit it, or `attach` them after loading")
        return self.data

    def save(self, folder: str | os.PathLike[str], *, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write network, settings and model card to a new folder; see `head_files`."""
        return write_head(self, Path(folder), dict(metrics or {}))

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> ConvexRewardHead:
        """Read what `save` wrote; `attach` gives it its pairs back."""
        return read_head(Path(folder), ConvexRewardHead)

    def summary(self) -> str:
        """What was chosen and what is certified, one fact per line."""
        c, choice = self.certificate, self.choice
        kind = "rigorous" if c["rigorous"] else "estimate"
        beta = "above beta_max: the linear model" if choice.beta is None else f"{choice.beta:.4g}"
        lines = [
            f"mode           {self.options['mode']}: {c['program']}, {self.n_neurons} neurons",
            f"chosen         skip_l2 {choice.skip_l2:.4g}, beta {beta}",
            f"certificate    {c['status']}: objective {c['objective']:.6g}, lower bound {c['lower_bound']:.6g}, "
            f"gap {c['gap']:.1e} ({c['kind']}, {kind})",
            f"Lipschitz      at most {self.lipschitz:.4g} in raw features",
        ]
        lines += compared(choice.points, choice.n_groups, choice.beta is not None)
        if self.calibration is not None:
            k = self.calibration
            lines.append(
                f"calibration    temperature {k.temperature:.3g}, held-out log-loss {k.log_loss:.4f}, ECE {k.ece:.3f}, "
                f"Brier {k.brier:.3f} ({k.n_pairs} pairs out of fold)"
            )
        return "\n".join(lines)
