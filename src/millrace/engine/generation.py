"""One sequence as the engine computes it: its tokens, how they are chosen, their text, and what ends them."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from msgspec import Struct

from millrace.core.blocks import chain_tokens
from millrace.engine.detokenizer import Detokenizer
from millrace.engine.penalties import Adjustment, adjustment
from millrace.engine.sampling import Logprob, Sampling
from millrace.engine.stops import StopStrings
from millrace.replica.sequence import Sequence


class Ending(Struct, frozen=True, kw_only=True):
    """What ends a sequence before `max_tokens`: one of these tokens, or one of these strings in its text."""

    tokens: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    include_string: bool = False


GREEDY = Sampling(temperature=0.0)
AT_LENGTH = Ending()


class Delta(Struct, frozen=True):
    """What a sequence gained: text that can be shown, tokens, and the log probabilities asked for.

    Text may lag behind the tokens: half a character, or what may begin a stop string, is held back.
    """

    text: str
    logprobs: list[Logprob]
    tokens: list[int] = []

    def __add__(self, later: Delta) -> Delta:
        return Delta(self.text + later.text, self.logprobs + later.logprobs, self.tokens + later.tokens)


@dataclass(slots=True, eq=False)
class Generation:
    """A sequence's state in the engine; `sequence` is the replica's view of it."""

    sequence: Sequence
    tokens: list[int]
    sampling: Sampling
    ending: Ending
    detokenizer: Detokenizer
    block_tokens: int
    adjustment: Adjustment | None
    stops: StopStrings
    _text: list[str] = field(default_factory=list)
    _logprobs: list[Logprob] = field(default_factory=list)
    _taken: int = 0

    @property
    def id(self) -> str:
        """The sequence's id."""
        return self.sequence.id

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.sequence.prompt_tokens

    def accept(self, token: int, logprob: Logprob | None = None) -> bool:
        """Take the next token; True if it ends the sequence."""
        self.tokens.append(token)
        if logprob:
            self._logprobs.append(logprob)
        if self.adjustment:
            self.adjustment.accept(token)
        self._extend_chain()
        if token in self.ending.tokens and self.generated >= self.sampling.min_tokens:
            return True
        return self._show(self.detokenizer.push(token))

    def resume(self, tokens: Tokens[int]) -> None:
        """Take the answer's first tokens, which came from elsewhere and were shown there.

        All that depends on them (text, stop strings, penalties, the luck of the next draw) is as if they had
        been generated here. ValueError if they are a whole answer.
        """
        if any(self.accept(token) for token in tokens) or len(tokens) >= self.sequence.max_tokens:
            raise ValueError("token_ids end the answer, so there is nothing to add to it")
        self.sequence.sampled = len(tokens)
        self.take()

    def follow(self, tokens: Tokens[int]) -> None:
        """Take more tokens of an answer that goes on elsewhere until it goes on here."""
        for token in tokens:
            self.accept(token)
        self.sequence.sampled = self.generated
        self.take()

    def take(self, *, final: bool = False) -> Delta:
        """Hand over what was gained since the last call; `final` also gives up what was held back."""
        if final and self.stops.hit is None:
            self._show(self.detokenizer.flush())
            self._text.append(self.stops.flush())
        known = len(self.tokens)
        delta = Delta("".join(self._text), self._logprobs, self.tokens[self._taken : known])
        self._text, self._logprobs, self._taken = [], [], known
        return delta

    def _show(self, text: str) -> bool:
        if not text:
            return False
        early = self.generated <= self.sampling.min_tokens
        self._text.append(text if early else self.stops.push(text))
        return self.stops.hit is not None

    def _extend_chain(self) -> None:
        """Hash the block that the newest token fills, so that the prefix cache can find it."""
        filled = len(self.tokens)
        if filled % self.block_tokens:
            return
        blocks = self.sequence.blocks
        parent = blocks[-1] if blocks else 0
        blocks += chain_tokens(self.tokens[filled - self.block_tokens :], self.block_tokens, parent=parent)


def generation(
    id: str,
    prompt: Tokens[int],
    max_tokens: int,
    *,
    detokenizer: Detokenizer,
    block_tokens: int,
    sampling: Sampling = GREEDY,
    ending: Ending = AT_LENGTH,
) -> Generation:
    """A new sequence for the replica and the executor."""
    return Generation(
        sequence=Sequence(id, len(prompt), max_tokens, blocks=chain_tokens(prompt, block_tokens)),
        tokens=list(prompt),
        sampling=sampling,
        ending=ending,
        detokenizer=detokenizer,
        block_tokens=block_tokens,
        adjustment=adjustment(sampling, prompt, ending.tokens),
        stops=StopStrings(ending.strings, include=ending.include_string),
        _taken=len(prompt),
    )
