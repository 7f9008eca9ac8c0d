"""Files of settings that are damaged, or made to exhaust whoever reads them."""

from pathlib import Path

import pytest
import yaml

from ssl_ebm.cli import main
from ssl_ebm.evaluation.config_files import DEEPEST, LARGEST, NoSettingsError, read_settings

LINES = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
REFUSED = {
    "ten to the eleventh values": ("\n".join(LINES).encode(), "aliases"),
    "a part of itself": (b"model: &m {init_args: {a: *m}}", r"\*m stands for something that it is a part of"),
    "too deep": (b"model: " + b"[" * 50_000, f"over {DEEPEST} levels deep"),
    "deep mappings": (b"{a: " * 1000 + b"1" + b"}" * 1000, "levels deep"),
    "no UTF-8": (b"model: caf\xe9", "not UTF-8, at byte 10"),
    "too large": (b"a: 1\n" + b"#" * LARGEST, "1,000,000 bytes"),
    "a long text, many times": (b"a: &a " + b"x" * 9000 + b"\nb: [" + b"*a, " * 1000 + b"]", "characters"),
}


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_a_config_that_would_exhaust_its_reader_is_refused(
    name: str,
    trusted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, words = REFUSED[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    monkeypatch.setenv("SSL_EBM_TRUST_CONFIG", str(int(trusted)))
    with pytest.raises(NoSettingsError, match=words):
        read_settings(path)
    assert main(["fit", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ssl-ebm: error: ")


def test_what_people_write_is_read_as_yaml_reads_it(tmp_path: Path, repository: Path) -> None:
    """Anchors and aliases too."""
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {lr: 1e-3, sizes: [1, 2]}\na: *base\nb: {<<: *base, lr: &l 2}\nc: *l\n")
    assert read_settings(path) == yaml.safe_load(path.read_text())
    assert read_settings(path)["b"] == {"lr": 2, "sizes": [1, 2]}
    shipped = sorted((repository / "configs").rglob("*.yaml"))
    assert len(shipped) > 10
    for one in shipped:
        assert read_settings(one) == yaml.safe_load(one.read_text())


def test_what_is_no_yaml_is_left_to_the_parser(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in ("model: [unclosed", "day: 2026-13-45", "a: *unknown"):
        path.write_text(text)
        assert read_settings(path) is None
