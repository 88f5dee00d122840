"""Heads that are nearly right, to draw from: what they are made of, and what befalls them."""

from __future__ import annotations

from hypothesis import strategies as st

_NAMES = st.sampled_from(
    (
        *b"Host Content-Length content-length Content_Length Transfer-Encoding transfer_encoding TE"
        b" Connection Keep-Alive Authorization X-Model X-Model-Version X_Model_Version X-Tenant"
        b" Cookie Trailer Upgrade Expect X-A x-a X-Request-Id X-Forwarded-For".split(),
        *(b"", b"X A", b"Host ", b" X-A", b"X\xe9", b"X(", b"\x00", b"X\r"),
    )
)
_VALUES = st.sampled_from(
    (
        *b"a a:80 a:123456 [::1]:8 u@a chunked Chunked gzip,chunked 0 5 +5 -1 0x5 5,5 007 close"
        b" keep-alive X-A te,trailers host,x-a upgrade websocket \xe9 identity".split(),
        *(
            b"",
            b" chunked\t",
            b"chun\x0bked",
            b"5 5",
            b"a\rb",
            b"a\nX: y",
            b"\x7f",
            b"\x00",
            b"9" * 18,
        ),
        b"9" * 19,
    )
)
_SPACE = st.sampled_from((b" ", b" ", b" ", b"", b"\t", b"  "))
_END = st.sampled_from((*[b"\r\n"] * 20, b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\n\r"))
_field = st.tuples(_NAMES, st.just(b":"), _SPACE, _VALUES, _SPACE, _END).map(b"".join)
_GOOD = (b"Host: a\r\n", b"X-A: 1\r\n", b"Accept: */*\r\n", b"Content-Length: 5\r\n")
_CODED = b"Transfer-Encoding: chunked\r\n"
_fields = st.lists(st.one_of(st.sampled_from((*_GOOD, _CODED)), _field), max_size=5).map(b"".join)
_METHODS = (b"GET", b"POST", b"HEAD", b"CONNECT", b"connect", b"M-SEARCH", b"G\xe9T", b"", b"G T")
_TARGETS = (b"/", b"/a?b=c", b"*", b"http://a/x", b"http://A:80?q", b"http://u@a/", b"a:80", b"")
_ODD_TARGETS = (b"/a#b", b"/\xe9", b"/\x7f", b"/ /", b"http:///x", b"//a/b", b"http://a")
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10", b"")
_STATUS_LINES = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 404\r\n",
    b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 99 Low\r\n",
    b"HTTP/1.1 2000 OK\r\n",
    b"HTTP/1.1  200 OK\r\n",
    b"HTTP/1.1 200\tOK\r\n",
    b"HTTP/1.1 600 \xe9\t\r\n",
    b"HTTP/1.2 200 OK\r\n",
    b"HTTP/1.1 200 O\x00K\r\n",
    b"ICY 200 OK\r\n",
)
_request_line = st.one_of(
    st.sampled_from((b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"GET /a HTTP/1.0\r\n")),
    st.tuples(
        st.sampled_from(_METHODS),
        st.just(b" "),
        st.sampled_from(_TARGETS + _ODD_TARGETS),
        st.just(b" "),
        st.sampled_from(_VERSIONS),
        _END,
    ).map(b"".join),
)
_BYTES = b"\r\n\t :;,\x00\x7f\xe9#05aA-_\x0b"


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes], most: int = 2) -> bytes:
    """Draw one of `messages` with up to `most` bytes put in, taken out or replaced."""
    message = draw(messages)
    for _ in range(draw(st.sampled_from(range(most + 1)))):
        at = draw(st.integers(0, len(message)))
        put = draw(st.sampled_from([b"", *(_BYTES[i : i + 1] for i in range(len(_BYTES)))]))
        message = message[:at] + put + message[at + draw(st.integers(0, 1)) :]
    return message


def _is_block(head: bytes) -> bool:
    """Return whether a connection would take `head` for the lines of one head."""
    return head.find(b"\r\n\r\n") < 0 and head.endswith(b"\r\n") and not head.startswith(b"\r\n")


_hosted = st.one_of(st.just(b"Host: a\r\n"), st.just(b""))
_requests = st.tuples(_request_line, _hosted, _fields).map(b"".join)
_responses = st.tuples(
    st.one_of(st.just(_STATUS_LINES[0]), st.sampled_from(_STATUS_LINES)), _fields
).map(b"".join)
request_heads = mutated(_requests).filter(_is_block)
response_heads = mutated(_responses).filter(_is_block)
