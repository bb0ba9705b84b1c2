"""Sums up what a corpus holds and writes its report tables and its data set card."""
