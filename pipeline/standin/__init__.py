"""The stand-in model for machines without a GPU: its weights, its demo pictures, and the check of its captions.

It is a small LLaVA with JoyCaption's architecture, prompt layout and failure modes. It was trained on drawn
pictures, so that a test can compare each caption with what was drawn.
"""
