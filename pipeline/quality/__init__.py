"""Which texts become captions: pure functions over a text and what was asked."""

from pipeline.quality.evaluate import Rules, Verdict, evaluate, make_rules
from pipeline.quality.finding import JudgedRequest
from pipeline.quality.tag_lists import load_vocabulary, tags_of, vocabulary_digest

__all__ = [
    "JudgedRequest",
    "Rules",
    "Verdict",
    "evaluate",
    "load_vocabulary",
    "make_rules",
    "tags_of",
    "vocabulary_digest",
]
