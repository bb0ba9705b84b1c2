"""Encoded images of any origin become RGB pixels of one size, or one reason why not."""

from pipeline.images.data_uri import exact_uri, thumbnail_uri
from pipeline.images.decode import Decoded, decode
from pipeline.images.isolated_decoder import IsolatedDecoder, decode_or_exit

__all__ = ["Decoded", "IsolatedDecoder", "decode", "decode_or_exit", "exact_uri", "thumbnail_uri"]
