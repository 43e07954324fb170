"""Charts as small inline SVG, each a pure function of runs, each with its numbers as a table."""
