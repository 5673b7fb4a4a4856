"""The base model of an IRControlNet: whether it is one, what its sampling is set to, and how that
is set.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import comfy.model_management
import comfy.model_sampling
from torch import Tensor

from ...bir_core.diffbir.versions import VERSIONS, DiffBIRVersion
from ...bir_core.diffbir.which_version import ask_network
from ...bir_core.diffusion.denoisers import Parameterization
from ...bir_core.errors import BIRError
from ...bir_core.networks.unet import UNetConfig
from .protocols import DiffusionModel, Model, ModelSampling

ZERO_SNR_SIGMA = 100.0  # the plain schedule of Stable Diffusion ends at 14.6, zero SNR at 4519
ANSWER = "bir_predicts"
LOAD_BASE = "load Stable Diffusion 2.1 base, or DiffBIR's zero-SNR base for v2.1"


class EpsSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """What the node ModelSamplingDiscrete makes of eps."""


class VSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """What the node ModelSamplingDiscrete makes of v_prediction."""


SAMPLINGS: dict[Parameterization, type[EpsSampling | VSampling]] = {
    "eps": EpsSampling,
    "v": VSampling,
}
PREDICTIONS: dict[Parameterization, str] = {"eps": "eps", "v": "v-prediction"}
# What the node ModelSamplingDiscrete calls them.
STOCK_NAMES: dict[Parameterization, str] = {"eps": "eps", "v": "v_prediction"}


def set_to(model: Model, version: DiffBIRVersion) -> Model:
    """A MODEL like `model` whose prediction and noise levels are those of a version's base."""
    patched = model.clone()
    sampling = SAMPLINGS[version.parameterization]
    config = model.model.model_config
    patched.add_object_patch("model_sampling", sampling(config, zsnr=version.zero_snr))
    return patched


def predicts(model: Model, config: UNetConfig) -> Parameterization | None:
    """What the network of a MODEL was trained to predict, whatever the MODEL is set to: it is asked
    once, and the answer stays with its weights. None where it is not clear.

    Args:
        config: its sizes.
    """
    network = model.model
    if not hasattr(network, ANSWER):
        comfy.model_management.load_models_gpu([model])

        def call(noise: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
            # Without the sampling, which would make of the output what the model is set to.
            return network.diffusion_model(
                noise, timestep.float(), context=context, control=None, transformer_options={}
            )

        dtype = network.get_dtype_inference()
        answer = ask_network(call, config, model.load_device, dtype)
        setattr(network, ANSWER, answer.predicts)
    answered: Parameterization | None = getattr(network, ANSWER)
    return answered


def fits(sampling: ModelSampling, version: DiffBIRVersion) -> bool:
    """Whether prediction and noise levels are those of a version's base."""
    return setting_of(sampling) == setting_for(version)


def version_set(sampling: ModelSampling) -> str | None:
    """The name of the newest version whose base is set like this, None if no version's is."""
    return next((name for name in reversed(VERSIONS) if fits(sampling, VERSIONS[name])), None)


def setting_of(sampling: ModelSampling) -> str:
    """What a model predicts and where its noise ends, in words."""
    # By the method and not by the class, from which others are derived that predict otherwise.
    found = type(sampling).calculate_denoised
    prediction = next(
        (
            PREDICTIONS[name]
            for name, kind in SAMPLINGS.items()
            if isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
            and found is kind.calculate_denoised
        ),
        "another prediction",
    )
    return _in_words(prediction, float(sampling.sigma_max) > ZERO_SNR_SIGMA)


def setting_for(version: DiffBIRVersion) -> str:
    """What the base of a version predicts and where its noise ends, in words."""
    return _in_words(PREDICTIONS[version.parameterization], version.zero_snr)


def _in_words(prediction: str, zero_snr: bool) -> str:
    return f"{prediction} with {'zero terminal SNR' if zero_snr else 'the plain schedule'}"


def other_base(sampling: ModelSampling, name: str | None) -> str | None:
    """That the base is set otherwise than a version's has to be, with what to do, as a sentence;
    None if it is right or the version unknown."""
    if name is None or fits(sampling, VERSIONS[name]):
        return None
    version = VERSIONS[name]
    return (
        f"DiffBIR {name} expects a base with {setting_for(version)}, but this one is set to "
        f"{setting_of(sampling)}; {how_to_set(version)}."
    )


def how_to_set(version: DiffBIRVersion) -> str:
    """What to do for the base of a version, as the end of a sentence."""
    return (
        f"put the node ModelSamplingDiscrete ({STOCK_NAMES[version.parameterization]}, zsnr "
        f"{'on' if version.zero_snr else 'off'}) before the sampler, or lead the model through "
        "DiffBIR Conditioning"
    )


def require_base(model: DiffusionModel, config: UNetConfig) -> None:
    """Raise BIRError unless `model` is a base that an IRControlNet of this config can steer."""
    unet = model.model_config.unet_config
    found = f"{type(model.model_config).__name__} model"
    if unet.get("context_dim") != config.context_dim or unet.get("adm_in_channels"):
        raise BIRError(
            f"IRControlNet should steer Stable Diffusion 2.1, but a {found} came; {LOAD_BASE}."
        )
    if not isinstance(model.model_sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise BIRError(
            "IRControlNet should see the 1000 trained timesteps of Stable Diffusion, but the "
            f"{found} was given another sampling; set ModelSamplingDiscrete to eps or v_prediction."
        )
    theirs = (unet["model_channels"], tuple(unet["channel_mult"]))
    ours = (config.model_channels, config.channel_mult)
    blocks = unet["num_res_blocks"]
    same_depth = set([blocks] if isinstance(blocks, int) else blocks) == {config.num_res_blocks}
    if theirs != ours or not same_depth:
        raise BIRError(
            f"IRControlNet should have the blocks of the base model, {theirs[0]} channels times "
            f"{theirs[1]}, but has {ours[0]} times {ours[1]} or another depth; {LOAD_BASE}."
        )
