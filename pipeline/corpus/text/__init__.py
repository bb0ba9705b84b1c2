"""Renders records as training texts, checks texts against the grammar, counts and packs their tokens."""
