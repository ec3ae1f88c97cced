"""Which addresses count as public, in every spelling that hides another one, and what the allow-list opens."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lemni.config import MediaSettings
from lemni.media.addresses import Policy, is_public


def policy(**settings: object) -> Policy:
    return Policy(MediaSettings.model_validate(settings))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
        ),
        *("168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192"),
        *("192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.7"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::8.8.8.8", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1"),
        *("ff02::1", "100::1", "2001:db8::1", "2001::1", "2001:10::1", "3fff::1", "5f00::1", "64:ff9b:1::8.8.8.8"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254"),
        *("2002:7f00:1::", "2002:808:808::1", "2001:0:7f00:1::"),
    ],
)
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not policy().allows("some.test", ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
        *("128.0.0.0", "168.63.129.15", "172.15.255.255", "172.32.0.0", "192.167.255.255", "223.255.255.255"),
        *("2606:4700:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    ],
)
def test_public(text: str) -> None:
    assert is_public(ip_address(text))
    assert policy().allows("some.test", ip_address(text))
    assert not policy(media_urls="listed", media_allow_hosts="other.test").allows("some.test", ip_address(text))


def test_an_address_or_network_on_the_list_opens_every_name_that_points_there() -> None:
    listed = policy(media_allow_hosts="127.0.0.1,10.1.0.0/16,fd00::/8")
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "10.1.255.1", "64:ff9b::a01:1", "fd00::5"):
        assert listed.allows("any.test", ip_address(address)), address
    for address in ("127.0.0.2", "::1", "10.2.0.1", "fe80::1"):
        assert not listed.allows("any.test", ip_address(address)), address


def test_a_name_on_the_list_opens_what_it_points_to() -> None:
    listed = policy(media_allow_hosts="minio,*.cdn.test,store.test")
    inside = ip_address("10.0.0.5")
    for host in ("minio", "MINIO", "minio.", "a.cdn.test", "a.b.cdn.test", "store.test"):
        assert listed.allows(host, inside), host
    for host in ("minio.evil.test", "cdn.test", "xcdn.test", "a.cdn.test.evil.test", "a.store.test", "evilstore.test"):
        assert not listed.allows(host, inside), host
