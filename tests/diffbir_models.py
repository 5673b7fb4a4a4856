"""Small networks of DiffBIR with the weights of rule W, as the end-to-end vectors have them."""

import json

import torch
from parity import fill_by_rule_w, swinir_settings, unet_settings, vae_settings

from bir_core.networks.autoencoder import SDVAE, VAEConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.networks.text_encoder import TextEncoder, TextEncoderConfig
from bir_core.networks.unet import SDUNet, UNetConfig

TINY_UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1,),
    num_res_blocks=1,
    attention_resolutions=(1,),
    num_head_channels=32,
    context_dim=32,
)
TINY_VAE = VAEConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
TINY_SWINIR = SwinIRConfig(embed_dim=12, depths=(2,), num_heads=(2,))


class Weights:
    """A state dict of a network that is not here, to be filled by the rule of the vectors."""

    def __init__(self, shapes):
        self.weights = {name: torch.empty(shape) for name, shape in shapes.items()}

    def state_dict(self):
        return self.weights


def filled(network, base):
    network = network.eval().requires_grad_(False)
    fill_by_rule_w(network, base)
    return network


def text_tower_weights(base, width=32, layers=3):
    """The published layout: a last block that does not run, and what only CLIP needs."""
    config = TextEncoderConfig(width=width, heads=1, layers=layers)
    own = TextEncoder(config).state_dict()
    shapes = {f"model.{name}": tuple(value.shape) for name, value in own.items()}
    shapes |= {"model.text_projection": (width, width), "model.logit_scale": ()}
    state = Weights(shapes)
    check = fill_by_rule_w(state, base)
    return state.weights, check


def save_base(path):
    """The tiny networks as a Stable Diffusion checkpoint; returns them."""
    networks = tiny_networks()
    prefixes = {"sd_unet": "model.diffusion_model.", "sd_vae": "first_stage_model."}
    base = {
        prefix + key: value
        for name, prefix in prefixes.items()
        for key, value in networks[name].state_dict().items()
    }
    tower, _ = text_tower_weights(4000)
    base |= {f"cond_stage_model.{key}": value for key, value in tower.items()}
    torch.save({"state_dict": base}, path)
    return networks


def text_encoder(weights, heads=4):
    """The tower with another number of heads than its width says."""
    width = weights["model.positional_embedding"].shape[1]
    encoder = TextEncoder(TextEncoderConfig(width=width, heads=heads, layers=2)).eval()
    own = {name: weights[f"model.{name}"] for name in encoder.state_dict()}
    encoder.load_state_dict(own)
    return encoder.requires_grad_(False)


def networks_of_vectors(metadata):
    """UNet, IRControlNet, VAE and text encoder of `diffbir_e2e`."""
    sizes, bases = (json.loads(metadata[name]) for name in ("config_cldm", "rule_bases"))
    config = UNetConfig(**unet_settings(json.dumps(sizes["unet_cfg"])))
    vae = VAEConfig(**vae_settings(json.dumps(sizes["vae_cfg"])))
    networks = {
        "sd_unet": filled(SDUNet(config), bases["unet"]),
        "ir_controlnet": filled(IRControlNet(config), bases["controlnet"]),
        "sd_vae": filled(SDVAE(vae), bases["vae"]),
    }
    return networks, text_encoder(text_tower_weights(bases["clip"])[0])


def swinir_of_vectors(metadata):
    base = json.loads(metadata["rule_bases"])["swinir"]
    return filled(SwinIR(SwinIRConfig(**swinir_settings(metadata["config_swinir"]))), base)


def tiny_networks():
    """Networks that take milliseconds for 64 x 64 pixels and follow condition and prompt."""
    unet = filled(SDUNet(TINY_UNET), 1000)
    unet.out[2].weight.mul_(0.2)
    vae = filled(SDVAE(TINY_VAE), 3000)
    vae.decoder.conv_out.weight.mul_(0.3)
    return {
        "sd_unet": unet,
        "ir_controlnet": filled(IRControlNet(TINY_UNET), 2000),
        "sd_vae": vae,
    }


def taught(unet, target):
    """A UNet whose last layer fits `target` for pure noise at the last timestep, by least squares:
    what it predicts is known. Only the input reaches that layer, nearly linearly."""
    block, transformer = unet.output_blocks[-1]
    width = unet.config.model_channels
    for layer in (block.out_layers[-1], transformer.proj_out):
        layer.weight.zero_()
        layer.bias.zero_()
    block.skip_connection.weight[:, :-width] = 0
    unet.out[0].weight.mul_(0.1)
    seen, rows, goals = [], [], []
    hook = unet.out[2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for seed in range(10, 14):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 4, 32, 32, generator=generator)
        context = torch.randn(1, 77, unet.config.context_dim, generator=generator)
        unet(noise, torch.tensor([999]), context)
        patches = torch.nn.functional.unfold(seen.pop(), 3, padding=1)[0].T
        rows.append(torch.cat([patches, torch.ones(len(patches), 1)], dim=1))
        goals.append(target(noise)[0].flatten(1).T)
    hook.remove()
    fitted = torch.linalg.lstsq(torch.cat(rows), torch.cat(goals)).solution
    unet.out[2].weight.copy_(fitted[:-1].T.reshape(unet.out[2].weight.shape))
    unet.out[2].bias.copy_(fitted[-1])
    return unet
