# %% [markdown]
# # Your own pictures
#
# Few-shot classification: show one picture of each of five classes that training has never seen, then ask about
# others. The pictures here are letters, drawn with the fonts that matplotlib brings along, so that nothing is
# downloaded; a folder of photographs does as well.

# %%
from pathlib import Path

import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import maml_rl

# %% tags=["parameters"]
NUM_ITERATIONS = 300

# %% [markdown]
# ## A folder of pictures
#
# `pictures/train/CLASS/*.png` and `pictures/test/CLASS/*.png`. We train on the Latin alphabet and ask about the Greek
# one.

# %%
FONTS = [
    path
    for path in sorted(matplotlib.font_manager.findSystemFonts(matplotlib.get_data_path() + "/fonts/ttf"))
    if "DejaVu" in path and "Display" not in path
]
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghjmnqrt"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπσφψω"
rng = np.random.default_rng(0)


def letter(character, font):
    """A letter, somewhat turned, moved and resized: 28 x 28 pixels, dark on light."""
    page = Image.new("L", (56, 56), 255)
    type_ = ImageFont.truetype(font, int(rng.integers(34, 44)))
    place = (28 + rng.integers(-4, 5), 28 + rng.integers(-4, 5))
    ImageDraw.Draw(page).text(place, character, fill=0, font=type_, anchor="mm")
    return page.rotate(rng.uniform(-15, 15), fillcolor=255).resize((28, 28), Image.Resampling.BOX)


for part, alphabet in (("train", LATIN), ("test", GREEK)):
    for character in alphabet:
        folder = Path("pictures", part, f"{ord(character):04}")
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(20):
            letter(character, FONTS[index % len(FONTS)]).save(folder / f"{index}.png")

figure, plots = plt.subplots(2, 8, figsize=(8, 2.2))
for row, character in zip(plots, "Aω", strict=True):
    for axes in row:
        axes.imshow(letter(character, FONTS[rng.integers(len(FONTS))]), cmap="gray")
        axes.axis("off")
plt.show()

# %% [markdown]
# ## Train
#
# Prototypical Networks learn an embedding in which pictures of a class lie together; a new class is the mean of its
# examples. Twenty filters are enough for letters of this size.

# %%
run = maml_rl.train(
    "images",
    learner="prototypical",
    data_root="pictures",
    train_ways=20,  # classes in an episode of training
    num_iterations=NUM_ITERATIONS,
    num_filters=20,
    evaluate_every=0,
    quiet=True,
    output_dir="runs/letters",
)
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(run.metrics["iteration"], run.metrics["accuracy_after"])
axes.set(xlabel="iteration", ylabel="accuracy", title="Latin letters, in training")
plt.show()

# %% [markdown]
# ## Letters that it has never seen

# %%
curve = run.evaluate(num_tasks=200)
print(f"5-way 1-shot on Greek: {100 * curve.mean[-1]:.1f} % +- {100 * curve.ci95[-1]:.1f}")

# %% [markdown]
# Guessing would be right in 20 %. `FewShotClassifier` is the same run as a function of your pictures: paths, PIL
# images or arrays. One example of each of five names makes a classifier:

# %%
NAMES = {"pi": "π", "xi": "ξ", "omega": "Ω", "psi": "ψ", "delta": "Δ"}
examples = {name: [letter(character, FONTS[0])] for name, character in NAMES.items()}
classify = maml_rl.FewShotClassifier(run.path).learn(examples)

figure, plots = plt.subplots(2, 5, figsize=(9, 3.8))
for (top, bottom), (name, character) in zip(plots.T, NAMES.items(), strict=True):
    asked = letter(character, FONTS[-1])
    shares = classify(asked)
    top.imshow(examples[name][0], cmap="gray")
    top.set_title(name, fontsize=9)
    bottom.imshow(asked, cmap="gray")
    best = max(shares, key=shares.get)
    bottom.set_xlabel(f"{best} {shares[best]:.0%}", color="green" if best == name else "red", fontsize=9)
    for axes in (top, bottom):
        axes.set(xticks=[], yticks=[])
plots[0, 0].set_ylabel("shown")
plots[1, 0].set_ylabel("asked")
plt.show()

# %% [markdown]
# ## Other learners
#
# `learner="maml"`, `"matching"`, `"reptile"` and the others of the [table](../reference/learners.md) take the same
# folder. Formats of pictures, episode sheets and the leaderboard are in [few-shot classification](../few_shot.md).
