"""Images and audio as input: what a client sent becomes bytes, and bytes become pixels or samples.

`sources` reads what was sent, `fetch` gets URLs (`addresses` says from where), `images` and `audio` decode. Knows no
HTTP server and no model: servers and the library load, the tasks' tokenising threads decode.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["image", "audio"]
