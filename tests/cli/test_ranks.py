"""Several ranks from the recipe to predictions: together on sampled batches, each alone on
influence-based ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch

from stockpot import open_batches, open_model
from tests.graphs import write_recipe
from tests.runs import run_here

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "alone": ("interconnect_gbs = 1e-9", ""),
    "together": ('exchange = "cooperative"', 'method = "labor"\nfanouts = [4, 4]'),
}


@pytest.mark.parametrize("case", CASES)
def test_ranks_train_and_predict_what_one_process_would(tmp_path, monkeypatch, case):
    train, batches = CASES[case]
    recipe = write_recipe(tmp_path, nodes=300, epochs=2, ingredients=1)
    text = recipe.read_text().replace("[train]", f"[train]\nranks = 2\n{train}")
    recipe.write_text(text.replace("[batches]", f"[batches]\n{batches}"))
    monkeypatch.chdir(tmp_path)
    store = run_here(recipe, tmp_path / "runs")
    summary = json.loads((tmp_path / "runs/tiny/summary.json").read_text())
    shared = summary["stages"]["exchange"]
    assert shared["ranks"] == 2
    assert shared["mode"] == ("independent" if case == "alone" else "cooperative")
    assert shared["why"][1:] in (tmp_path / "runs/tiny/report.html").read_text()
    predicted = store.open("infer", summary["artifacts"]["infer"]["key"]).path("predictions.arrow")
    table = pa.ipc.open_file(predicted).read_all()
    found = {}
    model = open_model("runs/tiny")
    with torch.no_grad():
        for batch in open_batches("runs/tiny", split="test", shuffle=False, adj="norm", layers=2):
            logits = model(batch.x, batch.adjs if hasattr(batch, "adjs") else batch.adj_t)
            found |= dict(
                zip(batch.n_id[: batch.batch_size].tolist(), torch.softmax(logits, 1), strict=False)
            )
    assert sorted(found) == table["n_id"].to_pylist()
    expected = np.array([found[i].numpy() for i in table["n_id"].to_pylist()])
    np.testing.assert_allclose(np.array(table["probabilities"].to_pylist()), expected, atol=1e-5)


@pytest.mark.long
def test_torchrun_brings_the_ranks_and_starts_them_again(tmp_path):
    recipe = write_recipe(tmp_path, nodes=300, epochs=400, ingredients=1)
    recipe.write_text(recipe.read_text().replace("[train]", '[train]\nexchange = "cooperative"'))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*command, "-m", "stockpot.cli", "run", str(recipe), "train"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lines = []
        for line in run.stdout:
            lines.append(line)
            if "epoch" in line and not any("ended early" in before for before in lines):
                for process in psutil.Process(run.pid).children(recursive=True):
                    if "stockpot.stages.processes.rank_process" in process.cmdline():
                        process.kill()
        assert run.wait(300) == 0, "".join(lines[-20:])
    finally:
        run.kill()
        run.stdout.close()
    assert sum("ended early" in line for line in lines) > 0
    summary = json.loads((tmp_path / "runs/tiny/summary.json").read_text())
    assert summary["stages"]["exchange"]["mode"] == "cooperative"
    assert summary["train"]["ingredients"][0]["epochs"] == 400
