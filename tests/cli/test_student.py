"""A whole run whose inference is by a student: what is written, served, said and refused."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from stockpot import open_student
from stockpot.errors import BadInput
from stockpot.locate import artifact_of
from stockpot.stages.codec.node_rows import NodeRows
from stockpot.stages.infer.predict import PredictionTable
from stockpot.stages.student.student_network import load_student
from stockpot.stages.student.student_rows import StudentRows
from tests.graphs import write_recipe
from tests.runs import run_here

EXTRA = """
[features]
propagate = 2
[infer]
by = "student"
[student]
hidden = 32
epochs = 30
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    recipe = write_recipe(root, nodes=300, ingredients=2, extra=EXTRA)
    run_here(recipe, root / "runs")
    return root / "runs/tiny"


def table_of(run):
    path = artifact_of(run, "infer").path("predictions.arrow")
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return path, table["n_id"].to_numpy(), np.array(table["probabilities"].to_pylist(), np.float32)


def test_predictions_are_the_students(run):
    path, n_id, probabilities = table_of(run)
    test = artifact_of(run, "split").array("test")
    np.testing.assert_array_equal(n_id, np.sort(test))
    found = open_student(run)(n_id)
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    taught, codes = artifact_of(run, "student"), artifact_of(run, "quantize")
    network, _ = load_student(taught.path("student.safetensors"))
    rows = StudentRows(taught, codes).of(n_id)
    import torch

    with torch.no_grad():
        expected = network(torch.from_numpy(rows)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    some = n_id[[5, 0, 5, len(n_id) - 1]]
    table = PredictionTable(path)
    np.testing.assert_array_equal(table(some), probabilities[[5, 0, 5, len(n_id) - 1]])
    absent = np.setdiff1d(np.arange(300), n_id)[:1]
    with pytest.raises(
        BadInput, match=rf"node {absent[0]}, found none; fix: --set infer.split=all"
    ):
        table(absent)


def test_a_node_of_the_graph_as_a_new_one(run):
    """One hop of its row is exactly what is stored for it; the answer is that of its row."""
    student, graph = open_student(run), artifact_of(run, "ingest")
    indptr, indices = graph.array("indptr"), graph.array("indices")
    stored = NodeRows(artifact_of(run, "quantize")).all()
    node = int(np.diff(indptr).argmax())
    near = indices[indptr[node] : indptr[node + 1]]
    rows = student.new_rows(stored[[node], :16], [near])
    np.testing.assert_allclose(rows[0, :16], stored[node, :16])
    # Its neighbours have one edge more than they do: `gcn` divides by their degrees.
    assert np.abs(rows[0, 16:32] - stored[node, 16:32]).max() < 0.5
    assert student.new(stored[[node], :16], [near]).shape == (1, 4)


def test_summary_report_and_output_say_both_accuracies(run):
    summary = json.loads((run / "summary.json").read_text())
    facts = artifact_of(run, "student").facts
    student = summary["infer"]["student"]
    assert student["test_accuracy"] == facts["test_accuracy"]
    assert student["taught_test_accuracy"] == facts["taught_test_accuracy"]
    assert student["seconds"] > 0
    assert student["hundredth"]["outputs"] == 3
    assert student["hundredth"]["seconds"] > 0
    assert student["hundredth"]["table_seconds"] > 0
    assert summary["infer"]["test_accuracy"] is not None
    assert summary["stages"]["student"]["parts_seconds"]["teacher"] > 0
    assert artifact_of(run, "infer").facts["student_accuracy"] == facts["taught_test_accuracy"]
    from stockpot.report.summary import student_words

    assert f"{100 * facts['test_accuracy']:.2f} % by one that was not taught" in student_words(
        summary["infer"]
    )
    page = (run / "report.html").read_text()
    assert "The student" in page
    assert "kept out of the teaching" in page


def test_a_run_without_one_says_so(run, tmp_path):
    run_here(write_recipe(tmp_path, "plain", nodes=300, ingredients=2), run.parent)
    plain = run.parent / "plain"
    assert json.loads((plain / "summary.json").read_text())["infer"]["student"] is None
    with pytest.raises(
        BadInput, match=r"no artifact student.*fix: stockpot run RECIPE --set infer"
    ):
        open_student(plain)


def test_without_propagated_features_it_is_refused_in_a_line(tmp_path):
    recipe = write_recipe(tmp_path, nodes=60)
    command = [sys.executable, "-m", "stockpot.cli", "plan", recipe, "--set", "infer.by=student"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "expected features.propagate above 0, found 0" in line
    assert "fix: --set features.propagate=2" in line
