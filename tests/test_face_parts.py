import itertools

import pytest

from diffusion_walkthrough.face_parts import COLOURS, FIGURE, INKS, LAYERS, PARTS, ZONES

SIDE = 16


@pytest.mark.parametrize("rows", [FIGURE.split(), ZONES.split()], ids=["figure", "zones"])
def test_the_figure_and_the_zones_are_whole_images(rows):
    assert len(rows) == SIDE
    assert {len(row) for row in rows} == {SIDE}


def test_the_sheets_are_cut_where_the_parts_end():
    """Each part has a name of its own and rows without gaps, as the layer has room for."""
    assert set(PARTS) == set(LAYERS)
    for layer, parts in PARTS.items():
        assert len(parts) >= 4
        for name, rows in parts.items():
            assert name == name.strip() != ""
            assert {len(row) for row in rows} == {SIDE}
            assert not any(" " in row for row in rows)
            assert 1 <= len(rows) <= SIDE - LAYERS[layer][1]


def test_the_first_sheet_reads_as_it_stands():
    assert [*PARTS["hair"]][:3] == ["bald", "buzz cut", "short"]
    assert PARTS["hair"]["buzz cut"][2] == "....HHHHHHHH...."
    assert PARTS["mouth"]["smile"][1:3] == (".....m....m.....", "......mmmm......")


def test_no_two_parts_of_a_layer_are_drawn_alike():
    for parts in PARTS.values():
        trimmed = ["\n".join(rows).rstrip(".\n") for rows in parts.values()]
        assert len(set(trimmed)) == len(trimmed)


def test_zones_stay_apart_from_the_background():
    """Only hair and hats meet the background: elsewhere the figure has a pixel everywhere."""
    for figure, zone in zip("".join(FIGURE.split()), "".join(ZONES.split()), strict=True):
        assert figure != "." or zone == "h"


def test_each_character_has_one_meaning():
    characters = "".join(letters for letters, _ in COLOURS.values()) + "".join(INKS)
    assert len(set(characters)) == len(characters)
    assert "." not in characters


def all_colours():
    texts = [text for _, values in COLOURS.values() for text in values.values()]
    return [code for text in [*texts, *INKS.values()] for code in text.split()]


def test_each_value_has_a_colour_for_each_character():
    for letters, values in COLOURS.values():
        assert {len(text.split()) for text in values.values()} == {len(letters)}
    assert all(len(bytes.fromhex(code.removeprefix("#"))) == 3 for code in all_colours())


def test_all_colours_differ():
    """So a pixel tells what it shows, and two images are alike only if all that is seen is."""
    pixels = [bytes.fromhex(code[1:]) for code in all_colours()]
    nearest = min(
        sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5
        for a, b in itertools.combinations(pixels, 2)
    )
    assert nearest > 2
