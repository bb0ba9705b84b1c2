"""Text models: any causal language model with a chat template that vLLM runs. They take no image.

They shorten, merge, translate or restructure texts: the captions of an output, or the columns of a table. There are no
prompts of an author, so that every slot has a prompt of its own.

The chat template of the model's tokenizer writes the marks around the texts. It is filled with two marks of ours and
divided there, once, and the texts are put in afterwards: a mark of the template within a text stays text. What stands
between two marks of the template is encoded as one run, as the template's own tokens would be. A check when the model
is loaded compares a prompt with what the tokenizer itself makes of it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from pipeline.errors import ModelMismatch
from pipeline.models.dims import TURN_TOKENS, ModelDims
from pipeline.models.family import EndpointNeeds, Generation, Geometry, ModelFamily, NoImage
from pipeline.models.text_ids import markup_tokens, special_ids, text_ids

NAME = "text"
"""Of the family and of its one generation."""

GENERATION = Generation(
    name=NAME,
    servable=True,
    modes=(),
    options={},
    system=None,
    max_tokens=300,
)

_KINDS = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures that are causal language models."""

_SETTINGS = {"enable_thinking": False, "date_string": "26 July 2024"}
"""Variables of chat templates: no thinking aloud before the answer, and a date that is the same on every day."""
_TODAY = "strftime_now"
"""The function with which a template writes the date of the day."""

_SYSTEM_MARK, _PROMPT_MARK = "JOYFLEETSYSTEMTEXT", "JOYFLEETPROMPTTEXT"
_PROBE = ("You shorten captions.", "Shorten: a red circle, 3 cm wide.")


def _recognise(model_id: str, stated: Mapping[str, Any] | None) -> str | None:
    del model_id  # a name does not say what a model is
    return NAME if stated is not None and _is_causal(stated) else None


def _is_causal(stated: Mapping[str, Any]) -> bool:
    return any(str(name).endswith(_KINDS) for name in stated.get("architectures") or ())


def _load_generation(name: str) -> Generation:
    assert name == NAME
    return GENERATION


def _geometry_of(stated: Mapping[str, Any] | None) -> Geometry:
    del stated  # no model of the family takes images
    return NoImage()


def _dims_of(stated: Mapping[str, Any]) -> ModelDims | None:
    """The dimensions of a dense model with the usual names; None for one with experts, quantised, or other names."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    if any(not isinstance(stated.get(name), int) for name in names):
        return None
    if any("expert" in name for name in stated) or stated.get("quantization_config"):
        return None
    hidden, heads = stated["hidden_size"], stated["num_attention_heads"]
    return ModelDims(
        hidden=hidden,
        layers=stated["num_hidden_layers"],
        heads=heads,
        kv_heads=stated.get("num_key_value_heads") or heads,
        head_dim=stated.get("head_dim") or hidden // heads,
        mlp=stated["intermediate_size"],
        vocab=stated["vocab_size"],
        vision=None,
        system_tokens=TURN_TOKENS,
    )


class _Layout:
    """See `pipeline.models.family.PromptLayout`."""

    def __init__(self, tokenizer: Any, stated: Mapping[str, Any], name: str) -> None:  # noqa: ANN401 - transformers'
        if not _is_causal(stated):
            found = ", ".join(stated.get("architectures") or ()) or "none"
            raise ModelMismatch(
                f"{name}: architectures {found}: no causal language model; allowed: names that end in {_KINDS[0]}"
            )
        if not isinstance(tokenizer.chat_template, str):
            found = "none" if tokenizer.chat_template is None else "several"
            raise ModelMismatch(
                f"{name}: its tokenizer has {found} chat templates, must be 1; give a folder with a chat_template.jinja"
            )
        self._tokenizer = tokenizer
        self._name = name
        self._template: str = tokenizer.chat_template
        if _TODAY in self._template and "date_string" not in self._template:
            raise ModelMismatch(
                f"{name}: its chat template writes the date of the day ({_TODAY}), so that a prompt would change with "
                "it; give a folder with a chat_template.jinja that does not"
            )
        self._special_ids = special_ids(tokenizer, name)
        marks = sorted(markup_tokens(tokenizer), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        self._check_encoding()

    @property
    def image_token(self) -> int | None:
        return None

    @property
    def template_settings(self) -> Mapping[str, Any]:
        return {name: value for name, value in _SETTINGS.items() if name in self._template}

    def image_tokens(self, width: int, height: int) -> int:
        del width, height  # of the protocol
        return 0

    def encode(self, system: str, prompt: str) -> tuple[int, ...]:
        texts = {_SYSTEM_MARK: system.strip(), _PROMPT_MARK: prompt.strip()}
        ids: list[int] = []
        for part in self._with_system if texts[_SYSTEM_MARK] else self._without_system:
            ids += [part] if isinstance(part, int) else self._text("".join(texts.get(piece, piece) for piece in part))
        return tuple(ids)

    def check(self, ids: tuple[int, ...]) -> None:
        last = self._without_system[-1]
        tail = (last,) if isinstance(last, int) else tuple(self._text("".join(last)))
        if _PROMPT_MARK not in (last if isinstance(last, tuple) else ()) and ids[-len(tail) :] != tail:
            raise ModelMismatch(
                f"{self._name}: wrong prompt layout: the prompt does not end with the mark of an answer that the chat "
                "template of the model writes"
            )

    @cached_property
    def _with_system(self) -> Sequence[int | tuple[str, ...]]:
        return self._parts({"role": "system", "content": _SYSTEM_MARK}, {"role": "user", "content": _PROMPT_MARK})

    @cached_property
    def _without_system(self) -> Sequence[int | tuple[str, ...]]:
        return self._parts({"role": "user", "content": _PROMPT_MARK})

    def _parts(self, *messages: Mapping[str, str]) -> Sequence[int | tuple[str, ...]]:
        """The template with our marks: ids of its own marks, and between them runs of text, in pieces."""
        text = self._rendered(messages, tokenize=False)
        for message in messages:
            count = text.count(message["content"])
            if count != 1:
                raise ModelMismatch(
                    f"{self._name}: its chat template writes the text of the {message['role']} turn {count} times, "
                    "must be once; give a folder with another chat_template.jinja"
                    + ("" if message["role"] == "user" else ", or remove captions.*.system")
                )
        return tuple(self._divided(text))

    def _divided(self, text: str) -> Iterator[int | tuple[str, ...]]:
        end = 0
        for match in self._marks.finditer(text):
            if match.start() > end:
                yield _pieces(text[end : match.start()])
            yield self._tokenizer.convert_tokens_to_ids(match[0])
            end = match.end()
        if end < len(text):
            yield _pieces(text[end:])

    def _rendered(self, messages: Sequence[Mapping[str, str]], *, tokenize: bool) -> Any:  # noqa: ANN401 - text or ids
        try:
            return self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=tokenize, return_dict=False, **_SETTINGS
            )
        except TemplateError as err:
            raise ModelMismatch(
                f"{self._name}: its chat template refuses {' and '.join(message['role'] for message in messages)} "
                f"turns ({err}); remove captions.*.system, or give a folder with another chat_template.jinja"
            ) from err

    def _text(self, text: str) -> list[int]:
        ids = text_ids(self._tokenizer, text)
        # Each text of a prompt has none, so that a prompt has those of the template and no more.
        assert self._special_ids.isdisjoint(ids), f"{self._name}: special ids for the text {text[:80]!r}"
        return ids

    def _check_encoding(self) -> None:
        """Compare a prompt with the tokenizer's own.

        Raises:
            ModelMismatch: it differs, as where a tokenizer writes a blank in front of each text.
        """
        expected = tuple(self._rendered([{"role": "user", "content": _PROBE[1]}], tokenize=True))
        ids = self.encode("", _PROBE[1])
        if ids != expected:
            raise ModelMismatch(
                f"{self._name}: the prompt {_PROBE[1]!r} has {len(ids)} tokens that differ from the {len(expected)} of "
                "its tokenizer's own chat template; this tokenizer is not supported"
            )


def _pieces(run: str) -> tuple[str, ...]:
    """A run of the template, divided at our marks, which are kept."""
    return tuple(piece for piece in re.split(f"({_SYSTEM_MARK}|{_PROMPT_MARK})", run) if piece)


def _messages(system: str, prompt: str, image_url: str | None) -> list[Any]:
    assert image_url is None
    turn = {"role": "user", "content": prompt.strip()}
    return [{"role": "system", "content": system.strip()}, turn] if system.strip() else [turn]


FAMILY = ModelFamily(
    name=NAME,
    generations=(NAME,),
    load_generation=_load_generation,
    recognise=_recognise,
    catalogue_digest=lambda: "none",
    forms={},
    class_words={},
    sampling={},
    tokens_per_word=1.35,  # an assumption, as the next one: English text
    chars_per_token=4.5,
    geometry_of=_geometry_of,
    dims=None,
    dims_of=_dims_of,
    load_layout=_Layout,
    prepare_images=None,
    unquantized=(),
    endpoint=EndpointNeeds(chat_template=None, messages=_messages),
)
