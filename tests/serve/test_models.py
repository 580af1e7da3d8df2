"""What is served can be changed while it is served: a further version, the one before again, none."""

from __future__ import annotations

import json
import shutil

import pytest
from served_models import Client, infer_request, made, raw_rows, scores, table_rows

from clickwise.errors import DataError, UsageError

REQUEST = infer_request(raw_rows(2))
LOAD, UNLOAD = "/v2/repository/models/kuairand/load", "/v2/repository/models/kuairand/unload"


@pytest.fixture(scope="module")
def exports(kuairand_trained, kuairand, table, tmp_path_factory):
    """A folder with exports in it, and one beside it."""
    root = tmp_path_factory.mktemp("root")
    made(kuairand_trained, root / "second", name="kuairand", version="2")
    made(kuairand_trained, root.parent / "beside", name="kuairand", version="3")
    shutil.copytree(root / "second", root / "damaged")
    (root / "damaged" / "model.onnx").write_bytes(b"nothing")
    (root / "empty").mkdir()
    (root / "link").symlink_to(root.parent / "beside")
    yield root
    shutil.rmtree(root.parent / "beside")


def load(client, **parameters):
    status, _, content = client.ask("POST", LOAD, {"parameters": parameters})
    return status, content


def version(client, path="/v2/models/kuairand/infer"):
    status, _, content = client.ask("POST", path, REQUEST)
    return content["model_version"] if status == 200 else status


def test_a_further_version_and_back(kuairand, exports):
    client = Client(kuairand, roots=(exports,))
    first = scores(client.ask("POST", "/v2/models/kuairand/infer", REQUEST))
    assert load(client, folder="second") == (200, {"name": "kuairand", "version": "2", "state": "READY"})
    assert version(client) == "2" and version(client, "/v2/models/kuairand/versions/1/infer") == "1"
    assert client.ask("GET", "/v2/models/kuairand")[2]["versions"] == ["1", "2"]
    assert [(entry["version"], entry["reason"]) for entry in client.ask("POST", "/v2/repository/index")[2]] == [
        ("1", ""), ("2", "the default")]
    assert load(client, version="1")[0] == 200 and version(client) == "1"
    assert scores(client.ask("POST", "/v2/models/kuairand/infer", REQUEST)) == first
    assert load(client, folder="second")[0] == 200 and version(client) == "2"
    assert client.ask("POST", UNLOAD, {"parameters": {"version": "2"}})[0] == 200 and version(client) == "1"
    assert version(client, "/v2/models/kuairand/versions/2/infer") == 404
    assert client.ask("POST", UNLOAD)[0] == 200 and version(client) == 404
    assert client.ask("GET", "/v2/health/ready")[0] == 503 and client.ask("GET", "/v2/health/live")[0] == 200
    assert load(client, folder=str(exports / "second"))[0] == 200 and version(client) == "2"
    text = client.ask("GET", "/metrics")[2].decode()
    assert 'clickwise_model_ready{model="kuairand",version="2"} 1' in text
    assert 'clickwise_rows_total{model="kuairand"} 16' in text


@pytest.mark.parametrize(("parameters", "status", "said"), [
    ({"folder": "../beside"}, 403, "--root"), ({"folder": "/etc"}, 403, "--root"), ({"folder": "link"}, 403, "--root"),
    ({"folder": "gone"}, 403, "--root"), ({"folder": "empty"}, 400, "signature.json"),
    ({"folder": "damaged"}, 400, "model.onnx"), ({"version": "9"}, 404, "version '9'"), ({"folder": 3}, 400, "texts"),
    ({"config": "{}"}, 400, "config"), ({}, 403, "--root"), ({"folder": "\0"}, 403, "--root")])
def test_what_cannot_be_loaded_changes_nothing(kuairand, exports, parameters, status, said):
    client = Client(kuairand, roots=(exports,))
    found, content = load(client, **parameters)
    assert found == status and said in content["error"], content
    assert version(client) == "1"


def test_another_folder_of_a_version_that_is_served(kuairand, exports, tmp_path):
    shutil.copytree(kuairand, exports / "again")
    client = Client(kuairand, roots=(exports,))
    status, content = load(client, folder="again")
    assert status == 400 and "another version" in content["error"]
    shutil.rmtree(exports / "again")


def test_nothing_is_loaded_where_no_root_is_named(client):
    status, content = load(client, folder="second")
    assert status == 403 and "--root" in content["error"]


def test_what_is_no_export(tmp_path, kuairand):
    with pytest.raises(DataError, match="signature.json"):
        Client(tmp_path)
    with pytest.raises(UsageError, match="a second time"):
        Client(kuairand, kuairand)


def test_others_follow_one_worker(kuairand, exports, tmp_path):
    """Two workers that share a place: what one is told to, the other serves when it has looked."""
    from pathlib import Path

    from clickwise.serve import shared_memory
    from clickwise.serve.options import Options
    from clickwise.serve.worker import Shared, application

    options = Options(folders=(kuairand,), roots=(exports,), workers=2, access_log=False)
    shared = Shared(Path(tmp_path), shared_memory.counts(2), shared_memory.seen(2))
    one, two = (application(options, shared, number) for number in range(2))
    one.models.load("kuairand", "second", None)
    assert not one.models.all_follow and two.models.is_behind and two.models.find("kuairand", None).version == "1"
    two.models.follow()
    assert one.models.all_follow and two.models.find("kuairand", None).version == "2"
    one.measures.request("infer", 200, 0.001)
    two.measures.request("infer", 200, 0.001)
    text = two.measures.text(list(two.models.counted.values()), [])
    assert 'clickwise_requests_total{route="infer",status="200"} 2' in text and "clickwise_workers 2" in text
    again = application(options, shared, 1)  # another takes the place of the second one
    assert again.models.find("kuairand", None).version == "2" and one.models.all_follow
    assert 'status="200"} 2' in again.measures.text([], [])


def test_what_a_model_is(client, kuairand):
    told = client.ask("GET", "/v2/models/kuairand/versions/1")[2]
    assert told["name"] == "kuairand"
    assert told["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]
    assert {"name": "user_id", "datatype": "INT64", "shape": [-1]} in told["inputs"]
    assert client.ask("GET", "/v2/models/kuairand/ready")[2] == {"name": "kuairand", "ready": True}
    assert client.ask("GET", "/v2")[2]["name"] == "clickwise"
    example = json.loads((kuairand / "signature.json").read_text())["example"]
    found = scores(client.ask("POST", "/v2/models/kuairand/infer", example["request"]))
    assert max(abs(a - b) for a, b in zip(found, example["expected_scores"], strict=True)) < 1e-6


def test_values_and_scores_are_counted(kuairand, table):
    """What is missing, what was not seen, how probable: of single rows, of a few and of many alike."""
    rows = [{name: value for name, value in row.items() if name != "label"} for row in table_rows(40)]
    rows[0]["city"], rows[1]["city"], rows[2]["age"] = "Paris", None, None
    texts = []
    for requests in ([rows], [[row] for row in rows], [rows[first:first + 5] for first in range(0, 40, 5)]):
        client = Client(table)
        for part in requests:
            assert client.ask("POST", "/v2/models/table/infer", infer_request(part, {
                "city": "BYTES", "age": "INT64"}))[0] == 200
        texts.append([line for line in client.ask("GET", "/metrics")[2].decode().splitlines() if "table" in line
                      and "sum" not in line and not line.startswith("clickwise_model")])
    assert texts[0] == texts[1] == texts[2]
    for line in ('missing_values_total{model="table",column="city"} 1',
                 'unseen_values_total{model="table",column="city"} 1',
                 'missing_values_total{model="table",column="age"} 1', 'rows_total{model="table"} 40',
                 'score_count{model="table"} 40'):
        assert f"clickwise_{line}" in texts[0]
