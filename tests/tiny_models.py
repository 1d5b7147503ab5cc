"""Language models of a few thousand random weights, with a tokenizer, written to a folder in `transformers`' format."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = [
    "What is the area of the pink rectangle?",
    "Multiply the length and the width together, please.",
    "I do not know anything about butterflies in Oregon.",
]
SIZES = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def write_tokenizer(folder: Path, *, chat: bool, encoder: bool = False) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    special = ["<|im_start|>", "<|im_end|>", "[PAD]", "[CLS]", "[SEP]"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=special, show_progress=False)
    raw = trained._tokenizer
    if encoder:
        from tokenizers.processors import BertProcessing

        raw.post_processor = BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    marks = {"cls_token": "[CLS]", "sep_token": "[SEP]"} if encoder else {"eos_token": "<|im_end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", model_max_length=256, **marks)
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def write_model(folder: Path, architecture: str, *, chat: bool = True, **changes: object) -> Path:
    """A random model, e.g. architecture "Llama", under `folder`; `changes` are settings of its configuration."""
    import torch
    import transformers

    config_class = getattr(transformers, f"{architecture}Config")
    sizes = dict(SIZES)
    if architecture in ("GPT2", "Bloom"):  # these have names of their own for some
        sizes |= {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 256}
        sizes = {key: value for key, value in sizes.items() if key not in ("hidden_size", "num_hidden_layers")}
        if architecture == "Bloom":
            sizes["hidden_size"] = 16
    if architecture == "OPT":
        sizes |= {"ffn_dim": 32, "word_embed_proj_dim": 16}
    config = config_class(**(sizes | changes))
    model_class = getattr(
        transformers, f"{architecture.removesuffix('Text')}{'Text' * architecture.endswith('Text')}Model"
    )
    torch.manual_seed(0)
    network = model_class(config)
    with torch.no_grad():  # the usual small initial weights would leave hardly any attention to get wrong
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    network.save_pretrained(folder)
    write_tokenizer(folder, chat=chat, encoder=architecture == "Bert")
    return folder
