"""Policies and reward models trained by TRL's own trainers, and DPO with a convex head inside.

Everything is TRL's default but what `METHODS` names: three epochs, eight pairs a step, AdamW with linear decay,
bfloat16 autocast where the machine has arithmetic for it (a processor of AVX2 alone takes sixty times as long for a
product as in float32, which it gets instead), gradients recomputed to save memory (for DPO; elsewhere not, which
changes no number but costs less).
"""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any

import numpy as np

from bench.comparison.cost import Cost, measured
from bench.comparison.tasks import conversations
from cvxrelu_llm.exports.write import to_torch
from cvxrelu_llm.features.reference import reference_log_ratios
from cvxrelu_llm.heads.data import as_pair_features
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.torch_models import computes_bfloat16
from cvxrelu_llm.preferences.triples import Triple, Triples

__all__ = ["ABLATION", "METHODS", "Trained", "margins_of", "options_of", "train"]

METHODS: dict[str, dict[str, Any]] = {
    "DPO": {"trainer": "DPO", "gradient_checkpointing": True},
    "DPO, one epoch": {"trainer": "DPO", "learning_rate": 3e-5, "num_train_epochs": 1},
    "DPO, rate 1e-5": {"trainer": "DPO", "learning_rate": 1e-5},
    "DPO, rate 3e-5": {"trainer": "DPO", "learning_rate": 3e-5},
    "DPO, rate 9e-5": {"trainer": "DPO", "learning_rate": 9e-5},
    "DPO, LoRA": {"trainer": "DPO", "learning_rate": 3e-4, "lora": True},
    "DPO-Convex": {"trainer": "DPO", "learning_rate": 3e-5, "convex": True},
    "SimPO": {"trainer": "CPO", "learning_rate": 3e-5, "loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0},
    "ORPO": {"trainer": "ORPO", "learning_rate": 3e-5},
    "SFT": {"trainer": "SFT"},
    "reward model": {"trainer": "Reward"},
    "reward model, LoRA": {"trainer": "Reward", "learning_rate": 1e-3, "lora": True},
}
ABLATION: dict[str, dict[str, Any]] = {  # of both, at half the pairs: temperature of the loss, pairs a step
    f"{name}, {said}": METHODS[name] | change
    for name in ("DPO, rate 3e-5", "DPO-Convex")
    for said, change in (
        ("beta 0.03", {"beta": 0.03}), ("beta 0.3", {"beta": 0.3}),
        ("batch 4", {"per_device_train_batch_size": 4}), ("batch 16", {"per_device_train_batch_size": 16}),
    )
}  # fmt: skip
REFIT, WEIGHT = 10, 0.5  # of DPO-Convex: steps between fits of the head, weight of its loss


def options_of(name: str) -> dict[str, Any]:
    """What a method changes of TRL's defaults."""
    return METHODS[name] if name in METHODS else ABLATION[name]


class Trained:
    """A trained model, what it cost, and TRL's log of it. `reward`: it scores texts and cannot write them."""

    def __init__(self, name: str, model: Any, tokenizer: Any, cost: Cost, log: list[dict[str, Any]]) -> None:
        self.name, self.model, self.tokenizer, self.cost, self.log = name, model, tokenizer, cost, log
        self.reward = options_of(name)["trainer"] == "Reward"
        self.beta = options_of(name).get("beta", 0.1)


def train(name: str, folder: str, triples: Triples, seed: int, noise: float) -> Trained:
    """`name` of `METHODS` on these pairs, a share `noise` of them turned round."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    options = {"gradient_checkpointing": False} | options_of(name)
    kind, lora, convex = options.pop("trainer"), options.pop("lora", False), options.pop("convex", False)
    torch.manual_seed(seed)
    cost: Cost = {}
    with tempfile.TemporaryDirectory() as out, measured(cost):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if kind == "Reward":
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32", num_labels=1)
            model.config.pad_token_id = tokenizer.pad_token_id
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        trainer_class, config_class = trainer_of(kind)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        config = config_class(
            out, report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=1, seed=seed,
            use_cpu=device == "cpu", bf16=computes_bfloat16(device), **options,
        )  # fmt: skip
        task = TaskType.SEQ_CLS if kind == "Reward" else TaskType.CAUSAL_LM
        more: dict[str, Any] = {"peft_config": LoraConfig(task_type=task, r=16, lora_alpha=32)} if lora else {}
        rows = turned_round(conversations(triples), noise, seed)
        if kind == "SFT":
            rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
        trainer = trainer_class(
            model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more
        )
        if convex:
            add_head(trainer)
        trainer.train()
        # without the autocast that training wraps it in: what is measured afterwards is in float32, as of all models
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        if lora:
            trained = trained.merge_and_unload()
    log = [{k: float(v) for k, v in row.items() if is_number(v)} for row in trainer.state.log_history]
    cost["arithmetic"] = "bfloat16" if config.bf16 else "float32"
    cost["tokens"] = int(max((row.get("num_tokens", 0) for row in log), default=0)) or None
    return Trained(name, trained.eval().requires_grad_(False).float(), tokenizer, cost, log)


def trainer_of(kind: str) -> tuple[Any, Any]:
    """Trainer and configuration; ORPO, CPO and SimPO are kept in TRL's experimental part."""
    if kind == "CPO":
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        return CPOTrainer, CPOConfig
    if kind == "ORPO":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOTrainer, ORPOConfig
    import trl

    return getattr(trl, f"{kind}Trainer"), getattr(trl, f"{kind}Config")


def turned_round(rows: list[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """The rows, `chosen` and `rejected` exchanged in a share of them."""
    turned = set(np.random.default_rng(seed).permutation(len(rows))[: round(share * len(rows))].tolist())
    return [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if i in turned else row
        for i, row in enumerate(rows)
    ]


def is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def add_head(trainer: Any) -> None:
    """DPO-Convex: the loss of a convex head on the policy's own states is added to that of DPO.

        loss = DPO + WEIGHT mean_i -log sigmoid(s(h_i^chosen) - s(h_i^rejected)),   h = mean last state of the answer

    s is `ConvexRewardHead()` fitted every `REFIT` steps to the states of the pairs seen in the last `REFIT`, and held
    fixed in between; gradients reach the policy through h. The papers say only that the head's
    reward "enters the loss"; this formula is ours.
    """
    import torch

    states: list[Any] = []
    known: list[tuple[np.ndarray, np.ndarray]] = []
    head: list[Any] = []
    policy, of_dpo = trainer.accelerator.unwrap_model(trainer.model), trainer._compute_loss
    policy.model.norm.register_forward_hook(lambda module, given, out: states.append(out))
    window = REFIT * trainer.args.per_device_train_batch_size

    def loss_of(model: Any, inputs: Any, return_outputs: bool) -> Any:
        states.clear()
        found = of_dpo(model, inputs, return_outputs)
        mask = inputs["completion_mask"].to(states[0].dtype)[..., None]
        pooled = (states[0] * mask).sum(1).float() / mask.sum(1).float()
        chosen, rejected = pooled.chunk(2)
        known.extend(zip(chosen.detach().cpu().numpy(), rejected.detach().cpu().numpy(), strict=True))
        del known[:-window]
        if len(known) >= window and trainer.state.global_step % REFIT == 0:
            rows = np.array(known, dtype=np.float64).reshape(2 * len(known), -1)
            fitted = ConvexRewardHead().fit(as_pair_features(rows, np.arange(len(rows)).reshape(-1, 2)))
            head[:] = [to_torch(fitted).to(pooled.device)]
        if not head:
            return found
        loss, rest = found if return_outputs else (found, None)
        loss = loss + WEIGHT * torch.nn.functional.softplus(head[0](rejected) - head[0](chosen)).mean()
        return (loss, rest) if return_outputs else loss

    trainer._compute_loss = loss_of


def margins_of(trained: Trained, base: np.ndarray, triples: Triples) -> np.ndarray:
    """Reward of the chosen answer minus that of the rejected one, by TRL's definitions.

    reward model   r(prompt, answer)
    DPO, SFT       beta log(policy / base), summed over the answer's tokens
    SimPO, ORPO    beta log(policy), averaged over them
    """
    if trained.reward:
        return reward_margins(trained, triples)
    per_token = options_of(trained.name)["trainer"] in ("CPO", "ORPO")
    found = reference_log_ratios(trained.model, trained.tokenizer, triples, per_token=per_token)
    return trained.beta * (found if per_token else found - base)


def reward_margins(trained: Trained, triples: Triples) -> np.ndarray:
    import torch

    def reward(triple: Triple, answer: str) -> float:
        said = [m._asdict() for m in triple.prompt] + [{"role": "assistant", "content": answer}]
        ids = trained.tokenizer.apply_chat_template(said, return_dict=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(trained.model(input_ids=ids.to(trained.model.device)).logits[0, 0])

    return np.array([reward(t, t.chosen) - reward(t, t.rejected) for t in triples])
