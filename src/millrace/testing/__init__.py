"""Fakes, strategies and checks for tests of policies: ours, and those of whoever writes their own."""
