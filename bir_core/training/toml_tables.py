"""TOML tables as frozen dataclasses. Every key is checked, so that a misspelt one is an error and
not a silent default."""

import difflib
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import BIRError

T = TypeVar("T")


def require(condition: bool, expected: str, came: object) -> None:
    """Raise BIRError unless a value of a recipe is as it should be.

    Args:
        expected: what the recipe should have, as the object of a sentence.
        came: the value that it has.
    """
    if not condition:
        raise BIRError(f"The recipe should have {expected}, but {came!r} came; correct the value.")


def to_table(dataclass_value: Any) -> dict[str, Any]:
    """Nested dictionaries with every value of a dataclass spelt out, except those that are None."""
    table: dict[str, Any] = _without_none(asdict(dataclass_value))
    return table


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The table that a TOML text holds.

    Args:
        name: of the text, for the error.

    Raises:
        BIRError: the text is no TOML, or Python 3.10 lacks its reader.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise BIRError(
                "Reading a recipe on Python 3.10 should find the package tomli, but it is absent; "
                "install the extra: pip install comfyui-bir[train]."
            ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BIRError(
            f"Expected TOML in {name}, but it cannot be read ({error}); correct that line."
        ) from error


def apply_change(table: dict[str, Any], change: str) -> None:
    """Set a value of a table in place.

    Args:
        change: `key=value`, the key dotted, the value as TOML; a text needs no quotes.

    Raises:
        BIRError: no equals sign, or a key below something that is no table.
    """
    key, equals, text = change.partition("=")
    if not equals:
        raise BIRError(f"A change should read key=value, but {change!r} came; add the value.")
    try:
        value = parse_toml(f"value = {text}", change)["value"]
    except BIRError:
        value = text  # a text without quotes
    *parents, last = key.strip().split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise BIRError(f"A change should name a key of a table, but {parent} in {key} is none.")
        table = inner
    table[last] = value


def from_table(kind: type[T], table: Any, where: str) -> T:
    """A dataclass from a dictionary of its fields; the inverse of `to_table`.

    A field may be a number, a text, a Literal, a tuple, a dictionary, a dataclass, or a union of
    dataclasses that a key `kind` tells apart.

    Args:
        where: name of the table, for errors.

    Raises:
        BIRError: an unknown or an absent key, or a value of a wrong type.
    """
    if not isinstance(table, Mapping):
        raise BIRError(f"Expected a table of keys for {where}, but {table!r} came; correct it.")
    types_of = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
            guess = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}."
            raise BIRError(f"The {where} has an unknown key {key}; {guess}")
    for name, field in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise BIRError(f"The {where} should have the key {name}, but it is absent; add it.")
    values = {key: _convert(types_of[key], value, f"{where}.{key}") for key, value in table.items()}
    return kind(**values)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A TOML value as the type of its field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return from_table(kind, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(
            [part for part in arguments if part is not types.NoneType], value, where
        )
    if origin is Literal:
        if value not in arguments:
            raise BIRError(
                f"Expected one of {arguments} for {where}, but {value!r} came; choose one."
            )
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        return _convert_dictionary(arguments[1], value, where)
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise BIRError(
            f"Expected a value of type {kind.__name__} for {where}, but {value!r} came; correct it."
        )
    return value


def _convert_union(members: list[Any], value: Any, where: str) -> Any:
    if len(members) == 1:
        return _convert(members[0], value, where)
    if not all(is_dataclass(member) for member in members):
        # A number, or a range of them.
        listed = isinstance(value, list | tuple)
        fitting = [member for member in members if (get_origin(member) is tuple) == listed]
        return _convert(fitting[0] if fitting else members[0], value, where)
    by_kind = {member.kind: member for member in members}
    chosen = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(chosen, str) or chosen not in by_kind:
        raise BIRError(
            f"Expected a `kind` out of {', '.join(by_kind)} for {where}, but {chosen!r} came; "
            "choose one."
        )
    return from_table(by_kind[chosen], value, where)


def _convert_dictionary(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BIRError(f"Expected a table of names for {where}, but {value!r} came; correct it.")
    return {name: _convert(kind, item, f"{where}.{name}") for name, item in value.items()}


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise BIRError(f"Expected a list for {where}, but {value!r} came; write [a, b, ...].")
    if arguments[-1] is Ellipsis:
        return tuple(_convert(arguments[0], item, where) for item in value)
    if len(value) != len(arguments):
        raise BIRError(
            f"Expected {len(arguments)} values for {where}, but {len(value)} came; "
            "correct the list."
        )
    return tuple(_convert(kind, item, where) for kind, item in zip(arguments, value, strict=True))
