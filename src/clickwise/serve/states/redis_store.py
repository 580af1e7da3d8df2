"""States in a Redis, which several servers on any machines share. What was written lies as safe as that Redis keeps it:
with `appendonly yes` and `appendfsync always` on its disk, by default in its memory alone.

    clickwise:<owner>   a hash: name → record

One primary, with replicas if need be; a cluster deals the keys of one change over several and cannot keep it whole.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Iterator

from clickwise.errors import StoreError, UsageError
from clickwise.progress import warn
from clickwise.serve.states.store import Store

PREFIX = "clickwise:"
PASSWORD = "CLICKWISE_REDIS_PASSWORD"  # of the environment: other users of a machine see its commands
TRY_S, PAUSE_S = 10.0, 0.02  # how long an update is tried again where others change the same records; the longest pause
TIMEOUT_S = 5.0  # for an answer


class RedisStore(Store):
    """Records in the Redis of a URL: redis://USER:PASSWORD@HOST:PORT/NUMBER, rediss:// with TLS (?ssl_ca_certs=FILE,
    ssl_certfile, ssl_keyfile), unix://PATH. A password may stand in the environment instead."""

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            raise UsageError("redis", found="no client of Redis is installed", expected="the package redis",
                             do="pip install 'clickwise[redis]'") from None
        self._errors_of, self.place = redis, re.sub(r"//[^/@]*@", "//", url.split("?")[0])
        settings = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "health_check_interval": 30}
        if password := os.environ.get(PASSWORD):
            settings["password"] = password
        try:
            self._client = redis.Redis.from_url(url, **settings)
        except (ValueError, TypeError) as error:
            raise UsageError(self.place, found=f"no URL of a Redis ({error})",
                             expected="redis://HOST:PORT/NUMBER") from None
        self._warn()

    def get(self, keys):
        if not keys:
            return []
        with self._errors():
            return self._get(keys)

    def update(self, keys, change):
        end = time.monotonic() + TRY_S
        owners = list(dict.fromkeys(PREFIX + owner for owner, _ in keys))
        with self._errors():
            while True:
                with self._client.pipeline() as pipe, contextlib.suppress(self._errors_of.WatchError):
                    if owners:
                        pipe.watch(*owners)
                    found = change(self._get(keys))  # on another connection: whatever changes from now on is noticed
                    pipe.multi()
                    for (owner, name), record in found.items():
                        pipe.hset(PREFIX + owner, name, record)
                    pipe.execute()
                    return
                if time.monotonic() > end:
                    raise StoreError(self.place, found=f"others that changed the same records for {TRY_S:.0f} s",
                                     expected="a moment for this change", do="send fewer events at a time, or later")
                time.sleep(random.uniform(0, PAUSE_S))

    def replace(self, owner, records):
        with self._errors(), self._client.pipeline() as pipe:
            pipe.delete(PREFIX + owner)
            if records:
                pipe.hset(PREFIX + owner, mapping=records)
            pipe.execute()

    def check(self):
        with self._errors():
            self._client.ping()

    def close(self):
        self._client.close()

    def _get(self, keys):
        of: dict[str, list[str]] = {}
        for owner, name in keys:
            of.setdefault(owner, []).append(name)
        with self._client.pipeline(transaction=False) as pipe:  # a full one refuses transactions of reads too
            for owner, names in of.items():
                pipe.hmget(PREFIX + owner, names)
            found = {(owner, name): record for (owner, names), records in zip(of.items(), pipe.execute(), strict=True)
                     for name, record in zip(names, records, strict=True)}
        return [found[key] for key in keys]

    def _warn(self) -> None:
        """Says what may be lost as this Redis is configured."""
        with self._errors():
            self._client.ping()
            try:
                info = self._client.info()
            except self._errors_of.ResponseError:  # a user that may not ask
                return
        if not info.get("aof_enabled"):
            warn(f"{self.place} keeps states in memory: what it received since its last snapshot is lost with it "
                 "(appendonly yes, appendfsync always)")
        if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
            warn(f"{self.place} forgets states where its memory is full (maxmemory-policy noeviction)")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (self._errors_of.RedisError, OSError) as error:
            raise StoreError(self.place, found=f"{type(error).__name__}: {error}"[:300],
                             expected="a Redis that answers", do="see to its address, password, certificate and memory"
                             ) from None
