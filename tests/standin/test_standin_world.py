import random
import subprocess
import sys
from collections import Counter

import pytest

from pipeline.standin.draw_picture import encode, random_size, render
from pipeline.standin.world import (
    Color,
    Layout,
    Scene,
    Shape,
    Special,
    is_held_out,
    sample_scene,
)


def test_importing_the_world_does_not_import_torch():
    code = "import pipeline.standin.world, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_about_a_tenth_of_the_triples_is_held_out():
    triples = [Scene(color=c, shape=s, background=b) for c in Color for s in Shape for b in Color if b is not c]
    assert 0.08 < sum(map(is_held_out, triples)) / len(triples) < 0.12


@pytest.mark.parametrize("held_out", [False, True])
def test_a_sampled_scene_is_on_the_requested_side_of_the_split(held_out: bool):
    rng = random.Random(1)
    scenes = [sample_scene(rng, held_out=held_out, special_share=0.3) for _ in range(500)]
    assert {is_held_out(scene) for scene in scenes} == {held_out}


def test_every_sampled_scene_is_consistent():
    rng = random.Random(2)
    for _ in range(2000):
        scene = sample_scene(rng, special_share=0.3)
        assert scene.color is not scene.background
        assert (scene.count == 1) == (scene.layout is Layout.SINGLE)


def test_special_share_is_the_share_of_special_scenes():
    rng = random.Random(3)
    kinds = Counter(sample_scene(rng, special_share=0.4).special for _ in range(4000))
    assert 0.55 < kinds[Special.NONE] / 4000 < 0.65
    assert min(kinds[kind] for kind in Special) > 300


def test_a_picture_depends_on_scene_seed_and_size_only():
    scene = sample_scene(random.Random(4))
    first, again = render(scene, 5), render(scene, 5)
    assert (first.size, first.tobytes()) == (again.size, again.tobytes())
    assert render(scene, 6).tobytes() != first.tobytes()
    assert render(scene, 5, (200, 120)).size == (200, 120)


@pytest.mark.parametrize("special", Special)
def test_every_kind_of_picture_is_rgb_and_of_the_requested_size(special: Special):
    image = render(Scene(special=special), 1, (161, 120))
    assert (image.mode, image.size) == ("RGB", (161, 120))


def test_void_is_pure_black():
    assert render(Scene(special=Special.VOID), 1).getextrema() == ((0, 0),) * 3


def test_the_object_has_its_color_where_the_scene_puts_it():
    image = render(Scene(color=Color.BLUE, shape=Shape.SQUARE), 1, (200, 200))
    red, _, blue = image.getpixel((100, 100))  # pyright: ignore[reportGeneralTypeIssues] RGB
    assert blue > 180 > 60 > red


def test_random_sizes_keep_to_their_bounds():
    rng = random.Random(7)
    for _ in range(1000):
        width, height = random_size(rng, 160, 512)
        assert 160 <= min(width, height) <= max(width, height) <= 512


@pytest.mark.parametrize(("extension", "magic"), [("jpg", b"\xff\xd8\xff"), ("png", b"\x89PNG"), ("webp", b"RIFF")])
def test_encoded_files_have_the_requested_format(extension: str, magic: bytes):
    assert encode(render(Scene(), 1), extension).startswith(magic)
