"""The log of a fleet: one header line, then one line per event with the actions that answered it.

Fed to a bare controller, a log yields the same actions again, bit for bit: `replay` counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from millrace.control.controller import Controller
from millrace.control.settings import ControlSettings
from millrace.control.witness import Witness
from millrace.core.event import Action, Event
from millrace.policies import Described, describe, rebuild

SCHEMA = "millrace.log/1"


class LogError(ValueError):
    """A log that cannot be read; the message names the line."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """From what a log's controller can be built again; `notes` say where it came from."""

    schema: str = SCHEMA
    routing: Described
    queueing: Described
    migration: Described | msgspec.UnsetType = msgspec.UNSET
    settings: ControlSettings
    notes: dict[str, Any] = {}


class _Schema(msgspec.Struct):
    schema: str


class Entry(msgspec.Struct, frozen=True):
    """An event and the actions that answered it."""

    event: Event
    actions: list[Action]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """How a replay went; `first_difference` is the line number (from 1) of the first answer that differed.

    `cut_off`: the last line is not all there, as after a crash, and was left out.
    """

    events: int
    actions: int
    identical: int
    first_difference: int | None = None
    cut_off: bool = False


_encoder = msgspec.json.Encoder()
_entries = msgspec.json.Decoder(Entry)
_schemas = msgspec.json.Decoder(_Schema)
_headers = msgspec.json.Decoder(Header)


def header(controller: Controller, **notes: Any) -> bytes:
    """Return a log's first line."""
    moving = controller.migration
    made = Header(
        routing=describe(controller.routing),
        queueing=describe(controller.queueing),
        migration=msgspec.UNSET if moving is None else describe(moving),
        settings=controller.settings,
        notes=notes,
    )
    return _encoder.encode(made) + b"\n"


def entry(event: Event, actions: list[Action]) -> bytes:
    """Return one line of a log."""
    return _encoder.encode(Entry(event, actions)) + b"\n"


def read_header(line: bytes) -> Header:
    """Decode a log's first line."""
    try:
        schema = _schemas.decode(line).schema
        if schema != SCHEMA:
            raise LogError(f"line 1 says schema {schema!r}; this version reads {SCHEMA!r}")
        return _headers.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogError(f"line 1 is no log header ({error}); is this a Millrace event log?") from None


def read_entry(line: bytes, number: int) -> Entry:
    """Decode one line of a log; `number` is its place in the file, from 1."""
    try:
        return _entries.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogError(f"line {number} cannot be read: {error}") from None


def controller_of(found: Header, *, witness: Witness | None = None) -> Controller:
    """Build the controller that a log's header describes, as it was before its first event."""
    try:
        routing, queueing = rebuild("routing", found.routing), rebuild("queueing", found.queueing)
        moving = found.migration
        migration = None if moving is msgspec.UNSET else rebuild("migration", moving)
        return Controller(routing, queueing, found.settings, migration=migration, witness=witness)
    except ValueError as error:
        raise LogError(f"line 1: {error}") from None


class Recording:
    """A log that is read: its header at once, then its entries, each with its line number (from 1).

    Raises LogError for an empty log and for lines that cannot be read, but for a last one without an end:
    then it is `cut_off` after the entry before.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._rest = enumerate(lines, 1)
        _, head = next(self._rest, (0, None))
        if head is None:
            raise LogError("the log is empty")
        self.header = read_header(head)
        self.cut_off = False

    def __iter__(self) -> Iterator[tuple[int, Entry]]:
        for number, line in self._rest:
            try:
                found = read_entry(line, number)
            except LogError:
                self.cut_off = not line.endswith(b"\n") and next(self._rest, None) is None
                if self.cut_off:
                    return
                raise
            yield number, found


class Retelling:
    """A log that a fresh controller hears, entry by entry, while a `witness` looks on.

    `first_difference` is the line of the first answer that was not the one on record.
    """

    def __init__(self, recording: Recording, witness: Witness | None = None) -> None:
        self.recording = recording
        self.controller = controller_of(recording.header, witness=witness)
        self.first_difference: int | None = None

    def __iter__(self) -> Iterator[tuple[Entry, list[Action]]]:
        """Yield each entry with the answer that the controller gave now."""
        for number, recorded in self.recording:
            again = tell(self.controller, recorded.event, number)
            if again != recorded.actions and self.first_difference is None:
                self.first_difference = number
            yield recorded, again


def replay(lines: Iterable[bytes], *, witness: Witness | None = None) -> Replayed:
    """Feed a log's events to a fresh controller and compare each answer with the one on record.

    Raises what reading a Recording does. A `witness` looks on.
    """
    told = Retelling(Recording(lines), witness)
    events = actions = identical = 0
    for recorded, again in told:
        events += 1
        actions += len(recorded.actions)
        if again == recorded.actions:
            identical += len(again)
    return Replayed(
        events=events,
        actions=actions,
        identical=identical,
        first_difference=told.first_difference,
        cut_off=told.recording.cut_off,
    )


def tell(controller: Controller, event: Event, number: int) -> list[Action]:
    """Let a controller answer the event on a line; a LogError names the line if it cannot."""
    try:
        return controller.on(event)
    except ValueError as error:
        raise LogError(f"line {number}: {error}") from error
