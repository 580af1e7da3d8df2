"""What every store of states must do. A new one joins by one line in `stores.STORES`."""

from __future__ import annotations

import threading

import pytest
from stores import STORES

from clickwise.serve.states import Store


@pytest.fixture(scope="module", params=STORES)
def stores(request, tmp_path_factory):
    with STORES[request.param](tmp_path_factory.mktemp("stores")) as new:
        yield new


@pytest.fixture
def open_(stores):
    return stores()


def put(store: Store, records: dict) -> None:
    store.update(list(records), lambda found: records)


def test_records_come_back_in_the_order_of_their_keys(open_):
    store = open_()
    records = {(owner, name): f"{owner}{name}".encode() for owner in ("", 'é "1"', "u:1", "u:10", "U:1") for name in (
        "", "b", '["ü\'s",1]')}
    put(store, records)
    keys = [*reversed(records), ("u:2", "b"), ("u:1", "c"), ("u:1b", "")]
    assert store.get(keys) == [*reversed(records.values()), None, None, None]
    assert store.get([]) == []
    put(store, {("u:1", "b"): b"", ("u:3", "x"): bytes(range(256)) * 500})
    assert open_().get([("u:1", "b"), ("u:3", "x"), ("u:1", "")]) == [b"", bytes(range(256)) * 500, b"u:1"]
    store.check()


def test_many_records_at_once(open_):
    records = {(f"u{number % 7_000}", f"{number}"): number.to_bytes(8, "little") for number in range(11_000)}
    put(open_(), records)
    assert open_().get(list(records)) == list(records.values())


def test_an_update_reads_what_is_there_and_writes_all_or_nothing(open_):
    store = open_()
    put(store, {("a", "1"): b"one"})
    store.update([("a", "2"), ("a", "1")], lambda found: {("a", "2"): found[1] + b"!",
                                                          ("b", "1"): repr(found[0]).encode()})
    assert store.get([("a", "2"), ("b", "1")]) == [b"one!", b"None"]

    def fails(found):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.update([("a", "1")], fails)
    store.update([("a", "1")], lambda found: {})
    store.update([], lambda found: {("c", "1"): b"new"})
    assert open_().get([("a", "1"), ("a", "2"), ("c", "1")]) == [b"one", b"one!", b"new"]


def test_what_others_write_meanwhile_is_not_lost(open_):
    """Each of several adds up its own and a common counter; what is read in an update is what the update replaces."""
    counters, rounds = [("common", "n"), *((f"own{number}", "n") for number in range(4))], 25
    at_once = threading.Barrier(4)

    def adds(number):
        at_once.wait()
        store = open_()
        for _ in range(rounds):
            store.update([("common", "n"), (f"own{number}", "n")], lambda found: {key: b"%d" % (int(old or 0) + 1) for (
                key, old) in zip([("common", "n"), (f"own{number}", "n")], found, strict=True)})

    threads = [threading.Thread(target=adds, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_().get(counters) == [b"100", b"25", b"25", b"25", b"25"]


def test_all_of_an_owner_is_replaced(open_):
    store = open_()
    put(store, {(owner, name): b"x" for owner in ("u:1", "u:10", "u:", "v") for name in "abc"})
    store.replace("u:1", {"forgotten": b"1", "c": b"new"})
    store.replace("v", {})
    store.replace("nobody", {"a": b"2"})
    assert open_().get([("u:1", name) for name in "abc"]) == [None, None, b"new"]
    assert open_().get([("u:1", "forgotten"), ("nobody", "a"), ("v", "a"), ("u:10", "a"), ("u:", "c")]) == [
        b"1", b"2", None, b"x", b"x"]


def test_threads_share_one(open_):
    store, found = open_(), []
    put(store, {("a", "1"): b"one"})

    def reads():
        found.append(store.get([("a", "1"), ("a", "2")]))

    threads = [threading.Thread(target=reads) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert found == [[b"one", None]] * 8
