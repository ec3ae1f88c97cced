"""How causal rerankers are prompted, and which two words of their next token make the score.

A layout turns an instruction, a query and a document into a prompt, of which only the document may be cut. Each is
a row of `_LAYOUTS`: folders of sentence-transformers say it all in files; the original Qwen3-Reranker and
mxbai-rerank-v2 have it in their model card or package, so they are known by name. A folder that no row takes is
refused, because a wrong prompt gives scores that look right. Called by `lemni.tasks.causal_reranker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.hub.chat_templates import chat_templates, names_pair_roles
from lemni.hub.jsonfile import read_json, read_json_value
from lemni.hub.kinds import named_like
from lemni.hub.spec import ModelSpec
from lemni.tasks.activations import ACTIVATIONS, Function, score_activation
from lemni.tasks.templates import PairTemplate, reads_parts
from lemni.tasks.tokenizer_files import special_tokens

_Ids = NDArray[np.int32]

# Arguments of `apply_chat_template` that are none of the template's, and those that would change the tokens.
_NOT_VARIABLES = ("chat_template", "padding", "truncation", "max_length", "return_tensors", "restore_suffix")
_UNSUPPORTED = ("continue_final_message", "sanitize_control_tokens")

_QWEN_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_QWEN_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_QWEN_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

_MXBAI_PREFIX = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:"
)
_MXBAI_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Words:
    """Ids in the vocabulary: the score is the logit of `true`, less that of `false` if there is one."""

    true: int
    false: int | None


@dataclass(frozen=True)
class Frame:
    """The prompt of one query, open for its documents: `head` + `body(document)` + `tail`.

    Attributes:
        body: the text around a document; tokenised as one, since words may join where texts meet.
        tail: the tokens at the end that are never cut.
        closed: `body` ends in the text of `tail` already.
        cut_query: tokens that the query has and may have, if it was cut by itself.
    """

    head: _Ids
    body: Callable[[str], str]
    tail: _Ids
    closed: bool = False
    cut_query: tuple[int, int] | None = None


class Prompts(Protocol):
    """How one model is prompted.

    Attributes:
        document_last: nothing but `tail` follows the document, so that cutting the body's end cuts the document.
    """

    @property
    def document_last(self) -> bool: ...

    def frames(self, instruction: str, max_length: int) -> Callable[[str], Frame]:
        """Opens the prompt of a query."""
        ...


@dataclass(frozen=True)
class Layout:
    """Attributes:
    prompts: None for a model that reads query and document as a pair joined by the tokenizer.
    activation: of the score, where a request does not say.
    named: instructions by name, where the model's files have none; the one called "default" is taken.
    max_length: a limit in the files beside those that every model has.
    """

    words: Words
    prompts: Prompts | None
    activation: Function
    named: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None


@dataclass(frozen=True)
class ChatPrompts:
    """A chat template. Reference: sentence-transformers, `base/modules/transformer.py`, `_process_chat_messages`."""

    template: PairTemplate
    tokenizer: Any

    @property
    def document_last(self) -> bool:
        return self.template.document_last

    def frames(self, instruction: str, max_length: int) -> Callable[[str], Frame]:
        render, none = self.template.render, np.zeros(0, dtype=np.int32)
        tail = _common_end(*(self._ids(render(text, text, instruction)) for text in ("0", "1 2 3 4")))
        return lambda query: Frame(none, lambda document: render(query, document, instruction), tail, closed=True)

    def _ids(self, text: str) -> _Ids:
        return _ids(self.tokenizer, text)


@dataclass(frozen=True)
class QwenPrompts:
    """Reference: the model card of Qwen3-Reranker, `format_instruction` and `process_inputs`."""

    tokenizer: Any
    document_last: bool = True

    def frames(self, instruction: str, max_length: int) -> Callable[[str], Frame]:
        head, tail = _ids(self.tokenizer, _QWEN_PREFIX), _ids(self.tokenizer, _QWEN_SUFFIX)

        def frame(query: str) -> Frame:
            start = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: "
            return Frame(head, lambda document: start + document, tail)

        return frame


@dataclass(frozen=True)
class MxbaiPrompts:
    """Reference: mxbai-rerank 0.1.6, `mxbai_rerank_v2.py`, `prepare_inputs`. Its `max_length` leaves the fixed parts
    out; here it is that of the whole prompt."""

    tokenizer: Any
    document_last: bool = True

    def frames(self, instruction: str, max_length: int) -> Callable[[str], Frame]:
        prefix, between, task, suffix = (
            _ids(self.tokenizer, text) for text in (_MXBAI_PREFIX, "\n", _MXBAI_TASK, _MXBAI_SUFFIX)
        )
        tail = np.concatenate([between, task, suffix])
        room = max(max_length - len(prefix) - len(tail), 0)
        start = f"instruction: {instruction}\nquery: " if instruction else "query: "

        def frame(query: str) -> Frame:
            asked, most = _ids(self.tokenizer, start + query), room * 3 // 4
            head = np.concatenate([prefix, asked[:most], between])
            cut = (len(asked), most) if len(asked) > most else None
            return Frame(head, lambda document: f"document: {document}", tail, cut_query=cut)

        return frame


def same_layout(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether two causal rerankers are prompted in the same way; those without a layout are alike."""
    rows = [next((row for row in _LAYOUTS if row.knows(spec)), None) for spec in (one, other)]
    return rows[0] is rows[1]


def words_of(spec: ModelSpec, tokenizer: Any) -> Words:
    """Of a model's layout. Raises ModelLoadError if it has none."""
    return _row(spec).words(spec, tokenizer)


def layout_of(spec: ModelSpec, tokenizer: Any) -> Layout:
    """The layout of a model, whose `tokenizers.Tokenizer` is given. Raises ModelLoadError if it has none."""
    row = _row(spec)
    return row.layout(spec, tokenizer, row.words(spec, tokenizer))


def _saved_words(spec: ModelSpec, tokenizer: Any) -> Words:
    """Those of `LogitScore`, the last module of two."""
    listing = spec.files.path / "modules.json"
    entries = [(str(entry.get("type")), str(entry.get("path", ""))) for entry in read_json_value(listing)]
    types = [kind.rpartition(".")[2] for kind, _ in entries]
    if types != ["Transformer", "LogitScore"] or not all(kind.startswith("sentence_transf") for kind, _ in entries):
        raise ModelLoadError(f"{listing}: beside LogitScore only a Transformer is supported, not {', '.join(types)}")
    file = spec.files.path / entries[1][1] / "config.json"
    config = read_json(file)
    true, false = config.get("true_token_id"), config.get("false_token_id")
    if type(true) is not int or (false is not None and type(false) is not int):
        raise ModelLoadError(f"{file}: true_token_id and false_token_id must be ids of tokens, not {true!r}, {false!r}")
    return Words(true, false)


def _single(*texts: str) -> Callable[[ModelSpec, Any], Words]:
    def words(spec: ModelSpec, tokenizer: Any) -> Words:
        true, false = (tokenizer.token_to_id(text) for text in texts)
        if true is None or false is None:
            raise ModelLoadError(
                f"{spec.files.id}: such a reranker answers {texts[0]!r} or {texts[1]!r}, but its vocabulary has not "
                "both as single tokens. If others stand for them, save the model with sentence-transformers: "
                "modules.json with a LogitScore module, whose config.json has true_token_id and false_token_id"
            )
        return Words(true, false)

    return words


def _saved(spec: ModelSpec, tokenizer: Any, words: Words) -> Layout:
    """A folder that sentence-transformers saved."""
    file = spec.transformer_path / "sentence_bert_config.json"
    config = read_json(file) if file.is_file() else {}
    task = config.get("transformer_task")
    if task != "text-generation":
        raise ModelLoadError(f'{file}: transformer_task is {task!r}, but LogitScore needs "text-generation"')
    processing = config.get("processing_kwargs") or {}
    chat, text, common = (processing.get(key) or {} for key in ("chat_template", "text", "common"))
    limits = (bucket.get("max_length") for bucket in (chat, text, common))
    limit = next((limit for limit in limits if limit is not None), None)
    message = (config.get("modality_config") or {}).get("message")
    prompts = None if message is None else _chat(spec, tokenizer, chat, message.get("format", "auto"))
    return Layout(words, prompts, score_activation(spec), max_length=limit)


def _templated(spec: ModelSpec, tokenizer: Any, words: Words) -> Layout:
    """A folder of transformers, as `CrossEncoder` loads it: a template with the roles, and yes or no."""
    return Layout(words, _chat(spec, tokenizer, {}, "auto"), score_activation(spec))


def _chat(spec: ModelSpec, tokenizer: Any, variables: dict[str, Any], form: str) -> ChatPrompts:
    model, folder = spec.files.id, spec.transformer_path
    templates = chat_templates(folder)
    wanted = variables.get("chat_template")
    source = templates.get("default") if wanted is None else templates.get(wanted, wanted)
    if source is None:
        raise ModelLoadError(f"{model}: has no chat template (chat_template.jinja), which its prompts are made by")
    if found := [name for name in _UNSUPPORTED if variables.get(name)]:
        raise ModelLoadError(f"{model}: {found[0]} in processing_kwargs of sentence_bert_config.json is not supported")
    seen = {name: value for name, value in variables.items() if name not in _NOT_VARIABLES}
    structured = form == "structured" or (form == "auto" and reads_parts(source, spec.model_type))
    template = PairTemplate(source, {**special_tokens(folder), **seen}, structured=structured, model=model)
    return ChatPrompts(template, tokenizer)


def _qwen(spec: ModelSpec, tokenizer: Any, words: Words) -> Layout:
    return Layout(words, QwenPrompts(tokenizer), ACTIVATIONS["sigmoid"], {"default": _QWEN_INSTRUCTION})


def _mxbai(spec: ModelSpec, tokenizer: Any, words: Words) -> Layout:
    return Layout(words, MxbaiPrompts(tokenizer), ACTIVATIONS["none"])


@dataclass(frozen=True)
class _Row:
    """A kind of folder: how it is known, and what it means."""

    knows: Callable[[ModelSpec], bool]
    words: Callable[[ModelSpec, Any], Words]
    layout: Callable[[ModelSpec, Any, Words], Layout]


def _like(spec: ModelSpec, architecture: str, name: str) -> bool:
    is_it = architecture in spec.architectures[:1]
    return is_it and (name in spec.files.id.lower() or named_like(spec.config, spec.files.path, name))


# The first that knows a folder is taken.
_LAYOUTS = (
    _Row(lambda spec: (spec.files.path / "modules.json").is_file(), _saved_words, _saved),
    _Row(lambda spec: names_pair_roles(spec.transformer_path), _single("yes", "no"), _templated),
    _Row(lambda spec: _like(spec, "Qwen2ForCausalLM", "mxbai-rerank"), _single("1", "0"), _mxbai),
    _Row(lambda spec: _like(spec, "Qwen3ForCausalLM", "reranker"), _single("yes", "no"), _qwen),
)


def _row(spec: ModelSpec) -> _Row:
    for row in _LAYOUTS:
        if row.knows(spec):
            return row
    raise ModelLoadError(
        f"{spec.files.id} is a {next(iter(spec.architectures), spec.model_type)} that is named like a reranker, but "
        "nothing says how it is prompted, and a guess would give random scores. Give it a chat_template.jinja that "
        'renders the messages of the roles "query" and "document" (the words are then yes and no), or save it with '
        "sentence-transformers (modules.json with LogitScore)"
    )


def _ids(tokenizer: Any, text: str) -> _Ids:
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)


def _common_end(first: _Ids, second: _Ids) -> _Ids:
    size = min(len(first), len(second))
    differs = np.nonzero(first[len(first) - size :] != second[len(second) - size :])[0]
    return first[len(first) - size + differs[-1] + 1 :] if len(differs) else first[:0]
