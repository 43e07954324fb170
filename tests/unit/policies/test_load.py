"""Policies are found by name, built from text, described, and built again; mistakes are named."""

from __future__ import annotations

import msgspec
import pytest

from millrace.policies import FAMILIES, Described, Family, describe, load, names, parse, rebuild, summaries
from millrace.policies.routing.least_work import Policy as LeastWork
from millrace.policies.routing.prefix_affinity import Policy as PrefixAffinity
from tests.unit.policies.own import Demanding, Outer, Patient

OWN = "tests.unit.policies.own"
SHIPPED = [(family, name) for family in FAMILIES for name in names(family)]


def test_a_folder_is_listed_in_alphabetical_order() -> None:
    assert names("routing") == sorted(names("routing"))
    assert {"least_work", "round_robin"} <= set(names("routing"))
    assert "fcfs" in names("queueing")


@pytest.mark.parametrize("text", ["least_work", " least_work ", "least_work()", "least_work ( )"])
def test_a_policy_is_loaded_by_its_name(text: str) -> None:
    assert load("routing", text) == LeastWork()


def test_a_policy_is_loaded_with_settings() -> None:
    text = "prefix_affinity(load_factor=2, key_tokens=64,\n seed=-1)"
    assert load("routing", text) == PrefixAffinity(load_factor=2.0, key_tokens=64, seed=-1)


def test_a_policy_of_your_own_is_loaded_by_module_and_class() -> None:
    loaded = load("routing", f"{OWN}:Patient(why='later', weights=[1, 2])")
    assert loaded == Patient(why="later", weights=(1.0, 2.0))
    assert load("routing", f"{OWN}:Outer.Policy") == Outer.Policy()


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        (
            "routing",
            "lest_work",
            "no routing policy is called 'lest_work'; there are: .*least_work, ",
        ),
        ("queueing", "least_work", "no queueing policy is called 'least_work'; there are: .*fcfs"),
        ("routing", "", "no routing policy is called ''"),
        ("routing", "least_work(sead=1)", "'least_work' has no setting 'sead'; it has: assumed_.*, seed"),
        ("routing", "round_robin(a=1)", "'round_robin' has no setting 'a'; it has: none"),
        ("routing", "least_work(seed=1.5)", r"'least_work': Expected `int`, got `float` - at `\$\.seed`"),
        ("routing", "least_work(seed='1')", "'least_work': Expected `int`, got `str`"),
        ("routing", "prefix_affinity(load_factor=0)", "'prefix_affinity': load_factor is 0"),
        ("routing", "absent.module:Policy", "cannot import .*No module named 'absent'"),
        ("routing", f"{OWN}:Absent", "cannot import .*no attribute 'Absent'"),
        ("routing", f"{OWN}:Bare", "Bare'> is not a dataclass; the settings of a policy are its fields"),
        ("routing", f"{OWN}:READY_MADE", "is not a dataclass"),
        ("routing", f"{OWN}:Patient(learned={{}})", "has no setting 'learned'; it has: why, weights"),
        ("queueing", f"{OWN}:Demanding", "missing required field `price`"),
    ],
)
def test_what_does_not_exist_is_named(family: Family, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(family, text)


@pytest.mark.parametrize(
    "text",
    [
        "least_work(seed=1",
        "least_work(seed=one)",
        "least_work(seed=1 2)",
        "least_work(5)",
        "least_work(seed=1, seed=2)",
        "least_work(seed=1).other(seed=2)",
        "least_work(seed=1) + 2",
        "least_work(**{'seed': 1}, **{'seed': 2})",
        "least_work(seed=1)\0",
    ],
)
def test_a_text_that_cannot_be_read_is_quoted_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read policy .*; write it like name\(setting=1"):
        load("routing", text)


def test_settings_are_literals_that_are_never_run() -> None:
    with pytest.raises(ValueError, match="cannot read policy"):
        parse("least_work(seed=exit())")


@pytest.mark.parametrize(("family", "name"), SHIPPED)
def test_a_shipped_policy_is_described_by_its_name_and_survives_a_log(family: Family, name: str) -> None:
    policy = load(family, name)
    described = describe(policy)
    assert described.policy == name
    logged = msgspec.json.decode(msgspec.json.encode(described), type=Described)
    assert rebuild(family, logged) == policy


def test_a_policy_of_your_own_survives_a_log_without_what_it_learned() -> None:
    policy = Patient(why="later")
    policy.learned["r"] = 1.0
    described = describe(policy)
    assert described == Described(policy=f"{OWN}:Patient", settings={"why": "later", "weights": (1.0,)})
    logged = msgspec.json.decode(msgspec.json.encode(described), type=Described)
    assert rebuild("routing", logged) == Patient(why="later")


def test_a_policy_inside_a_class_survives_a_log() -> None:
    assert rebuild("routing", describe(Outer.Policy())) == Outer.Policy()
    assert rebuild("queueing", describe(Demanding(price=2.0))) == Demanding(price=2.0)


def test_a_setting_that_a_newer_version_dropped_is_not_ignored() -> None:
    with pytest.raises(ValueError, match="has no setting 'gone'"):
        rebuild("routing", Described(policy="least_work", settings={"gone": 1}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_policy_says_what_it_does_where_it_comes_from_and_what_can_be_set(family: Family) -> None:
    found = summaries(family)
    assert [summary.name for summary in found] == names(family)
    for summary in found:
        assert summary.family == family
        assert summary.about.endswith(".")
        assert len(summary.source) > 10
        assert summary.settings == describe(load(family, summary.name)).settings
