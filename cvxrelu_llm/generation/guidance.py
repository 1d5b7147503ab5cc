"""One step of guided decoding, and the account of what it costs.

The model's logits pass through temperature, top-k and top-p, in this order and as in transformers. At every `every`-th
step the `n_candidates` most probable tokens that are left become candidates: each extends the text, the scorer scores
the extended text, scores are scaled to [0, 1], and the next token is drawn from `q ~ p exp(scale * score)` over the
candidates. The other steps draw from p. Options of CVX-DPO and COALA: top-p 0.9, top-k 50, five candidates.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int

from cvxrelu.support.checks import as_bool, as_fraction, as_positive, as_whole
from cvxrelu_llm.generation import kl
from cvxrelu_llm.generation.scorers import Scorer, checked
from cvxrelu_llm.generation.states import LMState, Tensor, torch

__all__ = ["Guidance", "GuidedText", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How the model's own law is cut before anything else; checked when made.

    Attributes
    ----------
    do_sample : False takes the most probable token at every step.
    temperature : positive.
    top_k : number of most probable tokens kept, or None for all.
    top_p : smallest set of most probable tokens with at least this mass, after top-k; 1 or None for all.
    """

    do_sample: Any = True
    temperature: Any = 0.4
    top_k: Any = 50
    top_p: Any = 0.9

    def __post_init__(self) -> None:
        as_bool("do_sample", self.do_sample)
        as_positive("temperature", self.temperature)
        if self.top_k is not None:
            as_whole("top_k", self.top_k)
        if self.top_p is not None and self.top_p != 1:
            as_fraction("top_p", self.top_p)

    def warp(self, logits: Float[Tensor, "k V"]) -> Float[Tensor, "k V"]:
        """Logits divided by the temperature, -inf where a token was cut."""
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        unused = torch.empty(0, dtype=torch.int64)
        warped = TemperatureLogitsWarper(float(self.temperature))(unused, logits.float())
        if self.top_k is not None:
            warped = TopKLogitsWarper(self.top_k)(unused, warped)
        if self.top_p is not None and self.top_p < 1:
            warped = TopPLogitsWarper(float(self.top_p))(unused, warped)
        return warped

    def kept(self, logits: Float[Tensor, "V"], warped: Float[Tensor, "V"]) -> float:
        """`-log` of the mass that top-k and top-p left."""
        if not torch.isinf(warped).any():
            return 0.0
        full = (logits.float() / self.temperature).log_softmax(dim=-1)
        return max(-float(full[~torch.isinf(warped)].logsumexp(dim=-1)), 0.0)


@dataclass(frozen=True)
class Guidance:
    """How the scorer changes the law; checked when made.

    Attributes
    ----------
    scale : lambda, at least 0; the largest where a budget schedules it. 0 scores nothing.
    n_candidates : tokens scored at a guided step, or None for all that top-k and top-p left.
    every : guide one step in so many.
    kl_budget : nats that tilting may cost over the whole text, or None. Needs `do_sample`.
    schedule : "bound" or "exact", see `kl.Budget`.
    normalise : scale the candidates' scores to [0, 1] at every step; False tilts by the scores themselves.
    """

    scale: Any = 1.0
    n_candidates: Any = 5
    every: Any = 1
    kl_budget: Any = None
    schedule: Any = "bound"
    normalise: Any = True

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or self.scale != 0:
            as_positive("scale", self.scale)
        if self.n_candidates is not None:
            as_whole("n_candidates", self.n_candidates)
        as_whole("every", self.every)
        if self.kl_budget is not None:
            as_positive("kl_budget", self.kl_budget)
        if self.schedule not in ("bound", "exact"):
            raise ValueError(f"schedule must be 'bound' or 'exact', got {self.schedule!r}")
        as_bool("normalise", self.normalise)


class GuidedText:
    """A text being written: `ask`, `answer` give the law of the next token, `advance` appends the token drawn from it.

    state : the model's after the prompt, one row; later after all but a token that ends the text.
    scorer : None where nothing is guided.
    max_new_tokens : length to divide the budget over.
    ends : tokens that end a text; none is drawn first.
    """

    def __init__(
        self,
        state: LMState,
        scorer: Scorer | None,
        sampling: Sampling,
        guidance: Guidance,
        max_new_tokens: int,
        *,
        ends: Set[int] = frozenset(),
    ) -> None:
        if guidance.kl_budget is not None and not sampling.do_sample:
            raise ValueError("kl_budget needs do_sample=True: taking the most probable token has no bound")
        self.state, self.scorer, self.sampling, self.guidance, self.ends = state, scorer, sampling, guidance, ends
        n_guided = -(-max_new_tokens // guidance.every)
        self.budget = kl.Budget(float(guidance.scale), n_guided, guidance.kl_budget, guidance.schedule)
        self.tilting = self.candidates = self.truncation = 0.0
        self._step = 0
        self._branch: tuple[list[int], LMState] | None = None

    def propose(self, logits: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
        """`answer` to `ask`, whose candidates are read by the model on the way."""
        ids = self.ask(logits)
        return self.answer(None if ids is None else self.state.extend(ids[:, None]))

    def ask(self, logits: Float[Tensor, "V"]) -> Int[Tensor, "k"] | None:
        """The candidates, which `answer` wants read; None at a step without guidance.

        logits : those of the model for this step, unless something else has changed them already.
        """
        warped = self.sampling.warp((without(logits, self.ends) if self._step == 0 else logits)[None])[0]
        self.truncation += self.sampling.kept(logits, warped)
        guided = self.guidance.scale > 0 and self._step % self.guidance.every == 0
        self._step += 1
        self._untilted = warped
        if not guided:
            return None
        finite = int((~torch.isinf(warped)).sum())
        values, ids = warped.topk(min(self.guidance.n_candidates or finite, finite))
        self.candidates += max(float(warped.logsumexp(-1) - values.logsumexp(-1)), 0.0)
        self._untilted = torch.full_like(warped, -torch.inf)
        self._untilted[ids] = values
        return ids

    def answer(self, branch: LMState | None) -> Float[Tensor, "V"]:
        """Logits of the next token's law, -inf where it cannot be.

        branch : the state of all candidates, each after the text so far; None at a step without guidance.
        """
        if branch is None or self.scorer is None:
            return self._untilted
        ids = branch.tokens[:, -1]
        self._branch = (ids.tolist(), branch)
        scores = checked(self.scorer.score_tokens(branch.tokens, branch), len(ids))
        ending = [i for i, token in enumerate(ids.tolist()) if token in self.ends]
        if ending:
            scores[ending] = checked(self.scorer.score_tokens(self.state.tokens, self.state), 1)[0]
        if self.guidance.normalise:
            scores = kl.min_max(scores)
        p = self._untilted[ids].cpu().double().softmax(dim=-1).numpy()  # not every device has float64
        scale = self.budget.next_scale(p, scores)
        if self.sampling.do_sample:
            self.tilting += kl.divergence(kl.tilt(p, scores, scale), p)
        law = self._untilted.clone()
        law[ids] += torch.as_tensor(scale * scores, dtype=law.dtype, device=law.device)
        return law

    def advance(self, token: int, read: LMState | None = None) -> None:
        """Append a token of the law answered last.

        read : the state after it, where there was no guidance; None leaves it to the model.
        """
        if not self.sampling.do_sample:  # a point mass costs the surprise of its token
            before = self._untilted
            self.tilting += max(float(before.logsumexp(-1) - before[token]), 0.0)
        if token in self.ends:
            self._branch = None
        elif self._branch is None:
            tokens = torch.full((1, 1), token, device=self.state.tokens.device)
            self.state = self.state.extend(tokens) if read is None else read
        else:
            (ids, branch), self._branch = self._branch, None
            self.state = branch.select([ids.index(token)])

    def cost(self) -> kl.KLCost:
        """The account so far."""
        sampled = self.sampling.do_sample
        return kl.KLCost(
            kind="bound" if sampled else "none",
            nats=self.budget.spent if sampled else None,
            tilting=self.tilting,
            candidates=self.candidates,
            truncation=self.truncation,
            budget=self.guidance.kl_budget,
        )


def without(logits: Tensor, tokens: Set[int]) -> Tensor:
    """Logits of the law that never draws these tokens: an answer has at least one token before its end."""
    cut = logits.clone()
    cut[..., sorted(tokens)] = -torch.inf
    return cut
