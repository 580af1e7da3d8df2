"""A `.gz` is unpacked once: its bytes go through a pipe to the engine and are looked at on their way."""

from __future__ import annotations

import gzip
import os
import random
import threading
import zlib

import pytest
from criteo_rows import equal, line, random_lines, read, reference, write_raw

from clickwise.prepare import raw_text
from clickwise.prepare.piped import pipes_of
from clickwise.text_scan import NO_GZIP, Chunks, Scanner, scan

ROWS = random_lines(60, 4)


def unpacked(chunks):
    """(the bytes, whether they end in damage)"""
    found = b""
    try:
        for chunk in chunks:
            found += chunk
    except NO_GZIP:
        return found, True
    return found, False


def by_gzip(path):
    with gzip.open(path) as file:
        yield from iter(lambda: file.read1(100), b"")


def test_chunks_are_what_gzip_gives(tmp_path):
    """Members, zeros and other bytes between them, damage anywhere."""
    random.seed(1)
    parts = [gzip.compress(random.randbytes(random.choice([0, 1, 300])) * random.choice([1, 3000])) for _ in range(6)]
    parts += [b"\0", b"\0" * 70_000, b"x", b"\x1f\x8b"]
    damaged = 0
    for index in range(300):
        content = bytearray(random.choice(parts[:6]) + b"".join(random.choices(parts, k=random.randrange(4))))
        if index % 3 == 1:
            content[random.randrange(2, len(content))] ^= 1 << random.randrange(8)
        path = tmp_path / "x"
        path.write_bytes(content[:random.randrange(2, len(content))] if index % 3 == 2 else content)
        mine, other = unpacked(Chunks(path)), unpacked(by_gzip(path))
        assert mine[1] == other[1] == bool(scan(path).damage)
        assert mine[0] == other[0] if not mine[1] else True  # before damage the one may see more than the other
        damaged += mine[1]
    assert 50 < damaged < 250


def test_no_gz_is_unpacked_for_a_look_alone(criteo, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_text, "scan", lambda path, marks: pytest.fail(f"a look at {path} alone"))
    content = [gzip.compress("".join(row + "\n" for row in ROWS[start:start + 20]).encode()) for start in (0, 20, 40)]
    (tmp_path / "day_0.gz").write_bytes(content[0] + content[1])
    (tmp_path / "day_1").write_bytes(content[2])  # packed, whatever its name
    found = read(criteo([str(tmp_path / "day_*")], shuffle=False), "train")
    assert equal(found, reference(ROWS, ROWS, 1))


def test_numbers_that_are_no_plain_digits_are_read_in_the_same_pass(criteo, tmp_path):
    rows = [*ROWS, line(1, {3: "+7"})]
    found = read(criteo([str(write_raw(tmp_path / "day_0.gz", rows))], shuffle=False), "train")
    assert equal(found, reference(rows, rows, 1))


@pytest.mark.parametrize("lacking", ["pipes", "threads"])
def test_without_pipes(criteo, tmp_path, monkeypatch, lacking):
    start = threading.Thread.start

    def no_thread(thread):
        if "Pipe" in str(getattr(thread, "_target", "")):
            raise RuntimeError("can't start new thread")
        start(thread)

    if lacking == "pipes":
        monkeypatch.delattr(os, "mkfifo")
    else:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    files = [str(write_raw(tmp_path / f"day_{index}.gz", ROWS[index::2])) for index in range(2)]
    found = read(criteo(files, shuffle=False), "train")
    assert equal(found, reference(ROWS, ROWS[::2] + ROWS[1::2], 1))


def test_a_pipe_has_one_reader_and_waits_for_none(tmp_path):
    """The file is larger than a pipe: one that is read in part, or not at all, has shown nothing of the rest."""
    file = tmp_path / "rows.gz"
    file.write_bytes(gzip.compress(os.urandom(1 << 16) * 100))
    before = threading.active_count()
    with pipes_of([(file, Scanner()) for _ in range(3)], tmp_path) as pipes:
        with open(pipes[0].path, "rb") as whole, open(pipes[1].path, "rb") as part:
            assert part.read(10) and zlib.crc32(whole.read()) == zlib.crc32(gzip.decompress(file.read_bytes()))
        left_open = open(pipes[1].path, "rb") if pipes[1].path.exists() else None
        with pytest.raises(FileNotFoundError):
            open(pipes[0].path, "rb")
    assert left_open is None
    assert pipes[0].found == scan(file) and pipes[0].done == file.stat().st_size
    assert pipes[1].found is pipes[2].found is None
    assert threading.active_count() == before and [path.name for path in tmp_path.iterdir()] == ["rows.gz"]


def test_too_few_threads_leave_none_behind(tmp_path, monkeypatch):
    file = tmp_path / "rows.gz"
    file.write_bytes(gzip.compress(os.urandom(1 << 16) * 100))
    start, left = threading.Thread.start, [1]

    def one_thread(thread):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", one_thread)
    before = threading.active_count()
    with pipes_of([(file, Scanner()) for _ in range(3)], tmp_path) as pipes:
        assert pipes is None and threading.active_count() == before
        assert [path.name for path in tmp_path.iterdir()] == ["rows.gz"]


def test_a_reader_that_stays_open_without_reading(tmp_path):
    file = tmp_path / "rows.gz"
    file.write_bytes(gzip.compress(os.urandom(1 << 16) * 100))
    with pipes_of([(file, Scanner())], tmp_path) as pipes:
        reader = open(pipes[0].path, "rb")
    reader.close()
    assert pipes[0].found is None
