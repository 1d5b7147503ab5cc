"""The figures of the benchmarks of alignment, on made-up texts and margins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from bench.alignment import labels, maps
from bench.steering import run as steering


def text(tokens: list[int], nats: float, score: float = 0.5) -> dict[str, Any]:
    kl = {"kind": "bound", "nats": 9.0, "tilting": nats, "candidates": 0.5, "truncation": 0.0, "budget": None}
    return {"text": "a", "tokens": tokens, "score": score, "kl": kl, "finished": True, "forward_passes": 3,
            "tokens_read": 30}  # fmt: skip


def test_figures_of_steering() -> None:
    texts = [text([1, 2, 3, 1, 2, 3, 1, 2, 3], 1.0), text([4, 5, 6, 7], 3.0)]
    way = steering.Way("guided, rewards times 4", 1.0, lambda prompt, seed: None)  # type: ignore[arg-type,return-value]
    found = steering.figures(way, texts, np.array([0.9, 0.8]), np.array([0.2, 0.7]))
    assert (found["positive"], found["gain"], found["nats"]) == (1.0, 0.5, 2.5)  # 1 and 0; with what candidates cost
    assert found["gain_error"] == pytest.approx(1.96 / 2**0.5 * np.std([1, 0], ddof=1))
    assert found["repeated 3-grams"] == pytest.approx(0.5 * (1 - 3 / 7))
    assert found["distinct 2-grams"] == pytest.approx((3 + 3) / (8 + 3))
    plain = {**found, "way": "plain", "gain": 0.0, "positive": 0.5, "nats": 0.0}
    best = {**found, "way": "best of 5", "nats": None, "nats_bound": 0.81}
    result = {"task": "sentiment", "model": "m", "prompts": 2, "pairs": 5, "tokens": 9, "judge accuracy": 0.8,
              "neurons": 0, "rows": [plain, best, found]}  # fmt: skip
    page = steering.table([result])
    assert "| guided, rewards times 4 | 1 | 1.00 | +0.50" in page and "| at most 0.8 |" in page


def test_the_frontier_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(steering, "FIGURES", tmp_path)
    rows = [{"way": name, "temperature": 1.0, "positive": share, "gain_error": 0.1, "nats": nats, "nats_bound": bound}
            for name, share, nats, bound in (("plain", 0.5, 0.0, None), ("best of 5", 0.8, None, 0.8),
                                             ("guided, rewards times 4", 0.9, 5.0, None))]  # fmt: skip
    steering.draw([{"task": "sentiment", "rows": rows}])
    assert "<svg" in (tmp_path / "steering.svg").read_text()


def test_rows_of_feature_maps() -> None:
    margins = {name: np.array([1.0, -0.5, 2.0, 0.3]) for name in maps.FITS}
    margins["single, head"] = np.array([0.5, -0.5, 2.0, 0.3])
    row = maps.row_of("single, head", margins, np.arange(4), [{"neurons": 0, "seconds": 1.0}])
    difference = np.mean(np.logaddexp(0, -margins["single, head"]) - np.logaddexp(0, -margins["joined, head"]))
    assert row["minus joined, head"]["value"] == pytest.approx(difference) and row["accuracy"]["value"] == 0.75
    result = {"model": "m", "data": "d", "pairs": 4, "chosen": {"joined": ["layer 1", "layer 1"]}, "rows": [row]}
    assert "layer 1 (2)" in maps.table([json.loads(json.dumps(result))])


def test_labels_needed() -> None:
    result = {"sizes": [20, 40, 60], "all": [0.9, 0.3], "suggest": [[0.895, 0.4], [0.88, 0.4], [0.9, 0.4]],
              "random": [[0.5, 0.6], [0.6, 0.6], [0.7, 0.5]]}  # fmt: skip
    assert labels.needed(result, "suggest") == "60"  # it has to stay there
    assert labels.needed(result, "random") == "more than 60"
