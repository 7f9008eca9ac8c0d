"""What is told of a processor, from texts as systems write them."""

import platform

import pytest

from ssl_ebm.networks.processor import Processor, of_linux, of_python, this_processor

LINUX = "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: 17\nmodel name\t: {}\n"


@pytest.mark.parametrize(
    ("vendor", "family", "name", "wide"),
    [
        ("AuthenticAMD", 26, "AMD EPYC 9755", True),  # Zen 5
        ("AuthenticAMD", 25, "AMD EPYC 9654", False),  # Zen 4
        ("GenuineIntel", 6, "Intel(R) Xeon(R) Processor", False),
        ("GenuineIntel", 27, "an Intel to come", False),
    ],
)
def test_linux_tells_of_it_in_fields(vendor: str, family: int, name: str, wide: bool) -> None:
    one = LINUX.format(vendor, family, name)
    found = of_linux(one + "\n" + LINUX.format("another", 1, "core"))
    assert found == Processor(name, vendor, family, 17)
    assert found.is_amd_since_zen_5 is wide
    assert str(found) == f"{name} ({vendor}, family {family}, model 17)"


def test_windows_tells_of_it_in_a_sentence() -> None:
    name = "AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD"
    assert of_python(name) == Processor(name, "AuthenticAMD", 26, 68)
    assert of_python(name).is_amd_since_zen_5


@pytest.mark.parametrize("text", ["", "processor\t: 0\nBogoMIPS\t: 50.00\n", "cpu family\t: unknown\n"])
def test_a_file_without_the_fields_gives_the_kind_of_machine(text: str) -> None:
    assert of_linux(text) == Processor(platform.machine())


def test_a_name_alone_tells_no_family() -> None:
    assert of_python("arm") == Processor("arm")
    assert str(of_python("arm")) == "arm"


def test_this_one_has_a_name() -> None:
    assert this_processor().name
