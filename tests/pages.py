"""The fenced blocks of the pages, and a reader who pastes them into a shell one by one, from a fresh checkout.

A comment before a fence, which no renderer shows, says what else a block is:

    <!-- file: my_models.py -->      its text is that file
    <!-- not run: eight GPUs -->     it is not run, for this reason; its commands are read all the same
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:^<!-- (?P<mark>[a-z ]+): (?P<value>[^\n]*?) -->\n\n?)?"
                   r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
RUN = ("sh", "bash", "python")
FLAGS = {"curl": "--fail-with-body"}  # an answer of 4xx or 5xx is a failure

# The command as it is installed: what lies in the working folder is not on its path. A server is started behind the
# shell's back, as in a second terminal, and replaces the one before it.
CLICKWISE = """#!{python}
import os, select, signal, subprocess, sys
sys.path.pop(0)
if sys.argv[1:2] == ["serve"] and os.environ.get("IN_FRONT") is None:
    if os.path.exists(r"{pid}"):
        last = int(open(r"{pid}").read())
        ended = os.pidfd_open(last)
        os.kill(last, signal.SIGTERM)
        select.select([ended], [], [], 60)
    server = subprocess.Popen([sys.executable, *sys.argv], stdout=subprocess.PIPE, stderr=open(r"{pid}.log", "w"),
                              stdin=subprocess.DEVNULL, start_new_session=True, text=True,
                              env={{**os.environ, "IN_FRONT": "1"}})
    open(r"{pid}", "w").write(str(server.pid))
    if "ready" not in server.stdout.readline():
        os.remove(r"{pid}")
        sys.exit(open(r"{pid}.log").read())
    sys.exit(0)
from clickwise.__main__ import main
main()
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text, and what the comment before it says."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.mark == "file" or (self.language in RUN and self.mark != "not run")


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, found.start("text")), found["language"], textwrap.dedent(found["text"]),
                  found["mark"] or "", found["value"] or "") for found in FENCE.finditer(text)]


def commands_of(text: str) -> list[list[str]]:
    """The words behind `clickwise` of every command in lines of a shell."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if re.search(r"(?:^|\s|/)clickwise(?:\s|$)", line):
            words = shlex.split(line, comments=True)
            if places := [place for place, word in enumerate(words) if word.rsplit("/", 1)[-1] == "clickwise"]:
                found.append(words[places[0] + 1:])
    return found


class Reader:
    """Runs blocks in `folder`, a checkout without what is written later; use it in a `with`, which ends a server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.shown = folder, {"__name__": "__main__"}, ""
        self._bin = folder / ".bin"
        self._bin.mkdir(parents=True)
        self._pid = self._bin / "server"
        for name, text in {"clickwise": CLICKWISE.format(python=sys.executable, pid=self._pid),
                           "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}.items():
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)
        for linked in ("data", "examples", "benchmarks"):
            (folder / linked).mkdir()
            for path in (ROOT / linked).iterdir():
                if path.name not in ("prepared", "__pycache__"):
                    (folder / linked / path.name).symlink_to(path)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self._environment = {**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}",
                             "PYTHONPATH": str(ROOT / "src")}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pid.exists():
            os.kill(int(self._pid.read_text()), signal.SIGTERM)

    def run(self, block: Block) -> None:
        """AssertionError, with the place of the block, where a command of it fails."""
        if block.mark == "file":
            (self.folder / block.value).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.value).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile("\n" * block.line + block.text, str(block.page), "exec")
            exec(code, self.names)
        else:
            text = block.text.replace("8080", self._port)
            functions = "".join(f'{name}() {{ command {name} {option} "$@"; }}\n' for name, option in FLAGS.items())
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", functions + text], cwd=self.folder, text=True,
                                  env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.shown += done.stdout
            assert done.returncode == 0, f"{block}\n{text}\n{done.stdout[-4000:]}"
