"""Groups the files of a tar or zip into samples: the images, their keys and their texts.

The rules are WebDataset's, made safe for tars that were packed from a folder:

- The key of a file is its path up to the first dot of its base name, the rest is its extension, in
  lower case: `a/x.seg.PNG` is key `a/x`, extension `seg.png`. Folders belong to the key.
- Files of one key are one sample, wherever they lie in the shard, and never with another shard's.
  A second file of the same key and extension begins a new sample of that key.
- A file is an image by the last part of its extension. With a plain extension (`jpg`) it is the
  sample's image, and images with a longer one (`seg.png`) are side files of it: masks, depth maps.
  Several plain ones (`jpg` and `png`) are several images, each a row with that key.
- Without any plain one, each image with a longer extension is a row of its own whose key is the
  full stem: `img.v1.2.jpg` and `img.v1.3.jpg` are the rows `img.v1.2` and `img.v1.3`, each with its
  own `img.v1.2.txt`, which WebDataset would merge into one sample.
- A sample without an image is a row too, with a reason. Ignored are files without an extension,
  hidden files (`.DS_Store`, `._a.jpg`), `__MACOSX/` and `__index__` files: they belong to no sample.
- Images that are not rows (side files and ignored files) are counted and named: `Grouping.left_out`.
- In a folder of images each image is a row, see `pipeline.readers.folder`.
- Rows follow the order of the samples' first files, within a sample the order of its images.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.readers.source_row import NAMED, LeftOut

# More than can be decoded: what Pillow does not read becomes a failed row that names the format.
# fmt: off
IMAGE_EXTENSIONS = frozenset((
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif", "avifs",
    "jp2", "j2k", "jpx", "jpc", "jpf", "mpo", "img", "image", "heic", "heif", "jxl", "ppm", "pgm", "pbm",
    "pnm", "psd", "svg", "eps", "ico", "cur", "tga", "exr", "hdr", "dds", "pcx", "qoi", "raw", "cr2",
    "nef", "arw", "dng",
))
# fmt: on


class Member(NamedTuple):
    """A file of a tar, a zip or a folder."""

    name: str
    """Valid UTF-8; other bytes are backslash escapes, so that different names stay different."""
    offset: int
    """Where its reader finds it: the first byte of its data in a tar, its number among the files of a zip or folder."""
    size: int
    """Bytes, unpacked."""
    fault: str | None = None
    """Why it has no bytes, if so: a hard link to a file that the shard does not hold."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a shard: an image, or none, with the files that belong to it."""

    key: str
    image: Member | None
    texts: Mapping[str, Member]
    """The files that are not images by extension, without the part that is in `key`."""
    sides: Mapping[str, Member] = field(default_factory=dict[str, Member])
    """Masks and other images that are not rows, by extension: `seg.png`."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The rows of a shard, and the files that are in none of them."""

    samples: list[Sample]
    side_images: int
    ignored: int
    left_out: tuple[LeftOut, ...] = ()
    """The images among the side files and ignored files, by reason."""


@dataclass(slots=True)
class _Files:
    key: str
    by_extension: dict[str, Member] = field(default_factory=dict)


def group(members: Iterable[Member], links: Sequence[str] = ()) -> Grouping:
    """Group all files of a shard by the rules above; `links` are names of files without bytes, which are left out."""
    latest: dict[str, _Files] = {}
    groups: list[_Files] = []
    ignored: list[str] = []
    for member in members:
        split = split_name(member.name)
        if split is None:
            ignored.append(member.name)
            continue
        key, extension = split
        files = latest.get(key)
        if files is None or extension in files.by_extension:
            files = latest[key] = _Files(key)
            groups.append(files)
        files.by_extension[extension] = member
    samples: list[Sample] = []
    sides: list[str] = []
    for files in groups:
        new = _samples_of(files)
        samples += new
        rows = {sample.image for sample in new}
        sides += [file.name for name, file in files.by_extension.items() if is_image(name) and file not in rows]
    reasons = ((BESIDE, sides), (HIDDEN, filter(named_as_image, ignored)), (LINKS, filter(named_as_image, links)))
    left_out = tuple(entry for why, names in reasons for entry in left_out_of(why, names))
    return Grouping(samples, len(sides), len(ignored), left_out)


BESIDE = "masks and the like, beside an image of the same name without the middle part"
HIDDEN = "hidden, an index or below __MACOSX"
LINKS = "links or devices inside a tar, which hold no bytes"


def left_out_of(why: str, names: Iterable[str]) -> Iterator[LeftOut]:
    """Yield a record of the files that are left out, if there are any."""
    all_names = list(names)
    if all_names:
        yield LeftOut(why, len(all_names), tuple(all_names[:NAMED]))


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a file, or None for one that belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    # Old packers of Windows write `photos.v1\a.jpg`: the folder belongs to the key and has no extension.
    inner, backslash, base = base.rpartition("\\")
    stem, dot, extension = base.partition(".")
    is_index = len(stem) > 4 and stem.startswith("__") and stem.endswith("__")
    if not stem or not dot or not extension or "__MACOSX" in folder.split("/") or is_index:
        return None
    stem = inner + backslash + stem
    return folder.removeprefix("./") + slash + stem if folder not in (".", "") else stem, extension.lower()


def named_as_image(name: str) -> bool:
    """Whether a file has the name of an image, in any folder."""
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    return bool(dot) and is_image(extension.lower())


def is_image(extension: str) -> bool:
    """Whether an extension is that of an image, by its last part."""
    return extension.rpartition(".")[2] in IMAGE_EXTENSIONS


def _samples_of(files: _Files) -> list[Sample]:
    images = {extension: member for extension, member in files.by_extension.items() if is_image(extension)}
    texts = {extension: member for extension, member in files.by_extension.items() if extension not in images}
    plain = [member for extension, member in images.items() if "." not in extension]
    if plain:
        sides = {extension: member for extension, member in images.items() if "." in extension}
        return [Sample(files.key, member, texts, sides) for member in plain]
    if images:
        return [_dotted(files.key, extension, member, texts) for extension, member in images.items()]
    return [Sample(files.key, None, texts)]


def _dotted(key: str, extension: str, image: Member, texts: Mapping[str, Member]) -> Sample:
    """The row of `img.v1.2.jpg`: its own `img.v1.2.txt` as `txt`, which wins over the `img.txt` of all."""
    middle = extension.rpartition(".")[0] + "."
    own = {name.removeprefix(middle): member for name, member in texts.items() if name.startswith(middle)}
    shared = {name: member for name, member in texts.items() if "." not in name}
    stem = image.name.rpartition("/")[2].rpartition(".")[0]  # as written: extensions are lower case, keys are not
    folder = key.rpartition("/")[0]
    return Sample(f"{folder}/{stem}" if folder else stem, image, shared | own)
