"""The fitted preparation as data: raw rows become what a model reads, without DuckDB, Ibis or torch.

    encoding = Encoding.load(run / "encoding")
    Encoder(encoding).row({"age": 42, "city": "Oslo"})      -> {"age": 0.26, "city": 17}
"""

from clickwise.encoding.document import Column, Encoding, RawColumn
from clickwise.encoding.encoder import Encoded, Encoder, ValueCounts

__all__ = ["Column", "Encoded", "Encoder", "Encoding", "RawColumn", "ValueCounts"]
