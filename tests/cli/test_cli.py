"""The command line end to end in processes of its own, with stages that only add numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stockpot.cli import main, parser
from tests.pipeline import fakes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe whose run is built once."""
    folder = tmp_path_factory.mktemp("cli")
    new_recipe(folder)
    done = stockpot(folder, "run", "toy.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "first.json").write_text(done.stdout)
    return folder


def new_recipe(folder):
    fakes.write_source(folder)
    (folder / "control").mkdir()
    (folder / "toy.toml").write_text(
        '[dataset]\nsource = "npz:toy.npz"\n[train]\ningredients = 2\n'
    )


def environment(folder):
    return {
        **os.environ,
        "FAKE_STAGES": str(folder / "control"),
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }


def stockpot(folder, *words, real=False):
    module = "stockpot.cli" if real else "tests.pipeline.fakes"
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120
    )


def start(folder, *words):
    command = [sys.executable, "-m", "tests.pipeline.fakes", *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_behind(session):
    alive = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process.cmdline())
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return alive


# --- what is printed and written


def test_run_writes_its_three_files(place):
    folder = place / "runs/toy"
    assert {path.name for path in folder.iterdir()} >= {"run.json", "summary.json", "report.html"}
    run = json.loads((folder / "run.json").read_text())
    assert run["name"] == "toy"
    assert run["store"] == str(place / "runs/store")
    assert len(run["artifacts"]) == 18
    for artifact in run["artifacts"].values():
        assert (
            place / "runs/store/objects" / artifact["stage"] / artifact["key"] / "manifest.json"
        ).is_file()
    first = json.loads((place / "first.json").read_text())
    assert first["stages"]["ingest"]["cached"] is False
    assert first["soup"]["chosen"] == "greedy"


def test_a_second_run_is_cached_and_fast(place):
    begin = time.monotonic()
    done = stockpot(place, "run", "toy.toml")
    assert time.monotonic() - begin < 5
    assert done.returncode == 0
    assert done.stderr == ""
    assert "built " not in done.stdout.replace("built in", "")
    assert done.stdout.count("cached") == 18
    for word in (
        "single model 0 (seed 0)",
        "uniform",
        "greedy",
        "chosen on validation",
        "74.00 %",
        "74.50 %",
    ):
        assert word in done.stdout
    summary = json.loads((place / "runs/toy/summary.json").read_text())
    assert summary["stages"]["ingest"]["cached"] is True


def test_plain_lines_tell_what_is_built(tmp_path):
    new_recipe(tmp_path)
    done = stockpot(tmp_path, "run", "toy.toml", "split", "--store", "pot", "--runs", "out")
    assert done.returncode == 0, done.stderr
    assert "split              started, 1 shard" in done.stdout
    assert "split              done in" in done.stdout
    assert "\x1b" not in done.stdout
    assert (tmp_path / "pot/objects/split").is_dir()
    summary = json.loads((tmp_path / "out/toy/summary.json").read_text())
    assert summary["train"] is None
    page = (tmp_path / "out/toy/report.html").read_text()
    assert "stockpot run toy.toml split --store pot --runs out" in page
    assert page.count("<td>not built</td>") == 18


def test_plan_and_status(place):
    plan = stockpot(place, "plan", "toy.toml")
    assert plan.returncode == 0
    assert "nothing to run: all 18 artifacts are cached" in plan.stdout
    more = json.loads(
        stockpot(place, "plan", "toy.toml", "--set", "train.ingredients=3", "--json").stdout
    )
    assert more["would_run"] == 3
    states = {node["node"]: node["state"] for node in more["nodes"]}
    assert (states["train:1"], states["train:2"], states["soup"]) == ("cached", "build", "after")
    forced = json.loads(stockpot(place, "plan", "toy.toml", "--force", "order", "--json").stdout)
    assert {n["node"]: n["reason"] for n in forced["nodes"]}["order"] == "forced"
    status = stockpot(place, "status", "toy.toml")
    assert "18 of 18 artifacts are built" in status.stdout
    document = json.loads(stockpot(place, "status", "toy.toml", "--json").stdout)
    assert {node["state"] for node in document["nodes"]} == {"cached"}
    assert document["nodes"][0]["bytes"] > 0


def test_recipe():
    done = stockpot(ROOT, "recipe", "--defaults", real=True)
    assert done.returncode == 0
    assert "rounds = 1 " in done.stdout


def test_recipe_resolved(place):
    done = stockpot(place, "recipe", "toy.toml", "--set", "train.epochs=7", "--json")
    tables = json.loads(done.stdout)
    assert tables["train"]["epochs"] == 7
    assert tables["train"]["hidden"] == 256
    assert "epochs = 7" in stockpot(place, "recipe", "toy.toml", "--set", "train.epochs=7").stdout


def test_report_is_written_again(place):
    path = place / "runs/toy/report.html"
    path.unlink()
    assert stockpot(place, "report", "toy.toml").returncode == 0
    page = path.read_text()
    assert "<code>stockpot run toy.toml</code>" in page
    assert "validation accuracy (%)" in page
    assert "href" not in page
    (path.parent / "dask-report.html").write_text("a timeline")
    assert stockpot(place, "report", "toy.toml").returncode == 0
    assert '<a href="dask-report.html">' in path.read_text()
    none = stockpot(place, "report", "toy.toml", "--store", "elsewhere")
    assert none.returncode == 2
    assert "nothing of toy.toml is built in elsewhere" in none.stderr


def test_inspect_an_artifact(place):
    """By recipe, run folder and artifact folder: the same."""
    run = json.loads((place / "runs/toy/run.json").read_text())["artifacts"]["train:0"]
    folder = f"runs/store/objects/train/{run['key']}"
    found = [
        json.loads(stockpot(place, "inspect", *words, "--json").stdout)
        for words in (["toy.toml", "train:0"], ["runs/toy", "train:0"], [folder])
    ]
    manifest = json.loads((place / folder / "manifest.json").read_text())
    for document in found:
        for name in (
            "stage",
            "key",
            "digest",
            "params",
            "parents",
            "facts",
            "files",
            "software",
            "notes",
            "seconds",
        ):
            assert document[name] == manifest[name], name
        assert document["arrays"]["sum"] == {
            "dtype": "int64",
            "shape": [1],
            "bytes": sum(f["size"] for n, f in manifest["files"].items() if n.startswith("sum/")),
        }
    assert [document["artifact"] for document in found] == [
        "train:0",
        "train:0",
        f"train/{run['key']}",
    ]
    assert [document["projected_bytes"] for document in found] == [fakes.PEAK, None, None]
    text = stockpot(place, "inspect", "toy.toml", "train:0").stdout
    for word in (
        manifest["digest"],
        "of 50.0 MB projected",
        "history.json",
        "int64 array, 1",
        "valid_accuracy  0.7",
    ):
        assert word in text


# --- failures


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run"], 2, "RECIPE"),
        (["cook"], 2, "invalid choice: 'cook'"),
        (["run", "none.toml"], 2, "recipe none.toml: no such file"),
        (
            ["run", "toy.toml", "--set", "train.hiden=3"],
            2,
            "unknown key train.hiden, nearest is train.hidden",
        ),
        (["run", "toy.toml", "--set", "dataset.source=npz:gone.npz"], 2, "expected a file at"),
        (
            ["run", "toy.toml", "--set", "dataset.source=synthetic:communities?inside=2"],
            2,
            "inside: expected 0.0 to",
        ),
        (
            ["run", "toy.toml", "--set", "resources.memory=1MB", "--store", "new"],
            2,
            "exceeds resources.memory",
        ),
        (
            ["plan", "toy.toml", "--set", "resources.memory=1MB", "--store", "new"],
            2,
            "exceeds resources.memory",
        ),
        (
            ["plan", "toy.toml", "--set", "resources.workers=0"],
            2,
            "fix: --set resources.workers=auto, the default",
        ),
        (
            ["plan", "toy.toml", "--set", "train.hidden=x"],
            2,
            "fix: --set train.hidden=256, the default",
        ),
        (["run", "toy.toml", "--scheduler", "udp://host:8786"], 2, "resources.scheduler"),
        (["run", "toy.toml", "warmup"], 2, "stage warmup: not part of this recipe"),
        (["run", "toy.toml", "--force", "warmup"], 2, "stage warmup: not part of this recipe"),
        (["verify"], 2, "expected a recipe or --all"),
        (["recipe"], 2, "expected a recipe file or --defaults"),
        (["inspect"], 2, "required: RECIPE"),
        (["inspect", "toy.toml", "--record", "x"], 2, "invalid int value: 'x'"),
        (
            ["inspect", "toy.toml", "--split", "tset"],
            2,
            "split tset: expected one of train, valid, test; fix: stockpot",
        ),
        (["inspect", "toy.toml", "warmup"], 2, "stage warmup: not part of this recipe"),
        (
            ["inspect", "toy.toml", "pack"],
            2,
            "pack has 3 artifacts: pack:train, pack:valid, pack:test; fix: stockpot",
        ),
        (
            ["inspect", "toy.toml", "train:0", "--record", "0"],
            2,
            "train:0 has no records; fix: stockpot inspect toy.toml",
        ),
        (
            ["inspect", "toy.toml", "pack:train", "--split", "test"],
            2,
            "pack:train is not of split test; fix: stockpot in",
        ),
        (
            ["inspect", "toy.toml", "--store", "new"],
            2,
            "pack:train: not built in new; fix: stockpot run toy.toml pack:train --store new\n",
        ),
        (["inspect", "control"], 2, "expected a recipe, the folder of a run, or of an artifact"),
        (["inspect", "runs/toy", "train:7"], 2, "no artifact train:7; it has"),
        (["run", "toy.toml", "--store", "toy.npz"], 2, "store toy.npz"),
        (["run", "toy.toml", "--runs", "toy.npz"], 2, "cannot be written"),
    ],
)
def test_one_line_and_a_code(place, words, code, message):
    done = stockpot(place, *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("stockpot: error: ")
    assert message in done.stderr
    assert not (place / "new").exists()


def test_an_error_is_printed_once_and_leaves_no_empty_folder(tmp_path):
    new_recipe(tmp_path)
    (tmp_path / "control/refuse-split").write_text("1")
    done = stockpot(tmp_path, "run", "toy.toml", "split", "--runs", "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    said = done.stderr.removeprefix("stockpot: error: ").strip()
    assert said not in done.stdout
    assert "split              failed\n" in done.stdout
    assert not (tmp_path / "out/toy").exists()


def test_a_bug_in_a_stage_is_one_line_and_a_log(tmp_path):
    new_recipe(tmp_path)
    (tmp_path / "control/fail-split").write_text("1")
    done = stockpot(tmp_path, "run", "toy.toml", "split")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "stockpot: error: split, shard split-0: KeyError: 'a bug'"
    assert "Traceback" not in done.stderr
    assert 'raise KeyError("a bug")' in (tmp_path / "runs/toy/error.log").read_text()


def test_a_read_only_store(place, tmp_path):
    if os.geteuid() == 0:
        blocked = "/proc/stockpot"  # root may write anywhere but here
    else:
        tmp_path.chmod(0o500)
        blocked = str(tmp_path / "store")
    done = stockpot(place, "run", "toy.toml", "--store", blocked)
    assert done.returncode != 0
    assert done.stderr.count("\n") <= 2
    assert done.stderr.startswith("stockpot: error: ")


# --- verify


def test_verify_sets_damage_aside_and_run_mends_it(tmp_path):
    new_recipe(tmp_path)
    assert stockpot(tmp_path, "run", "toy.toml", "order").returncode == 0
    assert stockpot(tmp_path, "verify", "toy.toml").returncode == 0
    chunk = next(
        p
        for p in (tmp_path / "runs/store/objects/split").rglob("*")
        if p.is_file() and "c/" in str(p)
    )
    kept = chunk.stat()
    data = bytearray(chunk.read_bytes())
    data[0] ^= 4
    chunk.write_bytes(bytes(data))
    os.utime(chunk, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # as silent as rot
    found = stockpot(tmp_path, "verify", "--all", "--keep")
    assert found.returncode == 1
    assert chunk.name in found.stderr
    assert chunk.exists()
    document = json.loads(stockpot(tmp_path, "verify", "--all", "--json").stdout)
    assert [f["kind"] for f in document["findings"]] == ["digest"]
    assert not chunk.exists()
    assert stockpot(tmp_path, "verify", "--all").returncode == 0
    assert "split              done in" in stockpot(tmp_path, "run", "toy.toml", "order").stdout
    assert chunk.exists()


def test_a_damaged_history_is_mended_by_the_run_that_meets_it(tmp_path):
    """No stage reads it; a plan sees that it changed, though its size and time did not."""
    new_recipe(tmp_path)
    assert stockpot(tmp_path, "run", "toy.toml").returncode == 0
    histories = sorted((tmp_path / "runs/store/objects/train").glob("*/history.json"))
    assert len(histories) == 2
    sound = [path.read_bytes() for path in histories]
    for path, data in zip(histories, sound, strict=True):
        kept = path.stat()
        path.write_bytes(data.replace(b"0", b"1"))
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    refused = stockpot(tmp_path, "report", "toy.toml")
    assert refused.returncode == 1
    assert "stockpot verify --all --store" in refused.stderr
    done = stockpot(tmp_path, "run", "toy.toml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("history.json: expected digest") == 2
    assert [path.read_bytes() for path in histories] == sound


# --- signals


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(tmp_path, how):
    new_recipe(tmp_path)
    (tmp_path / "control/sleep-influence.train").write_text("60")
    driver = start(tmp_path, "run", "toy.toml", "influence:train")
    calls = tmp_path / "control/calls"
    deadline = time.monotonic() + 60
    while not (calls.exists() and "influence.train" in calls.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # as a terminal sends it
    else:
        driver.send_signal(how)
    out, err = driver.communicate(timeout=30)
    assert driver.returncode == (-9 if how == signal.SIGKILL else 130), err
    if how != signal.SIGKILL:
        assert (
            err
            == "stockpot: error: interrupted; fix: run the same command again: it continues where "
            "it stopped\n"
        )
        assert "Traceback" not in out
    deadline = time.monotonic() + 5
    while (left := left_behind(driver.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    if how == signal.SIGKILL:
        (tmp_path / "control/sleep-influence.train").unlink()
        assert stockpot(tmp_path, "run", "toy.toml", "influence:train").returncode == 0


# --- form


def test_every_verb_has_help(capsys):
    for verb in ("run", "plan", "status", "verify", "report", "inspect", "recipe"):
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        for option in ("--json", "--store", "--runs", "--set"):
            assert option in text


def test_stages_and_options_in_any_order():
    for line in (
        "run r.toml --store s train soup --set a=b",
        "run --store s --set a=b r.toml train soup",
    ):
        args = parser().parse_args(line.split())
        assert (args.recipe, args.stages, args.store, args.set) == (
            "r.toml",
            ["train", "soup"],
            Path("s"),
            ["a=b"],
        )


def test_main_in_process(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["recipe", "toy.toml"]) == 0
    assert main(["recipe", "gone.toml"]) == 2
    assert "no such file" in capsys.readouterr().err
