"""IRControlNet (Lin et al., "DiffBIR: Towards Blind Image Restoration with Generative Diffusion
Prior", 2023, section 3.3): a trainable copy of the UNet's encoder that sees the condition latent
joined to the noisy one and steers the frozen UNet through 13 residuals.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from ..errors import BIRError
from .layers import require_sides
from .unet import SDUNet, UNetConfig, UNetEncoder

HINT_CHANNELS = 4


class IRControlNet(UNetEncoder):
    """Attribute names are the keys of the published files of DiffBIR v1, v2 and v2.1, which hold
    the same network. A new one has zero convolutions at its outputs: it changes nothing yet."""

    def __init__(
        self, config: UNetConfig, *, checkpoint: bool = False, operations: ModuleType = nn
    ) -> None:
        super().__init__(
            config,
            config.in_channels + HINT_CHANNELS,
            checkpoint=checkpoint,
            operations=operations,
        )

        def zero_conv(channels: int) -> nn.Sequential:
            conv = operations.Conv2d(channels, channels, 1)
            for parameter in conv.parameters():
                nn.init.zeros_(parameter)
            return nn.Sequential(conv)

        self.zero_convs = nn.ModuleList(zero_conv(channels) for channels in self.skip_channels)
        self.middle_block_out = zero_conv(self.skip_channels[-1])

    @classmethod
    def from_unet(cls, unet: SDUNet, *, checkpoint: bool = False) -> "IRControlNet":
        """A network to train: the UNet's weights, zeros where the condition enters and where the
        residuals leave, so that training starts from the UNet's own behaviour.

        Returns:
            Float32, on the device of the UNet, with gradients.
        """
        copy = cls(unet.config, checkpoint=checkpoint)
        weights = copy.state_dict()
        first = "input_blocks.0.0.weight"
        for name, value in unet.state_dict().items():
            if name == first:
                width = unet.config.in_channels
                weights[name][:, :width] = value
                weights[name][:, width:] = 0
            elif name in weights:
                weights[name].copy_(value)
        return copy.to(next(unet.parameters()).device)

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> list[Tensor]:
        """The residuals for `SDUNet`.

        Args:
            x: noisy latent (B, 4, h, w), as the UNet gets it.
            hint: condition latent (B, 4, h, w): mode of the VAE's encoding of the stage-1 image,
                `latent_scale` applied.
            timesteps: (B,), as the UNet gets them.
            context: text embedding (B, L, context_dim), as the UNet gets it.

        Returns:
            One residual per input block, then the middle's (13 for SD 2.1), at strength 1.

        Raises:
            BIRError: wrong shapes.
        """
        require_sides(hint, HINT_CHANNELS, 1, "The condition latent")
        if hint.shape[0] != x.shape[0] or hint.shape[-2:] != x.shape[-2:]:
            raise BIRError(
                f"The condition latent should have the batch and the size of the noisy one, "
                f"{tuple(x.shape)}, but {tuple(hint.shape)} came; resize the image before encoding."
            )
        emb = self.embed_time(timesteps, x)
        outputs = self.encode(torch.cat([x, hint], dim=1), emb, context)
        convs = (*self.zero_convs, self.middle_block_out)
        return [conv(output) for conv, output in zip(convs, outputs, strict=True)]
