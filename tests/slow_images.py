"""Small files that take their decoder minutes: real images, each valid but for being made to be slow."""

import struct

SIDE_PX = 4096


def slow_jpeg(num_scans: int, side_px: int = SIDE_PX) -> bytes:
    """A progressive JPEG, grey, each scan of which refines all blocks: 35 bytes a scan of 4,096 x 4,096 pixels.

    libjpeg walks over all coefficients in every scan, which takes 10 ms of a CPU.
    """
    num_blocks = (side_px // 8) ** 2
    # Two Huffman tables of one symbol, whose code is the bit 0: DC difference 0, and "the next 2^14 + n blocks end".
    tables = b"\xff\xc4" + struct.pack(">H", 38) + b"\x00\x01" + bytes(15) + b"\x00" + b"\x10\x01" + bytes(15) + b"\xe0"
    head = b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64
    head += b"\xff\xc2" + struct.pack(">HBHHB3s", 11, 8, side_px, side_px, 1, b"\x01\x11\x00") + tables
    dc = _scan(0, 0, 0x01, "0" * num_blocks)
    run = "0" + "1" * 14
    first = _scan(1, 63, 0x0D, run * -(-num_blocks // 0x7FFF))
    refine = [_scan(1, 63, (high << 4) | (high - 1), run * -(-num_blocks // 0x7FFF)) for high in range(13, 0, -1)]
    scans = [first, *refine]
    return head + dc + b"".join(scans[number % len(scans)] for number in range(num_scans)) + b"\xff\xd9"


def _scan(start: int, end: int, approximation: int, bits: str) -> bytes:
    data = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xda\0\x08\x01\x01\x00" + bytes((start, end, approximation)) + data
