"""Tiny random models of text with images or sound, written as folders that transformers and Lemni open.

For every test that needs such a model, servers' tests too: `save_clip(folder)`, `save_colqwen2(folder)`, ... write
config, weights, tokenizer and processor (0.1 to 0.6 MB, under a second) and return the folder. `picture` and `sound`
make files to send. Random weights prove loading, batching and equality with transformers; they do not rank anything.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel

DIMENSIONS = 16
"""Length of every vector of these models."""

_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_VISION = {**_TEXT, "image_size": 32, "patch_size": 8}
_BYTES = sorted(ByteLevel.alphabet())
_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def picture(width: int = 64, height: int = 48, seed: int = 0, kind: str = "PNG") -> bytes:
    """An image file of soft random colours: no two pixels' neighbourhoods are alike."""
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def sound(seconds: float = 1.0, rate_hz: int = 48_000, seed: int = 0, channels: int = 1) -> bytes:
    """A WAV file of noise that swells."""
    import soundfile

    frames = round(seconds * rate_hz)
    noise = np.random.default_rng(seed).normal(0, 0.2, (frames, channels)) * np.linspace(0.1, 1, frames)[:, None]
    out = io.BytesIO()
    soundfile.write(out, noise.clip(-1, 1).astype(np.float32), rate_hz, format="WAV", subtype="FLOAT")
    return out.getvalue()


def save_clip(folder: Path) -> Path:
    """CLIP: 64 text tokens at most, images of 32 x 32 in patches of 8."""
    ids = _vocabulary(*_BYTES, *(f"{letter}</w>" for letter in _BYTES), "<|startoftext|>", "<|endoftext|>")
    start, end = ids["<|startoftext|>"], ids["<|endoftext|>"]
    tokens = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    config = transformers.CLIPConfig(
        text_config={**_TEXT, "vocab_size": len(ids), "max_position_embeddings": 64, **tokens},
        vision_config=_VISION,
        projection_dim=DIMENSIONS,
    )
    tokenizer = transformers.CLIPTokenizer(vocab=ids, merges=[], model_max_length=64)
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _save(folder, config, transformers.CLIPModel, transformers.CLIPProcessor(images, tokenizer))


def save_siglip(folder: Path) -> Path:
    """SigLIP: texts are padded to 16 tokens."""
    ids = _vocabulary("<pad>", "</s>", "<unk>", *_BYTES)
    config = transformers.SiglipConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "max_position_embeddings": 16,
            "projection_size": DIMENSIONS,
            "hidden_size": DIMENSIONS,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 1,
        },
        vision_config={**_VISION, "hidden_size": DIMENSIONS},
    )
    names = ["input_ids"]  # as the real ones: no attention mask
    tokenizer = _byte_tokenizer(ids, "$A </s>", {"</s>": 1}, lower=True, model_max_length=16, model_input_names=names)
    images = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(folder, config, transformers.SiglipModel, transformers.SiglipProcessor(images, tokenizer))


def save_siglip2(folder: Path) -> Path:
    """SigLIP 2 with images in their own aspect ratio, at most 256 patches of 16."""
    ids = _vocabulary("<pad>", "</s>", "<unk>", *_BYTES)
    config = transformers.Siglip2Config(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "max_position_embeddings": 16,
            "projection_size": DIMENSIONS,
            "hidden_size": DIMENSIONS,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 1,
        },
        vision_config={**_TEXT, "hidden_size": DIMENSIONS, "patch_size": 16, "num_patches": 256},
    )
    names = ["input_ids"]  # as the real ones: no attention mask
    tokenizer = _byte_tokenizer(ids, "$A </s>", {"</s>": 1}, lower=True, model_max_length=16, model_input_names=names)
    images = transformers.Siglip2ImageProcessorPil()
    return _save(folder, config, transformers.Siglip2Model, transformers.Siglip2Processor(images, tokenizer))


def save_chinese_clip(folder: Path) -> Path:
    """Chinese CLIP: a BERT for texts."""
    characters = [*map(chr, range(33, 127)), *"一只猫坐在垫子上狗和红色的照片"]
    ids = _vocabulary("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters))
    config = transformers.ChineseCLIPConfig(
        text_config={**_TEXT, "vocab_size": len(ids), "max_position_embeddings": 64},
        vision_config=_VISION,
        projection_dim=DIMENSIONS,
    )
    tokenizer = transformers.BertTokenizer(vocab=ids, model_max_length=52)
    images = transformers.ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    return _save(folder, config, transformers.ChineseCLIPModel, transformers.ChineseCLIPProcessor(images, tokenizer))


def save_clap(folder: Path, fusion: bool = False) -> Path:
    """CLAP: sounds of 10 s at 48 kHz. With `fusion`, longer ones are looked at whole and in parts."""
    ids = _vocabulary("<s>", "<pad>", "</s>", "<unk>", *_BYTES, "<mask>")
    config = transformers.ClapConfig(
        text_config={**_TEXT, "vocab_size": len(ids), "max_position_embeddings": 66, "projection_dim": DIMENSIONS},
        audio_config={
            "spec_size": 256,
            "num_mel_bins": 64,
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "hidden_size": 32,
            "projection_dim": DIMENSIONS,
            "enable_fusion": fusion,
        },
        projection_dim=DIMENSIONS,
    )
    tokenizer = transformers.RobertaTokenizer(vocab=ids, merges=[], model_max_length=64)
    extractor = transformers.ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")
    return _save(folder, config, transformers.ClapModel, transformers.ClapProcessor(extractor, tokenizer))


def save_colpali(folder: Path) -> Path:
    """ColPali: an image of 32 x 32 becomes 16 tokens, and those of its prompt."""
    ids = _vocabulary("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{n:02X}>" for n in range(256)), "▁")
    tokenizer = transformers.GemmaTokenizer(vocab=ids, merges=[])
    images = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = transformers.ColPaliProcessor(images, tokenizer)
    vlm = transformers.PaliGemmaConfig(
        vision_config={**_VISION, "model_type": "siglip_vision_model", "projection_dim": 32},
        text_config={
            **_TEXT,
            "model_type": "gemma",
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
        },
        image_token_id=processor.image_token_id,
        projection_dim=32,
    )
    config = transformers.ColPaliConfig(vlm_config=vlm, embedding_dim=DIMENSIONS)
    return _save(folder, config, transformers.ColPaliForRetrieval, processor)


def save_colqwen2(folder: Path, version: str = "qwen2_vl") -> Path:
    """ColQwen2, or ColQwen2.5 as `version="qwen2_5_vl"`: images keep their aspect ratio, at most 16 tokens each."""
    ids = _vocabulary(*_BYTES, *_QWEN_TOKENS, "<|video_pad|>")
    tokenizer = transformers.Qwen2Tokenizer(vocab=ids, merges=[], pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": [*_QWEN_TOKENS[1:], "<|video_pad|>"]})
    images = transformers.Qwen2VLImageProcessorPil(min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28)
    eyes = {"depth": 2, "num_heads": 4}
    eyes |= (
        {"embed_dim": 32, "hidden_size": 32}
        if version == "qwen2_vl"
        else {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "fullatt_block_indexes": [1]}
    )
    text = {
        **_TEXT,
        "vocab_size": len(ids),
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vlm = transformers.AutoConfig.for_model(
        version,
        text_config=text,
        vision_config=eyes,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    config = transformers.ColQwen2Config(vlm_config=vlm, embedding_dim=DIMENSIONS)
    return _save(folder, config, transformers.ColQwen2ForRetrieval, transformers.ColQwen2Processor(images, tokenizer))


def save_colmodernvbert(folder: Path) -> Path:
    """ColModernVBert: images are cut into tiles of 32 x 32, four tokens each."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles]
    ids = _vocabulary("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_BYTES, *special)
    tokenizer = _byte_tokenizer(
        ids,
        "[CLS] $A [SEP]",
        {"[CLS]": 2, "[SEP]": 3},
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        additional_special_tokens=special,
        model_max_length=512,
    )
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, resample=3
    )
    processor = transformers.ColModernVBertProcessor(images, tokenizer, image_seq_len=4)
    vlm = transformers.ModernVBertConfig(
        text_config={
            **_TEXT,
            "model_type": "modernbert",
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
            "global_attn_every_n_layers": 2,
            "local_attention": 8,
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        vision_config={**_VISION, "model_type": "siglip_vision_model"},
        image_token_id=ids["<image>"],
        pixel_shuffle_factor=2,
    )
    config = transformers.ColModernVBertConfig(vlm_config=vlm, embedding_dim=DIMENSIONS)
    return _save(folder, config, transformers.ColModernVBertForRetrieval, processor)


SAVERS: dict[str, Callable[[Path], Path]] = {
    "clip": save_clip,
    "siglip": save_siglip,
    "siglip2": save_siglip2,
    "chinese_clip": save_chinese_clip,
    "clap": save_clap,
    "colpali": save_colpali,
    "colqwen2": save_colqwen2,
    "colqwen2.5": lambda folder: save_colqwen2(folder, "qwen2_5_vl"),
    "colmodernvbert": save_colmodernvbert,
}
"""By the names that tests use."""


def _vocabulary(*tokens: str) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def _byte_tokenizer(
    ids: dict[str, int], template: str, markers: dict[str, int], lower: bool = False, **options: Any
) -> Any:
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token="<unk>" if "<unk>" in ids else None))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(markers.items()))
    options = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", **options}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def _save(folder: Path, config: Any, model_class: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no zeros anywhere, so that a forgotten one shows
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
