"""Runs a server that tells nobody when it is ready: `python announcer.py PORT PATH COMMAND ...`.

The command's words may hold `{port}`; PORT 0 takes any free one. Once the path answers 200, it says
`ready URL` on stderr, as Millrace's own servers do, so that all can be started and ended in one way.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

from millrace.launch import leash

POLL_S = 0.25


def main(port: int, path: str, argv: list[str]) -> int:
    """Run the command until it ends, and return its exit code; SIGTERM goes to the whole group."""
    port = port or free_port()
    leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid())]
    child = subprocess.Popen([*leashed, *(word.replace("{port}", str(port)) for word in argv)])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    url = f"http://127.0.0.1:{port}"
    while child.poll() is None and not answers(url + path):
        time.sleep(POLL_S)
    if child.poll() is None:
        print(f"ready {url}", file=sys.stderr, flush=True)
    return child.wait()


def answers(url: str) -> bool:
    """Whether the page is there."""
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
