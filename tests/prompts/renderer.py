"""A second renderer of prompts with fields, written from docs/prompts.md alone; it shares no code with the product."""

import hashlib
import json
import unicodedata

from pipeline.models import load_generation


class Missing(Exception):
    """The row fails."""


def render(slot, policies, seed, shard, row, metadata, num_tokens):
    """Return (prompt, options, name), or raise Missing."""

    def value(field):
        return field_text(field, policies.get(field, {}), seed, shard, row, metadata, num_tokens)

    def filled(text):
        """The text with its fields; None if it is left out."""
        out, missing = "", []
        while "{source." in text:
            before, _, rest = text.partition("{source.")
            field, _, text = rest.partition("}")
            found = value(field)
            missing += [field] if found is None else []
            out += before + (found or "")
        if not missing:
            return out + text
        if any(policies.get(field, {}).get("missing", "fail") == "fail" for field in missing):
            raise Missing
        return None

    if "prompt" in slot:
        parts = [filled(sentence) for sentence in sentences(slot["prompt"])]
        prompt = "".join(part for part in parts if part is not None)
        prompt = prompt.strip() if None in parts else prompt
        if not prompt:
            raise Missing
        return prompt, [], None
    generation = load_generation("alpha-two")
    name = filled(slot["name"]) if slot.get("name") is not None else None
    options = [option for option in slot.get("options", []) if option != "refer-by-name" or name is not None]
    [mode] = [mode for mode in generation.modes if mode.name == slot["mode"] and mode.tone in ("formal", None)]
    words = [mode.no_length, *(generation.options[option].replace("{name}", str(name)) for option in options)]
    extra = [filled(sentence.strip()) for sentence in slot.get("extra", [])]
    return " ".join([*words, *(sentence for sentence in extra if sentence is not None)]), options, name


def sentences(text):
    """A sentence ends behind `.`, `!` or `?` and closing quotes before a blank, or at a line end."""
    sentence, at = "", 0
    while at < len(text):
        sentence += text[at]
        at += 1
        marks = sentence.rstrip("\"'”’)]")
        ended = marks.endswith((".", "!", "?")) and (at == len(text) or text[at].isspace())
        if ended or text[at - 1] == "\n" or (at < len(text) and text[at] == "\n"):
            while at < len(text) and text[at].isspace():
                sentence += text[at]
                at += 1
            yield sentence
            sentence = ""
    if sentence:
        yield sentence


def field_text(field, policy, seed, shard, row, metadata, num_tokens):
    items = [one_line(text) for text in texts(field, policy, metadata)]
    items = [item for item in items if item]
    if policy.get("order") == "sorted":
        items.sort()
    if policy.get("order") == "shuffled":
        digests = {
            place: hashlib.blake2b(
                "\x1f".join(map(str, ("field", seed, shard, row, field, place))).encode(), digest_size=8
            ).digest()
            for place in range(len(items))
        }
        items = [items[place] for place in sorted(digests, key=lambda place: digests[place])]
    items = items[: policy.get("max_items") or len(items)]
    separator, limit = policy.get("separator", ", "), policy.get("max_tokens")
    if limit is not None and items:
        first = items[0]
        while items and num_tokens(separator.join(items)) > limit:
            items = items[:-1]
        if not items:
            words = first.split(" ")
            while words and num_tokens(" ".join(words)) > limit:
                words = words[:-1]
            items = [" ".join(words)] if words else []
    if items:
        return separator.join(items)
    missing = policy.get("missing", "fail")
    return None if missing in ("fail", "omit") else missing


def texts(field, policy, metadata):
    level = [metadata]
    for name in field.split("."):
        level = [item[name] for item in flat(level) if isinstance(item, dict) and name in item]
    level = flat(level)
    for item in level:
        if isinstance(item, str):
            yield from item.split(policy["split"]) if policy.get("split") else [item]
        elif item is not None and not isinstance(item, dict):
            yield json.dumps(item)


def flat(level):
    while any(isinstance(item, list) for item in level):
        level = [inner for item in level for inner in (item if isinstance(item, list) else [item])]
    return level


def one_line(text):
    kept = ""
    for char in text:
        if char.isspace():
            kept += " "
        elif char in "\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs"):
            kept += char
    while "  " in kept:
        kept = kept.replace("  ", " ")
    return kept.strip(" ")
