"""Faults, ways and scrapes as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.cli.simulating.meanwhile import surroundings_of
from millrace.simulate import Surroundings
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link

FLEET = ("r0", "r1")


def test_nothing_said_is_nothing_between_and_nothing_happening() -> None:
    assert (
        surroundings_of(network=None, scrape=None, slowdowns=None, faults=None, replicas=FLEET)
        == Surroundings()
    )


def test_ways_are_alike_unless_two_are_given() -> None:
    found = surroundings_of(network="1ms", scrape="5s", slowdowns="x1,x1.6", faults=None, replicas=FLEET)
    assert (found.to_engine_s, found.from_engine_s, found.scrape_s) == (0.001, 0.001, 5.0)
    assert found.slowdowns == (1.0, 1.6)
    found = surroundings_of(network="1ms, 2ms", scrape=None, slowdowns=None, faults=None, replicas=FLEET)
    assert (found.to_engine_s, found.from_engine_s) == (0.001, 0.002)


def test_a_link_has_a_speed_and_perhaps_a_latency() -> None:
    nothing = {"network": None, "scrape": None, "slowdowns": None, "faults": None}
    found = [surroundings_of(**nothing, link=text, replicas=FLEET).link for text in ("25GB/s", "25GB/s,1ms")]
    assert found == [Link(bytes_per_s=25e9), Link(bytes_per_s=25e9, latency_s=0.001)]


@pytest.mark.parametrize(
    "text", ["kill r1 at 5s; start r1 at 9s", '{"at_s": 5, "deed": "kill", "replica": "r1"}']
)
def test_faults_are_a_script_or_the_file_that_it_is_in(text: str, tmp_path: Path) -> None:
    (tmp_path / "faults.txt").write_text(text, encoding="utf-8")
    found = [
        surroundings_of(network=None, scrape=None, slowdowns=None, faults=faults, replicas=FLEET).faults
        for faults in (text, str(tmp_path / "faults.txt"))
    ]
    assert found[0] == found[1]
    assert found[0][0] == Fault(5.0, "kill", "r1")


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        ("network", "1", "--network: cannot read the duration '1'"),
        ("network", "1ms,2ms,3ms", "--network: 1ms,2ms,3ms has 3 times; write one for both ways, or two"),
        ("scrape", "0s", "--scrape: 0s is no period; write one above 0"),
        ("scrape", "often", "--scrape: cannot read the duration 'often'"),
        ("link", "fast", "--link: cannot read the bandwidth 'fast'"),
        ("link", "5GB/s,soon", "--link: cannot read the duration 'soon'"),
        ("faults", "no-such-file", "--faults: there is no file no-such-file; name one, or write the faults"),
        ("faults", "kill r7 at 5s", "--faults: unknown replica 'r7'; .*known: r0, r1"),
        ("faults", "kill r1 at 5", "--faults: line 1: unknown unit of time"),
    ],
)
def test_what_cannot_be_read_is_refused_and_its_option_named(option: str, text: str, problem: str) -> None:
    words = {"network": None, "scrape": None, "slowdowns": None, "faults": None} | {option: text}
    with pytest.raises(ValueError, match=problem):
        surroundings_of(**words, replicas=FLEET)


def test_an_empty_file_of_faults_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"none\.txt: has no faults; write them like"):
        surroundings_of(
            network=None, scrape=None, slowdowns=None, faults=str(tmp_path / "none.txt"), replicas=FLEET
        )
