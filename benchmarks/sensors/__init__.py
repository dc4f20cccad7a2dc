"""Sensors of energy, temperature and clocks, read beside what is measured."""
