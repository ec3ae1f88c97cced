"""Tiny random causal language models with a byte-level tokenizer that has special tokens and single words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from tests.families.decoders import save

CONFIGS = {"qwen2": hf.Qwen2Config, "qwen3": hf.Qwen3Config, "llama": hf.LlamaConfig}
_MERGES = [
    ("y", "e"),
    ("ye", "s"),
    ("n", "o"),
    ("Ċ", "Ċ"),
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    (".", "Ċ"),
    ("Ġ", "a"),
]
# Qwen's own pattern: a blank joins the word after it, a line's end the full stop before it.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEMPLATE = """<|im_start|>system
Judge whether the Document meets the requirements.<|im_end|>
<|im_start|>user
<Instruct>: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("find it") }}
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""


def tokenizer(*, words: bool = True, **options: Any) -> Any:
    """Of transformers. Without `words`, "yes" and "no" are no tokens."""
    merges = _MERGES if words else _MERGES[3:]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*letters, *("".join(merge) for merge in merges)])}
    library = Tokenizer(models.BPE(vocabulary, merges))
    split = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    library.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    options = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "model_max_length": 512, **options}
    return hf.PreTrainedTokenizerFast(tokenizer_object=library, **options)


def save_causal(
    folder: Path, family: str = "qwen3", template: str | None = None, *, words: bool = True, **config: Any
) -> Any:
    """Write a causal language model's config, weights, tokenizer and chat template; the model."""
    chosen = tokenizer(words=words)
    chosen.chat_template = template
    chosen.save_pretrained(folder)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    settings = CONFIGS[family](**{"vocab_size": len(chosen), **sizes, **config})
    return save(hf.AutoModelForCausalLM.from_config(settings), folder)
