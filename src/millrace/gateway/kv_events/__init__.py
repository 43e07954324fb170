"""Listens to what engines say of their prefix caches, over ZeroMQ, in the words of vLLM and SGLang."""
