"""A language model with a linear-ReLU-linear reward on pooled hidden states, for `transformers`.

Written by cvxrelu beside the weights of an exported reward model; it needs `torch` and `transformers` only.
`config.reward_layers` are layers as in `output_hidden_states`, `config.reward_poolings` some of "last", "mean" (over
the tokens that are not padding) and "response_mean" (over those of the answer), all joined; with `config.reward_prompt`
"product" also their products with the state of the prompt's last token. `config.reward_answer_mark` are the tokens that
stand last before an answer, by which it is found. `config.reward_width` is the number of hidden units. Rewards were
fitted to answers alone: a mark that ends a turn, one of the token sequences in `config.reward_end_marks`, is not pooled
where it stands last. `config.reward_positions` says that positions are those of the tokens that are not padding, on
either side.
"""

from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class CvxreluRewardModel(PreTrainedModel):
    """`logits` (b, 1) are rewards; with `labels` nothing is computed, as reward trainers compute their own loss."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # which attention there is, the model inside knows
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = 1
        self.model = AutoModel.from_config(config)
        width = config.get_text_config().hidden_size * len(config.reward_layers) * len(config.reward_poolings)
        width *= 2 if config.reward_prompt == "product" else 1
        self.score = torch.nn.Sequential(
            torch.nn.Linear(width, config.reward_width),
            torch.nn.ReLU(),
            torch.nn.Linear(config.reward_width, 1),
        )
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        for name in ("return_dict", "output_hidden_states", "use_cache"):
            kwargs.pop(name, None)
        if self.config.reward_positions and attention_mask is not None and kwargs.get("position_ids") is None:
            # Counted over tokens only: left padding must not move a text away from the positions it was fitted at.
            kwargs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, use_cache=False,
            output_hidden_states=True, return_dict=True, **kwargs,
        )  # fmt: skip
        hidden = torch.stack([out.hidden_states[layer] for layer in self.config.reward_layers], dim=2)  # (b, s, L, D)
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = _without_padding_behind(input_ids, self.config.pad_token_id)
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], device=hidden.device)
        mask = attention_mask.to(hidden.device)
        if input_ids is not None:
            mask = _without_end_mark(input_ids, mask, self.config.reward_end_marks)
        starts: Any = None
        if self.config.reward_prompt == "product" or "response_mean" in self.config.reward_poolings:
            starts = _answers(input_ids, mask, self.config.reward_answer_mark).to(hidden.device)
        pooled = torch.stack([_pool(hidden, mask, pooling, starts) for pooling in self.config.reward_poolings], dim=2)
        rows: Any = pooled.flatten(1)
        if self.config.reward_prompt == "product":
            ends = hidden[torch.arange(len(hidden), device=hidden.device), starts - 1]  # (b, L, D)
            rows = torch.cat([rows, (pooled * ends[:, :, None]).flatten(1)], dim=1)
        return SequenceClassifierOutput(logits=self.score(rows.to(self.score[0].weight.dtype)))


def _pool(hidden: Any, mask: Any, pooling: str, starts: Any) -> Any:
    """(b, L, D) of states (b, s, L, D)."""
    if pooling == "last":
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = (positions * (mask > 0)).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    share = mask.to(hidden.dtype)
    if pooling == "response_mean":
        share = share * (torch.arange(mask.shape[1], device=mask.device) >= starts[:, None])
    return (hidden * share[:, :, None, None]).sum(dim=1) / share.sum(dim=1)[:, None, None]


def _answers(input_ids: Any, mask: Any, mark: Any) -> Any:
    """(b,) the column behind the last place where the answer mark stands."""
    if input_ids is None:
        raise ValueError("this reward model finds answers by their tokens; give input_ids, not inputs_embeds")
    width, found = len(mark), []
    if input_ids.shape[1] <= width:
        raise ValueError(f"text 0 has no answer: it is no longer than the tokens {list(mark)} that come before one")
    windows = input_ids.unfold(1, width, 1) == torch.as_tensor(mark, device=input_ids.device)
    for row, (here, kept) in enumerate(zip(windows.all(dim=2), mask, strict=True)):
        places = (here & (kept[: here.shape[0]] > 0)).nonzero()[:, 0]
        behind = int(places[-1]) + width if len(places) else kept.shape[0]
        if behind >= kept.shape[0] or not bool(kept[behind:].any()):
            raise ValueError(f"text {row} has no answer: nothing follows the tokens {list(mark)} that come before one")
        found.append(behind)
    return torch.as_tensor(found)


def _without_end_mark(input_ids: Any, mask: Any, marks: Any) -> Any:
    """`mask` without the first of `marks` that a row ends with; in causal models no other state has seen it."""
    mask = mask.clone()
    for row, kept in zip(input_ids, mask, strict=True):
        real = kept.nonzero()[:, 0]
        for mark in marks:
            if len(real) > len(mark) and row[real[-len(mark) :]].tolist() == list(mark):
                kept[real[-len(mark) :]] = 0
                break
    return mask


def _without_padding_behind(input_ids: Any, pad_token_id: int) -> Any:
    """1 up to the last token that is not padding."""
    real = (input_ids != pad_token_id).int()
    return (real.flip(1).cumsum(1).flip(1) > 0).long()
