"""`stockpot fetch` from a server on loopback: whole or not at all, never asking, one line where it
fails."""

import contextlib
import gzip
import io
import json
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from stockpot.cli import main
from stockpot.stages.infer.official import official_data, official_score
from stockpot.stages.ingest.source import describe
from stockpot.stages.ingest.sources import ogb_package
from tests.pipeline.execution.test_cluster_tcp import InProcess
from tests.stages.ingest.test_ogb import write_csv

SOURCE = "ogb:ogbn-arxiv"


class Server:
    """Serves `content` under any path; `length` is what it claims, `cut` after how many bytes it
    hangs up."""

    def __init__(self, content):
        self.content, self.length, self.cut, self.asked = content, len(content), None, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked += 1
                self.send_response(200)
                if server.length is not None:
                    self.send_header("Content-Length", str(server.length))
                self.end_headers()
                with contextlib.suppress(OSError):  # where only the headers were asked for
                    self.wfile.write(server.content[: server.cut])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/arxiv.zip"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def archive(tmp_path, leave_out=(), files=None):
    folder = write_csv(tmp_path / "made", "arxiv") if files is None else files
    (folder / "RELEASE_v1.txt").write_text("")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in leave_out:
                file.write(path, Path("arxiv") / path.relative_to(folder))
    return content.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("arxiv.toml").write_text(f'[dataset]\nsource = "{SOURCE}"\n')
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    found = Server(archive(tmp_path))
    real = ogb_package.published
    monkeypatch.setattr(
        "stockpot.stages.ingest.fetch.published", lambda name: {**real(name), "url": found.url}
    )
    yield found
    found.http.shutdown()
    found.http.server_close()


def fails(capsys, words):
    assert main(["fetch", "arxiv.toml"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert words in line
    assert "; fix: stockpot fetch arxiv.toml" in line or "; fix: free" in line
    assert [path.name for path in Path("data/downloads").glob("*")] in ([], ["ogbn_arxiv"])


def test_fetches_what_run_and_plan_name(server, capsys):
    assert main(["run", "arxiv.toml"]) == 2
    assert capsys.readouterr().err.endswith("; fix: stockpot fetch arxiv.toml\n")
    assert main(["plan", "arxiv.toml", "--set", "resources.memory=100GB"]) == 0
    assert (
        "; fix: stockpot fetch arxiv.toml --set resources.memory=100GB" in capsys.readouterr().out
    )
    assert main(["fetch", "arxiv.toml"]) == 0
    said = capsys.readouterr()
    assert f"fetching {server.url}, 0.0 MB, into {Path.cwd()}/data/downloads/ogbn_arxiv" in said.err
    assert f"{SOURCE}: fetched: 8 files in" in said.out
    assert sorted(path.name for path in Path("data/downloads").iterdir()) == ["ogbn_arxiv"]
    assert describe(SOURCE).absent is None
    asked = server.asked
    assert main(["fetch", "arxiv.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fetched"] is False
    assert server.asked == asked


def test_an_incomplete_folder_is_moved_aside(server, capsys):
    Path("data/downloads/ogbn_arxiv/raw").mkdir(parents=True)
    Path("data/downloads/ogbn_arxiv/raw/mine.txt").write_text("mine")
    assert main(["fetch", "arxiv.toml"]) == 0
    assert "was incomplete: moved to" in capsys.readouterr().err
    (aside,) = Path("data/downloads").glob("ogbn_arxiv.incomplete-*")
    assert (aside / "raw/mine.txt").read_text() == "mine"
    assert describe(SOURCE).absent is None


def test_what_fails_leaves_nothing(server, capsys, tmp_path, monkeypatch):
    whole = server.content
    server.cut = len(whole) // 2
    fails(capsys, "expected")
    server.cut, server.length = None, None
    fails(capsys, "expected an answer that states its size")
    server.content = b"<html>moved</html>"
    server.length = len(server.content)
    fails(capsys, "expected a zip archive, found")
    server.content = archive(tmp_path / "less", leave_out=("edge.csv.gz",))
    server.length = len(server.content)
    fails(capsys, "expected raw/edge.csv.gz in arxiv/, found none")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    fails(capsys, "bytes free, found 0")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert describe(SOURCE).absent is not None


def test_without_a_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("arxiv.toml").write_text(f'[dataset]\nsource = "{SOURCE}"\n')
    about = {**ogb_package.published("ogbn-arxiv"), "url": "http://127.0.0.1:9/arxiv.zip"}
    monkeypatch.setattr("stockpot.stages.ingest.fetch.published", lambda _: about)
    fails(capsys, "http://127.0.0.1:9/arxiv.zip: cannot reach it: [Errno 111] Connection refused")


def test_ctrl_c_is_no_broken_download(server, monkeypatch):
    def stop(url, folder, log):
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise RuntimeError("Stopped downloading due to interruption.") from None

    monkeypatch.setattr(ogb_package.downloader(), "download_url", stop)
    from stockpot.stages.ingest.fetch import fetch

    with pytest.raises(KeyboardInterrupt):
        fetch(describe(SOURCE), lambda _: None)
    assert list(Path("data/downloads").iterdir()) == []


def test_leftovers_of_a_killed_fetch_go_with_the_next(server):
    dead = Path("data/downloads/.stockpot-fetch-999999999-abc")
    dead.mkdir(parents=True)
    assert main(["fetch", "arxiv.toml"]) == 0
    assert not dead.exists()


def test_other_sources_have_nothing_to_fetch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text('[dataset]\nsource = "synthetic:communities"\n')
    assert main(["fetch", "own.toml"]) == 0
    assert "synthetic:communities: there already" in capsys.readouterr().out
    assert main(["fetch", "own.toml", "--set", "dataset.source=npz:none.npz"]) == 2
    assert "expected a file at" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_raw_files_of_torch_geometric(tmp_path, monkeypatch, capsys):
    """Its own download fills a folder beside, of which the raw files are kept; processing is
    ingest's."""
    from torch_geometric.datasets import Planetoid

    def download(self):
        for name in self.raw_file_names:
            Path(self.raw_dir, name).write_bytes(b"raw")
            if stop:
                raise OSError("Name or service not known")

    stop = True
    monkeypatch.setattr(Planetoid, "download", download)
    monkeypatch.chdir(tmp_path)
    Path("cora.toml").write_text('[dataset]\nsource = "pyg:Planetoid/Cora"\n')
    assert main(["fetch", "cora.toml"]) == 2
    assert (
        "torch_geometric cannot fetch it: OSError: Name or service not known; fix: stockpot fetch"
        in capsys.readouterr().err
    )
    assert list(Path("data/downloads/pyg").iterdir()) == []
    stop = False
    assert main(["fetch", "cora.toml"]) == 0
    assert len(describe("pyg:Planetoid/Cora").files) == 8
    assert [path.name for path in Path("data/downloads/pyg/Planetoid/Cora").iterdir()] == ["raw"]


# --- the official figure


def test_the_official_score_is_that_of_ogb():
    y = np.array([0, 1, 2, -1, 1])
    predicted = np.array([0, 1, 1, 1, 0])
    assert official_score("ogbn-arxiv", y, predicted) == {
        "data": "ogbn-arxiv",
        "metric": "acc",
        "value": 0.5,
    }
    assert official_score("ogbn-arxiv", np.array([-1]), np.array([0])) is None
    assert (
        official_data({"dataset.source": "ogb:ogbn-arxiv@x", "infer.split": "test"}) == "ogbn-arxiv"
    )
    assert official_data({"dataset.source": "ogb:ogbn-arxiv", "infer.split": "all"}) == ""
    assert official_data({"dataset.source": "wordnet", "infer.split": "test"}) == ""


def big(root):
    """200 nodes in the layout of ogbn-arxiv, with every class in every part."""
    rng, nodes = np.random.default_rng(0), 200
    label = np.arange(nodes) % 4
    texts = {
        "raw/edge": "".join(f"{i},{j}\n" for i, j in rng.integers(0, nodes, (800, 2))),
        "raw/node-feat": "".join(
            ",".join(f"{v:.4f}" for v in row) + "\n"
            for row in np.eye(4)[label] + rng.normal(size=(nodes, 4))
        ),
        "raw/node-label": "".join(f"{c}\n" for c in label),
        "raw/num-node-list": f"{nodes}\n",
        "raw/num-edge-list": "800\n",
        **{
            f"split/time/{part}": "".join(f"{i}\n" for i in range(at, at + 60))
            for at, part in ((0, "train"), (60, "valid"), (120, "test"))
        },
    }
    for name, text in texts.items():
        path = root / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return root


def test_a_fetched_data_set_is_trained_on_and_scored_by_ogb(server, tmp_path, monkeypatch, capsys):
    server.content = archive(tmp_path, files=big(tmp_path / "big"))
    server.length = len(server.content)
    monkeypatch.setattr("stockpot.execution.run.LocalWorkers", InProcess)
    assert main(["fetch", "arxiv.toml"]) == 0
    sets = {
        "train.epochs": 2,
        "train.ingredients": 1,
        "train.hidden": 8,
        "train.layers": 2,
        "hag.enabled": "never",
        "soup.method": "best",
        "infer.full_graph": "false",
        "resources.memory": "100GB",
    }
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    assert main(["run", "arxiv.toml", *words]) == 0
    infer = json.loads(Path("runs/arxiv/summary.json").read_text())["infer"]
    official = infer["official"]
    assert (official["data"], official["metric"]) == ("ogbn-arxiv", "acc")
    assert official["value"] == pytest.approx(infer["test_accuracy"])
    assert f"ogb's evaluator of ogbn-arxiv: acc {official['value']:.4f}" in capsys.readouterr().out


@pytest.mark.long
def test_ogb_is_used_without_importing_it(server):
    import subprocess
    import sys

    text = (
        "import sys; from stockpot.stages.ingest.sources.ogb_package import downloader, evaluator, "
        "published; downloader(); "
    )
    text += "evaluator('ogbn-arxiv'); published('ogbn-arxiv'); import threading; "
    text += (
        "print([m for m in ('ogb', 'outdated', 'torch_geometric') if m in sys.modules], "
        "threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", text],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[] 1"
