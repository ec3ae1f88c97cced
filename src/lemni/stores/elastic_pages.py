"""All documents of an index of Elasticsearch or OpenSearch in a stable order.

Neither server sorts by `_id` without a setting that costs memory, and an index that somebody else made has no other
field that is sure to be unique. So documents are read by `_seq_no`, the number that each shard counts up with every
write, and among equal numbers of several shards by `_id`, all inside one point in time. That order is the same for
every reader and every replica, and stays through merges, restarts and restored snapshots; a document that is written
again moves to the end. So a migration that goes on `after` an id misses what stood between if just that id was
overwritten meanwhile: stop the writers, or compare the ids before the switch, as `lemni migrate` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lemni.errors import StoreError

KEEP_ALIVE = "30m"  # of a point in time between two pages: those of the first are embedded meanwhile
WINDOW = 10_000  # `index.max_result_window`: hits of one request

Search = Callable[[dict[str, Any]], list[dict[str, Any]]]


def in_order(
    store: str, search: Search, pit: str, wanted: dict[str, Any], read: int, after: str | None
) -> Iterator[dict[str, Any]]:
    """The hits by (`_seq_no`, `_id`); with `after` those behind that id.

    Args:
        store: its name for messages.
        search: asks with a body, gives the hits.
        pit: the point in time's id.
        wanted: which parts of a document, as keys of the body.
        read: about how many documents a request.

    Raises:
        StoreError: `after` is not there.
    """
    common = {
        "pit": {"id": pit, "keep_alive": KEEP_ALIVE},
        "sort": [{"_seq_no": "asc"}],
        "track_total_hits": False,
    }
    last, begin = -1, (-1, "")
    if after is not None:
        found = search({**common, "size": 1, "_source": False, "query": {"ids": {"values": [after]}}})
        if not found:
            raise StoreError(f"{store}: cannot go on after id {after!r}, which is not there any more")
        begin = (int(found[0]["sort"][0]), after)
        last = begin[0] - 1
    limit = read + 16  # the last documents of a request wait for the next one, as far as they share a number
    while True:
        hits = search({**common, **wanted, "size": limit, "query": {"range": {"_seq_no": {"gt": last}}}})
        whole = hits
        if len(hits) == limit:  # another shard may have the last number, too, behind this request's end
            whole = [hit for hit in hits if hit["sort"][0] != hits[-1]["sort"][0]]
            if not whole:
                limit = min(2 * limit, WINDOW)
                continue
        for hit in sorted(whole, key=lambda hit: (hit["sort"][0], hit["_id"])):
            if (hit["sort"][0], hit["_id"]) > begin:
                yield hit
        if len(hits) < limit:
            return
        last = whole[-1]["sort"][0]
