"""HalfCheetah forward or backward, by the protocol of Finn et al. 2017; their published run used max KL 0.02."""

import sys

from maml_rl.cli import train
from maml_rl.config import RunConfig
from maml_rl.core.maml import OuterConfig
from maml_rl.core.outer.trust_region import TrustRegionConfig

PRESET = RunConfig(
    env="maml/HalfCheetahDir-rllab-v0",
    outer=OuterConfig(trust_region=TrustRegionConfig(max_kl=0.02)),
)

if __name__ == "__main__":
    sys.exit(train(PRESET))
