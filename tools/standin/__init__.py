"""The code that built the stand-in model: trainer, grammar, tokenizer and model. Nothing in the product imports it.

`make standin` runs it. The weights that it made, the demo data and the caption check are in `pipeline/standin`.
"""
