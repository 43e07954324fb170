"""Measuring fleets: prompts with exact lengths, an honest open-loop load, and reports that compare worlds."""
