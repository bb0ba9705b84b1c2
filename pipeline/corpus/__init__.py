"""Makes TIPO training text from captions, tags and metadata: records, texts and the grammar that checks the texts."""
