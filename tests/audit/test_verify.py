"""Whatever is done to a log afterwards, the reader names the first row of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audit.chain import HASH_TAIL, Chain
from sidecar.audit.entry import decode
from sidecar.audit.files import files_in
from sidecar.audit.outlet import BATCH
from sidecar.audit.verify import Head
from sidecar.runtime.ed25519 import PrivateKey
from tests.audit.chains import KEY, lines_in, rewrite, verified, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def lines(tmp_path: Path) -> list[bytes]:
    """The lines of a chain over several files: entry N is at N - 1."""
    await write(tmp_path, 40)
    assert len(files_in(tmp_path)) > 2
    return lines_in(tmp_path)


def _forged(line: bytes, old: bytes, new: bytes) -> bytes:
    """Return a line with other words, and the hash that fits them."""
    changed = line[:-HASH_TAIL].replace(old, new) + b"}"
    assert changed != line[:-HASH_TAIL] + b"}"
    return b'%b,"hash":"%b"}' % (changed[:-1], hashlib.sha256(changed).hexdigest().encode())


async def test_a_chain_over_several_files_holds_together(lines: list[bytes]) -> None:
    faults, (chain,), unreadable = verified(lines)

    assert not faults
    assert not unreadable
    assert chain.is_ended
    assert (chain.first_seq, chain.seq) == (1, len(lines))
    assert chain.signed_seq == len(lines)
    assert chain.checkpoints > 4
    assert not chain.notes


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
async def test_any_byte_that_is_changed_is_named(lines: list[bytes], bit: int) -> None:
    target = 16
    for at in range(len(lines[target])):
        line = bytearray(lines[target])
        line[at] ^= bit
        tampered = [*lines[:target], bytes(line), *lines[target + 1 :]]

        faults = verified(tampered).faults

        assert faults, at
        assert faults[0].place in {"log:17", "log:18"}, (at, faults[0])


async def test_words_that_are_changed_are_named(lines: list[bytes], tmp_path: Path) -> None:
    lines[16] = lines[16].replace(b"acme", b"evil")
    rewrite(tmp_path, lines)

    faults = verified(lines_in(tmp_path)).faults

    assert [(one.place, one.seq) for one in faults] == [("log:17", 17)]
    assert "changed" in faults[0].what


async def test_words_that_are_changed_with_their_hash_are_named(lines: list[bytes]) -> None:
    lines[16] = _forged(lines[16], b"acme", b"evil")

    (fault,) = verified(lines).faults

    assert (fault.place, fault.seq) == ("log:17", 17)
    assert "replaced" in fault.what


async def test_a_row_that_is_deleted_is_named(lines: list[bytes]) -> None:
    del lines[16]

    (fault,) = verified(lines).faults

    assert (fault.place, fault.seq) == ("log:17", 18)
    assert fault.what == "entry 17 is missing before it"


async def test_rows_that_are_deleted_are_counted(lines: list[bytes]) -> None:
    (fault,) = verified([*lines[:12], *lines[15:]]).faults

    assert (fault.place, fault.seq) == ("log:13", 16)
    assert fault.what == "entries 13 to 15 are missing before it"


async def test_rows_in_another_order_are_named(lines: list[bytes]) -> None:
    lines[16], lines[17] = lines[17], lines[16]

    (fault,) = verified(lines).faults

    assert (fault.place, fault.seq) == ("log:17", 18)
    assert "order" in fault.what


async def test_an_entry_that_stands_there_again_with_other_words_is_named(
    lines: list[bytes],
) -> None:
    again = _forged(lines[4], b"acme", b"evil")

    (fault,) = verified([*lines[:25], again, *lines[25:]]).faults

    assert (fault.place, fault.seq) == ("log:26", 5)
    assert "out of order" in fault.what


async def test_a_beginning_that_is_cut_off_is_named(lines: list[bytes]) -> None:
    (fault,) = verified(lines[5:]).faults

    assert fault.place == "log:1"
    assert "entries 1 to 5" in fault.what


async def test_a_beginning_that_was_rotated_away_is_noted(lines: list[bytes]) -> None:
    faults, (chain,), _ = verified(lines[5:], is_whole=False)

    assert not faults
    assert chain.notes == ["begins with entry 6: the older ones are not here"]


async def test_an_end_that_is_cut_off_is_told_by_what_is_not_signed(lines: list[bytes]) -> None:
    faults, (chain,), _ = verified(lines[:25])

    assert not faults
    assert not chain.is_ended
    assert chain.signed_seq == 21
    assert "4 entries follow its last checkpoint" in chain.notes
    assert any("its end was cut off" in note for note in chain.notes)


async def test_an_end_that_is_cut_off_is_named_by_who_saw_it_before(lines: list[bytes]) -> None:
    last = decode(lines[-1])

    (fault,) = verified(lines[:25], known=[Head(last.writer, last.seq, last.hash)]).faults

    assert fault.place == "log:25"
    assert "cut off" in fault.what


async def test_an_entry_that_is_another_one_than_was_seen_before_is_named(
    lines: list[bytes],
) -> None:
    """Whoever has the key makes a chain up anew, and sees to every hash and signature."""
    seen = Head(decode(lines[0]).writer, 20, "0" * 64)

    (fault,) = verified(lines, known=[seen]).faults

    assert (fault.place, fault.seq) == ("log:20", 20)
    assert fault.what == "it is another entry than was seen here before"


async def test_a_chain_that_was_seen_before_and_is_gone_is_named(lines: list[bytes]) -> None:
    gone = [Head("worker-gone", 7, "0" * 64)]

    (fault,) = verified(lines, known=gone).faults
    (note,) = verified(lines, known=gone, is_whole=False).notes

    assert fault.writer == "worker-gone"
    assert note.startswith("worker-gone: its chain is not here")


async def test_two_chains_that_are_spliced_are_named(tmp_path: Path) -> None:
    await write(tmp_path / "a", 30)
    await write(tmp_path / "b", 30)
    one, other = lines_in(tmp_path / "a"), lines_in(tmp_path / "b")

    (fault,) = verified([*one[:12], *other[12:]]).faults

    assert fault.place == "log:13"
    assert fault.writer == decode(other[0]).writer
    assert "entries 1 to 12 of its chain are missing" in fault.what


async def test_rows_of_another_chain_under_this_ones_name_are_named(tmp_path: Path) -> None:
    await write(tmp_path / "a", 30)
    await write(tmp_path / "b", 30)
    one, other = lines_in(tmp_path / "a"), lines_in(tmp_path / "b")
    names = decode(other[0]).writer.encode(), decode(one[0]).writer.encode()
    moved = [_forged(line, *names) for line in other]

    faults = verified([*one[:12], *moved[12:]]).faults

    assert (faults[0].place, faults[0].seq) == ("log:12", 12)
    assert "replaced" in faults[0].what
    assert any("signature" in fault.what for fault in faults)


async def test_a_chain_made_up_anew_is_named_by_its_checkpoint(lines: list[bytes]) -> None:
    """Who can write to the sink, and has no key, makes every hash fit."""
    chain = Chain(decode(lines[0]).writer)
    anew = []
    for line in lines:
        event = b'{"at_s":' + line.partition(b'"at_s":')[2][:-HASH_TAIL] + b"}"
        event = event.replace(b"request-9", b"request-0")
        is_last = b',"last":true' in event
        anew.append(chain.link(event.replace(b',"last":true', b""), is_last=is_last))
    assert not verified(anew, key=None).faults

    faults = verified(anew).faults

    assert "signature" in faults[0].what
    assert "an entry from 12 on was replaced" in faults[0].what
    assert (faults[0].place, faults[0].seq) == ("log:21", 21)


async def test_checkpoints_that_are_left_out_are_named(lines: list[bytes]) -> None:
    chain = Chain(decode(lines[0]).writer)
    begin = lines[0]
    chain.seq, chain.head = 1, decode(begin).hash.encode()
    plain = [chain.link(b'{"at_s":1,"kind":"denied"}') for _ in range(20)]

    (fault,) = verified([begin, *plain]).faults

    assert fault.seq == 11
    assert fault.what == "a checkpoint should be here: there is one every 10 entries"


async def test_a_line_that_is_changed_hides_no_checkpoint_that_is_left_out(
    lines: list[bytes],
) -> None:
    chain = Chain(decode(lines[0]).writer)
    chain.seq, chain.head = 1, decode(lines[0]).hash.encode()
    plain = [chain.link(b'{"at_s":1,"kind":"denied"}') for _ in range(20)]
    plain[3] = plain[3].replace(b"denied", b"benign")

    faults = verified([lines[0], *plain]).faults

    assert [fault.seq for fault in faults] == [5, 11]
    assert "a checkpoint should be here" in faults[1].what


async def test_an_end_that_nobody_signed_is_named(lines: list[bytes]) -> None:
    """Who has no key cuts a chain off after a checkpoint, and ends it otherwise."""
    at = next(n for n, line in enumerate(lines) if n and decode(line).signature)
    chain = Chain(decode(lines[at]).writer)
    chain.seq, chain.head = at + 1, decode(lines[at]).hash.encode()
    forged = chain.link(b'{"at_s":1,"kind":"denied","tenant":"globex"}')
    end = chain.link(b'{"at_s":1,"kind":"end"}', is_last=True)

    (fault,), (report,), _ = verified([*lines[: at + 1], forged, end])

    assert (fault.seq, fault.what) == (at + 3, "it ends its chain and is not signed: made up")
    assert "2 entries follow its last checkpoint" in report.notes


async def test_another_key_is_told(lines: list[bytes]) -> None:
    faults = verified(lines, key=PrivateKey(Ed25519PrivateKey.generate())).faults

    assert "signature is of no key that was given" in faults[0].what


async def test_without_a_key_nothing_is_said_of_signatures(lines: list[bytes]) -> None:
    faults, (chain,), _ = verified(lines, key=None)

    assert not faults
    assert chain.signed_seq == 0


async def test_without_checkpoints_a_reader_with_a_key_says_so(tmp_path: Path) -> None:
    await write(tmp_path, 5, key=None)

    faults, (chain,), _ = verified(lines_in(tmp_path))

    assert not faults
    assert chain.notes == ["has no checkpoint: that it was not made up anew cannot be proved"]


async def test_a_torn_last_line_is_no_tampering(lines: list[bytes]) -> None:
    for cut in (1, 30, 100, len(lines[24]) - 1):
        faults, (chain,), unreadable = verified([*lines[:24], lines[24][:cut]])

        assert not faults
        assert chain.seq == 24
        assert unreadable or any("entry 25 is torn" in note for note in chain.notes)


async def test_a_torn_line_in_a_chain_that_goes_on_is_named(lines: list[bytes]) -> None:
    lines[24] = lines[24][:100]

    (fault,) = verified(lines).faults

    assert (fault.place, fault.seq) == ("log:25", 25)


@pytest.mark.parametrize("other", [b"hello", b'{"x":1}', b'{"write":"', b"[]"])
async def test_a_line_that_no_writer_began_is_named(lines: list[bytes], other: bytes) -> None:
    (fault,) = verified([*lines[:9], other, *lines[9:]]).faults

    assert (fault.place, fault.writer) == ("log:10", "")
    assert fault.what == "it is no entry, and no beginning of one: put in"


async def test_what_a_loss_of_power_leaves_of_a_line_is_no_tampering(lines: list[bytes]) -> None:
    for left in (b"{", b'{"writer"', b'{"writer":"wor', b"\0" * 40):
        faults, _, notes = verified([*lines, left])

        assert not faults
        assert notes == [f"log:{len(lines) + 1}: no entry, or too little of one"]


async def test_lines_that_were_written_again_are_no_fault(lines: list[bytes]) -> None:
    faults, (chain,), _ = verified([*lines[:20], *lines[12:]])

    assert not faults
    assert chain.repeated == 8


async def test_a_number_that_is_left_out_is_named_though_every_hash_fits(
    lines: list[bytes],
) -> None:
    skipping = _forged(lines[16], b'"seq":17,', b'"seq":20,')

    (fault,) = verified([*lines[:16], skipping], key=None).faults

    assert (fault.place, fault.seq) == ("log:17", 20)
    assert fault.what == "entries 17 to 19 are missing before it"


async def test_a_changed_copy_that_is_put_in_puts_nobody_else_in_the_wrong(
    lines: list[bytes],
) -> None:
    copy = lines[4].replace(b"acme", b"evil")

    (fault,) = verified([*lines[:25], copy, *lines[25:]]).faults

    assert (fault.place, fault.seq) == ("log:26", 5)
    assert "changed" in fault.what


def test_an_entry_of_long_ago_is_not_written_again_by_any_sink() -> None:
    chain = Chain("worker-x")
    long = [chain.link(b'{"at_s":1,"kind":"denied"}') for _ in range(BATCH + 1)]

    within = verified([*long, long[1]], key=None)
    (fault,) = verified([*long, long[0]], key=None).faults

    assert (within.faults, within.chains[0].repeated) == ([], 1)
    assert (fault.place, fault.seq) == (f"log:{len(long) + 1}", 1)
    assert "out of order" in fault.what


def test_a_first_entry_that_follows_another_one_is_named() -> None:
    chain = Chain("worker-x")
    chain.head = b"1" * 64  # of entries that were cut off before it was numbered anew
    made = [chain.link(b'{"at_s":1,"kind":"denied"}') for _ in range(3)]

    (fault,) = verified(made, key=None, is_whole=False).faults

    assert (fault.place, fault.seq) == ("log:1", 1)
    assert fault.what == "it is the first, yet was made after another"


async def test_entries_behind_the_end_are_named(lines: list[bytes]) -> None:
    chain = Chain(decode(lines[0]).writer)
    chain.seq, chain.head = len(lines), decode(lines[-1]).hash.encode()

    (fault,) = verified([*lines, chain.link(b'{"at_s":1,"kind":"denied"}')]).faults

    assert "ended" in fault.what


@given(st.data())
async def test_no_lines_make_the_reader_fail(data: st.DataObject) -> None:
    chain = Chain("worker-x")
    own = [chain.link(b'{"at_s":1,"kind":"denied"}', KEY.sign) for _ in range(4)]
    noise = st.one_of(st.binary(max_size=200), st.sampled_from(own), st.sampled_from(own).map(
        lambda line: line[: len(line) // 2]))  # fmt: skip

    verified(data.draw(st.lists(noise, max_size=12)))
