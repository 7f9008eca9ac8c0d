"""Values of data settings on the command line are of the type that the setting has."""

from pathlib import Path

import pytest

from ssl_ebm.data import ImageFolder, Text
from ssl_ebm.errors import UserError
from ssl_ebm.report.data_arguments import make_data

IMAGES = "ssl_ebm.data.ImageFolder"


@pytest.mark.parametrize("name", ["2024", "no", "null", "a: b", "2024-01-01", "my.photos", "@x", "[x", "*x"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    data = make_data(IMAGES, ["--data.folder", name])
    assert isinstance(data, ImageFolder)
    assert data.folder == Path(name)


def test_other_settings_are_read_as_they_are_written() -> None:
    words = ["--data.folder", "x", "--data.size", "[16, 24]", "--data.flip", "true", "--data.crop", "0.3"]
    data = make_data(IMAGES, words)
    assert isinstance(data, ImageFolder)
    assert (data.size, data.settings()["flip"], data.settings()["crop"]) == ((16, 24), True, 0.3)
    text = make_data("ssl_ebm.data.Text", ["--data.path", "x", "--data.tokenizer", "null"])
    assert isinstance(text, Text)
    assert text.given is None


@pytest.mark.parametrize(("setting", "word"), [("size", "[x"), ("size", "large"), ("crop", "@x")])
def test_a_word_that_is_none_of_its_kind_is_named(setting: str, word: str) -> None:
    with pytest.raises(UserError, match=setting):
        make_data(IMAGES, ["--data.folder", "x", f"--data.{setting}", word])
