"""Ids of any text or number for stores whose own ids are UUIDs: what is one stays, all others become one by hashing."""

from __future__ import annotations

import uuid

from lemni.stores.base import Id

ORIGINAL = "_lemni_id"
"""The field that keeps an id that was hashed."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/lemni/lemni")


def is_uuid(value: Id) -> bool:
    """In the one way that stores give it back: lower case, with hyphens."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def hashed(value: Id) -> str:
    """UUID version 5; the number 7 and the text "7" have different ones."""
    return str(uuid.uuid5(_NAMESPACE, f"{type(value).__name__}:{value}"))
