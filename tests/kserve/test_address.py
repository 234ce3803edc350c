"""What names an inference server."""

from __future__ import annotations

import pytest

from clara_wf.kserve.address import Address
from clara_wf.model.errors import UsageError


@pytest.mark.parametrize(
    "address", ["localhost", "https://localhost:8000", "localhost:0", "a b:1", "http://x:1/v2", ""]
)
def test_what_is_no_address(address):
    with pytest.raises(UsageError, match="is no address of an inference server"):
        Address.parse(address)


@pytest.mark.parametrize("text", ["localhost:8000", "http://localhost:8000", "grpc://127.0.0.1:8001/", "[::1]:8000"])
def test_addresses(text):
    assert str(Address.parse(text)) in text


def test_why_a_name_is_no_address():
    for host in ("", ".", "..", "a..b", "x" * 300, "[1::2::3]"):
        with pytest.raises(UsageError, match="is no address"):
            Address.parse(f"{host}:80")
    assert str(Address.parse("trtis.default.svc.:8000")) == "trtis.default.svc.:8000"
    for text in (
        "http://user:secret@host:80",
        "user:secret@host:80",
        "grpc://user:sec@ret/@host",
        "http://u:secret@\n:1",
    ):
        with pytest.raises(UsageError) as caught:
            Address.parse(text)
        assert "sec" not in str(caught.value)
