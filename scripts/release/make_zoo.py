"""Make the zoo's runs from the folders that their cards name as source: `python scripts/release/make_zoo.py dist/zoo`.

Small runs are written into the package; any other becomes DIR/NAME.zip, to be uploaded to the release, and its size and
hash are written into its card. The same sources give the same bytes.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import tyro

from maml_rl.experiments.zoo import FOLDER, cards
from maml_rl.training.interrupts import exit_on_signals

ROOT = Path(__file__).parents[2]
NUM_ROWS = 50  # of metrics.csv, about
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of all files in an archive


def thin(run: Path, folder: Path) -> None:
    """Copy into a new folder what using a run takes: settings, last checkpoint, some rows of metrics.csv."""
    (folder / "checkpoints").mkdir(parents=True)
    latest = (run / "checkpoints" / "latest").read_text().strip()
    for name in ("config.json", *(f"checkpoints/{each}" for each in ("latest", f"{latest}.json"))):
        shutil.copyfile(run / name, folder / name)
    shutil.copyfile(run / "checkpoints" / f"{latest}.safetensors", folder / "checkpoints" / f"{latest}.safetensors")
    if (run / "metrics.csv").exists():
        lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
        (folder / "metrics.csv").write_text("".join([lines[0], *thinned(lines[1:])]))


def thinned(rows: list[str]) -> Iterable[str]:
    """Every n-th row, and the last one. n is a number that divides 10 or is divided by it, as evaluations' rows are."""
    every = next(each for each in (1, 2, 5, 10, 20, 50, 100, 1000, 10000) if len(rows) <= each * NUM_ROWS)
    return [row for i, row in enumerate(rows, start=1) if i % every == 0 or i == len(rows)]


def pack(folder: Path, archive: Path) -> None:
    """Put a folder's files into an archive, uncompressed: parameters do not shrink, and the bytes stay the same."""
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.writestr(zipfile.ZipInfo(str(file.relative_to(folder)), EPOCH), file.read_bytes())


def make(target: tyro.conf.Positional[Path] = Path("dist/zoo")) -> None:
    """Make all runs of the zoo from the folders that their cards name.

    Args:
        target: folder for the archives.
    """
    target.mkdir(parents=True, exist_ok=True)
    saved = json.loads((FOLDER / "cards.json").read_text(encoding="utf-8"))
    for name, card in cards().items():
        if card.archive is None:
            shutil.rmtree(FOLDER / name, ignore_errors=True)
            thin(ROOT / card.source, FOLDER / name)
            continue
        with tempfile.TemporaryDirectory() as place:
            thin(ROOT / card.source, Path(place) / name)
            pack(Path(place) / name, target / f"{name}.zip")
        data = (target / f"{name}.zip").read_bytes()
        saved[name]["archive"] = {"sha256": sha256(data).hexdigest(), "size": len(data)}
    text = f"{json.dumps(saved, indent=1, ensure_ascii=False)}\n"
    (FOLDER / "cards.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    exit_on_signals()
    tyro.cli(make)
