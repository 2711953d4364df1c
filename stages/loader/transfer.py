"""A step reaches its device while the one before is computed on: never read too early, never freed
too soon.

The loader's thread copies from pinned memory on a stream of its own and marks where it ended; the
thread that trains lets its own stream wait for that mark, and tells the allocator that it uses the
tensors. On a CPU nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.product.matrix import HagMatrix
from stockpot.stages.hag.sequence import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["Sent", "Streams", "Transfer", "checked_device", "tensors_of"]


class Streams(Protocol):
    """What a transfer asks of a device."""

    def copying(self) -> AbstractContextManager[Any]:
        """Inside, work of this thread goes to the copying stream."""
        ...

    def mark(self) -> Any:
        """A mark behind all work of the copying stream so far."""
        ...

    def wait(self, mark: Any) -> None:
        """Let the stream of this thread wait for a mark; the thread itself goes on."""
        ...

    def keep(self, tensor: Tensor) -> None:
        """Free a tensor only after the work that the stream of this thread has now."""
        ...


class CudaStreams:
    """One copying stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def copying(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event()
        event.record(self._stream)
        return event

    def wait(self, mark: Any) -> None:
        torch.cuda.current_stream(self._device).wait_event(mark)

    def keep(self, tensor: Tensor) -> None:
        if tensor.is_cuda:  # a transform may leave others
            tensor.record_stream(torch.cuda.current_stream(self._device))


@dataclass(frozen=True)
class Sent:
    """A step under way: what it will be, and the mark behind its copies (None where there are no
    streams).
    """

    step: Any
    mark: Any = None


class Transfer:
    """Copies to one device; made in any process, its streams open when first used.

    Parameters
    ----------
    device : of `checked_device`.
    pin : copies start from pinned memory; on a CPU the tensors themselves are pinned.
    streams : of the device; None opens those of a CUDA device.
    """

    def __init__(
        self, device: torch.device, *, pin: bool = False, streams: Streams | None = None
    ) -> None:
        self.device, self.pin = device, pin or device.type == "cuda"
        self._streams = streams

    def _opened(self) -> Streams | None:
        if self._streams is None and self.device.type == "cuda":
            self._streams = CudaStreams(self.device)
        return self._streams

    def moved(self, tensor: Tensor) -> Tensor:
        """A dense tensor of this machine's memory on the device; call it inside `sent`."""
        if self.pin:
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=self.pin)

    def sent(self, make: Callable[[], Any]) -> Sent:
        """Call `make` with its copies on the copying stream. For the loader's thread."""
        streams = self._opened()
        with nullcontext() if streams is None else streams.copying():
            step = make()
            return Sent(step, None if streams is None else streams.mark())

    def received(self, sent: Sent) -> Any:
        """The step, ready for the stream of this thread. For the thread that trains."""
        streams = self._opened()
        if streams is not None:
            streams.wait(sent.mark)
            for tensor in tensors_of(sent.step):
                streams.keep(tensor)
        return sent.step


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All dense tensors in a step, a `Data` or whatever a transform made of it; a CSR tensor gives
    its three parts.
    """
    if isinstance(value, Tensor):
        if value.layout == torch.sparse_csr:
            yield from (value.crow_indices(), value.col_indices(), value.values())
        else:
            yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_of([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, Mapping):
        yield from tensors_of(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, HagMatrix | Sequences):
        yield from value.tensors()
    elif hasattr(value, "to_dict"):  # torch_geometric's Data
        yield from tensors_of(value.to_dict())


def checked_device(device: torch.device | str, *, pin: bool = False) -> torch.device:
    """`device` as torch's, where this machine has it.

    Raises
    ------
    BadInput
        It is neither the CPU nor a CUDA device of this machine, or memory is to be pinned without
        CUDA.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise BadInput(
            f"device: expected cpu, cuda or cuda:N, found {device!s}", fix='device="cpu"'
        )
    if not (found.type == "cuda" or pin):
        return found
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise BadInput(
            f"device: {device!s}: this machine has {count} CUDA devices", fix='device="cpu"'
        )
    if not count:
        raise BadInput(
            "pin_memory: pinning needs a CUDA device, this machine has none", fix="pin_memory=False"
        )
    return found
