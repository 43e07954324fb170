"""Follows one engine's KV events: subscribes, notices what is missing, and asks for it again.

Source: the publisher of vLLM (`ZmqEventPublisher`), which SGLang has too: a PUB socket with [topic, sequence
number, batch], and a ROUTER socket that repeats the batches from a number on, which its end mark follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from time import monotonic

import zmq
import zmq.asyncio

from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.gateway.kv_events.story import Story

CHECK_S = 1.0  # of silence, after which one asks whether something was missed
REPLAY_S = 1.0  # vLLM looks for requests to replay every 0.1 s
MUTE_S = 60.0  # in which one does not ask again who has kept silent
TURN = 32  # batches, after which others get their turn of the event loop
QUEUED_BATCHES = 10_000
MESSAGE_LIMIT_BYTES = 64 << 20


class Subscriber:
    """Lets a story be told, and asks for what is missing of it.

    `life` is a number that changes when the engine was lost: its cache is then taken to be empty, by the
    controller as well.
    """

    def __init__(self, endpoint: Endpoint, story: Story, *, life: Callable[[], int]) -> None:
        self._endpoint, self._story, self._life = endpoint, story, life
        self._seen_life = life()
        self._dealer: zmq.asyncio.Socket | None = None
        self._ask_from_s = 0.0

    async def follow(self, context: zmq.asyncio.Context) -> None:
        """Follow the events for ever; a publisher that is not there yet is waited for."""
        with closing(context.socket(zmq.SUB)) as subscription:
            subscription.setsockopt(zmq.RCVHWM, QUEUED_BATCHES)
            subscription.setsockopt(zmq.MAXMSGSIZE, MESSAGE_LIMIT_BYTES)
            subscription.setsockopt(zmq.SUBSCRIBE, self._endpoint.topic.encode())
            monitor = subscription.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            poller = zmq.asyncio.Poller()
            poller.register(subscription, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            subscription.connect(self._endpoint.events)
            try:
                while True:
                    ready = dict(await poller.poll(CHECK_S * 1000))
                    await self._turn(context, subscription, monitor if monitor in ready else None)
            finally:
                subscription.disable_monitor()
                self._hang_up()

    async def _turn(
        self,
        context: zmq.asyncio.Context,
        subscription: zmq.asyncio.Socket,
        monitor: zmq.asyncio.Socket | None,
    ) -> None:
        """Hear what has come; after a new connection, or in silence, ask for what may have been missed."""
        if monitor is not None:
            await monitor.recv_multipart()
            self._ask_from_s = 0.0
        if monitor is not None or self._life() != self._seen_life:
            self._seen_life = self._life()
            self._story.begin()
            await self._replay(context)
        heard = 0
        while heard < TURN and (frames := await _received(subscription)) is not None:
            heard += 1
            if self._story.lacks(frames):
                await self._replay(context)
            self._story.hear(frames)
        if not heard and monitor is None:
            await self._replay(context)
        await asyncio.sleep(0)

    async def _replay(self, context: zmq.asyncio.Context) -> None:
        """Follow what the publisher still has of the batches that are due, if it repeats any."""
        if self._endpoint.replay is None or monotonic() < self._ask_from_s:
            return
        if self._dealer is None:
            self._dealer = context.socket(zmq.DEALER)
            self._dealer.setsockopt(zmq.LINGER, 0)
            self._dealer.connect(self._endpoint.replay)
        dealer = self._dealer
        try:
            async with asyncio.timeout(REPLAY_S):
                await dealer.send_multipart([b"", self._story.due.to_bytes(8, "big")])
                frames = await dealer.recv_multipart()
            while self._story.hear_again(frames):
                async with asyncio.timeout(REPLAY_S):
                    frames = await dealer.recv_multipart()
                await asyncio.sleep(0)
        except TimeoutError:
            self._story.counts["unanswered"] += 1
            self._ask_from_s = monotonic() + MUTE_S
            self._hang_up()

    def _hang_up(self) -> None:
        """What is still to come of an answer must not be taken for the next one."""
        if self._dealer is not None:
            self._dealer.close()
            self._dealer = None


async def _received(subscription: zmq.asyncio.Socket) -> list[bytes] | None:
    try:
        return await subscription.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
