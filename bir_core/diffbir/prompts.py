"""From prompts to the context of the UNet and IRControlNet: text embeddings (1, 77, 1024).

An embedding comes from a file that was made before, or from the text tower of Stable Diffusion 2.1
(`networks/text_encoder.py`). Words are cut into tokens by the tokenizer of the package open_clip
(the extra `text`); the empty prompt needs no tokenizer.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.files import read_checkpoint, write_tensors
from ..errors import BIRError
from ..images import require_finite
from ..networks.text_encoder import CONTEXT_LENGTH, TextEncoder
from .settings import DiffBIRSettings

START_TOKEN, END_TOKEN, PADDING_TOKEN = 49406, 49407, 0
EMBEDDING = "embedding"  # key of the one tensor in an embedding file


def tokenize(texts: Sequence[str], length: int = CONTEXT_LENGTH) -> Tensor:
    """Texts to tokens, (len(texts), length) int64: start, words, end, then padding with 0. A text
    that is too long is cut and still ends with the end token.

    Raises:
        BIRError: a text that is not empty while open_clip is not installed, or cannot be imported.
    """
    tokens = torch.full((len(texts), length), PADDING_TOKEN, dtype=torch.int64)
    tokens[:, 0], tokens[:, 1] = START_TOKEN, END_TOKEN
    worded = [index for index, text in enumerate(texts) if text.strip()]
    if worded:
        try:
            from open_clip.tokenizer import SimpleTokenizer
        except ImportError as error:
            raise BIRError(
                "A prompt with words should be cut into tokens by the package open_clip_torch, "
                "which is not installed; install the extra: pip install comfyui-bir[text], or give "
                "an empty prompt or the file of an embedding."
            ) from error
        except (RuntimeError, AttributeError) as error:
            # It imports torchvision, and one that was built for another torch raises RuntimeError.
            raise BIRError(
                "A prompt with words should be cut into tokens by the package open_clip_torch, "
                f"which cannot be imported ({str(error).splitlines()[0]}); install builds of torch "
                "and torchvision that belong together, or give an empty prompt or the file of an "
                "embedding."
            ) from error
        tokenizer = SimpleTokenizer(context_length=length)
        tokens[worded] = tokenizer([texts[index] for index in worded])
    return tokens


@torch.no_grad()
def encode_prompts(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """Embeddings of texts, (len(texts), 77, 1024) float32 on the CPU; for an image (B, ...) use one
    of them or one for each image.

    Args:
        encoder: as from `load_model(..., architecture="text_encoder")`.

    Raises:
        BIRError: as `tokenize`, or an embedding that is not finite.
    """
    device = encoder.positional_embedding.device
    tokens = tokenize(texts, encoder.config.length)
    embeddings = encoder(tokens.to(device)).float().cpu()
    require_finite(embeddings, "The embedding of the prompt")
    return embeddings


def save_embedding(path: str | Path, embedding: Tensor, prompt: str) -> None:
    """Write an embedding (1, L, D) as safetensors, with its prompt in the header.

    Raises:
        BIRError: another shape, or the file cannot be written.
    """
    _require_shape(embedding, "the embedding to save")
    write_tensors(path, {EMBEDDING: embedding}, "the embedding", metadata={"prompt": prompt})


def load_embedding(path: str | Path) -> Tensor:
    """Read an embedding (1, L, D), float32: a file of `save_embedding`, or any safetensors or
    PyTorch file with a tensor of this shape under `embedding`.

    Raises:
        BIRError: no such file or tensor, or numbers that are not finite.
    """
    embedding = read_checkpoint(path).get(EMBEDDING)
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        raise BIRError(
            f"Expected the embedding of a prompt in {path}, but it has no tensor {EMBEDDING!r} of "
            "float numbers; make the file with bir embed."
        )
    _require_shape(embedding, str(path))
    require_finite(embedding, f"The embedding in {path}")
    return embedding.float()


def _require_shape(embedding: Tensor, name: str) -> None:
    if embedding.ndim != 3 or embedding.shape[0] != 1:
        raise BIRError(
            f"Expected an embedding of the shape (1, 77, 1024) in {name}, but "
            f"{tuple(embedding.shape)} came; give one prompt's embedding."
        )


def require_prompts(
    prompt: Tensor, negative: Tensor | None, batch: int, settings: DiffBIRSettings
) -> None:
    """Raise BIRError unless these embeddings serve a batch with these settings."""
    for embedding in (prompt,) if negative is None else (prompt, negative):
        if embedding.ndim != 3 or embedding.shape[0] not in (1, batch):
            raise BIRError(
                f"The embedding of a prompt should have the shape (1 or {batch}, 77, 1024), but "
                f"{tuple(embedding.shape)} came; give one for all images, or one for each."
            )
    if negative is None and settings.uses_negative:
        raise BIRError(
            f"A cfg of {settings.cfg:g} should have a negative prompt, but none came; give the "
            "embedding of the empty prompt, or set cfg to 1."
        )


def rows_of(embedding: Tensor, start: int, count: int) -> Tensor:
    """The embeddings of a part of the batch; a single one serves all."""
    return embedding if len(embedding) == 1 else embedding[start : start + count]
