"""Media in prompts, encoders for them, and a cache that all replicas share, as they are typed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer

from millrace.cli.options import duration_s
from millrace.cli.simulating.options import FLEET, WORKLOAD
from millrace.core.fleet_spec import FleetGroup
from millrace.core.memory_tiers import Tier
from millrace.core.quantity import bytes_per_s, size_bytes
from millrace.simulate import Job
from millrace.simulate.media import Images, with_images
from millrace.simulate.telling import in_blocks

Media = Annotated[
    str | None,
    typer.Option(
        metavar="SETTINGS",
        help="Put an image in front of a share of the prompts, one of so many tokens, of so many different "
        "ones, like share=0.3,tokens=768/1792,distinct=1000.",
        rich_help_panel=WORKLOAD,
    ),
]
CachePool = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES,BYTES/s[,TIME]",
        help="A pool of KV cache that all replicas share, and how each reads from it, like 8TB,100GB/s,5us.",
        rich_help_panel=FLEET,
    ),
]

MEDIA = "write it like share=0.3,tokens=768/1792,distinct=1000"
DISTINCT = 1000


def images_of(text: str) -> Images:
    """Read `share=S,tokens=N/N/...[,distinct=N]`. Raises ValueError, naming the field and the fix."""
    said: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        said[name.strip()] = value.strip()
    if unknown := said.keys() - {"share", "tokens", "distinct"}:
        raise ValueError(f"there is no {min(unknown)!r}; {MEDIA}")
    for name in ("share", "tokens"):
        if name not in said:
            raise ValueError(f"{name} is not said; {MEDIA}")
    try:
        sizes = tuple(int(size) for size in said["tokens"].split("/"))
        share, distinct = float(said["share"]), int(said.get("distinct", DISTINCT))
    except ValueError:
        raise ValueError(f"cannot read the numbers of {text!r}; {MEDIA}") from None
    return Images(share=share, sizes_tokens=sizes, distinct=distinct)


def pool_of(text: str) -> Tier:
    """Read `BYTES,BYTES/s[,TIME]`. Raises ValueError."""
    size, comma, rest = text.partition(",")
    speed, _, latency = rest.partition(",")
    if not comma:
        raise ValueError(f"{text!r} says no bandwidth; write it like 8TB,100GB/s,5us")
    return Tier(
        name="cache pool",
        capacity_bytes=size_bytes(size),
        bytes_per_s=bytes_per_s(speed),
        latency_s=duration_s(latency) if latency else 0.0,
        source="--cache-pool",
    )


def completed(jobs: Iterable[Job], *, images: Images | None, block_tokens: int | None) -> Iterator[Job]:
    """Yield jobs with images, known in blocks of so many tokens, or as they are."""
    for job in with_images(jobs, images) if images else jobs:
        yield job if block_tokens is None else in_blocks(job, block_tokens)


def check(
    groups: Sequence[FleetGroup], *, media: bool, pool: bool, energy: bool, migration: str | None
) -> None:
    """Raise ValueError for what does not go together, naming the option and the fix."""
    encoding = [group for group in groups if group.encoder]
    if energy and (pool or encoding):
        what = "--cache-pool" if pool else "encoders in --fleet"
        raise ValueError(f"--energy: the joules of {what} are not known; leave out one of them")
    if migration and (pool or any(group.role == "encode" for group in groups)):
        what = "--cache-pool" if pool else "role=encode in --fleet"
        raise ValueError(f"--migration: with {what} no request moves yet; leave out one of them")
    if pool and encoding:
        raise ValueError(
            "--cache-pool: its replicas read text only; leave out encoders in --fleet, or the pool"
        )
    for group in groups if media else ():
        if not group.encoder:
            name = f"{group.device.name} {group.model.name}"
            raise ValueError(
                f"--media: the replicas '{name}' in --fleet have no encoder; say how fast they encode, like "
                "encode_speed=12000"
            )


def notes(groups: Sequence[FleetGroup], *, media: bool) -> Iterator[str]:
    """Yield what a person should know before the results surprise them."""
    if not media and any(group.encoder for group in groups):
        yield "the fleet has encoders, but no request has media; put some into them with --media"
