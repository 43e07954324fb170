"""Follows the KV events of all engines that publish them, and tells the controller."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import TYPE_CHECKING

import zmq.asyncio

from millrace.core.event import CacheChange, CacheChanged
from millrace.gateway.kv_events.decoding import Decoder
from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.gateway.kv_events.story import Story
from millrace.gateway.kv_events.subscriber import Subscriber

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway


async def follow_engines(gateway: Gateway) -> None:
    """Follow them until cancelled."""
    context = zmq.asyncio.Context()
    endpoints = gateway.settings.kv_events.items()
    subscribers = [_subscriber(gateway, name, endpoint) for name, endpoint in endpoints]
    try:
        await asyncio.gather(*(subscriber.follow(context) for subscriber in subscribers))
    except zmq.ZMQError:
        print("millrace serve: no longer following KV events", file=sys.stderr)
        traceback.print_exc()
    finally:
        context.destroy(linger=0)


def _subscriber(gateway: Gateway, name: str, endpoint: Endpoint) -> Subscriber:
    member, metrics = gateway.fleet.members[name], gateway.metrics

    def tell(changes: tuple[CacheChange, ...]) -> None:
        gateway.tell(CacheChanged(gateway.now_s(), name, changes))

    decoder = Decoder(gateway.settings.block_tokens or 1)
    story = Story(decoder, tell)
    metrics.kv_batches[name], metrics.kv_ignored[name] = story.counts, decoder.ignored
    return Subscriber(endpoint, story, life=lambda: member.losses)
