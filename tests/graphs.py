"""Small seeded graphs with communities, written as the npz a user would bring, with a recipe beside
it."""

from pathlib import Path

import numpy as np

RECIPE = """
[dataset]
source = "npz:{npz}"
split = {{ train = 0.5, valid = 0.25, seed = 0 }}
[batches]
outputs = {outputs}
mix = 4
[train]
model = "{model}"
layers = 2
hidden = {hidden}
lr = 1e-2
epochs = {epochs}
patience = {epochs}
ingredients = {ingredients}
schedule = "cosine"
[resources]
workers = {workers}
"""


def community_arrays(nodes=600, classes=4, degree=6, features=16, seed=0, binary=False):
    """Planted communities: 80 % of the edges inside a class, noisy class features."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, nodes)
    source = rng.integers(0, nodes, nodes * degree // 2)
    by_class = [np.flatnonzero(y == c) for c in range(classes)]
    inside = rng.random(len(source)) < 0.8
    target = np.where(
        inside, [rng.choice(by_class[y[s]]) for s in source], rng.integers(0, nodes, len(source))
    )
    centres = rng.normal(size=(classes, features))
    x = centres[y] + 2.0 * rng.normal(size=(nodes, features))
    x = (x > 0).astype(np.float32) if binary else x.astype(np.float32)
    return {
        "edge_index": np.stack([source, target]).astype(np.int32),
        "num_nodes": np.int64(nodes),
        "x": x,
        "y": y.astype(np.int64),
    }


def write_npz(path, **changes):
    arrays = community_arrays(
        **{
            k: v
            for k, v in changes.items()
            if k in {"nodes", "classes", "degree", "features", "seed", "binary"}
        }
    )
    arrays.update(changes.get("replace", {}))
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return Path(path)


def write_recipe(
    folder,
    name="tiny",
    *,
    model="gcn",
    hidden=16,
    epochs=4,
    ingredients=2,
    outputs=64,
    workers=2,
    extra="",
    **graph,
):
    """`folder/name.toml` and its graph; returns the recipe's path."""
    folder = Path(folder)
    npz = write_npz(folder / f"{name}.npz", **graph)
    text = RECIPE.format(
        npz=npz,
        model=model,
        hidden=hidden,
        epochs=epochs,
        ingredients=ingredients,
        outputs=outputs,
        workers=workers,
    )
    recipe = folder / f"{name}.toml"
    recipe.write_text(text + extra)
    return recipe
