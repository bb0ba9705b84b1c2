"""Reports on an output and previews, computed in one pass over the committed captions with bounded memory."""
