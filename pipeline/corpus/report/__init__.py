"""Counts the content of a corpus and writes its report tables and its data set card."""
