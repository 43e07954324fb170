"""What the gateway reads in the words of requests, and what it keeps: numbers, never text."""

from __future__ import annotations

from pathlib import Path

from millrace.control.log import read_entry, replay
from millrace.core.answer_length import LengthPrediction
from millrace.core.event import Arrived
from millrace.core.lexical import lexical
from millrace.core.request import Request
from millrace.core.trace import read_trace
from millrace.gateway import GatewaySettings, Wording
from millrace.gateway.server import listening
from millrace.testing.engine import FakeEngine
from tests.integration.gateway.world import caller, chat, controller, run

SECRET = "Explain the swordfish briefly"
PREDICTED = LengthPrediction(77, (0, 1))


def logged(folder: Path, wording: Wording | None) -> tuple[list[str], Request]:
    """Serve a chat; return the log's lines and the request in it."""
    log = folder / "events.jsonl"

    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            settings = GatewaySettings(backends=(engine.url,), port=0, scrape_s=0.05, event_log=log)
            mind = controller()
            async with listening(settings, mind, wording=wording) as gateway, caller(gateway) as client:
                assert (await client.ask(chat(messages=[{"role": "user", "content": SECRET}]))).status == 200

    run(scenario())
    lines = log.read_text().splitlines(keepends=True)
    assert replay(line.encode() for line in lines).first_difference is None
    entries = [read_entry(line.encode(), 2).event for line in lines[1:]]
    return lines, next(event.request for event in entries if isinstance(event, Arrived))


def test_numbers_and_prediction_are_logged_and_no_word_is(tmp_path: Path) -> None:
    lines, request = logged(tmp_path, Wording(lambda numbers: PREDICTED, kept=True))
    assert (request.lexical, request.predicted) == (lexical(SECRET), PREDICTED)
    assert "swordfish" not in "".join(lines)
    (record,) = read_trace(lines)
    assert record.lexical == lexical(SECRET)
    assert record.output_tokens > 0


def test_numbers_are_kept_only_if_somebody_asks_for_them(tmp_path: Path) -> None:
    _, request = logged(tmp_path, Wording(lambda numbers: PREDICTED))
    assert (request.lexical, request.predicted) == ((), PREDICTED)
    _, request = logged(tmp_path, None)
    assert (request.lexical, request.predicted) == ((), None)


def test_what_has_no_words_has_no_prediction() -> None:
    wording = Wording(lambda numbers: PREDICTED, kept=True)
    request = Request(id="q", model="m", prompt_tokens=3, max_tokens=1)
    assert wording.read(request, "text", b'{"prompt":[1,2,3]}') is request
    assert wording.read(request, "text", b'{"prompt":"hi"}').predicted == PREDICTED
