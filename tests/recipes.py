"""Recipes as mistyped as can be: for every key what it takes, the ends of its range, and what it
never takes."""

import json
import random
import typing

from stockpot.planning.recipe import KEYS, from_tables
from stockpot.planning.recipe_keys import SECTIONS

__all__ = ["SMALL", "literal", "recipe_text", "small_recipe", "with_values"]

ODD = (
    "0",
    "-1",
    "1",
    "2",
    "7",
    "-0",
    "0.0",
    "-0.0",
    "0.5",
    "1.0",
    "1e-5",
    "2e-300",
    "5e-324",
    "1e308",
    "1e309",
    "nan",
    "inf",
    "-inf",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "-9223372036854775809",
    "9" * 10_000,
    "0x" + "f" * 5000,
    "1" + "0" * 400 + ".5",
    "1_000",
    "true",
    "false",
    '""',
    '" "',
    '"auto"',
    '"inf"',
    '"none"',
    '"0"',
    '"-1"',
    '"1e400GB"',
    '"' + "9" * 500 + 'GB"',
    '"0.0000001B"',
    '"2GB"',
    '"10%"',
    '"1e9%"',
    '"nan%"',
    '"' + "x" * 5000 + '"',
    '"' + "x/" * 2000 + '"',
    '"' + "x/" * 500 + '"',
    '"' + "x" * 1000 + '"',
    '"a\\u0000b"',
    '"\\u001b[2J"',
    '"ünï"',
    '"\\n"',
    '"../../x"',
    '"/dev/null"',
    '"."',
    '"a:b"',
    '":"',
    '"os:system"',
    '"npz:"',
    '"npz:."',
    '"files:."',
    '"pyg:X/Y"',
    '"ogb:none"',
    '"synthetic:communities?nodes=1e99"',
    '"synthetic:"',
    '"sq3"',
    '"pq999999"',
    '"rq33"',
    '"bifeat-vq1-1"',
    '"cuda:99999999999999999999"',
    '"tcp://h:99999"',
    "[]",
    "[1]",
    "[1, 2, 3]",
    "[0]",
    "[-1, -1, -1]",
    "[1.5]",
    '["1"]',
    "[[1]]",
    "[" * 50_000,
    "[" * 300 + "]" * 300,
    "[" + "1, " * 100_000 + "1]",
    "[9223372036854775808]",
    "{}",
    "{ a = 1 }",
    "1979-05-27",
    "07:32:00",
    "",
    "= =",
    "'",
    '"""',
    "3 # and a word",
    "1\nseed = 2",
)
"""Values in TOML, or what is none."""


def literal(value):
    return "true" if value is True else "false" if value is False else json.dumps(value)


def inside(key, draw):
    """A value that the key's type and range take; what else the recipe says may still forbid it."""
    origin = typing.get_origin(key.type)
    kinds = (
        [key.type] if origin in (typing.Literal, tuple, None) else list(typing.get_args(key.type))
    )
    kind = draw.choice(kinds)
    if typing.get_origin(kind) is typing.Literal:
        return literal(draw.choice(typing.get_args(kind)))
    if kind is bool:
        return draw.choice(("true", "false"))
    if kind is str or key.within is None:
        return literal(key.default)
    within = key.within
    if typing.get_origin(kind) is tuple:
        return literal(
            [
                draw.choice([-1, 1, 2, within.most, draw.randint(1, 20)])
                for _ in range(draw.randint(1, 64))
            ]
        )
    if kind is int:
        few = draw.randint(int(within.least), min(int(within.most), int(within.least) + 20))
        least, most = int(within.least), int(within.most)
        return literal(draw.choice([least, most, few, draw.randint(least, most)]))
    ends = [
        end
        for end, closed in ((within.least, within.above), (within.most, within.below))
        if not closed
    ]
    return literal(float(draw.choice([*ends, draw.uniform(within.least, within.most) or 0.5])))


def recipe_text(seed, source):
    """(TOML text, list of --set overrides) of recipe `seed`: one to four keys with values as likely
    wrong as right."""
    draw = random.Random(seed)
    names = list(KEYS)
    chosen = [
        names[seed % len(names)],
        *draw.sample(names, draw.randint(0, 3)),
    ]  # every key in its turn
    pairs = {}
    for name in chosen:
        pairs[name] = draw.choice(ODD) if draw.random() < 0.5 else inside(KEYS[name], draw)
    if "dataset.source" not in pairs:
        pairs["dataset.source"] = literal(source)
    sets = {name for name in pairs if name != "dataset.source" and draw.random() < 0.4}
    lines = [f"{name} = {value}" for name, value in pairs.items() if name not in sets]
    if draw.random() < 0.05:
        text = "\n".join(lines)
        at = draw.randrange(len(text))
        lines = [text[:at] + draw.choice("\0\x7f[]{}\"'=\n\\") + text[at + 1 :]]
    if draw.random() < 0.03:
        nested = (
            "[" * 40_000,
            "[x" + ".y" * 3000 + "]\nz = 1",
            "a" * 100_000 + " = 1",
            "train = 3",
        )
        lines.append(draw.choice((*nested, f"[{draw.choice(list(SECTIONS))}s]")))
    return "\n".join(lines) + "\n", [f"{name}={pairs[name]}" for name in sorted(sets)]


SMALL = {
    "dataset.split.seed": [0, 2**63 - 1],
    "dataset.split.train": [0.3, 0.6],
    "graph.undirected": [True, False],
    "graph.self_loops": [True, False],
    "graph.normalization": ["sym", "rw", "none"],
    "graph.mass": ["none", "row"],
    "features.reduce": [0, 3],
    "features.propagate": ["auto", 0, 1, 8],
    "features.propagate_by": ["auto", "mean", "norm", "ppr"],
    "features.codec": ["auto", "fp32", "fp16", "sq8", "pq2", "rq2"],
    "features.max_accuracy_drop": [0.0, 1.0],
    "features.layout": ["auto", "packed", "gather"],
    "partition.method": ["auto", "metis", "stream"],
    "partition.parts": ["auto", 1, 10**7],
    "batches.method": ["node", "batch", "cluster", "random", "neighbor", "labor", "propagate"],
    "batches.alpha": [0.001, 0.25, 0.999],
    "batches.eps": [1e-12, 2e-4, 0.999],
    "batches.top_k": [1, 16, 10**6],
    "batches.outputs": ["auto", 1, 2**31 - 1],
    "batches.mix": ["auto", 1, 10**6],
    "batches.rounds": [1, 3],
    "batches.aux_ratio": [1e-6, 3.0, 1e6],
    "batches.aux_mass": [0.0, 0.5, 1.0],
    "batches.fanouts": [[10, 10, 10], [-1, 1, 10**6]],
    "batches.kappa": [1, 10**6, "inf"],
    "batches.layer_dependency": [True, False],
    "batches.seeds": ["random", "community"],
    "order.method": ["label", "sample", "overlap", "shuffle"],
    "order.window": [0, 2, 10**9],
    "order.mix": [1, 10**6],
    "hag.enabled": ["auto", "always", "never"],
    "hag.capacity": ["auto", 0, 1000],
    "train.model": ["gcn", "sage", "gat", "gin", "sgc", "sign"],
    "train.per_step": [1, 10**6],
    "train.layers": [1, 3],
    "train.dropout": [0.0, 0.99],
    "train.lr": [1e-12, 1e-3, 0.1],
    "train.weight_decay": [0.0, 1.0],
    "train.schedule": ["plateau", "cosine", "constant"],
    "train.patience": [1, 10**9],
    "train.ingredients": [1, 3],
    "train.validate": ["auto", 1e-6, 0.5, 1],
    "train.warmup": [0, 1],
    "train.vary": [1.0, 10.0],
    "train.ema": [0.0, 0.999],
    "train.seed": [0, 2**63 - 1],
    "soup.method": ["auto", "best", "uniform", "greedy", "gis", "learned"],
    "soup.holdout": [0.0, 0.5],
    "student.teacher": ["auto", "soup", "ensemble"],
    "student.hops": [0, 3],
    "student.neighbours": [True, False],
    "student.hidden": [1, 64],
    "student.epochs": [1, 3],
    "student.dropout": [0.0, 0.99],
    "student.noise": [0.0, 100.0],
    "infer.by": ["records", "student"],
    "infer.split": ["test", "all"],
    "infer.top_k": [0, 10**6],
    "infer.full_graph": [True, False],
}
"""Values from end to end of a key's range that a graph of a hundred nodes is trained with in a
second."""


def small_recipe(seed, source):
    """TOML text of recipe `seed`, two epochs long: every key of `SMALL` at one of its values, or
    left out."""
    draw = random.Random(seed)
    values = {name: draw.choice(choices) for name, choices in SMALL.items() if draw.random() < 0.35}
    values.setdefault("soup.method", "best")
    values |= {
        "dataset.source": source,
        "train.epochs": 2,
        "train.hidden": 8,
        "train.heads": 2,
        "train.device": "cpu",
    }
    return "".join(f"{name} = {literal(value)}\n" for name, value in values.items())


def with_values(recipe, values):
    """The recipe with other values of some dotted keys of its sections."""
    tables = recipe.tables()
    for name, value in values.items():
        section, key = name.split(".")
        tables[section][key] = value
    return from_tables(recipe.name, tables)
