"""A checkpoint scored on test sets, from photos to the exit status."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from evaluation_fixtures import draw_test_set, save, settings, write_rows
from PIL import Image
from slow_metrics import slow_ap

from multigrain.augmented import Augment, embed_augmented
from multigrain.checkpoint import load_checkpoint
from multigrain.config import ConfigError
from multigrain.embedder import Embedder
from multigrain.expectations import resolve
from multigrain.metrics import positive_ranks
from multigrain.program import run_main
from trainer import evaluate as program
from trainer.engine.processes import Processes, alone
from trainer.evaluation.embed_pictures import UnreadableError, embed_pictures
from trainer.evaluation.embedding_cache import EmbeddingCache
from trainer.evaluation.results import QUERIES, REPORT, RESULTS, Result
from trainer.evaluation.run import evaluate
from trainer.protocols.test_set import Picture
from trainer.settings_evaluate import EvaluateConfig
from trainer.speech import say_nothing

Draw = Callable[[int], Image.Image]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    return draw_test_set(tmp_path_factory.mktemp("set"), draw)


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, manifest: Path, tiny_checkpoint: Path
) -> tuple[Result, Path]:
    """The result of one run, and its folder."""
    out = tmp_path_factory.mktemp("out")
    (found,) = evaluate(settings(tiny_checkpoint, manifest, out), alone())
    return found, out


def test_scores_equal_a_loop_over_the_photos(
    result: tuple[Result, Path], manifest: Path, tiny_checkpoint: Path
) -> None:
    """Each query embedded and ranked by hand, against the rows that are no queries."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    embedder = Embedder.open(tiny_checkpoint, engine="torch", device="cpu")
    vectors = embedder.embed([manifest.parent / row["path"] for row in rows])
    gallery = [number for number, row in enumerate(rows) if row["role"] != "query"]
    expected = []
    for number, row in enumerate(rows):
        if row["role"] == "query":
            relevant = np.array(
                [rows[other].get("instance") == row["instance"] for other in gallery]
            )
            scores = vectors[gallery] @ vectors[number]
            ranks = positive_ranks(scores, relevant, np.zeros(len(gallery), bool))
            expected.append(slow_ap(ranks.tolist(), 2))
    found, out = result
    assert found.scores.metrics["ap"].value == pytest.approx(np.mean(expected), abs=1e-6)
    written = json.loads((out / QUERIES).read_text())["manifest"]
    assert written["values"]["ap"] == pytest.approx(expected, abs=1e-6)
    assert written["queries"][0] == str(manifest.parent / "0-0.jpg")


def test_the_written_result_states_model_options_and_intervals(
    result: tuple[Result, Path], tiny_checkpoint: Path
) -> None:
    """What changes a score stands beside it."""
    document = json.loads((result[1] / RESULTS).read_text())
    assert document["model"]["fingerprint"] == load_checkpoint(tiny_checkpoint).fingerprint
    assert (document["model"]["p"], document["model"]["whitening"]) == (3.0, None)
    assert document["model"]["augment"] == "none"
    (written,) = document["results"]
    assert (written["num_queries"], written["num_gallery"]) == (6, 16)
    assert written["options"] == {"queries": "by role"}
    score = written["metrics"]["recall_at_1"]
    assert score["low"] <= score["value"] <= score["high"]


def test_the_report_frames_the_answers_of_the_worst_and_the_best_queries(
    result: tuple[Result, Path],
) -> None:
    """A page by itself: scores, a histogram, and rows of small pictures."""
    page = (result[1] / REPORT).read_text()
    worst, best = page.split("Best queries by ap")
    assert worst.count('class="query"') == best.count('class="query"') == 5
    # The best query's first answer is right; each row shows the query and seven answers.
    assert best.index('class="right"') < best.index('class="wrong"')
    assert best.count("data:image/jpeg;base64,") == 5 * 8
    values = result[0].scores.per_query["ap"]
    assert f"<b>{values.min():.3f}</b>" in worst
    assert "Scores of right and of wrong pairs" in page
    assert "Precision by recall" in page
    assert 'src="http' not in page


def test_a_second_run_embeds_nothing(
    result: tuple[Result, Path],
    manifest: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Known embeddings are taken from the folder of the first."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a photo was embedded again")

    monkeypatch.setattr(Embedder, "embed_pixels", fail)
    (again,) = evaluate(settings(tiny_checkpoint, manifest, result[1]), alone())
    assert again.scores.metrics == result[0].scores.metrics


def test_every_photo_is_embedded_with_its_other_looks(
    result: tuple[Result, Path], manifest: Path, tiny_checkpoint: Path
) -> None:
    """As a search embeds its query; plain embeddings of an earlier run are not taken for them."""
    config = settings(tiny_checkpoint, manifest, result[1], augment="flip_multiscale")
    embedder = Embedder.open(tiny_checkpoint, engine="torch", device="cpu")
    photos = [manifest.parent / f"{number}-0.jpg" for number in range(3)]
    cache = EmbeddingCache.open(next((result[1] / "embeddings").iterdir()), dim=embedder.dim)
    rows = embed_pictures(
        [Picture(photo) for photo in photos],
        embedder,
        cache,
        alone(),
        augment=Augment(config.augment),
        say=say_nothing,
    )
    expected = embed_augmented(embedder, photos, Augment.FLIP_MULTISCALE)
    assert (rows * expected).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert ((rows * embedder.embed(photos)).sum(axis=1) < 0.9999).all()


def test_a_curve_has_the_score_of_each_size_and_exponent(
    result: tuple[Result, Path], manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """As an evaluation at that size or exponent alone says; the page draws them."""
    own = load_checkpoint(tiny_checkpoint).document.preprocessing.size
    given = {"sizes": (own, own + 32), "exponents": (8.0, 1.0, 3.0)}
    (found,) = evaluate(settings(tiny_checkpoint, manifest, tmp_path / "all", **given), alone())
    curves = {curve.changed: curve for curve in found.curves}
    assert [at for at, _ in curves["size"].points] == [own, own + 32]
    assert [at for at, _ in curves["exponent"].points] == [1, 3, 8]
    value = result[0].scores.metrics["ap"].value
    assert (curves["size"].own, curves["exponent"].own) == (own, 3)
    assert curves["size"].points[0][1] == curves["exponent"].points[1][1] == pytest.approx(value)
    changed = settings(tiny_checkpoint, manifest, tmp_path / "one", exponent=8.0, size=own)
    (alone_at_8,) = evaluate(changed, alone())
    at_8 = alone_at_8.scores.metrics["ap"].value
    assert at_8 == pytest.approx(curves["exponent"].points[2][1])
    assert at_8 != value
    stated = json.loads((tmp_path / "one" / RESULTS).read_text())["model"]
    assert (stated["p"], stated["preprocessing"]["size"]) == (8, own)
    written = json.loads((tmp_path / "all" / RESULTS).read_text())["results"][0]["curves"]
    assert [curve["changed"] for curve in written] == ["size", "exponent"]
    page = (tmp_path / "all" / REPORT).read_text()
    assert "ap by size" in page
    assert "ap by exponent" in page
    assert not list(tmp_path.rglob("changed*"))


def test_a_background_and_expansions_are_stated_with_what_they_gain(
    result: tuple[Result, Path], manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Pooled pairs are scored, where without a background only ranks are."""
    others = write_rows(tmp_path / "others.jsonl", [{"path": str(manifest.parent / "9-0.jpg")}])
    cache = result[1] / "embeddings"
    config = settings(
        tiny_checkpoint,
        manifest,
        tmp_path / "out",
        background=others,
        query_expansion=2,
        gallery_expansion=1,
        k_reciprocal=5,
        cache=cache,
    )
    (found,) = evaluate(config, alone())
    assert found.scores.metrics["ap"] != result[0].scores.metrics["ap"]
    pooled = {name for name in found.scores.metrics if "micro" in name}
    assert pooled == {"micro_ap", "micro_ap_normalised", "micro_ap_gain"}
    assert {"ap_reranked", "ap_reranked_gain"} <= set(found.scores.metrics)
    stated = json.loads((tmp_path / "out" / RESULTS).read_text())["model"]
    options = ("query_expansion", "gallery_expansion", "k_reciprocal")
    assert [stated[name] for name in options] == [2, 1, 5]
    assert stated["background"] == str(others)
    pairs = write_rows(
        tmp_path / "pairs.jsonl",
        [{"path": "a.jpg", "other": "b.jpg", "same": same} for same in (0, 1)],
    )
    config = settings(tiny_checkpoint, pairs, tmp_path, protocol=["verification"], background=cache)
    with pytest.raises(ConfigError, match="--background: not for pairs"):
        evaluate(config, alone())


def test_several_test_sets_are_scored_in_one_run(
    result: tuple[Result, Path], manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The second of a protocol has a name of its own."""
    config = settings(
        tiny_checkpoint,
        manifest,
        tmp_path,
        protocol=["manifest"] * 2,
        data=[manifest] * 2,
        cache=result[1] / "embeddings",
    )
    results = evaluate(config, alone())
    assert [found.name for found in results] == ["manifest", "manifest-2"]
    assert results[0].scores.metrics == results[1].scores.metrics


def in_one_of_two(rank: int, folder: str, checkpoint: Path, manifest: Path) -> None:
    """Evaluate in one of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    processes = Processes(rank, 2, torch.device("cpu"), dist.group.WORLD)
    evaluate(settings(checkpoint, manifest, Path(folder, "out")), processes)
    evaluate(reranking(checkpoint, manifest, Path(folder, "reranked")), processes)
    dist.destroy_process_group()


def reranking(checkpoint: Path, manifest: Path, out: Path) -> EvaluateConfig:
    """Everything that looks at the rows of other queries' processes."""
    return settings(
        checkpoint, manifest, out, query_expansion=2, gallery_expansion=2, k_reciprocal=6
    )


def test_two_processes_find_the_same_numbers(
    result: tuple[Result, Path], manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Every value of every query, and nothing padded."""
    mp.spawn(in_one_of_two, args=(str(tmp_path), tiny_checkpoint, manifest), nprocs=2)
    evaluate(reranking(tiny_checkpoint, manifest, tmp_path / "alone"), alone())
    for name in (RESULTS, QUERIES):
        assert (tmp_path / "out" / name).read_text() == (result[1] / name).read_text()
        reranked = (tmp_path / "reranked" / name).read_text()
        assert reranked == (tmp_path / "alone" / name).read_text()
        assert "ap_reranked" in reranked


def test_photos_that_cannot_be_read_end_the_run_with_their_names(
    tiny_checkpoint: Path, tmp_path: Path, draw: Draw
) -> None:
    """A score without them would not be the test set's."""
    save(draw(0), tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    rows = [{"path": name, "instance": "a"} for name in ("good.jpg", "bad.jpg", "gone.jpg")]
    config = settings(tiny_checkpoint, write_rows(tmp_path / "l.jsonl", rows), tmp_path / "out")
    with pytest.raises(UnreadableError, match=r"2 photos .*bad.jpg .*gone.jpg"):
        evaluate(config, alone())


def test_a_picture_is_cut_and_turned_before_it_is_embedded(
    tiny_checkpoint: Path, tmp_path: Path, draw: Draw
) -> None:
    """As if the part had been saved as a photo of its own; each edit is cached by itself."""
    path = tmp_path / "photo.png"
    draw(3).save(path)
    part = draw(3).crop((10, 5, 60, 55)).transpose(Image.Transpose.ROTATE_270)
    embedder = Embedder.open(tiny_checkpoint, engine="torch", device="cpu")
    cache = EmbeddingCache.open(tmp_path / "cache", dim=embedder.dim)
    pictures = [Picture(path), Picture(path, (10.2, 4.8, 60, 55), turns=1)]
    for _ in range(2):
        whole, cut = embed_pictures(pictures, embedder, cache, alone(), say=say_nothing)
        assert embedder.embed([draw(3)])[0] @ whole == pytest.approx(1, abs=1e-5)
        assert embedder.embed([part])[0] @ cut == pytest.approx(1, abs=1e-5)
        cache = EmbeddingCache.open(tmp_path / "cache", dim=embedder.dim)


@pytest.mark.parametrize(("low", "status"), [(0.0, 0), (1.01, 1)])
def test_a_metric_outside_its_interval_ends_the_program_with_one(
    low: float,
    status: int,
    result: tuple[Result, Path],
    manifest: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message has metric, value and interval; the settings may come from a file."""
    config = settings(tiny_checkpoint, manifest, result[1], expect={"recall_at_5": (low, 2.0)})
    (tmp_path / "guard.yaml").write_text(config.to_yaml())
    monkeypatch.setattr(sys, "argv", ["evaluate", "--config", str(tmp_path / "guard.yaml")])
    assert program.main() == status
    said = capsys.readouterr()
    assert "| manifest | ap_trapezoid |" in said.out
    assert ("manifest.recall_at_5 is " in said.err) == bool(status)
    assert ("expected within [1.01, 2]" in said.err) == bool(status)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("recall_at_5: [0, 2]", 0, ""),
        ("expect: {recall_at_5: [1.01, 2]}", 1, "manifest.recall_at_5 is "),
        ("recall_at_5: [1.01", 2, "guarded.expect.yaml is not YAML"),
    ],
)
def test_what_is_expected_may_stand_beside_a_list(
    text: str,
    status: int,
    said: str,
    result: tuple[Result, Path],
    manifest: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In `guarded.expect.yaml` of `guarded.jsonl`, with nothing said by flags or settings."""
    guarded = manifest.with_name("guarded.jsonl")
    guarded.write_text(manifest.read_text())
    beside = manifest.with_name("guarded.expect.yaml")
    beside.write_text(text)
    config = settings(tiny_checkpoint, guarded, tmp_path, cache=result[1] / "embeddings")
    (tmp_path / "settings.yaml").write_text(config.to_yaml())
    monkeypatch.setattr(sys, "argv", ["evaluate", "--config", str(tmp_path / "settings.yaml")])
    assert run_main(program.main, prog="evaluate") == status
    assert said in capsys.readouterr().err
    beside.unlink()


def test_expectations_are_named_in_full_where_a_metric_is_not_one_test_sets() -> None:
    """And a name that no metric has is refused with the nearest one."""
    names = dict.fromkeys(["a.ap", "b.ap", "b.recall_at_1"])
    assert resolve({"recall_at_1": (0, 1), "a.ap": (0, 1)}, names) == {
        "b.recall_at_1": (0, 1),
        "a.ap": (0, 1),
    }
    for name, message in (("ap", "a.ap, b.ap"), ("b.recal_at_1", "did you mean b.recall_at_1")):
        with pytest.raises(ConfigError, match=message):
            resolve({name: (0, 1)}, names)
    with pytest.raises(ConfigError, match="holds no number"):
        resolve({"a.ap": (0.5, 0.4)}, names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": ["manifest", "groups"]}, "2 --protocol and 1 --data"),
        ({"protocol": ["manifests"]}, "did you mean manifest"),
    ],
)
def test_test_sets_that_cannot_be_meant_are_refused(
    changes: dict[str, list[str]], message: str, tmp_path: Path
) -> None:
    """Before the checkpoint is opened."""
    with pytest.raises((ConfigError, ValueError), match=message):
        evaluate(settings(tmp_path / "none", tmp_path, tmp_path, **changes), alone())


def test_a_file_in_the_place_of_the_results_is_refused_at_once(
    manifest: Path, tmp_path: Path
) -> None:
    """Before the checkpoint is opened, which here is none."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        evaluate(settings(tmp_path / "none", manifest, tmp_path / "file"), alone())
