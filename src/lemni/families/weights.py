"""A model's weights by the names that its family uses, whatever prefix and spelling the file has."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.hub.codes import Weight, joined
from lemni.hub.tensors import TensorStore

# Spellings that early BERT checkpoints, converted from TensorFlow, still have.
_OLD_SPELLINGS = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))


class Weights:
    """Read access to the tensors below one prefix.

    Args:
        store: all tensors of the model.
        prefix: put before every name asked for.
    """

    def __init__(self, store: TensorStore, prefix: str = "") -> None:
        self.store = store
        self.prefix = prefix

    def rooted(self, probe: str, prefixes: Seq[str]) -> Weights:
        """The view below the first prefix under which `probe` exists.

        The same encoder is saved bare (AutoModel) or below a name (a head's `bert.`, a causal LM's `model.`).

        Raises:
            ModelLoadError: under none of them.
        """
        for prefix in prefixes:
            view = Weights(self.store, self.prefix + prefix)
            if probe in view:
                return view
        tried = ", ".join(repr(self.prefix + prefix + probe) for prefix in prefixes)
        raise ModelLoadError(f"the weights do not fit the architecture: none of {tried} is in {self._files()}")

    def scope(self, name: str) -> Weights:
        """The view below `name.`"""
        return Weights(self.store, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The tensor as numpy, in its storage type (bf16 and codes as float32).

        Raises:
            ModelLoadError: it is not there.
        """
        return self.store.numpy(self._found(name))

    def matrix(self, name: str) -> Weight:
        """The tensor as it is stored, maybe as codes: for `Ops.constant`, as a layer's matrix or a table.

        Raises:
            ModelLoadError: it is not there.
        """
        return self.store.weight(self._found(name))

    def get(self, name: str) -> NDArray[Any] | None:
        """The tensor, or None if it is not there."""
        found = self._find(name)
        return None if found is None else self.store.numpy(found)

    def joined(self, names: Seq[str]) -> Weight:
        """Several matrices as one, joined on their first axis: query, key and value become one product."""
        return joined([self.matrix(name) for name in names])

    def joined_biases(self, names: Seq[str]) -> Weight | None:
        """The biases of several linear layers as one; None if the first of them has none."""
        return self.joined([f"{name}.bias" for name in names]) if f"{names[0]}.bias" in self else None

    def _found(self, name: str) -> str:
        found = self._find(name)
        if found is None:
            raise ModelLoadError(
                f"the weights do not fit the architecture: {self.prefix + name!r} is not in {self._files()}"
            )
        return found

    def _find(self, name: str) -> str | None:
        full = self.prefix + name
        if full in self.store:
            return full
        for new, old in _OLD_SPELLINGS:
            if full.endswith(new) and (spelled := full.removesuffix(new) + old) in self.store:
                return spelled
        return None

    def _files(self) -> str:
        return ", ".join(str(path) for path in self.store.paths)
