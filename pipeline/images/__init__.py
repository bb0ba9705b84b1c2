"""Decode encoded images of any origin to RGB pixels, or return the reason why they cannot be decoded."""

from pipeline.images.data_uri import exact_uri, thumbnail_uri
from pipeline.images.decoding import Decoded, SizeOf, decode
from pipeline.images.header import Header, read_header
from pipeline.images.isolated_decoder import IsolatedDecoder, decode_or_exit, header_or_exit

__all__ = [
    "Decoded",
    "Header",
    "IsolatedDecoder",
    "SizeOf",
    "decode",
    "decode_or_exit",
    "exact_uri",
    "header_or_exit",
    "read_header",
    "thumbnail_uri",
]
