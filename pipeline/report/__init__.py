"""Reports on an output and previews, computed in one pass over the committed captions with bounded memory."""

from pipeline.report.quality_stats import QualityReport, measure_quality, write_report

__all__ = ["QualityReport", "measure_quality", "write_report"]
