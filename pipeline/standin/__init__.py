"""The stand-in model for machines without a GPU: its weights and its demo pictures.

It is a small LLaVA with JoyCaption's architecture, prompt layout and failure modes. It was trained on drawn
pictures, so that a test can compare each caption with what was drawn.
"""
