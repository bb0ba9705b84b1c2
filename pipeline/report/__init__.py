"""What people look at, made from committed captions in one pass and bounded memory."""

from pipeline.report.quality_stats import QualityReport, measure_quality, write_report

__all__ = ["QualityReport", "measure_quality", "write_report"]
