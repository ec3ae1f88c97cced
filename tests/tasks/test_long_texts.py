"""Long texts: only a part is tokenised, and the tokens are those that truncating the whole text gives."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

from lemni.errors import InputTooLong
from lemni.hub import ModelFiles
from lemni.hub.spec import ModelSpec
from lemni.tasks.tokenizer import Tokenizer
from lemni.types import Sequence, TruncationSide

ALPHABETS = {
    "english": ["the ", "cat ", "unbelievable ", "sat\n", "on, ", "a-mat. ", "1234567 "],
    "chinese": ["你", "好", "世界", "，", "。", "猫"],
    "chinese with spaces": ["你好", "世界", "。 ", "a"],
    "emoji": ["🙂", "👩\u200d👩\u200d👧", "🇩🇪", "e\u0301 ", "ﬁ"],
    "spaces": ["     ", "\n\n", "\t", "a" * 3, " " * 300],
    "long words": ["x" * 99 + " ", "y" * 101 + " ", "z" * 2000, "[UNK]", "[MASK] "],
    "controls": ["a\x00", "b\x1c", "\u200b", "c\xa0", "d\u3000", "\r"],
}


def texts() -> list[str]:
    choice = random.Random(0)
    made = [
        "x" * 5000,
        "x" * 4999 + " y",
        "-" * 30_000,
        " " * 30_000,
        "ab" * 9000,
        "word " * 3000,
        "1" * 9000,
        "1" * 8999,
    ]
    for pieces in ALPHABETS.values():
        for pieces_used in (3000, 20_000):
            made.append("".join(choice.choices(pieces, k=pieces_used))[:40_000])
    everything = [piece for pieces in ALPHABETS.values() for piece in pieces]
    return made + ["".join(choice.choices(everything, k=4000))[:40_000] for _ in range(5)]


TEXTS = texts()


def trained(kind: str) -> tokenizers.Tokenizer:
    """Small tokenizers of other kinds than BERT's, with special tokens at both ends."""
    corpus = [text[:3000] for text in TEXTS]
    special = ["<s>", "</s>", "<unk>"]
    if kind == "unigram":
        made = tokenizers.Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.train_from_iterator(
            corpus, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
        )
    else:
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
        made.train_from_iterator(corpus, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", made.token_to_id("<s>")), ("</s>", made.token_to_id("</s>"))]
    )
    return made


def tokenizer_of(folder: Path, max_length: int) -> Tokenizer:
    files = ModelFiles("test", folder, None, "folder")
    return Tokenizer(ModelSpec(files, {}, "bert", (), folder, ()), max_length, None)


@pytest.fixture(scope="module", params=["wordpiece", "unigram", "bpe"])
def folder(request: pytest.FixtureRequest, minilm: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "wordpiece":
        return minilm.path
    made = tmp_path_factory.mktemp(request.param)
    trained(request.param).save(str(made / "tokenizer.json"))
    return made


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [5, 256])
def test_the_same_tokens_as_of_the_whole_text(folder: Path, max_length: int, side: TruncationSide) -> None:
    ours = tokenizer_of(folder, max_length)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(max_length, direction=side)
    for text, result in zip(TEXTS, ours.encode(TEXTS, side), strict=True):
        whole = library.encode(text)
        assert isinstance(result, Sequence)
        assert result.ids.tolist() == whole.ids, (len(text), text[:40])
        assert result.truncated == bool(whole.overflowing)


def test_the_same_vectors_as_sentence_transformers(minilm: ModelFiles) -> None:
    from sentence_transformers import SentenceTransformer

    import lemni

    reference = SentenceTransformer(str(minilm.path), device="cpu")
    chosen = [text for text in TEXTS if len(text) > 4096][::4]
    with lemni.load(str(minilm.path), device="cpu") as model:
        np.testing.assert_allclose(model.embed(chosen), reference.encode(chosen), atol=2e-6)


def test_refusing_says_how_much_is_known(folder: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    library.no_truncation()
    known = len(library.encode("the cat " * 400).ids)
    names = ["input[3]", "input[4]"]
    both = ["the cat " * 400, "the cat " * 400_000]
    short, long = tokenizer_of(folder, 256).encode(both, "error", names.__getitem__)
    assert isinstance(short, InputTooLong)
    assert isinstance(long, InputTooLong)
    assert short.message.startswith(f"input[3] has {known} tokens, but this model takes at most 256.")
    assert long.message.startswith("input[4] has more than ")
    assert 256 <= int(long.message.split(" tokens")[0].rpartition(" ")[2]) < 4096


PIECES: dict[str, Any] = {"words": "word " * (1 << 20), "letters": "x" * (4 << 20), "chinese": "你" * (4 << 20)}


@pytest.mark.parametrize("text", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("truncate", ["right", "left", "error"])
def test_megabytes_cost_what_their_part_costs(minilm: ModelFiles, text: str, truncate: Any) -> None:
    ours = tokenizer_of(minilm.path, 256)
    encoded: list[int] = []

    class Counting:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            encoded.extend(map(len, texts))
            return self.inner.encode_batch_fast(texts, **options)

    real = ours._tokenizer
    ours._tokenizer = lambda truncate: Counting(real(truncate))  # type: ignore[method-assign]
    ours.encode([text], truncate)
    assert 0 < sum(encoded) < 50_000
