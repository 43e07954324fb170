"""The demo: a small real fleet under real traffic, the same simulated, and a report that compares both."""

from millrace.bench.demo.run import run_demo
from millrace.bench.demo.settings import DemoSettings

__all__ = ["DemoSettings", "run_demo"]
