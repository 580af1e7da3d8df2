"""Two machines, played by network namespaces: they train together, one is cut off, both end, and go on."""

import os
import shutil
import subprocess
import sys
import uuid

import pytest

pytestmark = pytest.mark.slow
WORDS = ["tiny/dlrm", "data.synthetic.rows={train: 3000, validation: 1000, test: 1000}", "train.epochs=null",
         "train.steps=300", "train.batch_size=300", "train.checkpoint_every=20", "train.evaluate_every=300",
         "train.threads=1"]
ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def hosts():
    """The names of two network namespaces that see each other, and of the interface that each has."""
    if shutil.which("ip") is None:
        pytest.skip("no program ip here, which makes network namespaces")
    names = [f"clickwise-{uuid.uuid4().hex[:6]}" for _ in ADDRESSES]
    ends = [f"cw{name[-6:]}" for name in names]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            for each in (end, "lo"):
                ip("-n", name, "link", "set", each, "up")
    except OSError as error:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        pytest.skip(f"network namespaces cannot be made here (it needs NET_ADMIN): {error}")
    yield names, ends
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(hosts, words, place):
    started = []
    for rank, (name, end) in enumerate(zip(*hosts, strict=True)):
        variables = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
                     "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29400", "GLOO_SOCKET_IFNAME": end,
                     "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        started.append(subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-m", "clickwise", "train",
                                         *words, "--timeout", "20"], cwd=place, env=variables, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return started


def test_a_machine_that_is_cut_off_ends_the_training_which_goes_on_later(hosts, tmp_path):
    started = start(hosts, WORDS, tmp_path)
    while not (path := next(tmp_path.glob("runs/*-*/*/checkpoint/last.pt"), None)):
        assert started[0].poll() is None, started[0].communicate()[0]
    ip("-n", hosts[0][0], "link", "set", hosts[1][0], "down")
    told = [each.communicate(timeout=200)[0] for each in started]
    assert [each.returncode for each in started] == [1, 1], told
    assert all(text.count("clickwise: ") <= 1 and "Traceback" not in text for text in told), told
    assert "another process cannot be reached" in told[0], told
    ip("-n", hosts[0][0], "link", "set", hosts[1][0], "up")
    folder = path.parents[1]
    assert not (folder / "DONE").exists()
    told = [each.communicate(timeout=200)[0] for each in start(hosts, ["--resume", folder], tmp_path)]
    assert "from step" in told[0] and (folder / "DONE").exists(), told
