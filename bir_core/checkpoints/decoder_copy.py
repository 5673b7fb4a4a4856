"""A copy of a VAE's decoder that gradients can go through, for guidance on pixels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import BIRError
from ..networks.autoencoder import SDVAE, VAEConfig
from .diffbir import sd_vae_config


def decoder_config(tensors: Mapping[str, Tensor]) -> VAEConfig:
    """The sizes of a decoder, from its weights under the names below `first_stage_model.`.

    Raises:
        BIRError: another network than the autoencoder of Stable Diffusion.
    """
    encoder = ("encoder.", "quant_conv.")
    try:
        return sd_vae_config({k: v for k, v in tensors.items() if not k.startswith(encoder)})
    except (KeyError, IndexError):
        raise BIRError(
            "Guidance on pixels should have the VAE of Stable Diffusion, but a decoder of another "
            "layout came; connect the VAE of the base model, or choose the space latent."
        ) from None


def copy_decoder(
    tensors: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype
) -> SDVAE:
    """The decoding half of an autoencoder; only its `decode` may be used.

    The weights are copied because ComfyUI's belong to an inference mode that autograd refuses, and
    may lie on another device while they are not in use.

    Args:
        tensors: weights under the published names below `first_stage_model.`; those of the encoder
            are not needed.
        device, dtype: of the copy.

    Raises:
        BIRError: another network than the autoencoder of Stable Diffusion.
    """
    with torch.inference_mode(False):
        with torch.device("meta"):
            copy = SDVAE(decoder_config(tensors))
        # What only encodes stays without memory.
        del copy.encoder, copy.quant_conv
        weights = {name: tensors[name].to(device, dtype, copy=True) for name in copy.state_dict()}
        copy.load_state_dict(weights, assign=True)
        return copy.eval().requires_grad_(False)
