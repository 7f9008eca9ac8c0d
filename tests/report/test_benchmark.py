"""The benchmark: what it writes, its arithmetic, and that ours and the peer do the same work."""

import json
import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from scipy.stats import binom

from ssl_ebm.cli import main
from ssl_ebm.data import MovingDigits, load_clip
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.statistics import Interval
from ssl_ebm.report import benchmark
from ssl_ebm.report.benchmarks import frames, suites, timing
from ssl_ebm.report.benchmarks.inference_cost import (
    energies_of_first_code,
    energies_one_by_one,
    inference_rows,
)
from ssl_ebm.report.benchmarks.loading_rates import Loading, loading_rows, write_clips
from ssl_ebm.report.benchmarks.rows import Row, with_interval
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import (
    Effort,
    Rates,
    Work,
    matmul,
    matmul_flops,
    median_interval,
    ratio_over_processes,
)
from ssl_ebm.report.benchmarks.training_loops import (
    WARM_UP_STEPS,
    BareLoop,
    Turns,
    bare_twin,
    execute,
    longest_block,
    make_fit,
)
from ssl_ebm.tasks import FramePrediction, precision

CPU = torch.device("cpu")
ONCE = Effort(repeats=1, seconds=0, device=CPU)
SMALL = ["--model.width", "8", "--model.features", "8", "--model.codes", "3", "--data.batch_size", "4"]
FIELDS = {"suite", "case", "dtype", "ours", "unit", "peer", "peer_name", "ratio", "ratio_interval"}
FIELDS |= {"ceiling_share"}


def check_rows(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        assert set(row) == FIELDS
        assert isinstance(row["ours"], float)
        assert row["ours"] > 0
        assert (row["peer"] is None) == (row["peer_name"] is None) == (row["ratio"] is None)
        if row["peer"] is not None:
            low, high = row["ratio_interval"]
            assert low <= row["ratio"] <= high
            if low == high:  # one turn
                assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])


# -- rows ------------------------------------------------------------------------------------------------


def test_a_row_says_how_sure_its_ratio_is() -> None:
    ratio = Interval(1.5, 1.4, 1.7)
    assert Row("s", "c", "float32", 30.0, "steps/s", 20.0, "a peer", ratio).as_dict() == {
        "suite": "s", "case": "c", "dtype": "float32", "ours": 30.0, "unit": "steps/s", "peer": 20.0,
        "peer_name": "a peer", "ratio": 1.5, "ratio_interval": [1.4, 1.7], "ceiling_share": None,
    }  # fmt: skip
    assert Row("s", "c", "float32", 30.0, "GFLOP").as_dict()["ratio"] is None


def test_a_ratio_is_shown_to_a_thousandth() -> None:
    """0.9994 is not rounded up to 1, and one of dozens has three digits."""
    assert with_interval(Interval(0.9994, 0.98, 1.0)) == "0.999 (0.980 to 1.000)"
    assert with_interval(Interval(34.56, 9.994, 1234.5)) == "34.6 (9.994 to 1,234)"


def test_rows_of_a_training_and_what_is_said_of_them() -> None:
    # A step of 2e9 operations, matrix products of 2 * 2048^3 each, and Lightning at 96 of 100 steps.
    products = 8.0
    ceiling = products * 2 * 2048**3
    rates = Rates({"fit": [9.6], "bare": [10.0], "least_squares": [15.0], "ceiling": [products]})
    rows = list(frames._training_rows("latent_ebm", torch.bfloat16, rates, flops=2_000_000_000))
    check_rows([row.as_dict() for row in rows])
    fit, step, flops, achieved = rows
    assert fit.peer_name == "bare PyTorch loop"
    assert fit.ratio is not None
    assert fit.ratio.value == pytest.approx(0.96)
    assert fit.ceiling_share == pytest.approx(9.6 * 2e9 / ceiling)
    assert step.ratio is not None
    assert step.ratio.value == pytest.approx(10 / 15)
    assert (flops.ours, flops.unit, flops.ceiling_share) == (2.0, "GFLOP", None)
    assert achieved.ours == pytest.approx(20.0)
    assert achieved.ratio is not None
    assert achieved.ratio.value == pytest.approx(achieved.ceiling_share) == pytest.approx(2e10 / ceiling)
    lines = frames.summary(rows)
    assert len(lines) == 2
    assert "adds 4.2%" in lines[0]  # 10 / 9.6 - 1
    assert "lasts 1.50 (1.50 to 1.50) least-squares steps" in lines[1]


# -- timing ----------------------------------------------------------------------------------------------


def test_rates_are_medians_of_blocks_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order, trouble = [0.0], [], {10: 3.0}  # the fifth block of all meets a busy machine

    def make(name: str, seconds: float) -> Work:
        def run(units: int) -> None:
            order.append((name, units))
            now[0] += units * seconds + trouble.pop(
                len(order) - 4, 0.0
            )  # 4 runs look for the blocks' lengths

        return Work(run, before=lambda: now.__setitem__(0, now[0] + 7.0))  # not in a block's time

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    effort = Effort(repeats=3, seconds=2.0, device=CPU)
    rates = effort.rates({"fast": make("fast", 0.1), "slow": make("slow", 0.5)})
    assert not trouble
    assert (rates["fast"], rates["slow"]) == pytest.approx((10.0, 2.0))
    fast, slow = ("fast", 20), ("slow", 4)  # 2 seconds each
    assert order[5::2] == [fast, slow, slow, fast, fast, slow]
    assert {units for _, units in order[4::2]} == {1}  # not timed


def test_a_ratio_compares_blocks_of_one_turn() -> None:
    # The machine slows down by half, and the peer's first block is disturbed: ours takes 0.9 of its time.
    pace = [2.0, 2.0, 1.5, 1.2, 1.0]
    rates = Rates({"ours": [10 * p for p in pace], "peer": [3.0, *(9 * p for p in pace[1:])]})
    ratio = rates.ratio("ours", "peer")
    assert ratio.value == pytest.approx(10 / 9)
    assert (ratio.low, ratio.high) == pytest.approx((10 / 9, 20 / 3))  # five turns: the range
    assert rates["ours"] / rates["peer"] == pytest.approx(15 / 10.8)  # medians of different turns mislead


@pytest.mark.parametrize("count", [6, 9, 12, 25])
def test_interval_of_a_median_holds_the_truth_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(count)
    found = [median_interval(list(generator.exponential(size=count))) for _ in range(4000)]
    hits = np.mean([one.low <= math.log(2) <= one.high for one in found])
    least = 1 - 2 * binom.cdf(binom.ppf(0.025, count, 0.5) - 1, count, 0.5)  # its exact coverage
    assert least >= 0.95
    assert hits == pytest.approx(least, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_processes_that_differ_are_not_hidden_by_their_many_turns() -> None:
    # 100 turns each, all the same within a process: over turns the interval would have no width.
    found = [Rates({"a": [ratio] * 100, "b": [1.0] * 100}) for ratio in (0.8, 0.9, 1.0, 1.1, 1.2)]
    assert ratio_over_processes(found, "a", "b") == Interval(1.0, 0.8, 1.2)


@pytest.mark.parametrize("onednn", [False, True])
def test_operations_of_the_ceiling(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter does not know oneDNN's operator: in its place the usual one, of the same matrices."""
    monkeypatch.setattr(timing, "multiply", torch.matmul)
    monkeypatch.setattr(timing, "_onednn_is_faster", lambda: onednn)
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with counter:
        matmul(torch.float32, CPU).run(2)
    assert counter.get_total_flops() == 2 * matmul_flops()


# -- the two loops do the same ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "dtype"),
    [("least_squares", torch.float32), ("latent_ebm", torch.float32), ("latent_ebm", torch.bfloat16)],
)
def test_bare_loop_and_fit_end_with_identical_weights(
    objective: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda: False)  # bfloat16 on any processor
    # Three steps are the whole training here, so temperature and learning rate go through their schedules.
    fit = make_fit(objective, tmp_path, dtype, CPU, [*SMALL, "--trainer.max_steps", "3"])
    bare = bare_twin(fit, dtype, CPU)
    start = {name: value.clone() for name, value in fit.model.state_dict().items()}
    bare(3)
    fit.execute()
    trained, twin = fit.model.state_dict(), bare.model.state_dict()
    assert fit.trainer.global_step == 3
    assert trained.keys() == twin.keys()
    for name in trained:
        assert torch.equal(trained[name], twin[name]), name
    assert sum(not torch.equal(start[name], trained[name]) for name in start) > len(start) / 2


def test_turns_of_fit_and_its_peers(tmp_path: Path) -> None:
    fit = make_fit("least_squares", tmp_path, settings=SMALL)
    done: list[int] = []
    effort = Effort(repeats=3, seconds=0, device=CPU)

    def peer(units: int) -> None:
        done.append(int(fit.trainer.global_step))

    rates = execute(fit, Turns({"peer": Work(peer)}, 2, effort))
    first = WARM_UP_STEPS
    looks = [first, first]  # for the length of the block
    assert done == [*looks, *(step for step in (first + 3, first + 6, first + 9) for _ in range(2))]
    assert fit.trainer.global_step == first + 12  # a block of fit before and after every block of the peer
    assert rates.turns.keys() == {"fit", "peer"}
    assert {len(values) for values in rates.turns.values()} == {3}
    assert 0 < rates["fit"] < rates["peer"]


def test_long_blocks_and_many_turns_end_with_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    short = [*SMALL, "--trainer.max_steps", "21"]
    monkeypatch.setattr(Effort, "block", lambda self, work: 1000)  # as on a fast machine
    monkeypatch.setattr(Effort, "rate", lambda self, work, units: 1.0)

    def rows(repeats: int) -> list[Row]:
        effort = Effort(repeats=repeats, seconds=9, device=CPU)
        return list(frames._training(effort, "least_squares", torch.float32, short))

    # 3 steps of warm-up; 3 blocks of 5 steps, or 9 of 1 step, each after a step that is not timed
    for repeats, block in ((2, 5), (8, 1)):
        assert longest_block(repeats, 21) == block
        assert rows(repeats)[0].ours > 0
    with pytest.raises(UserError, match=r"9 turns .* the 21 steps of the training: use fewer repeats"):
        rows(9)


def test_operations_of_a_step_grow_with_the_batch() -> None:
    def flops(clips: int) -> int:
        model = FramePrediction(codes=3, width=8, features=8)
        return BareLoop(model, [{"video": torch.rand(clips, 5, 1, 16, 16)}]).flops()

    assert flops(6) == 3 * flops(2) > 0


# -- inference -------------------------------------------------------------------------------------------


def test_peers_of_inference_find_the_same_energies() -> None:
    model = FramePrediction(codes=5, width=8, features=8).eval()
    x, y = torch.rand(2, 4, 1, 16, 16), torch.rand(2, 1, 16, 16)
    energies = model.energies_by_code(x, y)
    torch.testing.assert_close(energies_one_by_one(model, x, y), energies)
    torch.testing.assert_close(energies_of_first_code(model, x, y), energies[:, :1])


def test_rows_of_inference() -> None:
    rows = [row.as_dict() for row in inference_rows("frames", ONCE, codes=(1, 4), clips=2, side=16)]
    check_rows(rows)
    assert [row["case"] for row in rows] == ["infer z, 1 code"] + 3 * ["infer z, 4 codes"]
    assert rows[3]["peer"] == rows[0]["ours"]
    assert [row["peer_name"] for row in rows[1:3]] == ["4 decodes, one by one", "4 full forward passes"]


# -- loading ---------------------------------------------------------------------------------------------


def test_workers_live_within_a_block_and_their_waiting_batches_are_left_out() -> None:
    one = Loading(lambda workers: MovingDigits(batch_size=2, workers=workers, glyphs_per_digit=1), 1)
    stream = iter(MovingDigits(batch_size=2, glyphs_per_digit=1).train_dataloader())
    expected = [next(stream)["video"] for _ in range(4)]
    for _ in range(2):  # every block begins with fresh workers
        one.open()
        assert len(multiprocessing.active_children()) == 1
        assert torch.equal(one.take(1)["video"], expected[3])  # 2 waited, and 1 was being made
        one.close()
        assert multiprocessing.active_children() == []


def test_rows_of_loading() -> None:
    def make(workers: int) -> MovingDigits:
        return MovingDigits(batch_size=2, workers=workers, glyphs_per_digit=1)

    rows = [row.as_dict() for row in loading_rows("frames", "digits", make, ONCE, width=8, features=8)]
    check_rows(rows)
    assert [row["case"] for row in rows] == ["load digits, 0 workers", "load digits, 1 worker"]
    assert rows[0]["peer"] == rows[1]["peer"]


def test_generated_clips_move(tmp_path: Path) -> None:
    write_clips(tmp_path, clips=2, frames=8)
    for number in range(2):
        path = tmp_path / f"{number:02}.mp4"
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 8
        first, last = (load_clip(path, size=None, start=start, frames=1)[0] for start in (0, 7))
        # Somewhere within 3 pixels a frame, but not at rest, there is a drift that explains the last frame.
        error = {
            (down, right): float((first.roll((7 * down, 7 * right), (1, 2)) - last).abs().mean())
            for down in range(-3, 4)
            for right in range(-3, 4)
        }
        drift = min(error, key=error.__getitem__)
        assert 0 not in drift
        assert error[drift] < 0.1 * error[0, 0]


# -- the command -----------------------------------------------------------------------------------------


EVEN = Interval(1.5, 1.5, 1.5)


class FakeSuite:
    """Two parts, of one row each."""

    def __init__(self) -> None:
        self.row = Row("fake", "a case", "float32", 3.0, "steps/s", 2.0, "a peer", EVEN, 0.25)
        self.rest = Row("fake", "another", "float32", 1.0, "GFLOP")

    def parts(self, effort: Effort) -> list[Part]:
        return [Part("one", 1.0, lambda: [self.row]), Part("two", 3.0, lambda: [self.rest])]

    def summary(self, rows: Sequence[Row]) -> list[str]:
        assert list(rows) == [self.row, self.rest]
        return ["all is well"]


def test_files_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "find_suites", lambda name: {"fake": FakeSuite()})
    rows = benchmark.run(None, tmp_path / "new" / "folder")
    check_rows(rows)
    assert json.loads((tmp_path / "new" / "folder" / "benchmark.json").read_text()) == rows
    assert [row["ratio"] for row in rows] == [1.5, None]
    machine = json.loads((tmp_path / "new" / "folder" / "machine.json").read_text())
    assert machine["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()
    assert {"cpu", "cores", "date"} <= machine.keys()
    shown = capsys.readouterr().out
    html = (tmp_path / "new" / "folder" / "benchmark.html").read_text()
    for words in ("a case", "3 steps/s", "2 a peer", "25%", "all is well", "1 GFLOP"):
        assert words in html
    for words in ("a case", "2  a peer", "1.5", "25%", "all is well", machine["cpu"].split()[0], "two"):
        assert words in shown


def test_an_interrupted_run_leaves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(FakeSuite):
        def parts(self, effort: Effort) -> list[Part]:
            def stop() -> list[Row]:
                raise KeyboardInterrupt

            return [super().parts(effort)[0], Part("two", 3.0, stop)]

    monkeypatch.setattr(benchmark, "find_suites", lambda name: {"fake": Stopped()})
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(None, tmp_path)
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())
    assert row["case"] == "a case"
    assert json.loads((tmp_path / "machine.json").read_text())["torch"] == torch.__version__
    assert not (tmp_path / "benchmark.html").exists()


def test_one_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Part2(FakeSuite):
        def summary(self, rows: Sequence[Row]) -> list[str]:
            return []

    class Without(Part2):
        def parts(self, effort: Effort) -> list[Part]:
            return super().parts(effort)[:1]

    monkeypatch.setattr(benchmark, "find_suites", lambda name: {"fake": Part2(), "other": Without()})
    [row] = benchmark.run(None, tmp_path / "out", only="tw")
    assert row["case"] == "another"
    html = (tmp_path / "out" / "benchmark.html").read_text()
    assert "another" in html
    assert "other</h2>" not in html
    with pytest.raises(
        UserError, match=r"no part .* 'three' in its name: use a word of one of one, two, one"
    ):
        benchmark.run(None, tmp_path / "none", only="three")
    assert not (tmp_path / "none").exists()


def test_time_left_is_in_proportion_to_the_time_so_far() -> None:
    parts = FakeSuite().parts(ONCE)
    assert benchmark._left(parts, 0, 0.0) == 4.0
    assert benchmark._left(parts, 1, 2.0) == 6.0  # the first took twice its guess, so may the second


def test_unknown_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "nonsense", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'nonsense'" in error
    assert all(name in error for name in suites.SUITES)
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        benchmark.run("frames", tmp_path / "file")


def test_all_suites_are_found() -> None:
    assert list(suites.find_suites(None)) == list(suites.SUITES)


@pytest.mark.slow
@pytest.mark.timeout(900)  # every loader and network at full size; minutes where others use the cores
def test_frames(tmp_path: Path) -> None:
    """Every measurement once: the suite runs as it stands."""
    rows = benchmark.run("frames", tmp_path, repeats=1, seconds=0)
    check_rows(rows)
    cases = [str(row["case"]) for row in rows]
    for objective in ("least_squares", "latent_ebm"):
        assert f"{objective}: training steps of fit" in cases
    for start in ("infer z, 512", "load large digits, 1", "load mp4 files, 0", "load mp4 files, cached, 1"):
        assert any(case.startswith(start) for case in cases), start
    assert {row["suite"] for row in rows} == {"frames"}
