"""Where an output lives: local disk, S3 or GCS behind one small protocol that can create exclusively."""

from pipeline.storage.location import place_of, reaches
from pipeline.storage.open import open_store
from pipeline.storage.publish import probe, put_if_absent, put_once, replace_if
from pipeline.storage.store import Entry, Outcome, Store

__all__ = [
    "Entry",
    "Outcome",
    "Store",
    "open_store",
    "place_of",
    "probe",
    "put_if_absent",
    "put_once",
    "reaches",
    "replace_if",
]
