"""A reward head for other programs: PyTorch, ONNX, reward models of transformers and TRL, Qwen2 reward models.

All but the first write a linear-ReLU-linear network. A linear part needs two more hidden units, and no approximation:

    x @ theta = (x @ theta)_+ - (-x @ theta)_+

| function | what is written | parity |
|---|---|---|
| `to_torch` | a module, features to rewards | tested |
| `export_onnx` | a graph, features to rewards | tested with ONNX' own reference evaluator |
| `export_reward_model` | a folder for `AutoModelForSequenceClassification.from_pretrained` | tested in transformers |
| `export_sequence_classifier` | the same without code of its own, for linear heads | tested in transformers |
| `export_qwen2_reward_model` | `Qwen2ForRewardModel`, as vLLM and SGLang serve it | arithmetic tested, servers not |
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu import ReLUNetwork
from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write, new_folder
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.feature_map import FeatureMap
from cvxrelu_llm.models.torch_models import counts_positions

__all__ = [
    "export_onnx",
    "export_qwen2_reward_model",
    "export_reward_model",
    "export_sequence_classifier",
    "linear_relu_linear",
    "to_torch",
]

MODELING = "modeling_cvxrelu_reward"


def linear_relu_linear(
    network: ReLUNetwork, width: int | None = None
) -> tuple[Float[np.ndarray, "h d"], Float[np.ndarray, " h"], Float[np.ndarray, " h"], float]:
    """(W, b, a, c) with f(x) = a @ relu(W x + b) + c, the skip included; padded with zeros to `width` hidden units."""
    d, m = network.first_layer.shape
    W, a = [network.first_layer.T], [network.second_layer]
    b = [np.zeros(m) if network.hidden_bias is None else network.hidden_bias]
    if network.skip is not None:
        # what the linear part does to a typical input is large and cancels with the bias: leave it where it is, and let
        # relu split it
        W += [network.skip[None], -network.skip[None]]
        a, b = [*a, np.array([1.0, -1.0])], [*b, np.zeros(2)]
    weights, outer, bias = np.concatenate(W), np.concatenate(a), np.concatenate(b)
    missing = (1 if width is None else width) - len(outer)
    if width is not None and missing < 0:
        raise InputError(f"the head needs {len(outer)} hidden units, but only {width} fit")
    if missing > 0:
        weights = np.concatenate([weights, np.zeros((missing, d))])
        outer, bias = np.concatenate([outer, np.zeros(missing)]), np.concatenate([bias, np.zeros(missing)])
    return weights, bias, outer, 0.0 if network.bias is None else float(network.bias)


def to_torch(head: ConvexRewardHead | ReLUNetwork, dtype: str = "float32") -> Any:
    """`torch.nn.Sequential(Linear, ReLU, Linear)` from features (n, D) to rewards (n, 1)."""
    network = head if isinstance(head, ReLUNetwork) else head.network
    return network.to_torch(dtype)


def export_onnx(head: ConvexRewardHead | ReLUNetwork, path: str | Path, *, overwrite: bool = True) -> Path:
    """An ONNX graph, opset 17, float32: input `features` (n, D), output `rewards` (n,). Needs `onnx`."""
    network = head if isinstance(head, ReLUNetwork) else head.network
    return network.to_onnx(path, names=("features", "rewards"), overwrite=overwrite)


def export_reward_model(
    head: ConvexRewardHead, model: Any, folder: str | Path, *, gguf_file: str | None = None
) -> Path:
    """A folder that `AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` loads.

    It holds the language model, the head, the tokenizer, and the few lines of code that put them together; TRL takes
    such models as `reward_funcs` or as a reward model. Texts have to be passed as the head was fitted on them: prompt
    by the template in its settings, then the answer. The mark that the chat template puts behind an answer, or an end
    token, is not pooled where a text ends with it, as texts of TRL do (causal models; an encoder's end is pooled). A
    tokenizer without padding token gets its end token.

    Parameters
    ----------
    model : folder or name of the language model that the features are of; another one raises InputError.
    folder : new, written as a whole.
    """
    import torch
    from transformers import AutoTokenizer

    from cvxrelu_llm.exports import modeling_cvxrelu_reward as code

    read = FeatureMap.of(head.feature_settings)
    base, source, keywords = _base_model(head, model, gguf_file)
    W, b, a, c = linear_relu_linear(head.network)
    config = base.config
    config.reward_layers, config.reward_poolings = list(read.layers), list(read.poolings)
    config.reward_prompt, config.reward_width = read.prompt, len(b)
    config.num_labels, config.architectures = 1, [code.CvxreluRewardModel.__name__]
    config.auto_map = {"AutoModelForSequenceClassification": f"{MODELING}.{code.CvxreluRewardModel.__name__}"}
    tokenizer = AutoTokenizer.from_pretrained(source, **keywords)
    config.reward_end_marks = _end_marks(tokenizer)
    needed = read.prompt != "read" or "response_mean" in read.poolings
    config.reward_answer_mark = _answer_mark(tokenizer, head.feature_settings, read) if needed else []
    config.reward_positions = counts_positions(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    whole = code.CvxreluRewardModel(config).to(base.dtype)
    whole.model.load_state_dict(base.state_dict())
    whole.score.to(torch.float32).load_state_dict(_state(W, b, a, c))
    with new_folder(_new(folder)) as work:
        whole.save_pretrained(work)
        tokenizer.save_pretrained(work)
        shutil.copyfile(code.__file__, work / f"{MODELING}.py")
    return Path(folder)


def export_sequence_classifier(
    head: ConvexRewardHead, model: Any, folder: str | Path, *, gguf_file: str | None = None
) -> Path:
    """A linear head as the stock `...ForSequenceClassification` of its model, which needs no code beside the weights.

    For heads without neurons on the last layer with pooling "last". Such models have no bias: rewards are shifted by
    `config.reward_bias`, which no comparison sees.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base, source, keywords = _base_model(head, model, gguf_file)
    settings, network, config = head.feature_settings, head.network, base.config
    if network.n_neurons or network.skip is None:
        raise InputError(f"a stock classifier is linear, the head has {head.n_neurons} neurons; fit with beta=inf")
    found = (settings.get("layer"), settings.get("pooling"), settings.get("prompt", "read"))
    if found != (config.num_hidden_layers, "last", "read"):
        raise InputError(
            f"a stock classifier reads the last token of the last layer, {config.num_hidden_layers}; the head reads "
            f"{settings.get('pooling')!r} of layer {settings.get('layer')}"
        )
    tokenizer = AutoTokenizer.from_pretrained(source, **keywords)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"  # the stock class counts padding on the left as positions
    config.num_labels, config.reward_bias = 1, 0.0 if network.bias is None else float(network.bias)
    whole = AutoModelForSequenceClassification.from_config(config).to(base.dtype)
    getattr(whole, whole.base_model_prefix).load_state_dict(base.state_dict())
    with torch.no_grad():
        whole.score.weight.copy_(torch.tensor(network.skip[None]))
    with new_folder(_new(folder)) as work:
        whole.save_pretrained(work)
        tokenizer.save_pretrained(work)
    return Path(folder)


def export_qwen2_reward_model(
    head: ConvexRewardHead, model: Any, folder: str | Path, *, gguf_file: str | None = None
) -> Path:
    """Weights and configuration of `Qwen2ForRewardModel`: `score` is Linear(D, D), ReLU, Linear(D, 1).

    vLLM and SGLang build that architecture from a Qwen2 configuration of that name. The head must be on the last layer
    with pooling "last", and needs at most D hidden units, two of them for its linear part. vLLM returns a reward for
    every token, of which the last is the head's; SGLang returns the last. Texts end without an end-of-turn mark.
    The arithmetic is tested; the servers themselves are not.
    """
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    base, source, keywords = _base_model(head, model, gguf_file)
    config, settings = base.config, head.feature_settings
    if config.model_type != "qwen2":
        raise InputError(f"Qwen2 reward models need a Qwen2 model, got {config.model_type!r}")
    found = (settings.get("layer"), settings.get("pooling"), settings.get("prompt", "read"))
    if found != (config.num_hidden_layers, "last", "read"):
        raise InputError(
            f"served reward models read the last token of the last layer, {config.num_hidden_layers}; the head reads "
            f"{settings.get('pooling')!r} of layer {settings.get('layer')}"
        )
    W, b, a, c = linear_relu_linear(head.network, config.hidden_size)
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in base.state_dict().items()}
    weights |= {f"score.{name}": tensor.to(base.dtype) for name, tensor in _state(W, b, a, c).items()}
    record = config.to_dict() | {"architectures": ["Qwen2ForRewardModel"], "num_labels": 1}
    record["id2label"], record["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
    with new_folder(_new(folder)) as work:
        save_file(weights, work / "model.safetensors", metadata={"format": "pt"})
        atomic_write(work / "config.json", (json.dumps(record, indent=1, default=str) + "\n").encode())
        AutoTokenizer.from_pretrained(source, **keywords).save_pretrained(work)
    return Path(folder)


def _answer_mark(tokenizer: Any, settings: Mapping[str, Any], read: FeatureMap) -> list[int]:
    """Tokens that a chat template puts last before an answer, by which a reward model finds where it begins."""
    if settings.get("template") == "chat" and getattr(tokenizer, "cls_token_id", None) is None:
        turn = [{"role": "user", "content": "question"}]
        before = tokenizer.apply_chat_template(turn, tokenize=False)
        whole = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        mark = list(tokenizer(whole.removeprefix(before), add_special_tokens=False)["input_ids"])
        tokens = list(tokenizer(whole, add_special_tokens=False)["input_ids"])
        if whole.startswith(before) and mark and tokens[-len(mark) :] == mark:
            return mark
    raise InputError(
        "a sequence classifier sees no prompt length, and only a chat template says where an answer begins; the head "
        f"is on {read}, template {settings.get('template')!r}: fit one on poolings 'last' or 'mean', prompt 'read'"
    )


def _end_marks(tokenizer: Any) -> list[list[int]]:
    """Tokens that may stand behind an answer that has ended, the longest first; none of encoders."""
    if getattr(tokenizer, "cls_token_id", None) is not None:
        return []
    marks = [] if tokenizer.eos_token_id is None else [[tokenizer.eos_token_id]]
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "ANSWER"}]
        behind = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("ANSWER")[2]
        marks.append(list(tokenizer(behind, add_special_tokens=False)["input_ids"]))
    return sorted((mark for mark in marks if mark), key=len, reverse=True)


def _state(W: np.ndarray, b: np.ndarray, a: np.ndarray, c: float) -> dict[str, Any]:
    import torch

    values = {"0.weight": W, "0.bias": b, "2.weight": a[None], "2.bias": np.array([c])}
    return {name: torch.tensor(value, dtype=torch.float32).contiguous() for name, value in values.items()}


def _base_model(head: ConvexRewardHead, model: Any, gguf_file: str | None) -> tuple[Any, str, dict[str, Any]]:
    """The language model without head, checked against the fingerprint, and where its tokenizer is."""
    from cvxrelu_llm.models.load import load_model

    loaded = load_model(model, gguf_file=gguf_file, dtype=head.feature_settings.get("dtype"), device="cpu")
    head.check_model(loaded)
    source, keywords = str(model), {} if gguf_file is None else {"gguf_file": gguf_file}
    if source.endswith(".gguf"):
        source, keywords = str(Path(source).parent), {"gguf_file": Path(source).name}
    base = loaded.network.requires_grad_(True)  # type: ignore[attr-defined]
    if hasattr(base.config, "quantization_config"):  # of the file it was read from; the weights are plain by now
        del base.config.quantization_config
    return base, source, keywords


def _new(folder: str | Path) -> Path:
    folder = Path(folder)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; expected the name of a new folder, or an empty one")
    return folder
