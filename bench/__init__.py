"""Comparisons with peers, side by side in one run; each module prints a table and writes JSON."""
