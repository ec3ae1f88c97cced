"""Models of text with images or sound: CLIP and its kin (one vector per item), ColPali and its kin (many).

Texts take the way of every text model, with the templates of the model's own processor; images and sounds go through
`processors.py`. Every item is one modality: transformers' classes for these models read no text beside an image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, LemniError, ModelLoadError
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import Heads
from lemni.tasks.base import Loaded, Parts, TaskModel
from lemni.tasks.dense import DenseTask
from lemni.tasks.feature_memory import FeatureMemory
from lemni.tasks.pairwise import Pairwise
from lemni.tasks.processors import Media, PageImages, Sounds, TowerImages, need, pretrained
from lemni.tasks.similarity import maxsim, unit_length
from lemni.tasks.texts import Texts
from lemni.tasks.tokenizer import Named, Tokenizer
from lemni.types import (
    Audio,
    Chunks,
    Features,
    Image,
    InputType,
    Item,
    Mixed,
    Options,
    Output,
    PackedBatch,
    Pair,
    Request,
    Row,
    Sequence,
    Task,
    Truncate,
)

logger = logging.getLogger(__name__)

_Outcomes: TypeAlias = list[list[Sequence] | LemniError]

# Trained on texts padded to one length.
_FIXED_LENGTH = frozenset({"siglip", "siglip2"})
# Modality -> modules, with their packages and extras.
_PACKAGES = {
    "image": (("PIL", "pillow", "images"),),
    "audio": (("soundfile", "soundfile", "audio"), ("soxr", "soxr", "audio")),
}


def heads(spec: ModelSpec) -> Heads:
    return {}  # the model's class computes everything


def load(parts: Parts) -> Loaded:
    for module, package, extra in _PACKAGES["audio" if parts.spec.model_type == "clap" else "image"]:
        need(module, package, extra, parts.spec.transformer_path)
    [probe] = parts.backend.replica(0).run(PackedBatch.pack([Sequence(np.zeros(1, dtype=np.int32))]))
    config = pretrained("AutoConfig", parts.spec.transformer_path)
    if "multi_vector" in parts.backend.outputs:
        return _load_pages(parts, config, int(probe["multi_vector"].shape[-1]))
    return _load_towers(parts, config, int(probe["dense"].shape[-1]))


def _load_towers(parts: Parts, config: Any, dimensions: int) -> Loaded:
    spec, folder = parts.spec, parts.spec.transformer_path
    own = _own_tokenizer(spec)
    library = getattr(own, "backend_tokenizer", None)
    tokenizer = Tokenizer(spec, parts.max_length, config.text_config.vocab_size, library)
    media: Media
    if spec.model_type == "clap":
        media = Sounds(folder, _audio_tokens(config.audio_config), parts.media)
    else:
        media = TowerImages(folder, config.vision_config.patch_size, parts.media)
    padding = None
    if spec.model_type in _FIXED_LENGTH:
        identity = tokenizer.filler if own is None else own.pad_token_id
        side = spec.padding_side if own is None else own.padding_side
        padding = Padding(config.text_config.max_position_embeddings, identity, side)
    embed = TowerTask(parts, Texts(parts, tokenizer), dimensions, Inputs(parts.name, media), padding)
    tasks: dict[Task, TaskModel] = {"embed": embed, "score": Pairwise(embed, embed.similarities)}
    return Loaded(tasks, tokenizer, spec.truncate_dim or dimensions, modalities=("text", media.modality))


def _load_pages(parts: Parts, config: Any, dimensions: int) -> Loaded:
    processor = pretrained("AutoProcessor", parts.spec.transformer_path)
    patch_size = config.vlm_config.vision_config.patch_size
    media = PageImages(processor, patch_size, parts.max_length, parts.media)
    prompts = {"query": processor.query_prefix, "document": "", **parts.spec.prompts}
    parts = dataclasses.replace(parts, spec=dataclasses.replace(parts.spec, prompts=prompts))
    library, vocabulary = processor.tokenizer.backend_tokenizer, config.get_text_config().vocab_size
    templates = _templates(parts, processor, library, vocabulary)
    tokenizer = templates["document"].tokenizer
    task = PageTask(parts, Texts(parts, tokenizer), templates, dimensions, Inputs(parts.name, media))
    tasks: dict[Task, TaskModel] = {"multi_vector": task, "score": Pairwise(task, task.similarities)}
    return Loaded(tasks, tokenizer, dimensions, modalities=("text", "image"), prompts=prompts)


def _own_tokenizer(spec: ModelSpec) -> Any:
    """transformers' tokenizer of the folder, or None where it cannot be made, such as SigLIP's without sentencepiece:
    then the folder's tokenizer.json serves."""
    try:
        return pretrained("AutoTokenizer", spec.transformer_path)
    except ModelLoadError as error:
        logger.info("%s: the tokenizer is read from tokenizer.json: %s", spec.files.id, error)
        return None


def _audio_tokens(config: Any) -> int:
    """Tokens of the last stage of CLAP's encoder (HTSAT), where each stage but the first halves both sides."""
    stride = config.patch_stride if isinstance(config.patch_stride, int) else config.patch_stride[0]
    side: int = config.spec_size // stride >> (len(config.depths) - 1)
    return max(1, side * side)


class Inputs:
    """Sorts a model's items into texts and what its processor prepares."""

    def __init__(self, name: str, media: Media) -> None:
        self._name = name
        self._media = media
        self._type = {"image": Image, "audio": Audio}[media.modality]
        self._memory = FeatureMemory()

    def plain(self, item: Item) -> str | Seq[int] | Image | Audio:
        """The item, or the one part of it. Raises InvalidRequest."""
        if isinstance(item, Mixed) and len(item.parts) == 1:
            item = item.parts[0]
        if isinstance(item, Mixed):
            raise InvalidRequest(f"{self._name} takes a text or an image as one input, not several together")
        if isinstance(item, Chunks | Pair):
            raise InvalidRequest(f"{self._name} embeds single inputs, neither pairs nor chunks of a document")
        if isinstance(item, Image | Audio) and not isinstance(item, self._type):
            kind = type(item).__name__.lower()
            raise InvalidRequest(f"{self._name} takes no {kind}; it takes text and {self._media.modality}")
        return item

    def estimate(self, item: Item, texts: Callable[[str | Seq[int]], int]) -> int:
        """A guess at the size of an item; `texts` makes it for those."""
        item = self.plain(item)
        return self._media.typical if isinstance(item, Image | Audio) else texts(item)

    def encode(
        self,
        items: Seq[Item],
        output: Output,
        truncate: Truncate,
        named: Named,
        texts: Callable[[list[str | Seq[int]], Named], _Outcomes],
    ) -> _Outcomes:
        """The sequences or the own error of each item; `texts` encodes those."""
        plain = [self.plain(item) for item in items]
        places = [place for place, item in enumerate(plain) if not isinstance(item, Image | Audio)]
        found = texts([item for item in plain if not isinstance(item, Image | Audio)], lambda at: named(places[at]))
        of_texts = dict(zip(places, found, strict=True))
        return [
            self._prepare(item, output, truncate, named(place)) if isinstance(item, Image | Audio) else of_texts[place]
            for place, item in enumerate(plain)
        ]

    def _prepare(
        self, item: Image | Audio, output: Output, truncate: Truncate, name: str
    ) -> list[Sequence] | LemniError:
        try:
            one = self._media(item.data, truncate)
        except InvalidRequest as error:
            return type(error)(f"{name}: {error.message}")
        arrays = self._memory.keep(one.arrays, lambda: self._media(item.data, truncate).arrays)
        # A model has one processor, for one modality besides text: equal bytes are equal arrays.
        features = Features(arrays, hashlib.blake2b(item.data, digest_size=16).digest())
        return [Sequence(one.ids, (output,), truncated=one.truncated, features=features, size=one.size)]


@dataclass(frozen=True)
class Padding:
    """Every text to one length.

    Attributes:
        identity: id of the padding token.
    """

    length: int
    identity: int
    side: str

    def __call__(self, sequence: Sequence) -> Sequence:
        missing = self.length - len(sequence.ids)
        around = (missing, 0) if self.side == "left" else (0, missing)
        return dataclasses.replace(sequence, ids=np.pad(sequence.ids, around, constant_values=self.identity))


class TowerTask(DenseTask):
    """The task "embed": texts and images, or texts and sounds, in one space."""

    def __init__(self, parts: Parts, texts: Texts, size: int, inputs: Inputs, padding: Padding | None) -> None:
        super().__init__(parts, texts, size)
        self._inputs = inputs
        self._padding = padding

    def estimate(self, item: Item, request: Request) -> int:
        if self._padding is not None:
            return self._inputs.estimate(item, lambda text: self._padding.length if self._padding else 1)
        return self._inputs.estimate(item, lambda text: self.texts.estimate(text, request.options))

    def encode_items(self, items: Seq[Any], options: Options, named: Named, side: InputType | None = None) -> _Outcomes:
        def texts(plain: list[str | Seq[int]], named: Named) -> _Outcomes:
            found = self.texts.encode(plain, options, ("dense",), named, side)
            if self._padding is None:
                return found
            return [one if isinstance(one, LemniError) else list(map(self._padding, one)) for one in found]

        return self._inputs.encode(items, "dense", options.truncate or self.texts.truncate, named, texts)


@dataclass(frozen=True)
class Template:
    """How a text of one side of a search is written; its prompt stands between head and text.

    Attributes:
        tokenizer: leaves room for the tail.
        tail: int32 ids after the text, before the `closing` markers that the tokenizer puts at the end.
    """

    head: str
    tokenizer: Tokenizer
    tail: NDArray[np.int32]
    closing: int

    def __call__(self, texts: list[str], prompt: str, truncate: Truncate, named: Named) -> list[Sequence | LemniError]:
        """A text over the limit loses its own end, never the tail."""
        found = self.tokenizer.encode(texts, truncate, named, self.head + prompt)
        return [one if isinstance(one, LemniError) else self._with_tail(one) for one in found]

    def _with_tail(self, sequence: Sequence) -> Sequence:
        text, closing = np.split(sequence.ids, [len(sequence.ids) - self.closing])
        return dataclasses.replace(sequence, ids=np.concatenate([text, self.tail, closing]))


def _templates(parts: Parts, processor: Any, library: Any, vocabulary: int) -> dict[InputType, Template]:
    """The queries of `process_queries`; documents are written alike, without the ten augmentation tokens at the end."""
    kind = parts.spec.model_type
    head = processor.tokenizer.bos_token if kind == "colpali" else ""
    tails = {
        "query": processor.query_augmentation_token * 10 + ("" if kind == "colmodernvbert" else "\n"),
        "document": "\n" if kind == "colpali" else "",
    }
    closing = 0
    for special in reversed(library.encode("a").special_tokens_mask):
        if not special:
            break
        closing += 1

    def template(tail: str) -> Template:
        ids = np.array(library.encode(tail, add_special_tokens=False).ids, dtype=np.int32)
        tokenizer = Tokenizer(parts.spec, parts.max_length - len(ids), vocabulary, library)
        return Template(head, tokenizer, ids, closing)

    return {"query": template(tails["query"]), "document": template(tails["document"])}


class PageTask:
    """The task "multi_vector": texts are queries unless something says otherwise, images are documents."""

    def __init__(
        self, parts: Parts, texts: Texts, templates: Mapping[InputType, Template], size: int, inputs: Inputs
    ) -> None:
        self._name = parts.name
        self._texts = texts
        self._templates = templates
        self._size = size
        self._inputs = inputs

    def validate(self, request: Request) -> None:
        options = request.options
        if options.dimensions is not None and not 1 <= options.dimensions <= self._size:
            raise InvalidRequest(
                f"dimensions is {options.dimensions}, but {self._name} gives vectors of 1 to {self._size}",
                param="dimensions",
            )
        if options.truncate == "chunk":
            raise InvalidRequest('truncate is "chunk", but many vectors of a text are not averaged', param="truncate")
        self._texts.validate(options)

    def estimate(self, item: Item, request: Request) -> int:
        tail = len(self._templates["query"].tail)
        return self._inputs.estimate(item, lambda text: tail + self._texts.estimate(text, request.options))

    def encode(self, request: Request, start: int, stop: int) -> _Outcomes:
        items = request.items[start:stop]
        return self.encode_items(items, request.options, lambda place: request.named(start + place))

    def encode_items(self, items: Seq[Any], options: Options, named: Named, side: InputType | None = None) -> _Outcomes:
        truncate = options.truncate or self._texts.truncate

        def texts(plain: list[str | Seq[int]], named: Named) -> _Outcomes:
            return self._encode_texts(plain, options, truncate, named, side)

        return self._inputs.encode(items, "multi_vector", truncate, named, texts)

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"multi_vectors": tuple(self._vectors(rows, request.options) for rows in items)}

    def similarities(self, firsts: Seq[Seq[Row]], seconds: Seq[Seq[Row]], options: Options) -> NDArray[np.float32]:
        """float32 [pairs]: MaxSim."""
        pairs = zip(firsts, seconds, strict=True)
        scores = [maxsim(self._vectors(first, options), self._vectors(second, options)) for first, second in pairs]
        return np.array(scores, dtype=np.float32)

    def _encode_texts(
        self, items: list[str | Seq[int]], options: Options, truncate: Truncate, named: Named, side: InputType | None
    ) -> _Outcomes:
        named_side: InputType | None = "document" if options.prompt_name == "document" else None
        side = options.input_type or named_side or side or "query"
        prompt = self._texts.prompt(options, side)
        places = [place for place, item in enumerate(items) if isinstance(item, str)]
        others = [place for place, item in enumerate(items) if not isinstance(item, str)]
        strings = [item for item in items if isinstance(item, str)]
        # Token ids are a whole sequence already.
        ids = [items[place] for place in others]
        of_strings = self._templates[side](strings, prompt, truncate, lambda at: named(places[at]))
        of_ids = self._texts.tokenizer.encode(ids, truncate, lambda at: named(others[at]))
        found = dict(zip((*places, *others), (*of_strings, *of_ids), strict=True))
        outputs: tuple[Output, ...] = ("multi_vector",)
        return [
            one if isinstance(one, LemniError) else [dataclasses.replace(one, outputs=outputs)]
            for one in (found[place] for place in range(len(items)))
        ]

    def _vectors(self, rows: Seq[Row], options: Options) -> NDArray[np.float32]:
        """[tokens, dimensions] of one item, rows of unit length."""
        [row] = rows
        vectors = row.outputs["multi_vector"]
        if options.dimensions is None:
            return vectors
        cut = np.ascontiguousarray(vectors[:, : options.dimensions])
        return cut if options.normalize is False else unit_length(cut)
