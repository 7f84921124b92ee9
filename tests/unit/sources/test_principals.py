"""[[principal]]: whom certificates may name, and what is wrong with what is said of them."""

from pathlib import Path

import pytest

from mcastd.model.principal import NO_QUOTA, Principal, Quota
from mcastd.model.settings import Access
from mcastd.sources.config import read_configuration
from mcastd.sources.faults import BadConfiguration


def read(directory: Path, text: str) -> dict[str, Principal]:
    path = directory / "mcastd.toml"
    path.write_text(text)
    return read_configuration(str(path)).principals


def test_principals(tmp_path: Path) -> None:
    text = """
        [[principal]]
        name = "alice"

        [[principal]]
        name = "spiffe://lab/ns/default/sa/sdn"
        access = "write"
        owner = "sdn"
        streams_max = 10
        requests_per_second = 100
        routes_max = 5000

        [[principal]]
        name = "*"
        access = "VIEW"
        owner = "guests"
    """
    sdn = "spiffe://lab/ns/default/sa/sdn"
    assert read(tmp_path, text) == {
        "alice": Principal("alice", Access.VIEW, "alice", NO_QUOTA),
        sdn: Principal(sdn, Access.WRITE, "sdn", Quota(10, 100, 5000)),
        "*": Principal("*", Access.VIEW, "guests", NO_QUOTA),
    }


def test_included_files_may_have_some(tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text('[[principal]]\nname = "bob"\n')
    assert list(read(tmp_path, 'include = ["more.toml"]\n[[principal]]\nname = "alice"\n')) == ["alice", "bob"]


@pytest.mark.parametrize(
    "text,key,words",
    [
        ('access = "view"', "name", "is missing"),
        ('name = ""', "name", "1 to 2048 printable"),
        ('name = "a\\nb"\nowner = "a"', "name", "printable"),
        (f'name = "{"a" * 2049}"\nowner = "a"', "name", "1 to 2048"),
        ("name = 3", "name", ""),
        ('name = "a"\naccess = "all"', "access", "choose view, write, admin"),
        ('name = "a"\nowner = "config"', "owner", "reserved for the configuration file"),
        ('name = "spiffe://lab/sdn"', "owner", "can't be one itself"),
        ('name = "*"', "owner", "say who owns"),
        ('name = "a"\nroutes_max = -1', "routes_max", "or 0 for no limit"),
        ('name = "a"\nstreams_max = "x"', "streams_max", ""),
        ('name = "a"\nrequests_per_second = 1000001', "requests_per_second", "1 to 1000000"),
        ('name = "a"\nquota = 1', "quota", ""),
        ('name = "a"\n[[principal]]\nname = "a"', "", "may be there once"),
    ],
)
def test_faults(tmp_path: Path, text: str, key: str, words: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, f"[[principal]]\n{text}\n")
    (fault, *_) = caught.value.faults
    assert key in fault.key
    assert words in fault.message


def test_principals_are_a_list(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration):
        read(tmp_path, '[principal]\nname = "a"\n')
