"""The training loop. A method brings a `Training`: networks, losses and optimisers; the loop does
the rest. It runs the same on one CPU, one GPU, or under `accelerate launch` on many of them.
"""

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints import read_checkpoint, save_checkpoint
from ..errors import BIRError
from .data import Batch, BatchSource
from .ema import ExponentialAverage
from .pace import Pace, StopRequest, duration, stop_on_sigterm
from .phases import Training, Update, compute_again
from .recipe import Recipe
from .reports import require_finite, summary_writer
from .resuming import best_so_far, require_resumable
from .speed import compile_in_place, has_bf16_units, tf32, to_channels_last
from .state import (
    START_AGAIN,
    STATE_FILE,
    TrainingState,
    as_device,
    keep_last,
    load_optimizer,
    model_header,
    optimizer_tensors,
    read_state,
    save_state,
    with_prefix,
    write_part,
)
from .state_tensors import OPTIMIZERS, require_state_of
from .toml_tables import to_table
from .validation import ValidationSet, in_words, is_better, side_by_side

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)
LOG_EVERY = 50
SKIPPED_SHOWN = 10  # names in one line of the log


def make_accelerator(device: str) -> "Accelerator":
    """The processes and devices that take part.

    Args:
        device: `auto` (the fastest there is), `cpu` or `cuda`.

    Raises:
        BIRError: accelerate is not installed, or no CUDA device is there.
    """
    try:
        from accelerate import Accelerator
    except ModuleNotFoundError as error:
        raise BIRError(
            "Training should find the package accelerate, but it is absent; install the extra: "
            "pip install comfyui-bir[train]."
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise BIRError("Expected a CUDA device, but torch finds none; use --device cpu or auto.")
    # Accelerate keeps its precision for the whole process; the loop has one for each training.
    return Accelerator(cpu=device == "cpu", mixed_precision="no")


def train(
    recipe: Recipe,
    training: Training,
    source: BatchSource,
    validation: ValidationSet | None,
    accelerator: "Accelerator",
    *,
    output: Path,
    resume: bool | Literal["auto"] = False,
) -> Path:
    """Run a training to its end.

    Args:
        recipe: what to do.
        training: networks, losses, phases.
        source: batches of this process.
        validation: held-out pictures; None where there are none.
        accelerator: from `make_accelerator`.
        output: folder for `model.safetensors` (opens in `load_model`), `best.safetensors` (the best
            in validation), the last ones if the recipe keeps some, the state, and TensorBoard's
            files.
        resume: go on from the state in `output`, to the same weights as without the interruption;
            `auto`: if there is one.

    Returns:
        Path of the last model.

    Raises:
        BIRError: nothing to resume or of another recipe; a state that is there already without
            `resume`; a loss that is not finite; a disk that is full; SIGTERM, after which the state
            is saved.
    """
    run = Run(recipe, training, source, validation, accelerator, output)
    if resume == "auto":
        resume = run.state_file.exists()
    first = 1 + (run.resume() if resume else run.start())
    pace = Pace(first, recipe.iterations, recipe.save_minutes)
    progress = run.progress_bar(first)
    try:
        with (
            summary_writer(output, accelerator.is_main_process) as writer,
            stop_on_sigterm() as stop,
        ):
            for iteration, batches in enumerate(source.iterations(first, recipe.iterations), first):
                shown = run.step(iteration, batches)
                progress.update()
                if iteration % LOG_EVERY == 0 or iteration == recipe.iterations:
                    run.report(iteration, shown, writer, progress, pace)
                last = iteration == recipe.iterations
                every = recipe.validation.every
                if validation is not None and every and (iteration % every == 0 or last):
                    run.validate(iteration, writer)
                stopping, due = run.asked(stop, pace)
                if iteration % recipe.save_every == 0 or last or stopping or due:
                    run.save(iteration, shown)
                    pace.was_saved()
                if stopping and not last:
                    raise BIRError(
                        f"Expected to train to iteration {recipe.iterations}, but SIGTERM came; "
                        f"iteration {iteration} is saved: go on with --resume."
                    )
    finally:
        progress.close()
    return run.model_file


class Run:
    """The moving parts of a training; arguments as of `train`. First call `start` or `resume`, then
    `step` for each iteration."""

    def __init__(
        self,
        recipe: Recipe,
        training: Training,
        source: BatchSource,
        validation: ValidationSet | None,
        accelerator: "Accelerator",
        output: Path,
    ) -> None:
        self.recipe, self.training, self.source = recipe, training, source
        self.validation, self.accelerator, self.output = validation, accelerator, output
        self.model_file = output / "model.safetensors"
        self.state_file = output / STATE_FILE
        self.phase = -1
        self.optimizers: list[torch.optim.Optimizer] = []
        self.losses: list[nn.Module] = []
        self.best: float | None = None
        self.skipped: set[str] = set()  # names that were reported as unreadable
        for network in training.networks().values():
            network.to(accelerator.device)
            if recipe.channels_last:
                to_channels_last(network)
        training.model.train()
        self.average = (
            ExponentialAverage(training.model, recipe.ema, training.frozen) if recipe.ema else None
        )
        if recipe.checkpointing:
            compute_again(training.blocks, recipe.method)
        if recipe.compile:
            compile_in_place(training.model)
        if recipe.precision == "bf16" and not has_bf16_units(accelerator.device):
            logger.warning("no bf16 units on %s: precision=fp32 is faster", accelerator.device)

    def start(self) -> int:
        """Prepare a new training; returns 0, the iterations done."""
        if self.state_file.exists():
            raise BIRError(
                f"Expected a new output folder, but {self.output} holds a training; give --resume "
                "to go on with it, or choose another folder."
            )
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
        self.accelerator.wait_for_everyone()
        self._enter_phase(0)
        return 0

    def resume(self) -> int:
        """Take up the saved state; returns the iterations done."""
        state = read_state(self.state_file)
        require_resumable(state, self.recipe, self.state_file)
        if state.processes != self.accelerator.num_processes:
            raise BIRError(
                f"Expected {state.processes} processes, as the training had, but "
                f"{self.accelerator.num_processes} run; launch as many as before."
            )
        self.best = best_so_far(state, self.recipe)
        phase = self.training.phase_at(state.iteration)
        networks = self.training.kept_networks(self.average)
        require_state_of(state, networks, self.training.phases[phase].updates, self.state_file)
        device = self.accelerator.device
        for name, network in networks.items():
            network.load_state_dict(as_device(state.part(name), device))
        self._enter_phase(phase)
        for update, optimizer in zip(self._updates(), self.optimizers, strict=True):
            load_optimizer(optimizer, state.part(f"{OPTIMIZERS}.{update.name}"))
        if self.source.data.pool:
            pool = self._pool_file(state.iteration)
            self.source.pool.load(read_checkpoint(pool, START_AGAIN), device, str(pool))
        return state.iteration

    def _updates(self) -> tuple[Update, ...]:
        return self.training.phases[self.phase].updates

    def _enter_phase(self, index: int) -> None:
        """Wrap the losses of a phase for the processes. Optimisers start without moments, as in the
        official second stage."""
        self.phase = index
        self.accelerator.free_memory()
        self.optimizers, self.losses = [], []
        for update in self._updates():
            self._train_only(update)
            self.optimizers.append(update.optimizer.make(update.parameters))
            self.losses.append(self.accelerator.prepare_model(update.loss))

    def _train_only(self, update: Update) -> None:
        """Freeze what an update does not change."""
        for network in self.training.networks().values():
            network.requires_grad_(False)
        for parameter in update.parameters:
            parameter.requires_grad_(True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"
        )

    def step(self, iteration: int, batches: list[Batch]) -> dict[str, Tensor]:
        """One iteration; returns the losses of its last micro-batch, by name."""
        index = self.training.phase_at(iteration)
        if index != self.phase:
            self._enter_phase(index)
        shown: dict[str, Tensor] = {}
        position = iteration - self.training.phases[index].first
        for update, optimizer, loss in zip(
            self._updates(), self.optimizers, self.losses, strict=True
        ):
            self._train_only(update)
            for group in optimizer.param_groups:
                group["lr"] = update.optimizer.rate_at(position)
            optimizer.zero_grad(set_to_none=True)
            for part, batch in enumerate(batches):
                last = part == len(batches) - 1
                apart = nullcontext() if last else self.accelerator.no_sync(loss)
                with apart, tf32(self.recipe.tf32):
                    with self._autocast():
                        values = loss(batch)
                    self.accelerator.backward(values["total"] / len(batches))
            if update.optimizer.clip:
                torch.nn.utils.clip_grad_norm_(update.parameters, update.optimizer.clip)
            optimizer.step()
            shown |= {f"{update.name}/{name}": value.detach() for name, value in values.items()}
        if self.average is not None:
            self.average.update(self.training.model)
        return shown

    def progress_bar(self, first: int) -> Any:
        """A bar over all iterations, on the first process only."""
        return tqdm(
            total=self.recipe.iterations,
            initial=first - 1,
            # None shows the bar on a terminal only.
            disable=None if self.accelerator.is_main_process else True,
            unit="it",
            mininterval=2.0,
            dynamic_ncols=True,
        )

    def asked(self, stop: StopRequest, pace: Pace) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether any finds a save due."""
        asked = torch.tensor([stop.came, pace.save_is_due()], dtype=torch.float32)
        if self.accelerator.num_processes > 1:
            asked = self.accelerator.reduce(asked.to(self.accelerator.device), "sum").cpu()
        return bool(asked[0] > 0), bool(asked[1] > 0)

    def report(
        self, iteration: int, shown: dict[str, Tensor], writer: Any, progress: Any, pace: Pace
    ) -> None:
        """Show the losses, which are means over the processes, and without a terminal the time."""
        means = {
            name: float(self.accelerator.reduce(value.float(), "mean"))
            for name, value in shown.items()
        }
        require_finite(means, iteration)
        self._report_skipped(iteration, writer)
        if writer is None:
            return
        text = {name: f"{value:.4f}" for name, value in means.items()}
        progress.set_postfix(text)
        if progress.disable:
            pairs = ", ".join(f"{name} {value}" for name, value in text.items())
            logger.info(
                "iteration %d of %d: %s; about %s left",
                iteration,
                self.recipe.iterations,
                pairs,
                duration(pace.left(iteration)),
            )
        for name, value in means.items():
            writer.add_scalar(name, value, iteration)
        for update, optimizer in zip(self._updates(), self.optimizers, strict=True):
            writer.add_scalar(f"{update.name}/rate", optimizer.param_groups[0]["lr"], iteration)

    def _report_skipped(self, iteration: int, writer: Any) -> None:
        """Count the pictures that no process can read, and name the latest of them."""
        from accelerate.utils import gather_object

        new = set(gather_object(sorted(self.source.skipped - self.skipped))) - self.skipped
        self.skipped |= new
        if writer is None:
            return
        writer.add_scalar("data/skipped", len(self.skipped), iteration)
        if new:
            names = ", ".join(sorted(new)[:SKIPPED_SHOWN])
            logger.warning(
                "%d pictures cannot be read and are skipped: %s%s",
                len(self.skipped),
                names,
                ", ..." if len(new) > SKIPPED_SHOWN else "",
            )

    @torch.no_grad()
    def validate(self, iteration: int, writer: Any) -> None:
        """Measure the restored held-out pictures, shared among the processes; keep the best."""
        assert self.validation is not None
        network = self.average.average if self.average is not None else self.training.model
        network.eval()
        names, device = self.validation.measures, self.accelerator.device
        total = torch.zeros(len(names) + 1, dtype=torch.float64)
        start, step = self.accelerator.process_index, self.accelerator.num_processes
        restore = partial(self.training.restore, network)
        for index in range(start, self.validation.count, step):
            lq, restored, hq = self.validation.restored(index, restore, device)
            measured = self.validation.measure(restored, hq, device)
            total += torch.tensor([*measured.values(), 1], dtype=torch.float64)
            if writer is not None and index // step < self.validation.recipe.pictures:
                row = side_by_side(lq, restored, hq)
                writer.add_image(f"validation/{index}", row, iteration)
        self.training.model.train()
        total = self.accelerator.reduce(total.float().to(device), "sum").cpu()
        means = dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True))
        if writer is None:
            return
        logger.info("iteration %d: %s", iteration, in_words(means))
        for name, value in means.items():
            writer.add_scalar(f"validation/{name}", value, iteration)
        decisive = self.recipe.validation.best
        if is_better(decisive, means[decisive], self.best):
            self.best = means[decisive]
            self._save_model(self.output / "best.safetensors", iteration)

    def save(self, iteration: int, shown: dict[str, Tensor]) -> None:
        """Write the model and the state; a loss that is not finite is never saved."""
        require_finite({name: float(value) for name, value in shown.items()}, iteration)
        pool = self.source.pool.state()
        if self.source.data.pool:
            write_part(self._pool_file(iteration), pool)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            tensors: dict[str, Tensor] = {}
            for name, network in self.training.kept_networks(self.average).items():
                tensors |= with_prefix(name, network.state_dict())
            for update, optimizer in zip(self._updates(), self.optimizers, strict=True):
                tensors |= with_prefix(f"{OPTIMIZERS}.{update.name}", optimizer_tensors(optimizer))
            save_state(
                self.state_file,
                TrainingState(
                    iteration=iteration,
                    tensors=tensors,
                    recipe=to_table(self.recipe),
                    processes=self.accelerator.num_processes,
                    best=self.best,
                ),
            )
            self._save_model(self.model_file, iteration)
            if self.recipe.keep:
                self._save_model(self.output / f"model_{iteration}.safetensors", iteration)
                keep_last(self.output, self.recipe.keep)
            for old in self.output.glob("pool_*.safetensors"):
                if not old.name.startswith(f"pool_{iteration}_"):
                    old.unlink()
        self.accelerator.wait_for_everyone()

    def _pool_file(self, iteration: int) -> Path:
        return self.output / f"pool_{iteration}_{self.accelerator.process_index}.safetensors"

    def _save_model(self, path: Path, iteration: int) -> None:
        network = self.average.average if self.average is not None else self.training.model
        save_checkpoint(network, path, metadata=model_header(iteration, to_table(self.recipe)))
