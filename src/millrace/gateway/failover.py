"""Streams that outlive their engine: another one goes on after the last token that was passed on.

Source: failover by token replay, which NVIDIA Dynamo calls request migration: prompt and answer so far are
computed again as one prompt, and the client sees one stream.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from millrace.core.event import Failed
from millrace.core.prompt import Asked, Kind
from millrace.gateway.answers import EventStream
from millrace.gateway.exchange import Exchange
from millrace.gateway.framing import LAST_CHUNK, FramingError, Head, chunk
from millrace.gateway.receiver import Answer, Receiver
from millrace.gateway.resuming import COMPLETIONS, Continued, Resumable, continuation
from millrace.gateway.transcript import Transcript
from millrace.gateway.upstream import Engine
from millrace.gateway.usage import EventSieve, Usage
from millrace.gateway.wire import Wire

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.client import ClientConnection

OBJECTS: dict[Kind, str] = {"chat": "chat.completion.chunk", "text": "text_completion"}
LEFT = "left"
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class RecordedStream(EventStream):
    """An event stream whose tokens are noted and left out of its events; another engine may go on with it."""

    __slots__ = ("_continued", "transcript")

    def __init__(
        self, exchange: ResumableExchange, head: Head, transcript: Transcript, *, strip_usage: bool
    ) -> None:
        super().__init__(exchange, head, strip_usage=strip_usage)
        self.transcript = transcript
        self._continued: Continued | None = None

    @property
    def over(self) -> bool:
        """Whether the last token was passed on, and why it was the last."""
        return _FINISHED.search(self._sieve.tail) is not None

    def framed(self, data: bytes, start: int) -> None:
        """Pass one HTTP chunk on without its ids, if it holds whole events and the client reads chunks."""
        plain = self._continued is None and self._renaming is None and not self._exchange.client.bare
        sieve = self._sieve
        if plain and sieve.at_boundary and (told := self.transcript.cut(data, start)) is not None:
            sieve.pass_unread(data)
            self._write(told)
            self._count(1)
        elif plain and sieve.passes(data):
            events = self.transcript.take(data[start:-2])
            self._write(chunk(events))
            self._count(events.count(b"data:"))
        else:
            self.payload(data[start:-2])

    def go_on(self, continued: Continued, *, strip_usage: bool) -> None:
        """Take what follows from another engine's answer."""
        self._sieve = EventSieve(strip=strip_usage)
        self._continued = continued
        self._write = self._rejoin

    def conclude(self, *, usage_wanted: bool) -> None:
        """End a stream that lacks nothing but its end, and perhaps its usage."""
        prompt, output = len(self.transcript.prompt), len(self.transcript.tokens)
        usage, events = self._usage(), b""
        if usage.output_tokens is None:
            usage = Usage(prompt, output)
            events = self._usage_event(prompt, output) if usage_wanted else b""
        events += b"data: [DONE]\n\n"
        self._write(events if self._exchange.client.bare else chunk(events) + LAST_CHUNK)
        self._exchange.finished(self._head.status, usage, events=self._events)

    def _usage_event(self, prompt: int, output: int) -> bytes:
        opening = self.transcript.opening
        assert opening is not None
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        body = {
            "id": opening.id,
            "object": OBJECTS[self._exchange.kind],
            "created": opening.created,
            "model": opening.model,
            "choices": [],
            "usage": usage,
        }
        event = b"data: %b\n\n" % msgspec.json.encode(body)
        return event if self._renaming is None else self._renaming(event)

    def _send(self, events: bytes) -> None:
        if not events:
            return
        if self._continued is None:
            super()._send(self.transcript.take(events))
            return
        try:
            super()._send(self._continued(events))
        except FramingError as error:
            if (connection := self._exchange.connection) is not None:
                connection.fail("garbage", str(error))

    def _usage(self) -> Usage:
        usage = super()._usage()
        if self._continued is None or usage.prompt_tokens is None or usage.output_tokens is None:
            return usage
        prompt, output = self._continued.counts(usage.prompt_tokens, usage.output_tokens)
        return replace(usage, prompt_tokens=prompt, output_tokens=output)

    def _breaks_off(self, *, by_close: bool) -> bool:
        return by_close or self.transcript.whole

    def _rejoin(self, data: bytes) -> None:
        self._write = self._exchange.client.write
        self._write(data)
        if not self._exchange.ended:
            self._exchange.begun(monotonic())


class UnusableAnswer:
    """Whatever an engine answers in place of the rest of a stream."""

    __slots__ = ("_exchange", "_status")

    def __init__(self, exchange: ResumableExchange, status: int) -> None:
        self._exchange, self._status = exchange, status

    def framed(self, data: bytes, start: int) -> None:
        """Nobody reads it."""

    def payload(self, payload: bytes) -> None:
        """Nobody reads it."""

    def end(self, *, by_close: bool) -> None:
        """The rest has to come from elsewhere."""
        self._exchange.unusable(self._status)


class ResumableExchange(Exchange):
    """The exchange of a stream that can go on at another engine when its own breaks."""

    __slots__ = ("_how", "_recorded", "_recording", "_usage_wanted")

    def __init__(
        self,
        gateway: Gateway,
        client: ClientConnection,
        kind: Kind,
        asked: Asked,
        wire: Wire,
        *,
        how: Resumable,
    ) -> None:
        super().__init__(gateway, client, kind, asked, wire)
        self._how, self._usage_wanted = how, asked.usage_wanted
        self._recording = False
        self._recorded: RecordedStream | None = None

    @property
    def remembered_bytes(self) -> int:
        """Memory that the stream's token ids take."""
        return 0 if self._recorded is None else self._recorded.transcript.size_bytes

    def dispatch(self, engine: Engine, field: bytes = b"", receiver: Receiver | None = None) -> None:
        """Send the request to this engine, or what it takes to go on."""
        if self._begun() is None or engine.dialect in self._how.dialects:
            super().dispatch(engine, field, receiver)
        else:
            self.engine = engine
            self.on_broken("cannot_resume", "the engine cannot go on with another one's answer")

    def leave(self, engine: Engine) -> bool:
        """Let the answer end where it is and go on at this engine; False if it cannot."""
        recorded = self._begun()
        if recorded is None or engine.dialect not in self._how.dialects:
            return False
        if recorded.over or not recorded.transcript.whole or self.connection is None:
            return False
        self._drop_connection()
        self._fail_over(recorded, LEFT, "it leaves an engine that drains", down=False)
        return True

    def on_head(self, head: Head) -> Answer:
        """Choose how the answer is passed on."""
        recorded = self._begun()
        if recorded is None:
            return super().on_head(head)
        self.heard_s = monotonic()
        if self.client.stalled:
            self.pause()
        return recorded if _is_stream(head) else UnusableAnswer(self, head.status)

    def on_whole(self, head: Head, body: bytes) -> None:
        """Take a complete answer."""
        recorded = self._begun()
        if recorded is None:
            super().on_whole(head, body)
        elif _is_stream(head):
            recorded.payload(body)
            if not self.ended:
                recorded.end(by_close=False)
        else:
            self.unusable(head.status)

    def unusable(self, status: int) -> None:
        """An engine was asked to go on, and answered something else."""
        self.on_broken(f"status_{status}", f"the engine answered with status {status} when asked to go on")

    def _break_off(self, reason: str, why: str, *, down: bool) -> None:
        recorded = self._begun()
        if recorded is None or not recorded.transcript.whole:
            super()._break_off(reason, why, down=down)
        elif recorded.over:
            self._gateway.metrics.resumed["concluded"] += 1
            recorded.conclude(usage_wanted=self._usage_wanted)
        else:
            self._fail_over(recorded, reason, why, down=down)

    def _fail_over(self, recorded: RecordedStream, reason: str, why: str, *, down: bool) -> None:
        """Let the controller say where the rest comes from."""
        self._failed_by = reason
        now_s, tokens = self._gateway.now_s(), len(recorded.transcript.tokens)
        failed = Failed(now_s, self.request.id, why, replica_down=down, resume_tokens=tokens)
        self._gateway.tell(failed)

    def _outgoing(self, engine: Engine, field: bytes) -> bytes:
        recorded, how = self._begun(), self._how
        able = engine.dialect in how.dialects and (recorded is not None or self._gateway.remembers)
        wire = self.wire.telling(said=how.said) if able else None
        if recorded is not None:
            assert wire is not None
            wire = self._continuing(recorded, engine, wire)
        self._recording = wire is not None
        return (wire or self.wire).to(engine, self.wire_id, field)

    def _continuing(self, recorded: RecordedStream, engine: Engine, wire: Wire) -> Wire:
        dialect, transcript = engine.dialect, recorded.transcript
        assert dialect is not None
        self._gateway.metrics.resumed["elsewhere"] += 1
        recorded.go_on(
            Continued(transcript, self.kind, dialect, told=self._how.told), strip_usage=self._strip_usage
        )
        target = COMPLETIONS if dialect == "vllm" else wire.target
        return replace(wire, target=target, body=continuation(wire.body, self.kind, dialect, transcript))

    def same(self) -> Wire:
        """Return the request as the engine got it that began to answer."""
        return (self.wire.telling(said=self._how.said) or self.wire) if self._recording else self.wire

    def _stream(self, head: Head) -> EventStream:
        if not self._recording or head.encoded or self.engine is None:
            return super()._stream(head)
        transcript = Transcript(told=self._how.told, wary=self.engine.dialect == "vllm")
        self._recorded = RecordedStream(self, head, transcript, strip_usage=self._strip_usage)
        return self._recorded

    def _begun(self) -> RecordedStream | None:
        """Return the stream, if the client has the beginning of it."""
        return self._recorded if self._recorded is not None and self._recorded.committed else None


def _is_stream(head: Head) -> bool:
    return head.is_event_stream and head.status < 400
