"""Which texts become captions."""

from pipeline.quality.judge import Verdict, judge

__all__ = ["Verdict", "judge"]
