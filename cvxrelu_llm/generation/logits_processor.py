"""Guided decoding inside `lm.generate`, for its streamers, stopping criteria and other processors.

    scorer = HiddenStateScorer(head, layer=-1, pooling="last")
    processor = GuidedLogitsProcessor(lm, scorer, max_new_tokens=64)
    lm.generate(input_ids, logits_processor=[processor], do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=64)

`generate` shows a processor neither its cache nor its hidden states. This one keeps a cache of its own, which the
candidates share; the model reads the text twice. `guide` reads it once, and draws the same tokens from the same seed.
"""

from __future__ import annotations

from typing import Any

from cvxrelu.support.checks import as_whole
from cvxrelu_llm.generation.decoding import end_tokens
from cvxrelu_llm.generation.guidance import Guidance, GuidedText, Sampling
from cvxrelu_llm.generation.kl import KLCost
from cvxrelu_llm.generation.scorers import Scorer, checked
from cvxrelu_llm.generation.states import Tensor, prefill

try:
    from transformers import LogitsProcessor
except ImportError as error:  # pragma: no cover
    raise ImportError("generation needs transformers: pip install 'cvxrelu[llm]'") from error

__all__ = ["GuidedLogitsProcessor"]


class GuidedLogitsProcessor(LogitsProcessor):
    """Replaces the logits of each step by those of guided decoding; one text, no beams.

    Pass `temperature`, `top_k` and `top_p` here, and 1.0, 0 and 1.0 to `generate`: what it cuts afterwards is not in
    the account. Made for one call of `generate`.

    Parameters
    ----------
    lm, scorer : as in `guide`.
    max_new_tokens : that of `generate`; a budget is divided over so many steps.
    sampling, guidance : options, as in `guide`.
    """

    def __init__(
        self,
        lm: Any,
        scorer: Scorer,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.lm, self.scorer = lm, scorer
        self.sampling, self.guidance = sampling or Sampling(), guidance or Guidance()
        self.max_new_tokens = as_whole("max_new_tokens", max_new_tokens)
        self.text: GuidedText | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if len(input_ids) != 1:
            raise ValueError(f"guided decoding writes one text at a time, got a batch of {len(input_ids)}")
        if self.text is None:
            state = prefill(self.lm, input_ids, layer=getattr(self.scorer, "layer", -1))
            ends = end_tokens(self.lm)
            self.text = GuidedText(state, self.scorer, self.sampling, self.guidance, self.max_new_tokens, ends=ends)
        else:
            self._catch_up(input_ids)
        return self.text.propose(scores[0])[None]

    def finish(self, tokens: Tensor) -> tuple[float, KLCost]:
        """Score and cost of the whole text, (1, n) as `generate` returned it, prompt included."""
        if self.text is None:
            raise RuntimeError("finish comes after generate; no step has been guided yet")
        self._catch_up(tokens)
        state = self.text.state
        return float(checked(self.scorer.score_tokens(state.tokens, state), 1)[0]), self.text.cost()

    def _catch_up(self, tokens: Tensor) -> None:
        """Advance by the token that `generate` drew, which must be the only new one."""
        assert self.text is not None
        known = self.text.state.tokens
        if tokens.shape[1] != known.shape[1] + 1 or not bool((tokens[:, :-1] == known).all()):
            raise ValueError("the text does not continue the one this processor has followed; make a new processor")
        self.text.advance(int(tokens[0, -1]))
