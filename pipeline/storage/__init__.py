"""Where an output lives: local disk, S3 or GCS behind one small protocol that can create exclusively."""

from pipeline.storage.location import place_of, reaches
from pipeline.storage.publish import probe, put_idempotent, put_if_absent, replace_if
from pipeline.storage.store import Entry, Store, WriteResult
from pipeline.storage.stores import open_store

__all__ = [
    "Entry",
    "Store",
    "WriteResult",
    "open_store",
    "place_of",
    "probe",
    "put_idempotent",
    "put_if_absent",
    "reaches",
    "replace_if",
]
