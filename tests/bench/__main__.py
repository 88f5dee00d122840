"""Measure the sidecar beside other proxies, or look where its time goes.

python -m tests.bench run --items c,d --peers envoy,haproxy,nginx --rounds 3 --seconds 5
python -m tests.bench report RESULTS.jsonl
python -m tests.bench profile --item c
"""

import argparse
import signal
import sys
from pathlib import Path

from tests.bench import profiler, programs, report
from tests.bench.bench import Bench, Plan, Subject
from tests.bench.items import chosen
from tests.bench.peers import PEERS
from tests.bench.processes import stop_all
from tests.bench.programs import SkipError

SUBJECT = Path(__file__).with_name("subject")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install the Debian packages that are missing")
    subject = argparse.ArgumentParser(add_help=False)
    subject.add_argument("--subject", default=str(SUBJECT), help="command of the proxy under test")
    subject.add_argument("--subject-name", default="rmv")
    subject.add_argument("--warmup", type=int, default=1, help="seconds of load before the rest")
    run = commands.add_parser("run", parents=[subject], help="verify and measure")
    run.add_argument("--items", default="c,d", help="names or letters, e.g. a,c,e-64k-up")
    run.add_argument("--peers", default="envoy,haproxy,nginx", help=f"of {', '.join(PEERS)}")
    run.add_argument("--audit", action="store_true", help="the subject with audit, too")
    run.add_argument("--compare", action="store_true", help="the subject comparing copies, too")
    run.add_argument("--rounds", type=int, default=3)
    run.add_argument("--seconds", type=int, default=5, help="timed part of a round")
    profile = commands.add_parser("profile", parents=[subject], help="where the time goes")
    profile.add_argument("--item", default="c", help="name or letter of one item")
    profile.add_argument("--seconds", type=int, default=10)
    profile.add_argument("--profiler", choices=profiler.PROFILERS, default="functions")
    profile.add_argument("--lines", type=int, default=40, help="length of the table")
    commands.add_parser("report", help="print records again").add_argument("file", type=Path)
    return parser.parse_args()


def leave(signum: int, _frame: object) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # once is enough: let the children be stopped
    sys.exit(128 + signum)


def run(options: argparse.Namespace) -> int:
    peers = [name for name in options.peers.split(",") if name]
    if unknown := set(peers) - set(PEERS):
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    items = chosen(options.items)
    name, others = options.subject_name, {}
    for what in ("denials", "decisions") if options.audit else ():
        others[f"{name}, audit: {what}"] = {"BENCH_AUDIT": what}
    if options.compare:
        others[f"{name}, compare"] = {"BENCH_COMPARE": "1"}
    subject = Subject(name, options.subject, others)
    bench = Bench(subject, peers)
    whole = bench.run(items, Plan(options.rounds, options.seconds, options.warmup))
    print(report.markdown(bench.records))
    return 0 if whole else 1


def profile(options: argparse.Namespace) -> int:
    item = chosen(options.item)[0]
    bench = Bench(Subject(options.subject_name, options.subject), peers=[])
    plan = Plan(rounds=1, seconds=options.seconds, warmup=options.warmup)
    print(profiler.profile(bench, item, plan, options.profiler, options.lines))
    return 0


def main() -> int:
    options = parse()
    if options.command == "report":
        print(report.markdown(options.file))
        return 0
    if options.command == "install":
        programs.install_missing()
        return 0
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, leave)
    try:
        return run(options) if options.command == "run" else profile(options)
    except SkipError as missing:
        raise SystemExit(str(missing)) from None
    finally:
        stop_all()


if __name__ == "__main__":
    sys.exit(main())
