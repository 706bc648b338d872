"""Sends decisions of the example tenant to a real tracing backend and looks at what arrived.

    scripts/observe.sh                 run the sidecar, a caller with spans of its own and the Jaeger UI; check the traces
    scripts/observe.sh --pictures      the same, and renew the pictures of docs/pictures (needs chromium)

Started by observe.sh, which brings the tools. The questions are cases of tests/cases/contoso.jsonl.
"""

import argparse
import base64
import io
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
import grpc_tools
import websocket
from grpc_tools import protoc
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT / "tests/cases/contoso.jsonl"


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

    steps = next(c for c in plain if c.get("agent") and c.get("steps"))
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


class Browser:
    """Chromium without a window, by its debugging protocol."""

    def __init__(self, profile, width, height):
        port = free_port()
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--remote-debugging-port={port}"]
        command += ["--remote-allow-origins=*", "about:blank"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        pages = wait("the browser", lambda: [p for p in get(f"http://127.0.0.1:{port}/json") if p["type"] == "page"])
        self.socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=30)
        self.calls = 0
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def call(self, method, **parameters):
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.calls:
            pass
        return answer.get("result", {})

    def evaluate(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {}).get("value")

    def open(self, url, ready):
        self.call("Page.navigate", url=url)
        wait(ready, lambda: self.evaluate(ready))

    def shot(self, path, width, height):
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        image = self.call("Page.captureScreenshot", format="png", clip=clip)["data"]
        # Few colours: a picture of text stays sharp and small.
        with Image.open(io.BytesIO(base64.b64decode(image))) as picture:
            picture.convert("RGB").quantize(48).save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def pictures(ui, traces):
    folder = ROOT / "docs/pictures"
    folder.mkdir(parents=True, exist_ok=True)
    base = f"http://127.0.0.1:{ui}"
    rows = "document.querySelectorAll('.span-row .span-name, .span-row .span-view')"
    # The last span is the sidecar's; its tags open by a click on its bar, and then by one on their heading.
    bar = "[...document.querySelectorAll('.span-row')].at(-1).querySelector('.span-view')"
    heading = "[...document.querySelectorAll('.AccordianKeyValues--header, .AccordionAttributes--header')][0]"
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile, 1280, 1400)
        try:
            browser.open(f"{base}/search?service=payments-api&limit=20&lookback=1h", "document.body.innerText.includes('Traces')")
            wait("five results", lambda: browser.evaluate("document.querySelectorAll('.ResultItemTitle, [class*=ResultItemTitle]').length >= 5"))
            browser.shot(folder / "search.png", 1280, 860)
            for name in ("denied", "agent", "batch"):
                browser.open(f"{base}/trace/{traces[name][0]}", f"{rows}.length >= 3")
                browser.evaluate(f"{bar}.click()")
                wait("the details of the span", lambda: browser.evaluate(f"!!{heading}"))
                browser.evaluate(f"{heading}.click()")
                time.sleep(1)
                browser.shot(folder / f"{name}.png", 1280, 760 if name == "batch" else 1180)
        finally:
            browser.process.terminate()
            browser.process.wait()


if __name__ == "__main__":
    main()
