"""An image that kills the process that decodes it is one bad image."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import Decoder, decode
from schemas.status import Reason
from tests.odd_images import encode, picture

GOOD = encode(picture(), "PNG")
SIZE = (24, 16)


def test_what_kills_the_decoder_is_named_and_the_next_image_decodes(monkeypatch):
    project = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{project}/tests/hooks:{project}")
    monkeypatch.setenv("JFTEST_POISON", "DEADLY")
    out = np.zeros((16, 24, 3), np.uint8)
    with Decoder() as decoder:
        with pytest.raises(BadImage, match=r"died of this image of \d+ bytes, alone in it") as caught:
            decoder.decode(GOOD + b"DEADLY", ImagesConfig(), SIZE, out)
        assert caught.value.reason is Reason.DECODER_KILLED
        apart = decoder.decode(GOOD, ImagesConfig(), SIZE, out)
        with pytest.raises(BadImage) as caught:
            decoder.decode(b"<html>", ImagesConfig(), SIZE, out)
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT
    here = decode(GOOD, ImagesConfig(), SIZE)
    assert np.array_equal(out, here.pixels)
    assert (apart.format, apart.width, apart.height) == (here.format, here.width, here.height)
