"""The mind of one server: continuous batching over a paged KV cache. Pure: no torch, no clock.

An `Executor` carries out each step: the engine computes it, the simulator prices it.
"""
