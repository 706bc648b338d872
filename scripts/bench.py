#!/usr/bin/env python3
"""Measures Postern and shows what was measured.

    scripts/bench.py short            every goal, in under ten minutes once everything is built; a table of pass and
                                      falls short. `--strict` ends with 1 if anything falls short
    scripts/bench.py verdict          that table once more, from what was kept
    scripts/bench.py growth           what grows with the policy: 1,000 to 1,000,000 role assignments
    scripts/bench.py publications     a start of 1,000,000, activations under load, a fleet that polls
    scripts/bench.py table            the tables as Markdown; `--write` puts them into docs/performance.md
    scripts/bench.py plots            the pictures of docs/performance.md

`short`, `growth` and `publications` run benchmarks of this tree and keep their JSON in target/bench; the others only
read it. Every file says by which command, when, at which commit and on what machine, and which share of the processors others used
meanwhile: the figures of a busy machine are worth little.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import time
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "target/bench"
PAGE = ROOT / "docs/performance.md"
PICTURES = ROOT / "docs/pictures"
TRANSPORTS = {"unix": "Unix socket", "tcp": "TCP"}
# Of the processors; when others use more, times and rates say little, whichever way they come out.
BUSY = 0.1
BENCHES = ["report", "grpc", "sizes", "telemetry"]


# === measuring ===


def say(text):
    """Progress, for whoever looks on."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def cargo(*arguments, environment=None, may_fail=False):
    """What the command prints; its own words only if it fails."""
    done = subprocess.run(
        ["cargo", *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=None if sys.stderr.isatty() and "--no-run" in arguments else subprocess.PIPE,
        text=True,
    )
    if done.returncode and not may_fail:
        print(done.stdout, done.stderr or "", file=sys.stderr)
        sys.exit(f"failed: cargo {' '.join(arguments)}")
    return done.stdout


def build(benches, test):
    say("building, which does not count")
    cargo("bench", "--locked", "--no-run", *(part for bench in benches for part in ("--bench", bench)))
    if test:
        cargo("test", "--locked", "--release", "--no-run", "--test", "growth")


def busy():
    """Seconds that the processors have computed, for anybody."""
    parts = [int(part) for part in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    # user, nice, system, irq, softirq, steal
    return sum(parts[at] for at in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def own():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_line(path, key):
    lines = (line.split(":", 1) for line in pathlib.Path(path).read_text().splitlines() if ":" in line)
    return next((value.strip() for name, value in lines if name.strip() == key), "")


def machine():
    memory = int(first_line("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    return {
        "processor": first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memoryGiB": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "rust": subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip(),
    }


def commit():
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = " and changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short=12", "HEAD") + changed


def keep(name, command, measure):
    """Runs a measurement and keeps what it gives."""
    say(f"{name}: {command}")
    clock, all_before, own_before = time.monotonic(), busy(), own()
    result = measure()
    seconds = time.monotonic() - clock
    others = max(0.0, (busy() - all_before) - (own() - own_before))
    kept = {
        "command": command,
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seconds": round(seconds, 1),
        "othersShare": round(others / seconds / os.cpu_count(), 3),
        "result": result,
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    say(f"{name}: {seconds:.0f} s, others used {kept['othersShare']:.0%} of the processors")


def bench(name, which, *arguments):
    shown = " ".join(f"'{part}'" if " " in part else part for part in arguments)
    command = f"cargo bench --bench {which} -- {shown}".strip()
    ask = ("bench", "--locked", "--bench", which, "--", *arguments, "--json")
    keep(name, command, lambda: json.loads(cargo(*ask)))


def short(options):
    build(BENCHES, True)
    began = time.monotonic()
    bench("report", "report", "--sizes", "100000,1000000")
    bench("grpc", "grpc", "--rounds", "5", "--seconds", "1")
    bench("sizes", "sizes", "--sizes", "100000", "--starts", "9", "--seconds", "2", "--directories-to", "0")
    bench("telemetry", "telemetry", "--rounds", "9", "--seconds", "1", "--only", "once more|traces 1 %, metrics")
    held(options.requests)
    say(f"all of it took {time.monotonic() - began:.0f} s, building not counted")
    return verdict(options.strict)


def held(requests):
    """No growth, over so many questions."""

    def measure():
        out = cargo(
            *("test", "--locked", "--release", "--test", "growth", "--", "--nocapture", "--test-threads", "1"),
            environment={"POSTERN_REQUESTS": str(requests)},
            may_fail=True,
        )
        # Each test tells what it found before it judges it.
        found = re.findall(r'(\{[^{}]*"growth"[^{}]*\}).*?\n(ok|FAILED)\b', out, re.DOTALL)
        return [json.loads(line) | {"ok": judged == "ok"} for line, judged in found]

    command = f"POSTERN_REQUESTS={requests} cargo test --release --test growth -- --nocapture"
    keep("held", command, measure)


def growth(_):
    build(["report", "sizes"], False)
    sizes = "1000,10000,100000,1000000"
    bench("growth-report", "report", "--sizes", sizes)
    bench("growth-sizes", "sizes", "growth", "--sizes", sizes, "--starts", "9", "--seconds", "2")
    print(growth_table())


def publications(_):
    build(["publications"], False)
    bench("publications", "publications")
    print(publications_table())


# === reading ===


def kept(name):
    path = KEPT / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def result(name):
    found = kept(name)
    return found["result"] if found else None


def whole(number):
    return f"{number:,.0f}"


def digits(number):
    """Three of them, for people."""
    if number >= 100:
        return whole(number)
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def nanos(number):
    return f"{number:.0f} ns" if number < 1000 else f"{digits(number / 1000)} µs"


def millis(number):
    return f"{digits(number)} ms" if number < 1000 else f"{number / 1000:.1f} s"


def size(count):
    return f"{count / 1e6:.2f} MB" if count < 1e7 else f"{count / 1e6:.1f} MB"


def mib(number):
    return f"{number:.1f} MiB"


# === the goals ===


def goals():
    """What, measured, wanted, and how it came out."""
    parts = [
        ("grpc", goals_of_calls()),
        ("report", goals_in_process()),
        ("sizes", goals_of_room()),
        ("telemetry", goals_of_telemetry()),
    ]
    for source, found in parts:
        busy_then = BUSY < ((kept(source) or {}).get("othersShare") or 0)
        for what, measured, wanted, ok in found:
            # Bytes are the same on any machine.
            timed = measured.endswith(("s", "%", "×")) or "decisions/s" in what
            said = {True: "pass", False: "falls short", None: "not measured"}[ok]
            yield what, measured, wanted, f"{said}, on a busy machine" if busy_then and timed and ok is not None else said


def missing(what, wanted):
    return what, "not measured", wanted, None


def goals_of_calls():
    grpc = result("grpc") or {}
    rows = {row["transport"]: row for row in grpc.get("rows", [])}
    batches = {row["transport"]: row for row in grpc.get("batches", [])}
    for transport, name in TRANSPORTS.items():
        row = rows.get(transport)
        of = f"Check over {'a ' if transport == 'unix' else ''}{name}, of a bare tonic service"
        wanted = [("requests/s", "≥ 92 %"), ("p99", "≤ 110 %"), ("server CPU a request", "≤ 110 %")]
        if not row:
            yield from (missing(f"{of}: {what}", goal) for what, goal in wanted)
            continue
        ours, bare = row["postern"], row["constant"]
        ratios = [ours[key] / bare[key] for key in ("requestsPerSecond", "p99Micros", "serverCpuMicros")]
        reached = [ratios[0] >= 0.92, ratios[1] <= 1.1, ratios[2] <= 1.1]
        for (what, goal), ratio, ok in zip(wanted, ratios, reached):
            yield f"{of}: {what}", f"{ratio:.1%}".replace("%", " %"), goal, ok
    for transport, name in TRANSPORTS.items():
        what, goal = f"BatchCheck of 100 over {name}: decisions/s a core of server", "≥ 1,000,000"
        if row := batches.get(transport):
            rate = row["decisionsPerServerCpuSecond"]
            yield what, whole(rate), goal, rate >= 1e6
        else:
            yield missing(what, goal)
    for transport, name in TRANSPORTS.items():
        ways = [
            row for row in grpc.get("streams", []) if row["transport"] == transport and row["way"].startswith("stream")
        ]
        what, goal = f"CheckStream over {name}, its slowest way: decisions/s of Check", "≥ 5×"
        if ways:
            ratio = min(row["rateOverCheck"] for row in ways)
            yield what, f"{ratio:.1f}×", goal, ratio >= 5
        else:
            yield missing(what, goal)


def goals_in_process():
    rows = {row["assignments"]: row for row in result("report") or []}
    for count, strings, alone in ((100_000, 800, 400), (1_000_000, 1200, 700)):
        row = rows.get(count)
        lines = [
            ("10 groups, from strings, median", ("from_strings", "median_ns"), strings),
            ("10 groups, from strings, p99", ("from_strings", "p99_ns"), 5000),
            ("10 groups, evaluation alone, median", ("evaluate", "median_ns"), alone),
            ("200 groups, 11 levels, from strings, median", ("heavy", "median_ns"), 5000),
        ]
        for what, (part, key), limit in lines:
            what, goal = f"{what}, {count:,} assignments", f"< {nanos(limit)}"
            if row:
                value = row[part][key]
                yield what, nanos(value), goal, value < limit
            else:
                yield missing(what, goal)
        what = f"allocations a check, {count:,} assignments"
        if row:
            yield what, f"{row['allocations_per_check']:g}", "0", row["allocations_per_check"] == 0
        else:
            yield missing(what, "0")


def goals_of_room():
    sizes = result("sizes") or {}
    what, goal = "idle sidecar with the example tenant, resident", "< 12 MiB"
    if idle := sizes.get("idle"):
        value = idle["fresh"]["residentMiB"]
        yield what, mib(value), goal, value < 12
    else:
        yield missing(what, goal)
    row = next((row for row in sizes.get("sizes", []) if row["assignments"] == 100_000), None)
    what, goal = "bundle of 100,000 assignments, bytes an assignment", "< 48"
    if row:
        yield what, f"{row['bundleBytesPerAssignment']:.1f}", goal, row["bundleBytesPerAssignment"] < 48
    else:
        yield missing(what, goal)
    what, goal = "exec to the first answered Check, 100,000 assignments, state directory", "< 50 ms"
    if row:
        yield what, millis(row["answeredMillis"]), goal, row["answeredMillis"] < 50
    else:
        yield missing(what, goal)
    for name, of in (("library", "live bytes of the library"), ("sidecar", "resident memory of a sidecar")):
        row = next((row for row in result("held") or [] if row["growth"] == name), None)
        what, goal = f"growth over mixed requests, cache on: {of}", "none over 10,000,000"
        if row:
            text = f"{row['bytes'] / 2**20:+.2f} MiB over {row['requests']:,}"
            yield what, text, goal, row["ok"] and row["requests"] >= 9_990_000
        else:
            yield missing(what, goal)


def goals_of_telemetry():
    rows = (result("telemetry") or {}).get("rows", [])
    for sink in ("file", "OTLP"):
        row = next((row for row in rows if row["variant"] == f"traces 1 %, metrics, {sink}"), None)
        what = f"1 % traces, all records ({sink}), metrics scraped"
        if row:
            rate, p99 = row["ratios"]["requestsPerSecond"], row["ratios"]["p99Micros"]
            yield f"{what}: requests/s of without", f"{rate:.1%}".replace("%", " %"), "≥ 90 %", rate >= 0.9
            yield f"{what}: p99 of without", f"{p99:.1%}".replace("%", " %"), "≤ 110 %", p99 <= 1.1
        else:
            yield missing(f"{what}: requests/s of without", "≥ 90 %")
            yield missing(f"{what}: p99 of without", "≤ 110 %")


def verdict(strict):
    rows = list(goals())
    rows.insert(0, ("goal", "measured", "wanted", ""))
    wide = [max(len(row[at]) for row in rows) for at in range(4)]
    for row in rows:
        print(f"{row[0]:<{wide[0]}}  {row[1]:>{wide[1]}}  {row[2]:>{wide[2]}}  {row[3]}".rstrip())
    reached = sum(row[3].startswith("pass") for row in rows)
    print(f"\n{reached} of {len(rows) - 1} pass; builds are not part of the time")
    for name in BENCHES:
        if (found := kept(name)) and found["othersShare"] > BUSY:
            print(f"{name}: others used {found['othersShare']:.0%} of the processors meanwhile; measure again")
    return 1 if strict and reached < len(rows) - 1 else 0


# === tables ===


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def by(name):
    """The line under a table: how its figures were made."""
    found = kept(name)
    if not found:
        return ""
    return f"`{found['command']}`, {found['at'][:10]}, others used {found['othersShare']:.0%} of the processors."


def machine_table():
    found = next(filter(None, map(kept, ["grpc", "report", "sizes", "growth-report"])), None)
    if not found:
        return None
    of = found["machine"]
    return (
        f"{of['cores']} cores ({of['processor']}, {of['architecture']}), {of['memoryGiB']:.0f} GiB of memory, "
        f"{of['system']}, {of['rust']}, commit `{found['commit']}`."
    )


def goals_table():
    return markdown(["goal", "measured", "wanted", ""], goals())


def checks_table():
    found = result("grpc")
    if not found or not found.get("rows"):
        return None
    rows = []
    for row in found["rows"]:
        for name, one in (("bare tonic", row["constant"]), ("Postern", row["postern"])):
            share = f"{row['ratio']:.1%}".replace("%", " %") if name == "Postern" else ""
            rate, cpu = whole(one["requestsPerSecond"]), one["serverCpuMicros"]
            p50, p99 = (f"{one[key]:.0f} µs" for key in ("p50Micros", "p99Micros"))
            rows.append([f"{name}, {TRANSPORTS[row['transport']]}", rate, share, p50, p99, f"{cpu:.1f} µs"])
    head = ["", "requests/s", "of bare tonic", "p50", "p99", "server CPU a request"]
    return markdown(head, rows) + "\n\n" + by("grpc")


def streams_table():
    found = result("grpc")
    if not found or not found.get("streams"):
        return None
    rows = []
    for row in found["streams"]:
        rate, over = whole(row["decisionsPerSecond"]), f"{row['rateOverCheck']:.1f}"
        p50, p99 = (f"{digits(row[key])} µs" for key in ("p50Micros", "p99Micros"))
        name = f"{TRANSPORTS[row['transport']]}: {row['way']}"
        rows.append([name, rate, over, p50, p99, f"{row['serverCpuMicros']:.2f} µs"])
    head = ["", "decisions/s", "times Check", "p50 of a message", "p99", "server CPU a decision"]
    return markdown(head, rows) + "\n\n" + by("grpc")


def batches_table():
    found = result("grpc")
    if not found or not found.get("batches"):
        return None
    rows = []
    for row in found["batches"]:
        bare = row.get("constantServerCpuMicrosPerBatch")
        rows.append(
            [
                f"{TRANSPORTS[row['transport']]}, {row['items']} questions of one subject",
                whole(row["decisionsPerSecond"]),
                f"{row['serverCpuMicrosPerBatch']:.1f} µs",
                f"{bare:.1f} µs" if bare else "",
                whole(row["decisionsPerServerCpuSecond"]),
            ]
        )
    head = ["", "decisions/s", "server CPU a batch", "of bare tonic", "decisions/s a core of server"]
    return markdown(head, rows) + "\n\n" + by("grpc")


def process_table():
    found = result("growth-report") or result("report")
    if not found:
        return None
    lines = [
        ("evaluation alone, 10 groups", "evaluate"),
        ("from strings, 10 groups", "from_strings"),
        ("from strings, 200 groups, 11 levels", "heavy"),
        ("nested hash maps, the baseline, 10 groups", "nested_hash_maps"),
    ]
    rows = [
        [what, *(f"{nanos(row[key]['median_ns'])} / {nanos(row[key]['p99_ns'])}" for row in found)]
        for what, key in lines
    ]
    rows.append(["allocations a check", *(f"{row['allocations_per_check']:g}" for row in found)])
    head = ["median / p99", *(whole(row["assignments"]) for row in found)]
    return markdown(head, rows) + "\n\n" + by("growth-report" if result("growth-report") else "report")


def growth_table():
    sizes = (result("growth-sizes") or {}).get("sizes")
    report = {row["assignments"]: row for row in result("growth-report") or []}
    if not sizes:
        return None

    def line(what, cell):
        return [what, *(cell(row) for row in sizes)]

    def timed(part):
        return lambda row: nanos(report[row["assignments"]][part]["median_ns"]) if row["assignments"] in report else ""

    def directory(cell):
        return lambda row: cell(row["directory"]) if row.get("directory") else ""

    rows = [
        line("compile", lambda row: millis(row["compileMillis"])),
        line("bundle", lambda row: size(row["bundleBytes"])),
        line("bundle, bytes an assignment", lambda row: f"{row['bundleBytesPerAssignment']:.1f}"),
        line("exec to SERVING, state directory", lambda row: millis(row["servingMillis"])),
        line("exec to the first answered Check", lambda row: millis(row["answeredMillis"])),
        line("the same, worst", lambda row: millis(row["answeredWorstMillis"])),
        line("evaluation alone, median", timed("evaluate")),
        line("from strings, median", timed("from_strings")),
        line("from strings, 200 groups, median", timed("heavy")),
        line("checks/s of a sidecar, Unix socket", lambda row: whole(row["load"]["checksPerSecond"])),
        line("server CPU a check", lambda row: f"{row['load']['serverCpuMicros']:.1f} µs"),
        line("resident after the load", lambda row: mib(row["asked"]["residentMiB"])),
        line("of it anonymous", lambda row: mib(row["asked"]["anonymousMiB"])),
        line("as a directory: JSON", directory(lambda of: size(of["jsonBytes"]))),
        line("as a directory: exec to SERVING", directory(lambda of: millis(of["servingMillis"]))),
        line("as a directory: most resident", directory(lambda of: mib(of["peakMiB"]))),
        line("as a directory: resident a second later", directory(lambda of: mib(of["settled"]["residentMiB"]))),
    ]
    table = markdown(["role assignments", *(whole(row["assignments"]) for row in sizes)], rows)
    return f"{table}\n\n{by('growth-sizes')} {by('growth-report')}".rstrip()


def memory_table():
    idle = (result("sizes") or {}).get("idle")
    if not idle:
        return None
    rows = [
        [name, *(mib(idle[key][f"{kind}MiB"]) for kind in ("resident", "proportional", "private", "anonymous"))]
        for name, key in (
            ("SERVING", "fresh"),
            (f"after {idle['checks']:,} checks", "asked"),
            (f"with {idle['connections']} connections", "connected"),
        )
    ]
    cache = idle["cache"]
    text = (
        f"A connection takes {idle['perConnectionKiB']:.0f} KiB. A full decision cache of {cache['maxMiB']:.0f} MiB takes "
        f"{cache['fullMiB']:.1f} MiB, and callers that invent actions have the memo of actions take "
        f"{cache['inventedActionsMiB']:.1f} MiB, where its bound is."
    )
    held_rows = [
        f"{row['bytes'] / 2**20:+.2f} MiB ({'bytes that it holds' if row['growth'] == 'library' else 'resident'}) over "
        f"{row['requests']:,} questions to the {row['growth']}"
        for row in result("held") or []
    ]
    grown = f"\n\nGrowth with the cache on: {'; '.join(held_rows)}. {by('held')}" if held_rows else ""
    return markdown(["", "resident", "proportional", "private", "anonymous"], rows) + f"\n\n{text} {by('sizes')}{grown}"


def telemetry_table():
    found = result("telemetry")
    if not found:
        return None

    def of(ratio):
        return f"{ratio:.1%}".replace("%", " %")

    rows = [
        [row["variant"], whole(row["measured"]["requestsPerSecond"]), *(of(row["ratios"][key]) for key in ("requestsPerSecond", "p99Micros", "serverCpuMicros"))]
        for row in found["rows"]
    ]
    return markdown(["", "requests/s", "of off", "p99 of off", "server CPU of off"], rows) + "\n\n" + by("telemetry")


def publications_table():
    found = result("publications")
    if not found:
        return None
    rows = []
    if start := found.get("start"):
        rows += [
            [f"bundle of {start['assignments']:,} role assignments", f"{size(start['bundleBytes'])}, compiled in {millis(start['compileMillis'])}"],
            [
                "exec to SERVING with it, from the state directory, its digest checked",
                f"{millis(start['servingMillis'])} (median of {start['starts']}; worst {millis(start['servingWorstMillis'])})",
            ],
            ["memory of that sidecar that it shares with nobody", mib(start["idle"]["privateMiB"])],
            ["two such sidecars after 20,000 checks each: pages of the bundle that they share", mib(start["asked"]["bundleSharedMiB"])],
        ]
    if swap := found.get("swap"):
        rows += [
            [
                f"{swap['activations']} activations of {swap['assignments']:,} role assignments under {swap['checksPerSecond']:,} checks a second",
                f"no failed check; p99 {swap['p99Ratio']:.2f} of that without",
            ],
            [
                "published to enforced at a poll interval of 100 ms",
                f"{millis(swap['enforcedMillis'])} (median), {millis(swap['enforcedWorstMillis'])} (worst)",
            ],
        ]
    if fleet := found.get("fleet"):
        look, first = fleet["lookWithoutNews"], fleet["firstLook"]
        rows += [
            [
                "a look at the source without news, over HTTP/1.1 without TLS",
                f"1 request, {look['bytesToSource']:.0f} bytes to the source, {look['bytesFromSource']:.0f} from it",
            ],
            [
                "a first look, without the bundle",
                f"{first['requests']:.0f} requests, {first['bytesToSource']:.0f} bytes to the source, {first['bytesFromSource']:.0f} from it",
            ],
        ]
    return markdown(["", ""], rows) + "\n\n" + by("publications")


def resources_table():
    """What so many decisions a second take, from what one takes."""
    found, load = result("grpc"), (result("growth-sizes") or result("sizes") or {}).get("sizes") or []
    if not found:
        return None
    rates = (100, 1_000, 10_000)

    def line(name, micros):
        return [name, f"{micros:.1f} µs", *(f"{max(1, micros * rate / 1000):.0f}m" for rate in rates)]

    rows = [
        line(f"Check, {TRANSPORTS[row['transport']]}", row["postern"]["serverCpuMicros"]) for row in found.get("rows", [])
    ]
    rows += [
        line(f"BatchCheck of {row['items']}, {TRANSPORTS[row['transport']]}", row["serverCpuMicrosPerBatch"] / row["items"])
        for row in found.get("batches", [])
    ]
    rows += [
        line(f"CheckStream, {row['way'].removeprefix('stream, ')}, Unix socket", row["serverCpuMicros"])
        for row in found.get("streams", [])
        if row["transport"] == "unix" and row["way"].startswith("stream")
    ]
    text = markdown(["", "CPU a decision", *(f"{rate:,}/s" for rate in rates)], rows)
    if load:
        rows = [
            [whole(row["assignments"]), size(row["bundleBytes"]), mib(row["asked"]["anonymousMiB"]), mib(row["asked"]["residentMiB"])]
            for row in load
        ]
        text += "\n\n" + markdown(["role assignments", "bundle", "anonymous after the load", "resident, pages of bundle and program included"], rows)
    return text


def peers_table():
    rows = peers()
    if not rows:
        return None
    keys = [
        ("role assignments", "assignments", whole),
        ("median of a decision", "medianNanos", nanos),
        ("p99 of a decision", "p99Nanos", nanos),
        ("requests/s", "requestsPerSecond", whole),
        ("p50", "p50Micros", lambda value: f"{value:.0f} µs"),
        ("p99", "p99Micros", lambda value: f"{value:.0f} µs"),
        ("server CPU a request", "serverCpuMicros", lambda value: f"{value:.1f} µs"),
        ("resident", "residentMiB", mib),
    ]
    shown = [(head, key, text) for head, key, text in keys if any(row.get(key) is not None for row in rows)]
    cells = [
        [row["name"], *(text(row[key]) if row.get(key) is not None else "" for _, key, text in shown)] for row in rows
    ]
    return markdown(["", *(head for head, _, _ in shown)], cells)


def peers():
    """Others that answer the same questions, where target/bench/peers.json has them: `{"rows": [{"name", "assignments",
    "medianNanos", "p99Nanos"}]}` of those in process, with the keys of a server of `grpc` for those that are asked over a
    socket. Numbers that a row does not have are left out."""
    found = kept("peers") or {}
    found = found.get("result", found) if isinstance(found, dict) else found
    rows = found.get("rows", []) if isinstance(found, dict) else found
    return [row for row in rows if "name" in row and ("medianNanos" in row or "requestsPerSecond" in row)]


TABLES = {
    "machine": machine_table,
    "goals": goals_table,
    "checks": checks_table,
    "streams": streams_table,
    "batches": batches_table,
    "process": process_table,
    "growth": growth_table,
    "memory": memory_table,
    "telemetry": telemetry_table,
    "publications": publications_table,
    "resources": resources_table,
    "peers": peers_table,
}


def table(options):
    if not options.write:
        for name, make in TABLES.items():
            if text := make():
                print(f"## {name}\n\n{text}\n")
        return
    text = PAGE.read_text()

    def renew(found):
        name = found[1]
        if name not in TABLES:
            sys.exit(f"{PAGE.name} asks for a table `{name}`, and there is none")
        # What was not measured stays as it was.
        return f"<!-- bench:{name} -->\n{made}\n<!-- /bench -->" if (made := TABLES[name]()) else found[0]

    PAGE.write_text(re.sub(r"<!-- bench:(\w+) -->\n.*?<!-- /bench -->", renew, text, flags=re.DOTALL))


# === pictures ===

# Each brings its ground, so that it can be read on any page; the dark one where the reader prefers it.
STYLE = """
text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 13px; } .faint { fill: #59636e; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.ground { fill: #ffffff; } .line { stroke: #d1d9e0; fill: none; } .ours { fill: #0969da; } .other { fill: #9aa4af; }
.curve { stroke: #0969da; stroke-width: 2; fill: none; } .whisker { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .faint { fill: #9198a1; } .ground { fill: #0d1117; } .line { stroke: #3d444d; } .ours { fill: #4493f8; }
.other { fill: #656c76; } .curve { stroke: #4493f8; } .whisker { stroke: #e6edf3; } }
"""


class Picture:
    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x, y, text, kind=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>')

    def bar(self, x, y, width, height, kind):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}" rx="2" class="{kind}"/>')

    def line(self, x1, y1, x2, y2, kind="line"):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def curve(self, points):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" class="curve"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="ours"/>' for x, y in points]

    def write(self, name):
        PICTURES.mkdir(parents=True, exist_ok=True)
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" role="img" aria-label="{escape(self.title)}">'
        ground = f'<rect width="{self.width}" height="{self.height}" class="ground"/>'
        lines = [head, f"<title>{escape(self.title)}</title>", f"<style>{STYLE}</style>", ground, *self.parts, "</svg>", ""]
        (PICTURES / name).write_text("\n".join(lines))
        print(f"{(PICTURES / name).relative_to(ROOT)}: {self.title}")


def bars(name, title, panels):
    """Panels below each other, each with a title and rows of (name, value, text, is ours, whisker)."""
    left, right, step = 230, 130, 22
    width = 760
    height = 16 + sum(34 + step * len(rows) for _, rows in panels)
    picture = Picture(width, height, title)
    y = 26
    for head, rows in panels:
        picture.text(16, y, head, "title")
        most = max(max(value, whisker or 0) for _, value, _, _, whisker in rows)
        for row, value, text, ours, whisker in rows:
            y += step
            scale = (width - left - right) / most
            picture.text(left - 10, y + 4, row, "end")
            picture.bar(left, y - 8, value * scale, 15, "ours" if ours else "other")
            end = left + value * scale
            if whisker:
                end = max(end, left + whisker * scale)
                picture.line(left + value * scale, y, left + whisker * scale, y, "whisker")
                picture.line(left + whisker * scale, y - 5, left + whisker * scale, y + 5, "whisker")
            picture.text(end + 8, y + 4, text, "faint")
        y += 34
    picture.write(name)


def curves(name, title, xs, panels):
    """Small panels over the same sizes, two in a row; each a title, its values and how to write one."""
    wide, high, columns = 380, 160, 2
    rows = -(-len(panels) // columns)
    picture = Picture(wide * columns + 8, high * rows + 24, title)
    for number, (head, values, text) in enumerate(panels):
        left, top = 8 + wide * (number % columns), 8 + high * (number // columns)
        picture.text(left + 10, top + 18, head, "title")
        x_of = [left + 44 + at * (wide - 88) / max(1, len(xs) - 1) for at in range(len(xs))]
        base, room = top + high - 34, high - 84
        picture.line(left + 10, base, left + wide - 10, base)
        most = max(value for value in values if value is not None)
        points = [(x, base - room * value / most) for x, value in zip(x_of, values) if value is not None]
        picture.curve(points)
        shown = [value for value in values if value is not None]
        for at, ((x, y), value) in enumerate(zip(points, shown)):
            # Out of the way of a line that rises.
            rises = at + 1 < len(points) and y - points[at + 1][1] > 12
            picture.text(x + (6 if rises else 0), y - 9, text(value), "end" if rises else "mid")
        for x, count in zip(x_of, xs):
            label = f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1000}k"
            picture.text(x, base + 17, label, "mid faint")
    picture.text(18, high * rows + 12, "role assignments", "faint")
    picture.write(name)


def plots(_):
    grpc = result("grpc")
    if grpc and grpc.get("rows"):
        rows = [
            (f"{name}, {TRANSPORTS[row['transport']]}", row[key], key == "postern")
            for row in grpc["rows"]
            for name, key in (("bare tonic", "constant"), ("Postern", "postern"))
        ]
        rate = [(name, one["requestsPerSecond"], whole(one["requestsPerSecond"]), ours, None) for name, one, ours in rows]
        late = [
            (name, one["p50Micros"], f"{one['p50Micros']:.0f} / {one['p99Micros']:.0f} µs", ours, one["p99Micros"])
            for name, one, ours in rows
        ]
        cpu = [(name, one["serverCpuMicros"], f"{one['serverCpuMicros']:.1f} µs", ours, None) for name, one, ours in rows]
        panels = [("Check: requests a second", rate), ("latency, p50 and p99", late), ("server CPU a request", cpu)]
        bars("performance-checks.svg", "Postern against a bare tonic service with a constant answer", panels)
    if grpc and grpc.get("streams"):
        panels = []
        for transport, name in TRANSPORTS.items():
            rows = [
                (row["way"], row["decisionsPerSecond"], whole(row["decisionsPerSecond"]), True, None)
                for row in grpc["streams"]
                if row["transport"] == transport
            ]
            rows[1:1] = [
                (f"BatchCheck of {row['items']}", row["decisionsPerSecond"], whole(row["decisionsPerSecond"]), True, None)
                for row in grpc.get("batches", [])
                if row["transport"] == transport
            ]
            panels.append((f"decisions a second over {name}", rows))
        bars("performance-ways.svg", "Decisions a second by the way of asking", panels)
    sizes = (result("growth-sizes") or {}).get("sizes")
    report = {row["assignments"]: row for row in result("growth-report") or []}
    if sizes and all(row["assignments"] in report for row in sizes):
        of = [report[row["assignments"]] for row in sizes]
        panels = [
            ("compile", [row["compileMillis"] for row in sizes], millis),
            ("bundle", [row["bundleBytes"] for row in sizes], size),
            ("bundle, bytes an assignment", [row["bundleBytesPerAssignment"] for row in sizes], lambda value: f"{value:.0f}"),
            ("exec to first answered Check", [row["answeredMillis"] for row in sizes], millis),
            ("from strings, median", [row["from_strings"]["median_ns"] for row in of], nanos),
            ("checks a second of a sidecar", [row["load"]["checksPerSecond"] for row in sizes], whole),
        ]
        curves("performance-growth.svg", "What grows with the policy", [row["assignments"] for row in sizes], panels)
    if rows := peers():
        bars("performance-peers.svg", "Others that answer the same questions", peers_panels(rows))


def peers_panels(rows):
    """One for each size and kind of figure."""

    def ours(row):
        return row["name"].lower().startswith("postern")

    panels = []
    for count in sorted({row.get("assignments", 0) for row in rows}):
        of = f", {count:,} role assignments" if count else ""
        here = [row for row in rows if row.get("assignments", 0) == count]
        alone = [
            (row["name"], row["medianNanos"], nanos(row["medianNanos"]), ours(row), None) for row in here if "medianNanos" in row
        ]
        rate = [
            (row["name"], row["requestsPerSecond"], whole(row["requestsPerSecond"]), ours(row), None)
            for row in here
            if "requestsPerSecond" in row
        ]
        late = [
            (row["name"], row["p50Micros"], f"{row['p50Micros']:.0f} / {row['p99Micros']:.0f} µs", ours(row), row["p99Micros"])
            for row in here
            if "p50Micros" in row and "p99Micros" in row
        ]
        named = [("a decision in process, median", alone), ("requests a second", rate), ("latency, p50 and p99", late)]
        panels += [(f"{head}{of}", found) for head, found in named if found]
    return panels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    options = commands.add_parser("short", help="every goal, and pass or falls short")
    options.add_argument("--strict", action="store_true", help="end with 1 if anything falls short")
    options.add_argument("--requests", type=int, default=10_000_000, help="questions of the test of growth (10000000)")
    options.set_defaults(run=short)
    options = commands.add_parser("verdict", help="the table of `short` again, from what was kept")
    options.add_argument("--strict", action="store_true", help="end with 1 if anything falls short")
    options.set_defaults(run=lambda options: verdict(options.strict))
    commands.add_parser("growth", help="1,000 to 1,000,000 role assignments").set_defaults(run=growth)
    commands.add_parser("publications", help="starts, activations, a fleet").set_defaults(run=publications)
    options = commands.add_parser("table", help="Markdown from what was kept")
    options.add_argument("--write", action="store_true", help="into docs/performance.md, in place")
    options.set_defaults(run=table)
    commands.add_parser("plots", help="pictures from what was kept").set_defaults(run=plots)
    options = parser.parse_args()
    sys.exit(options.run(options))


if __name__ == "__main__":
    main()
