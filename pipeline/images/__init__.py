"""Encoded images of any origin become RGB pixels of one size, or one reason why not."""

from pipeline.images.apart import Decoder
from pipeline.images.decode import Decoded, decode

__all__ = ["Decoded", "Decoder", "decode"]
