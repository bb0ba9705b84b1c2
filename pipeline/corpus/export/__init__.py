"""Writes a finished corpus as the files that a trainer reads."""
