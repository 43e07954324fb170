"""What a fleet had in use over time, against runs worked out by hand and a whole simulation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.control import Controller
from millrace.core.cost import Linear
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Simulation, simulate
from millrace.simulate.lanes import Stretch
from millrace.simulate.occupancy import MOST_BINS, Occupied, Shares

LIMITS = Limits(sequences=4, kv_blocks=10, block_tokens=10)


def server(name: str = "r0", *, ranks: int = 1) -> ServerSpec:
    spec = ReplicaSpec(models=("m",), limits=LIMITS)
    return ServerSpec(id=name, spec=spec, cost=Linear(base_s=1.0), ranks=ranks)


def stretch(start_s: float, end_s: float, *, replica: str = "r0", running: int = 1) -> Stretch:
    return Stretch(
        replica=replica,
        start_s=start_s,
        end_s=end_s,
        running=running,
        waiting=0,
        ended=0,
        kv_free_tokens=100 - 25 * running,
    )


def used_s(shares: list[float], bin_s: float, end_s: float) -> float:
    lengths_s = [min(bin_s, end_s - place * bin_s) for place in range(len(shares))]
    return sum(share * length_s for share, length_s in zip(shares, lengths_s, strict=True))


def test_a_bin_has_the_share_of_it_that_was_used() -> None:
    occupied = Occupied([server("r0"), server("r1")])
    occupied.tell(stretch(0.0, 3.0, running=2))
    occupied.tell(stretch(32.0, 64.0, running=4, replica="r1"))
    found = occupied.occupancy(64.0)
    assert (found.bin_s, found.end_s) == (1.0, 64.0)
    assert found.replicas["r0"] == Shares(
        busy=[1.0] * 3 + [0.0] * 61, running=[0.5] * 3 + [0.0] * 61, kv=[0.5] * 3 + [0.0] * 61
    )
    assert found.replicas["r1"].kv == [0.0] * 32 + [1.0] * 32


def test_bins_grow_with_the_run_and_keep_what_is_in_them() -> None:
    occupied = Occupied([server()])
    occupied.tell(stretch(0.0, 1.0))
    occupied.tell(stretch(511.0, 512.0))
    found = occupied.occupancy(512.0)
    assert found.bin_s == 512 / MOST_BINS
    assert found.replicas["r0"].busy == [0.125] + [0.0] * 62 + [0.125]


def test_the_last_bin_ends_with_the_run_though_a_step_may_outlast_it() -> None:
    occupied = Occupied([server()])
    occupied.tell(stretch(0.0, 40.0))
    found = occupied.occupancy(10.5)
    assert found.replicas["r0"].busy == [1.0] * 11


def test_ranks_have_room_for_as_many_times_more() -> None:
    occupied = Occupied([server(ranks=2)])
    occupied.tell(stretch(0.0, 1.0, running=2))
    found = occupied.occupancy(1.0).replicas["r0"]
    assert (set(found.running), set(found.kv)) == ({0.25}, {0.75})  # half of one rank's, all of the other's


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(0.001, 5000.0)), min_size=1, max_size=30))
def test_no_second_is_lost(runs: list[tuple[float, float]]) -> None:
    occupied = Occupied([server()])
    now_s = busy_s = 0.0
    for idle_s, length_s in runs:
        occupied.tell(stretch(now_s + idle_s, now_s + idle_s + length_s))
        now_s += idle_s + length_s
        busy_s += length_s
    found = occupied.occupancy(now_s)
    busy = found.replicas["r0"].busy
    assert len(busy) <= MOST_BINS
    assert used_s(busy, found.bin_s, now_s) == pytest.approx(busy_s, abs=1e-4 * now_s)


def play(*, occupancy: bool, leaping: bool = True) -> Simulation:
    asked = Request(id="a", model="m", prompt_tokens=20, max_tokens=20)
    jobs = [Job(t_s=5.0, request=asked, prompt_tokens=20, output_tokens=20)]
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    batching = load("batching", "split_fuse")
    return simulate(jobs, [server()], controller, batching, occupancy=occupancy, leaping=leaping)


def test_a_simulation_tells_it_if_it_is_asked_and_goes_the_same_way() -> None:
    found, silent = play(occupancy=True), play(occupancy=False)
    assert silent.occupancy is None
    assert found.measured == silent.measured
    assert found.occupancy is not None
    shares = found.occupancy.replicas["r0"]
    assert used_s(shares.busy, found.occupancy.bin_s, 25.0) == pytest.approx(20, abs=0.01)
    assert used_s(shares.running, found.occupancy.bin_s, 25.0) == pytest.approx(5, abs=0.01)


def test_leaps_fill_the_cache_on_average_as_steps_do() -> None:
    used = []
    for leaping in (True, False):
        found = play(occupancy=True, leaping=leaping).occupancy
        assert found is not None
        used.append(used_s(found.replicas["r0"].kv, found.bin_s, 25.0))
    assert used[0] == pytest.approx(used[1], rel=0.1)
    assert 20 * 0.2 < used[1] < 20 * 0.4  # it grows from two blocks of ten to four
