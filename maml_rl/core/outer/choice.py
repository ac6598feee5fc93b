"""The outer steps by name, each with its settings: one line here makes a new one available everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

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

    name: ClassVar[OuterName]  # also of the field with the settings
    maker: ClassVar[type[Any]]
    step: OuterName

    def make(self) -> OuterStep:
        return self.maker(getattr(self, self.name))

    def __post_init__(self) -> None:
        if self.step != self.name:
            raise ValueError(f"outer.step must be {self.name} beside the settings of {self.name}, got {self.step}")


@dataclass(frozen=True)
class TrustRegionOuter(_Named):
    """An outer step that moves theta by a natural gradient within a trust region (TRPO)."""

    name, maker = "trust_region", TrustRegion
    step: OuterName = "trust_region"  # How theta moves.
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)


@dataclass(frozen=True)
class GradientOuter(_Named):
    """An outer step that moves theta by Adam on the meta-gradient."""

    name, maker = "gradient", Gradient
    step: OuterName = "gradient"  # How theta moves.
    gradient: AdamConfig = field(default_factory=AdamConfig)


@dataclass(frozen=True)
class ReptileOuter(_Named):
    """An outer step that moves theta towards the adapted parameters."""

    name, maker = "reptile", Reptile
    step: OuterName = "reptile"  # How theta moves.
    reptile: ReptileConfig = field(default_factory=ReptileConfig)


@dataclass(frozen=True)
class ProximalOuter(_Named):
    """An outer step that moves theta by several epochs of Adam, near the policies that collected the data (ProMP)."""

    name, maker = "proximal", Proximal
    step: OuterName = "proximal"  # How theta moves.
    proximal: ProximalConfig = field(default_factory=ProximalConfig)


OuterConfig = TrustRegionOuter | GradientOuter | ReptileOuter | ProximalOuter

OUTER_STEPS: dict[str, type[TrustRegionOuter] | type[GradientOuter] | type[ReptileOuter] | type[ProximalOuter]] = {
    kind.name: kind for kind in (TrustRegionOuter, GradientOuter, ReptileOuter, ProximalOuter)
}
