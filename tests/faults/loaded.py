"""What the interpreter loads once from which the processes are forked: all that a command loads when it is called."""

import importlib

for name in ("clickwise.verbs.train", "clickwise.verbs.predict", "clickwise.verbs.evaluate", "clickwise.verbs.recipes",
             "clickwise.report", "clickwise.models.dlrm", "clickwise.models.dcnv2", "clickwise.embedding.reference",
             "clickwise.embedding.fused", "clickwise.data.check", "clickwise.prepare.table", "clickwise.prepare.criteo",
             "clickwise.prepare.amazon_books", "ibis.backends.duckdb", "sqlglot.dialects.duckdb", "pandas", "sympy",
             "pyarrow.dataset", "numpy.ma", "numpy.fft", "numpy.random", "duckdb.functional", "torch._dynamo",
             "pydantic.type_adapter", "_strptime", "typer._adapters", "pydantic.types", "encodings.cp437",
             "sklearn.ensemble",
             "faults.raw_kinds", "faults.run_kinds", "faults.killed", "faults.full_disk"):
    try:
        importlib.import_module(name)
    except ImportError:  # not in every version; it is loaded when it is needed
        pass
