"""The files of delimited text of one table, as an engine reads them: through pipes, as they are, or as copies."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from clickwise.errors import PrepareError
from clickwise.machine import usable_cores
from clickwise.prepare.engine import LONG_LINE, BadInput, CutShort
from clickwise.prepare.piped import Pipe, pipes_of
from clickwise.text_files import BadLine, PlainText, TextLayout, Wrong, plain_text
from clickwise.text_scan import Scan, Scanner, is_gzip, scan

T = TypeVar("T")
Load = Callable[[list[PlainText]], T]


@dataclasses.dataclass(frozen=True)
class RawText:
    """A file of delimited text with rows of `width` fields. `wrong` says what is wrong with the values of one, by the
    rule that the engine is to read by. `marks` are bytes that are looked for."""

    path: Path
    layout: TextLayout
    width: int
    wrong: Wrong
    marks: tuple[bytes, ...] = ()

    @property
    def is_text(self) -> bool:
        return self.path.suffix != ".parquet"

    @property
    def can_be_piped(self) -> bool:
        return self.is_text and self.layout.is_plain and is_gzip(self.path)

    def scanner(self) -> Scanner:
        return Scanner(self.marks, count_lines=bool(self.marks))

    def is_as_assumed(self, found: Scan | None) -> bool:
        """Whether a file that was read before anything was known of it has been read rightly."""
        return found is not None and found.uniform and not found.damage and found.longest <= LONG_LINE


class RawTexts:
    """`files`, where `bad(file)` is called with what a copy leaves out; copies lie in `folder` as long as the block
    runs. `threads` is how many files are looked at at once (None: one a core)."""

    def __init__(self, files: Sequence[RawText], bad: Callable[[Path], BadLine], folder: Path,
                 threads: int | None) -> None:
        self.files, self._bad, self._folder, self._threads = files, bad, folder, threads
        self._scans: dict[int, Scan] = {}
        self._plains: dict[int, PlainText] = {}
        self._pipes: dict[int, Pipe] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RawTexts:
        self._stack.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def plain(self) -> list[PlainText]:
        """The files as they are where fast readers take them so, else copies."""
        self._look_at(range(len(self.files)))
        return [self._plains[index] for index in range(len(self.files))]

    def copies(self) -> list[PlainText]:
        """Copies of all text, without the rows in which something is wrong."""
        for index, plain in enumerate(self.plain()):
            if plain.path == self.files[index].path:  # of the copies the bad rows are known
                self._plains[index] = self._plain(index, as_copy=True)
        return self.plain()

    def load_piped(self, load: Load[T]) -> tuple[T, list[PlainText]] | None:
        """What `load` gives of the files, every `.gz` unpacked on its way, and what they turned out to be. None where
        nothing is to be unpacked, or it turned out that they have to be read in another way: what `load` has done is
        to be done again. Raises what `load` does, where that is not why."""
        packed = [index for index, file in enumerate(self.files) if file.can_be_piped]
        if not packed:
            return None
        self._look_at(set(range(len(self.files))) - set(packed))
        refused: BadInput | PrepareError | None = None
        looked_at = [(self.files[index].path, self.files[index].scanner()) for index in packed]
        with pipes_of(looked_at, self._folder) as made:
            if made is None:
                return None
            self._pipes = dict(zip(packed, made, strict=True))
            try:
                result = load([PlainText(self._pipes[index].path, file.layout, 0) if index in self._pipes else
                               self._plains[index] for index, file in enumerate(self.files)])
            except CutShort:
                raise
            except (BadInput, PrepareError) as error:  # which may come from what a damaged file lacks
                refused = error
        self._scans |= {index: pipe.found for index, pipe in self._pipes.items() if pipe.found is not None}
        if refused is not None:
            self._scan_unknown(packed)
        if not all(self.files[index].is_as_assumed(self._scans.get(index)) for index in packed):
            return None
        if refused is not None:
            raise refused
        return result, [self._plains.get(index) or self._seen(index) for index in range(len(self.files))]

    def share(self) -> float | None:
        """How much of all `.gz` has gone through pipes, 0 … 1; None where nothing has."""
        return sum(pipe.done for pipe in self._pipes.values()) / sum(
            pipe.file.stat().st_size for pipe in self._pipes.values()) if self._pipes else None

    def _look_at(self, indices: Iterable[int]) -> None:
        self._scan_unknown(indices)
        self._plains |= {index: self._plain(index) for index in indices if index not in self._plains}

    def _scan_unknown(self, indices: Iterable[int]) -> None:
        unknown = [index for index in indices if index not in self._scans]
        with ThreadPoolExecutor(self._threads or usable_cores()) as pool:  # of a .gz this takes long
            self._scans |= zip(unknown, pool.map(self._scan, unknown), strict=True)

    def _scan(self, index: int) -> Scan:
        file = self.files[index]
        return scan(file.path, file.marks) if file.is_text else Scan()

    def _plain(self, index: int, as_copy: bool = False) -> PlainText:
        file = self.files[index]
        if not file.is_text:
            return PlainText(file.path, file.layout, 0)
        return self._stack.enter_context(plain_text(
            file.path, file.layout, self._bad(file.path), self._folder, width=file.width, wrong=file.wrong,
            found=self._scans[index], as_copy=as_copy))

    def _seen(self, index: int) -> PlainText:
        """A file that was piped, and what was seen in it."""
        file, found = self.files[index], self._scans[index]
        return PlainText(file.path, file.layout, found.longest, found.marked, found.lines)
