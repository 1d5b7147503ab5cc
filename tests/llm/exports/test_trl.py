"""An exported reward model is read, and judged alike, by TRL's own trainer; where TRL is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl", reason="needs trl, in an environment of its own: pip install trl")

from cvxrelu_llm.exports.write import export_reward_model
from cvxrelu_llm.features.extract import extract
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.preferences.triples import load_triples


@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_reward_trainer_finds_our_margins(model: FeatureModel, model_folder: Path, tmp_path: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    words = ["area", "length", "width", "together", "Oregon", "please"]
    triples = load_triples([{"prompt": f"{w}?", "chosen": f"{w} a", "rejected": f"{v} b"}
                            for w, v in zip(words, reversed(words), strict=True)])  # fmt: skip
    settings: dict[str, Any] = {"layer": [1, 3], "pooling": ["last", "response_mean"], "prompt": "product"}
    features = extract(model, triples, **settings)
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(features)
    export_reward_model(head, model_folder, tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
    served = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", trust_remote_code=True, dtype=torch.float32
    )
    rows = Dataset.from_list([
        {"prompt": [m._asdict() for m in t.prompt], "chosen": [{"role": "assistant", "content": t.chosen}],
         "rejected": [{"role": "assistant", "content": t.rejected}]} for t in triples
    ])  # fmt: skip
    options = RewardConfig(str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, max_length=200)
    trainer = RewardTrainer(served, options, processing_class=tokenizer, train_dataset=rows, eval_dataset=rows)
    found = trainer.evaluate()
    margins = head.margins(features.X, features.pairs)
    assert found["eval_margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert found["eval_loss"] == pytest.approx(np.logaddexp(0, -margins).mean(), abs=1e-4)
    assert found["eval_accuracy"] == pytest.approx(np.mean(margins > 0))
