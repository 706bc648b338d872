"""Sends decisions of the example tenant to a real tracing backend and looks at what arrived.

    scripts/observe.sh                 run the sidecar, a caller with spans of its own and the Jaeger UI; check the traces
    scripts/observe.sh --pictures      the same, and renew the pictures of docs/pictures (needs chromium)

Started by observe.sh, which brings the tools. The questions are cases of tests/cases/contoso.jsonl.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
from google.protobuf import descriptor_pb2  # noqa: F401  (the generated modules need it loaded)
from grpc_tools import protoc
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT / "tests/cases/contoso.jsonl"
STEPS = 'agent writes only after an approval'


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def wait(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"waited in vain for {what}")


def contract(folder):
    """The messages of proto/, compiled."""
    proto = ROOT / "proto"
    wanted = ["grpc_tools.protoc", f"-I{proto}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    import grpc_tools

    wanted.insert(1, f"-I{pathlib.Path(grpc_tools.__file__).parent / '_proto'}")
    if protoc.main([*wanted, "postern/v1/authorization.proto"]):
        sys.exit("the contract does not compile")
    sys.path.insert(0, folder)
    from postern.v1 import authorization_pb2, authorization_pb2_grpc

    return authorization_pb2, authorization_pb2_grpc


def cases():
    found = [json.loads(line) for line in CASES.read_text().splitlines()]
    plain = [case for case in found if not case.get("attributes") and not case.get("now")]

    def first(**wanted):
        return next(c for c in plain if all(c.get(k) == v for k, v in wanted.items()) and not c.get("sub_operation"))

    steps = next(c for c in plain if any(s == "approval_prompt next" for s in c.get("steps", [])))
    return {
        "allowed": next(c for c in plain if c["decision"] == "Allowed" and c["data_action"] and not c.get("agent")),
        "denied": first(decision="Denied"),
        "not allowed": first(decision="NotAllowed"),
        "agent": steps,
    }, [c for c in plain if not c.get("agent") and not c["groups"]]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--postern", required=True)
    options.add_argument("--viewer", required=True)
    options.add_argument("--pictures", action="store_true")
    options = options.parse_args()

    scratch = tempfile.mkdtemp()
    pb, rpc = contract(scratch)
    otlp, ui, port, admin = (free_port() for _ in range(4))
    children = [subprocess.Popen([options.viewer, f"127.0.0.1:{otlp}", f"127.0.0.1:{ui}"])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "POSTERN_"))}
    environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    arguments = ["serve", "--policy", str(ROOT / "examples/contoso"), "--tcp", f"127.0.0.1:{port}", "--admin"]
    arguments += [f"127.0.0.1:{admin}", "--log-level", "warn", "--trace-keep", "denied,undecided,agent-steps"]
    try:
        wait("the tracing backend", lambda: socket.create_connection(("127.0.0.1", otlp)))
        children.append(subprocess.Popen([options.postern, *arguments], env=environment))
        wait("the sidecar", lambda: urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz").status == 200)
        traces = ask(pb, rpc, port, otlp)
        looked_at(ui, traces)
        if options.pictures:
            pictures(ui, traces)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        shutil.rmtree(scratch)


def ask(pb, rpc, port, otlp):
    """Asks as a workload does, from within spans of its own; the trace of each question."""
    provider = TracerProvider(resource=Resource({"service.name": "payments-api"}))
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{otlp}", insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("observe")
    stub = rpc.AuthorizationServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
    chosen, plain = cases()

    def subject(case):
        return pb.Subject(principal_id=case["principal"], group_ids=case["groups"])

    def action(case):
        return pb.Action(name=case["action"], data_action=case["data_action"])

    def resource(case):
        return pb.Resource(scope=case["scope"])

    def metadata():
        carrier = {}
        propagate.inject(carrier)
        return list(carrier.items())

    found = {}
    for name, case in chosen.items():
        with tracer.start_as_current_span(f"{name}: POST /payments", kind=SpanKind.SERVER) as outer:
            with tracer.start_as_current_span("authorize", kind=SpanKind.CLIENT):
                request = pb.CheckRequest(subject=subject(case), action=action(case), resource=resource(case), request_id=name)
                if agent := case.get("agent"):
                    request.agent.on_behalf_of.principal_id = agent["user"]
                answer = stub.Check(request, metadata=metadata())
            decision = pb.Decision.Name(answer.result.decision)
            assert decision.removeprefix("DECISION_").replace("_", "").lower() == case["decision"].lower(), (name, decision)
            time.sleep(0.001)
        found[name] = (outer.get_span_context().trace_id, case)
    with tracer.start_as_current_span("nightly report", kind=SpanKind.SERVER) as outer:
        with tracer.start_as_current_span("authorize everything", kind=SpanKind.CLIENT):
            items = [pb.BatchCheckItem(subject=subject(case), action=action(case), resource=resource(case)) for case in plain[:12]]
            stub.BatchCheck(pb.BatchCheckRequest(items=items, request_id="batch"), metadata=metadata())
    found["batch"] = (outer.get_span_context().trace_id, None)
    provider.shutdown()
    return {name: (f"{trace_id:032x}", case) for name, (trace_id, case) in found.items()}


def looked_at(ui, traces):
    """What the backend has of each trace."""
    for name, (trace_id, case) in traces.items():

        def whole():
            data = get(f"http://127.0.0.1:{ui}/api/traces/{trace_id}").get("data") or [{}]
            spans = data[0].get("spans", [])
            return spans if len(spans) == 3 else None

        spans = wait(f"three spans of `{name}`", whole)
        sidecar = next(span for span in spans if "AuthorizationService" in span["operationName"])
        caller = next(span for span in spans if span["operationName"].startswith("authorize"))
        assert sidecar["references"][0]["spanID"] == caller["spanID"], "the sidecar's span hangs below the caller's"
        tags = {tag["key"]: tag["value"] for tag in sidecar["tags"]}
        if case:
            assert tags["postern.decision"] == case["decision"], (name, tags)
            assert tags["postern.scope"] == case["scope"] and tags["postern.action"] == case["action"], (name, tags)
            if case["deny"]:
                assert case["deny"] in tags["postern.deny_assignment.id"], tags
            if case["assignment"]:
                assert case["assignment"] in tags["postern.role_assignment.id"], tags
            assert re.fullmatch("sha256:[0-9a-f]{64}", tags["postern.policy.digest"]), tags
        else:
            assert len(sidecar["logs"]) == 12, sidecar["logs"]
        print(f"{name}: {trace_id}: {tags.get('postern.decision', 'batch')} {tags.get('postern.reason_code', '')}")


def pictures(ui, traces):
    from PIL import Image

    folder = ROOT / "docs/pictures"
    folder.mkdir(parents=True, exist_ok=True)
    base = f"http://127.0.0.1:{ui}"
    shots = {
        "search": (f"{base}/search?service=payments-api&limit=20&lookback=1h", (1280, 860)),
        "denied": (f"{base}/trace/{traces['denied'][0]}?uiFind=postern.decision", (1280, 860)),
        "agent": (f"{base}/trace/{traces['agent'][0]}?uiFind=postern.decision", (1280, 860)),
        "batch": (f"{base}/trace/{traces['batch'][0]}?uiFind=postern.batch", (1280, 860)),
    }
    for name, (url, (width, height)) in shots.items():
        with tempfile.TemporaryDirectory() as scratch:
            shot = pathlib.Path(scratch) / "shot.png"
            command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
            command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
            command += [f"--user-data-dir={scratch}/profile", f"--window-size={width},{height}"]
            command += ["--virtual-time-budget=10000" if name == "search" else "--timeout=9000"]
            subprocess.run([*command, f"--screenshot={shot}", url], check=True, capture_output=True, timeout=120)
            # Few colours: a picture of text stays sharp and small.
            Image.open(shot).convert("RGB").quantize(64).save(folder / f"{name}.png", optimize=True)
            print(f"docs/pictures/{name}.png: {(folder / f'{name}.png').stat().st_size} bytes")


if __name__ == "__main__":
    main()
