"""States in one SQLite file, which the processes of one machine share. What was written is on the disk: neither a kill
nor a power cut takes it away.

    records   owner, name → record

Beside the file lie its log of changes and what the processes share (-wal, -shm), so it must not lie on a network drive.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from clickwise.errors import StoreError
from clickwise.serve.states.store import Store

APPLICATION, VERSION = 0x43575354, 1  # CWST; of the tables
BUSY_S = 30.0  # as long as another process may write
MOST = 10_000  # keys in one question
_SETTINGS = ("PRAGMA synchronous = FULL", "PRAGMA secure_delete = ON")  # of a connection
_NEW = (f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {VERSION}",
        "CREATE TABLE records (owner TEXT, name TEXT, record BLOB NOT NULL, PRIMARY KEY (owner, name)) "
        "WITHOUT ROWID")
_GET = "WITH wanted(owner, name) AS (VALUES @) " \
       "SELECT owner, name, record FROM wanted CROSS JOIN records USING (owner, name)"  # CROSS: wanted first, by index
_PUT = "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record"


class SqliteStore(Store):
    """Records in the file `path`, which only its owner may read; it is made where it is not there."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._open = threading.local()  # a connection for every thread, and for every process after a fork
        self._connections: list[sqlite3.Connection] = []
        self._one_writes = threading.Lock()
        with self._errors():
            with contextlib.suppress(FileExistsError):  # of a file that is there no handle may be closed: it has locks
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
            self._set_up()

    def get(self, keys):
        with self._errors():
            if len(keys) <= MOST:
                return self._get(keys)
            with self._transaction("BEGIN"):
                return self._get(keys)

    def update(self, keys, change):
        with self._one_writes, self._errors(), self._transaction("BEGIN IMMEDIATE"):
            found = change(self._get(keys))
            rows = [(*key, record) for key, record in sorted(found.items())]  # in the order of the file: twice as fast
            self._connection.executemany(_PUT, rows)

    def replace(self, owner, records):
        with self._one_writes, self._errors():
            with self._transaction("BEGIN IMMEDIATE"):
                self._connection.execute("DELETE FROM records WHERE owner = ?", [owner])
                self._connection.executemany(_PUT, [(owner, *record) for record in records.items()])
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # or the log would hold it on

    def close(self):
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._open = threading.local()

    def _get(self, keys):
        found = {}
        for first in range(0, len(keys), MOST):
            part = keys[first:first + MOST]
            rows = self._connection.execute(_GET.replace("@", ",".join(["(?,?)"] * len(part))), list(chain(*part)))
            found.update(((owner, name), record) for owner, name, record in rows)
        return [found.get(key) for key in keys]

    @property
    def _connection(self) -> sqlite3.Connection:
        if getattr(self._open, "process", None) != os.getpid():
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._connections.append(connection)
            for setting in _SETTINGS:
                connection.execute(setting)
            self._open.connection, self._open.process = connection, os.getpid()
        return self._open.connection

    def _set_up(self) -> None:
        """Makes the tables where there are none. Raises StoreError for a file of another program, which stays as it is.
        """
        with self._transaction("BEGIN IMMEDIATE"):  # several processes may start at once
            (application,), (version,) = (self._connection.execute(f"PRAGMA {name}").fetchone() for name in (
                "application_id", "user_version"))
            if (application, version) != (APPLICATION, VERSION):
                if application or version or self._connection.execute("SELECT * FROM sqlite_master").fetchone():
                    raise StoreError(self.path, found="a database of another program, or of another version of this "
                                     "one", expected="states, or no file", do="choose another file")
                for statement in _NEW:
                    self._connection.execute(statement)
        end = time.monotonic() + BUSY_S
        while True:  # SQLite does not wait for this change by itself
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            do = {sqlite3.DatabaseError: "put a whole copy in its place, or start with another file"}.get(type(error))
            raise StoreError(self.path, found=str(error), expected="a file of states that can be read and written",
                             do=do or "see to the disk, its room and its permissions; several machines share a Redis"
                             ) from None
