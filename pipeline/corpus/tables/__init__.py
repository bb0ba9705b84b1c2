"""Reads the inputs, caption files and source tables, as facts about images, and joins tables to images."""
