"""Frozen dataclasses as dictionaries of plain values, there and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, TypeAlias, TypeVar

from diffusion_walkthrough import checks

_R = TypeVar("_R", bound="Record")

#: Field by field, the version of the files that has it first, and what those before it meant.
Additions: TypeAlias = dict[str, tuple[int, object]]


@dataclasses.dataclass(frozen=True)
class Record:
    """What dataclasses share whose values are checked when they are made, and kept in files."""

    # The fields that are records themselves.
    _nested: ClassVar[dict[str, type[Record]]] = {}
    _added_later: ClassVar[Additions] = {}
    # Fields that files hold only if they differ from their default: files without stay as they are.
    _only_if_used: ClassVar[tuple[str, ...]] = ()

    def _check(self, name: str, checker: Callable[..., object], *rule: Any) -> None:
        """Put the value of a field into its normal form; ``checker`` raises if it has none."""
        object.__setattr__(self, name, checker(name, getattr(self, name), *rule))

    def _refuse(self, name: str, rule: str, remedy: str) -> NoReturn:
        """Raise ValueError for the value of a field, naming the rule and the remedy."""
        raise ValueError(checks.message(name, getattr(self, name), rule, remedy))

    def _check_nested(self) -> None:
        """Raise TypeError for a field that should be a record and is not."""
        for name, kind in self._nested.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                rule = f"{name} must be a {kind.__name__}"
                remedy = f"Write {name}={kind.__name__}(...), or use from_dict for a dictionary"
                raise TypeError(checks.message(name, value, rule, remedy))

    def to_dict(self) -> dict[str, Any]:
        """All values as a dictionary of plain ones (tuples as lists), as JSON has them."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in self._only_if_used or value != field.default:
                values[field.name] = value.to_dict() if isinstance(value, Record) else value
        return json.loads(json.dumps(values))

    @classmethod
    def from_dict(cls: type[_R], values: Mapping[str, Any], version: int | None = None) -> _R:
        """Read what ``to_dict`` wrote; checks names and values again.

        Args:
            values: the dictionary.
            version: of the files that it comes from: what that version did not have yet may be
                missing. None is the present one, which has everything.

        Raises:
            TypeError: for anything but a dictionary.
            ValueError: for an unknown key (naming the nearest known one), or a missing key.
        """
        if version is not None and isinstance(values, Mapping):
            later = cls._added_later.items()
            meant = {name: value for name, (first, value) in later if version < first}
            values = {**meant, **values}
        fields = dataclasses.fields(cls)
        if isinstance(values, Mapping):
            unused = {field.name: field.default for field in fields}
            values = {**{name: unused[name] for name in cls._only_if_used}, **values}
        checks.keys(cls.__name__, values, [field.name for field in fields])
        nested = {name: kind.from_dict(values[name], version) for name, kind in cls._nested.items()}
        return cls(**{**values, **nested})

    def __str__(self) -> str:
        return "\n".join([type(self).__name__, *_lines(self.to_dict(), indent=2)])


def _lines(values: Mapping[str, Any], indent: int) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [" " * indent + name, *_lines(value, indent + 2)]
        else:
            lines.append(" " * indent + f"{name} = {value}")
    return lines
