"""Progress lines, with a clock and a stream of the test's own."""

import io

from multigrain.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_lines_have_rate_and_time_left() -> None:
    """Off a terminal a line is printed when it is due, and the last one on closing."""
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(200, "photos", stream=stream, clock=lambda: now[0], every_seconds=10)
    for now[0], done in ((0.0, 100), (5.0, 110), (10.0, 120), (12.0, 124)):
        progress.update(done, "decode")
    progress.close()
    assert stream.getvalue().splitlines() == [
        "120/200 photos 2.0/s 40s left decode",
        "124/200 photos 2.0/s 38s left decode",
    ]


def test_a_terminal_line_is_rewritten() -> None:
    """One line, overwritten, ended on closing."""
    stream = Terminal()
    now = [0.0]
    progress = Progress(None, "rows", stream=stream, clock=lambda: now[0])
    for now[0], done in ((0.0, 0), (1.0, 4), (7200.0, 7200)):
        progress.update(done)
    progress.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().startswith("\r4 rows 4.0/s\x1b[K\r7200 rows 1.0/s")


def test_long_times_are_read_as_people_say_them() -> None:
    """Seconds, minutes, hours."""
    stream = io.StringIO()
    now = [0.0]
    progress = Progress(10_000, "x", stream=stream, clock=lambda: now[0], every_seconds=0)
    for now[0], done in ((0.0, 0), (1.0, 1), (100.0, 5_000)):
        progress.update(done)
    assert [line.split("/s ")[1] for line in stream.getvalue().splitlines()[1:]] == [
        "2h46m left",
        "1m40s left",
    ]
