"""Encoded images of any origin become RGB pixels of one size, or one reason why not."""

from pipeline.images.apart import Decoder, decode_or_exit
from pipeline.images.decode import Decoded, decode
from pipeline.images.show import exact_uri, thumbnail_uri

__all__ = ["Decoded", "Decoder", "decode", "decode_or_exit", "exact_uri", "thumbnail_uri"]
