"""What `pip install` of a wheel gives: the command, its version, and the embedded graph, from any
folder."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from stockpot.cli import main
from stockpot.stages.ingest import source
from tests.graphs import write_recipe

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"stockpot {metadata.version('stockpot')}\n"


def test_a_package_index_can_show_what_it_is():
    assert len(PROJECT["description"]) < 512
    assert "graph neural networks" in PROJECT["keywords"]
    assert "Programming Language :: Python :: 3.11" in PROJECT["classifiers"]
    assert not [
        name for name in PROJECT["classifiers"] if name.startswith("License ")
    ]  # for the owner to choose
    assert len(set(PROJECT["classifiers"])) == len(PROJECT["classifiers"])


def test_the_embedded_graph_is_found_where_an_installation_put_it(tmp_path, monkeypatch):
    installed = tmp_path / "prefix/share/stockpot/wordnet.npz"
    installed.parent.mkdir(parents=True)
    installed.write_bytes(b"")

    class File:
        name = "wordnet.npz"

        def locate(self):
            return installed

    monkeypatch.setattr(source.metadata, "files", lambda _name: [File()])
    assert source._embedded(ROOT) == ROOT / "data/wordnet.npz"
    assert source._embedded(tmp_path / "site-packages/stockpot") == installed
    target = tmp_path / "target/share/stockpot/wordnet.npz"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"")
    assert source._embedded(tmp_path / "target/stockpot") == target
    monkeypatch.setattr(source.metadata, "files", lambda _name: None)
    assert (
        source._embedded(tmp_path / "none") == tmp_path / "none/data/wordnet.npz"
    )  # for the error that names it


SCRIPT = """
import os, sys, pipeline, stages, stockpot
from stockpot import open_batches
outputs = sum(batch.batch_size for batch in open_batches("runs/tiny", layers=2))
print(pipeline.MINE + stages.MINE, outputs)
mine = [name for name in sys.modules if name.startswith(("pipeline.", "stages."))]
print(mine, os.path.dirname(stockpot.__file__))
"""


def test_all_folders_of_files_are_packages_that_an_install_brings():
    """Explicit lists are the only way to map two folders to one package, and easily left behind."""
    found = {"stockpot", "stockpot.stages"}
    for folder, prefix in (("pipeline", "stockpot"), ("stages", "stockpot.stages")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            found.add(".".join((prefix, *parts)))
            assert (path.parent / "__init__.py").exists()
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted(found)


def test_no_module_is_loaded_under_two_names():
    assert not [name for name in sys.modules if name.split(".")[0] in ("pipeline", "stages")]
    loaded = [
        m
        for name, m in list(sys.modules.items())
        if name.split(".")[0] == "stockpot" and name != "stockpot"
    ]
    files = [os.path.realpath(m.__file__) for m in loaded if getattr(m, "__file__", None)]
    assert len(files) == len(set(files)) > 3
    elsewhere = {os.path.realpath(m.__file__ or "") for name, m in list(sys.modules.items())
                 if name.split(".")[0] != "stockpot" and getattr(m, "__file__", None)}  # fmt: skip
    assert not elsewhere & set(files)


@pytest.mark.long
def test_a_wheel_serves_beside_files_of_a_user_s_own(tmp_path):
    tree = tmp_path / "tree"
    skip = shutil.ignore_patterns("__pycache__", "downloads")
    for name in ("pipeline", "stages", "data"):
        shutil.copytree(ROOT / name, tree / name, ignore=skip)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(tree),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("stockpot-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    assert [name for name in names if name.endswith("share/stockpot/wordnet.npz")]
    assert [name for name in names if name.endswith("share/stockpot/WORDNET-LICENSE")]
    home = tmp_path / "home"
    venv.create(home)
    subprocess.run(
        [
            *pip,
            "--python",
            str(home / "bin/python"),
            "install",
            "--no-deps",
            "--no-index",
            str(wheel),
        ],
        check=True,
    )
    (site,) = home.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(
        f"{Path(np.__file__).parents[1]}\n"
    )  # the libraries it needs, not installed twice
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "mine.toml").write_text('[dataset]\nsource = "wordnet"\n')
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [home / "bin/stockpot", "plan", "mine.toml", "ingest", "split"]
    done = subprocess.run(
        command, cwd=empty, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ingest" in done.stdout
    version = subprocess.run(
        [home / "bin/stockpot", "--version"], cwd=empty, env=clean, capture_output=True, check=True
    )
    assert version.stdout.decode() == f"stockpot {PROJECT['version']}\n"
    # What lies in the working folder under our folders' names is the user's.
    write_recipe(empty, nodes=300, ingredients=1)
    (empty / "pipeline.py").write_text("MINE = 7\n")
    (empty / "stages").mkdir()
    (empty / "stages" / "__init__.py").write_text("MINE = 8\n")
    (empty / "script.py").write_text(SCRIPT)
    for command in (
        [home / "bin/stockpot", "run", "tiny.toml"],
        [home / "bin/python", "script.py"],
    ):
        done = subprocess.run(
            command, cwd=empty, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["15", "150", "[]", str(site / "stockpot")]
