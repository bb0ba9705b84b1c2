"""Our short names for the author's modes, tones and options; the texts themselves are in catalog.json.

The short names are what stands in configs and in caption rows, so one is never given another meaning.
"""

FORMAL, CASUAL = "formal", "casual"

MODES: dict[str, dict[str, dict[str | None, str]]] = {
    "pre-alpha": {"descriptive": {None: "descriptive"}},
    "alpha-one": {
        "descriptive": {FORMAL: "descriptive/formal", CASUAL: "descriptive/informal"},
        "training-prompt": {None: "training_prompt/formal"},
        "booru-tags": {None: "rng-tags/formal"},
    },
    "alpha-two": {
        "descriptive": {FORMAL: "Descriptive", CASUAL: "Descriptive (Informal)"},
        "training-prompt": {None: "Training Prompt"},
        "midjourney": {None: "MidJourney"},
        "booru-tags": {None: "Booru tag list"},
        "booru-like-tags": {None: "Booru-like tag list"},
        "art-critic": {None: "Art Critic"},
        "product-listing": {None: "Product Listing"},
        "social-media": {None: "Social Media Post"},
    },
    "beta-one": {
        "descriptive": {FORMAL: "Descriptive", CASUAL: "Descriptive (Casual)"},
        "straightforward": {None: "Straightforward"},
        "stable-diffusion-prompt": {None: "Stable Diffusion Prompt"},
        "midjourney": {None: "MidJourney"},
        "danbooru-tags": {None: "Danbooru tag list"},
        "e621-tags": {None: "e621 tag list"},
        "rule34-tags": {None: "Rule34 tag list"},
        "booru-like-tags": {None: "Booru-like tag list"},
        "art-critic": {None: "Art Critic"},
        "product-listing": {None: "Product Listing"},
        "social-media": {None: "Social Media Post"},
    },
}
"""generation -> mode -> tone (None: the mode has no tones) -> the author's name of the type.
The first tone is the default."""

OPTIONS: tuple[str, ...] = (
    "refer-by-name",
    "no-fixed-attributes",
    "lighting",
    "camera-angle",
    "watermark",
    "jpeg-artifacts",
    "camera-details",
    "keep-pg",
    "no-resolution",
    "aesthetic-quality",
    "composition",
    "no-text",
    "depth-of-field",
    "light-sources",
    "no-ambiguity",
    "rating",
    "only-important",
    "no-artist-or-title",
    "orientation",
    "vulgar",
    "no-euphemisms",
    "ages",
    "shot-type",
    "no-mood",
    "vantage-height",
    "must-mention-watermark",
    "no-meta-phrases",
)
"""In the order of `extra_options` in the catalogue: alpha-two has the first 17, beta-one all 27."""

NAME_OPTION = "refer-by-name"
"""The one option with a slot for `name`; without a name the author's page leaves a literal {NAME} behind."""

SYSTEM_VARIANT = {"beta-one": "apps_batch_comfy"}
"""Of beta-one's system prompts, the one of the author's demo page and batch script."""
