"""Training speed with OpenMP threads that sleep or spin while they wait, on idle cores and beside other work.

    python benchmarks/waiting.py --save

`clickwise` lets them spin 1,000 times (GOMP_SPINCOUNT), a few microseconds, and then sleep, unless OMP_WAIT_POLICY or
GOMP_SPINCOUNT is set already. The other work is one process that keeps one core busy.
"""

import json
import os
import statistics
import subprocess
import sys

from measure import arguments, finish

POLICIES = {"sleep": {"OMP_WAIT_POLICY": "PASSIVE"}, "spin shortly, then sleep (clickwise)": {},
            "OpenMP's default": {"GOMP_SPINCOUNT": "300000"}}
BENCH = [sys.executable, "-m", "clickwise.cli", "bench", "tiny/dlrm", "--steps", "30", "--json"]


def samples_per_s(policy: dict[str, str], wide: bool) -> float:
    """Of one `clickwise bench` in a process of its own; `wide`: a network whose products keep the cores busy."""
    command = list(BENCH)
    if wide:
        command += ["model.top_mlp=[1024, 1024, 512, 256]"]
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**environment, **policy})
    return json.loads(done.stdout)["rows"][0]["samples_per_s"]


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = []
    for beside, busy in (("idle cores", False), ("one core busy", True)):
        for network, wide in (("tiny", False), ("1024-1024-512-256", True)):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
            try:
                rates = {name: [] for name in POLICIES}
                for _ in range(options.repeats):
                    for name, policy in POLICIES.items():
                        rates[name].append(samples_per_s(policy, wide))
            finally:
                if other is not None:
                    other.kill()
            for name, values in rates.items():
                rows.append({"beside": beside, "network": network, "threads wait by": name,
                             "samples/s": statistics.median(values), "min": min(values), "max": max(values)})
    finish("waiting", rows, options)


if __name__ == "__main__":
    main()
