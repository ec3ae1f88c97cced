"""Haystack: `LemniTextEmbedder`, `LemniDocumentEmbedder` and `LemniRanker`, components of pipelines.

A pipeline that is saved keeps where the server is and which variable has the key, never the key of a given client.
"""

# Annotations are not postponed: Haystack connects components by the types of `run`, and earlier ones read no strings.
from dataclasses import asdict, dataclass, replace
from typing import Any

import lemni
from lemni.errors import missing_extra
from lemni.integrations.clients import Clients
from lemni.ranking import Ranked

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret, deserialize_secrets_inplace
except ModuleNotFoundError as error:
    raise missing_extra("haystack-ai", "haystack", "lemni.integrations.haystack") from error

_KEY = Secret.from_env_var("LEMNI_API_KEY", strict=False)


class _Component:
    """What the three have in common: the client, and to be written to YAML and read from it.

    They call `__init__` by its name: `@component` makes a new class, of which `super()` knows nothing.
    """

    def __init__(
        self,
        model: str | None,
        base_url: str | None,
        api_key: Secret | None,
        client: lemni.Client | None,
        async_client: lemni.AsyncClient | None,
        options: dict[str, Any] | None,
        **own: Any,
    ) -> None:
        given = client or async_client
        key = api_key.resolve_value() if api_key and not given else None
        self._clients = Clients(model, base_url, key, client, async_client, options)
        if given:
            model, base_url = model or given.model, given.base_url
        self._api_key = api_key
        self._written = {"model": model, "base_url": base_url, "options": options or {}, **own}

    def to_dict(self) -> dict[str, Any]:
        """What YAML keeps. Raises ValueError for a key that is not in a variable."""
        key = self._api_key.to_dict() if self._api_key else None
        written: dict[str, Any] = default_to_dict(self, api_key=key, **self._written)
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component that `to_dict` wrote."""
        deserialize_secrets_inplace(data["init_parameters"], keys=["api_key"])
        return default_from_dict(cls, data)


@component
class LemniTextEmbedder(_Component):
    """The vector of a query. Arguments are those of `Clients`, with the key as a Secret."""

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: Secret | None = _KEY,
        client: lemni.Client | None = None,
        async_client: lemni.AsyncClient | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        _Component.__init__(self, model, base_url, api_key, client, async_client, options)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The vector as `embedding`. Raises TypeError for what is no text."""
        return {"embedding": self._clients.queries([_checked(text)])[0]}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """The vector as `embedding`. Raises TypeError for what is no text."""
        return {"embedding": (await self._clients.aqueries([_checked(text)]))[0]}


@component
class LemniDocumentEmbedder(_Component):
    """Documents with their vectors, for a document store."""

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: Secret | None = _KEY,
        client: lemni.Client | None = None,
        async_client: lemni.AsyncClient | None = None,
        options: dict[str, Any] | None = None,
        progress_bar: bool = True,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        """
        Args:
            model, base_url, api_key, client, async_client, options: as in `Clients`.
            progress_bar: show one.
            meta_fields_to_embed: fields of the metadata that are put before the text.
            embedding_separator: between them.
        """
        self._text = _Text(meta_fields_to_embed or [], embedding_separator)
        _Component.__init__(
            self,
            model,
            base_url,
            api_key,
            client,
            async_client,
            options,
            progress_bar=progress_bar,
            **asdict(self._text),
        )
        self._progress = progress_bar

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with their `embedding`. Raises TypeError for what is no list of Documents."""
        return _embedded(documents, self._clients.documents(self._text.of(documents), progress=self._progress))

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with their `embedding`. Raises TypeError for what is no list of Documents."""
        vectors = await self._clients.adocuments(self._text.of(documents), progress=self._progress)
        return _embedded(documents, vectors)


@component
class LemniRanker(_Component):
    """Documents in the order of their relevance to the query, which is their new score."""

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: Secret | None = _KEY,
        client: lemni.Client | None = None,
        async_client: lemni.AsyncClient | None = None,
        options: dict[str, Any] | None = None,
        top_k: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        """
        Args:
            model, base_url, api_key, client, async_client, options: as in `Clients`.
            top_k: keep the best ones only; all if not given.
            meta_fields_to_embed: fields of the metadata that are put before the text.
            embedding_separator: between them.
        """
        self._text = _Text(meta_fields_to_embed or [], embedding_separator)
        _Component.__init__(
            self, model, base_url, api_key, client, async_client, options, top_k=top_k, **asdict(self._text)
        )
        self._top_k = top_k

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Copies of the best documents with their `score`, the best first."""
        ranking = self._clients.rerank(query, self._text.of(documents), top_k or self._top_k)
        return _chosen(documents, ranking)

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Copies of the best documents with their `score`, the best first."""
        ranking = await self._clients.arerank(query, self._text.of(documents), top_k or self._top_k)
        return _chosen(documents, ranking)


@dataclass(frozen=True)
class _Text:
    """What of a document is embedded."""

    meta_fields_to_embed: list[str]
    embedding_separator: str

    def of(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise TypeError("documents must be a list of haystack.Document; LemniTextEmbedder embeds a text")
        return [self.embedding_separator.join([*self._meta(one), one.content or ""]) for one in documents]

    def _meta(self, document: Document) -> list[str]:
        values = [document.meta.get(field) for field in self.meta_fields_to_embed]
        return [str(value) for value in values if value is not None]


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"text is of type {type(text).__name__}; LemniDocumentEmbedder embeds lists of documents")
    return text


def _embedded(documents: list[Document], vectors: list[list[float]]) -> dict[str, list[Document]]:
    return {"documents": [replace(one, embedding=row) for one, row in zip(documents, vectors, strict=True)]}


def _chosen(documents: list[Document], ranking: list[Ranked]) -> dict[str, list[Document]]:
    return {"documents": [replace(documents[index], score=score) for index, score in ranking]}
