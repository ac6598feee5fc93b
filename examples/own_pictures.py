"""Few-shot classification of your own pictures: FOLDER/train/CLASS/*.png and FOLDER/test/CLASS/*.png.

    python examples/own_pictures.py [FOLDER]

Without a folder it draws stars and polygons.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import maml_rl

IS_SMALL = "--small" in sys.argv
FOLDERS = [each for each in sys.argv[1:] if not each.startswith("--")]


def draw(num_corners: int, depth: float, rng: np.random.Generator) -> Image.Image:
    """A polygon, or a star of some depth, at a random angle and place: 28 x 28 pixels."""
    page = Image.new("L", (56, 56), 255)
    angles = rng.uniform(0.0, 6.28) + np.pi * np.arange(2 * num_corners) / num_corners
    radii = rng.uniform(16.0, 22.0) * np.where(np.arange(2 * num_corners) % 2, 1.0 - depth, 1.0)
    corners = 28.0 + rng.uniform(-4.0, 4.0, 2) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ImageDraw.Draw(page).polygon([tuple(corner) for corner in corners], outline=0, width=3)
    return page.resize((28, 28), Image.Resampling.BOX)


def draw_folder(folder: Path) -> None:
    """Classes that differ in corners and depth; those of the test are not among those of training."""
    rng, shapes = np.random.default_rng(0), [(n, d) for n in (3, 4, 5, 6, 7, 8) for d in (0.0, 0.3, 0.5, 0.7)]
    for index, (num_corners, depth) in enumerate(shapes):
        place = folder / ("test" if index % 3 == 0 else "train") / f"{num_corners}_corners_{depth}"
        place.mkdir(parents=True)
        for number in range(20):
            draw(num_corners, depth, rng).save(place / f"{number}.png")


if __name__ == "__main__":
    if not FOLDERS:
        draw_folder(Path("shapes"))
    root = Path(FOLDERS[0] if FOLDERS else "shapes")
    run = maml_rl.train(
        "images",
        learner="prototypical",
        data_root=str(root),
        train_ways=10,  # classes in an episode of training: at most as many as there are
        num_filters=4 if IS_SMALL else 32,
        num_iterations=1 if IS_SMALL else 200,
        evaluate_every=0,
    )
    curve = run.evaluate(num_tasks=2 if IS_SMALL else 200)
    print(f"accuracy on classes that training has not seen: {curve.mean[-1]:.1%}")

    classes = sorted(folder for folder in (root / "test").iterdir() if folder.is_dir())[:5]
    pictures = {folder.name: sorted(folder.glob("*.png")) for folder in classes}
    classify = maml_rl.FewShotClassifier(run.path).learn({name: own[:1] for name, own in pictures.items()})
    for name, own in pictures.items():
        shares = classify(own[1])
        best = max(shares, key=shares.__getitem__)
        print(f"{name}: taken for {best} with {shares[best]:.0%}")
