"""How a server is to run."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path

SQLITE = "sqlite:clickwise-states.db"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`queue`: how many requests wait at most, of each of the `workers`; `deadline` in ms; `roots`: folders below which
    exports may be loaded; `states`: what keeps states that go on with events;
    `checksums`: whether tables are verified before they are served; `read_timeout`, `keep_alive` and `drain` in
    seconds; `body_limit` in bytes."""

    folders: tuple[Path, ...]
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    queue: int = 256
    deadline: float | None = None
    roots: tuple[Path, ...] = ()
    states: str = SQLITE
    checksums: bool = True
    token: bytes | None = None
    certificate: Path | None = None
    key: Path | None = None
    access_log: bool = True
    body_limit: int = 32 << 20
    read_timeout: float = 10.0
    keep_alive: int = 75
    drain: int = 30

    @property
    def is_open(self) -> bool:
        """Whether others than this machine reach it."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True
