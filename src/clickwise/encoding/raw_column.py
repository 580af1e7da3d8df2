"""A column as it comes in, of rows or of a state."""

from __future__ import annotations

import dataclasses

from clickwise.encoding.raw_types import RawType


@dataclasses.dataclass(frozen=True)
class RawColumn:
    """A column as it comes in; `list` is not None where a row holds several values. An `optional` one may be absent,
    which is as if no row had a value."""

    type: RawType
    list: str | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"lists of {self.type.name}" if self.list is not None else self.type.name
