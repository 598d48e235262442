"""Measurements, each beside a baseline of the same run. Nothing is asserted here; results are committed."""
