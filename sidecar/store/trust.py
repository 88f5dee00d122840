"""What a sidecar that trusts keys believes of its store: what is signed, and newer than all before.

It remembers of every model, pin and kill the newest that was signed, and goes by that until
something newer is signed: what is gone was deleted by nobody who may. So who can write to the store
can keep news from sidecars, and can change nothing.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sidecar.store import seal
from sidecar.store.doubts import Doubts
from sidecar.store.keys import KillKey, PinKey, PolicyKey
from sidecar.store.seal import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.model.policy import Policy
    from sidecar.runtime.clock import Clock
    from sidecar.store.keys import Keys
    from sidecar.store.seal import Keyring, Mark

AHEAD_MS: Final = 300_000  # what the clock of whoever signs may be ahead of ours
_EARLY_END_MS: Final = 2_000  # what the store's clock may be ahead: then it ends pins before we do
_FOR_EVER: Final = (Cause.UNSIGNED, Cause.UNKNOWN_KEY, Cause.FORGED, Cause.OLDER)
MAX_REFUSED: Final = 10_000  # keys that are held as refused; more of them are counted as so many


class _Held(Struct, gc=False):
    """The newest signed text of a pin or kill; `value` is None when it has ended."""

    value: str | None
    issued_ms: int
    until_ms: int
    text: int  # its hash: the same text again needs no verification, and changes nothing


class _Refused(Struct, gc=False):
    """What is not believed of a key; `text` is the hash of what never will be, if that is known.

    Whoever can write to the store has it read again and again, and a signature takes its time.
    """

    cause: Cause
    text: int | None


class Trust:
    """The judge of one process. `remember` is told what may never be older again: key, rank, value.

    With `exempt_kills` kills hold without a signature, too; ending one that is signed needs one.
    `count` is told the cause of each refusal that is news.
    """

    def __init__(
        self,
        keyring: Keyring,
        keys: Keys,
        clock: Clock,
        *,
        exempt_kills: bool = False,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.remember: Callable[[str, int, bytes], None] = lambda *_: None
        self._keyring = keyring
        self._keys = keys
        self._clock = clock
        self._exempts_kills = exempt_kills
        self._count = count
        self._doubts = Doubts()
        self._refused: dict[PolicyKey | PinKey | KillKey, _Refused] = {}
        self._judged: dict[str, bytes] = {}  # what that on its way into force says, by model
        self._seen: dict[str, tuple[int, bytes]] = {}  # what was in force: revision, what it says
        self._held: dict[PinKey | KillKey, _Held] = {}
        self._ends: list[tuple[int, int, PinKey | KillKey]] = []  # a heap: until, number, key
        self._number = 0
        self._is_restoring = False

    def refused(self) -> Counter[str]:
        """Return how many keys are refused now, by cause."""
        return Counter(one.cause.value for one in self._refused.values())

    # --- policies ------------------------------------------------------------------------------

    def fault_of(self, policy: Policy) -> str:
        """Return why a policy may not come into force, or nothing."""
        model = policy.model
        said = seal.said(policy)
        cause = self._keyring.fault_of_policy(policy, said)
        revision, before = self._seen.get(model, (0, b""))
        if cause is None and (
            policy.revision < revision or (policy.revision == revision and said != before)
        ):
            cause = Cause.OLDER
        if cause is not None:
            self._refuse(PolicyKey(model), cause)
            return f"signature: {seal.WORDS[cause]}" + (
                f": revision {revision}" if cause is Cause.OLDER else ""
            )
        self._refused.pop(PolicyKey(model), None)
        self._judged[model] = said
        return ""

    def took(self, policy: Policy, raw: bytes) -> None:
        """Take note that a policy which was judged last of its model has come into force."""
        model = policy.model
        self._seen[model] = policy.revision, self._judged.pop(model)
        self.remember(self._keys.policy(model), policy.revision, raw)

    def miss(self, model: str) -> None:
        """Take note that the document of a model in force is gone."""
        self._refuse(PolicyKey(model), Cause.DELETED)

    def forget(self, model: str) -> None:
        """Take note that a document which was refused is gone, or is refused for another reason."""
        self._refused.pop(PolicyKey(model), None)

    # --- pins and kills ------------------------------------------------------------------------

    def admit(self, key: PinKey | KillKey, text: str | None) -> str | None:
        """Return what holds of a pin or kill now that the store has `text` of it (None: nothing).

        It is what `text` says only if that is signed and newer than what is held.
        """
        held = self._held.get(key)
        if text is None:
            return self._gone(key, held)
        if held is not None and held.text == hash(text):
            self._settle(key)
            return held.value
        refused = self._refused.get(key)
        if refused is not None and refused.text == hash(text):
            return None if held is None else held.value
        mark = seal.read(text)
        cause = self._fault(key, mark, held)
        if cause is Cause.UNSIGNED and self._exempts_kills and isinstance(key, KillKey):
            self._settle(key)
            return text if held is None or held.value is None else held.value
        if cause is None:
            held = self._hold(key, mark, text)
            cause = Cause.EXPIRED if mark.in_force is not None and held.value is None else None
        if cause is None:
            self._settle(key)
        else:
            self._refuse(key, cause, text if cause in _FOR_EVER else None)
        return None if held is None else held.value

    def ended(self) -> Iterator[PinKey | KillKey]:
        """Yield the pins and kills that have ended since this was called last."""
        now_ms = self._now_ms()
        while self._ends and self._ends[0][0] <= now_ms:
            until_ms, _, key = heapq.heappop(self._ends)
            held = self._held.get(key)
            if held is not None and held.value is not None and held.until_ms == until_ms:
                held.value = None
                self._settle(key)
                yield key

    # --- what was remembered -------------------------------------------------------------------

    def restoring(self, *, is_so: bool) -> None:
        """Believe of pins and kills meanwhile what was verified, by key and clock, when noted."""
        self._is_restoring = is_so

    def is_stranger(self, key: PolicyKey | PinKey | KillKey, rank: int) -> bool:
        """Return whether what was remembered of a key is signed by nobody who is trusted now.

        A document that only does not fit the settings any more keeps its rank.
        """
        if not isinstance(key, PolicyKey):
            return key not in self._held
        if key.model not in self._seen and key not in self._refused:
            self._seen[key.model] = rank, b""
        return key.model not in self._seen

    def _gone(self, key: PinKey | KillKey, held: _Held | None) -> str | None:
        if held is None or held.value is None:
            self._settle(key)
            return None
        if held.until_ms and held.until_ms - _EARLY_END_MS <= self._now_ms():
            held.value = None
            self._settle(key)
            return None
        self._refuse(key, Cause.DELETED)
        return held.value

    def _fault(self, key: PinKey | KillKey, mark: Mark, held: _Held | None) -> Cause | None:
        if self._is_restoring and mark.seal is not None:
            # It was verified when it was noted, and a million of them would take minutes.
            cause = None if mark.seal.key_id in self._keyring else Cause.UNKNOWN_KEY
        else:
            cause = self._keyring.fault_of_mark(key, mark)
        if cause is not None or mark.seal is None:
            return cause
        issued_ms = mark.seal.issued_ms
        if issued_ms > self._now_ms() + AHEAD_MS and not self._is_restoring:
            return Cause.EARLY
        if held is not None and issued_ms <= held.issued_ms:
            return Cause.OLDER
        return None

    def _hold(self, key: PinKey | KillKey, mark: Mark, text: str) -> _Held:
        assert mark.seal is not None, "who is believed has signed"  # noqa: S101
        value, until_ms = mark.in_force, mark.seal.until_ms
        if until_ms and until_ms <= self._now_ms():
            value = None
        # One text for all tenants of a version, as the pins themselves have.
        held = _Held(
            None if value is None else sys.intern(value), mark.seal.issued_ms, until_ms, hash(text)
        )
        self._held[key] = held
        if until_ms and value is not None:
            self._number += 1
            heapq.heappush(self._ends, (until_ms, self._number, key))
        self.remember(self._keys.spell(key), mark.seal.issued_ms, text.encode())
        return held

    def _refuse(
        self, key: PolicyKey | PinKey | KillKey, cause: Cause, text: str | None = None
    ) -> None:
        before = self._refused.get(key)
        if before is not None or len(self._refused) < MAX_REFUSED:
            self._refused[key] = _Refused(cause, None if text is None else hash(text))
        if before is not None and before.cause is cause:
            return
        self._count(cause.value)
        if not isinstance(key, PolicyKey):  # of those LivePolicies tells
            self._doubts.tell(self._keys.spell(key), key.model, seal.WORDS[cause])

    def _settle(self, key: PinKey | KillKey) -> None:
        if self._refused.pop(key, None) is not None or self._doubts:
            self._doubts.forget(self._keys.spell(key))

    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)
