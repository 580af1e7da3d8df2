"""The page of examples/serve_kuairand, in a browser without a window, before a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import clickwise as cw

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def start(*words):
    """(address, process) of a program that says where it answers."""
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if found := re.search(r"http://[\w.]+:\d+", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found[0], process
    pytest.fail(f"{words} ended")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    cw.prepare_recipe("kuairand/prepare_history", {"out": str(folder / "data")})
    run = cw.fit_recipe("kuairand/din", {"data.path": str(folder / "data"), "train.steps": 20, "train.epochs": None,
                                         "schedule": {}, "baselines": [], "train.patience": None}, out=folder / "runs")
    server, first = start("-m", "clickwise", "serve", cw.load(run).export(folder / "exported"), "--port", 0,
                          "--states", "memory")
    page, second = start(ROOT / "examples" / "serve_kuairand" / "page.py", "--server", server, "--port", 0)
    yield page
    for process in (second, first):
        process.terminate()
        process.wait()


def shown(address):
    """What stands on the page, and its source as the browser has made it."""
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
                           "--dump-dom", address], capture_output=True, text=True, timeout=120)
    return done.stdout.partition("<script>")[0]


@pytest.mark.slow
def test_ranked_videos_change_with_the_history(address):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    whole, without = shown(address + "/?user=1"), shown(address + "/?user=1&without=all")
    for source in (whole, without):
        assert re.search(r'<div id="error" role="alert"></div>', source)
        assert len(re.findall(r'class="bar"', source)) == 40 and "points</span>" in source
    assert "▲" not in whole and "▲" in without and "▼" in without
    scores = [[float(score) for score in re.findall(r"<span>([\d.]+) %</span>", source)] for source in (whole, without)]
    assert scores[0] == sorted(scores[0], reverse=True) and scores[0] != scores[1]
