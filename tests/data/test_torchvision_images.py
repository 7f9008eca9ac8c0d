"""torchvision's sets of images: real files where they are, a clear line where they are not."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from ssl_ebm.data import TorchvisionImages
from ssl_ebm.errors import UserError

FASHION = Path(__file__).resolve().parents[3] / "shared" / "data" / "images" / "FashionMNIST"


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Fashion-MNIST, which is not beside this checkout")
def test_fashion_mnist_from_its_files(tmp_path: Path) -> None:
    shutil.copytree(FASHION, tmp_path / "FashionMNIST")
    data = TorchvisionImages("FashionMNIST", str(tmp_path), download=True, batch_size=8)
    data.setup()
    sizes = [len(one) for one in (data.train_dataset, data.val_dataset, data.test_dataset)]
    assert sum(sizes[:2]) == 60_000
    assert sizes[2] == 10_000
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (8, 1, 28, 28)
    assert batch["label"].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]  # as published


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "CIFAR100", "STL10", "ImageNet"])
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    data = TorchvisionImages(name, str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=name):
        data.setup("fit")


@pytest.mark.parametrize("content", [b"", b"not of torch"])
def test_a_damaged_list_of_classes_is_named(content: bytes, tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01", "n02"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{number}.jpeg")
    data = TorchvisionImages("ImageNet", str(tmp_path), size=8)
    data.setup()
    assert data.classes == ["n01", "n02"]
    (tmp_path / "meta.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"meta\.bin is damaged .*: remove it"):
        TorchvisionImages("ImageNet", str(tmp_path), size=8).setup()
