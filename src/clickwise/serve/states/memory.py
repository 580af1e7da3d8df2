"""States in the memory of one process: gone when it ends, for trying out and for tests."""

from __future__ import annotations

import threading

from clickwise.serve.states.store import Key, Store


class MemoryStore(Store):
    """Records in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[Key, bytes] = {}
        self._one_at_a_time = threading.RLock()

    def get(self, keys):
        with self._one_at_a_time:
            return [self._records.get(key) for key in keys]

    def update(self, keys, change):
        with self._one_at_a_time:
            self._records.update(change(self.get(keys)))

    def replace(self, owner, records):
        with self._one_at_a_time:
            for key in [key for key in self._records if key[0] == owner]:
                del self._records[key]
            self._records.update({(owner, name): record for name, record in records.items()})

    def close(self):
        pass
