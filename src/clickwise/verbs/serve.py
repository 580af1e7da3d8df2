"""`clickwise serve`: exports behind HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from clickwise.errors import DataError, UsageError
from clickwise.serve.options import SQLITE, Options
from clickwise.serve.process import serve as serve_options


def serve(folders: Sequence[Path], *, ready: Callable[[str], None], name: str | None = None, host: str = "127.0.0.1",
          port: int = 8080, workers: int = 1, queue: int = 256, deadline: float | None = None,
          roots: Sequence[Path] = (), states: str = SQLITE, token_file: Path | None = None,
          certificate: Path | None = None, key: Path | None = None, access_log: bool = True,
          checksums: bool = True, body_limit: int = 32 << 20, read_timeout: float = 10.0) -> int:
    """Serves exports until SIGINT or SIGTERM, and gives the code to exit with; `ready` is called with the address.

    Raises UsageError, DataError, EngineError.
    """
    for folder in (*folders, *roots):
        if not folder.is_dir():
            found = "no folder" if folder.exists() else "no such folder"
            if folder in folders:
                raise DataError(folder, found=found, expected="a folder that clickwise export wrote")
            raise UsageError(f"--root {folder}", found=found, expected="a folder")
    if name is not None and len(folders) > 1:
        raise UsageError(f"--name {name}", found=f"{len(folders)} exports", expected="one")
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        if path is not None and not path.is_file():
            raise UsageError(f"{option} {path}", found="no such file", expected="a file in PEM form")
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert, --tls-key", found="one of them", expected="both, or none")
    return serve_options(Options(
        folders=tuple(folders), name=name, host=host, port=port, workers=workers, queue=queue, deadline=deadline,
        roots=tuple(roots), states=states, token=None if token_file is None else _token(token_file),
        certificate=certificate, key=key, access_log=access_log, checksums=checksums, body_limit=body_limit,
        read_timeout=read_timeout), ready)


def _token(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"--token-file {path}", found=error.strerror or str(error), expected="a file") from None
    if len(token) < 16 or not token.isascii() or not token.decode().isprintable() or b" " in token:
        raise UsageError(f"--token-file {path}", found=f"a token of {len(token)} characters",
                         expected="at least 16 printable characters without spaces", do="openssl rand -hex 32")
    return token
