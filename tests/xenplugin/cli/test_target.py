"""How a target of `copy` is split into host and path."""

from __future__ import annotations

import pytest

from xenplugin.cli.copying import split_target


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("host:path", "host", "path"),
        ("host:/a/b", "host", "/a/b"),
        ("host:/a:b", "host", "/a:b"),
        ("host:", "host", ""),
        ("host:a\nb", "host", "a\nb"),
        ("user@host:/x", "user@host", "/x"),
        ("user@host.example:x", "user@host.example", "x"),
        ("[::1]:/x", "[::1]", "/x"),
        ("[fe80::1%eth0]:x", "[fe80::1%eth0]", "x"),
        ("user@[::1]:/x", "user@[::1]", "/x"),
        ("C:", "C", ""),
        ("C:/x", "C", "/x"),
        ("-oProxyCommand=x:/y", "-oProxyCommand=x", "/y"),
        ("/a:b", None, "/a:b"),
        ("./a:b", None, "./a:b"),
        ("a/b:c", None, "a/b:c"),
        ("../x", None, "../x"),
        ("plain", None, "plain"),
        ("", None, ""),
        (":/x", None, ":/x"),
        ("[::1]", None, "[::1]"),
        ("[]:/x", None, "[]:/x"),
        ("[a/b]:/x", None, "[a/b]:/x"),
    ],
)
def test_a_target_is_split_into_host_and_path(text: str, host: str | None, path: str) -> None:
    assert split_target(text) == (host, path)
