"""Datasets and LightningDataModules: digits with known futures, video, images, text, points in the plane."""

from ssl_ebm.data.clip_data import ClipData
from ssl_ebm.data.clip_windows import ClipWindows
from ssl_ebm.data.clips import load_clip
from ssl_ebm.data.images import FontDigits, IdxImages, ImageData, ImageFolder
from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.labelled_text import LabelledDocuments, LabelledText
from ssl_ebm.data.loading import StreamData
from ssl_ebm.data.moving_digits import Futures, MovingDigits, MovingDigitsDataset
from ssl_ebm.data.planar import Plane, PlanePoints, plane
from ssl_ebm.data.text import PackedText, Text
from ssl_ebm.data.torchvision_images import TorchvisionImages
from ssl_ebm.data.torchvision_video import TorchvisionVideo
from ssl_ebm.data.video import VideoData
from ssl_ebm.data.video_folder import VideoFolder

__all__ = [
    "ClipData",
    "ClipWindows",
    "FontDigits",
    "Futures",
    "IdxImages",
    "ImageData",
    "ImageFolder",
    "LabelledDocuments",
    "LabelledShare",
    "LabelledText",
    "MovingDigits",
    "MovingDigitsDataset",
    "PackedText",
    "Plane",
    "PlanePoints",
    "StreamData",
    "Text",
    "TorchvisionImages",
    "TorchvisionVideo",
    "VideoData",
    "VideoFolder",
    "load_clip",
    "plane",
]
