"""KV events are read in every encoding that engines have used; garbage is told from what is new."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.blocks import contents_of, root_of
from millrace.core.event import BlocksRemoved, BlocksStored, CacheCleared, Medium
from millrace.gateway.kv_events.decoding import Decoder, GarbageError

TOKENS = list(range(8))
CONTENTS = tuple(contents_of(TOKENS, 4))
STORED: dict[str, Any] = {
    "type": "BlockStored",
    "block_hashes": [11, 12],
    "parent_block_hash": 10,
    "token_ids": TOKENS,
    "block_size": 4,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
}


def _pack(*events: Any, as_map: bool = False, rank: int | None = 0) -> bytes:
    batch = {"ts": 1.5, "events": events, "data_parallel_rank": rank} if as_map else [1.5, events, rank]
    return msgspec.msgpack.encode(batch)


def _array(event: dict[str, Any]) -> list[Any]:
    return list(event.values())


def _read(*events: Any, decoder: Decoder | None = None) -> Any:
    return (decoder or Decoder(4)).read(_pack(*events))


@pytest.mark.parametrize("as_map", [True, False])
@pytest.mark.parametrize("write", [dict, _array])
def test_arrays_and_maps_say_the_same(write: Any, as_map: bool) -> None:
    removed = {"type": "BlockRemoved", "block_hashes": [11], "medium": "GPU"}
    events = [write(STORED), write(removed), write({"type": "AllBlocksCleared"})]
    assert Decoder(4).read(_pack(*events, as_map=as_map)) == (
        BlocksStored((11, 12), CONTENTS, 10),
        BlocksRemoved((11,)),
        CacheCleared(),
    )


def test_the_short_events_of_sglang_are_understood() -> None:
    assert Decoder(4).read(
        msgspec.msgpack.encode(
            [1.5, [["BlockStored", [-1], None, TOKENS[:4], 4, None], ["BlockRemoved", [-1]]]]
        )
    ) == (BlocksStored((2**64 - 1,), CONTENTS[:1]), BlocksRemoved((2**64 - 1,)))


def test_names_in_bytes_are_shortened_as_vllm_does_it() -> None:
    long = bytes(24) + (77).to_bytes(8, "big")
    stored, removed = _read(
        STORED | {"block_hashes": [long, b"\x05"], "parent_block_hash": long}, ["BlockRemoved", [long]]
    )
    assert stored == BlocksStored((77, 5), CONTENTS, 77)
    assert removed == BlocksRemoved((77,))


def test_an_adapters_blocks_are_its_own() -> None:
    (stored,) = _read(STORED | {"lora_id": 1, "lora_name": "poet", "extra_keys": [["poet"], ["poet"]]})
    assert stored == BlocksStored((11, 12), CONTENTS, 10, root_of("poet"))


@pytest.mark.parametrize("extra", [{"extra_keys": [None, ["salt"]]}, {"extra_keys": [[], [["image", 3]]]}])
def test_blocks_with_more_than_tokens_are_set_apart(extra: dict[str, Any]) -> None:
    (stored,) = _read(STORED | extra)
    assert stored.contents[0] == CONTENTS[0]
    assert stored.contents[1] != CONTENTS[1]


def test_the_metadata_of_sglang_sets_blocks_apart() -> None:
    (stored,) = _read([*_array(STORED)[:7], {"cache_salt": "tenant-a"}])
    assert not set(stored.contents) & set(CONTENTS)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (STORED | {"block_size": 8, "block_hashes": [11]}, "block_size"),
        (STORED | {"medium": "EXTERNAL"}, "other_memory"),
        (["BlockRemoved", [11], "shared"], "other_memory"),
        (STORED | {"medium": "STORAGE", "locality": "REMOTE"}, "other_memory"),
        (STORED | {"lora_id": 3}, "unnamed_adapter"),
        (STORED | {"kv_cache_spec_kind": "sliding_window"}, "other_layers"),
        ({"type": "BlockMoved", "to": "the moon"}, "unknown_event"),
    ],
)
def test_what_does_not_help_is_left_out_and_counted(event: Any, why: str) -> None:
    decoder = Decoder(4)
    assert _read(event, STORED, decoder=decoder) == (BlocksStored((11, 12), CONTENTS, 10),)
    assert decoder.ignored == {why: 1}


@pytest.mark.parametrize(
    ("said", "medium"),
    [
        (None, "device"),
        ("GPU", "device"),
        ("cpu", "host"),
        ("CPU_PINNED", "host"),
        ("CPU_TIER1", "host"),
        ("CPU_TIER2", "disk"),
        ("DISK", "disk"),
    ],
)
def test_where_blocks_are_is_understood(said: str | None, medium: Medium) -> None:
    assert _read(STORED | {"medium": said}, ["BlockRemoved", [11], said]) == (
        BlocksStored((11, 12), CONTENTS, 10, medium=medium),
        BlocksRemoved((11,), medium),
    )


def test_what_was_offloaded_is_named_only() -> None:
    offloaded = STORED | {"medium": "CPU", "parent_block_hash": None, "token_ids": [], "block_size": 0}
    assert _read(offloaded) == (BlocksStored((11, 12), (), medium="host"),)


def test_of_several_groups_of_layers_the_first_one_counts() -> None:
    decoder = Decoder(4)
    whole = {"group_idx": 1, "kv_cache_spec_kind": "full_attention"}
    window = {"group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
    assert (
        len(_read(STORED | window, STORED | whole, STORED | whole | {"group_idx": 2}, decoder=decoder)) == 1
    )
    assert _read(["BlockRemoved", [11], "GPU", 0], ["BlockRemoved", [12], "GPU", 1], decoder=decoder) == (
        BlocksRemoved((12,)),
    )


@pytest.mark.parametrize(
    "event",
    [
        None,
        7,
        [],
        [["BlockStored"]],
        {"block_hashes": [1]},
        ["BlockRemoved"],
        ["BlockRemoved", 7],
        ["BlockRemoved", ["text"]],
        ["BlockRemoved", [1], 5],
        ["BlockRemoved", [True]],
        ["BlockRemoved", [b""]],
        STORED | {"token_ids": TOKENS[:5]},
        STORED | {"token_ids": [*TOKENS[:7], "text"]},
        STORED | {"token_ids": [*TOKENS[:7], 2**63]},
        STORED | {"token_ids": None},
        STORED | {"parent_block_hash": "text"},
        STORED | {"extra_keys": [None]},
        {key: value for key, value in STORED.items() if key != "token_ids"},
    ],
)
def test_a_known_event_that_cannot_be_read_is_garbage(event: Any) -> None:
    with pytest.raises(GarbageError, match="no batch of KV events"):
        _read(event)


@given(st.binary(max_size=64))
def test_random_bytes_are_garbage_or_say_nothing(payload: bytes) -> None:
    with suppress(GarbageError):
        assert Decoder(4).read(payload) == ()


@given(st.data())
def test_batches_that_are_cut_or_bent_never_break_the_reader(data: st.DataObject) -> None:
    whole = _pack(STORED, _array(STORED), ["BlockRemoved", [11], "GPU"])
    end = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    bent = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    for payload in (whole[:end], bent):
        with suppress(GarbageError):
            Decoder(4).read(payload)
