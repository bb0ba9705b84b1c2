"""Openings about the image itself instead of its content: `This image shows ...`.

JoyCaption's author trained a whole mode and an option of beta-one against them, and CaptionFlow removes ten of them
without a check. Here an opening is removed only if a sentence is left: a noun phrase must follow, and no second verb
may depend on the image (`This image shows a cat and has a warm mood.`).
"""

import re

_NOUN = (
    r"(?:image|picture|photo|photograph|photography|illustration|drawing|painting|artwork|scene|screenshot|render|"
    r"rendering|digital (?:artwork|illustration|painting|drawing)|(?:vintage |color |colour |black[- ]and[- ]white )?"
    r"(?:photograph|photo|image))"
)
_VERBS = r"(?:shows|depicts|features|displays|captures|presents|portrays|contains|illustrates|showcases|has|is)"
_OPENING = re.compile(
    rf"\A\s*(?:in (?:this|the) {_NOUN},? (?:we (?:can )?see|there (?:is|are)|you (?:can )?see)|"
    rf"(?:this|the) {_NOUN} {_VERBS}(?: of)?|(?:this|the) {_NOUN} (?:appears|seems) to (?:show|be|depict)(?: of)?)\s+",
    re.IGNORECASE,
)
_NOUN_PHRASE = re.compile(
    r"(?:an?|the|one|two|three|four|five|six|seven|eight|nine|ten|several|many|some|multiple|various|numerous|both|\d+)"
    r"\s+\w",
    re.IGNORECASE,
)
_SECOND_VERB = re.compile(rf"\b(?:and|but|while|,)\s+(?:it\s+)?(?:also\s+)?{_VERBS}\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]*")


def meta_opening(text: str) -> str | None:
    """Return the opening, or None."""
    match = _OPENING.match(text)
    return match[0].strip() if match else None


def remove_opening(text: str) -> str | None:
    """Return the text without its opening, or None if no grammatical sentence would be left."""
    match = _OPENING.match(text)
    if not match:
        return text
    rest = text[match.end() :]
    sentence = _SENTENCE.match(rest)
    if not _NOUN_PHRASE.match(rest) or (sentence and _SECOND_VERB.search(sentence[0])):
        return None
    return rest[0].upper() + rest[1:]
