"""Tiled sampling as a patch of a MODEL: what the network sees at each step is cut into tiles.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import copy
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.controlnet
import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...bir_core.diffbir.network_memory import tiles_at_a_time
from ...bir_core.errors import BIRError
from ...bir_core.fallbacks import Attempt, first_that_fits
from ...bir_core.latents import LATENT_FACTOR
from ...bir_core.tiling import Tile, TileGrid, TileWeights, on_canvas, tiled_apply, tiles
from . import tile_prompts
from .control import AREA, WINDOW, AreaOffset, IRControlNet
from .messages import TileProgress, which_step
from .node import spoken
from .protocols import Cond, ControlNet, DiffusionModel, Model
from .supir import crop_supir
from .tile_conds import crop_model_cond, of_tiles, tile_area, whole_hints

KEY = "bir_tiled_diffusion"
# The part of the free memory that ComfyUI itself leaves unused when it batches conditionings.
RESERVE = 1.5
MOST = 1024
# The stock node that keeps what it saw in one call of the network for all of the picture.
WHOLE_ATTENTION = "SelfAttentionGuidance."
# The stock patches of models for pictures that bring theirs to the size of whatever is sampled, so
# that every tile would get all of it.
WHOLE_PICTURE = ("DiffSynthCnetPatch", "ZImageControlPatch")

Conds = Sequence[list[Cond] | None]


@dataclass
class TilingPatch:
    """Runs the network on overlapping tiles and blends what it gives, at every evaluation.

    Noise, sampler and guidance act on the whole latent.

    Attributes:
        tile, overlap: in latent pixels.
        weights: how tiles are blended, see `bir_core.tiling.tile_weights`.
        tile_batch: tiles in one call of the network; 0 chooses by the free memory.
        place: the only part of the latent that is sampled, in latent pixels, and 0 is given around
            it; None for all of it.
        progress: is told of every call.
        factor: pixels of the picture to a side of one of the latent.
    """

    tile: int
    overlap: int
    weights: TileWeights
    tile_batch: int
    place: Tile | None = None
    progress: TileProgress = field(default_factory=TileProgress)
    factor: int = LATENT_FACTOR
    # By the id of a control net: its parts by tiles, and its hint at the size of the picture. The
    # originals are kept with them, so that an id stays theirs.
    _controls: dict[tuple[int, tuple[Tile, ...]], tuple[ControlNet, ControlNet]] = field(
        default_factory=dict
    )
    _hints: dict[int, tuple[ControlNet, Tensor, list[Tensor]]] = field(default_factory=dict)
    _most: int = MOST  # tiles at a time, after the memory has run out

    def attach(self, model: Model) -> Model:
        """A MODEL like `model` that works in tiles."""
        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, self)
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, self.reserve)
        patched.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, self.clean_up)
        return patched

    @spoken
    def reserve(
        self,
        executor: Callable[..., object],
        model: Model,
        noise_shape: Sequence[int],
        conds: dict[str, list[Cond]],
        *args: object,
        **kwargs: object,
    ) -> object:
        """Before the sampling: the prompts of tiles are counted, and memory is reserved for a batch
        of tiles instead of the whole picture."""
        *lead, height, width = noise_shape
        places = [tile_prompts.place_of(cond) for group in conds.values() for cond in group]
        grid = TileGrid(height, width, self.tile, self.overlap)
        tile_prompts.require_number(places, grid, lead[0])
        if self.place is not None:
            height, width = self.place.height, self.place.width
        if max(height, width) > self.tile:
            lead[0] *= max(1, self.tile_batch)
        size = (min(height, self.tile), min(width, self.tile))
        controls = [cond.get("control") for group in conds.values() for cond in group]
        own = [
            net for control in controls for net in chain(control) if isinstance(net, IRControlNet)
        ]
        for net in own:
            net.largest = size
        try:
            return executor(model, [*lead, *size], conds, *args, **kwargs)
        finally:
            for net in own:
                net.largest = None

    def clean_up(self, _: Model) -> None:
        """Called after every sampling, whatever its end."""
        self._controls.clear()
        self._hints.clear()
        self._most = MOST
        self.progress.restart()

    @spoken
    def __call__(
        self,
        executor: Callable[..., list[Tensor]],
        model: DiffusionModel,
        conds: Conds,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """In the place of ComfyUI's calculation of all conditionings: one output (B, C, H, W) for
        each of `conds`."""
        if x.ndim != 4:
            raise BIRError(
                "Tiled sampling should get latents of pictures, (B, C, h, w), but the model "
                f"samples {tuple(x.shape)}; use it with a model for pictures, such as Stable "
                "Diffusion 1, 2 or XL."
            )
        size = (x.shape[-2], x.shape[-1])
        grid = TileGrid(*size, self.tile, self.overlap)
        place = self.place or Tile(0, 0, *size)
        plan = tiles(place.height, place.width, self.tile, self.overlap)
        prompted = partial(tile_prompts.prompted, conds, grid, len(x))
        if len(plan) == 1 and self.place is None:
            return executor(model, prompted(plan), x, timestep, model_options)
        require_tileable(conds, model_options)
        if WINDOW in model_options.get("transformer_options", {}):
            raise BIRError(
                "Tiles should be cut once, but Tiled Diffusion is applied to this model twice; "
                "remove one of the nodes (DiffBIR Sampler has tiles of its own)."
            )

        sigmas = model_options["transformer_options"]["sample_sigmas"]
        # Read before the device has work, so that no tile waits for the one before it.
        step, steps = which_step(timestep[0], sigmas), len(sigmas) - 1

        def run_tiles(pieces: Tensor, chosen: Sequence[Tile]) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            options = dict(model_options)
            cuts = [
                Tile(place.y + piece.y, place.x + piece.x, piece.height, piece.width)
                for piece in chosen
            ]
            windows = [(cut.y, cut.x, *size) for cut in cuts]
            asked = model_options.get("transformer_options", {})
            options["transformer_options"] = {
                **asked,
                "patches": crop_supir(
                    asked.get("patches", {}), size, lambda hint: of_tiles(hint, cuts, len(x))
                ),
                WINDOW: windows,
            }
            cropped = [self.crop_conds(cond, size, cuts, len(x)) for cond in prompted(cuts)]
            times = timestep.repeat(len(chosen))
            outputs = executor(model, cropped, pieces, times, options)
            self.release()
            self.progress.tell(plan.index(chosen[-1]) + 1, len(plan), step, steps)
            return torch.cat(outputs, dim=1)

        batch = 1 if has_areas(conds) else self.tile_batch or free_batch(model, conds, x, plan)
        fused = self.blend(run_tiles, place.crop(x), min(batch, self._most))
        if self.place is not None:
            fused = on_canvas(fused, place, *size)
        return list(fused.chunk(len(conds), dim=1))

    def blend(self, run_tiles: Callable[..., Tensor], x: Tensor, batch: int) -> Tensor:
        """`tiled_apply`, with fewer tiles at a time where the memory runs out."""

        def run(count: int) -> Tensor:
            return tiled_apply(
                run_tiles,
                x,
                self.tile,
                self.overlap,
                weights=self.weights,
                tile_batch=count,
            )

        def attempts() -> Iterator[Attempt[Tensor]]:
            count = batch
            yield "", partial(run, count)
            while count > 1:
                self._most = count = count // 2
                yield f"going on with {count} tiles at a time", partial(run, count)

        return first_that_fits(
            attempts(),
            f"Tiled sampling should find memory for one tile of {self.tile * self.factor} "
            "pixels, but it ran out; take smaller tiles.",
        )

    def crop_conds(
        self, conds: list[Cond] | None, size: tuple[int, int], chosen: Sequence[Tile], batch: int
    ) -> list[Cond] | None:
        """The conditionings as the chosen tiles see them; those whose area misses them are left
        out.

        Args:
            size: of the whole latent.
            batch: samples of each tile.
        """
        if conds is None:
            return None
        cropped = []
        for cond in conds:
            own = dict(cond)
            # Whoever keeps something of a conditioning, as EasyCache does, finds it by this.
            own["uuid"] = uuid.uuid5(cond["uuid"], repr(chosen))
            if "area" in own:
                own["area"] = tile_area(own["area"], chosen[0])
                if own["area"] is None:
                    continue
            if "mask" in own:
                own["mask"] = of_tiles(own["mask"], chosen, batch)
            own["model_conds"] = {
                name: crop_model_cond(value, size, chosen, batch)
                for name, value in own["model_conds"].items()
            }
            if "area" in own:
                own["model_conds"][AREA] = AreaOffset([(0, 0)])
            if own.get("control") is not None:
                own["control"] = self.control(own["control"], size, tuple(chosen), batch)
            cropped.append(own)
        return cropped

    def control(
        self, control: ControlNet, size: tuple[int, int], chosen: tuple[Tile, ...], batch: int
    ) -> ControlNet:
        """A control net that sees the part of its hint that belongs to the tiles. IRControlNet
        finds it by itself; the others get a copy for each tile that shares their weights.

        The same copy serves every conditioning and step: ComfyUI batches conditionings whose
        control net is one object.
        """
        previous = control.previous_controlnet
        if previous is not None:
            previous = self.control(previous, size, chosen, batch)
        if isinstance(control, IRControlNet) and previous is control.previous_controlnet:
            return control
        key = (id(control), chosen)
        if key not in self._controls:
            self._controls[key] = control, self._windowed(control, size, chosen, batch, previous)
        return self._controls[key][1]

    def release(self) -> None:
        """Drop the hints that control nets have brought to the device, which together are larger
        than the picture; what a VAE has encoded stays."""
        for _, part in self._controls.values():
            if type(part) is not IRControlNet and part.vae is None:
                part.cond_hint = None

    def _windowed(
        self,
        control: ControlNet,
        size: tuple[int, int],
        chosen: tuple[Tile, ...],
        batch: int,
        previous: ControlNet | None,
    ) -> ControlNet:
        part = copy.copy(control)
        part.previous_controlnet = previous
        part.multigpu_clones = {
            device: self.control(clone, size, chosen, batch)
            for device, clone in control.multigpu_clones.items()
        }
        if isinstance(control, IRControlNet):
            return part
        if id(control) not in self._hints:
            self._hints[id(control)] = control, *whole_hints(control, size)
        _, hint, extras = self._hints[id(control)]
        part.cond_hint_original = of_tiles(hint, chosen, batch, hint.shape[-1] // size[1])
        part.extra_concat_orig = [
            of_tiles(extra, chosen, batch, extra.shape[-1] // size[1]) for extra in extras
        ]
        # What the original computed from its whole hint.
        part.cond_hint = None
        if isinstance(part, comfy.controlnet.T2IAdapter):
            part.control_input = None
        return part


def chain(control: ControlNet | None) -> Iterator[ControlNet]:
    """A control net and those before it."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def require_tileable(conds: Conds, model_options: Mapping[str, Any]) -> None:
    """Raise BIRError for what cannot be cut into tiles."""
    options = model_options.get("transformer_options", {})
    attention = options.get("patches_replace", {}).get("attn1", {})
    names = [getattr(patch, "__qualname__", "") for patch in attention.values()]
    if any(name.startswith(WHOLE_ATTENTION) for name in names):
        raise BIRError(
            "Tiled sampling should go without Self-Attention Guidance, which keeps the attention "
            "of the last tile for the whole picture; remove that node, or take Perturbed-Attention "
            "Guidance."
        )
    patches = [patch for entries in options.get("patches", {}).values() for patch in entries]
    if any(type(patch).__name__ in WHOLE_PICTURE for patch in patches):
        raise BIRError(
            "Tiled sampling should get control nets and SUPIR, whose pictures are cut with the "
            "tiles, but a model patch with a control picture came, which cannot be cut; leave it "
            "out, or the tiles."
        )
    if any("gligen" in cond for group in conds for cond in group or ()):
        raise BIRError(
            "Tiled sampling should get prompts, areas, masks and control nets, but a GLIGEN box "
            "came, which cannot be cut; use area conditioning instead."
        )


def has_areas(conds: Conds) -> bool:
    return any("area" in cond for group in conds for cond in group or ())


def free_batch(model: DiffusionModel, conds: Conds, x: Tensor, plan: Sequence[Tile]) -> int:
    """How many tiles the free memory takes at a time. What one takes ComfyUI knows, for every kind
    of model that it samples."""
    free = model.current_patcher.get_free_memory(x.device)
    samples = len(x) * sum(group is not None for group in conds)
    one = model.memory_required([samples, x.shape[1], plan[0].height, plan[0].width])
    return tiles_at_a_time(len(plan), one, free / RESERVE, x.device)
