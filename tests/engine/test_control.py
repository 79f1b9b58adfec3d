"""Control: messages and their descriptors arrive whole, in order, and no descriptor is left behind."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from service.engine.control import Control, Kind, MalformedMessage, Message, close_all

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the folder's own descriptor is in it either way


@pytest.fixture
def pair() -> Iterator[tuple[Control, Control]]:
    """Both ends; afterwards as many descriptors are open as before."""
    before = len(open_descriptors())
    ours, theirs = Control.pair()
    ends = ours, Control(theirs)
    yield ends
    for end in ends:
        end.close()
    assert len(open_descriptors()) == before


Pair = tuple[Control, Control]


def a_file(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


@contextlib.contextmanager
def _few_descriptors(left: int) -> Iterator[None]:
    """No more than so many may be opened meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = [os.open("/dev/null", os.O_RDONLY) for _ in range(left)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(room) + 1, hard))
    filling = []
    with contextlib.suppress(OSError):
        while True:
            filling.append(os.open("/dev/null", os.O_RDONLY))
    for descriptor in room:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("text", [b"", b"x", bytes(range(256)) * 256], ids=len)
def test_a_message_arrives_as_it_was_sent(pair: Pair, kind: Kind, text: bytes) -> None:
    sent = Message(kind, 2**32 - 1, text)
    pair[0].send(sent)
    assert pair[1].receive() == sent
    pair[1].send(sent)
    assert pair[0].receive() == sent


@pytest.mark.parametrize("count", [1, 2, 8])
def test_descriptors_travel_along_and_belong_to_who_receives_them(pair: Pair, count: int) -> None:
    sent = [a_file(b"%d" % number) for number in range(count)]
    pair[0].send(Message(Kind.LINK, 5, b"", tuple(sent)))
    for descriptor in sent:
        os.close(descriptor)
    received = pair[1].receive()
    assert received is not None
    assert received[:3] == (Kind.LINK, 5, b"")
    assert [os.pread(descriptor, 9, 0) for descriptor in received.descriptors] == [
        b"%d" % number for number in range(count)
    ]
    assert not any(os.get_inheritable(descriptor) for descriptor in received.descriptors)
    close_all(received)


def test_many_messages_in_a_row_stay_apart_each_with_its_own_descriptors(pair: Pair) -> None:
    for number in range(50):
        files = tuple(a_file(b"%d.%d" % (number, which)) for which in range(number % 3))
        message = Message(Kind.CARD, number, b"x" * (number * 37 % 500), files)
        pair[0].send(message)
        close_all(message)
    for number in range(50):
        received = pair[1].receive()
        assert received is not None
        assert (received.number, len(received.text)) == (number, number * 37 % 500)
        found = [os.pread(descriptor, 99, 0) for descriptor in received.descriptors]
        assert found == [b"%d.%d" % (number, which) for which in range(number % 3)]
        close_all(received)


def test_whoever_hears_nothing_more_is_told_so_again_and_again(pair: Pair) -> None:
    pair[0].send(Message(Kind.UP, 1))
    pair[0].close()
    assert pair[1].receive() == Message(Kind.UP, 1)
    assert pair[1].receive() is None
    assert pair[1].receive() is None


def test_to_hang_up_with_messages_unread_is_an_end_too(pair: Pair) -> None:
    pair[1].send(Message(Kind.UP))
    pair[0].close()
    assert pair[1].receive() is None


def test_to_send_to_nobody_raises(pair: Pair) -> None:
    pair[1].close()
    descriptor = a_file(b"")
    with pytest.raises(OSError, match="Broken pipe"):
        pair[0].send(Message(Kind.CARD, 0, b"", (descriptor,)))
    os.close(descriptor)  # it stayed ours


def test_to_send_to_one_who_reads_nothing_raises_instead_of_waiting(pair: Pair) -> None:
    def fill() -> Iterator[int]:
        for number in range(10_000):
            try:
                pair[0].send(Message(Kind.CARD, number, b"x" * 1000))
            except BlockingIOError:
                return
            yield number

    sent = list(fill())
    assert 10 < len(sent) < 10_000
    for number in sent:
        received = pair[1].receive()
        assert received is not None
        assert (received.number, received.text) == (number, b"x" * 1000)


def test_a_text_that_is_too_long_is_refused_by_the_sender(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"^a text of 65537 bytes$"):
        pair[0].send(Message(Kind.START, 0, bytes((1 << 16) + 1)))
    pair[0].send(Message(Kind.UP))
    assert pair[1].receive() == Message(Kind.UP)


def test_descriptors_of_a_message_that_nobody_receives_are_closed_with_the_socket(pair: Pair) -> None:
    file = a_file(b"")
    pair[0].send(Message(Kind.CARD, 0, b"", (file,)))
    os.close(file)


@pytest.mark.parametrize(
    "content",
    [
        *(b"x", bytes(11), struct.pack("<III", 0, 0, 0), struct.pack("<III", 99, 0, 0)),
        *(struct.pack("<III", 3, 0, 1), struct.pack("<III", 3, 0, 0) + b"x"),
        *(
            struct.pack("<III", 3, 0, 1 << 31) + b"x" * 99,
            struct.pack("<III", 3, 0, 1 << 17) + bytes(1 << 17),
        ),
    ],
    ids=["a byte", "half a header", "kind 0", "kind 99", "no text", "some text", "text cut off", "too long"],
)
def test_what_is_no_message_is_malformed_at_once_and_its_descriptors_are_closed(content: bytes) -> None:
    """At once: the supervisor must not wait for the rest of what a child begins to say."""
    before = len(open_descriptors())
    ours, theirs = Control.pair()
    file = a_file(b"")
    with theirs:
        socket.send_fds(theirs, [content], [file, file])
        os.close(file)
        with pytest.raises(MalformedMessage):
            ours.receive()
        theirs.send(struct.pack("<III", Kind.UP, 7, 0))
        assert ours.receive() == Message(Kind.UP, 7), "what comes behind it is not mistaken"
    ours.close()
    assert len(open_descriptors()) == before


def test_a_message_whose_descriptors_find_no_room_is_malformed_and_none_of_them_stays(pair: Pair) -> None:
    file = a_file(b"card")
    pair[0].send(Message(Kind.LINK, 0, b"", (file,) * 5))
    os.close(file)
    before = open_descriptors()
    with _few_descriptors(2), pytest.raises(MalformedMessage, match="missing"):
        pair[1].receive()
    assert open_descriptors() == before
