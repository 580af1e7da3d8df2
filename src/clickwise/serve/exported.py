"""An opened export: raw rows, or ids, to probabilities, by ONNX Runtime.

    model = ExportedModel(Path("exported"))
    model.score([{"user_id": 7, "video_id": 3, "tab": 1, …}])      -> float32 [1]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.encoding import Encoder, Encoding
from clickwise.encoding.encoder import FEW, Raw
from clickwise.errors import DataError, EngineError
from clickwise.manifest import FILE as MANIFEST
from clickwise.manifest import Manifest
from clickwise.serve.inputs import tensors, tensors_of_rows
from clickwise.serve.signature import FILE, Signature

ENCODING = "encoding"
Tensors = dict[str, np.ndarray]


class ExportedModel:
    """The model in a folder that `clickwise export` wrote.

    `encoder` makes columns of raw rows; None where the export was made without its encoding. A model is not changed by
    what it scores, and several threads may use it.
    """

    def __init__(self, folder: Path, *, threads: int = 1, checksums: bool = True, graph: bool = True) -> None:
        """Raises DataError for a folder that is no export, or damaged. `threads` of one score; without `checksums` the
        tables are not read before they are needed; without `graph` there is none, and rows are encoded alone."""
        self.folder = folder = Path(folder)
        self.signature = Signature.load(folder)
        self._verify(checksums)
        self.encoding = Encoding.load(folder / ENCODING) if (folder / ENCODING).is_dir() else None
        names = [feature for each in self.signature.inputs for feature in each.features]
        self.encoder = None if self.encoding is None else Encoder(self.encoding, names)
        self._alone = None if self.encoding is None else Encoder(self.encoding, names, alone=True)
        self._session = open_graph(folder / self.signature.graph, threads) if graph else None

    def _verify(self, checksums: bool) -> None:
        manifest = Manifest(self.folder)
        if not manifest.is_there:
            raise DataError(self.folder, found=f"no {MANIFEST}", expected="a whole export", do="export again, or copy "
                            "the whole folder again")
        small = {FILE, f"{ENCODING}/encoding.json", self.signature.graph}
        for name in manifest.names() if checksums else small & set(manifest.names()):
            manifest.verified(name)

    def encode(self, raw: Raw | Sequence[Mapping[str, Any]], where: str = "rows", *, alone: bool = False) -> Tensors:
        """The tensors of raw rows: a list of rows, or columns by name. Where the model reads how many rows a display
        has, they are whole displays, unless rows may be `alone` with theirs. Raises DataError for a column that is
        absent, and for a value that cannot be read."""
        return self.encode_by(self._alone if alone else self.encoder, raw, where)

    def encode_by(self, encoder: Encoder | None, raw: Raw | Sequence[Mapping[str, Any]],
                  where: str = "rows") -> Tensors:
        """The same by an encoder of the same columns, whose states go on with events."""
        if encoder is None:
            raise DataError(self.folder, found="no encoding", expected="ids and numbers, as signature.json says",
                            do="export without --without-encoding")
        if isinstance(raw, Sequence):
            if len(raw) <= FEW and encoder.group is None:
                return tensors_of_rows(self.signature.inputs, [encoder.row(row) for row in raw])
            raw = _by_column(raw, encoder)
        rows = len(next(iter(raw.values()))) if isinstance(raw, Mapping) else len(raw)
        return tensors(self.signature.inputs, encoder.columns(raw, where).arrays, rows)

    def run(self, given: Tensors) -> np.ndarray:
        """The probability of a click of every row, float32."""
        return self._session.run(["probability"], given)[0]

    def score(self, raw: Raw | Sequence[Mapping[str, Any]], where: str = "rows") -> np.ndarray:
        """The probability of a click of every raw row, float32."""
        return self.run(self.encode(raw, where))


def _by_column(rows: Sequence[Mapping[str, Any]], encoder: Encoder) -> dict[str, pa.Array]:
    """Rows as columns; values of several types, 7 and "7", as texts."""
    found = {}
    for of in encoder.needs:
        lacking = [row for row in rows if of not in row]
        if lacking and of not in encoder.optional:
            encoder.row(lacking[0])  # says what is wrong
        if len(lacking) == len(rows):
            continue
        values = [row.get(of) for row in rows]
        try:
            found[of] = pa.array(values)
        except pa.ArrowException:
            found[of] = pa.array([None if value is None else str(value) for value in values], pa.string())
    return found


def open_graph(path: Path, threads: int) -> Any:
    """An ONNX Runtime session on a CPU. Raises EngineError where ONNX Runtime is missing."""
    # It would send what it is used for to its maker, and keep a number of this machine in the user's home.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise EngineError("onnxruntime", found="not installed", expected="ONNX Runtime, which scores exported models",
                          do="pip install 'clickwise[serve]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
