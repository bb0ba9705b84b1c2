"""The rules that decide which texts become captions: pure functions of a text and its request."""

from pipeline.quality.clip_tokens import clip_digest
from pipeline.quality.evaluation import PreparedRules, Verdict, evaluate, flag_text, prepare_rules
from pipeline.quality.json_answer import canonical_json
from pipeline.quality.mentions import count_mentions
from pipeline.quality.rule import CheckedText, Finding, Rule
from pipeline.quality.rules import RULES, check_rules, is_on, rule_mistakes, rule_versions
from pipeline.quality.tag_lists import load_vocabulary, tags_of, vocabulary_digest

__all__ = [
    "RULES",
    "CheckedText",
    "Finding",
    "PreparedRules",
    "Rule",
    "Verdict",
    "canonical_json",
    "check_rules",
    "clip_digest",
    "count_mentions",
    "evaluate",
    "flag_text",
    "is_on",
    "load_vocabulary",
    "prepare_rules",
    "rule_mistakes",
    "rule_versions",
    "tags_of",
    "vocabulary_digest",
]
