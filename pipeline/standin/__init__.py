"""A LLaVA small enough for a laptop, the pictures it knows, and what proves its captions.

It stands in for JoyCaption wherever there is no GPU and no network: the same
architecture, prompt layout and failure modes, trained here on pictures drawn here, so
that a caption can be checked against what was drawn.
"""
