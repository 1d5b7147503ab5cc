"""How a reward head is fitted: ridge, beta, and the final program. `reward.ConvexRewardHead` builds on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cvxrelu
from cvxrelu import ReLUNetwork
from cvxrelu.support.checked_data import checked
from cvxrelu.support.entries import Fields, stored
from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write
from cvxrelu.support.stored import read_json
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.calibration import Calibration
from cvxrelu_llm.heads.data import data_hash
from cvxrelu_llm.heads.rule import Point
from cvxrelu_llm.heads.selection import (
    RIDGES,
    Choice,
    Rows,
    grouped_folds,
    hidden_layer,
    linear_direction,
    linear_network,
    make_folds,
    refuse_interrupted,
    select_beta,
    select_ridge,
    walk_ridges,
)  # fmt: skip
from cvxrelu_llm.heads.standardise import Standard, standardise

__all__ = ["HeadFitting"]


WIDE, DIRECTIONS = 128, 64  # with components="auto": more features than the first, and neurons see the second
SELECTION = 4  # of how the ridge is chosen and the path walked: a fit that another one began is not gone on with


class HeadFitting:
    """The part of a head that solves programs; its attributes are those of `ConvexRewardHead`."""

    options: dict[str, Any]
    data: PairFeatures | None
    margin: np.ndarray
    data_hash: str
    n_pairs: int
    n_groups: int
    feature_settings: dict[str, Any]
    standard: Standard
    choice: Choice
    calibration: Calibration | None
    standardised: ReLUNetwork
    network: ReLUNetwork
    solution: Any
    classifier_gap: float | None = None  # of phase I
    certificate: dict[str, Any]

    def _choose(self, features: PairFeatures, margin: np.ndarray, rows: Rows, work: Path | None) -> Choice:
        """Ridge and beta of the pairwise program."""
        o, total = self.options, float(features.weight.sum())
        beta = o["beta"]
        known = (features.pairs, features.weight, features.group)
        ridges = RIDGES if o["skip_l2"] == "auto" else (o["skip_l2"] / total,)
        tests = []
        if "auto" in (o["skip_l2"], beta) or len(np.unique(features.group)) >= 2:
            tests = grouped_folds(features.group, o["folds"], o["seed"])

        directions, reduced = self._components(features.X.shape[1]), self._reduces(features.X.shape[1])
        components = None if reduced else directions
        folds = make_folds(features.X, features.pairs, features.weight, margin, tests, components) if tests else []
        points: list[Point] = []
        skip_l2, linear = 0.0 if o["skip_l2"] == "auto" else float(o["skip_l2"]) * o["skip"], None
        if folds and o["skip"]:
            skip_l2, linear, points = select_ridge(folds, *known, ridges)
        if beta == np.inf:
            return Choice(skip_l2, None, points, linear)
        if beta != "auto":
            return Choice(skip_l2, float(beta), points, None)
        if reduced:  # around the linear model, which the neurons have to beat
            known_directions = [linear_direction(fold.made()[0], skip_l2 * fold.share) for fold in folds]
            folds = make_folds(features.X, *known[:2], margin, tests, directions, known_directions)
            direction = linear_direction(rows, skip_l2)
            self.standard = standardise(features.X, features.pairs.ravel(), directions, direction)
            rows = rows._replace(Z=self.standard.apply(features.X))
        largest = self._beta_max(rows, skip_l2)
        if largest == 0:
            return Choice(skip_l2, None, points, linear)
        found = select_beta(
            folds, *known, linear, largest, o["betas"], skip_l2, {**self._program(), "tol": o["path_tol"]}, o["select"],
            work,
        )  # fmt: skip
        return found._replace(points=[*points, *found.points])

    def _components(self, n_features: int) -> int | None:
        """How many directions the program sees; None for all features.

        What "auto" reduces are only neurons that the linear model of all features stands beside: nothing is lost that
        it has, a path through thousands of columns would take fifty times its time, and one through 384 that takes
        neurons took some thirty times as long as through 64 directions, for a held-out loss within 0.002 nats.
        """
        o = self.options
        if o["components"] != "auto":
            return o["components"]
        beside = o["mode"] == "pairwise" and o["skip"] and o["beta"] == "auto"
        return DIRECTIONS if beside and n_features > WIDE else None

    def _reduces(self, n_features: int) -> bool:
        """Whether neurons see a few directions only, one of which is the linear model's."""
        o, components = self.options, self._components(n_features)
        return components is not None and o["mode"] == "pairwise" and o["skip"] and o["beta"] == "auto"

    def _choose_last_layer(self, features: PairFeatures, margin: np.ndarray, rows: Rows, work: Path | None) -> Choice:
        """Phase I once per fold; the ridge of phase II by held-out log-loss."""
        o, total = self.options, float(features.weight.sum())
        if o["beta"] == "auto":
            data = np.concatenate([rows.Z[rows.pairs[:, 0]], rows.Z[rows.pairs[:, 1]]])
            labels = np.repeat([1.0, -1.0], len(rows.pairs))
            beta = 0.1 * cvxrelu.beta_max(
                data, labels, sample_weight=np.tile(rows.weight, 2), intercept=o["intercept"], seed=o["seed"]
            )
        else:
            beta = float(o["beta"])
        if o["l2"] != "auto":
            return Choice(float(o["l2"]), beta, [], None)
        tests = grouped_folds(features.group, o["folds"], o["seed"])
        components = self._components(features.X.shape[1])
        folds = make_folds(features.X, features.pairs, features.weight, margin, tests, components)
        parts = []
        for j, fold in enumerate(folds):
            (part, Z), test, share = fold.made(), fold.test, fold.share
            file = None if work is None else work / f"classifier-fold-{j:02d}.safetensors"
            network, _, _ = self._two_phase(part, beta * share, total * share, o["path_tol"], file)
            known, fresh = hidden_layer(network, part.Z), hidden_layer(network, Z)
            differences = known[part.pairs[:, 0]] - known[part.pairs[:, 1]]
            held_out = fresh[features.pairs[test, 0]] - fresh[features.pairs[test, 1]]
            parts.append((part, test, share, differences, held_out))

        def margins_at(ridge: float) -> np.ndarray:
            margins = np.zeros(len(margin))
            for part, test, share, differences, held_out in parts:
                last = cvxrelu.solve_logistic(
                    differences, l2=ridge * share, scale=o["scale"], margin=part.margin, sample_weight=part.weight,
                    tol=1e-5,
                )  # fmt: skip
                margins[test] = o["scale"] * (held_out @ last.theta)
            return margins

        blank = Point("two_phase", 0.0, beta, np.nan, 0.0, 0.0, 0.0, 0.0, np.nan, 0.0)
        ridges = [ridge * total for ridge in RIDGES]
        ridge, found, points = walk_ridges(margins_at, ridges, features.weight, features.group, blank)
        return Choice(ridge, beta, points, found)

    def _program(self) -> dict[str, Any]:
        o = self.options
        return {
            "skip": "linear" if o["skip"] else False, "intercept": o["intercept"], "seed": o["seed"],
            "time_limit": o["time_limit"],
        }  # fmt: skip

    def _beta_max(self, rows: Rows, skip_l2: float) -> float:
        given = {name: value for name, value in self._program().items() if name != "time_limit"}
        return cvxrelu.beta_max(
            rows.Z, loss="logistic", pairs=rows.pairs, sample_weight=rows.weight, margin=rows.margin, skip_l2=skip_l2,
            **given,
        )  # fmt: skip

    def _two_phase(
        self, rows: Rows, beta: float, l2: float, tol: float, file: Path | None
    ) -> tuple[ReLUNetwork, float, cvxrelu.LogisticSolution]:
        """(network of phase I, its gap, last layer); phase I is kept in `file`, and taken from there."""
        o = self.options
        record = None if file is None else file.with_suffix(".json")
        if file is not None and record is not None and file.exists():
            with stored(record, "the gap of a network of a fit"):
                network = ReLUNetwork.load(file)
                gap = Fields(read_json(record), "the record").number("gap", infinite=True)
            return network, gap, self._last_layer(network, rows, l2)
        with checked():
            phases = cvxrelu.two_phase(
                rows.Z, pairs=rows.pairs, beta=beta, l2=l2, scale=o["scale"], margin=rows.margin,
                sample_weight=rows.weight, intercept=o["intercept"], patterns=o["patterns"], refine=o["refine"],
                certificate="priced", tol=tol, time_limit=o["time_limit"], seed=o["seed"],
            )  # fmt: skip
        classifier = phases.classifier
        refuse_interrupted(classifier)
        gap = float(classifier.gap if classifier.sampled is None else classifier.sampled.gap)
        if file is not None and record is not None:
            value = gap if np.isfinite(gap) else str(gap)
            atomic_write(record, json.dumps({"gap": value}) + "\n")  # first: where the network is, the gap is too
            classifier.network.save(file)
        return classifier.network, gap, phases.last_layer

    def _last_layer(self, network: ReLUNetwork, rows: Rows, l2: float) -> cvxrelu.LogisticSolution:
        """Phase II as `cvxrelu.two_phase` solves it, on the hidden layer of `network`."""
        o, hidden = self.options, hidden_layer(network, rows.Z)
        return cvxrelu.solve_logistic(
            hidden[rows.pairs[:, 0]] - hidden[rows.pairs[:, 1]], l2=l2, scale=o["scale"], margin=rows.margin,
            sample_weight=rows.weight, time_limit=o["time_limit"], seed=o["seed"],
        )  # fmt: skip

    def _solve(self, rows: Rows, warm: ReLUNetwork | None, work: Path | None = None) -> None:
        """The final program, at what was chosen; `warm` is a standardised network to start from."""
        o, choice = self.options, self.choice
        if o["mode"] == "two_phase":
            assert choice.beta is not None
            if warm is None:
                file = None if work is None else work / "classifier.safetensors"
                frozen, self.classifier_gap, last = self._two_phase(rows, choice.beta, choice.skip_l2, o["tol"], file)
            else:  # an edit: the first layer stays frozen
                frozen, last = warm, self._last_layer(warm, rows, choice.skip_l2)
            # scores are in units of log-odds, whatever the scale
            network = ReLUNetwork(frozen.first_layer, o["scale"] * last.theta, frozen.hidden_bias)
            self.solution, program = last, "last layer, the first being frozen"
        elif choice.beta is None:
            last = cvxrelu.solve_logistic(
                rows.differences, l2=choice.skip_l2, margin=rows.margin, sample_weight=rows.weight,
                tol=min(1e-8, o["tol"]),
            )  # fmt: skip
            network, self.solution, program = linear_network(last.theta), last, "linear Bradley-Terry model"
        else:
            if warm is None and o["skip"]:
                warm = linear_network(np.zeros(rows.Z.shape[1]))
            with checked():
                self.solution = cvxrelu.solve(
                    rows.Z, beta=choice.beta, loss="logistic", pairs=rows.pairs, sample_weight=rows.weight,
                    margin=rows.margin, skip_l2=choice.skip_l2, tol=o["tol"], warm_start=warm, **self._program(),
                )  # fmt: skip
            network, program = self.solution.network, "network program"
        self.standardised = network
        raw = self.standard.fold_in(network)
        mean = float(raw.predict(self._training_rows()).mean())
        bias = np.asarray((0.0 if raw.bias is None else float(raw.bias)) - mean)
        self.network = ReLUNetwork(raw.first_layer, raw.second_layer, raw.hidden_bias, raw.skip, bias)
        proof = getattr(self.solution, "certificate", None)
        self.certificate = {
            "program": program, "status": self.solution.status.value, "message": self.solution.message,
            "objective": float(self.solution.objective),
            "lower_bound": float(self.solution.lower_bound), "gap": float(self.solution.gap),
            "kind": "dual" if proof is None else proof.kind, "rigorous": proof is None or proof.rigorous,
            "skip_l2": choice.skip_l2, "beta": choice.beta,
        }  # fmt: skip
        if self.classifier_gap is not None:
            self.certificate["classifier_gap"] = self.classifier_gap

    def _remember(self, features: PairFeatures, margin: np.ndarray) -> None:
        self.data, self.margin, self.data_hash = features, margin, data_hash(features, margin)
        self.n_pairs, self.n_groups = len(features.pairs), len(np.unique(features.group))

    def _training_rows(self) -> np.ndarray:
        assert self.data is not None
        return self.data.X[np.unique(self.data.pairs)].astype(np.float64)

    def _work_folder(self, folder: Path) -> Path:
        """`folder`, empty or of the same fit.

        It holds the networks along the path, and those do not depend on the rule that chooses among them (`select`);
        with two_phase the networks of phase I, each with its gap beside it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        mark = {
            "format": "cvxrelu-fit",
            "selection": SELECTION,
            "data": self.data_hash,
            "options": {name: value for name, value in _plain(self.options).items() if name != "select"},
        }
        file = folder / "fit.json"
        if os.path.lexists(file):
            with stored(file, "the record of a fit"):
                found = read_json(file)
            if found != mark:
                raise InputError(f"{folder}: holds a fit of other data or with other options; choose another folder")
        elif any(path.suffix == ".safetensors" for path in folder.iterdir()):
            raise InputError(f"{folder}: holds files that are not of a fit; choose another folder")
        else:
            atomic_write(file, (json.dumps(mark, indent=1) + "\n").encode())
        return folder


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back; infinity as a word."""
    return {name: "inf" if value == np.inf else value for name, value in options.items()}
