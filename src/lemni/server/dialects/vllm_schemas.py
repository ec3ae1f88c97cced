"""What the bodies of vLLM's pooling API look like. Null means absent, unknown keys are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lemni.server.inputs import TruncateField

EncodingFormat = Literal["float", "base64", "bytes", "bytes_only"]
EmbedDtype = Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]
_Limit = Annotated[int, Field(ge=-1)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one can do this.")
    truncate_prompt_tokens: _Limit | None = Field(
        None, description="Cut inputs to so many tokens; -1: to the model's length. As the server is set if not given."
    )
    truncation_side: Literal["left", "right"] | None = Field(None, description="Which end is cut.")


class _Inputs(_Body):
    input: Any = Field(None, description="A text, texts, token ids, or lists of token ids.")
    messages: Any = Field(None, description="A conversation, as one input: its texts and images in order.")
    chat_template: str | None = Field(None, description="Not supported: an error.")


class _Encoded(_Inputs):
    encoding_format: EncodingFormat | None = Field(None, description="bytes: raw, with the layout in a header.")
    embed_dtype: EmbedDtype | None = Field(None, description="Number type of base64 and bytes.")
    endianness: Literal["native", "big", "little"] | None = Field(None, description="Of base64 and bytes.")
    use_activation: bool | None = Field(None, description="False leaves out the normalising or the activation.")


class EmbeddingsBody(_Encoded):
    """`POST /v1/embeddings` of vLLM."""

    dimensions: int | None = Field(None, description="Keep the first N values and normalise again.")


class PoolingBody(_Encoded):
    """`POST /pooling`."""

    task: Literal["embed", "token_embed", "classify", "score", "encode"] | None = None
    data: Any = Field(None, description="For plugins of vLLM: an error.")


class ScoreBody(_Body):
    """`POST /score`: one of the pairs of fields. The fields from `truncate` on are Lemni's own."""

    text_1: Any = None
    text_2: Any = None
    data_1: Any = None
    data_2: Any = None
    queries: Any = None
    documents: Any = None
    items: Any = None
    use_activation: bool | None = Field(None, description="False gives logits.")
    truncate: TruncateField = Field(None, description="What to do with pairs over the model's length.")
    prompt: str | None = Field(None, max_length=10_000, description="The instruction of a causal reranker.")


class ClassifyBody(_Inputs):
    """`POST /classify`."""

    use_activation: bool | None = Field(None, description="False gives logits.")


class RerankBody(_Body):
    """`POST /rerank`."""

    query: Any = Field(description="A text, or an object with content parts.")
    documents: Any = Field(description="Texts, or objects with content parts.")
    top_n: int | None = Field(None, description="Only the best N; 0: all.")
    return_documents: bool | None = Field(None, description="False leaves the documents out; vLLM always has them.")
    use_activation: bool | None = Field(None, description="False gives logits.")


class TokenizeBody(BaseModel):
    """`POST /tokenize`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    prompt: str | None = Field(None, description="The text.")
    messages: Any = Field(None, description="A conversation, in place of a prompt.")
    add_special_tokens: bool | None = Field(None, description="True for a prompt, false for messages if not given.")
    return_token_strs: bool | None = Field(None, description="Give the tokens' texts too.")


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    tokens: list[int]
