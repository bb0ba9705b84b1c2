"""Where each token of a prompt stands, as in Llama 3 and in JoyCaption's own template.

The training needs wrong layouts as much as the right one: JoyCaption is silently ruined
by a second BOS or a misplaced image, and so must the stand-in be, or no test would notice.
"""

from enum import StrEnum

BOS = "<|begin_of_text|>"
END = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
HEADER = "<|start_header_id|>"
HEADER_END = "<|end_header_id|>"
EOT = "<|eot_id|>"
IMAGE = "<|reserved_special_token_69|>"
IMAGE_START = "<|reserved_special_token_70|>"
IMAGE_END = "<|reserved_special_token_71|>"

SPECIAL_TOKENS = (BOS, END, PAD, HEADER, HEADER_END, EOT, IMAGE, IMAGE_START, IMAGE_END)
"""In the order of their ids, from 0."""

DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 July 2024\n\n"
SYSTEM = "You are a helpful image captioner."
PICTURE = f"{IMAGE_START}{IMAGE}{IMAGE_END}"


class Fault(StrEnum):
    """A way to get the layout wrong."""

    DOUBLE_BOS = "double BOS"
    NO_BOS = "no BOS"
    IMAGE_AFTER_TEXT = "image after the text"
    NO_IMAGE = "no image"
    NO_GENERATION_HEADER = "no generation header"
    LITERAL_PLACEHOLDER = "literal <image> before the text"
    """What vLLM's chat API makes of JoyCaption's prompt."""


def _header(role: str) -> str:
    return f"{HEADER}{role}{HEADER_END}\n\n"


def shared_prefix(system: str = f"{DATES}{SYSTEM}", fault: Fault | None = None) -> str:
    """Return what precedes the prompt's text: BOS, system turn, image."""
    bos = {Fault.NO_BOS: "", Fault.DOUBLE_BOS: BOS + BOS}.get(fault, BOS) if fault else BOS
    picture = "" if fault in (Fault.IMAGE_AFTER_TEXT, Fault.NO_IMAGE) else PICTURE
    return f"{bos}{_header('system')}{system}{EOT}{_header('user')}{picture}"


def prompt_tail(text: str, fault: Fault | None = None) -> str:
    """Return the prompt's text and what follows it up to the first word of the caption."""
    picture = PICTURE if fault is Fault.IMAGE_AFTER_TEXT else ""
    header = "" if fault is Fault.NO_GENERATION_HEADER else _header("assistant")
    text = f"<image>\n{text}" if fault is Fault.LITERAL_PLACEHOLDER else text
    return f"{text}{picture}{EOT}{header}"


def full_prompt(text: str, fault: Fault | None = None) -> str:
    """Return the whole prompt; BOS is in it, so it is encoded without special tokens."""
    return shared_prefix(fault=fault) + prompt_tail(text, fault)


_TEMPLATE_PICTURE = "{%- if loop.first -%}{{- '" + PICTURE + "' -}}{%- endif -%}"

# No BOS: the tokenizer's post-processor adds it. The picture is put before the first
# user turn's text, whatever placeholder that text brings along is taken out.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set system = messages[0]['content'] -%}{%- set messages = messages[1:] -%}"
    "{%- else -%}{%- set system = '' -%}{%- endif -%}"
    "{%- if system is not string -%}{%- set system = system[0]['text'] -%}{%- endif -%}"
    "{{- '" + _header("system") + DATES + "' + system | trim + '" + EOT + "' -}}"
    "{%- for message in messages -%}"
    "{{- '" + HEADER + "' + message['role'] + '" + HEADER_END + "\n\n' -}}"
    "{%- if message['role'] == 'user' -%}" + _TEMPLATE_PICTURE + "{%- endif -%}"
    "{%- if message['content'] is string -%}"
    "{{- message['content'] | replace('" + IMAGE + "', '') | trim -}}"
    "{%- else -%}{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}"
    "{{- part['text'] | trim -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '" + EOT + "' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + _header("assistant") + "' -}}{%- endif -%}"
).replace("\n", "\\n")
