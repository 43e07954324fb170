"""`millrace serve --demo`: a small fleet of its own, whose engines are started again when they die."""

from __future__ import annotations

import asyncio
from pathlib import Path

from millrace.cli.output import EXIT_UNREACHABLE, CommandError, say
from millrace.cli.stopping import run_until_told
from millrace.launch import Fleet, Front, LaunchError, engine_command

RUN_DIR = Path("millrace-demo")


def serve_demo(engines: int, gateway: Front, *, drain_s: float) -> int:
    """Run engines and a gateway until a signal, which is how a person ends them and no failure.

    Running answers get `drain_s` seconds then. Raises CommandError if the fleet does not come up.
    """
    try:
        return run_until_told(_serve(engines, gateway, drain_s))
    except KeyboardInterrupt:
        say("stopped")
        return 0
    except LaunchError as error:
        hint = "If a package is missing: pip install 'millrace[engine]'"
        raise CommandError(f"{error}\n{hint}", EXIT_UNREACHABLE) from None


async def _serve(engines: int, gateway: Front, drain_s: float) -> int:
    say(f"starting {engines} engines with the demo model …")
    commands = [engine_command("demo", options=("--kv-port", "0")) for _ in range(engines)]
    async with Fleet(engines=commands, gateway=gateway, run_dir=RUN_DIR, grace_s=drain_s + 5) as fleet:
        say(f"ready {fleet.gateway.url}; logs are in {RUN_DIR}/. Try:\n")
        say(_CURL.format(url=fleet.gateway.url))
        say("\nCtrl-C stops it.")
        code = await _watched(fleet, drain_s)
    say(f"the gateway ended by itself; its last words are in {fleet.gateway.log}")
    return code


async def _watched(fleet: Fleet, drain_s: float) -> int:
    """Wait for the gateway's end, which ends the fleet; return its exit code. Engines that die come back."""
    keeping = asyncio.create_task(fleet.keep_engines(say))
    try:
        return await fleet.gateway.ended()
    except asyncio.CancelledError:
        say(f"stopping; running answers get up to {drain_s:g} s. Another signal does not wait.")
        raise
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


_CURL = """  curl {url}/v1/completions -H 'content-type: application/json' \\
    -d '{{"model": "demo", "prompt": "def read_lines(path):\\n", "max_tokens": 64, "temperature": 0}}'"""
