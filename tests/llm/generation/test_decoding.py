"""Generation: against `lm.generate`, against forward passes from scratch, against laws enumerated by brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, rel_entr
from tiny_lm import WORDS, make_lm, make_tokenizer

pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")

import torch

from cvxrelu_llm.generation.comparison import compare
from cvxrelu_llm.generation.decoding import Generation, best_of_n, guide, sample
from cvxrelu_llm.generation.guidance import Guidance, GuidedText, Sampling
from cvxrelu_llm.generation.kl import best_of_n_bound
from cvxrelu_llm.generation.logits_processor import GuidedLogitsProcessor
from cvxrelu_llm.generation.scorers import HiddenStateScorer, as_tokens, score_tokens
from cvxrelu_llm.generation.states import POOLINGS, prefill, prefix_features

DIRECTION = np.random.default_rng(0).standard_normal(16)
PROMPT = [5, 6, 7, 40]
FREE: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 10}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def lm(request: pytest.FixtureRequest) -> Any:
    return make_lm(request.param)


@pytest.fixture(scope="module")
def endless() -> Any:
    return make_lm(end=None)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def endless_tokenizer() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


def head(features: np.ndarray) -> np.ndarray:
    """Not linear, so that poolings order candidates differently."""
    return np.tanh(features @ DIRECTION) + 0.1 * features[:, 0] ** 2


def hidden_states(lm: Any, tokens: list[int], layer: int) -> np.ndarray:
    with torch.no_grad():
        return lm(torch.tensor([tokens]), output_hidden_states=True).hidden_states[layer][0].numpy()


def next_logits(lm: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return lm(torch.tensor([tokens])).logits[0, -1].double().numpy()


def score_of(lm: Any, tokens: list[int], layer: int, pooling: str, prompt_length: int = len(PROMPT)) -> float:
    """The head on features of a forward pass of its own, pooled here."""
    hidden = hidden_states(lm, tokens, layer)
    start = prompt_length if pooling == "response_mean" else 0
    pooled = hidden[-1] if pooling == "last" else hidden[start:].mean(axis=0)
    return float(head(pooled[None])[0])


def without_end(tokens: Any) -> list[int]:
    """An answer as it is scored."""
    return list(tokens[:-1] if tokens[-1] == 2 else tokens)


class Spy:
    """Remembers every text it is asked about and what the real scorer says."""

    def __init__(self, scorer: HiddenStateScorer) -> None:
        self.scorer, self.layer, self.seen = scorer, scorer.layer, []

    def score_tokens(self, tokens: Any, state: Any) -> np.ndarray:
        scores = self.scorer.score_tokens(tokens, state)
        self.seen.append((tokens.tolist(), scores))
        return scores


def cut(logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None, first: bool) -> np.ndarray:
    """log p after temperature, top-k and top-p, not normalised, -inf where cut: the oracle of `Sampling.warp`."""
    logp = log_softmax(logits / temperature)
    logp[2 if first else []] = -np.inf
    order = np.argsort(-logp, kind="stable")
    if top_k is not None:
        logp[order[top_k:]] = -np.inf
    if top_p is not None:
        mass = np.cumsum(np.exp(log_softmax(logp[order])))
        logp[order[1:][mass[:-1] >= top_p]] = -np.inf
    return logp


# -- the model's own law -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"top_k": None, "top_p": None}, {"temperature": 0.7, "top_p": None}])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scale_zero_is_generate_token_for_token(lm: Any, tokenizer: Any, options: dict, seed: int) -> None:
    options = {**FREE, "top_k": 50, "top_p": 0.9, **options}
    torch.manual_seed(seed)
    theirs = lm.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        do_sample=True,
        min_new_tokens=1,
        temperature=options["temperature"],
        top_k=options["top_k"] or 0,
        top_p=options["top_p"] or 1.0,
        max_new_tokens=options["max_new_tokens"],
    )[0, len(PROMPT) :].tolist()
    scorer = HiddenStateScorer(head)
    unguided = guide(lm, tokenizer, PROMPT, scorer, scale=0, seed=seed, **options)
    assert list(unguided.tokens) == theirs
    assert unguided.kl.nats == unguided.kl.tilting == unguided.kl.candidates == 0.0
    assert sample(lm, tokenizer, PROMPT, scorer, seed=seed, **options)[0] == unguided
    # A scale too small to matter goes through candidates, and draws the same.
    barely = guide(lm, tokenizer, PROMPT, scorer, scale=1e-12, n_candidates=None, seed=seed, **options)
    assert barely.tokens == unguided.tokens and barely.score == pytest.approx(unguided.score, abs=1e-5)


def test_several_samples_are_those_of_generate(endless: Any, endless_tokenizer: Any) -> None:
    torch.manual_seed(5)
    theirs = endless.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        do_sample=True,
        temperature=0.8,
        top_k=20,
        top_p=0.9,
        max_new_tokens=7,
        num_return_sequences=4,
    )[:, len(PROMPT) :].tolist()
    options = {"temperature": 0.8, "top_k": 20, "max_new_tokens": 7}
    ours = sample(endless, endless_tokenizer, PROMPT, n=4, seed=5, **options)
    assert [list(text.tokens) for text in ours] == theirs
    assert all(text.score is None and not text.finished for text in ours)


def test_texts_that_end_at_different_times_are_scored_as_alone(lm: Any, tokenizer: Any) -> None:
    scorer = HiddenStateScorer(head, pooling="mean")
    texts = sample(lm, tokenizer, PROMPT, scorer, n=12, top_k=None, top_p=None, temperature=2.0, max_new_tokens=40)
    ends = [text.tokens.index(2) + 1 if 2 in text.tokens else 40 for text in texts]
    assert [len(text.tokens) for text in texts] == ends and len(set(ends)) > 2
    for text, end in zip(texts, ends, strict=True):
        assert text.finished == (text.tokens[-1] == 2)
        assert text.score == pytest.approx(score_of(lm, [*PROMPT, *without_end(text.tokens)], -1, "mean"), abs=1e-4)
        assert (text.forward_passes, text.tokens_read) == (end + 1 - text.finished, len(PROMPT) + end - text.finished)
        assert "</s>" not in text.text.split()
        first = log_softmax(next_logits(lm, PROMPT) / 2.0)[2]
        assert text.kl.truncation == pytest.approx(-np.log1p(-np.exp(first)), abs=1e-5), "an end is never drawn first"


# -- guidance against forward passes from scratch ----------------------------------------------------------------------
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layer", [-1, 1])
def test_candidates_are_scored_as_by_independent_passes(lm: Any, tokenizer: Any, pooling: str, layer: int) -> None:
    spy = Spy(HiddenStateScorer(head, layer=layer, pooling=pooling))
    text = guide(lm, tokenizer, PROMPT, spy, scale=2.0, every=2, **FREE)
    n = len(text.tokens)
    guided, last = spy.seen[:-1], spy.seen[-1]
    assert [len(rows[0]) for rows, _ in guided] == [len(PROMPT) + t + 1 for t in range(0, n, 2)]
    assert last[0] == [[*PROMPT, *text.tokens]]
    for rows, scores in spy.seen:
        assert scores == pytest.approx([score_of(lm, row, layer, pooling) for row in rows], abs=1e-4)
    from_scratch = score_tokens(lm, spy.scorer, last[0][0], prompt_length=len(PROMPT))
    assert text.score == pytest.approx(from_scratch[0], abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5, "top_p": 0.6},
        {"top_k": 3, "top_p": None},
        {"normalise": False},
        {"n_candidates": None, "top_k": None, "top_p": None, "every": 1},  # the end of the text among the candidates
    ],
)
def test_the_account_is_that_of_a_replay(lm: Any, tokenizer: Any, options: dict) -> None:
    options = {**FREE, "top_k": 50, "top_p": 0.9, "scale": 3.0, "every": 3, **options}
    text = guide(lm, tokenizer, PROMPT, HiddenStateScorer(head), seed=4, **options)
    tokens, nats, tilting, candidates, truncation = list(PROMPT), 0.0, 0.0, 0.0, 0.0
    for step, token in enumerate(text.tokens):
        logp = cut(next_logits(lm, tokens), *(options[name] for name in ("temperature", "top_k", "top_p")), step == 0)
        truncation -= logsumexp(logp)
        if step % options["every"] == 0:
            chosen = np.argsort(-logp)[: min(options.get("n_candidates", 5) or 60, np.isfinite(logp).sum())]
            assert token in chosen
            candidates -= logsumexp(logp[chosen]) - logsumexp(logp)
            s = np.array([score_of(lm, tokens if c == 2 else [*tokens, int(c)], -1, "last") for c in chosen])
            if options.get("normalise", True) and np.ptp(s) > 0:
                s = (s - s.min()) / np.ptp(s)
            p = np.exp(log_softmax(logp[chosen]))
            tilting += rel_entr(np.exp(log_softmax(np.log(p) + 3.0 * s)), p).sum()
            nats += 9.0 / 8.0 * np.ptp(s) ** 2
        assert np.isfinite(logp[token])
        tokens.append(token)
    assert text.kl.kind == "bound" and text.kl.budget is None
    assert text.kl.nats == pytest.approx(nats, abs=1e-3)
    assert text.kl[2:5] == pytest.approx((tilting, candidates, truncation), abs=1e-3)
    assert text.kl.tilting <= text.kl.nats + 1e-9


def test_passes_and_tokens_are_counted_as_the_model_sees_them(lm: Any, tokenizer: Any) -> None:
    read: list[int] = []
    hook = lm.register_forward_hook(lambda module, inputs, out: read.append(inputs[0].numel()))
    try:
        for every, n in ((1, 5), (3, 4)):
            read.clear()
            text = guide(
                lm, tokenizer, PROMPT, HiddenStateScorer(head), every=every, n_candidates=n, top_p=None, **FREE
            )
            assert (text.forward_passes, text.tokens_read) == (len(read), sum(read))
            assert read == [len(PROMPT), *(n if t % every == 0 else 1 for t in range(len(text.tokens)))]
        read.clear()
        best = best_of_n(lm, tokenizer, PROMPT, HiddenStateScorer(head), n=6, **FREE)
        assert (best.forward_passes, best.tokens_read) == (len(read), sum(read))
    finally:
        hook.remove()


def test_guidance_raises_what_it_is_guided_by(endless: Any, endless_tokenizer: Any) -> None:
    scorer = HiddenStateScorer(head, pooling="mean")
    scores = {
        scale: [guide(endless, endless_tokenizer, PROMPT, scorer, scale=scale, seed=s, **FREE).score for s in range(8)]
        for scale in (0, 2.0, 20.0)
    }
    assert np.mean(scores[0]) < np.mean(scores[2.0]) < np.mean(scores[20.0])


# -- budgets -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", ["bound", "exact"])
@pytest.mark.parametrize("budget", [0.01, 0.5, 3.0])
def test_no_text_exceeds_its_budget(endless: Any, endless_tokenizer: Any, schedule: str, budget: float) -> None:
    scorer = HiddenStateScorer(head)
    for seed in range(3):
        options = {**FREE, "scale": 100.0, "kl_budget": budget, "schedule": schedule, "every": 2}
        text = guide(endless, endless_tokenizer, PROMPT, scorer, seed=seed, **options)
        assert text.kl.kind == "bound" and text.kl.budget == budget
        assert text.kl.tilting <= text.kl.nats + 1e-9 and text.kl.nats <= budget
        if schedule == "bound":
            assert text.kl.nats == pytest.approx(budget, rel=1e-6), "a scale of 100 wants all there is"


@pytest.mark.parametrize("schedule", ["bound", "exact"])
def test_the_budget_bounds_the_divergence_of_whole_texts(schedule: str) -> None:
    """All texts of three tokens out of a vocabulary of four, with their probabilities under both laws."""
    lm, budget = make_lm(vocab=4, end=None), 0.3
    scorer = HiddenStateScorer(head, pooling="mean")
    sampling = Sampling(temperature=1.3, top_k=None, top_p=None)
    guidance = Guidance(scale=50.0, n_candidates=None, kl_budget=budget, schedule=schedule)
    divergence = mass = 0.0
    for tokens in itertools.product(range(4), repeat=3):
        with torch.inference_mode():
            text = GuidedText(prefill(lm, torch.tensor([[1, 3]])), scorer, sampling, guidance, 3)
            log_q = log_p = 0.0
            for token in tokens:
                log_p += float((text.state.logits[0].double() / 1.3).log_softmax(-1)[token])
                log_q += float(text.propose(text.state.logits[0]).double().log_softmax(-1)[token])
                text.advance(token)
        mass += math.exp(log_q)
        divergence += math.exp(log_q) * (log_q - log_p)
    assert mass == pytest.approx(1.0, abs=1e-5)
    assert 0.01 * budget < divergence <= budget + 1e-6


def test_argmax_reports_no_bound(lm: Any, tokenizer: Any) -> None:
    scorer = HiddenStateScorer(head)
    texts = [
        guide(lm, tokenizer, PROMPT, scorer, scale=4.0, every=2, do_sample=False, seed=seed, **FREE) for seed in (0, 1)
    ]
    assert texts[0] == texts[1]
    assert texts[0].kl.kind == "none" and texts[0].kl.nats is None
    tokens, surprise = list(PROMPT), 0.0
    for step, token in enumerate(texts[0].tokens):
        logp = cut(next_logits(lm, tokens), 1.0, 50, 0.9, step == 0)
        kept = np.argsort(-logp)[:5] if step % 2 == 0 else np.arange(len(logp))
        surprise += logsumexp(logp[kept]) - logp[token]
        tokens.append(token)
    assert texts[0].kl.tilting == pytest.approx(surprise, abs=1e-3)
    greedy = lm.generate(
        torch.tensor([PROMPT]),
        min_new_tokens=1,
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=10,
    )
    (plain,) = sample(lm, tokenizer, PROMPT, do_sample=False, **FREE)
    assert list(plain.tokens) == greedy[0, len(PROMPT) :].tolist()
    unguided = guide(lm, tokenizer, PROMPT, scorer, scale=0, do_sample=False, **FREE)
    assert plain.kl.kind == "none" and plain.kl.nats is None and plain.kl.tilting == pytest.approx(unguided.kl.tilting)
    with pytest.raises(ValueError, match="best_of_n needs do_sample=True"):
        best_of_n(lm, tokenizer, PROMPT, scorer, do_sample=False)


# -- inside generate ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"every": 3, "kl_budget": 0.7}, {"scale": 0}])
def test_the_logits_processor_draws_what_guide_draws(lm: Any, tokenizer: Any, options: dict) -> None:
    scorer = HiddenStateScorer(head, pooling="response_mean")
    sampling, guidance = Sampling(temperature=1.0), Guidance(**{"scale": 5.0, **options})
    processor = GuidedLogitsProcessor(lm, scorer, max_new_tokens=10, sampling=sampling, guidance=guidance)
    torch.manual_seed(3)
    tokens = lm.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        logits_processor=[processor],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=10,
    )
    text = guide(lm, tokenizer, PROMPT, scorer, seed=3, **{**FREE, "scale": 5.0, **options})
    assert tokens[0, len(PROMPT) :].tolist() == list(text.tokens)
    score, cost = processor.finish(tokens)
    assert score == pytest.approx(text.score, abs=1e-5)
    assert cost[1:5] == pytest.approx(text.kl[1:5], abs=1e-5) and cost.kind == text.kl.kind
    with pytest.raises(ValueError, match="make a new processor"):
        processor(torch.tensor([PROMPT]), torch.zeros(1, len(WORDS)))


def test_the_logits_processor_refuses_a_batch(lm: Any) -> None:
    processor = GuidedLogitsProcessor(lm, HiddenStateScorer(head), max_new_tokens=4)
    with pytest.raises(ValueError, match="one text at a time, got a batch of 2"):
        processor(torch.tensor([PROMPT, PROMPT]), torch.zeros(2, len(WORDS)))
    with pytest.raises(RuntimeError, match="after generate"):
        processor.finish(torch.tensor([PROMPT]))


# -- best of n and the comparison --------------------------------------------------------------------------------------
def test_best_of_n_is_the_best_of_its_samples(lm: Any, tokenizer: Any) -> None:
    scorer = HiddenStateScorer(head)
    texts = sample(lm, tokenizer, PROMPT, scorer, n=7, seed=2, **FREE)
    best = best_of_n(lm, tokenizer, PROMPT, scorer, n=7, seed=2, **FREE)
    assert best.score == max(text.score for text in texts)
    assert best.kl.kind == "bound" and best.kl.nats == best_of_n_bound(7)


def test_a_comparison_spends_as_many_tokens_on_plain_texts(endless: Any, endless_tokenizer: Any) -> None:
    scorer = HiddenStateScorer(head, pooling="mean")
    options = {"max_new_tokens": 6, "scale": 8.0, "top_p": None}
    prompts = [PROMPT, [9, 12]]
    rows = compare(endless, endless_tokenizer, prompts, scorer, temperatures=(0.4, 1.0), seed=1, **options)
    assert [row.temperature for row in rows] == [0.4, 1.0]
    for row in rows:
        guided = [
            guide(endless, endless_tokenizer, p, scorer, seed=1 + i, temperature=row.temperature, **options)
            for i, p in enumerate(prompts)
        ]
        assert row.guided_score == pytest.approx(np.mean([text.score for text in guided]))
        assert row.guided_read == np.mean([len(p) + 30 for p in prompts]) == row.plain_read  # 5 texts of 6 tokens
        assert row.plain_texts == 5 and row.guided_length == row.plain_length == row.best_length == 6
        assert row.plain_score < row.best_score
        assert row.guided_kl.kind == "estimate"
        assert row.guided_kl.nats == pytest.approx(np.mean([t.kl.tilting + t.kl.candidates for t in guided]))
        assert row.guided_bound == pytest.approx(6 * 8.0**2 / 8)
        assert row.best_kl.nats == pytest.approx(best_of_n_bound(5))
        assert row.record()["best_kl"]["kind"] == "bound"
    greedy = compare(endless, endless_tokenizer, prompts, scorer, temperatures=[1.0], do_sample=False, **options)[0]
    assert (
        greedy.guided_kl.kind == "none" == greedy.best_kl.kind and greedy.guided_kl.nats is None is greedy.guided_bound
    )


def test_plain_texts_of_a_comparison_read_no_less_when_lengths_differ(lm: Any, tokenizer: Any) -> None:
    row = compare(lm, tokenizer, [PROMPT], HiddenStateScorer(head), temperatures=[2.0], max_new_tokens=20, top_p=None)[
        0
    ]
    assert row.guided_read <= row.plain_read < row.guided_read + 20


# -- features ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pooling", POOLINGS)
def test_features_of_prefixes_are_those_of_shorter_texts(lm: Any, pooling: str) -> None:
    tokens = torch.tensor([5, 6, 7, 9, 30, 31, 32, 50])
    found = prefix_features(lm, tokens, [4, 8, 6], prompt_length=3, layer=1, pooling=pooling)
    scorer = HiddenStateScorer(lambda features: features[:, 2], layer=1, pooling=pooling)
    for row, length in zip(found, (4, 8, 6), strict=True):
        alone = score_tokens(lm, scorer, tokens[:length], prompt_length=3)
        assert row[2] == pytest.approx(alone[0], abs=1e-5)
        assert row[2] == pytest.approx(prefill_feature(lm, tokens[:length].tolist(), pooling), abs=1e-5)


def prefill_feature(lm: Any, tokens: list[int], pooling: str) -> float:
    hidden = hidden_states(lm, tokens, 1)
    pooled = {"last": hidden[-1], "mean": hidden.mean(axis=0), "response_mean": hidden[3:].mean(axis=0)}
    return float(pooled[pooling][2])


def test_a_state_can_be_extended_once_unless_kept(lm: Any) -> None:
    state = prefill(lm, torch.tensor([PROMPT]))
    one = state.extend(torch.tensor([[9]]), keep=True)
    other = state.extend(torch.tensor([[9], [10]]))
    assert torch.allclose(one.logits[0], other.logits[0], atol=1e-5)
    assert torch.allclose(other.logits[1], torch.tensor(next_logits(lm, [*PROMPT, 10])).float(), atol=1e-4)
    with pytest.raises(RuntimeError, match="extended already"):
        state.extend(torch.tensor([[9]]))


def test_half_precision_models_generate(tokenizer: Any) -> None:
    lm = make_lm().to(torch.bfloat16)
    text = guide(lm, tokenizer, PROMPT, HiddenStateScorer(head), scale=2.0, kl_budget=0.5, **FREE)
    assert np.isfinite(text.score) and text.kl.nats <= 0.5


# -- prompts and input -------------------------------------------------------------------------------------------------
def test_prompts_are_texts_messages_or_ids(lm: Any) -> None:
    tokenizer = make_tokenizer(chat=True)
    scorer = HiddenStateScorer(head)
    texts = [
        guide(lm, tokenizer, prompt, scorer, **FREE)
        for prompt in ([{"role": "student", "content": "ba de"}], np.array([1, 3, 5, 6, 12]))
    ]
    assert guide(lm, tokenizer, "<s> student : ba de", scorer, template="plain", **FREE) == texts[0]
    assert as_tokens(tokenizer, "ba de").tolist() == [1, 0, 5, 6, 12], "a message of the user, who is no word here"
    plain = [{"role": "tutor", "content": "ba"}]
    assert as_tokens(tokenizer, plain, "plain").tolist() == [0, 6, 0], "tutor: is no word of this tokenizer"
    assert WORDS.index("ba") == 6 and WORDS.index("de") == 12
    assert texts[0] == texts[1]
    assert texts[0].text == " ".join(WORDS[t] for t in texts[0].tokens if t > 2)
    assert isinstance(texts[1], Generation) and texts[1].record()["tokens"] == list(texts[1].tokens)


class AddsEnds:
    """A tokenizer that puts marks around every text."""

    chat_template = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [WORDS.index(word) if word in WORDS else 0 for word in text.split()]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}


def test_what_a_tokenizer_puts_behind_a_prompt_is_left_out() -> None:
    assert as_tokens(AddsEnds(), "ba de").tolist() == [1, 6, 12]
    with pytest.raises(ValueError, match="template must be 'auto', 'chat' or 'plain', got 'chatty'"):
        as_tokens(AddsEnds(), "ba de", "chatty")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1.0}, "scale must be a positive finite number"),
        ({"scale": math.nan}, "scale must be a positive finite number"),
        ({"n_candidates": 0}, "n_candidates must be a whole number from 1, got 0"),
        ({"every": 0}, "every must be a whole number"),
        ({"kl_budget": 0}, "kl_budget must be a positive"),
        ({"kl_budget": 1.0, "do_sample": False}, "kl_budget needs do_sample=True"),
        ({"schedule": "linear"}, "schedule must be 'bound' or 'exact', got 'linear'"),
        ({"temperature": 0.0}, "temperature must be a positive"),
        ({"top_k": 0}, "top_k must be a whole number"),
        ({"top_p": 1.5}, "top_p must be a number strictly between 0 and 1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number"),
        ({"seed": -1}, "seed must be a nonnegative integer"),
        ({"prompt": ""}, "at least one token"),
        ({"template": "chat"}, "no chat template"),
        ({"prompt": 3.5}, "prompt must be a text"),
        ({"scorer": HiddenStateScorer(lambda f: f)}, "one score per text"),
        ({"scorer": HiddenStateScorer(lambda f: np.full(len(f), np.nan))}, "finite scores"),
    ],
)
def test_bad_input_is_named(lm: Any, tokenizer: Any, options: dict, message: str) -> None:
    options = {"prompt": PROMPT, "scorer": HiddenStateScorer(head), **options}
    with pytest.raises((ValueError, TypeError), match=message):
        guide(lm, tokenizer, options.pop("prompt"), options.pop("scorer"), **{**FREE, **options})


def test_bad_scorers_and_prefixes_are_named(lm: Any) -> None:
    with pytest.raises(ValueError, match="pooling must be one of"):
        HiddenStateScorer(head, pooling="max")
    with pytest.raises(TypeError, match="head must be a callable"):
        HiddenStateScorer(None)
    with pytest.raises(ValueError, match="lengths must lie between prompt_length"):
        prefix_features(lm, torch.tensor([1, 2, 3]), [2], prompt_length=2)
    with pytest.raises(ValueError, match="a response of at least one token"):
        score_tokens(lm, HiddenStateScorer(head, pooling="response_mean"), [1, 2])
    state = prefill(lm, torch.tensor([PROMPT]), layer=1)
    with pytest.raises(ValueError, match=r"state pools layers \(1,\)"):
        HiddenStateScorer(head).score_tokens(state.tokens, state)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", ["plain", "auto"])
def test_what_is_guided_has_the_tokens_that_features_have(chat: bool, kind: str) -> None:
    from cvxrelu_llm.generation.scorers import as_tokens
    from cvxrelu_llm.models.templates import Template
    from cvxrelu_llm.preferences.messages import Message

    tokenizer = make_tokenizer(chat=chat)
    layout = Template(tokenizer, "chat" if chat and kind == "auto" else "plain")
    for prompt in (
        [("user", "ba de")],
        [("system", "go"), ("user", "ba")],
        [("user", "ba"), ("assistant", "de"), ("user", "fi")],
        [("user", "ba"), ("assistant", "de")],
    ):
        fitted = layout.prompt_tokens([Message(*turn) for turn in prompt])
        guided = as_tokens(tokenizer, [{"role": role, "content": text} for role, text in prompt], kind)
        assert tuple(guided.tolist()) == fitted
    alone = as_tokens(tokenizer, "ba de", kind).tolist()
    assert tuple(alone) == layout.prompt_tokens([Message("user", "ba de")])


def test_a_turn_of_the_assistant_is_continued() -> None:
    from tiny_models import CHAT_TEMPLATE

    from cvxrelu_llm.models.templates import Template
    from cvxrelu_llm.preferences.messages import Message

    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    shown: list[str] = []
    layout = Template(tokenizer, "chat")
    layout._tokens = lambda text: shown.append(text) or [1]  # type: ignore[method-assign]
    layout.prompt_tokens([Message("user", "ba"), Message("assistant", "de fi")])
    assert shown == ["<|im_start|>user\nba<|im_end|>\n<|im_start|>assistant\nde fi"]
    plain = Template(make_tokenizer(), "plain")
    plain._tokens = lambda text: shown.append(text) or [1]  # type: ignore[method-assign]
    plain.prompt_tokens([Message("user", "ba"), Message("assistant", "de fi")])
    assert shown[1] == "user: ba\nassistant: de fi"
