"""The table and the figure of all rows of the few-shot leaderboard."""

import csv
import json

import leaderboard
import pytest

from maml_rl.experiments.published import FEW_SHOT_PUBLISHED, REPTILE_TRANSDUCTIVE

ROW = {
    "learner": "reptile",
    "accuracy": 0.95,
    "ci95": 0.002,
    "published": None,
    "norm": "support",
    "gradient_steps": 50,
    "split": "vinyals",
    "trained_on": "trainval",
    "train_ways": 5,
    "train_shots": 10,
    "iterations": 10,
    "minutes": 3.0,
    "commit": "abc",
    "evaluate": "python scripts/evaluate.py",
    "progress": [[1.0, 0.8], [3.0, 0.94]],
    "asked": {"ways": 5, "shots": 1, "num_episodes": 100, "test_queries": 1, "seed": 1},
}


def store(results, name, **changes):
    folder = results / name / "rows"
    folder.mkdir(parents=True)
    (folder / "reptile.json").write_text(json.dumps(ROW | changes))


def test_rows_of_all_folders_are_one_table_each_beside_its_own_published_number(tmp_path):
    store(tmp_path, "omniglot_5w1s_random", split="random-1200", accuracy=0.99)
    store(tmp_path, "omniglot_5w1s")
    store(tmp_path, "omniglot_5w1s_together", norm="batch", accuracy=0.97)
    found = leaderboard.rows(tmp_path)
    assert [row["folder"] for row in found] == ["omniglot_5w1s_together", "omniglot_5w1s", "omniglot_5w1s_random"]
    assert [row["published"] for row in found] == [
        REPTILE_TRANSDUCTIVE[5, 1],
        FEW_SHOT_PUBLISHED["reptile", 5, 1],
        FEW_SHOT_PUBLISHED["reptile", 5, 1],
    ]
    leaderboard.write_csv(found, tmp_path / "all.csv")
    with open(tmp_path / "all.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["accuracy"] for row in written] == ["0.97", "0.95", "0.99"]
    assert {row["protocol"] for row in written} == {"support-query"}


def test_the_figure_has_a_dot_for_each_row_in_the_panel_of_its_size(tmp_path):
    store(tmp_path, "omniglot_5w1s", norm="batch")
    store(tmp_path, "omniglot_5w1s_apart")  # not as its number was published
    store(tmp_path, "omniglot_20w5s", norm="batch", asked=ROW["asked"] | {"ways": 20, "shots": 5}, progress=[])
    panels = {panel.get_title(): panel for panel in leaderboard.figure(leaderboard.rows(tmp_path)).axes}
    dots = {title: len(panel.containers) for title, panel in panels.items()}
    assert dots == {"5-way 1-shot": 1, "5-way 5-shot": 0, "20-way 1-shot": 0, "20-way 5-shot": 1}
    (level,) = [line for line in panels["5-way 1-shot"].lines if line.get_linestyle() == "--"]
    assert level.get_ydata()[0] == pytest.approx(1.0 - REPTILE_TRANSDUCTIVE[5, 1])


def test_a_cell_is_the_best_row_of_its_kind_beside_the_number_published_on_its_split(tmp_path):
    together = {"norm": "batch", "accuracy": 0.9661, "split": "random-1200"}
    store(tmp_path, "omniglot_5w1s_early", **together | {"accuracy": 0.9})
    store(tmp_path, "omniglot_5w1s_late", **together)
    store(tmp_path, "omniglot_5w1s_apart", split="random-1200", accuracy=0.99)  # not as its number was published
    store(tmp_path, "omniglot_5w1s", norm="batch")
    asked = ROW["asked"] | {"protocol": "showings"}
    store(tmp_path, "omniglot_5w1s_memory", learner="memory", split="background-evaluation", asked=asked)
    lines = leaderboard.systems_table(leaderboard.rows(tmp_path), 1).splitlines()
    cells = {tuple(line.strip("| ").split(" | ")[:2]): line.split(" | ")[2] for line in lines}
    assert cells["Reptile + transduction", "characters at random"] == "96.6 (97.7)"
    assert cells["Reptile + transduction", "new alphabets"] == "95.0"
    assert cells["memory module", "background/evaluation, by showings"] == "95.0 (98.4)"
    assert cells["memory module", "new alphabets"] == leaderboard.NOT_RUN
    assert len(lines) == 2 + 2 * 4 + 3
    assert "| 96.61 ± 0.20 (97.7) |" in leaderboard.systems_table(leaderboard.rows(tmp_path), 2)


def test_the_table_takes_its_place_and_leaves_the_page_around_it_alone():
    first, last = leaderboard.TABLE_ENDS
    assert leaderboard.with_table(f"a\n{first}old\n{last}\nb", "\\1 new\n") == f"a\n{first}\\1 new\n{last}\nb"
    with pytest.raises(ValueError, match=r"must have the lines '<!-- the seven systems.*once each"):
        leaderboard.with_table(f"a\n{first}", "new\n")


@pytest.mark.parametrize("page", leaderboard.PAGES, ids=lambda page: page.name)
def test_the_pages_have_the_table_of_what_is_stored(page):
    written = page.read_text(encoding="utf-8")
    assert (
        leaderboard.with_table(written, leaderboard.systems_table(leaderboard.rows(), leaderboard.PAGES[page]))
        == written
    )
