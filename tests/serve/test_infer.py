"""`infer`: raw rows in JSON and in binary, or ids, to the probabilities that `clickwise predict` gives."""

from __future__ import annotations

import json
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
from kuairand_rows import write_table
from served_models import Client, infer_request, made, raw_rows, scores, table_rows

from clickwise.serve.exported import ExportedModel
from clickwise.verbs.predict import predict

KUAIRAND, TABLE = "/v2/models/kuairand/infer", "/v2/models/table/infer"


def predicted(run, rows, place):
    write_table(place / "rows.csv", rows)
    predict(run, source=place / "rows.csv", out=place / "scores.parquet")
    return pq.read_table(place / "scores.parquet")["probability"].to_numpy()


def unlabelled(rows):
    return [{name: value for name, value in row.items() if name != "label"} for row in rows]


@pytest.mark.parametrize("count", [1, 20, 100])
def test_raw_rows_score_as_predict_scores_them(client, kuairand_trained, tmp_path, count):
    rows = raw_rows(count)
    found = scores(client.ask("POST", KUAIRAND, infer_request(rows)))
    np.testing.assert_allclose(found, predicted(kuairand_trained, rows, tmp_path), atol=1e-6)


def test_texts_numbers_booleans_and_lists(client, table_trained, tmp_path):
    rows = unlabelled(table_rows(40))
    expected = predicted(table_trained, rows, tmp_path)
    np.testing.assert_allclose(scores(client.ask("POST", TABLE, infer_request(rows))), expected, atol=1e-6)
    typed = [row | {"member": row["member"] == "true", "tags": row["tags"].split(";") if row["tags"] else []}
             for row in rows]
    request = infer_request(typed, {"tags": "BYTES"})
    np.testing.assert_allclose(scores(client.ask("POST", TABLE, request)), expected, atol=1e-6)
    for few in (request, infer_request(rows)):
        for tensor in few["inputs"]:
            tensor["shape"], tensor["data"] = [3], tensor["data"][:3]
        np.testing.assert_allclose(scores(client.ask("POST", TABLE, few)), expected[:3], atol=1e-6)


@pytest.mark.parametrize("count", [3, 40])
def test_a_value_has_one_meaning_however_it_comes(client, count):
    rows = raw_rows(count)
    expected = scores(client.ask("POST", KUAIRAND, infer_request(rows)))
    texts = [{name: str(value) for name, value in row.items()} for row in rows]
    mixed = [row if index % 2 else text for index, (row, text) in enumerate(zip(rows, texts, strict=True))]
    assert scores(client.ask("POST", KUAIRAND, infer_request(texts))) == expected
    column = infer_request(rows)
    for tensor in column["inputs"]:
        tensor["shape"] = [count, 1]
        tensor["data"] = [[value] for value in tensor["data"]]
    assert scores(client.ask("POST", KUAIRAND, column)) == expected
    status, _, said = client.ask("POST", KUAIRAND, infer_request(mixed, dict.fromkeys(mixed[0], "BYTES")))
    assert status == 400 and "as BYTES says" in said["error"]


def binary(rows, datatypes):
    """The JSON, its length, and the tensors behind it."""
    inputs, tail = [], b""
    for name, datatype in datatypes.items():
        values = [row[name] for row in rows]
        if datatype == "BYTES":
            data = b"".join(struct.pack("<I", len(text)) + text for text in (str(value).encode() for value in values))
        else:
            data = np.array(values, {"INT64": "<i8", "FP64": "<f8", "FP32": "<f4", "INT32": "<i4"}[datatype]).tobytes()
        inputs.append({"name": name, "datatype": datatype, "shape": [len(rows)],
                       "parameters": {"binary_data_size": len(data)}})
        tail += data
    return inputs, tail


@pytest.mark.parametrize("count", [2, 50])
def test_binary_tensors_both_ways(client, count):
    rows = raw_rows(count)
    expected = scores(client.ask("POST", KUAIRAND, infer_request(rows)))
    inputs, tail = binary(rows, {"user_id": "BYTES", "video_id": "INT64", "date": "INT32", "hourmin": "FP64",
                                 "tab": "BYTES", "duration_ms": "FP32", "time_ms": "INT64"})
    head = json.dumps({"id": "7", "inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    status, headers, body = client.ask("POST", KUAIRAND, head + tail, {"Inference-Header-Content-Length": len(head)})
    assert status == 200, body
    length = int(headers["inference-header-content-length"])
    told = json.loads(body[:length])
    assert told["id"] == "7" and told["outputs"][0]["parameters"]["binary_data_size"] == 4 * count
    np.testing.assert_array_equal(np.frombuffer(body[length:], "<f4"), np.float32(expected))
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "probability"}]}).encode()
    assert scores(client.ask("POST", KUAIRAND, head + tail, {"Inference-Header-Content-Length": len(head)})) == expected


@pytest.mark.parametrize("count", [2, 50])
def test_null_nan_and_nothing_are_missing(client, count):
    rows = raw_rows(count)
    found = [scores(client.ask("POST", KUAIRAND, infer_request([row | {"duration_ms": value} for row in rows],
                                                               {"duration_ms": datatype})))
             for value, datatype in ((None, "FP64"), ("", "BYTES"))]
    inputs, tail = binary([row | {"duration_ms": float("nan")} for row in rows],
                          {name: "FP64" if name == "duration_ms" else "INT64" for name in rows[0]})
    head = json.dumps({"inputs": inputs}).encode()
    found.append(scores(client.ask("POST", KUAIRAND, head + tail, {"Inference-Header-Content-Length": len(head)})))
    assert found[0] == found[1] == found[2] != scores(client.ask("POST", KUAIRAND, infer_request(rows)))


def test_ids_and_numbers(client, kuairand, kuairand_trained, tmp_path):
    model, rows = ExportedModel(kuairand), raw_rows(5)
    tensors = model.encode(rows)
    inputs = [{"name": name, "datatype": "FP32" if array.dtype == np.float32 else "INT64", "shape": list(array.shape),
               "data": array.tolist()} for name, array in tensors.items()]
    request = {"inputs": inputs, "parameters": {"encoded": True}}
    expected = scores(client.ask("POST", KUAIRAND, infer_request(rows)))
    assert scores(client.ask("POST", KUAIRAND, request)) == expected
    alone = Client(made(kuairand_trained, tmp_path / "ids", name="ids", encoding=False))
    assert scores(alone.ask("POST", "/v2/models/ids/infer", {"inputs": inputs})) == expected
    ids = next(tensor for tensor in inputs if tensor["name"] == "ids")
    for value, said in ((10**6, "the id 1000000"), (-1, "the id -1"), (1.5, "a value of the type number"),
                        (None, "null"), (2**63, "64 bits"), ("1", "a value of the type text")):
        ids["data"] = [[value, *row[1:]] for row in tensors["ids"].tolist()]
        status, _, content = client.ask("POST", KUAIRAND, request)
        assert status == 400 and said in content["error"], content


def test_columns_that_the_model_does_not_need_are_left_alone(client):
    rows = raw_rows(2)
    more = [row | {"is_click": 1} for row in rows]
    assert scores(client.ask("POST", KUAIRAND, infer_request(more))) == scores(
        client.ask("POST", KUAIRAND, infer_request(rows)))


GOOD = infer_request(raw_rows(2))


def changed(tensor=None, **body):
    content = json.loads(json.dumps(GOOD)) | body
    content["inputs"][0] |= tensor or {}
    return content


@pytest.mark.parametrize(("content", "said"), [
    (b"", "no JSON"), (b"{", "no JSON"), (b"[]", "a list"), (b"7", "a number"), (b"\xff\xfe", "no JSON"),
    (b"[" * 100_000, "no JSON"), (b'{"inputs": ' + b'[' * 2000 + b']' * 2000 + b"}", "body"),
    ({}, "inputs"), ({"inputs": {}}, "inputs"), ({"inputs": []}, "inputs"), ({"inputs": [3]}, "inputs"),
    ({"inputs": [{}] * 10_001}, "10,001 tensors"), ({"inputs": [{"name": 3}]}, "as a name"),
    (changed({"name": None}), "as a name"), (changed({"name": "x" * 501}), "as a name"),
    (changed({"datatype": "INT65"}), "datatype"),
    (changed({"datatype": ["INT64"]}), "datatype"), (changed({"shape": 2}), "shape"),
    (changed({"shape": [2, 2]}), "shape"), (changed({"shape": [2, 1, 1]}), "shape"), (changed({"shape": []}), "shape"),
    (changed({"shape": [-2]}), "shape"), (changed({"shape": [True]}), "shape"), (changed({"shape": [2.0]}), "shape"),
    (changed({"shape": [0], "data": []}), "0 rows"), (changed({"shape": [10**12]}), "shape"),
    (changed({"shape": [65_537]}), "65,537 rows"), (changed({"shape": [3]}), "2 values"),
    (changed({"shape": [1], "data": [1]}), "1"), (changed({"data": None}), "data"), (changed({"data": 7}), "data"),
    (changed({"data": [[1, 2], [3]]}), "list"), (changed({"data": [{}, {}]}), "object"),
    (changed({"data": ["x", "y"]}), "INT64"), (changed({"data": [1.5, 2]}), "INT64"),
    (changed({"data": [True, False]}), "INT64"), (changed({"datatype": "BOOL"}), "BOOL"),
    (changed({"parameters": 3}), "parameters"), (changed({"parameters": {"binary_data_size": 8}}), "binary_data_size"),
    (changed(parameters=[]), "parameters"), (changed(parameters={"encoded": 1}), "encoded"),
    (changed(parameters={"binary_data_output": "yes"}), "binary_data_output"), (changed(id=7), "id"),
    (changed(outputs=3), "outputs"), (changed(outputs=[{"name": "logits"}]), "logits"),
    (changed(outputs=[3]), "outputs"),
    (changed(outputs=[{"name": "probability", "parameters": {"binary_data": 1}}]), "binary_data"),
    (changed(parameters={"encoded": True}), "no tensor of the model"),
    ({"inputs": [*GOOD["inputs"], GOOD["inputs"][0]]}, "twice"), ({"inputs": GOOD["inputs"][1:]}, "no column"),
    ({"inputs": [{"name": "usr_id", "datatype": "INT64", "shape": [1], "data": [3]}]}, "did you mean 'user_id'"),
    ({"inputs": [tensor if tensor["name"] != "duration_ms" else tensor | {"datatype": "BYTES", "data": ["1_000", "x"]}
                 for tensor in GOOD["inputs"]]}, "a number"),
], ids=lambda value: None if not isinstance(value, str) else value[:20].replace(" ", "_"))
def test_what_is_no_request_is_told_in_one_message(client, content, said):
    status, headers, answer = client.ask("POST", KUAIRAND, content)
    assert status == 400 and list(answer) == ["error"], answer
    assert said in answer["error"] and "found" in answer["error"] and len(answer["error"]) < 700
    assert client.ask("POST", KUAIRAND, GOOD)[0] == 200


@pytest.mark.parametrize(("sizes", "length", "extra", "said"), [
    ((8, 8), 10**6, b"", "Inference-Header-Content-Length"), ((8, 8), None, b"", "no JSON"),
    ((16, 16), 0, b"", "0 …"), ((-1, 8), 0, b"", "0 …"), ((True, 8), 0, b"", "0 …"), ((7, 8), 0, b"", "7 bytes"),
    ((8, 8), 0, b"more", "4 bytes behind the last tensor"), ((8, 4), 0, b"", "behind the tensor"),
    ((8, 3), 0, b"", "behind the tensor"), ((8, 8), "x", b"", "whole number"), ((8, 8), -1, b"", "whole number")])
def test_binary_sizes_that_are_wrong(client, sizes, length, extra, said):
    tail = struct.pack("<q", 3) + struct.pack("<I", 4) + b"1234"
    head = json.dumps({"inputs": [
        {"name": "user_id", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": sizes[0]}},
        {"name": "tab", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": sizes[1]}}]}).encode()
    whole = head + tail[:sum(size for size in sizes if 0 < size <= 8)] + extra
    headers = {} if length is None else {"Inference-Header-Content-Length": length or len(head)}
    status, _, answer = client.ask("POST", KUAIRAND, whole, headers)
    assert status == 400 and said in str(answer), answer


def test_texts_that_are_no_utf8(client):
    inputs, tail = binary([{"user_id": "ab"}], {"user_id": "BYTES"})
    head = json.dumps({"inputs": inputs}).encode()
    status, _, answer = client.ask("POST", KUAIRAND, head + tail.replace(b"ab", b"\xff\xff"),
                                   {"Inference-Header-Content-Length": len(head)})
    assert status == 400 and "UTF-8" in answer["error"]


def test_what_is_not_there(client):
    for method, path, status in (("GET", "/", 404), ("GET", "/v3", 404), ("POST", "/v2", 405), ("GET", KUAIRAND, 405),
                                 ("POST", "/v2/models/other/infer", 404), ("GET", "/v2/models/other", 404),
                                 ("POST", "/v2/models/kuairand/versions/9/infer", 404), ("GET", "/v1/rank", 405),
                                 ("GET", "/v2/models/kuairand/versions/9/ready", 404)):
        found, headers, answer = client.ask(method, path, b"{}")
        assert found == status and list(answer) == ["error"], (path, found, answer)


def test_a_fault_of_ours_is_a_number_and_its_traceback_is_in_the_log(client, capsys, monkeypatch):
    served = client.app.models.find("kuairand", None)
    monkeypatch.setattr(served, "score", lambda tensors: 1 // 0)
    status, _, answer = client.ask("POST", KUAIRAND, GOOD)
    err = capsys.readouterr().err
    number = answer["error"].split(", ")[-1].split(";")[0]
    assert status == 500 and "ZeroDivisionError" not in answer["error"]
    assert number in err and "ZeroDivisionError" in err
