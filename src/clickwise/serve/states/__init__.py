"""States of a server that go on with events. `live` is what a server calls; stores are behind the interface `store`.

    live      rows looked up, events taken in, users forgotten
    rows      which rows of states that touches, and where they are kept
    records   a row of a state as bytes
    seen      events that were received already
    store     what keeps records: memory, sqlite, redis_store, or one's own
"""

from clickwise.serve.states.live import LiveStates, Taken
from clickwise.serve.states.store import Key, Records, Store, open_store

__all__ = ["Key", "LiveStates", "Records", "Store", "Taken", "open_store"]
