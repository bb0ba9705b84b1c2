"""Reads what the inputs say of images: caption files, source tables, and the joins between them."""
