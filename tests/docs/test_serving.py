"""docs/serving.md, as it stands there: its commands export a run, serve it, and every curl is answered."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from served_models import kuairand_run, running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
         if not line.startswith(("clickwise prepare", "clickwise train"))]  # a small run takes their place


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_page(clickwise, tmp_path, tmp_path_factory):
    run = kuairand_run(tmp_path_factory.mktemp("run"))
    (tmp_path / "runs/columns-dcnv2").mkdir(parents=True)
    (tmp_path / "runs/columns-dcnv2" / run.name).symlink_to(run)
    (tmp_path / "request.json").write_text(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    (tmp_path / "exports").mkdir()
    answers, server, address = {}, None, ""
    try:
        for line in LINES:
            words = shlex.split(line)
            if words[:2] == ["clickwise", "serve"]:
                if server is not None:
                    server.__exit__(None, None, None)
                place = words.index("--port")
                server = running(*words[2:place], *words[place + 2:], cwd=tmp_path)
                _, address = server.__enter__()
            elif words[0] == "clickwise":
                words = [str(path) for word in words[1:] for path in (sorted(tmp_path.glob(word)) if "*" in word
                                                                      else [word])]
                result = clickwise(*words)
                assert result.code == 0, result.err
            else:
                done = subprocess.run([word.replace("localhost:8080", address) for word in words], cwd=tmp_path,
                                      capture_output=True, text=True)
                assert done.returncode == 0 and "error" not in done.stdout, done
                answers[line.split("localhost:8080")[1].split(" ")[0]] = done.stdout
    finally:
        if server is not None:
            server.__exit__(None, None, None)
    told = {path: json.loads(answer) for path, answer in answers.items() if path != "/metrics"}
    assert len(told["/v2/models/kuairand/infer"]["outputs"][0]["data"]) == 2
    assert [set(entry) for entry in told["/v1/rank"]["ranked"]] == [{"index", "key", "score"}] * 2
    assert [entry["version"] for entry in told["/v2/repository/index"]] == ["1", "2"]
    assert told["/v2/repository/models/kuairand/load"] == {"name": "kuairand", "version": "1", "state": "READY"}
    assert "clickwise_requests_total" in answers["/metrics"]
