"""The network between replicas: each has a link out and a link in, which carry one transfer at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from msgspec import Struct

from millrace.simulate.agenda import Agenda


class Link(Struct, frozen=True, kw_only=True):
    """How fast a transfer between two replicas is: `latency_s` and then `bytes_per_s`.

    By default one port of a network card of 400 Gb/s per replica (NVIDIA ConnectX-7, by its data sheet), and
    the 10 us that are usually reckoned for such a network.
    """

    bytes_per_s: float = 50e9
    latency_s: float = 10e-6

    def __post_init__(self) -> None:
        if not 0 < self.bytes_per_s <= inf or not 0 <= self.latency_s < inf:
            raise ValueError(f"a link of {self.bytes_per_s} bytes/s and {self.latency_s} s carries nothing")


class Transfer(Struct, eq=False, kw_only=True):
    """Bytes on their way; `began_s` is None while they wait, `then` is told of `whom` at the end."""

    source: str
    target: str
    bytes: float
    then: Callable[[Any], None]
    whom: Any
    began_s: float | None = None
    over: bool = False


Carried = Callable[[Transfer, float], object]
"""Is told of a transfer, and the moment it ended."""


class Links:
    """Transfers in the order in which they were asked for, each as soon as both of its links are free.

    Nobody passes one who waits for the same link. `watch` is told of each transfer and the moment it ended.
    """

    def __init__(self, agenda: Agenda, link: Link, watch: Carried | None) -> None:
        self._agenda = agenda
        self._link = link
        self._watch = watch
        self._waiting: deque[Transfer] = deque()
        self._out: dict[str, Transfer] = {}
        self._in: dict[str, Transfer] = {}

    def ask(self, transfer: Transfer) -> None:
        """Let a transfer begin as soon as it can."""
        self._waiting.append(transfer)
        self._begin()

    def drop(self, transfer: Transfer) -> None:
        """Give a transfer up, under way or not; its links are free at once."""
        if transfer.began_s is None:
            self._waiting.remove(transfer)
        self._clear(transfer)

    def _begin(self) -> None:
        """Look through those who wait, first come first."""
        outs, ins = set(self._out), set(self._in)
        for transfer in list(self._waiting):
            if transfer.source not in outs and transfer.target not in ins:
                self._waiting.remove(transfer)
                transfer.began_s = self._agenda.now_s
                self._out[transfer.source] = self._in[transfer.target] = transfer
                seconds = self._link.latency_s + transfer.bytes / self._link.bytes_per_s
                self._agenda.at(self._agenda.now_s + seconds, self._end, transfer)
            outs.add(transfer.source)
            ins.add(transfer.target)

    def _end(self, transfer: Transfer) -> None:
        if transfer.over:
            return  # it was given up
        if self._watch:
            self._watch(transfer, self._agenda.now_s)
        self._clear(transfer)
        transfer.then(transfer.whom)

    def _clear(self, transfer: Transfer) -> None:
        transfer.over = True
        if transfer.began_s is not None:
            del self._out[transfer.source], self._in[transfer.target]
        self._begin()
