"""Files that announce more than they hold, or than memory holds, are refused before memory is taken."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from image_files import write_idx
from PIL import Image

from ssl_ebm.data import MovingDigits, VideoFolder, load_clip
from ssl_ebm.data.clips import find_clips, open_clip
from ssl_ebm.data.decoding import MOST_PIXELS, BrokenClipError, FrameFormat, read_timeline
from ssl_ebm.data.glyphs import read_idx
from ssl_ebm.data.picture_files import BrokenPictureError, decode
from ssl_ebm.errors import UserError

SIDE = 20_000  # pixels; its square is more than any limit, and not more than a file's 16 bits
ALLOWED = 2**26  # bytes of Python's own that reading such a file may take


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Fails a test that took more memory on the way."""
    tracemalloc.start()
    yield
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < ALLOWED


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_huge_picture(tmp_path: Path, little_memory: None) -> None:
    """A whole PNG file with right checksums, of 20 kB and 400 million pixels."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((SIDE // 8 + 1) * SIDE))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(BrokenPictureError, match=r"bomb.png cannot be read .*decompression bomb"):
        decode(path, path.name, False)


def encoded(path: Path, codec: str) -> bytes:
    """A clip of 64x48 pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_a_clip_whose_header_announces_huge_frames(tmp_path: Path, little_memory: None) -> None:
    path = tmp_path / "clip.avi"
    content = encoded(path, "rawvideo")
    assert load_clip(path).shape == (3, 3, 48, 64)
    size = struct.pack("<II", 64, 48)  # as in the BITMAPINFOHEADER
    side = int(MOST_PIXELS**0.5) + 1
    assert content.count(size) == 2  # the container's and the stream's
    path.write_bytes(content.replace(size, struct.pack("<II", side, side)))
    with pytest.raises(
        UserError, match=r"clip.avi cannot be read as a video \(its frames have more than 67,"
    ):
        load_clip(path)


def test_a_clip_whose_frames_turn_huge(tmp_path: Path, little_memory: None) -> None:
    """Where the header is that of a small clip."""
    path = tmp_path / "clip.avi"
    content = encoded(path, "mjpeg")
    sizes = struct.pack(">HH", 48, 64)
    places = [i for i in range(len(content)) if content.startswith(b"\xff\xc0\x00\x11\x08" + sizes, i)]
    assert len(places) == 3  # the frames' own headers
    at = places[1] + 5
    path.write_bytes(content[:at] + struct.pack(">HH", SIDE, SIDE) + content[at + 4 :])
    with pytest.raises(UserError, match=r"clip.avi cannot be read as a video"):
        load_clip(path)
    path.write_bytes(content)
    assert load_clip(path).shape == (3, 3, 48, 64)


def announced(path: Path, shape: tuple[int, ...], content: bytes = b"\0" * 64) -> None:
    """A file of arrays whose header says this shape."""
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("video.npy", header.getvalue() + content)


@pytest.mark.parametrize("shape", [(10**12, 4, 8, 8), (2**62, 0, 8, 8), (10**12, 0, 0, 0), (7, 2**40, 8, 8)])
def test_arrays_that_are_not_there(shape: tuple[int, ...], tmp_path: Path, little_memory: None) -> None:
    announced(tmp_path / "arrays.npz", shape)
    (listing,) = find_clips(tmp_path)
    with pytest.raises(BrokenClipError):
        open_clip(listing, FrameFormat((8, 8)), None)
    with pytest.raises(UserError, match=r"no readable clip .*arrays.npz"):
        VideoFolder(str(tmp_path), size=8).setup()


def test_arrays_whose_groups_are_not_theirs(tmp_path: Path) -> None:
    """Too few, too many, or damaged: the file is broken, and none of its clips is read."""
    video, path = np.full((5, 8, 8, 8), 99, np.uint8), tmp_path / "arrays.npz"
    np.savez(path, video=video, group=np.arange(5))
    assert [listing.group for listing in find_clips(tmp_path)] == [f"arrays.npz/{n}" for n in range(5)]
    content = path.read_bytes()
    damaged = content.replace(np.arange(5).tobytes(), np.arange(1, 6).tobytes())
    assert damaged != content
    path.write_bytes(damaged)
    broken = [damaged]
    for groups in (np.arange(4), np.arange(6)):
        np.savez(path, video=video, group=groups)
        broken.append(path.read_bytes())
    for number, content in enumerate(broken):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "arrays.npz").write_bytes(content)
        (listing,) = find_clips(tmp_path / str(number))
        with pytest.raises(BrokenClipError, match=r"group"):
            open_clip(listing, FrameFormat((8, 8)), None)


def test_idx_files_that_announce_more_than_they_hold(tmp_path: Path, little_memory: None) -> None:
    for sides in ((2**31, 2**10, 2**10), (2**30, 1, 1)):  # more than memory holds, and less
        header = struct.pack(">HBB3I", 0, 8, 3, *sides)
        (tmp_path / "images").write_bytes(header)
        with gzip.open(tmp_path / "images.gz", "wb") as file:
            file.write(header)
        for name in ("images", "images.gz"):
            with pytest.raises(UserError, match=rf"{name} cannot be read .*announces more values than it ho"):
                read_idx(tmp_path / name)


def test_idx_files_with_any_bit_changed(tmp_path: Path) -> None:
    """gzip has a checksum: no other values come of it."""
    values = np.random.default_rng(0).integers(0, 255, (4, 5, 5), dtype=np.uint8)
    path = tmp_path / "images.gz"
    write_idx(path, values)
    content = path.read_bytes()
    refused = 0
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        try:
            assert np.array_equal(read_idx(path), values)  # the name or the time in gzip's header
        except UserError:
            refused += 1
    assert refused > 8 * (len(content) - 60)


def test_a_png_file_with_any_byte_changed_is_refused_or_the_same(tmp_path: Path) -> None:
    """Pillow does not look at the checksum of the pixels."""
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    end = content.index(b"IEND") - 4
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 16
        path.write_bytes(bytes(changed))
        try:
            assert np.array_equal(decode(path, path.name, False), pixels)
            assert place >= end  # the last part holds nothing
        except BrokenPictureError:
            pass


def test_batches_that_no_memory_holds(little_memory: None) -> None:
    with pytest.raises(UserError, match=r"the clips of a batch need .* GiB.*lower batch_size"):
        MovingDigits(context_frames=4_000_000).setup("fit")


def test_a_stream_without_a_decoder_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    content = encoded(path, "mjpeg")
    path.write_bytes(content.replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(BrokenClipError):
        read_timeline(path)


def test_a_file_of_arrays_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    """By a process that has read the one before it."""
    for count, shade in ((5, 99), (3, 55)):
        np.savez(tmp_path / "arrays.npz", video=np.full((count, 4, 8, 8), shade, np.uint8))
        last = find_clips(tmp_path)[-1]
        assert last.name == f"arrays.npz[{count - 1}]"
        assert open_clip(last, FrameFormat((8, 8)), None).read(0, 4).max() == shade


def test_a_clip_of_a_file_that_holds_fewer_now_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, video=np.full((5, 4, 8, 8), 99, np.uint8))
    listed = find_clips(tmp_path)
    np.savez(path, video=np.full((3, 4, 8, 8), 99, np.uint8))
    with pytest.raises(BrokenClipError, match=r"the file holds 3 clips now: it was replaced"):
        open_clip(listed[-1], FrameFormat((8, 8)), None)
