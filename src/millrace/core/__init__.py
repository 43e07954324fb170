"""The nouns of a fleet, their units, and arithmetic on them. Pure: no IO, no clock, no luck."""
