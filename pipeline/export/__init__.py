"""Committed captions leave in the form that others read: each shard once, whatever died on the way."""

from pipeline.export.export_driver import Captioned, Exported, run_export

__all__ = ["Captioned", "Exported", "run_export"]
