"""Exports committed captions into the forms that other tools read: each shard once, also after a crash."""

from pipeline.export.export_driver import Captioned, Exported, run_export

__all__ = ["Captioned", "Exported", "run_export"]
