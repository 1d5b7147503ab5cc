"""Generation: guided by a scorer, plainly sampled, or the best of n; every text comes with what it cost.

An answer has at least one token: what ends a text is never drawn first.

`guide` writes token by token (`guidance`), reading the candidates with the cache of the text so far: a guided step is
one forward pass of as many tokens as there are candidates, and the chosen one needs no pass of its own. `guide_batch`
does so for several prompts side by side. `sample` draws n texts of one prompt side by side, `best_of_n` keeps the one
with the highest score.

Sources: ARGS (Khanov, Burapacheep & Li, ICLR 2024), for decoding with a reward added to the logits of few candidates;
CVX-DPO and COALA (Feng & Pilanci), for its use with a convex head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any

from cvxrelu.support.checks import as_seed, as_whole
from cvxrelu_llm.generation.guidance import Guidance, GuidedText, Sampling, without
from cvxrelu_llm.generation.kl import KLCost, best_of_n_bound
from cvxrelu_llm.generation.scorers import Scorer, as_tokens, checked
from cvxrelu_llm.generation.side_by_side import SideBySide
from cvxrelu_llm.generation.states import LMState, Tensor, Usage, prefill, torch
from cvxrelu_llm.models.templates import turn_end

__all__ = ["Generation", "best_of_n", "end_tokens", "guide", "guide_batch", "sample"]


@dataclass(frozen=True)
class Generation:
    """One text and what it cost.

    Attributes
    ----------
    text : decoded without special tokens.
    tokens : ids of the new tokens, the end token included if one was drawn.
    score : the scorer's number for prompt and `tokens`, a token that ends the text left out; None without a scorer.
    kl : cost in nats, see `KLCost`; its `kind` says whether `nats` is a bound, an estimate, or missing.
    finished : whether an end token was drawn before `max_new_tokens`.
    forward_passes, tokens_read : passes of the model, and tokens that went through it, prompt included.
    """

    text: str
    tokens: tuple[int, ...]
    score: float | None
    kl: KLCost
    finished: bool
    forward_passes: int
    tokens_read: int

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**vars(self), "tokens": list(self.tokens), "kl": self.kl._asdict()}


def guide(
    lm: Any,
    tokenizer: Any,
    prompt: Any,
    scorer: Scorer,
    *,
    scale: float = 1.0,
    n_candidates: int | None = 5,
    every: int = 1,
    kl_budget: float | None = None,
    schedule: str = "bound",
    normalise: bool = True,
    do_sample: bool = True,
    temperature: float = 0.4,
    top_k: int | None = 50,
    top_p: float | None = 0.9,
    max_new_tokens: int = 128,
    seed: int = 0,
    template: str = "auto",
) -> Generation:
    """One text, drawn at every `every`-th step from `q ~ p exp(scale * score)` over a few candidates.

    Parameters
    ----------
    lm, tokenizer : a causal language model of transformers, and its tokenizer.
    prompt : a text, chat messages, or token ids.
    scorer : see `Scorer`; `HiddenStateScorer(head, layer=, pooling=)` applies a head to pooled hidden states.
    scale, n_candidates, every, kl_budget, schedule, normalise : see `Guidance`.
    do_sample, temperature, top_k, top_p : see `Sampling`.
    max_new_tokens : tokens to write at most.
    seed : of the draws. With scale 0 they are those of `lm.generate` after `torch.manual_seed(seed)`.
    template : "auto", "chat" or "plain", see `as_tokens`; that of the features the head was fitted on.

    Returns
    -------
    Generation. `kl.nats` bounds the cost of tilting relative to the model *after* temperature, top-k, top-p and choice
    of candidates, `scale^2 / 8` a guided step; with a `kl_budget` no text exceeds it. `kl.candidates` and
    `kl.truncation` say what these choices cost on this text. With `do_sample=False` there is no bound: kind "none".

    Raises
    ------
    ValueError, TypeError : an argument is out of range, or the scorer returns something other than k finite numbers.
    """
    (text,) = guide_batch(
        lm, tokenizer, [prompt], scorer, seed=seed, template=template, max_new_tokens=max_new_tokens,
        scale=scale, n_candidates=n_candidates, every=every, kl_budget=kl_budget, schedule=schedule,
        normalise=normalise, do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p,
    )  # fmt: skip
    return text


def guide_batch(
    lm: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    scorer: Scorer | None,
    *,
    batch_size: int = 8,
    max_new_tokens: int = 128,
    seed: int = 0,
    template: str = "auto",
    **options: Any,
) -> list[Generation]:
    """What `guide` writes for each prompt, `batch_size` of them side by side: on a CPU 1.5 to 3 times as fast.

    The text of `prompts[i]` is the one that `guide` writes with `seed + i`, unless a draw stands on the edge of
    rounding. Models whose cache cannot be padded (see `side_by_side`) write one text after another.

    Parameters
    ----------
    scorer : None with `scale=0`: texts of the model itself, without a score.
    batch_size : prompts at a time; the caches of as many texts times `n_candidates` must fit into memory.
    options : the others of `guide`.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise ValueError(f"prompts must be a list of prompts, got {prompts!r}; one prompt goes to guide")
    sampling = Sampling(**{f.name: options.pop(f.name) for f in fields(Sampling) if f.name in options})
    guidance = Guidance(**{f.name: options.pop(f.name) for f in fields(Guidance) if f.name in options})
    if options:
        raise TypeError(f"guide has no option {next(iter(options))!r}")
    if scorer is None and guidance.scale > 0:
        raise ValueError("scorer must be given where scale is above 0, got None")
    batch_size, length = as_whole("batch_size", batch_size), as_whole("max_new_tokens", max_new_tokens)
    generators = [_generator(lm, as_seed(seed) + i) for i in range(len(prompts))]
    read = [as_tokens(tokenizer, prompt, template).to(lm.device) for prompt in prompts]
    ends, found = end_tokens(lm, tokenizer), []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        states = [prefill(lm, ids[None], layer=getattr(scorer, "layer", -1)) for ids in read[part]]
        texts = [GuidedText(state, scorer, sampling, guidance, length, ends=ends) for state in states]
        for text, tokens in zip(texts, _write(texts, generators[part], length), strict=True):
            score = None if scorer is None else float(checked(scorer.score_tokens(text.state.tokens, text.state), 1)[0])
            found.append(_generation(tokenizer, tokens, ends, score, text.cost(), text.state.usage))
    return found


def _write(texts: Sequence[GuidedText], generators: Sequence[Any], length: int) -> list[list[int]]:
    """The tokens of all texts, each to its end or to `length`; they are guided at the same steps."""
    reader, going = SideBySide([text.state for text in texts]), list(range(len(texts)))
    tokens: list[list[int]] = [[] for _ in texts]
    while going and len(tokens[going[0]]) < length:
        asked = [texts[i].ask(texts[i].state.logits[0]) for i in going]
        branches: Sequence[LMState | None] = [None] * len(going)
        candidates = [ids for ids in asked if ids is not None]
        if candidates:
            branches = reader.read([texts[i].state for i in going], candidates)
        for i, branch in zip(going, branches, strict=True):
            law = texts[i].answer(branch)
            tokens[i].append(int(draw(law[None], texts[i].sampling.do_sample, generators[i])[0]))
        before, going = going, [i for i in going if tokens[i][-1] not in texts[i].ends]
        states: dict[int, LMState] = {}
        if going and not candidates:
            drawn = [torch.tensor(tokens[i][-1:], device=texts[i].state.tokens.device) for i in going]
            states = dict(zip(going, reader.read([texts[i].state for i in going], drawn), strict=True))
        for i in before:
            texts[i].advance(tokens[i][-1], states.get(i))
    return tokens


def sample(
    lm: Any,
    tokenizer: Any,
    prompt: Any,
    scorer: Scorer | None = None,
    *,
    n: int = 1,
    do_sample: bool = True,
    temperature: float = 0.4,
    top_k: int | None = 50,
    top_p: float | None = 0.9,
    max_new_tokens: int = 128,
    seed: int = 0,
    template: str = "auto",
) -> list[Generation]:
    """n texts of the model itself, drawn side by side after one reading of the prompt.

    Parameters are those of `guide`. A scorer only scores the finished texts. Each Generation counts what its text would
    have cost alone; its `kl.nats` is 0, relative to the model after temperature, top-k and top-p, or missing with
    `do_sample=False`.
    """
    sampling = Sampling(do_sample, temperature, top_k, top_p)
    n, length = as_whole("n", n), as_whole("max_new_tokens", max_new_tokens)
    generator = _generator(lm, seed)
    ids = as_tokens(tokenizer, prompt, template).to(lm.device)
    ends = end_tokens(lm, tokenizer)

    state = prefill(lm, ids[None], layer=getattr(scorer, "layer", -1))
    rows = list(range(n))  # which of the n texts each row of the state is
    tokens: list[list[int]] = [[] for _ in range(n)]
    surprise, truncation = [0.0] * n, [0.0] * n
    scores: list[float | None] = [None] * n
    usage = [Usage()] * n

    def settle(done: Sequence[int]) -> None:
        """Score these rows of the state, and count what each would have cost alone."""
        found = checked(scorer.score_tokens(state.tokens, state), len(rows)) if scorer is not None and done else None
        for row in done:
            read = state.tokens.shape[1]
            usage[rows[row]] = Usage(read - state.prompt_length + 1, read)
            scores[rows[row]] = None if found is None else float(found[row])

    logits = without(state.logits, ends).expand(n, -1)
    for _ in range(length):
        warped = sampling.warp(logits)
        chosen = draw(warped, sampling.do_sample, generator).tolist()
        for row, which in enumerate(rows):
            truncation[which] += sampling.kept(state.logits[row % len(state.logits)], warped[row])
            surprise[which] += 0.0 if do_sample else float(warped[row].logsumexp(-1) - warped[row, chosen[row]])
            tokens[which].append(chosen[row])
        going = [row for row, token in enumerate(chosen) if token not in ends]
        settle([row for row, token in enumerate(chosen) if token in ends])
        if len(going) < len(rows):
            if not going:
                break
            state, rows, chosen = state.select(going), [rows[i] for i in going], [chosen[i] for i in going]
        state = state.extend(torch.as_tensor(chosen, device=state.tokens.device)[:, None])
        logits = state.logits
    else:
        settle(range(len(rows)))
    kind, nats = ("bound", 0.0) if do_sample else ("none", None)
    costs = [KLCost(kind, nats, tilting=surprise[i], truncation=truncation[i]) for i in range(n)]
    return [_generation(tokenizer, tokens[i], ends, scores[i], costs[i], usage[i]) for i in range(n)]


def best_of_n(
    lm: Any, tokenizer: Any, prompt: Any, scorer: Scorer, *, n: int = 5, seed: int = 0, **options: Any
) -> Generation:
    """The text with the highest score of n drawn independently; `KL <= log n - (n - 1) / n`.

    `options` are those of `sample`. Passes and tokens are those of all n together.
    """
    if not options.get("do_sample", True):
        raise ValueError("best_of_n needs do_sample=True: without it all n texts are the same")
    texts = sample(lm, tokenizer, prompt, scorer, n=n, seed=seed, **options)
    best = max(texts, key=lambda text: -math.inf if text.score is None else text.score)
    prompt = texts[0].tokens_read - texts[0].forward_passes + 1
    passes = [text.forward_passes for text in texts]
    return Generation(
        text=best.text,
        tokens=best.tokens,
        score=best.score,
        kl=best.kl._replace(nats=best_of_n_bound(n)),
        finished=best.finished,
        forward_passes=max(passes),
        tokens_read=prompt + sum(passes) - n,
    )


def draw(logits: Tensor, do_sample: bool, generator: Any = None) -> Tensor:
    """One token per row, (k,): from the softmax of the logits, or the most probable one."""
    if not do_sample:
        return logits.argmax(dim=-1)
    return torch.multinomial(logits.softmax(dim=-1), num_samples=1, generator=generator)[:, 0]


def end_tokens(lm: Any, tokenizer: Any = None) -> set[int]:
    """Ids that end a text, by the model's generation settings, the tokenizer, and the chat template's end of a turn."""
    settings = getattr(lm, "generation_config", None)
    found: list[Any] = [getattr(settings, "eos_token_id", None), getattr(tokenizer, "eos_token_id", None)]
    found.append(None if tokenizer is None else turn_end(tokenizer))
    return {int(i) for ids in found if ids is not None for i in (ids if isinstance(ids, Iterable) else [ids])}


def _generator(lm: Any, seed: int) -> Any:
    return torch.Generator(device=lm.device).manual_seed(as_seed(seed))


def _generation(
    tokenizer: Any, tokens: list[int], ends: Set[int], score: float | None, cost: KLCost, usage: Usage
) -> Generation:
    return Generation(
        text=tokenizer.decode(tokens, skip_special_tokens=True),
        tokens=tuple(tokens),
        score=score,
        kl=cost,
        finished=tokens[-1] in ends,
        forward_passes=usage.forward_passes,
        tokens_read=usage.tokens,
    )
