"""Decoding against clips whose pixels and times are known."""

import struct
import time
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoded_clips import CODECS, numbers, shades, write_clip
from sharded_folders import pack

from ssl_ebm.data import load_clip
from ssl_ebm.data.decoding import (
    SUFFIXES,
    BrokenClipError,
    FrameFormat,
    Timeline,
    _seek,
    read_frames,
    read_timeline,
)
from ssl_ebm.data.shards.folder import open_shards
from ssl_ebm.data.stored_clips import open_stored
from ssl_ebm.errors import UserError


def marked(count: int = 30) -> np.ndarray:
    """`shades` with a red top left and a blue bottom right corner, 16 x 12 pixels."""
    frames = shades(count)
    frames[:, :12, :16] = (255, 0, 0)
    frames[:, -12:, -16:] = (0, 0, 255)
    return frames


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_container_gives_the_written_pixels(tmp_path: Path, suffix: str) -> None:
    assert set(SUFFIXES) == {*CODECS, ".gif"}
    clip = load_clip(write_clip(tmp_path / f"clip{suffix}", marked()))
    assert clip.shape == (30, 3, 48, 64)
    assert clip.dtype == torch.float32
    assert numbers(clip[:, :, 24, 32].mean(dim=1).numpy()) == list(range(30))
    for t in (0, 17, 29):
        assert clip[t, :, 5, 7] == pytest.approx([1, 0, 0], abs=0.03)
        assert clip[t, :, -6, -8] == pytest.approx([0, 0, 1], abs=0.03)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_stretch_equals_that_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", marked())
    whole = load_clip(path)
    for start, frames in ((0, 4), (1, 1), (13, 6), (29, 1)):
        assert (load_clip(path, start=start, frames=frames) == whole[start : start + frames]).all()


def test_seeking_is_used_and_exact(tmp_path: Path) -> None:
    """Key frames every ten frames, B-frames between: the frames come without decoding from the start."""
    path = write_clip(
        tmp_path / "clip.mp4", shades(40), options={"g": "10", "bf": "2", "x264-params": "scenecut=0"}
    )
    timeline, form = read_timeline(path), FrameFormat(None)
    assert timeline.stamps is not None
    for first in (12, 25, 33):
        found = _seek(path, [first, first + 4], form, timeline.stamps, first)
        assert numbers(np.array([found[n][20, 20, 0] for n in (first, first + 4)]) / 255) == [
            first,
            first + 4,
        ]


def test_time_to_read_grows_with_the_frames_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40,000 frames, looking up each among all before it would take seconds."""
    count, pixel = 40_000, np.zeros((1, 1, 1), np.uint8)
    frame = SimpleNamespace(is_corrupt=False)
    monkeypatch.setattr("ssl_ebm.data.decoding._all_frames", lambda container, stream: repeat(frame, count))
    monkeypatch.setattr(FrameFormat, "apply", lambda *_: pixel)
    path = write_clip(tmp_path / "clip.mp4", shades(2))
    began = time.process_time()
    read = read_frames(path, np.arange(count), FrameFormat(None), Timeline(np.arange(count) / 25, None))
    assert time.process_time() - began < 1
    assert len(read) == count


def test_avi_with_reordered_frames_comes_in_order(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", shades(30), options={"bf": "2"})
    assert numbers(load_clip(path)[:, 0, 20, 20].numpy()) == list(range(30))
    assert numbers(load_clip(path, start=11, frames=5)[:, 0, 20, 20].numpy()) == [11, 12, 13, 14, 15]


def test_grayscale_is_luminance(tmp_path: Path) -> None:
    frames = np.zeros((3, 32, 96, 3), dtype=np.uint8)
    frames[:, :, :32, 0] = frames[:, :, 32:64, 1] = frames[:, :, 64:, 2] = 255
    clip = load_clip(write_clip(tmp_path / "clip.mkv", frames), grayscale=True)
    assert clip.shape == (3, 1, 32, 96)
    assert clip[0, 0, 16, [16, 48, 80]].numpy() == pytest.approx([0.299, 0.587, 0.114], abs=0.02)  # BT.601


@pytest.mark.parametrize(("size", "expected"), [(24, (24, 24)), ((24, 64), (24, 64)), ((96, 48), (96, 48))])
def test_frames_are_resized_to_cover_and_cut_at_the_centre(
    tmp_path: Path, size: int | tuple[int, int], expected: tuple[int, int]
) -> None:
    """Each pixel tells where it came from: red grows with the column, green with the row."""
    frames = np.zeros((2, 48, 96, 3), dtype=np.uint8)
    frames[..., 0] = np.linspace(20, 220, 96)
    frames[..., 1] = np.linspace(20, 220, 48)[:, None]
    clip = load_clip(write_clip(tmp_path / "clip.mkv", frames), size=size)
    height, width = expected
    assert clip.shape == (2, 3, height, width)
    scale = max(height / 48, width / 96)
    rows = (np.arange(height) + 0.5 - height / 2) / scale + 24 - 0.5
    columns = (np.arange(width) + 0.5 - width / 2) / scale + 48 - 0.5
    red, green = 20 + 200 * columns / 95, 20 + 200 * rows / 47
    inside = (slice(2, -2), slice(2, -2))  # the filter has no neighbours at the edge
    assert (255 * clip[0, 0].numpy() - red[None])[inside] == pytest.approx(0, abs=4)
    assert (255 * clip[0, 1].numpy() - green[:, None])[inside] == pytest.approx(0, abs=4)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(shades(1, 32, 32)[0], format="rgb24")))
        container.mux(stream.encode(None))
    assert load_clip(path).shape == (1, 3, 32, 64)


def set_rotation(path: Path, degrees: int) -> None:
    """Write a clockwise rotation into the matrix of an MP4 file's `tkhd` box (ISO 14496-12, 8.3.2)."""
    raw = bytearray(path.read_bytes())
    place = raw.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    raw[place : place + 36] = struct.pack(
        ">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(raw)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(("degrees", "red"), [(0, (0, 0)), (90, (0, 1)), (180, (1, 1)), (270, (1, 0))])
def test_rotation_tag_is_respected(tmp_path: Path, degrees: int, red: tuple[int, int], suffix: str) -> None:
    """The red corner is stored top left; a clockwise turn takes it to the top right, and so on."""
    path = write_clip(tmp_path / f"clip{suffix}", marked(3))
    set_rotation(path, degrees)
    clip = load_clip(path)
    assert clip.shape == (3, 3, *((48, 64) if degrees % 180 == 0 else (64, 48)))
    height, width = clip.shape[2:]
    assert clip[0, :, red[0] * (height - 9) + 4, red[1] * (width - 9) + 4] == pytest.approx(
        [1, 0, 0], abs=0.03
    )
    small = load_clip(path, size=(24, 24))
    assert small[0, 0, red[0] * 21 + 1, red[1] * 21 + 1] > 0.9
    assert small[0, 2, red[0] * 21 + 1, red[1] * 21 + 1] < 0.1


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25, list(range(20))),
        (12.5, list(range(0, 20, 2))),
        (5, [0, 5, 10, 15]),
        (50, [n // 2 for n in range(40)]),
        (10, [0, 2, 5, 7, 10, 12, 15, 17]),
        (0.1, [0]),
    ],
)
def test_frame_rate_shows_what_is_on_the_screen(tmp_path: Path, rate: float, expected: list[int]) -> None:
    path = write_clip(tmp_path / "clip.mp4", shades(20), rate=25)
    assert numbers(load_clip(path, frame_rate=rate)[:, 0, 20, 20].numpy()) == expected
    assert len(load_clip(path)) == 20


def test_uneven_times_are_resampled_by_time(tmp_path: Path) -> None:
    """Shown at 0, 1, 3, 10 and 12 hundredths of a second; by hand at 50 frames per second."""
    path = write_clip(tmp_path / "clip.mkv", shades(5), rate=100, times=[0, 1, 3, 10, 12])
    assert numbers(load_clip(path, frame_rate=50)[:, 0, 20, 20].numpy()) == [0, 1, 2, 2, 2, 3, 4]


def test_a_file_without_time_stamps_counts_its_frames() -> None:
    timeline = Timeline(np.arange(10) / 5, None)
    assert timeline.at_rate(2.5).tolist() == [0, 2, 4, 6, 8]
    assert timeline.at_rate(None).tolist() == list(range(10))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_no_video_is_broken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"this is no video, whatever its name says" * 50)
    with pytest.raises(UserError, match=f"clip{suffix} cannot be read as a video") as error:
        load_clip(path)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_broken(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), np.uint8)
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BrokenClipError):
        read_timeline(path)


def test_a_file_cut_behind_its_table_of_frames_is_broken(tmp_path: Path) -> None:
    """With the table first, a player would show the first half and stop without a word."""
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    raw = path.read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")
    path.write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(BrokenClipError):
        read_frames(path, np.arange(20), FrameFormat(None), read_timeline(path))


def copy_from_the_middle(source: Path, target: Path, key: int, first: int) -> Path:
    """The packets from key frame `key` on, with a list of edits that shows those from frame `first` on."""
    import av

    with av.open(str(source)) as whole, av.open(str(target), "w", options={"movflags": "faststart"}) as part:
        stored = whole.streams.video[0]
        copied = part.add_stream_from_template(stored)
        assert stored.time_base is not None
        unit = int(Fraction(1, 25) / stored.time_base)
        for packet in whole.demux(stored):
            if packet.pts is not None and packet.dts is not None and packet.pts >= key * unit:
                packet.pts -= first * unit
                packet.dts -= first * unit
                packet.stream = copied
                part.mux(packet)
    return target


def begin_late(source: Path, target: Path, frames: int) -> Path:
    """The same samples, of which the list of edits shows all but the first few (ISO 14496-12, 8.6.6)."""
    import av

    with av.open(str(source)) as whole:
        unit = int(Fraction(1, 25) * whole.streams.video[0].time_base.denominator)  # type: ignore[union-attr]
    raw = bytearray(source.read_bytes())
    entry = raw.index(b"elst") + 12
    duration, begin = struct.unpack_from(">Ii", raw, entry)  # thousandths of a second, ticks of the stream
    struct.pack_into(">Ii", raw, entry, duration - 40 * frames, begin + unit * frames)
    target.write_bytes(raw)
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("trim", ["copied from the middle", "beginning late"])
def test_a_trimmed_file_shows_what_its_edits_leave(tmp_path: Path, trim: str, suffix: str) -> None:
    """Key frames every ten frames, and frames 14 to 39 are shown, in shards too. Cut off, it is refused."""
    whole = write_clip(
        tmp_path / f"whole{suffix}", shades(40), options={"g": "10", "bf": "2", "x264-params": "scenecut=0"}
    )
    (tmp_path / "clips").mkdir()
    path = tmp_path / "clips" / f"clip{suffix}"
    if trim == "beginning late":
        begin_late(whole, path, 14)
    else:
        copy_from_the_middle(whole, path, 10, 14)
    shown = list(range(14, 40))
    assert numbers(load_clip(path)[:, 0, 20, 20].numpy()) == shown
    assert numbers(load_clip(path, start=11, frames=9)[:, 0, 20, 20].numpy()) == shown[11:20]
    assert read_timeline(path).seconds == pytest.approx(np.arange(26) / 25)

    pack(tmp_path / "clips", tmp_path / "shards", kind="clips")
    shards = open_shards(tmp_path / "shards", "clips")
    assert shards is not None
    stored = open_stored(shards, 0, FrameFormat(None), None)
    assert numbers(stored.read(0, stored.frames)[:, 20, 20, 0] / 255) == shown
    assert (read_timeline(shards.file(0)).seconds == read_timeline(path).seconds).all()

    if trim == "copied from the middle":  # its table comes first
        path.write_bytes(path.read_bytes()[:-600])
        with pytest.raises(BrokenClipError, match=r"cut off after \d+ of 30 frames"):
            read_timeline(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(BrokenClipError, match="no video stream"):
        read_timeline(path)


def test_missing_and_short_clips_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        load_clip(tmp_path / "none.mp4")
    path = write_clip(tmp_path / "clip.mp4", shades(3))
    with pytest.raises(UserError, match="has 3 frames, but 5 are needed") as error:
        load_clip(path, frames=5)
    assert "\n" not in str(error.value)


def test_real_files_of_many_kinds(shared_data: Path) -> None:
    """Every original decodes; a seek into each gives the frame that decoding from the start gives."""
    folder = shared_data / "video" / "originals"
    upright = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES):
        if path.name == "decord_corrupted.mp4":
            damaged = read_timeline(path)
            with pytest.raises(BrokenClipError):
                read_frames(path, np.arange(len(damaged.seconds)), FrameFormat((32, 32)), damaged)
            continue
        timeline = read_timeline(path)
        count = min(len(timeline.seconds), 40)
        whole = read_frames(path, np.arange(count), FrameFormat((32, 32)), timeline)
        late = [count * 2 // 3, count - 1]
        assert (read_frames(path, late, FrameFormat((32, 32)), timeline) == whole[late]).all()
        upright[path.name] = load_clip(path, frames=1).shape[2:]
    assert len(upright) == 12
    assert upright["decord_video_0.mov"] == upright["decord_video_180.mov"] == (320, 568)
    assert upright["decord_video_90.mov"] == upright["decord_video_270.mov"] == (568, 320)


def test_frame_counts_of_real_clips_match_their_list(shared_data: Path) -> None:
    import csv

    folder = shared_data / "video" / "weizmann_actions"
    with (folder / "clips.csv").open() as file:
        for row in list(csv.DictReader(file))[::3]:
            timeline = read_timeline(folder / row["path"])
            assert len(timeline.seconds) == int(row["frames"])
            assert len(timeline.at_rate(float(row["fps"]) / 2)) == int(row["frames"]) // 2


def test_a_row_of_a_file_of_arrays(tmp_path: Path) -> None:
    """As it is stored, whatever the frame rate; resized and cut as other clips are."""
    video = np.random.default_rng(0).integers(0, 256, (3, 5, 12, 16, 3), dtype=np.uint8)
    path = tmp_path / "clips.npz"
    np.savez(path, video=video)
    found = load_clip(f"{path}[2]", frame_rate=10, start=1, frames=3)
    assert (found.permute(0, 2, 3, 1).numpy() == video[2, 1:4].astype(np.float32) / 255).all()
    assert load_clip(f"{path}[0]", size=(6, 4), grayscale=True).shape == (5, 1, 6, 4)
    for name, words in [
        (str(path), r"holds 3 clips: choose one"),
        (f"{path}[3]", r"up to .*clips\.npz\[2\]"),
        (f"{tmp_path / 'none.npz'}[0]", "no file"),
    ]:
        with pytest.raises(UserError, match=words):
            load_clip(name)
    with pytest.raises(UserError, match=r"has 5 frames, but 6 are needed: give a longer clip$"):
        load_clip(f"{path}[0]", frame_rate=10, frames=6)
    np.savez(tmp_path / "single.npz", video=video[:1])
    assert load_clip(tmp_path / "single.npz").shape == (5, 3, 12, 16)
    np.savez(tmp_path / "other.npz", other=video)
    with pytest.raises(UserError, match="video"):
        load_clip(tmp_path / "other.npz")
