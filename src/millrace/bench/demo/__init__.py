"""The demo: a small real fleet under real traffic, the same simulated, and a report that compares both."""
