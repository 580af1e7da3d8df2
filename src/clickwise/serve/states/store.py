"""What keeps the states of a server: records by key, changed all or none, by several processes and machines.

A store knows nothing of events. A record is bytes, and its key two texts: whose it is, a user's say, and which of them.
All that is somebody's is found, and forgotten, together.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

from clickwise import registry
from clickwise.errors import RecipeError

Key = tuple[str, str]  # whose, and which
Records = list[bytes | None]  # None: there is none
REDIS = ("redis://", "rediss://", "unix://")


class Store(abc.ABC):
    """Every method raises StoreError where the store cannot be reached, or refuses. Threads may share one."""

    @abc.abstractmethod
    def get(self, keys: Sequence[Key]) -> Records:
        """The records of different keys; those of one owner as they are at one moment."""

    @abc.abstractmethod
    def update(self, keys: Sequence[Key], change: Callable[[Records], Mapping[Key, bytes]]) -> None:
        """Hands the records of `keys` to `change` and writes what it gives, all of it or nothing. What was read is what
        is there when it is written: nobody else changes it in between. `change` may be called several times; what it
        raises is passed on, and nothing is written. After the return no crash of this process takes it away."""

    @abc.abstractmethod
    def replace(self, owner: str, records: Mapping[str, bytes]) -> None:
        """Replaces all records of `owner` by `records`, named by the second part of their keys."""

    def check(self) -> None:
        """Returns where the store answers."""
        self.get([("", "")])

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of files and connections."""


def open_store(text: str, where: str = "--states") -> Store:
    """The store that a text names: memory, sqlite:PATH, redis://…, rediss://…, unix://…, or the dotted path of a class
    of your own, with =ARGUMENT where it takes one. Raises RecipeError, at `where`, and StoreError."""
    if text.startswith(REDIS):
        return registry.resolve("store", "redis", where)(text)
    name, is_short, argument = text.partition(":")
    if not is_short or name not in registry.NAMES["store"]:
        name, _, argument = text.partition("=")
    found = registry.resolve("store", name, where)
    if name in registry.NAMES["store"] and (name, bool(argument)) not in (("memory", False), ("sqlite", True)):
        raise RecipeError(where, found=repr(text), expected="memory, sqlite:PATH or redis://HOST:PORT/NUMBER")
    return found(argument) if argument else found()
