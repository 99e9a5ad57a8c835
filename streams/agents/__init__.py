"""Faust agents, one file each: thin; decode, hand to the engine."""
