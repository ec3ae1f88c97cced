"""Bodies and answers of TEI's routes, for checking and for /docs. Unknown keys are ignored, null means absent.

Lemni's own are `model` (which of several served models is meant) and `top_n`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.server.inputs import lower

_INPUTS = "A text, the token ids of one text, or a list of texts and lists of token ids."
_SIDE = "Which end of a long text is cut: Left or Right, in any case."

SideField = Annotated[Literal["left", "right"] | None, BeforeValidator(lower)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    truncate: bool | None = Field(None, description="Cut long texts, or refuse them; the server's setting if null.")
    truncation_direction: SideField = Field(None, description=_SIDE)
    model: str | None = Field(None, description="A name from /v1/models; may be left out if one model does this.")


class TextsBody(_Body):
    """`POST /embed_all` and `/embed_sparse`."""

    inputs: Any = Field(description=_INPUTS)
    prompt_name: str | None = Field(None, description="Name of the prompt that goes before every text.")


class EmbedBody(TextsBody):
    """`POST /embed`."""

    normalize: bool | None = Field(None, description="Vectors of unit length; true if null.")
    dimensions: int | None = Field(None, description="Keep the first N values (Matryoshka).")


class RerankBody(_Body):
    """`POST /rerank`."""

    query: str
    texts: Any = Field(description="The texts to be ranked.")
    raw_scores: bool | None = Field(None, description="The model's logits, instead of scores from 0 to 1.")
    return_text: bool | None = Field(None, description="Give each text back.")
    top_n: int | None = Field(None, description="Only the best N, which litellm asks for; null, 0 or less: all.")


class Sentences(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    truncate: bool | None = None
    truncation_direction: SideField = None
    prompt_name: str | None = None


class SimilarityBody(BaseModel):
    """`POST /similarity`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    inputs: Sentences
    parameters: SimilarityParameters | None = None
    model: str | None = None


class PredictParameters(BaseModel):
    """Of Hugging Face's text classification."""

    model_config = ConfigDict(strict=True, extra="ignore")

    function_to_apply: Annotated[Literal["sigmoid", "softmax", "none"] | None, BeforeValidator(lower)] = None
    top_k: int | None = Field(None, ge=1, description="Only the best K labels.")


class PredictBody(_Body):
    """`POST /predict`."""

    inputs: Any = Field(description="A text, a pair [a, b], or a batch [[a], [a, b], ...].")
    raw_scores: bool | None = Field(None, description="Logits instead of probabilities.")
    parameters: PredictParameters | None = Field(
        None, description="As Hugging Face's clients send it: then a single text is answered by a list in a list."
    )


class TokenizeBody(BaseModel):
    """`POST /tokenize`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    inputs: Any = Field(description="A text or a list of texts.")
    add_special_tokens: bool | None = Field(None, description="With [CLS], [SEP] and the like; true if null.")
    prompt_name: str | None = None
    model: str | None = None


class DecodeBody(BaseModel):
    """`POST /decode`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    ids: Any = Field(description="Token ids of one text, or a list of those.")
    skip_special_tokens: bool | None = Field(None, description="True if null.")
    model: str | None = None


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_NUMBER, _COUNT, _STRING = {"type": "number"}, {"type": "integer", "minimum": 0}, {"type": "string"}
_PLACE = {"anyOf": [_COUNT, {"type": "null"}]}
_LABELS = _list(_object(score=_NUMBER, label=_STRING))

VECTORS = _list(_list(_NUMBER))
MATRICES = _list(VECTORS)
SPARSE = _list(_list(_object(index=_COUNT, value=_NUMBER)))
RANKS = _list(_object(index=_COUNT, score=_NUMBER, text=_STRING))
SIMILARITIES = _list(_NUMBER)
PREDICTIONS = {"anyOf": [_LABELS, _list(_LABELS)]}
TOKENS = _list(_list(_object(id=_COUNT, text=_STRING, special={"type": "boolean"}, start=_PLACE, stop=_PLACE)))
TEXTS = _list(_STRING)

CATS = ["A cat sits on the mat.", "Cats sleep on the sofa."]
EMBED_EXAMPLES = {
    "texts": {"value": {"inputs": CATS}},
    "short vectors": {"value": {"inputs": "What is deep learning?", "dimensions": 64, "truncation_direction": "Left"}},
}
RERANK_EXAMPLES = {"texts": {"value": {"query": "Where do cats sleep?", "texts": CATS, "return_text": True}}}
SIMILARITY_EXAMPLES = {"sentences": {"value": {"inputs": {"source_sentence": CATS[0], "sentences": CATS}}}}
