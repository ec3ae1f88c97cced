"""Images as an input by themselves: a row for each file, in the order in which they were found; its id is its path."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

from lemni.bulk.rows import Rows
from lemni.bulk.sources.base import Columns, Shard
from lemni.bulk.sources.cells import load_image
from lemni.bulk.sources.files import File, check, shown
from lemni.bulk.sources.source import FileShard, FileSource
from lemni.errors import InvalidRequest


class Images:
    """Reads files of images. `where` is the files of a shard and their ids."""

    format = "images"

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        for role, names in (("id", columns.id), ("carry", columns.carry)):
            if names:
                name = names if isinstance(names, str) else names[0]
                raise InvalidRequest(f"files of images have no column {name!r}", param=role)

    def check(self, files: Seq[File]) -> None:
        pass

    def random(self, file: File) -> bool:
        return True

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, Any]]:
        raise NotImplementedError  # ImageSource cuts between files

    def stream(self, file: File, rows: int, first: int) -> Iterator[Rows]:
        raise NotImplementedError

    def count(self, file: File) -> int | None:
        return 1

    def read(self, file: File, where: Any, first: int, count: int) -> Rows:
        rows = Rows(first, [], [], [], [])
        for image, place in where:
            item = load_image(image.path, image.path)
            if not hasattr(item, "reason"):
                check(image)
            rows.ids.append(place)
            rows.items.append(item)
            rows.texts.append(place)
            rows.metadata.append({})
        return rows


class ImageSource(FileSource):
    """Shards of many files each."""

    def __init__(self, files: Seq[File], columns: Columns, places: Seq[str]) -> None:
        super().__init__(files, columns, Images(columns))
        self._ids = [shown(place) for place in places]

    def shards(self, rows: int) -> Iterator[Shard]:
        for index, first in enumerate(range(0, len(self.files), rows)):
            files = self.files[first : first + rows]
            where = tuple(zip(files, self._ids[first : first + rows], strict=True))
            yield FileShard(index, first, len(files), files[0], where, self.reader)
