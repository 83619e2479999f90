"""Write a run's report: curves, p*, whitening, distances, neighbours, environment, settings."""

import os
import sys
from pathlib import Path

from pydantic import Field

from multigrain.config import Config
from multigrain.files import atomic_write_text
from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file

PROG = "python -m trainer.report"
REPORT = "report.html"
# Shown as they are, those that there are.
_FILES = ("config.yaml", "env.json", "bad_images.txt")


class ReportConfig(Config):
    """Flags of the report."""

    run: Path = Field(description="folder of a run of trainer/train.py, finished or not")
    out: Path | None = Field(default=None, description="page to write; unset: RUN/report.html")


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page from what lies in the run's folder and return its path.

    Raises ReportError for a folder without a run and for a damaged report.json, OutFileError for
    a page that cannot be written.
    """
    from trainer.finishing.report_curves import curves, read_metrics
    from trainer.finishing.report_data import REPORT_DATA, ReportError, read_report_data
    from trainer.finishing.report_page import page

    if not (run / "config.yaml").exists():
        raise ReportError(f"no run in {run}: there is no config.yaml, give --run the run's folder")
    path = out or run / REPORT
    check_out_file(path)
    html = page(
        run.resolve().name,
        data=read_report_data(run / REPORT_DATA),
        panels=curves(read_metrics(run / "metrics.jsonl")),
        files={
            name: (run / name).read_text(encoding="utf-8", errors="replace")
            for name in _FILES
            if (run / name).exists()
        },
    )
    atomic_write_text(path, html)
    return path


def main() -> int:
    """Write the report of the run that the flags name and print its path."""
    config = load_config(
        ReportConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(write_report(config.run, config.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))
