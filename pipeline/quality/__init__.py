"""Which texts become captions: pure functions over a text and what was asked."""

from pipeline.quality.found import Asked
from pipeline.quality.judge import Rules, Verdict, judge, make_rules
from pipeline.quality.tags import load_vocabulary, tags_of, vocabulary_digest

__all__ = ["Asked", "Rules", "Verdict", "judge", "load_vocabulary", "make_rules", "tags_of", "vocabulary_digest"]
