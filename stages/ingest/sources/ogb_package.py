"""The parts of the package ogb that are used: its table of data sets, its downloader and its
evaluator.

They are loaded from their files. Importing the package itself would import torch_geometric for the
table of urls, and start a thread that asks the network for a newer version.
"""

from __future__ import annotations

import csv
import importlib.util
import warnings
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["downloader", "evaluator", "published"]


def published(name: str) -> Mapping[str, str]:
    """What ogb's table says of a data set: url, download_name, eval metric, ..."""
    with (_folder() / "nodeproppred" / "master.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    column = rows[0].index(name)
    return {row[0]: row[column] for row in rows[1:]}


@cache
def downloader() -> Any:
    """The module with `download_url` and `extract_zip`, both (what, folder, log); bars on terminals
    alone.
    """
    module: Any = _module("utils/url.py")
    module.tqdm = partial(module.tqdm, disable=None)
    return module


def evaluator(name: str) -> Any:
    """The official evaluator of a data set: `eval({"y_true": i8[n, 1], "y_pred": i8[n, 1]})` and
    `eval_metric`.
    """
    with warnings.catch_warnings(action="ignore"):  # of pandas and scikit-learn, about each other
        module: Any = _module("nodeproppred/evaluate.py")
    return module.Evaluator(name)


def _folder() -> Path:
    spec = importlib.util.find_spec("ogb")  # finds a package without importing it
    if spec is None or spec.origin is None:
        raise BadInput("ogb: expected this package, found none installed", fix="pip install ogb")
    return Path(spec.origin).parent


def _module(file: str) -> ModuleType:
    path = _folder() / file
    spec = importlib.util.spec_from_file_location(f"stockpot_ogb_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(
            f"{path}: expected a module of ogb, found none", fix="pip install --force-reinstall ogb"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
