"""The report: one page that needs nothing else, escapes what it shows, and can be drawn again."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trainer.finishing.exponent_choice import Choice, Trial
from trainer.finishing.report_curves import curves, read_metrics
from trainer.finishing.report_data import (
    REPORT_DATA,
    Histogram,
    Query,
    ReportData,
    ReportError,
    Scores,
    Shown,
    Spectrum,
    read_report_data,
    write_report_data,
)
from trainer.finishing.report_svg import Axis, Line, Mark, bar_chart, line_chart, number_text
from trainer.out_file import OutFileError
from trainer.report import main, write_report

EVIL = "<script>alert('&\"')</script>"
PIXEL = "data:image/jpeg;base64,AAAA"


def report_data() -> ReportData:
    trials = tuple(
        Trial(p=p, scores={"top1": p / 10, "copy_ap": 0.5}, mean=p / 20 + 0.25, ties=p > 3)
        for p in (1.0, 3.0, 5.0)
    )
    neighbours = (
        Shown(name="a/b.jpg", label="a", picture=PIXEL, distance=0.25, right=True),
        Shown(name=EVIL, label=EVIL, picture=PIXEL, distance=0.75, right=False),
    )
    return ReportData(
        fingerprint="0123456789abcdef",
        num_training=90,
        num_validation=10,
        choices=(Choice(224, 3.0, 5.0, 10, 1.5, trials),),
        stages=(
            Scores(stage="trained", scores={"top1": 0.25}),
            Scores(stage="finished", scores={"top1": 0.25, "class_ap": 0.5}),
        ),
        spectrum=Spectrum(
            num_dims=8,
            kept=4,
            power=0.5,
            floor=1e-3,
            photos=90,
            size=224,
            ranks=(1, 2, 8),
            shares=(1.0, 0.5, 0.0),
        ),
        histograms=(Histogram(of="two photos of a class", together=(0, 3), apart=(2, 2)),),
        queries=(
            Query(
                by="class",
                query=Shown(name="q.jpg", label="a", picture=PIXEL),
                neighbours=neighbours,
            ),
        ),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two records of training and one of validation."""
    (tmp_path / "config.yaml").write_text(f"backbone: {EVIL}\n")
    (tmp_path / "env.json").write_text('{"python": "3.12"}')
    records = [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "bottleneck": "device"},
        {"step": 2, "epoch": 1.0, "loss": 1.5, "learning_rate": 0.1},
        {"step": 2, "epoch": 1.0, "top1": 0.5},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 3, "lo')
    write_report_data(tmp_path / REPORT_DATA, report_data())
    return tmp_path


class Elements(HTMLParser):
    """The elements of a page, and whether every one that opens closes again."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that opens."""
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Refuse an end without its beginning."""
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element of SVG that closes itself."""
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)


def test_the_page_needs_nothing_beside_itself_and_runs_nothing(run: Path) -> None:
    """Pictures are inside, there is no script, and every string from outside is escaped."""
    text = write_report(run).read_text()
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    assert "script" not in elements.names
    assert elements.links == [PIXEL] * 3
    assert not re.search(r"url\(|@import|https?://", text)
    assert text.count("&lt;script&gt;") >= 3
    for part in ("Loss", "Exponent p*", "224 px: p* = 5", "Whitening", "Distances", "0.2500"):
        assert part in text


def test_a_run_that_is_not_finished_has_its_curves(run: Path, tmp_path: Path) -> None:
    """Without report.json there are curves, settings and a word about what is missing."""
    (run / REPORT_DATA).unlink()
    text = write_report(run, tmp_path / "elsewhere.html").read_text()
    assert "not finished" in text
    assert "<polyline" in text
    assert not (run / "report.html").exists()
    with pytest.raises(OutFileError, match="is a folder"):
        write_report(run, tmp_path)


def test_only_what_changes_has_a_curve(run: Path) -> None:
    """The learning rate stood still; a word is no number; the torn line is left out."""
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 2]
    assert [panel.title for panel in curves(records)] == ["Loss", "Validation"]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    """report.json holds all that cannot be computed again; damage is one clear error."""
    path = tmp_path / REPORT_DATA
    assert read_report_data(path) is None
    write_report_data(path, report_data())
    assert read_report_data(path) == report_data()
    path.write_text('{"format": 1}')
    with pytest.raises(ReportError, match="damaged"):
        read_report_data(path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """The message says what to give."""
    with pytest.raises(ReportError, match="give --run"):
        write_report(tmp_path)


def test_the_program_prints_the_page_it_wrote(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m trainer.report --run RUN`."""
    monkeypatch.setattr(sys, "argv", ["report", "--run", str(run)])
    assert main() == 0
    assert capsys.readouterr().out.split() == [str(run / "report.html")]


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0.0, 1.0, log=False), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Axis(1.18, 1.21, log=False), ["1.18", "1.19", "1.20", "1.21"]),
        (Axis(0.0, 60.0, log=False), ["0", "20", "40", "60"]),
        (Axis(1.0, 3.0, log=False, whole=True), ["1", "2", "3"]),
        (Axis(1.8, 2.2, log=False, whole=True), ["2"]),
        (Axis(1.0, 2000.0, log=True), ["1", "10", "100", "1000"]),
        (Axis(1e-9, 1.0, log=True), ["1e-9", "1e-7", "1e-5", "0.001", "0.1"]),
    ],
)
def test_ticks_are_round_and_told_apart(axis: Axis, ticks: list[str]) -> None:
    """As few digits as tell one from the next."""
    assert [axis.text(tick) for tick in axis.ticks()] == ticks


def test_a_number_is_written_short() -> None:
    """Three digits, powers of ten beyond."""
    numbers = (0.0, 3.0, 2.5, 0.123456, 1e-5, 2.4e7, 131072.0)
    assert [number_text(one) for one in numbers] == [
        "0", "3", "2.5", "0.123", "1e-5", "2e7", "131072",
    ]  # fmt: skip


def test_steps_are_whole_and_marks_are_named_above_the_curves() -> None:
    """No tick between two steps; two marks, however near, on two rows."""
    steps = line_chart([Line("loss", [(1.0, 0.25), (2.0, 0.5)])])
    assert re.findall(r'text-anchor="middle">([^<]*)<', steps) == ["1", "2"]
    scores = Line("a", [(1.0, 0.0), (8.0, 1.0)])
    marked = line_chart([scores], marks=[Mark("p*", 3.5), Mark("trained", 3.0)])
    rows = [int(y) for y in re.findall(r'class="mark-name" x="[\d.]+" y="(\d+)"', marked)]
    drawn = re.findall(r'points="([^"]*)"', marked)[0]
    highest = min(float(place.split(",")[1]) for place in drawn.split())
    assert 8 <= rows[1] < rows[0] - 8 < highest - 8


def test_charts_of_nothing_and_of_one_point() -> None:
    """No points give no chart; what is not finite is left out."""
    assert line_chart([Line("a", [])]) == ""
    assert line_chart([Line("a", [(1.0, float("nan"))])]) == ""
    assert "<circle" in line_chart([Line("a", [(1.0, 2.0)])])
    assert bar_chart([("a", [0, 0])], low=0.0, high=2.0) == ""
    many = [(float(step), 1.0 / (1 + step)) for step in range(100_000)]
    assert len(line_chart([Line("a", many)])) < 10_000
