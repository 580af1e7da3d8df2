"""Data that contradicts itself: one message with its place, exit code 1, and nothing written, whatever reads it."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

ROWS = 40
TABLE = {"y": [row % 2 for row in range(ROWS)], "x": [0.5] * ROWS, "c": [row % 9 for row in range(ROWS)],
         "tags": [[1, 2][:row % 3] for row in range(ROWS)]}
SPEC = {"feature_spec": {"y": {}, "x": {}, "c": {"cardinality": 9}, "tags": {"cardinality": 5, "max_hotness": 2}},
        "channel_spec": {"label": ["y"], "numerical": ["x"], "categorical": ["c", "tags"]}}


def write_table(path, **changed) -> None:
    """TABLE with other columns, as Parquet, csv or csv.gz by the ending of `path`."""
    table = {**TABLE, **changed}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
        return
    rows = zip(*table.values(), strict=True)
    text = "".join(",".join("|".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in row) + "\n"
                   for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_spec(folder, chunks, features=None, **sections) -> None:
    """SPEC, whose mappings are both of `chunks`: (type, files) of chunks of all features, or whole chunks."""
    chunks = [chunk if isinstance(chunk, dict) else {"type": chunk[0], "features": [*TABLE], "files": [*chunk[1:]]}
              for chunk in chunks]
    features = {**SPEC["feature_spec"], **(features or {})}
    content = {**SPEC, "feature_spec": features, "source_spec": {"train": chunks, "test": chunks}, **sections}
    (folder / "feature_spec.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def with_value(column: str, value, *endings: str):
    """For each of the `endings` a file `a` and a file `b` whose row 5 has another value in `column`."""
    def make(folder, ending):
        values = list(TABLE[column])
        values[5] = value
        write_table(folder / f"a{ending}")
        write_table(folder / f"b{ending}", **{column: values})
        write_spec(folder, [("csv" if "csv" in ending else "parquet", f"a{ending}", f"b{ending}")])
    return make, endings or (".csv", ".parquet")


def raw(folder, _) -> dict[str, np.ndarray]:
    """TABLE as split_binary; the arrays by file, to be changed and written again."""
    lists = TABLE["tags"]
    arrays = {"y": np.array(TABLE["y"], "bool"), "x": np.array(TABLE["x"], "float32"),
              "c": np.array(TABLE["c"], "int8"),
              "values": np.array(sum(lists, []), "int8"), "offsets": np.cumsum([0, *map(len, lists)])}
    types = {"y": {"dtype": "bool"}, "x": {"dtype": "float32"}, "c": {"dtype": "int8", "cardinality": 9},
             "tags": {"dtype": "int8", "cardinality": 5, "max_hotness": 2}}
    files = {"y": ["y"], "x": ["x"], "c": ["c"], "tags": ["values", "offsets"]}
    for name, array in arrays.items():
        array.tofile(folder / name)
    write_spec(folder, [{"type": "split_binary", "features": [name], "files": files[name]} for name in TABLE], types)
    return arrays


def raw_with(file: str, index: int, value):
    def make(folder, ending):
        array = raw(folder, ending)[file]
        array[index] = value
        array.tofile(folder / file)
    return make, ("",)


def spec_with(*chunks, features=None, **sections):
    """Good files `a`, and a spec that is not."""
    def make(folder, ending):
        for name in ("a.csv", "a.parquet"):
            write_table(folder / name)
        write_spec(folder, chunks or [("csv", "a.csv")], features, **sections)
    return make, ("",)


def bytes_of(name: str, change, type_: str = "parquet"):
    """A file `name` whose bytes are changed."""
    def make(folder, ending):
        write_table(folder / "a.parquet")
        (folder / name).write_bytes(change((folder / "a.parquet").read_bytes()))
        write_spec(folder, [(type_, name)])
    return make, ("",)


def text_of(text: str, *endings: str):
    def make(folder, ending):
        content = text.encode()
        (folder / f"a{ending}").write_bytes(gzip.compress(content) if ending == ".csv.gz" else content)
        write_spec(folder, [("csv", f"a{ending}")])
    return make, endings or (".csv",)


def declared_twice(folder, ending) -> None:
    write_table(folder / "a.csv")
    write_spec(folder, [("csv", "a.csv")])
    path = folder / "feature_spec.yaml"
    path.write_text(path.read_text().replace("feature_spec:\n", "feature_spec:\n  c: {cardinality: 5}\n"))


def chunks_of_other_lengths(folder, ending) -> None:
    write_table(folder / f"a{ending}")
    pq.write_table(pa.table({"z": [0.5] * (ROWS - 3)}), folder / "z.parquet")
    write_spec(folder, [("parquet" if ending == ".parquet" else "csv", f"a{ending}"),
                        {"type": "parquet", "features": ["z"], "files": ["z.parquet"]}],
               {"z": {}}, channel_spec={**SPEC["channel_spec"], "numerical": ["x", "z"]})


def row(tags: str = "1|2", c: str = "3") -> str:
    return f"1,0.5,{c},{tags}\n"


BAD = {  # what is wrong: ((how it is made, endings of files), words of the message)
    "a feature declared twice": ((declared_twice, ("",)), "feature_spec.yaml, line", "'c' stands twice"),
    "a feature twice in a chunk": (
        spec_with({"type": "csv", "features": ["y", "x", "c", "tags", "c"], "files": ["a.csv"]}),
        "source_spec.train[0].features", "'c' twice"),
    "a feature in two chunks": (
        spec_with(("csv", "a.csv"), {"type": "csv", "features": ["c"], "files": ["a.csv"]}),
        "source_spec.train[1].features", "'c', which chunk [0] has too"),
    "a feature twice in a channel": (
        spec_with(channel_spec={**SPEC["channel_spec"], "categorical": ["c", "tags", "c"]}),
        "channel_spec.categorical", "'c' twice"),
    "a channel in another order than its chunk": (
        spec_with({"type": "split_binary", "features": ["x", "z"], "files": ["a.csv"]}, ("csv", "a.csv"),
                  features={"x": {"dtype": "float32"}, "z": {"dtype": "float32"}},
                  channel_spec={**SPEC["channel_spec"], "numerical": ["z", "x"]}),
        "source_spec.train[0].features", "another order than channel_spec.numerical", "one chunk with z, x"),
    "chunks of other lengths": ((chunks_of_other_lengths, (".csv", ".parquet")), "z.parquet\n", "37 rows",
                                "40 rows, as in"),
    "a row too short": (text_of(row() * 7 + "1,0.5,3\n" + row(), ".csv", ".csv.gz"), "a.csv", "line 8", "3 field(s)",
                        "4: y, x, c, tags"),
    "a row too long": (text_of(row() * 7 + "1,0.5,3,1,9\n" + row()), "a.csv", "line 8", "5 field(s)", "4: y, x, c"),
    "offsets that fall": (raw_with("offsets", 20, 0), "values, row 19", "an offset 0 after", "never fall"),
    "offsets beyond the values": (raw_with("offsets", ROWS, 1000), "offsets\n", "offsets from 0 to 1000"),
    "a list too long": (with_value("tags", [1, 2, 3]), "b.", "row 5", "a list of 3 of the feature 'tags'",
                        "at most 2 (max_hotness)"),
    "a negative id": (with_value("c", -1), "b.", "row 5", "id -1 of the feature 'c'", "0 … 8", "0 is missing"),
    "a negative id in raw columns": (raw_with("c", 5, -7), "in/c, row 5", "id -7", "-7 is no id here"),
    "a negative id in a list": (with_value("tags", [1, -3]), "b.", "row 5", "id -3 of the feature 'tags'"),
    "an id beyond the cardinality": (with_value("c", 9), "b.", "row 5", "id 9", "0 … 8 (cardinality 9)", "unknown_ids"),
    "an id beyond its type": (with_value("c", 300), "b.", "row 5", "id 300", "0 … 8 (cardinality 9)"),
    "a fraction for an id": (with_value("c", "1.5", ".csv"), "b.csv, column 'c', line 6", "'1.5'", "an integer"),
    "a whole float for an id": (with_value("c", "3.0", ".csv"), "b.csv, column 'c', line 6", "'3.0'",
                                "no decimal point"),
    "a missing id": (with_value("c", "", ".csv"), "b.csv, column 'c', row 5", "a missing value"),
    "a missing id in Parquet": (with_value("c", None, ".parquet"), "b.parquet, column 'c', row 5", "a missing value"),
    "a fraction in a list": (with_value("tags", ["1.5"], ".csv"), "b.csv, column 'tags', row 5", "'1.5'", "integers"),
    "a fraction for an id in Parquet": (with_value("c", 1.5, ".parquet"), "b.parquet, column 'c', row 5", "1.5",
                                        "a column of integers, ids 0 … 8"),
    "whole floats for ids in Parquet": (with_value("c", 3.0, ".parquet"), "b.parquet, column 'c', row 0", "0.0",
                                        "a column of integers"),
    "texts for ids": (with_value("c", "shop", ".csv"), "b.csv, column 'c', line 6", "'shop'", "encoded to ids"),
    "a cardinality smaller than found": (spec_with(features={"c": {"cardinality": 8}}), "a.csv, row 8", "id 8",
                                         "0 … 7 (cardinality 8)"),
    "a csv and a Parquet in a chunk of csv": (spec_with(("csv", "a.csv", "a.parquet")), "a.parquet\n", "PAR1", "csv",
                                              "of one type"),
    "a csv and a Parquet in a chunk of Parquet": (spec_with(("parquet", "a.parquet", "a.csv")), "a.csv\n",
                                                  "no Parquet file", "of one type"),
    "a Parquet in a chunk of csv": (spec_with(("csv", "a.parquet")), "a.parquet\n", "a Parquet file",
                                    "set type: parquet"),
    "a csv in a chunk of Parquet": (spec_with(("parquet", "a.csv")), "a.csv\n", "no Parquet file", "set type: csv"),
    "a Parquet cut off": (bytes_of("b.parquet", lambda whole: whole[:-20]), "b.parquet\n", "without its end",
                          "copy it again"),
    "a Parquet of which four bytes came": (bytes_of("b.parquet", lambda whole: whole[:4]), "b.parquet\n", "copy it"),
    "a Parquet with a damaged footer": (
        bytes_of("b.parquet", lambda whole: whole[:-60] + b"\xff" * 40 + whole[-20:]), "b.parquet\n", "damaged"),
    "a Parquet with damaged pages": (
        bytes_of("b.parquet", lambda whole: whole[:4] + b"\xff" * 400 + whole[404:]), "b.parquet\n", "damaged"),
    "garbage for a Parquet": (bytes_of("b.parquet", lambda whole: whole[50:]), "b.parquet\n", "no Parquet file",
                              "copy the file again"),
    "an empty Parquet": (bytes_of("b.parquet", lambda whole: b""), "b.parquet\n", "an empty file"),
    "garbage for a csv": (bytes_of("b.csv", lambda whole: whole[50:], "csv"), "b.csv"),
    "a mapping without chunks": (spec_with(source_spec={"train": [], "test": []}), "source_spec.train",
                                 "a list of chunks"),
    "an empty csv": (text_of(""), "a.csv", "an empty file"),
    "a csv that is a header": (text_of("y,x,c,tags\n"), "a.csv\n", "no rows", "at least one row"),
    "a Parquet without rows": (
        bytes_of("b.parquet", lambda whole: parquet_bytes(pa.table(TABLE).slice(0, 0))), "b.parquet\n", "no rows"),
    "a file that is not there": (spec_with(("csv", "a.csv", "aa.csv")), "aa.csv\n", "no such file"),
    "a column that is not there": (
        bytes_of("b.parquet", lambda whole: parquet_bytes(pa.table(TABLE).drop_columns("c"))),
        "b.parquet\n", "no column 'c'"),
    "a column twice": (
        bytes_of("b.parquet", lambda whole: parquet_bytes(pa.table(TABLE).append_column("c", [TABLE["c"]]))),
        "b.parquet\n", "2 times the column 'c'"),
    "a column twice in a header": (text_of("y,x,c,tags,c\n" + row(tags="1,2")), "a.csv, line 1",
                                   "2 times the column 'c'"),
}


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


CASES = [(kind, ending) for kind, ((_, endings), *_) in BAD.items() for ending in endings]
TRAIN = ["train", "tiny/dlrm", "data={path: in}", "train.batch_size=20", "model.embedding_dim=2",
         "model.bottom_mlp=[2]"]


@pytest.mark.parametrize(("kind", "ending"), CASES)
def test_one_clear_message_and_nothing_written(clickwise, tmp_path, kind, ending):
    (make, _), *words = BAD[kind]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder, ending)
    before = sorted(path.name for path in folder.iterdir())
    for command in (["transcode", "in", "--out", "out"], TRAIN):
        result = clickwise(*command)
        assert result.code == 1, (result.code, result.err)
        assert result.err.startswith("clickwise: ") and "Traceback" not in result.err
        assert "\n  found    " in result.err and "\n  expected " in result.err
        assert len(result.err.splitlines()) <= 4, result.err
        for word in words:
            assert word in result.err, result.err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_same_data_without_a_slip_is_read(clickwise, tmp_path):
    for number, make in enumerate((with_value("c", 8)[0], with_value("tags", [4])[0])):
        for ending in (".csv", ".parquet"):
            folder = tmp_path / f"{number}{ending}"
            folder.mkdir()
            make(folder, ending)
            assert clickwise("transcode", folder, "--out", folder / "out").code == 0
    (tmp_path / "in").mkdir()
    raw(tmp_path / "in", "")
    assert clickwise("transcode", "in", "--out", "out").code == 0
    assert clickwise(*TRAIN, "train.epochs=1").code == 0
