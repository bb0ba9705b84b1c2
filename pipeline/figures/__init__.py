"""Figures of report pages and data set cards: the only package that imports matplotlib."""
