"""Asks engines whether they are up, what they serve and how loaded they are, and tells the controller."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import msgspec

from millrace.core.event import Reported
from millrace.core.replica import Report, Role
from millrace.gateway.fleet import Member, Part
from millrace.gateway.gauges import read_report
from millrace.gateway.probe import ProbeError, get

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway

PATIENCE_S = 5.0
FAILURES_UNTIL_GONE = 2
MODELS_EVERY = 30
SERVER_INFO = (b"/server_info", b"/get_server_info")  # SGLang's, now and before
ROLES: dict[str | None, Role] = {"prefill": "prefill", "decode": "decode"}
DRAINING = re.compile(rb'"status"\s*:\s*"draining"')


class _Card(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[dict[str, Any]]


class _ServerInfo(msgspec.Struct):
    disaggregation_mode: str | None = None
    disaggregation_bootstrap_port: int | None = None


async def watch(gateway: Gateway, member: Member) -> None:
    """Examine one engine again and again."""
    while True:
        await asyncio.sleep(gateway.settings.scrape_s)
        await examine(gateway, member)


async def examine(gateway: Gateway, member: Member) -> None:
    """Examine one engine once and tell the controller what came out.

    An engine that refuses connections is gone at once; one that is slow or unwell, when it is so twice.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            drains = await _drains(member)
            news = await _learn_models(gateway, member)
            report = await _read_load(gateway, member)
    except (ProbeError, TimeoutError) as error:
        member.failures += 1
        if getattr(error, "down", False) or member.failures >= FAILURES_UNTIL_GONE:
            _note_gone(gateway, member)
        return
    member.failures, member.phase = 0, "draining" if drains or member.retired else "ready"
    member.examined += 1
    spec = member.spec if news else None
    gateway.tell(Reported(gateway.now_s(), member.engine.id, member.phase, spec, report))


def retire(gateway: Gateway, member: Member, *, retired: bool) -> None:
    """Let an engine drain, or take requests again, from now on."""
    member.retired = retired
    if member.phase in ("ready", "draining"):
        member.phase = "draining" if retired else "ready"
        gateway.tell(Reported(gateway.now_s(), member.engine.id, member.phase))


def _note_gone(gateway: Gateway, member: Member) -> None:
    if member.phase in ("ready", "draining"):
        member.lose()
        gateway.tell(Reported(gateway.now_s(), member.engine.id, "gone"))


async def _drains(member: Member) -> bool:
    """Whether an engine only finishes what it has, as ours say while they end.

    Engines without a health page (404) are asked for their models instead.
    """
    status, body = await get(member.engine, b"/health")
    if status == 503 and DRAINING.search(body):
        return True
    if status not in (200, 204, 404):
        raise ProbeError(f"/health answered {status}")
    return False


async def _learn_models(gateway: Gateway, member: Member) -> bool:
    if member.phase in ("ready", "draining") and member.spec.models and member.examined % MODELS_EVERY:
        return False
    status, body = await get(member.engine, b"/v1/models")
    if status != 200:
        raise ProbeError(f"/v1/models answered {status}")
    try:
        cards = msgspec.json.decode(body, type=_Models).data
        msgspec.convert(cards, list[_Card])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProbeError(f"/v1/models cannot be read: {error}") from None
    return gateway.fleet.learn(member, cards, await _part(member, cards))


async def _part(member: Member, cards: list[dict[str, Any]]) -> Part | None:
    """Ask an engine of SGLang what it is for; None for those of others."""
    if not cards or any(card.get("owned_by") != "sglang" for card in cards):
        return None
    for path in SERVER_INFO:
        status, body = await get(member.engine, path)
        if status == 200:
            try:
                told = msgspec.json.decode(body, type=_ServerInfo)
            except (msgspec.DecodeError, UnicodeDecodeError):
                break
            return Part(ROLES.get(told.disaggregation_mode, "both"), told.disaggregation_bootstrap_port)
    return Part()


async def _read_load(gateway: Gateway, member: Member) -> Report | None:
    """Engines without a metrics page say nothing of their load; the controller counts for itself."""
    status, body = await get(member.engine, b"/metrics")
    if status != 200:
        return None
    member.scraped_s = gateway.now_s()
    return read_report(body, member.scraped_s)
