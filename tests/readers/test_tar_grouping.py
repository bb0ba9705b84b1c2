"""Grouping against a model that follows the written rules one file at a time, slowly and without sharing code."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.readers.grouping import Member, group

STEMS = st.sampled_from(["a", "b", "x/a", "x.y/a", "A"])
EXTENSIONS = st.sampled_from(["jpg", "JPG", "png", "txt", "json", "v1.jpg", "v1.2.png", "v1.txt", "mask.PNG"])
NAMES = st.one_of(
    st.builds("{}.{}".format, STEMS, EXTENSIONS), st.sampled_from(["README", ".x.jpg", "__MACOSX/a.jpg", "x/y"])
)


def model(names: list[str]) -> list[tuple[str, str | None]]:
    """(key, name of the image) of each row."""
    samples: list[tuple[str, list[str]]] = []
    for name in names:
        base = name.split("/")[-1]
        if base.startswith(".") or "." not in base or "__MACOSX" in name:
            continue
        key = name[: len(name) - len(base)] + base.split(".")[0]
        of_key = [files for other, files in samples if other == key]
        if not of_key or name.lower() in [other.lower() for other in of_key[-1]]:
            samples.append((key, [name]))
        else:
            of_key[-1].append(name)
    rows: list[tuple[str, str | None]] = []
    for key, files in samples:
        images = [name for name in files if name.lower().endswith((".jpg", ".png"))]
        plain = [name for name in images if name.split("/")[-1].count(".") == 1]
        if plain:
            rows += [(key, name) for name in plain]
        elif images:
            rows += [(name[:-4], name) for name in images]
        else:
            rows.append((key, None))
    return rows


@given(st.lists(NAMES, max_size=25))
def test_grouping_follows_the_written_rules(names):
    members = [Member(name, number, 0) for number, name in enumerate(names)]

    grouping = group(members)

    result = [(sample.key, sample.image.name if sample.image else None) for sample in grouping.samples]
    assert result == model(names)


@given(st.lists(NAMES, max_size=25))
def test_every_image_has_one_place(names):
    members = [Member(name, number, 0) for number, name in enumerate(names)]

    grouping = group(members)

    images = [sample.image for sample in grouping.samples if sample.image]
    assert len(set(images)) == len(images)
    in_samples = [member for member in members if group([member]).samples]
    assert len(in_samples) + grouping.ignored == len(members)
    num_images = sum(member.name.lower().endswith((".jpg", ".png")) for member in in_samples)
    assert len(images) + grouping.side_images == num_images
