"""Runs llama.cpp's own server until it is ended: `python serve_gguf.py MODEL PORT SLOTS`."""

from __future__ import annotations

import signal
import sys

import xllamacpp


def main(model: str, port: int, slots: int) -> None:
    """Serve a GGUF file as `demo`, in so many slots of 512 tokens."""
    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.model_alias = {"demo"}
    settings.hostnames, settings.port = ["127.0.0.1"], port
    settings.n_parallel, settings.n_ctx = slots, slots * 512
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.endpoint_metrics = True
    server = xllamacpp.Server(settings)
    signal.sigwait([signal.SIGTERM])
    del server


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
