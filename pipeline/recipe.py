"""A recipe that loads is complete and well typed: unknown keys and wrong types never get past `load`."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import recipe_keys as k
from stages.errors import BadInput
from stages.units import bytes_of

__all__ = ["KEYS", "Recipe", "defaults_text", "from_tables", "load", "parse_bytes", "to_toml"]

KEYS = k.keys()
_ADDRESS = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[^\s:/@]+):[0-9]{1,5}")


@dataclass(frozen=True)
class Recipe:
    """One run, resolved against the defaults.

    `values()` is the flat form stages resolve from; `tables()` the nested form of the TOML file.
    """

    name: str
    dataset: k.Dataset = field(default_factory=k.Dataset)
    graph: k.Graph = field(default_factory=k.Graph)
    features: k.Features = field(default_factory=k.Features)
    partition: k.Partition = field(default_factory=k.Partition)
    batches: k.Batches = field(default_factory=k.Batches)
    order: k.Order = field(default_factory=k.Order)
    hag: k.Hag = field(default_factory=k.Hag)
    train: k.Train = field(default_factory=k.Train)
    soup: k.Soup = field(default_factory=k.Soup)
    infer: k.Infer = field(default_factory=k.Infer)
    resources: k.Resources = field(default_factory=k.Resources)

    def tables(self) -> dict[str, dict[str, Any]]:
        """Section -> key -> value, nested tables as dictionaries, tuples as lists."""
        return {section: json.loads(json.dumps(asdict(getattr(self, section)))) for section in k.SECTIONS}

    def values(self) -> dict[str, Any]:
        """Dotted key -> value; a nested table (`dataset.split`) stands both whole and by its own keys."""
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
        The file is missing or no TOML; a section or key is unknown (the nearest is named); a value has another type.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(p) for p in Path("data").glob("*.toml"))
        fix = f"stockpot run {near[0]}" if near else "stockpot recipe --defaults > data/mine.toml"
        raise BadInput(f"recipe {path}: no such file", fix=fix) from None
    except (OSError, UnicodeDecodeError) as err:
        raise BadInput(f"recipe {path}: cannot be read: {err}", fix="name a TOML file you may read") from None
    except tomllib.TOMLDecodeError as err:
        raise BadInput(f"recipe {path}: expected TOML, found {err}", fix="mend that line") from None
    name = path.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise BadInput(
            f"recipe {path}: expected a file name of letters, digits, '.', '_' and '-', found {name!r}",
            fix=f"mv '{path}' mine.toml",
        )
    return from_tables(name, tables, overrides, where=str(path))


def from_tables(
    name: str, tables: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe"
) -> Recipe:
    """Build a recipe from nested tables; see `load`."""
    merged: dict[str, Any] = {}
    for section, table in tables.items():
        if section not in k.SECTIONS:
            raise _unknown(where, "section", section, k.SECTIONS)
        if not isinstance(table, Mapping):
            raise BadInput(f"{where}: [{section}]: expected a table, found {_found(table)}", fix=_takes(section))
        merged[section] = dict(table)
    for text in overrides:
        _override(merged, text)
    built = {section: _build(cls, section, merged.get(section, {}), where) for section, cls in k.SECTIONS.items()}
    recipe = Recipe(name, **built)
    _resources(recipe.resources)
    return recipe


def _override(tables: dict[str, Any], text: str) -> None:
    dotted, sign, raw = text.partition("=")
    dotted = dotted.strip()
    if not sign or not raw.strip():
        raise BadInput(f"--set {text!r}: expected section.key=value", fix="--set batches.top_k=32")
    if dotted not in KEYS:
        raise _unknown(f"--set {text!r}", "key", dotted, KEYS)
    value: Any
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()  # npz:PATH, test, 2GB: no need to quote a string twice in a shell
    table = tables
    *parents, last = dotted.split(".")
    for part in parents:
        inner = table.get(part, {})
        if not isinstance(inner, Mapping):
            raise BadInput(
                f"--set {text!r}: {part} is {_found(inner)} in the recipe, expected a table", fix=_takes(part)
            )
        table[part] = dict(inner)
        table = table[part]
    table[last] = value


def _build(cls: type, prefix: str, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise BadInput(f"{where}: {prefix}: expected a table, found {_found(table)}", fix=_takes(prefix))
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
    for kind in _alternatives(key.type):
        origin = typing.get_origin(kind)
        if origin is Literal:
            if isinstance(value, str) and value in typing.get_args(kind):
                return value
            if value == math.inf and "inf" in typing.get_args(kind):
                return "inf"  # TOML's own word for it
        elif origin is tuple:
            if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
                return tuple(value)
        elif kind is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        elif kind is not float and type(value) is kind:
            return value
    raise BadInput(f"{where}: {key.name}: expected {key.expected}, found {_found(value)}", fix=_takes(key.name))


def _takes(name: str) -> str:
    return f"change {name}; stockpot recipe --defaults says what it takes"


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _found(value: Any) -> str:
    names = {bool: "the boolean", int: "the integer", float: "the number", str: "the string", list: "the list"}
    return f"{names.get(type(value), 'a ' + type(value).__name__)} {json.dumps(value, default=str)}"


def _unknown(where: str, what: str, name: str, known: Mapping[str, Any]) -> BadInput:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    # A right key in a wrong section is the commonest slip: match on the last part first.
    same = [item for item in known if item.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    best = difflib.get_close_matches(name, same, n=1, cutoff=0.0) or near
    return BadInput(f"{where}: unknown {what} {name}, nearest is {best[0]}", fix="stockpot recipe --defaults")


def _resources(resources: k.Resources) -> None:
    parse_bytes(resources.memory)
    if resources.workers != "auto" and int(resources.workers) < 1:
        raise BadInput(
            f'resources.workers: expected "auto" or at least 1, found {resources.workers}',
            fix=_takes("resources.workers"),
        )
    if resources.scheduler != "local" and not _ADDRESS.fullmatch(resources.scheduler):
        raise BadInput(
            f'resources.scheduler: expected "local" or "tcp://HOST:PORT", found "{resources.scheduler}"',
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
            f'resources.memory: expected "auto", bytes or a size such as "2GB", found {json.dumps(value)}',
            fix="--set resources.memory=2GB",
        )
    return found


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_literal(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, float) and not isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML that loads to the same recipe."""
    lines = [f"# {recipe.name}: every key, resolved against the defaults"]
    for section, table in recipe.tables().items():
        lines += ["", f"[{section}]", *(f"{name} = {_literal(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def defaults_text() -> str:
    """Every key with its default, unit and reason, as TOML."""
    lines = ["# Every recipe key with its default, its unit and the reason for it."]
    for section, table in Recipe("defaults").tables().items():
        lines += ["", f"[{section}]"]
        for name, value in table.items():
            if isinstance(value, dict):
                for inner, leaf in value.items():
                    about = KEYS[f"{section}.{name}.{inner}"].about
                    lines.append(f"{f'{name}.{inner} = {_literal(leaf)}':<32} # {about}")
            else:
                lines.append(f"{f'{name} = {_literal(value)}':<32} # {KEYS[f'{section}.{name}'].about}")
    return "\n".join(lines) + "\n"
