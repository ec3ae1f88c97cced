"""Late interaction (ColBERT, arXiv:2004.12832): one vector per token, and scores by MaxSim.

Queries are marked and expanded, documents marked and their punctuation left out. A text that is neither (no
`input_type`) is treated as sentence-transformers' `encode` treats it without a task: no marker, no expansion,
punctuation left out as of a document. Normalising and `dimensions` are done here, after the runtime.
Reference: sentence-transformers, `MultiVectorEncoder`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError, InvalidRequest, LemniError, ModelLoadError
from lemni.hub.spec import ModelSpec
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.runtimes.base import Head, Heads
from lemni.tasks.base import Loaded, Parts
from lemni.tasks.colbert_layouts import Expansion, Layout, read_layout
from lemni.tasks.dense import plain
from lemni.tasks.head import dense_layer
from lemni.tasks.pairwise import Pairwise
from lemni.tasks.similarity import maxsim, unit_length
from lemni.tasks.texts import Texts
from lemni.tasks.tokenizer import Named, Tokenizer
from lemni.tasks.tokenizer_files import load_tokenizer, special_tokens
from lemni.types import InputType, Item, Options, PackedBatch, Request, Row, Sequence

_Vectors = NDArray[np.float32]
_Side = InputType | None

# Families whose reference lets a token that none attends to attend to the others, as Lemni's runtimes do.
_EXPANDED_UNATTENDED = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "mpnet", "modernbert"}
)
# DeBERTa blanks such a token out, and what it becomes then depends on how wide the batch is padded.
_BLANKED = frozenset({"deberta", "deberta-v2"})


def heads(spec: ModelSpec) -> Heads:
    layers = read_layout(spec).layers

    def project(ops: Ops) -> Head:
        modules = [dense_layer(layer, ops) for layer in layers]

        def head(hidden: Tensor, inputs: Inputs) -> Tensor:
            for module in modules:
                hidden = module(hidden)
            return hidden

        return head

    return {"multi_vector": project}


def load(parts: Parts) -> Loaded:
    layout = read_layout(parts.spec)
    if parts.truncate == "chunk":
        raise ConfigError(f'truncate is "chunk", but {parts.name} gives many vectors of a text, which are not averaged')
    if layout.expansion is not None:
        _check(layout.expansion, parts)
    parts = dataclasses.replace(parts, spec=dataclasses.replace(parts.spec, prompts=layout.prompts))
    library = load_tokenizer(parts.spec.transformer_path)
    _register(layout.markers, library)
    texts = {side: _texts(parts, side, length, library) for side, length in _lengths(layout, parts).items()}
    [probe] = parts.backend.replica(0).run(PackedBatch.pack([Sequence(np.zeros(1, dtype=np.int32), ("multi_vector",))]))
    size = int(probe["multi_vector"].shape[-1])
    task = MultiVectorTask(parts, layout, texts, library, size)
    return Loaded(
        {"multi_vector": task, "score": Pairwise(task, task.similarities)},
        texts[None].tokenizer,
        size,
        prompts=layout.prompts,
    )


class MultiVectorTask:
    """The task "multi_vector" of a text model.

    Args:
        texts: one for each side, with its own length.
        library: the `tokenizers.Tokenizer` of all.
        size: length of a row.
    """

    def __init__(self, parts: Parts, layout: Layout, texts: Mapping[_Side, Texts], library: Any, size: int) -> None:
        self._name = parts.name
        self._texts = texts
        self._size = size
        self._normalize = layout.normalize
        self._mean = parts.spec.similarity == "meanmaxsim"
        self._expansion = layout.expansion
        self._filling = 0
        if layout.expansion is not None:
            self._filling = _expansion_id(layout.expansion, library, parts.spec)
        self._left_out = np.array(_known(layout.left_out, library, parts.spec), dtype=np.int32)
        self._left_out_sides = layout.left_out_sides
        self._kept_ids = None if layout.kept_ids is None else np.array(layout.kept_ids, dtype=np.int32)

    def validate(self, request: Request) -> None:
        options = request.options
        if options.dimensions is not None and not 1 <= options.dimensions <= self._size:
            raise InvalidRequest(
                f"dimensions is {options.dimensions}, but {self._name} gives vectors of 1 to {self._size}",
                param="dimensions",
            )
        if options.truncate == "chunk":
            raise InvalidRequest('truncate is "chunk", but many vectors of a text are not averaged', param="truncate")
        self._texts[None].validate(options)

    def estimate(self, item: Item, request: Request) -> int:
        side = request.options.input_type
        tokens = self._texts[side].estimate(plain(item, self._name), request.options, side)
        return max(tokens, self._expansion.length) if self._expansion and side == "query" else tokens

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items = request.items[start:stop]
        return self.encode_items(items, request.options, lambda place: request.named(start + place))

    def encode_items(
        self, items: Seq[Any], options: Options, named: Named, side: _Side = None
    ) -> list[list[Sequence] | LemniError]:
        """The sequence of each text or list of token ids; `side` wins over the options'."""
        own = side or options.input_type
        options = dataclasses.replace(options, input_type=own)
        found = self._texts[own].encode(items, options, ("multi_vector",), named, side)
        return [one if isinstance(one, LemniError) else [self._finished(part, own) for part in one] for one in found]

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"multi_vectors": tuple(self._vectors(rows, request.options) for rows in items)}

    def similarities(self, firsts: Seq[Seq[Row]], seconds: Seq[Seq[Row]], options: Options) -> _Vectors:
        """float32 [pairs]: MaxSim, or its mean over the query's rows if the model's similarity is that."""
        scores = []
        for first, second in zip(firsts, seconds, strict=True):
            query, document = self._vectors(first, options), self._vectors(second, options)
            score = maxsim(query, document) if len(query) and len(document) else 0.0
            scores.append(score / max(len(query), 1) if self._mean else score)
        return np.array(scores, dtype=np.float32)

    def _finished(self, sequence: Sequence, side: _Side) -> Sequence:
        """Expanded, and with the spans of the tokens whose rows are kept, if not all are."""
        if self._expansion is not None and side == "query":
            missing = max(self._expansion.length - len(sequence.ids), 0)
            ids = np.pad(sequence.ids, (0, missing), constant_values=self._filling)
            sequence = dataclasses.replace(sequence, ids=ids, unattended=0 if self._expansion.attend else missing)
        keep = np.ones(len(sequence.ids), dtype=bool)
        if (side or "document") in self._left_out_sides:
            keep &= ~np.isin(sequence.ids, self._left_out)
        if self._kept_ids is not None and side != "query":
            keep &= np.isin(sequence.ids, self._kept_ids)
        return sequence if keep.all() else dataclasses.replace(sequence, spans=_runs(keep))

    def _vectors(self, rows: Seq[Row], options: Options) -> _Vectors:
        """[tokens, dimensions] of one item, C-contiguous."""
        [row] = rows
        vectors = row.outputs["multi_vector"]
        if row.sequence.spans is not None:
            vectors = np.concatenate([vectors[:0], *(vectors[start:stop] for start, stop in row.sequence.spans)])
        normalize = self._normalize if options.normalize is None else options.normalize
        if options.dimensions is not None:
            vectors = np.ascontiguousarray(vectors[:, : options.dimensions])
            # Cut rows are no longer of unit length.
            normalize = options.normalize is not False
        return unit_length(vectors) if normalize else np.ascontiguousarray(vectors)


def _texts(parts: Parts, side: _Side, length: int, library: Any) -> Texts:
    return Texts(parts, Tokenizer(parts.spec, length, parts.spec.config.get("vocab_size"), library))


def _lengths(layout: Layout, parts: Parts) -> dict[_Side, int]:
    """Tokens of the longest text of each side. A `max_length` from the settings wins over the document's."""
    positions = parts.backend.max_positions
    own = [length for length in (parts.spec.max_length, positions) if length is not None]
    chosen = parts.max_length if own and parts.max_length != min(own) else None
    expansion = layout.expansion
    query = layout.query_length
    if expansion is not None:
        query = expansion.length if expansion.fixed else max(query or parts.max_length, expansion.length)

    def within(length: int | None) -> int:
        length = parts.max_length if length is None else length
        return length if positions is None else min(length, positions)

    return {None: parts.max_length, "query": within(query), "document": chosen or within(layout.document_length)}


def _check(expansion: Expansion, parts: Parts) -> None:
    """Raises ModelLoadError where an expansion would not give the reference's numbers."""
    spec, backend = parts.spec, parts.backend
    if backend.max_positions is not None and expansion.length > backend.max_positions:
        raise ModelLoadError(
            f"{spec.files.id} expands queries to {expansion.length} tokens, but has positions for "
            f"{backend.max_positions}"
        )
    if spec.padding_side == "left":
        raise ModelLoadError(f"{spec.files.id} expands queries on the left, which is not supported")
    if not expansion.attend and spec.model_type in _BLANKED:
        raise ModelLoadError(
            f"{spec.files.id}: queries are expanded by tokens that none attends to, whose vectors {spec.model_type} "
            "makes depend on the batch"
        )
    if expansion.attend or backend.name not in ("openvino", "torch"):
        return
    hint = "the transformers runtime can (--runtime transformers, extra 'torch')"
    if spec.model_type not in _EXPANDED_UNATTENDED:
        raise ModelLoadError(
            f"{spec.files.id}: queries are expanded by tokens that none attends to, which the {backend.name} runtime "
            f"cannot do for {spec.model_type}; {hint}"
        )
    window = spec.config.get("local_attention", 128) // 2 if spec.model_type == "modernbert" else None
    if window is not None and expansion.length > window + 1:
        # Tokens with nothing in sight: what they become is up to the implementation of the reference.
        raise ModelLoadError(
            f"{spec.files.id}: queries are expanded to {expansion.length} tokens that none attends to, more than the "
            f"{window} that its layers look back; the {backend.name} runtime cannot do that; {hint}"
        )


def _register(markers: tuple[str, ...], library: Any) -> None:
    """Make markers that the vocabulary knows single tokens, as `MultiVectorEncoder._register_prefix_tokens` does."""
    from tokenizers import AddedToken

    known = library.get_vocab(with_added_tokens=True)
    found = []
    for marker in markers:
        for candidate in (marker, *marker.split(None, 1)[:1]):
            if candidate in known:
                if library.encode(candidate, add_special_tokens=False).tokens != [candidate]:
                    found.append(AddedToken(candidate, normalized=False, special=True))
                break
    if found:
        library.add_special_tokens(found)


def _expansion_id(expansion: Expansion, library: Any, spec: ModelSpec) -> int:
    # Classes of tokenizers have mask tokens by default, which their files may leave out.
    own = special_tokens(spec.transformer_path)
    defaults = (own.get("mask_token"), "[MASK]", "<mask>", own.get("eos_token"))
    names = defaults if expansion.token is None else (expansion.token,)
    for name in names:
        identity: int | None = library.token_to_id(name) if name else None
        if identity is not None:
            return identity
    raise ModelLoadError(f"{spec.files.id} expands queries by {expansion.token or 'a mask token'!r}, which it lacks")


def _known(words: tuple[str, ...], library: Any, spec: ModelSpec) -> list[int]:
    """The ids of those words that are single tokens."""
    unknown = special_tokens(spec.transformer_path).get("unk_token")
    ids = {word: library.token_to_id(word) for word in words}
    nothing = None if unknown is None else library.token_to_id(unknown)
    return [
        identity for word, identity in ids.items() if identity is not None and (identity != nothing or word == unknown)
    ]


def _runs(keep: NDArray[np.bool_]) -> NDArray[np.int32]:
    """int32 [runs, 2]: where consecutive true values begin and end."""
    changes = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0))
    return changes.reshape(-1, 2).astype(np.int32)
