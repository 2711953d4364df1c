import threading
from contextlib import contextmanager

import pytest
import torch

from stockpot import open_batches
from stockpot.stages.loader.transfer import Transfer, tensors_of
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.train.model import MODELS, build_model
from tests.loaders import read_steps
from tests.packs import packed

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("pack"), records={"outputs": 84, "records": 14})[0]


class FakeStreams:
    """Says what was asked of a device, by which thread and in which order."""

    def __init__(self):
        self.log, self.inside, self.kept = [], False, []

    @contextmanager
    def copying(self):
        assert not self.inside
        self.inside = True
        yield
        self.inside = False

    def mark(self):
        assert self.inside  # behind the copies, before anything else comes to the stream
        self.log.append(("mark", threading.current_thread().name))
        return len(self.log)

    def wait(self, mark):
        self.log.append(("wait", threading.current_thread().name))
        self.waited = mark

    def keep(self, tensor):
        self.kept.append(tensor.data_ptr())


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize(
    "make", [lambda p, **o: read_steps(p, layers=2, adj="norm", **o), open_batches]
)
def test_every_step_is_waited_for_and_kept_whole(pack, prefetch, make):
    plain = list(make(pack, prefetch=prefetch))
    steps = make(pack, prefetch=prefetch)
    streams = FakeStreams()
    steps.transfer = Transfer(torch.device("cpu"), streams=streams)
    for k, (step, expected) in enumerate(zip(steps, plain, strict=True), 1):
        assert sum(what == "wait" for what, _ in streams.log) == k
        found = list(tensors_of(step))
        assert len(found) >= 7
        assert {t.data_ptr() for t in found if t.numel()} <= set(streams.kept)
        assert all(torch.equal(a, b) for a, b in zip(found, tensors_of(expected), strict=True))
    marks = [who for what, who in streams.log if what == "mark"]
    assert len(marks) == len(plain)
    assert set(marks) == {"stockpot-prefetch" if prefetch else threading.current_thread().name}
    assert {who for what, who in streams.log if what == "wait"} == {threading.current_thread().name}


def test_what_a_transform_makes_is_kept_too(pack):
    steps = read_steps(
        pack, layers=2, adj="norm", transform=lambda s: {"x": [s.x * 2, 3], "y": (s.y, "text")}
    )
    streams = FakeStreams()
    steps.transfer = Transfer(torch.device("cpu"), streams=streams)
    step = next(iter(steps))
    assert streams.kept == [step["x"][0].data_ptr(), step["y"][0].data_ptr()]


@CUDA
@pytest.mark.parametrize("name", MODELS)
def test_training_on_a_gpu_gives_the_cpus_results(pack, name):
    config = {
        "model": name,
        "num_features": 7,
        "num_classes": 4,
        "hidden": 16,
        "layers": 3,
        "dropout": 0.0,
        "heads": 4,
        "hops": 0,
        "head": 2,
    }
    layers = 0 if name in ROW_MODELS else 3
    found = []
    for device in ("cpu", "cuda"):
        model = build_model(config, seed=0).to(device)
        adam = torch.optim.Adam(model.parameters(), lr=0.01)
        steps = read_steps(
            pack, layers=layers, adj=model.adj, transposes=model.transposes, device=device
        )
        losses = []
        for epoch in range(3):
            steps.set_epoch(epoch)
            for step in steps:
                assert all(t.device.type == device for t in tensors_of(step))
                loss = torch.nn.functional.cross_entropy(
                    model(step.x, step.adjs), step.y, ignore_index=-1
                )
                adam.zero_grad()
                loss.backward()
                adam.step()
                losses.append(loss.item())
        found.append(losses)
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(found[1]), rtol=1e-2, atol=1e-3)


@CUDA
def test_batches_on_a_gpu_hold_the_same_numbers(pack):
    for one, other in zip(open_batches(pack), open_batches(pack, device="cuda"), strict=True):
        for a, b in zip(tensors_of(one), tensors_of(other), strict=True):
            assert torch.equal(a, b.cpu())
