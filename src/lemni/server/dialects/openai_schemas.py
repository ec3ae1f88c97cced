"""What the OpenAI dialect's bodies look like: checks the options of a request, and documents both sides at /docs.

Null means absent, unknown keys are ignored, as OpenAI's clients expect. `input` is checked by `lemni.server.inputs`, so
that a long list costs no pass through pydantic and its errors name the item.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from lemni.server.inputs import EncodingField, TruncateField, lower
from lemni.tasks.output_types import OutputType
from lemni.types import Priority

_INPUT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": {"type": "integer"}},
        {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": {"type": "integer"}}},
        {"type": "array", "minItems": 1, "items": {"type": "object"}},
    ],
    "description": "A text, a list of texts, the token ids of one text, or a list of those. "
    "Token ids are those of the served model's own tokenizer, special tokens included.",
}

EXAMPLES = {
    "text": {"summary": "One text", "value": {"input": "A cat sits on the mat."}},
    "texts": {
        "summary": "Several texts, vectors as base64 of float32",
        "value": {"input": ["A cat sits on the mat.", "A dog runs."], "encoding_format": "base64"},
    },
    "options": {
        "summary": "Shorter vectors; long texts refused",
        "value": {"input": ["A cat sits on the mat."], "dimensions": 128, "truncate": False},
    },
}


class EmbeddingsBody(BaseModel):
    """`POST /v1/embeddings`. The fields from `truncate` on are Lemni's own."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Annotated[Any, WithJsonSchema(_INPUT_SCHEMA)]
    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one model is served.")
    encoding_format: EncodingField = Field(
        None, description="float: lists of numbers. base64: little-endian float32, smaller and faster."
    )
    encoding: EncodingField = Field(None, description="Another name of encoding_format, which wins.")
    dimensions: int | None = Field(
        None, description="Keep the first N values and normalise again; 1 to the model's own size."
    )
    user: Any = Field(None, description="Ignored.")
    truncate: TruncateField = Field(
        None,
        description="Texts over the model's length: true or right (END) cuts the end, left (START) cuts the start, "
        "false or error (NONE) refuses them. As the server is set if not given.",
    )
    prompt: str | None = Field(None, max_length=10_000, description="Text put before every input.")
    prompt_name: str | None = Field(None, description="One of the model's prompts; see /v1/models.")
    input_type: str | None = Field(
        None,
        description="query or document (also search_query, search_document, passage): takes the model's prompt for "
        "it, if it has one. prompt and prompt_name win.",
    )
    normalize: bool | None = Field(None, description="Vectors of unit length; as the model does if not given.")
    priority: Annotated[Priority | None, BeforeValidator(lower)] = Field(
        None, description="bulk work yields to interactive work, which is the default."
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds until the request is given up with status 504; at most the server's request_timeout_s, "
        "which also holds if not given.",
    )
    output_type: Annotated[OutputType | Literal["int8_scaled"] | None, BeforeValidator(lower)] = Field(
        None,
        description="Number type of dense vectors: lists hold its numbers, base64 its bytes. int8 and uint8 count in "
        "the model's ranges, measured once; int8_scaled gives each vector's own `scale` beside it.",
    )
    outputs: list[Literal["dense", "sparse", "multi_vector"]] | None = Field(
        None,
        min_length=1,
        description="What to give for each input, from one forward pass, for models that give several (BGE-M3); "
        "what the model is made for if not given.",
    )


class SparseEmbedding(BaseModel):
    indices: list[int] = Field(description="Ids of vocabulary terms, ascending.")
    values: list[float]


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Place of the input.")
    embedding: list[float] | list[list[float]] | str = Field(
        description="Numbers, or base64 of little-endian float32; of a late-interaction model one row per token."
    )
    shape: list[int] | None = Field(None, description="[tokens, dim] of a multi-vector `embedding` in base64.")
    scale: float | None = Field(None, description="With int8_scaled: vector = embedding * scale.")
    sparse_embedding: SparseEmbedding | None = Field(None, description="Where `outputs` asks for it.")
    multi_vector: list[list[float]] | str | None = Field(None, description="Where `outputs` asks for it as well.")
    multi_vector_shape: list[int] | None = Field(None, description="[tokens, dim] of `multi_vector` in base64.")


class Usage(BaseModel):
    prompt_tokens: int = Field(description="Tokens that were computed, special tokens and prompts included.")
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(description="The served name.")
    usage: Usage

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.0263, 0.0554, -0.0251]}],
                "model": "sentence-transformers/all-MiniLM-L6-v2",
                "usage": {"prompt_tokens": 9, "total_tokens": 9},
            }
        }
    )


class CohereModel(BaseModel):
    """What Cohere's clients read of a model."""

    name: str
    endpoints: list[str]
    context_length: int


class Model(CohereModel):
    """OpenAI's four fields, Cohere's three; the rest is Lemni's."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time at which the model was loaded.")
    owned_by: str
    model_id: str
    revision: str | None
    architecture: str
    capabilities: list[str]
    backend: str = Field(description="The runtime that computes.")
    runtime: str
    device: str
    dtype: str
    parameters: int
    modalities: list[str]
    labels: list[str] = Field(description="Names of what it classifies into.")
    dimensions: int | None
    max_length: int = Field(description="Tokens of the longest input.")
    vocabulary: int
    matryoshka_dimensions: list[int] = Field(description="Sizes the model was trained for; empty if unknown.")
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity: str
    normalized: bool
    warnings: list[str]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
    models: list[CohereModel]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    error: ErrorDetail
    message: str
    detail: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "input[1] is a number; it must be a string or a list of token ids",
                    "type": "invalid_request_error",
                    "param": "input[1]",
                    "code": "invalid_request",
                },
                "message": "input[1] is a number; it must be a string or a list of token ids",
                "detail": "input[1] is a number; it must be a string or a list of token ids",
            }
        }
    )
