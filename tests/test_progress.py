"""Lines of progress for a log."""

import io

from ssl_ebm.progress import Display, clock


def test_clock() -> None:
    assert clock(3723.4) == "1:02:03"
    assert clock(-5) == "0:00:00"


def test_first_and_last_are_always_shown() -> None:
    stream = io.StringIO()
    with Display(seconds=1e9, stream=stream) as display:
        for done in range(1, 6):
            display.show("training", done, 5, "steps", 60.0 * (5 - done), "latent_ebm seed 0: 3")
        display.show("evaluation", 1, 9, "clips", None)
    assert stream.getvalue().splitlines() == [
        "training 1/5 steps  latent_ebm seed 0: 3  time left 0:04:00",
        "training 5/5 steps  latent_ebm seed 0: 3  time left 0:00:00",
        "evaluation 1/9 clips",
    ]
