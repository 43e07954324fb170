"""What the gateway remembers of a stream so that another engine can go on with it: its token ids. Pure.

Source: `return_token_ids` of vLLM's OpenAI server (0.10.2 and later): `prompt_token_ids` in the first event,
`token_ids` in the choice of each that brings tokens. Ids are kept as the bytes they came in, because almost
all streams end well and nobody ever reads them. Inside a JSON string every quote is escaped, so what is
looked for here cannot be part of the text that a model wrote.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from millrace.gateway.usage import data_of, events_in

IDS = b',"token_ids":['
REASONING = b'"reasoning'
_PROMPT = re.compile(rb',"prompt_token_ids":\[([0-9,]*)\]')
_IDS_FIELD = re.compile(rb',"(?:prompt_)?token_ids":(?:\[[0-9,]*\]|null)')
_NO_CHOICES = re.compile(rb'"choices":\[\]')
_NUMBER = re.compile(rb"\d+")
_DONE = b"[DONE]"


class Opening(Struct, frozen=True):
    """What all events of a stream repeat."""

    id: str
    created: int
    model: str


_decode_opening = msgspec.json.Decoder(Opening).decode


class Transcript:
    """The tokens of one stream: its prompt's, and those whose events were passed on.

    `told`: the client wants to see the ids itself. Once an event brings text without ids the transcript is
    `lost`; for a `wary` one so it is by reasoning, which vLLM takes out of the text of a chat.
    """

    __slots__ = ("_ids", "_prompt", "_told", "_wary", "lost", "opening")

    def __init__(self, *, told: bool, wary: bool) -> None:
        self._told, self._wary = told, wary
        self._prompt: bytes | None = None
        self._ids = bytearray()
        self.opening: Opening | None = None
        self.lost = False

    @property
    def size_bytes(self) -> int:
        """Memory that the ids take."""
        return len(self._prompt or b"") + len(self._ids)

    @property
    def whole(self) -> bool:
        """Whether it has all that it takes to go on."""
        return not self.lost and self._prompt is not None

    @property
    def prompt(self) -> list[int]:
        """The tokens of the prompt."""
        return [int(number) for number in _NUMBER.findall(self._prompt or b"")]

    @property
    def tokens(self) -> list[int]:
        """The tokens of the answer so far."""
        return [int(number) for number in _NUMBER.findall(self._ids)]

    def add(self, tokens: list[int]) -> None:
        """Note tokens that came otherwise."""
        self._ids += b"".join(b",%d" % token for token in tokens)

    def cut(self, data: bytes, start: int) -> bytes | None:
        """Note the ids of an HTTP chunk that is one event of one choice; return it as the client wants it.

        That is what almost all are. Whatever else begins at `start` is for `take`: None.
        """
        at = data.rfind(IDS)
        if at < 0 or self._prompt is None or self.lost or data.count(b"data:", start) != 1:
            return None
        end = data.find(b"]", at) + 1
        if not (end and data.endswith(b"\n\n\r\n")) or (self._wary and REASONING in data):
            return None
        self._ids += data[at + len(IDS) - 1 : end]
        if self._told:
            return data
        return b"%x\r\n%b%b" % (len(data) - start - 2 - end + at, data[start:at], data[end:])

    def take(self, events: bytes) -> bytes:
        """Note the ids in whole events; return the events as the client wants them."""
        first, *parts = events.split(IDS)
        plain = self._prompt is not None and not self.lost and len(parts) == events.count(b"data:")
        if not plain or (self._wary and REASONING in events):
            return self._take_each(events)
        for part in parts:
            ids, _, rest = part.partition(b"]")
            self._ids += b"," + ids
            first += rest
        return events if self._told else first

    def _take_each(self, events: bytes) -> bytes:
        for event in events_in(events):
            data = data_of(event)
            if data and data != _DONE and not self.lost:
                self._take_one(data)
        return events if self._told else _IDS_FIELD.sub(b"", events)

    def _take_one(self, data: bytes) -> None:
        if self._prompt is None:
            self._open(data)
        at = data.rfind(IDS)
        if at >= 0:
            self._ids += b"," + data[at + len(IDS) : data.index(b"]", at)]
        elif b'"role":' not in data and not _NO_CHOICES.search(data):
            self.lost = True
        if self._wary and REASONING in data:
            self.lost = True

    def _open(self, data: bytes) -> None:
        found = _PROMPT.search(data)
        try:
            self.opening = _decode_opening(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        self._prompt, self.lost = (found[1], False) if found else (None, True)
