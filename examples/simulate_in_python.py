"""What would the first 400 requests of a real trace meet on fleets of different sizes?"""

from __future__ import annotations

from itertools import islice

from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.request import Slo
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import jobs_of, servers, simulate

PROMISE = Slo(ttft_s=1.0, tpot_s=0.05)


def goodput_rps(replicas: int) -> float:
    """Return the requests a second that this many replicas answer in time."""
    groups = parse_fleet(f"{replicas}x a100-80g qwen3-8b max_model_len=40960")
    jobs = jobs_of(islice(open_trace("mooncake_conversation"), 400), "qwen3-8b", PROMISE)
    controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"))
    found = simulate(jobs, servers(groups), controller, load("batching", "split_fuse"), slo=PROMISE)
    return found.measured.goodput_rps


if __name__ == "__main__":
    for replicas in (4, 6, 8, 10):
        print(f"{replicas:2} replicas: {goodput_rps(replicas):.2f} requests/s in time")
