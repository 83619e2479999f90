"""The torch engine: the fallback on a CPU, the engine on CUDA, and the reference in tests."""

import copy
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from multigrain.model import MultiGrain

logger = logging.getLogger(__name__)

# On CUDA every new batch size is a new set of kernels to choose, so sizes are rounded up to these.
CUDA_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class PooledUnit(nn.Module):
    """Pixels uint8 [N, H, W, 3] -> unit vectors [N, E]: what an engine computes.

    Whitening stays outside, in float32: it amplifies what a short format rounds.
    """

    def __init__(self, model: MultiGrain) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Decoded pixels, RGB in 0..255, channels last."""
        e = self.model.pooled(pixels.permute(0, 3, 1, 2))
        return F.normalize(self.model.sides(e).feature.float(), dim=1)


class TorchEngine:
    """Batch norm folded into the convolutions, channels last, bf16 or fp32."""

    name = "torch"

    def __init__(self, model: MultiGrain, *, device: str, precision: str) -> None:
        self.precision = precision
        self._device = torch.device(device)
        folded = copy.deepcopy(model).eval()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        trunk: Any = _folded(folded.backbone)  # a traced module with the trunk's call
        folded.backbone = trunk.to(dtype)
        # The normalised pixels take the precision of these constants.
        folded.pixel_mean = folded.pixel_mean.to(dtype)
        folded.pixel_std = folded.pixel_std.to(dtype)
        self._module = PooledUnit(folded).to(self._device).to(memory_format=torch.channels_last)

    def infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [N, H, W, 3] -> unit float32 [N, E]; one caller at a time."""
        batch = torch.from_numpy(pixels)
        if self._device.type == "cuda":
            batch = _padded(batch).to(self._device, non_blocking=True)
        with torch.inference_mode():
            unit: Tensor = self._module(batch)[: len(pixels)].cpu()
        return unit.numpy()


def _folded(trunk: nn.Module) -> nn.Module:
    """The trunk with its batch norms folded into convolutions, where torch can see through it."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules()):
        return trunk
    try:
        return fuse(trunk)
    except Exception as error:  # noqa: BLE001 - a library's trunk may branch on anything
        logger.info("batch norm is not folded, the trunk cannot be traced: %s", error)
        return trunk


def _padded(batch: Tensor) -> Tensor:
    """Repeat the last row up to the next bucket."""
    bucket = next((size for size in CUDA_BUCKETS if size >= len(batch)), len(batch))
    padding = batch[-1:].expand(bucket - len(batch), *batch.shape[1:])
    return torch.cat([batch, padding]) if len(padding) else batch
