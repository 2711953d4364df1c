"""A recipe that loads is complete and well typed: unknown keys and wrong types never get past
`load`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from stockpot.planning import recipe_keys as k
from stockpot.stages.errors import BadInput
from stockpot.stages.places import local
from stockpot.stages.recipe_key import MOST_LIST
from stockpot.stages.units import MOST_BYTES, bytes_of
from stockpot.stages.value_range import check_text, shown

__all__ = ["KEYS", "Recipe", "defaults_text", "from_tables", "load", "parse_bytes", "to_toml"]

KEYS = k.keys()
MOST_FILE = 2**20
"""Characters of the largest recipe that is read: a recipe is no place for data."""
_MOST_NAME = 100
"""Characters of a key's name up to which the nearest key is looked for."""
_ADDRESS = re.compile(r"(?:tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s:/@]+):[0-9]{1,5}")


@dataclass(frozen=True)
class Recipe:
    """One run, resolved against the defaults.

    `values()` is the flat form stages resolve from; `tables()` the nested form of the TOML file.

    Attributes
    ----------
    name : of the run.
    sections : section -> instance of its dataclass in `SECTIONS`; every section is there.
    """

    name: str
    sections: Mapping[str, Any] = field(
        default_factory=lambda: {name: cls() for name, cls in k.SECTIONS.items()}
    )

    @property
    def resources(self) -> k.Resources:
        """What the run may take; no part of what it computes."""
        resources: k.Resources = self.sections["resources"]
        return resources

    def tables(self) -> dict[str, dict[str, Any]]:
        """Section -> key -> value, nested tables as dictionaries, tuples as lists."""
        return {
            name: json.loads(json.dumps(asdict(section))) for name, section in self.sections.items()
        }

    def values(self) -> dict[str, Any]:
        """Dotted key -> value; a nested table (`dataset.split`) stands both whole and by its own
        keys.
        """
        flat: dict[str, Any] = {}

        def walk(prefix: str, value: Any) -> None:
            flat[prefix] = value
            if isinstance(value, dict):
                for name, inner in value.items():
                    walk(f"{prefix}.{name}", inner)

        for section, table in self.tables().items():
            for name, value in table.items():
                walk(f"{section}.{name}", value)
        return flat


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `--set` overrides.

    Parameters
    ----------
    path : the TOML file; its stem names the run.
    overrides : "section.key=value", value in TOML (a bare word is taken as a string).

    Raises
    ------
    BadInput
        The file is missing or no TOML; a section or key is unknown (the nearest is named); a value
        has another type.
    """
    path = local(path, "recipe")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_FILE + 1)
    except FileNotFoundError:
        raise BadInput(f"recipe {path}: no such file", fix=_another(path)) from None
    except (OSError, ValueError) as err:
        raise BadInput(
            f"recipe {path}: cannot be read: {err}", fix="name a TOML file you may read"
        ) from None
    if len(text) > MOST_FILE:
        raise BadInput(
            f"recipe {path}: expected at most {MOST_FILE} characters, found more",
            fix="name a recipe, not its data",
        )
    try:
        tables = _toml(text)
    except ValueError as err:
        raise BadInput(f"recipe {path}: expected TOML, found {err}", fix="mend that line") from None
    name = path.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise BadInput(
            f"recipe {path}: expected a file name of letters, digits, '.', '_' and '-', found "
            f"{name!r}",
            fix=shlex.join(["mv", str(path), str(path.with_name("mine.toml"))]),
        )
    return from_tables(name, tables, overrides, where=str(path))


def _another(path: Path) -> str:
    """What to name instead of a recipe that is not there: the nearest of its folder and of
    `data`.
    """
    there = {
        p.stem: p
        for folder in (Path("data"), path.parent)
        if folder.is_dir()
        for p in folder.glob("*.toml")
    }
    near = difflib.get_close_matches(path.stem[:_MOST_NAME], there, n=1, cutoff=0.0)
    return f"name {there[near[0]]}" if near else "stockpot recipe --defaults > mine.toml"


def _toml(text: str) -> dict[str, Any]:
    """Tables of a TOML text.

    Raises
    ------
    ValueError
        It is none, or holds what no recipe does: integers of thousands of digits, brackets in
        thousands of brackets.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("brackets too deep in brackets") from None


def from_tables(
    name: str, tables: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe"
) -> Recipe:
    """Build a recipe from nested tables; see `load`."""
    merged: dict[str, Any] = {}
    for section, table in tables.items():
        if section not in k.SECTIONS:
            raise _unknown(where, "section", section, k.SECTIONS)
        if not isinstance(table, Mapping):
            raise BadInput(
                f"{where}: [{section}]: expected a table, found {_found(table)}",
                fix=_as_table(section),
            )
        merged[section] = dict(table)
    for text in overrides:
        _override(merged, text)
    built = {
        section: _build(cls, section, merged.get(section, {}), where)
        for section, cls in k.SECTIONS.items()
    }
    recipe = Recipe(name, built)
    _resources(recipe.resources)
    return recipe


def _override(tables: dict[str, Any], text: str) -> None:
    dotted, sign, raw = text.partition("=")
    dotted, where = dotted.strip(), f"--set {shown(text)}"
    if not sign or not raw.strip():
        raise BadInput(f"{where}: expected section.key=value", fix="--set batches.top_k=32")
    if dotted not in KEYS:
        raise _unknown(where, "key", dotted, KEYS)
    value: Any = raw.strip()  # npz:PATH, test, 2GB: no need to quote a string twice in a shell
    if len(raw) > MOST_FILE:
        raise BadInput(
            f"{where}: expected at most {MOST_FILE} characters, found {len(raw)}",
            fix=KEYS[dotted].fix,
        )
    try:
        if (tables_of := _toml(f"value = {raw}")).keys() == {"value"}:
            value = tables_of["value"]
    except tomllib.TOMLDecodeError:
        pass
    except ValueError as err:
        raise BadInput(
            f"{where}: expected {KEYS[dotted].expected}, found {err}", fix=KEYS[dotted].fix
        ) from None
    table = tables
    *parents, last = dotted.split(".")
    for part in parents:
        inner = table.get(part, {})
        if not isinstance(inner, Mapping):
            raise BadInput(
                f"{where}: {part} is {_found(inner)} in the recipe, expected a table",
                fix=_as_table(part),
            )
        table[part] = dict(inner)
        table = table[part]
    table[last] = value


def _build(cls: type, prefix: str, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise BadInput(
            f"{where}: {prefix}: expected a table, found {_found(table)}", fix=_as_table(prefix)
        )
    hints = k.section_types(cls)
    values: dict[str, Any] = {}
    for name in table:
        if name not in hints:
            raise _unknown(where, "key", f"{prefix}.{name}", KEYS)
    for item in fields(cls):
        name = f"{prefix}.{item.name}"
        if is_dataclass(item.default):
            values[item.name] = _build(type(item.default), name, table.get(item.name, {}), where)
        elif item.name in table:
            values[item.name] = _typed(table[item.name], KEYS[name], where)
    return cls(**values)


def _typed(value: Any, key: k.Key, where: str) -> Any:
    """A value of the key's type and within its range; the only place where either is checked."""
    for kind in _alternatives(key.type):
        origin = typing.get_origin(kind)
        if origin is Literal:
            if isinstance(value, str) and value in typing.get_args(kind):
                return value
            if isinstance(value, float) and value == math.inf and "inf" in typing.get_args(kind):
                return "inf"  # TOML's own word for it
        elif origin is tuple:
            if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
                _within(value, key, where)
                return tuple(value)
        elif kind is float and (
            type(value) is int or (type(value) is float and math.isfinite(value))
        ):
            _within(value, key, where)
            return float(value)
        elif kind is not float and type(value) is kind:
            _within(value, key, where)
            return value
    raise BadInput(
        f"{where}: {key.name}: expected {key.expected}, found {_found(value)}", fix=key.fix
    )


def _within(value: Any, key: k.Key, where: str) -> None:
    """Refuse a number out of the key's range, a list too long, a text that can name nothing."""
    if isinstance(value, str):
        check_text(key.name, value, where)
        return
    several = isinstance(value, (list, tuple))
    if several and not 1 <= len(value) <= MOST_LIST:
        raise BadInput(
            f"{where}: {key.name}: expected {key.range}, found {len(value)} of them", fix=key.fix
        )
    numbers = value if several else [value]
    if (
        key.within is not None
        and type(value) is not bool
        and (bad := [n for n in numbers if n not in key.within])
    ):
        raise BadInput(
            f"{where}: {key.name}: expected {key.range}, found {shown(bad[0])}", fix=key.fix
        )


def _as_table(name: str) -> str:
    return f"write it as a table: [{name}] in a line of its own, and its keys below"


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _found(value: Any) -> str:
    names = {
        bool: "the boolean",
        int: "the integer",
        float: "the number",
        str: "the string",
        list: "the list",
    }
    return f"{names.get(type(value), 'a ' + type(value).__name__)} {shown(value)}"


def _unknown(where: str, what: str, name: str, known: Mapping[str, Any]) -> BadInput:
    name = name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}…"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    # A right key in a wrong section is the commonest slip: match on the last part first.
    same = [item for item in known if item.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    best = difflib.get_close_matches(name, same, n=1, cutoff=0.0) or near
    plain = name if name.isprintable() else shown(name)
    return BadInput(
        f"{where}: unknown {what} {plain}, nearest is {best[0]}", fix="stockpot recipe --defaults"
    )


def _resources(resources: k.Resources) -> None:
    parse_bytes(resources.memory)
    address = resources.scheduler
    if address != "local" and not (
        _ADDRESS.fullmatch(address) and 0 < int(address.rpartition(":")[2]) < 2**16
    ):
        raise BadInput(
            f'resources.scheduler: expected "local" or "tcp://HOST:PORT", found {shown(address)}',
            fix="--scheduler tcp://HOST:8786, where `dask scheduler` runs",
        )


def parse_bytes(value: int | str) -> int | None:
    """Bytes of "2GB", "512MiB" or a number; None for "auto".

    >>> parse_bytes("2GB")
    2000000000
    """
    if value == "auto":
        return None
    found = bytes_of(str(value))
    if found is None:
        raise BadInput(
            f'resources.memory: expected "auto", or 1 to {MOST_BYTES} bytes, also as a size such '
            f'as "2GB", '
            f"found {shown(value)}",
            fix="--set resources.memory=2GB",
        )
    return found


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{name} = {_literal(inner)}" for name, inner in value.items()) + " }"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, float) and not isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML that loads to the same recipe."""
    lines = [f"# {recipe.name}: every key, resolved against the defaults"]
    for section, table in recipe.tables().items():
        lines += [
            "",
            f"[{section}]",
            *(f"{name} = {_literal(value)}" for name, value in table.items()),
        ]
    return "\n".join(lines) + "\n"


def defaults_text() -> str:
    """Every key with its default, unit, reason and range, as TOML."""
    lines = [
        "# Every recipe key with its default, its unit, the reason for it and the numbers it takes."
    ]
    for section, table in Recipe("defaults").tables().items():
        lines += ["", f"[{section}]"]
        for name, value in table.items():
            if isinstance(value, dict):
                for inner, leaf in value.items():
                    about = KEYS[f"{section}.{name}.{inner}"].line
                    lines.append(f"{f'{name}.{inner} = {_literal(leaf)}':<32} # {about}")
            else:
                lines.append(
                    f"{f'{name} = {_literal(value)}':<32} # {KEYS[f'{section}.{name}'].line}"
                )
    return "\n".join(lines) + "\n"
