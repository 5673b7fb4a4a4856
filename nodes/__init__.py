"""The ComfyUI layer: thin nodes over `bir_core`."""

from comfy_api.latest import ComfyExtension, io

from ..bir_core import spandrel_plugin
from .color import BIRColorFix
from .control import DiffBIRConditioning, DiffBIRControlNetLoader
from .degrade import BIRDegrade
from .diffir import DiffIRLoader, DiffIRRestore
from .estimate import BIREstimate
from .faces import BIRCutFaces, BIRDetectFaces, BIRPasteFaces
from .folder import BIRLoadFolder
from .guidance import DiffBIRGuidance
from .host import messages, services
from .levels import BIRUndoFading
from .measure import BIRMeasure
from .photo import BIRRestorePhoto
from .plan import BIRPlan
from .sampler import DiffBIRSampler
from .sampling import DiffBIRCFGGuider, DiffBIRScheduler
from .scratches import BIRFindScratches
from .stage1 import BIRCrop, BIRRestorationModule
from .tiles import BIRJoinTiles, BIRSplitTiles, BIRTilePrompts
from .tiling import DiffBIRTiledDiffusion
from .try_crop import BIRTryCrop
from .vae import BIRVAEDecodeTiled, BIRVAEEncodeTiled

NODES: list[type[io.ComfyNode]] = [
    BIRRestorePhoto,
    DiffIRLoader,
    DiffIRRestore,
    BIRRestorationModule,
    DiffBIRControlNetLoader,
    DiffBIRConditioning,
    DiffBIRScheduler,
    DiffBIRCFGGuider,
    DiffBIRGuidance,
    DiffBIRTiledDiffusion,
    DiffBIRSampler,
    BIRVAEEncodeTiled,
    BIRVAEDecodeTiled,
    BIRColorFix,
    BIRCrop,
    BIRLoadFolder,
    BIRTilePrompts,
    BIRSplitTiles,
    BIRJoinTiles,
    BIRFindScratches,
    BIRUndoFading,
    BIRDegrade,
    BIREstimate,
    BIRMeasure,
    BIRPlan,
    BIRTryCrop,
    BIRDetectFaces,
    BIRCutFaces,
    BIRPasteFaces,
]


class BIRExtension(ComfyExtension):
    async def on_load(self) -> None:
        services.register_model_folders()
        messages.show_warnings()
        spandrel_plugin.register(callback=services.raise_if_cancelled)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    return BIRExtension()
