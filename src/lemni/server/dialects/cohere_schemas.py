"""What Cohere's bodies look like: embed (v1 and v2), classify, tokenize and detokenize.

Null means absent, unknown keys are ignored. Lists of inputs are checked by the handlers, so that errors name the item.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.server.dialects.rerank import PriorityField
from lemni.server.inputs import TruncateField
from lemni.server.quantized import words

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]

_MODEL = "A name from /v1/models; may be left out if only one model can do this."
_TRUNCATE = "Inputs over the model's length: END or START cuts, NONE refuses them."


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description=_MODEL)


class EmbedBody(_Body):
    """`POST /v1/embed` and `/v2/embed`. Exactly one of texts, images and inputs."""

    texts: Any = Field(None, description="A list of texts.")
    images: Any = Field(None, description="A list of images: data URIs, URLs or base64.")
    inputs: Any = Field(None, description='A list of {"content": [parts]}: texts and images that are one input.')
    input_type: str | None = Field(
        None,
        description="search_query, search_document, classification, clustering or image: takes the model's prompt for "
        "it, if it has one.",
    )
    embedding_types: Annotated[list[EmbeddingType] | None, BeforeValidator(words)] = Field(
        None, description="All of these come back."
    )
    output_dimension: int | None = Field(None, description="Keep the first N values and normalise again.")
    max_tokens: int | None = Field(None, description="Inputs are cut to this many tokens.")
    truncate: TruncateField = Field(None, description=_TRUNCATE)
    priority: PriorityField = Field(None, description="Over 0: yields to interactive work.")


class EmbedAnswer(BaseModel):
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    id: str
    embeddings: Any = Field(description="A list of vectors (v1 without embedding_types), or lists of them by type.")
    texts: list[str]
    meta: dict[str, Any]


class ClassifyBody(_Body):
    """`POST /v1/classify`."""

    inputs: Any = Field(description="A list of texts.")
    examples: Any = Field(None, description='Labelled examples: [{"text": ..., "label": ...}].')
    truncate: TruncateField = Field(None, description=_TRUNCATE)


class Classification(BaseModel):
    id: str
    input: str
    prediction: str | None
    predictions: list[str]
    confidence: float | None
    confidences: list[float]
    labels: dict[str, dict[str, float]]
    classification_type: Literal["single-label", "multi-label"]


class ClassifyAnswer(BaseModel):
    id: str
    classifications: list[Classification]
    meta: dict[str, Any]


class TokenizeBody(_Body):
    """`POST /v1/tokenize`."""

    text: str


class TokenizeAnswer(BaseModel):
    tokens: list[int]
    token_strings: list[str]
    meta: dict[str, Any]


class DetokenizeBody(_Body):
    """`POST /v1/detokenize`."""

    tokens: list[int]


class DetokenizeAnswer(BaseModel):
    text: str
    meta: dict[str, Any]
