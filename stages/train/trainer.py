"""A training killed at any moment and started again ends with the same weights, bit by bit, as one
left alone.

Read top to bottom: set up, resume, epochs of steps, validation, schedule, early stop, result.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from stockpot.stages.errors import BadInput, Conflict, StockpotError
from stockpot.stages.kernels.precision import checked, products
from stockpot.stages.train import checkpoint
from stockpot.stages.train.checkpoint import Kept, Progress
from stockpot.stages.train.ema import Ema
from stockpot.stages.train.evaluate import Score, count, evaluate, settings
from stockpot.stages.train.model import build_model
from stockpot.stages.train.state import state_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from stockpot.stages.exchange.rank_step import CoopStep
    from stockpot.stages.processes.process_group import Team
    from stockpot.stages.step import Step
    from stockpot.stages.train.model import Network
    from stockpot.stages.train.train_params import Params

__all__ = ["Result", "train"]

CHECKPOINT_EVERY_S = 20.0  # inside long epochs
CHECKPOINT_AFTER_S = 1.0  # at the end of an epoch, where the last one is older than this
REPORT_EVERY_S = 1.0
PLATEAU: dict[str, Any] = {
    "mode": "min",
    "factor": 0.33,
    "patience": 10,
    "threshold": 1e-4,
}  # IBMB's, scaled to shorter trainings
PLATEAU_FLOOR = 0.1  # lowest learning rate of the plateau schedule, as a share of the first


@dataclass(frozen=True)
class Result:
    """Weights of the epoch that `Params.keep` names (of a warm-up: the last ones) and how they came
    about.

    `init_digest` is that of the weights it began with: those after the warm-up where there was one.
    `tail` are the weights after each epoch of `Params.tail_epochs`, in their order.
    """

    model: Network
    init_digest: str
    best: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: float
    words: list[str]
    tail: list[dict[str, Tensor]] = field(default_factory=list)


def train(
    params: Params,
    model_config: Mapping[str, Any],
    train_steps: Any,
    valid_steps: Any,
    folder: Path,
    threads: int,
    report: Callable[[int, int, str], None],
    identity: Mapping[str, Any] | None = None,
    *,
    start: Path | None = None,
    warmup: Path | None = None,
    team: Team | None = None,
    device: str | None = None,
) -> Result:
    """Train one ingredient, or the epochs that all ingredients share.

    Parameters
    ----------
    params : the `[train]` section, resolved.
    model_config : for `build_model`.
    train_steps, valid_steps : iterables of `stages.step.Step`; the first with `len`, `set_epoch`,
        `state_dict` and `load_state_dict`.
    folder : where checkpoints live; survives kills.
    threads : threads to use; a checkpoint's own count wins.
    report : (steps done, steps of all epochs, text).
    identity : what the training is made from (digests of its inputs), so that no other checkpoint
        is taken up.
    start : file of a warm-up: the training goes on after its epochs, with its weights and moments.
    warmup : train only the first `params.warmup` epochs, and write to this file what ingredients
        start from.
    team : ranks that train the model together, of which this is one; the steps are its part of
        theirs.
    device : of this rank; None: `params.device`.

    Raises
    ------
    BadInput
        No output of the training or validation records has a label.
    StockpotError
        The loss is no longer a finite number.
    Conflict
        Ranks do not see the same checkpoint.
    """
    device = device or params.device
    identity = {**asdict(params), **(identity or {})}
    model, adam, fresh = _begin(params, model_config, start, device)
    init_digest = state_digest(model.state_dict())
    if team is not None and team.rank > 0:
        team.gathered(None)  # rank 0 has looked, and set aside what is damaged
    progress, kept, words = checkpoint.load(
        folder, identity, model, adam, mend=team is None or team.rank == 0
    )
    if team is not None and team.rank == 0:
        team.gathered(None)
    if progress is None:
        if words:
            words.append("training starts from the beginning")
            model, adam, fresh = _begin(
                params, model_config, start, device
            )  # a refused file may have been half taken
        progress = fresh
        progress.threads = threads
    elif progress.threads != threads:
        words.append(
            f"resumed with the checkpoint's {progress.threads} threads, not {threads}: sums would "
            f"round differently"
        )
    if team is not None:
        _agree(team, progress, model)
    words += checked(params.precision, device)
    with settings(progress.threads):
        until = params.epochs if warmup is None else params.warmup
        _epochs(
            params,
            until,
            model,
            adam,
            progress,
            kept,
            train_steps,
            valid_steps,
            folder,
            report,
            identity,
            team,
        )
    assert progress.best is not None
    last = {"epoch": progress.epoch, "rate": progress.rate / params.lr}
    if warmup is None:
        model.load_state_dict(kept["best"])
    elif team is None or team.rank == 0:
        checkpoint.save_start(warmup, last, model, adam)
    return Result(
        model.eval(),
        init_digest,
        progress.best,
        progress.history,
        progress.seconds,
        words,
        [kept[f"tail-{epoch}"] for epoch in params.tail_epochs],
    )


def _begin(
    params: Params, model_config: Mapping[str, Any], start: Path | None, device: str
) -> tuple[Network, torch.optim.Adam, Progress]:
    """Model, optimiser and progress before the first step of its own; at every call the same."""
    model = build_model(model_config, seed=params.seed).to(device)
    adam = _adam(model, params)
    progress = Progress(rate=params.lr)
    if start is not None:
        found = checkpoint.load_start(start, model, adam)
        progress.epoch, progress.rate = int(found["epoch"]), float(found["rate"]) * params.lr
    model.generator = torch.Generator(device).manual_seed(params.seed + params.index)
    return model, adam, progress


def _agree(team: Team, progress: Progress, model: Network) -> None:
    """Refuse ranks that go on from different places: a checkpoint may stand where not all of them
    see it.
    """
    step = progress.loader["step"] if progress.loader is not None else 0
    places = team.gathered((progress.epoch, step, state_digest(model.state_dict())))
    for rank, place in enumerate(places):
        if place != places[0]:
            raise Conflict(
                f"train: rank {rank} goes on from epoch {place[0]}, step {place[1]}, but rank 0 "
                f"from epoch "
                f"{places[0][0]}, step {places[0][1]}, or from other weights",
                fix="give all ranks the same --store, on storage that all of them see",
            )


def _epochs(
    params: Params,
    until: int,
    model: Network,
    adam: torch.optim.Adam,
    progress: Progress,
    kept: Kept,
    train_steps: Any,
    valid_steps: Any,
    folder: Path,
    report: Callable[[int, int, str], None],
    identity: Mapping[str, Any],
    team: Team | None,
) -> None:
    """Train until the last epoch, or out of patience; weights of epochs are put in `kept`."""
    every = params.validate_every
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        adam,
        min_lr=PLATEAU_FLOOR * params.lr,
        **{**PLATEAU, "patience": -(-PLATEAU["patience"] // every)},  # it counts validations
    )
    if progress.plateau is not None:
        plateau.load_state_dict(progress.plateau)
    _set_rate(adam, progress.rate)
    ema = Ema(model, params.ema, kept.get("ema")) if params.ema else None
    patient = until < params.epochs  # a warm-up runs its epochs
    started, before = time.perf_counter(), progress.seconds
    last_saved = last_report = started
    per_epoch = len(train_steps)
    text = validated = ""

    def save() -> None:
        if team is not None and team.rank > 0:
            return
        progress.seconds = before + time.perf_counter() - started
        progress.rate = _rate(adam)
        weights = kept if ema is None else {**kept, "ema": ema.state}
        checkpoint.save(folder, identity, progress, model, adam, weights)

    def weights_now() -> dict[str, Tensor]:
        kind = model.state_dict() if ema is None else ema.state
        return {name: values.detach().clone() for name, values in kind.items()}

    while progress.epoch < until and (patient or not _out_of_patience(params, progress)):
        epoch = progress.epoch
        if params.schedule == "cosine":
            _set_rate(adam, params.lr * 0.5 * (1 + math.cos(math.pi * epoch / params.epochs)))
        train_steps.set_epoch(epoch)
        done = 0
        if progress.loader is not None:
            train_steps.load_state_dict(progress.loader)
            done = int(progress.loader["step"])
        model.train()
        for step in train_steps:
            now = time.perf_counter()
            due = now - last_saved > CHECKPOINT_EVERY_S and done + 1 < per_epoch
            if team is None:
                found = _step(model, adam, step, epoch, done, params.precision)
            else:
                found, due = _team_step(team, params, model, adam, step, epoch, done, due=due)
            done += 1
            if ema is not None:
                ema.update(model)
            progress.loss_sum += found.loss_sum
            progress.correct += found.correct
            progress.labelled += found.labelled
            if due:
                progress.loader = train_steps.state_dict()
                save()
                last_saved = now
            if now - last_report > REPORT_EVERY_S:
                report(epoch * per_epoch + done, params.epochs * per_epoch, text)
                last_report = now
        _check_labels("train", progress.labelled)
        row = _row(
            epoch, _rate(adam), Score(progress.correct, progress.labelled, progress.loss_sum)
        )
        if (epoch + 1) % every == 0 or epoch + 1 == until or epoch in params.tail_epochs:
            with nullcontext() if ema is None else ema.used_by(model):
                valid = evaluate(model, valid_steps)
            if team is not None:
                valid, _ = team.total(valid)
            _check_labels("valid", valid.labelled)
            row |= {"valid_loss": valid.loss, "valid_accuracy": valid.accuracy}
            if (
                params.keep == "last"
                or progress.best is None
                or valid.rank > (progress.best["accuracy"], -progress.best["loss"])
            ):
                progress.best = {"epoch": epoch, "accuracy": valid.accuracy, "loss": valid.loss}
                kept["best"] = weights_now()
            if params.schedule == "plateau":
                plateau.step(valid.loss)
                progress.plateau = plateau.state_dict()
            if epoch in params.tail_epochs:
                kept[f"tail-{epoch}"] = weights_now()
            validated = f" valid {100 * valid.accuracy:.2f} %"
        progress.history.append(row)
        progress.epoch, progress.loader = epoch + 1, None
        progress.loss_sum, progress.correct, progress.labelled = 0.0, 0, 0
        if time.perf_counter() - last_saved > CHECKPOINT_AFTER_S:
            save()
            last_saved = time.perf_counter()
        text = f"epoch {epoch + 1}/{params.epochs} loss {row['loss']:.3f}{validated}"
        report((epoch + 1) * per_epoch, params.epochs * per_epoch, text)
    progress.seconds = before + time.perf_counter() - started
    progress.rate = _rate(adam)


def _step(
    model: Network, adam: torch.optim.Adam, step: Step, epoch: int, index: int, precision: str
) -> Score:
    with products(precision, step.y.device):
        logits = model(step.x, step.adjs).float()
    loss = functional.cross_entropy(logits, step.y, ignore_index=-1, reduction="sum")
    found = count(logits.detach(), step.y, float(loss.detach()))
    _check_loss(found, adam, epoch, index)
    adam.zero_grad(set_to_none=True)
    (loss / max(1, found.labelled)).backward()
    adam.step()
    return found


def _team_step(
    team: Team,
    params: Params,
    model: Network,
    adam: torch.optim.Adam,
    step: CoopStep,
    epoch: int,
    index: int,
    *,
    due: bool,
) -> tuple[Score, bool]:
    """One step of all ranks: (score of all of it, whether rank 0 wants a checkpoint after it).

    The loss of a rank is the sum over its outputs over the number of all; gradients are added
    (arXiv 2310.12403).
    """
    assert model.generator is not None
    # Of its own on every rank, and of the step alone: a resumed training draws what it would have
    # drawn.
    model.generator.manual_seed(
        hash((params.seed + params.index, epoch, index, team.rank)) & (2**63 - 1)
    )
    with products(params.precision, step.y.device):
        logits = team.forward(model, step).float()
    loss = functional.cross_entropy(logits, step.y, ignore_index=-1, reduction="sum")
    found, due = team.total(count(logits.detach(), step.y, float(loss.detach())), flag=due)
    _check_loss(found, adam, epoch, index)
    adam.zero_grad(set_to_none=True)
    (loss / max(1, step.num_labelled)).backward()
    team.add_gradients(model)
    adam.step()
    return found, due


def _check_loss(found: Score, adam: torch.optim.Adam, epoch: int, index: int) -> None:
    if not math.isfinite(found.loss_sum):
        rate = _rate(adam)
        if epoch == index == 0:
            raise StockpotError(
                f"train: expected a finite loss before any step, found {found.loss_sum}: features "
                f"or weights of edges "
                "are too large for 32 bits",
                fix="divide each column of the features by its standard deviation, and weights by "
                "their mean",
            )
        raise StockpotError(
            f"train: epoch {epoch}, step {index}: expected a finite loss, found {found.loss_sum} "
            f"at lr {rate:g}",
            fix=f"--set train.lr={rate / 10:g}",
        )


def _adam(model: Network, params: Params) -> torch.optim.Adam:
    """Adam; matrices decay, biases and LayerNorm weights do not."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": params.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=params.lr, fused=True)


def _rate(adam: torch.optim.Adam) -> float:
    return float(adam.param_groups[0]["lr"])


def _set_rate(adam: torch.optim.Adam, rate: float) -> None:
    for group in adam.param_groups:
        group["lr"] = rate


def _out_of_patience(params: Params, progress: Progress) -> bool:
    """Whether the best epoch is too long ago: the patience in whole spans between validations, so
    that the last epoch has been looked at.
    """
    waited = -(-params.patience // params.validate_every) * params.validate_every
    return progress.best is not None and progress.epoch - 1 - progress.best["epoch"] >= waited


def _check_labels(name: str, labelled: int) -> None:
    if labelled == 0:
        raise BadInput(
            f"{name} split: expected labelled nodes, found none",
            fix="label some of its nodes, or change the split",
        )


def _row(epoch: int, rate: float, train: Score) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "lr": rate,
        "loss": train.loss,
        "train_accuracy": train.accuracy,
    }
