"""A page that asks a clickwise server: which videos would this user click, what does the history do, and why?

    clickwise prepare kuairand/prepare_history
    clickwise train kuairand/din
    clickwise export runs/kuairand_history-din --out exported
    clickwise serve exported --states memory &
    python examples/serve_kuairand/page.py

Then open http://127.0.0.1:8090. The page's own server gives it users, moments and videos of the shipped sample, and
passes its questions on, so that the browser talks to one address.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickwise.files import shipped

PAGE = Path(__file__).with_name("index.html")
FIRST_TEST_DAY = 20220501
USERS, EVENTS, CANDIDATES = 12, 30, 40
EVENT = ["user_id", "video_id", "duration_ms", "tab", "time_ms", "date", "hourmin", "is_click"]
CHINA = datetime.timezone(datetime.timedelta(hours=8))


@functools.cache
def data() -> dict:
    """Users with a moment of the first test day and what they had seen before it, and the videos of that day."""
    log = pq.read_table(shipped("data/kuairand_pure") / "log_standard_4_25_to_5_08_pure.parquet", columns=EVENT)
    before = log.filter(pc.less(log["date"], FIRST_TEST_DAY))
    day = log.filter(pc.equal(log["date"], FIRST_TEST_DAY))
    shown = day.group_by("video_id").aggregate([("duration_ms", "max"), ("time_ms", "count")])
    shown = shown.sort_by([("time_ms_count", "descending"), ("video_id", "ascending")]).slice(0, CANDIDATES)
    videos = [{"video_id": video, "duration_ms": duration} for video, duration in zip(
        shown["video_id"].to_pylist(), shown["duration_ms_max"].to_pylist(), strict=True)]
    clicks = before.filter(pc.equal(before["is_click"], 1)).group_by("user_id").aggregate([("time_ms", "count")])
    of_day = pc.is_in(clicks["user_id"], day["user_id"])
    most = clicks.filter(of_day).sort_by([("time_ms_count", "descending"), ("user_id", "ascending")])
    users = []
    for user in most["user_id"].slice(0, USERS).to_pylist():
        moments = day.filter(pc.equal(day["user_id"], user)).sort_by("time_ms")
        events = before.filter(pc.equal(before["user_id"], user)).sort_by("time_ms").to_pylist()[-EVENTS:]
        users.append({"user_id": user, "history": [{**event, "at": clock(event["time_ms"])} for event in events],
                      "moments": [{"at": clock(row["time_ms"]), **{name: row[name] for name in (
                          "user_id", "tab", "time_ms", "date", "hourmin")}} for row in moments.to_pylist()[:5]]})
    return {"users": users, "videos": videos}


def clock(time_ms: int) -> str:
    return datetime.datetime.fromtimestamp(time_ms / 1000, CHINA).strftime("%d %b %H:%M")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/":
            self.reply(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/data.json":
            self.reply(200, "application/json", json.dumps(data()).encode())
        else:
            self.reply(404, "text/plain", b"no such page")

    def do_POST(self) -> None:
        if self.path != "/v1/rank":
            self.reply(404, "application/json", b'{"error": "no such address"}')
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = urllib.request.Request(self.server.model + self.path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.reply(200, "application/json", answer.read())
        except urllib.error.HTTPError as error:
            self.reply(error.code, "application/json", error.read())
        except OSError as error:
            self.reply(502, "application/json", json.dumps({
                "error": f"{self.server.model}: found no server ({error}); do clickwise serve exported"}).encode())

    def reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing of each request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="where clickwise serve answers")
    parser.add_argument("--port", type=int, default=8090)
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.model = options.server
    data()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
