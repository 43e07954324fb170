"""Files that Millrace ships: the demo model and other data, no code."""
