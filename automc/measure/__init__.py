"""Timing, energy counters and calibration on the device at hand."""
