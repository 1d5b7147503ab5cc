"""Operations and memory by formula, for models and cards that are not at hand; tests try the formulas on measured ones.

A model of L layers, width d, N parameters in its layers and V words reads texts of s tokens. Per token, an addition and
a multiplication being two operations,

    forward, layers          2 N + 4 L d s          (attention: every token with every token, as kernels compute it)
    forward, words           2 V d                  training alone; hidden states do not need it
    backward                 twice the forward pass, and once more the layers' where activations are recomputed

DPO reads chosen and rejected with policy and reference in every epoch. A head reads every prompt once and every answer
once: the tokens of `shared` are those with prompts counted once.

Memory, in bytes a parameter: full training in mixed precision 4 weights, 4 gradients, 8 moments of Adam, and 2 for a
reference in bfloat16; LoRA 2 for the frozen weights, which are the reference too; a head 2. Activations come on top.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MODELS", "Shape", "dpo_bytes", "dpo_flop", "head_bytes", "head_flop"]


class Shape(NamedTuple):
    """Layers, width, words, and parameters of the layers (without the table of words)."""

    layers: int
    width: int
    words: int
    inner: float
    tied: bool = True

    @property
    def parameters(self) -> float:
        return self.inner + (1 if self.tied else 2) * self.words * self.width


MODELS = {
    "SmolLM2-135M": Shape(30, 576, 49152, 106.2e6),
    "GPT-2": Shape(12, 768, 50257, 85.1e6),
    "GPT-2 medium": Shape(24, 1024, 50257, 302.3e6),
    "Qwen2.5-0.5B": Shape(24, 896, 151936, 357.9e6),
    "Llama-3.2-1B": Shape(16, 2048, 128256, 973.1e6),
    "Llama-3.2-3B": Shape(28, 3072, 128256, 2818.7e6),
    "Mistral-7B": Shape(32, 4096, 32768, 6979.6e6, tied=False),
    "Llama-3.1-8B": Shape(32, 4096, 128256, 6979.6e6, tied=False),
}


def forward(shape: Shape, tokens: float, length: float, words: bool) -> float:
    inner = 2 * shape.inner + 4 * shape.layers * shape.width * length
    return tokens * (inner + (2 * shape.words * shape.width if words else 0))


def dpo_flop(shape: Shape, tokens: float, length: float, epochs: int = 3, recompute: bool = True) -> float:
    """Of full DPO on pairs of `tokens` tokens in all, padding included, in texts of `length` tokens."""
    once, layers = forward(shape, tokens, length, True), forward(shape, tokens, length, False)
    return epochs * (3 * once + once + (layers if recompute else 0))


def head_flop(shape: Shape, shared: float, length: float, depth: float = 1.0) -> float:
    """Of the states that a head is fitted to, up to a share `depth` of the layers."""
    return depth * forward(shape, shared, length, False)


def dpo_bytes(shape: Shape, lora: bool = False) -> float:
    """Of weights, gradients, moments and reference, without activations."""
    return (2 if lora else 18) * shape.parameters


def head_bytes(shape: Shape) -> float:
    """Of the weights that are read, in bfloat16; the table of words is looked up in, and needs to be there."""
    return 2 * (shape.inner + shape.words * shape.width)
