"""Which caption rows of a chained output are stale: the parent's captions that they used have changed since.

Nothing is stored about staleness. A row has the slots of the parent that it used and the digest of their captions, so
two files decide: the child's and the parent's of the same shard.
"""

import hashlib
from collections.abc import Iterable

from schemas.caption_row import DIGEST_BYTES


def parent_digest(captions: Iterable[str | None]) -> str:
    """Return the digest of captions of the parent (`schemas.caption_row.DIGEST_BYTES` defines it).

    Args:
        captions: of the used slots, in order; None where the parent's row is not ok.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for caption in captions:
        data = None if caption is None else caption.encode()
        digest.update(b"-," if data is None else b"%d:%b," % (len(data), data))
    return digest.hexdigest()
