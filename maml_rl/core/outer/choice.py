"""The outer steps by name, each with its settings: one line here makes a new one available everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from maml_rl.core.adam import AdamConfig
from maml_rl.core.outer.gradient import Gradient
from maml_rl.core.outer.proximal import Proximal, ProximalConfig
from maml_rl.core.outer.reptile import Reptile, ReptileConfig
from maml_rl.core.outer.step import OuterStep
from maml_rl.core.outer.trust_region import TrustRegion, TrustRegionConfig

OuterName = Literal["trust_region", "gradient", "reptile", "proximal"]


@dataclass(frozen=True)
class _Named:
    """Settings of an outer step with its name among them, by which a saved config is read."""

    name: ClassVar[str]
    step: OuterName

    def __post_init__(self) -> None:
        if self.step != self.name:
            raise ValueError(f"outer.step must be {self.name} beside the settings of {self.name}, got {self.step}")


@dataclass(frozen=True)
class TrustRegionOuter(_Named):
    """An outer step that moves theta by a natural gradient within a trust region (TRPO)."""

    name = "trust_region"
    step: OuterName = "trust_region"  # How theta moves.
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)

    def make(self) -> OuterStep:
        return TrustRegion(self.trust_region)


@dataclass(frozen=True)
class GradientOuter(_Named):
    """An outer step that moves theta by Adam on the meta-gradient."""

    name = "gradient"
    step: OuterName = "gradient"  # How theta moves.
    gradient: AdamConfig = field(default_factory=AdamConfig)

    def make(self) -> OuterStep:
        return Gradient(self.gradient)


@dataclass(frozen=True)
class ReptileOuter(_Named):
    """An outer step that moves theta towards the adapted parameters."""

    name = "reptile"
    step: OuterName = "reptile"  # How theta moves.
    reptile: ReptileConfig = field(default_factory=ReptileConfig)

    def make(self) -> OuterStep:
        return Reptile(self.reptile)


@dataclass(frozen=True)
class ProximalOuter(_Named):
    """An outer step that moves theta by several epochs of Adam, near the policies that collected the data (ProMP)."""

    name = "proximal"
    step: OuterName = "proximal"  # How theta moves.
    proximal: ProximalConfig = field(default_factory=ProximalConfig)

    def make(self) -> OuterStep:
        return Proximal(self.proximal)


OuterConfig = TrustRegionOuter | GradientOuter | ReptileOuter | ProximalOuter

OUTER_STEPS: dict[str, type[TrustRegionOuter] | type[GradientOuter] | type[ReptileOuter] | type[ProximalOuter]] = {
    kind.name: kind for kind in (TrustRegionOuter, GradientOuter, ReptileOuter, ProximalOuter)
}
