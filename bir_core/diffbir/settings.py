"""How DiffBIR restores a picture: every number and choice of a run, checked before the work."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ..diffusion.sampling import named_sampler
from ..diffusion.schedules import TRAINED_STEPS, sampling_schedule, sd_alphas_cumprod
from ..errors import BIRError
from ..latents import LATENT_FACTOR, PADDED_MULTIPLE
from ..memory import MemoryPlan
from ..tiling import SMALLEST_TILE, TileWeights, tile_starts
from .color_fix import COLOR_FIXES
from .stage1 import SHORT_SIDE
from .versions import find_version

Start = Literal["noise", "condition"]
GuidanceSpace = Literal["latent", "rgb"]
GuidanceLoss = Literal["w_mse", "mse"]
GuidancePer = Literal["picture", "512x512"]
Padding = Literal["reflect", "symmetric", "black"]
# What the fields of these names may be, for the settings, the command line and the nodes.
CHOICES: dict[str, tuple[str, ...]] = {
    "start": get_args(Start),
    "guidance_space": get_args(GuidanceSpace),
    "guidance_loss": get_args(GuidanceLoss),
    "guidance_per": get_args(GuidancePer),
    "color_fix": (*COLOR_FIXES, "none"),
    "padding": get_args(Padding),
}


@dataclass(frozen=True, kw_only=True)
class DiffBIRSettings:
    """How a picture is restored; `official_settings` gives those of a version.

    Attributes:
        sampler: a name of `diffusion.sampling.SAMPLERS`.
        steps: of the sampler.
        cfg: how strongly the prompts count; at 1 the negative one is not used.
        rescale_cfg: let cfg grow from 1 to 1 + cfg along the sampling.
        sampler_options: eta, s_noise, s_churn, s_tmin, s_tmax, order; those that the sampler has.
        strength: factor on the control; 1 as trained, 0 leaves IRControlNet out.
        noise_aug: timestep (0 to 999) up to which noise is put on the condition; v2.1 was trained
            with 0 to 199.
        start: from noise alone, or from the condition under the noise of timestep 999.
        guidance: scale of restoration guidance, 0 for none; 0.5 for 512 x 512 pixels.
        guidance_space: the loss on latents, or on pixels as in the paper.
        guidance_loss: "w_mse" holds flat regions and frees edges, "mse" holds everything alike.
        guidance_per: "picture" as in the official code, whose pull on a pixel falls with the size
            of the picture; "512x512" for a `guidance` that means the same at any size.
        guidance_start, guidance_stop: active at timesteps t with stop < t + 1 < start.
        guidance_repeats: pulls at each step.
        tile, overlap: in pixels, multiples of 64 and of 8: the sampling works on tiles of this side
            where the picture is larger, with at most half a tile of overlap; 0 for the whole
            picture; None for 512, or less where the memory asks for it (see `memory_plan`).
        tile_weights, tile_batch: see `tiling.tiled_apply`; a tile_batch of None is chosen by the
            memory.
        vae_tile: side in pixels of the pieces of the VAE, which change memory and not the result;
            0 for the whole picture at once, None is chosen by the memory.
        stage1_tile, stage1_overlap: see `stage1.restore_stage1`; a tile of None is the whole
            picture, or the largest that fits.
        color_fix: a name of `color_fix.COLOR_FIXES`, or "none".
        blending: share of the stage-1 picture in the result, 0 to 1.
        padding: how the picture is continued to multiples of 64 pixels, in both stages; "black" as
            in the official code.
        short_side: least pixels of the picture's smaller side on the way; 0 for no such bound.
    """

    sampler: str = "dpmpp_3m_sde"
    steps: int = 10
    cfg: float = 8.0
    rescale_cfg: bool = False
    sampler_options: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    noise_aug: int = 0
    start: Start = "noise"
    guidance: float = 0.0
    guidance_space: GuidanceSpace = "latent"
    guidance_loss: GuidanceLoss = "w_mse"
    guidance_per: GuidancePer = "picture"
    guidance_start: float = 1001.0
    guidance_stop: float = -1.0
    guidance_repeats: int = 1
    tile: int | None = None
    overlap: int = 256
    tile_weights: TileWeights = "gaussian"
    tile_batch: int | None = None
    vae_tile: int | None = None
    stage1_tile: int | None = None
    stage1_overlap: int = 0
    color_fix: str = "wavelet"
    blending: float = 0.0
    padding: Padding = "reflect"
    short_side: int = SHORT_SIDE

    def __post_init__(self) -> None:
        sampler = named_sampler(self.sampler, self.sampler_options)
        sampling_schedule(sampler.plan, sd_alphas_cumprod(), self.steps)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BIRError(
                    f"Expected one of {', '.join(choices)} for {name}, but {getattr(self, name)!r} "
                    "came; choose one of these."
                )
        if not 0 <= self.blending <= 1:
            raise BIRError(
                f"The blending should be a share from 0 to 1, but {self.blending} came; choose one "
                "in this range."
            )
        if not 0 <= self.noise_aug < TRAINED_STEPS:
            raise BIRError(
                f"The noise on the condition should be a timestep from 0 to {TRAINED_STEPS - 1}, "
                f"but {self.noise_aug} came; choose one in this range."
            )
        if (self.stage1_tile or 0) % SMALLEST_TILE:
            raise BIRError(
                f"A tile of stage 1 should be a multiple of {SMALLEST_TILE} pixels, but "
                f"{self.stage1_tile} came; choose another number, or 0 for none."
            )
        if self.vae_tile and self.vae_tile < SMALLEST_TILE:
            raise BIRError(
                f"A tile of the VAE should be at least {SMALLEST_TILE} pixels wide, but "
                f"{self.vae_tile} came; choose a larger one, or 0 for none."
            )
        if self.guidance_repeats < 1:
            raise BIRError(
                f"The guidance should pull at least once at a step, but {self.guidance_repeats} "
                "times came; choose 1 or more, or a guidance of 0 for none."
            )
        if self.tile_batch is not None and self.tile_batch < 1:
            raise BIRError(
                f"At least one tile should be in a batch of tiles, but {self.tile_batch} came; "
                "choose 1 or more."
            )
        if self.tile != 0:
            # What the memory chooses are such tiles, with an overlap that the user chose.
            tile = SMALLEST_TILE if self.tile is None else self.tile
            if tile % PADDED_MULTIPLE or self.overlap % LATENT_FACTOR:
                raise BIRError(
                    f"A tile of the sampling should be a multiple of {PADDED_MULTIPLE} pixels and "
                    f"its overlap of {LATENT_FACTOR}, but {tile} and {self.overlap} came; "
                    "choose other numbers, or the tile 0 for none."
                )
            tile_starts(tile, tile, min(self.overlap, tile // 2))

    @property
    def uses_negative(self) -> bool:
        """Whether the negative prompt counts."""
        return self.cfg != 1 or self.rescale_cfg

    @property
    def guidance_in_pixels(self) -> bool:
        """Whether there is guidance that goes through the decoder."""
        return bool(self.guidance) and self.guidance_space == "rgb"


def official_settings(version: str) -> DiffBIRSettings:
    """The sampler, its steps and the cfg that the authors give with a version."""
    return DiffBIRSettings(**find_version(version).settings)


def settled(settings: DiffBIRSettings, plan: MemoryPlan) -> DiffBIRSettings:
    """The settings with the plan's numbers in the place of those that were left to it."""
    sampling = plan.stage("sampling")
    return replace(
        settings,
        stage1_tile=plan.stage("stage 1").tile,
        vae_tile=plan.stage("decoding").tile,
        tile=sampling.tile,
        tile_batch=sampling.tile_batch,
    )
