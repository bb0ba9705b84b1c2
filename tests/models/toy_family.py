"""A model family from outside the package: an own image size, one mode, and prompts that are their own bytes."""

from dataclasses import dataclass

from pipeline.errors import ModelMismatch
from pipeline.models.dims import ModelDims, VisionDims
from pipeline.models.family import EndpointNeeds, FixedSize, Form, Generation, Mode, ModelFamily, openai_messages

GENERATION = Generation(
    name="toy-one",
    servable=True,
    modes=(Mode(name="rhyme", tone=None, title="Rhyme", no_length="Write a rhyme.", length_class="A {length} rhyme."),),
    length_classes=("tiny", "epic"),
    options={},
    system="You are a toy.",
    max_tokens=17,
)


@dataclass(frozen=True)
class NativeSize:
    """The original size, rounded down to multiples of 16 px, at most 64 px a side."""

    max_pixels: int = 64 * 64

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        return min(64, max(16, width // 16 * 16)), min(64, max(16, height // 16 * 16))

    def recipe(self) -> dict[str, int]:
        return {"multiple_px": 16, "longest_px": 64}


class Layout:
    """BOS (1), the image (2), the bytes of the texts."""

    image_token = 2
    template_settings: dict[str, object] = {}  # noqa: RUF012 - of a toy

    def image_tokens(self, width: int, height: int) -> int:
        return width * height // 256

    def encode(self, system: str, prompt: str) -> tuple[int, ...]:
        return (1, self.image_token, *(system + prompt).encode())

    def check(self, ids: tuple[int, ...]) -> None:
        if ids[:2] != (1, 2):
            raise ModelMismatch("toy: wrong layout")


DIMS = ModelDims(
    hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=128, vocab=300, system_tokens=15,
    vision=VisionDims(hidden=32, layers=1, mlp=64, patch_px=16, side_px=48),
)  # fmt: skip


def family(geometry) -> ModelFamily:
    return ModelFamily(
        name="toy",
        generations=(GENERATION.name,),
        load_generation=lambda name: GENERATION,
        recognise=lambda model_id, stated: "toy-one" if (stated or {}).get("model_type") == "toy" else None,
        catalogue_digest=lambda: "7071",
        forms={"rhyme": Form.PROSE},
        class_words={"tiny": 5, "epic": 50},
        sampling={"temperature": 1.0},
        tokens_per_word=2.0,
        chars_per_token=1.0,
        geometry_of=lambda stated: geometry,
        dims=DIMS,
        dims_of=lambda stated: DIMS,
        load_layout=lambda tokenizer, stated, name: Layout(),
        prepare_images=lambda process, geometry, dtype, name: lambda pixels: {"pixel_values": process(pixels)},
        unquantized=(),
        endpoint=EndpointNeeds(chat_template="toy.jinja", messages=openai_messages),
    )


FIXED = FixedSize(32, 48)
