"""`lemni.Client`: vectors, scores and labels from a server, as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from typing_extensions import Unpack

from lemni.client.base import ClientBase, DenseHow, EmbedHow, ScoreHow
from lemni.client.session import Session
from lemni.client.similarity import similarities
from lemni.client.wire.embeddings import Vectors
from lemni.client.wire.models import Model
from lemni.ranking import Label, Ranked
from lemni.types import Image, Item, Mixed, Pair, SparseVector


class Client(ClientBase):
    """A server's models. Thread-safe. Close it, or use it as a context manager.

    Its methods are those of `lemni.Embedder`, the same model in this process. Each raises InvalidRequest for what makes
    no sense, and otherwise ClientError and its kinds: ConnectionFailed, RequestTimeout, StatusError, BadAnswer, and
    PartialFailure, which has what was finished of a long list.

    Example:
        >>> import lemni
        >>> with lemni.Client() as client:
        ...     vectors = client.embed(["A cat sits on the mat.", "A dog runs."])
        >>> vectors.shape, vectors.dtype
        ((2, 384), dtype('float32'))
    """

    _made: Session | None = None

    def embed(self, texts: Item | Seq[Item], **how: Unpack[DenseHow]) -> Vectors:
        """Dense vectors of texts, token ids, images or sounds (`lemni.Image(data)`, `lemni.Audio(data)`).

        Returns:
            float32 (or of the `output_type`) [dimensions] for one item, [items, dimensions] for a list.
        """
        return self._session.answer(self._embed(texts, how))

    def sparse(self, texts: Seq[Item], **how: Unpack[EmbedHow]) -> list[SparseVector]:
        """Term weights of each text: (indices int32 [n], values float32 [n])."""
        return self._session.answer(self._sparse(texts, how))

    def multi_vector(self, items: Seq[Item], **how: Unpack[EmbedHow]) -> list[Vectors]:
        """Late-interaction vectors of each item: float32 [tokens, dimensions]."""
        return self._session.answer(self._multi_vector(items, how))

    def rerank(
        self,
        query: str | Image | Mixed,
        documents: Seq[str | Image | Mixed],
        *,
        top_n: int | None = None,
        **how: Unpack[ScoreHow],
    ) -> list[Ranked]:
        """Documents by their relevance to the query, the best first; the first `top_n` if given."""
        return self._session.answer(self._rerank(query, documents, top_n, how))

    def score(self, pairs: Seq[Pair], **how: Unpack[ScoreHow]) -> Vectors:
        """Scores of pairs: float32 [pairs]."""
        return self._session.answer(self._score(pairs, how))

    def classify(self, texts: Seq[str], *, top_k: int | None = None, **how: Unpack[ScoreHow]) -> list[list[Label]]:
        """Labels of each text with their scores, the best first; the first `top_k` if given."""
        return self._session.answer(self._classify(texts, top_k, how))

    def similarity(self, a: Item | Seq[Item], b: Item | Seq[Item], **how: Unpack[EmbedHow]) -> Vectors:
        """How alike the items are, by the model's own function: float32 [a, b], without the axis of a lone item.

        They are asked for in one call: the index of an error or of progress counts through `a`, and on through `b`.
        """
        job = self._embed_both(a, b, how)
        return similarities(*self._session.answer(job), self._session.model(job.identity))

    def models(self) -> list[Model]:
        """The models that the server has."""
        return self._session.models()

    def health(self) -> bool:
        """Whether a server answers that it is well, each within 5 s. Never raises ClientError."""
        return self._session.healthy()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._session.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def _session(self) -> Session:
        with self._lock:
            if self._made is None:
                self._made = Session(self._connection)
            return self._made
