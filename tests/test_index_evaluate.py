"""What an index loses: each table against brute force over the same rows."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from index_fixtures import build, random_units, write_vectors
from PIL import Image
from stub_embedder import VectorEmbedder

from index.build import main as build_main
from index.evaluate import main as evaluate_main
from index.judging.exponents import exponent_lines
from index.judging.losses import dimension_lines, search_lines
from index.judging.questions import Questions, judge, view_questions
from index.searcher import Searcher
from multigrain.checkpoint import load_checkpoint
from multigrain.embedder import Embedder
from multigrain.ranking import exact_search

NUM_ROWS = 700


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """An index of 700 vectors in 16 lists of coarse codes."""
    folder = tmp_path_factory.mktemp("evaluate")
    photos = write_vectors(folder / "photos", random_units(NUM_ROWS))
    build(photos, folder / "index", VectorEmbedder(), factory="IVF16,RaBitQ")
    with closing(Searcher.open(folder / "index")) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def questions(opened: Searcher) -> Questions:
    """Forty views, each asking for its own."""
    return view_questions(opened, VectorEmbedder(), num_queries=40, num_threads=2)


def test_lists_and_codes_are_judged_against_every_stored_row(
    opened: Searcher, questions: Questions
) -> None:
    """All lists re-scored lose next to nothing, codes alone and one list lose something."""
    lines = {line.name: line.score for line in search_lines(opened, questions)}
    assert [name for name in lines if "lists, re-scored" in name] == [
        f"{nprobe} of 16 lists, re-scored" for nprobe in (16, 8, 4, 2, 1)
    ]
    exact = lines["exact: every stored row"]
    found = exact_search(questions.rows, opened.embeddings(range(NUM_ROWS)), 10).rows
    own = np.array([answer[0] for answer in questions.answers])
    assert exact.agreement == 1
    assert exact.recall_at_1 == pytest.approx((found[:, 0] == own).mean())
    assert lines["16 of 16 lists, re-scored"].agreement > 0.98
    assert lines["every list (16), codes alone"].agreement < 0.95
    assert lines["1 of 16 lists, re-scored"].agreement < 0.95


def test_fewer_dimensions_are_the_first_of_each_row(opened: Searcher, questions: Questions) -> None:
    """Each scaled to unit length again."""
    lines = list(dimension_lines(opened, questions))
    assert [line.name for line in lines] == [f"{d} dimensions" for d in (16, 8, 4, 2, 1)]
    rows = opened.embeddings(range(NUM_ROWS))[:, :8]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = exact_search(questions.rows[:, :8], rows, 10).rows
    reference = exact_search(questions.rows, opened.embeddings(range(NUM_ROWS)), 10).rows
    judged = judge(list(found), reference=list(reference), answers=questions.answers)
    assert lines[1].score == pytest.approx(judged.score)
    assert lines[0].score.agreement == 1 > lines[1].score.agreement


def test_scores_by_hand() -> None:
    """Two queries: two answers of which one is first; one answer that is third."""
    found = [np.array([7, 1, 2]), np.array([4, 5, 6])]
    reference = [np.array([7, 9, 2]), np.array([4, 5, 6])]
    answers = [np.array([7, 8]), np.array([6])]
    judged = judge(found, reference=reference, answers=answers)
    assert judged.score == pytest.approx(((2 / 3 + 1) / 2, 0.5, (0.5 + 1 / 3) / 2))
    assert judged.ap == pytest.approx([0.5, 1 / 3])
    assert judged.estimates()["recall_at_1"].interval == (0, 1)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_checkpoint: Path,
    draw: Callable[[int], Image.Image],
) -> Path:
    """An index by a real model of twelve listed photos, two of each instance."""
    folder = tmp_path_factory.mktemp("real")
    lines = ["path,instance"]
    for number in range(12):
        draw(number).save(folder / f"{number:02}.png")
        lines.append(f"{number:02}.png,thing {number // 2}")
    (folder / "list.csv").write_text("\n".join(lines))
    flags = ["--photos", folder / "list.csv", "--checkpoint", tiny_checkpoint]
    assert build_main([*map(str, flags), "--out", str(folder / "index")]) == 0
    return folder


def test_another_exponent_is_that_of_the_model(real: Path, tiny_checkpoint: Path) -> None:
    """The checkpoint's own comes first; p 1 is the mean over positions."""
    embedder = Embedder.open(tiny_checkpoint, engine="torch", precision="fp32")
    photos = {number: (real / f"{number:02}.png").read_bytes() for number in range(12)}
    lines = {
        line.name: line.score
        for line in exponent_lines(tiny_checkpoint, embedder, photos.get, [*photos, 99])
    }
    assert next(iter(lines)) == "p 3, the checkpoint's own"
    assert set(lines) >= {"p 1", "p 2", "p 4", "p 5", "p 7"}
    assert lines["p 3, the checkpoint's own"].agreement == 1
    assert lines["p 3, the checkpoint's own"].recall_at_1 > 0.5
    model = load_checkpoint(tiny_checkpoint).model.eval()
    pixels = torch.from_numpy(embedder.read(photos[0]).pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        mean = F.normalize(model.backbone(model.normalise(pixels)).flatten(2).mean(2), dim=1)
        unit = F.normalize(model.pooled(pixels), dim=1)
    assert torch.linalg.vector_norm(mean - unit) > 1e-3  # so another p is another answer


def test_the_command_prints_tables_and_writes_them(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of edited copies, and of a list whose instances the index knows."""
    out = tmp_path / "out.json"
    flags = ["--index", str(real / "index"), "--json", str(out)]
    assert evaluate_main([*flags, "--num-queries", "8", "--num-photos", "4"]) == 0
    printed = capsys.readouterr().out
    assert "## Lists and codes, 8 queries" in printed
    assert "## Pooling exponent, 4 photos, without whitening" in printed
    document = json.loads(out.read_text())
    exact = document["Lists and codes, 8 queries"][0]
    assert (exact["name"], exact["agreement"]) == ("exact: every stored row", 1)
    low, high = exact["ap_interval"]
    assert low <= exact["ap"] <= high
    queries = ["--queries", str(real / "list.csv"), "--num-photos", "0"]
    assert evaluate_main([*flags, *queries]) == 0
    listed = json.loads(out.read_text())
    assert list(listed) == ["Lists and codes, 12 queries"]
    assert listed["Lists and codes, 12 queries"][0]["recall_at_1"] == 1
    assert "Pooling" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [("path,name\n00.png,a", "path and an instance"), ("path,instance\n00.png,a", "no photo of")],
)
def test_queries_without_an_answer_are_refused(
    real: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """With what to do."""
    path = real / "queries.csv"
    path.write_text(text)
    flags = ["--index", str(real / "index"), "--queries", str(path)]
    assert evaluate_main(flags) == 2
    assert message in capsys.readouterr().err


def test_the_page_shows_the_worst_queries_and_what_was_found(real: Path, tmp_path: Path) -> None:
    """Intervals in its tables; each row has the picture asked with and seven answers, framed."""
    flags = ["--index", real / "index", "--num-queries", "8", "--num-photos", "0"]
    for more in ([], ["--queries", real / "list.csv"]):
        out = tmp_path / "page.html"
        assert evaluate_main([*map(str, [*flags, *more, "--html", out])]) == 0
        page = out.read_text()
        assert page.count('class="query"') == 5
        assert page.count('class="asked"') == 5
        assert page.count("data:image/jpeg;base64,") == 5 * 8
        assert page.index('class="right"') > page.index("Worst queries by AP of ten")
        assert "exact: every stored row" in page
        assert " to 1.000)" in page
        assert 'src="http' not in page
    assert "edited copy" not in page
    assert "05.png" in page


@pytest.mark.parametrize(
    ("expected", "status", "said"),
    [
        ("exact.agreement: [1, 1]", 0, ""),
        (
            "exact.recall_at_1: [1.01, 2]",
            1,
            "exact.recall_at_1 is 1.0000 (95 % 1.0000 to 1.0000), expected within [1.01, 2]",
        ),
        ("tuned.recall: [0, 1]", 2, "no metric 'tuned.recall'"),
    ],
)
@pytest.mark.parametrize("is_beside", [False, True])
def test_a_metric_outside_its_interval_ends_with_one(
    real: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    expected: str,
    status: int,
    said: str,
    *,
    is_beside: bool,
) -> None:
    """With metric, value and interval; from a file that is named or stands beside the list."""
    queries = real / "guarded.csv"
    queries.write_text((real / "list.csv").read_text())
    path = queries.with_name("guarded.expect.yaml") if is_beside else tmp_path / "expect.yaml"
    path.write_text(expected)
    flags = ["--index", real / "index", "--queries", queries, "--num-photos", "0"]
    asked = [] if is_beside else ["--expect", path]
    assert evaluate_main([*map(str, [*flags, *asked])]) == status
    assert said in capsys.readouterr().err
    path.unlink()
