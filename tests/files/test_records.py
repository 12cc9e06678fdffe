"""Records become dictionaries of plain values and come back, checked each time."""

import dataclasses
from typing import ClassVar

import pytest

from diffusion_walkthrough import checks
from diffusion_walkthrough.files.records import Additions, Record


@dataclasses.dataclass(frozen=True)
class Inner(Record):
    sizes: tuple[int, ...] = (1, 2)
    later: int = 7

    _added_later: ClassVar[Additions] = {"later": (2, 5)}

    def __post_init__(self):
        self._check("sizes", checks.integers)


@dataclasses.dataclass(frozen=True)
class Outer(Record):
    inner: Inner
    name: str = "x"

    _nested: ClassVar[dict[str, type[Record]]] = {"inner": Inner}

    def __post_init__(self):
        self._check_nested()


def test_there_and_back_through_plain_values():
    record = Outer(Inner(sizes=[3, 4]), name="y")
    assert record.inner.sizes == (3, 4)
    assert record.to_dict() == {"inner": {"sizes": [3, 4], "later": 7}, "name": "y"}
    assert Outer.from_dict(record.to_dict()) == record


def test_what_a_version_did_not_have_yet_means_what_it_meant():
    old = {"inner": {"sizes": [1]}, "name": "x"}
    assert Outer.from_dict(old, version=1).inner.later == 5
    with pytest.raises(ValueError, match="later"):
        Outer.from_dict(old, version=2)
    with pytest.raises(ValueError, match="later"):
        Outer.from_dict(old)


def test_an_unknown_key_and_a_wrong_kind_are_named():
    with pytest.raises(ValueError, match="Did you mean 'name'"):
        Outer.from_dict({"inner": Inner().to_dict(), "naam": "x"})
    with pytest.raises(TypeError, match="inner must be a Inner"):
        Outer(inner={"sizes": [1]})


def test_its_text_has_a_line_for_each_value():
    assert str(Outer(Inner())).splitlines() == [
        "Outer", "  inner", "    sizes = [1, 2]", "    later = 7", "  name = x",
    ]  # fmt: skip
