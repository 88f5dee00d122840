"""What the demo shows, step by step; every step checks what it claims."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from statistics import median
from time import perf_counter

from sidecar.cli.demo import shadow as shadows
from sidecar.cli.demo import tally
from sidecar.cli.demo.checkout import MODEL
from sidecar.cli.demo.client import Answer, request_body
from sidecar.cli.demo.counters import Mirrors
from sidecar.cli.demo.screen import Claims, Screen, table
from sidecar.cli.demo.stage import Stage
from sidecar.cli.demo.tally import Tally
from sidecar.cli.demo.wire import PlainRedis, connected
from sidecar.cli.heads import request_head
from sidecar.errors import Code
from sidecar.model.decision import Decision
from sidecar.model.identity import Identity
from sidecar.model.policy import Policy
from sidecar.policy.resolver import resolve
from sidecar.policy.snapshot import compile_snapshot

TENANTS = ("acme", "globex", "initech", "umbrella", "stark")
PINNED_TENANT, PINNED_VERSION = "acme", "v2"
BARRED_TENANT, BARRED_VERSION = "initech", "v2"
PAUSE_S = 0.02  # between two requests of a tenant: slow enough to be watched
REDRAW_S = 0.2
SETTLE_S = 10.0  # for copies that are still under way
EFFECT_S = 5.0


class Story:
    """The demo's steps, told on a screen."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self.claims = Claims(screen)
        self._bodies = [request_body(row) for row in stage.checkout.rows.rows]
        self._tokens = {tenant: stage.folder.token(tenant) for tenant in TENANTS}
        self._usual: dict[str, tuple[str, str]] = {}
        self._rows: dict[str, list[int]] = {}  # as in `Tally`, of all tenants
        self._answer_ms = 0.0

    async def start(self) -> None:
        """Wait for every process, and commit the policy."""
        stage, line = self._stage, self._screen.line
        began_s = perf_counter()
        self._screen.heading("1. Start: three model containers, a sidecar, its embedded store")
        await stage.wait_for_models()
        for version, child in stage.models.items():
            trained = stage.checkout.trained[version]
            line(
                f"{MODEL} {version}  {stage.urls[version]}  pid {child.pid:<8}{trained.kind}, "
                f"{100 * trained.holdout_accuracy:.1f} % of unseen rows right"
            )
        await stage.wait_for_sidecar()
        line(f"sidecar   http://{stage.listen}  pid {stage.sidecar.pid}")
        line(f"store     {stage.folder.socket}")
        revision = await stage.apply()
        line(f"policy    policies/{MODEL}.yaml, applied as revision {revision}")
        line(f"All up {perf_counter() - began_s:.1f} s after they were started.")

    async def send_rows(self) -> None:
        """Send every row as every tenant, and show who got which version, and why."""
        count = len(self._bodies)
        self._screen.heading(f"2. Traffic: {len(TENANTS)} tenants send {count} real rows each")
        tallies = {tenant: Tally(tenant) for tenant in TENANTS}
        shown = asyncio.gather(*(self._send(one) for one in tallies.values()))
        try:
            while not shown.done():
                self._draw(tallies, await self._stage.admin.mirrors(), is_final=False)
                await asyncio.wait([shown], timeout=REDRAW_S)
            await shown
        finally:
            shown.cancel()
        mirrors = await self._settled()
        self._draw(tallies, mirrors, is_final=True)
        self._screen.line("RIGHT: as each tumour turned out. COPIES: as the sidecar counted them.")
        self._screen.line()
        self._judge(tallies, mirrors)

    async def compare(self) -> None:
        """Show what each shadow test found, and that the models say the same of the same rows."""
        stage, check = self._stage, self.claims.check
        for shadow in stage.policy.shadows:
            if shadow.compare is None:
                continue
            version, copies = shadow.version, stage.client.served
            self._screen.heading(f"3. Shadow test: may {version} replace what serves?")
            report = await stage.shadow_report(version, copies)
            for text in shadows.show(report):
                self._screen.line(text)
            self._screen.line()
            trained = stage.checkout.trained
            expected = {
                name: shadows.compute(rows, trained[name], trained[version])
                for name, rows in self._rows.items()
                if name in trained
            }
            check(
                f"each of {copies} answers was compared with that of {version}, and none twice",
                *shadows.find_gaps(report, copies),
            )
            check(
                "agreement, labels and shift are those of the models alone, on the same rows",
                *shadows.find_faults(report, expected),
            )

    async def refuse(self) -> None:
        """Show what is not served: tokens that are not believed, a version that is not allowed."""
        self._screen.heading("4. Refusals: said with a status, a stable code and a reason")
        folder, tenant = self._stage.folder, PINNED_TENANT
        forged = folder.forged_token(tenant, of="globex")
        asked = [
            (f"forged token of {tenant}", forged, Code.TOKEN_INVALID, ""),
            ("expired token", folder.expired_token(tenant), Code.TOKEN_EXPIRED, ""),
            ("no token", "", Code.TOKEN_MISSING, ""),
            (
                f"{BARRED_TENANT} asks for {BARRED_VERSION}",
                self._tokens[BARRED_TENANT],
                Code.VERSION_FORBIDDEN,
                BARRED_VERSION,
            ),
        ]
        told = [await self._refused(*one) for one in asked]
        for text in table("WHO ASKS|ANSWER|REASON", [row for row, _ in told]):
            self._screen.line(text)
        *unbelieved, barred = [fault for _, fault in told]
        slipped = "it got it unasked" if self._usual[BARRED_TENANT][0] == BARRED_VERSION else ""
        self._screen.line()
        self.claims.check("nothing that was forged, expired or missing was believed", *unbelieved)
        self.claims.check(
            f"{BARRED_TENANT} never gets {BARRED_VERSION}, asked for or not", barred, slipped
        )

    async def pin(self) -> None:
        """Pin a tenant by a plain Redis write, and let it go again; show when each took effect."""
        self._screen.heading("5. A pin: one plain Redis write, in effect without a restart")
        key = f"rmv:pin:{MODEL}:{PINNED_TENANT}"
        before = self._usual[PINNED_TENANT]
        pinned = PINNED_VERSION, "PINNED"
        async with connected(self._stage.folder.socket) as redis:
            rows = [await self._change(redis, f"SET {key} {PINNED_VERSION}", before, pinned)]
            others = await self._others_changed()
            rows.append(await self._change(redis, f"DEL {key}", pinned, before))
        for text in table(f"WRITTEN|{PINNED_TENANT.upper()} BEFORE|AFTER|>IN EFFECT AFTER", rows):
            self._screen.line(text)
        self._screen.line(
            "From the write to the end of the first answer that obeys it; "
            f"an answer alone takes {self._answer_ms:.1f} ms."
        )
        self._screen.line()
        late = [f"{row[0]}: no effect in {EFFECT_S:g} s" for row in rows if not row[-1]]
        self.claims.check(f"{PINNED_TENANT} was held to {PINNED_VERSION}, and let go", *late)
        self.claims.check("no other tenant noticed", *others)

    async def _send(self, one: Tally) -> None:
        """Send every row as one tenant, one after another."""
        checkout, token = self._stage.checkout, self._tokens[one.tenant]
        for number, body in enumerate(self._bodies):
            answer = await self._stage.client.infer(token, body)
            one.add(answer, number, checkout.rows.labels[number], checkout.trained)
            await asyncio.sleep(PAUSE_S)

    def _draw(
        self, tallies: Mapping[str, Tally], mirrors: Mapping[str, Mirrors], *, is_final: bool
    ) -> None:
        self._screen.draw(tally.show(tallies.values(), mirrors), is_final=is_final)

    async def _settled(self) -> Mapping[str, Mirrors]:
        """Return the counts of copies once each is accounted for, or when that takes too long."""
        stage = self._stage
        due = stage.client.served * len(stage.policy.shadows)
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + SETTLE_S
        while True:
            mirrors = await stage.admin.mirrors()
            if sum(map(sum, mirrors.values())) >= due or clock() > deadline_s:
                return mirrors
            await asyncio.sleep(REDRAW_S / 10)

    def _judge(self, tallies: Mapping[str, Tally], mirrors: Mapping[str, Mirrors]) -> None:
        check, served = self.claims.check, self._stage.client.served
        check(
            "every answer is a probability, and the one that the version it names must give",
            *(fault for one in tallies.values() for fault in one.faults),
        )
        took_s = [s for one in tallies.values() for several in one.took_s.values() for s in several]
        self._answer_ms = 1e3 * median(took_s)
        for one in tallies.values():
            for version, rows in one.rows.items():
                self._rows.setdefault(version, []).extend(rows)
        self._usual = {tenant: next(iter(one.decisions)) for tenant, one in tallies.items()}
        check(
            "every tenant got one version throughout, the one that the policy says",
            *(unlike_policy(one, self._stage.policy) for one in tallies.values()),
        )
        for shadow in self._stage.policy.shadows:
            copies = mirrors.get(shadow.version, Mirrors())
            check(
                f"{shadow.version} got a copy of each of {served} requests and answered no client",
                "" if sum(copies) == served else f"{sum(copies)} copies of {served} requests",
                "" if copies.answered else "no copy was answered",
            )

    async def _refused(
        self, what: str, token: str, code: Code, version: str = ""
    ) -> tuple[tuple[str, str, str], str]:
        """Ask for what must be refused; return what to show, and what is wrong with it."""
        answer = await self._stage.client.infer(token, self._bodies[0], version=version)
        if answer.status != code.status:
            return (what, str(answer.status), ""), f"{what}: status {answer.status}"
        problem = answer.problem()
        fault = "" if problem.code == code.slug else f"{what}: code {problem.code}"
        return (what, f"{answer.status} {problem.code}", problem.detail), fault

    async def _change(
        self,
        redis: PlainRedis,
        command: str,
        before: tuple[str, str],
        after: tuple[str, str],
    ) -> tuple[str, str, str, str]:
        """Write a command, ask until it is obeyed, and return what to show; no time if never."""
        began_s = perf_counter()
        redis.write(command)
        took_ms = ""
        while perf_counter() - began_s < EFFECT_S:
            answer = await self._ask(PINNED_TENANT)
            if answer.decision == after:
                took_ms = f"{1e3 * (perf_counter() - began_s):.1f} ms"
                break
        await redis.answer()
        return command, " ".join(before), " ".join(after), took_ms

    async def _others_changed(self) -> list[str]:
        """Return which of the tenants that are not pinned fare differently than before."""
        found = []
        for tenant in TENANTS:
            decision = (await self._ask(tenant)).decision
            if tenant != PINNED_TENANT and decision != self._usual[tenant]:
                found.append(f"{tenant}: {' '.join(decision)}")
        return found

    async def _ask(self, tenant: str) -> Answer:
        return await self._stage.client.infer(self._tokens[tenant], self._bodies[0])


def decide(policy: Policy, tenant: str) -> Decision:
    """Return the decision that a policy without pins has for a tenant: what `rmv explain` says."""
    identity = Identity(tenant, "", "", (), {})
    return resolve(compile_snapshot(policy, {}, {}), identity, request_head("POST", "/", (), ""))


def unlike_policy(one: Tally, policy: Policy) -> str:
    """Return how a tenant's answers differ from what the policy says; empty when they do not."""
    decision = decide(policy, one.tenant)
    expected = {(decision.version, decision.reason)}
    if set(one.decisions) == expected:
        return ""
    got = "; ".join(f"{n} times {' '.join(pair)}" for pair, n in one.decisions.items())
    return f"{one.tenant}: {decision.version} {decision.reason} was due, got {got}"
