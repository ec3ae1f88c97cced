"""Measurements, side by side in one run: alternating rounds, medians and ratios. Never part of the tests."""
