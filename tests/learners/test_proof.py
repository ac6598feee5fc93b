"""The three learners of the proof stay small; tests/test_every_learner.py puts them through the battery."""

from pathlib import Path


def test_each_learner_takes_less_than_80_lines():
    parts = (Path(__file__).parent / "proof.py").read_text().split("\n# --- ")[1:]
    lengths = {part.partition(" ---")[0]: len(part.strip().splitlines()) for part in parts}
    assert len(lengths) == 3 and max(lengths.values()) < 80, lengths
