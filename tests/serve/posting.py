"""A process that posts events one by one and says so before and after: python posting.py ENCODING STORE LOG FIRST."""

import json
import sys
from pathlib import Path

import pyarrow as pa

from clickwise.encoding import Encoding
from clickwise.serve.states import LiveStates, open_store

if __name__ == "__main__":
    encoding, store, log, first = sys.argv[1:]
    live = LiveStates(Encoding.load(Path(encoding)), [], open_store(store))
    for number, row in enumerate(json.loads(Path(log).read_text())[int(first):], int(first)):
        print("posts", number, flush=True)
        live.events(pa.Table.from_pylist([row]))
        print("acknowledged", number, flush=True)
