"""Drawings changed anew each time they are seen: turned, mirrored, thickened, and made of black and white pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AugmentationConfig:
    """Changes of drawings in training, the same for all of a set, so that it becomes one of a new class."""

    max_angle: float = 45.0
    """Largest angle by which a set is turned [degrees]. With quarter turns as classes, 45 makes all angles alike."""
    mirror: float = 0.5  # Probability that a set is mirrored.
    dilate: float = 0.0
    """Probability that a set's strokes are thickened by a pixel on every side. Those of MNIST are thicker than those of
    Omniglot: learning both helps there."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_angle <= 180.0:
            raise ValueError(f"augmentation.max_angle must lie in [0, 180], got {self.max_angle}")
        for name in ("mirror", "dilate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"augmentation.{name} must lie in [0, 1], got {getattr(self, name)}")


def augmented(drawings: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Each set of drawings [S, K, H, W, 1] changed by itself, all of its drawings alike; values stay in [0, 1]."""
    num_sets = len(drawings)
    angles = (2.0 * torch.rand(num_sets, generator=generator) - 1.0) * math.radians(config.max_angle)
    mirrored, dilated = (
        (torch.rand(num_sets, generator=generator) < chance).to(drawings.device)
        for chance in (config.mirror, config.dilate)
    )
    if config.max_angle:
        drawings = turned(drawings, angles.to(drawings.device))
    drawings = torch.where(mirrored.view(-1, 1, 1, 1, 1), drawings.flip(-2), drawings)
    return torch.where(dilated.view(-1, 1, 1, 1, 1), thickened(drawings), drawings) if config.dilate else drawings


def turned(drawings: Tensor, angles: Tensor) -> Tensor:
    """Each set [S, K, H, W, 1] turned about its middle by its angle [rad], counter-clockwise; nothing comes in from
    outside."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    inverse = torch.stack([torch.stack([cos, -sin, zero], dim=-1), torch.stack([sin, cos, zero], dim=-1)], dim=-2)
    planes = drawings.squeeze(-1)
    grid = F.affine_grid(inverse, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, align_corners=False).clamp(0.0, 1.0).unsqueeze(-1)


def thickened(drawings: Tensor) -> Tensor:
    """The largest value of each pixel and the eight around it."""
    planes = drawings.squeeze(-1).flatten(0, 1)
    return F.max_pool2d(planes, 3, stride=1, padding=1).view_as(drawings)


def binarised(drawings: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels of 0 and 1, each 1 with its own value as probability."""
    return (torch.rand(drawings.shape, generator=generator).to(drawings.device) < drawings).to(drawings.dtype)
