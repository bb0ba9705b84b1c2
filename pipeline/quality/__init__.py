"""The rules that decide which texts become captions: pure functions of a text and its request."""

from pipeline.quality.evaluation import PreparedRules, Verdict, evaluate, prepare_rules
from pipeline.quality.mentions import count_mentions
from pipeline.quality.rule import CheckedText, Finding, Rule
from pipeline.quality.rules import RULES, check_rules, rule_mistakes
from pipeline.quality.tag_lists import load_vocabulary, tags_of, vocabulary_digest

__all__ = [
    "RULES",
    "CheckedText",
    "Finding",
    "PreparedRules",
    "Rule",
    "Verdict",
    "check_rules",
    "count_mentions",
    "evaluate",
    "load_vocabulary",
    "prepare_rules",
    "rule_mistakes",
    "tags_of",
    "vocabulary_digest",
]
