"""The tests of the charts; scripts/charts.sh runs them with the tools that they need.

Every case in cases/CHART/ is rendered by Helm 4 and Helm 3, for several versions of Kubernetes: the result is compared
with golden/, validated against the schemas of these versions, and held to what must be true of every pod. UPDATE=1
writes golden/ anew.
"""

import base64
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import celpy
import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/charts"
sys.path.insert(0, str(ROOT / "scripts"))
docs = __import__("chart-docs")

CHARTS = {"postern": ROOT / "charts/postern", "k8s-app": ROOT / "examples/k8s-app"}
LIBRARY = ROOT / "charts/postern-sidecar"
CASES = [(chart, path.stem) for chart in CHARTS for path in sorted((HERE / "cases" / chart).glob("*.yaml"))]
HELMS = ["4", "3"]
# The oldest that the charts take, the newest, and some between.
KUBERNETES = ["1.29", "1.31", "1.33", "1.35", "1.36", "1.37"]
NAMESPACE = "postern-system"
BINARY = os.environ.get("POSTERN_BIN")
IMAGE = os.environ.get("POSTERN_IMAGE")

# Flags of `postern serve` that the charts do not offer, each with the reason.
NOT_OFFERED = {
    "tls-cert": "a sidecar is asked over its socket, and over TCP on loopback alone",
    "tls-key": "as tls-cert",
    "tls-client-ca": "as tls-cert",
    "tls-allow-spiffe": "as tls-cert",
    "config": "every setting is a value of its own; a file would be a second place for the same",
}

# What Helm generates anew each time.
GENERATED = re.compile(r"(?m)^( *(?:ca\.crt|tls\.crt|tls\.key|caBundle|postern\.dev/renew-at): )(?!.*TUlJQgo).*$")


def helm(major, *arguments, check=True):
    done = subprocess.run(
        [ROOT / f".tools/helm{major}/helm", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )
    if check and done.returncode:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}\n{done.stderr}")
    return done


def case_file(chart, case):
    return HERE / "cases" / chart / f"{case}.yaml"


@functools.cache
def render(chart, case, major="4", kubernetes="1.37"):
    done = helm(
        major, "template", "test", CHARTS[chart], "--namespace", NAMESPACE,
        "--kube-version", f"{kubernetes}.0", "--values", case_file(chart, case),
    )  # fmt: skip
    return done.stdout


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def golden_text(text):
    """Without what is made anew each time, and without blank lines, which Helm 3 and 4 set differently."""
    text = GENERATED.sub(r"\1GENERATED", text)
    # Files that have tests of their own.
    text = re.sub(r"(?m)^(  (?!injector)[-\w]+\.json: )\|\n(?:    .*\n|\n)+", r"\1FILE\n", text)
    text = re.sub(r"(?m)(^kind: PrometheusRule\n(?:.+\n)*?spec:\n)(?:  .*\n|\n)+", r"\1  FILE\n", text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def by_identity(text):
    found = {}
    for document in documents(GENERATED.sub(r"\1GENERATED", text)):
        key = (document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"])
        assert key not in found, f"{key} is rendered twice"
        found[key] = document
    return found


def pods(document):
    """The pods that an object makes."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Pod":
        return [document]
    if kind in ("Deployment", "Job"):
        return [spec["template"]]
    if kind == "CronJob":
        return [spec["jobTemplate"]["spec"]["template"]]
    return []


def injector_config(rendered):
    for document in rendered:
        if document["kind"] == "ConfigMap" and "injector.json" in document["data"]:
            return json.loads(document["data"]["injector.json"])
    return None


def flag(container, name):
    for argument in container["args"]:
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([a-z]*)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "": 1}[unit]


def amount(text):
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", text).groups()
    powers = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    return int(number) * powers[unit]


def sidecars(rendered):
    """Every sidecar: those in pods, with their pod, and those that would be injected."""
    for document in rendered:
        for pod in pods(document):
            for container in pod["spec"].get("initContainers", []):
                if container["name"] == "postern":
                    yield container, pod["spec"]["volumes"], pod
    config = injector_config(rendered)
    for profile in (config or {"profiles": {}})["profiles"].values():
        yield profile["container"], profile["volumes"], None


def merge(below, above):
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merge(below.get(key), value) for key, value in above.items()}
    return above


class Rendering(unittest.TestCase):
    maxDiff = None

    def each(self):
        for chart, case in CASES:
            with self.subTest(chart=chart, case=case):
                yield chart, case, documents(render(chart, case))

    def test_lint(self):
        for major in HELMS:
            for path in [*CHARTS.values(), LIBRARY]:
                helm(major, "lint", "--strict", path)
            for chart, case in CASES:
                with self.subTest(helm=major, chart=chart, case=case):
                    helm(major, "lint", "--strict", CHARTS[chart], "--values", case_file(chart, case))

    def test_golden(self):
        wanted = set()
        for chart, case in CASES:
            path = HERE / "golden" / chart / f"{case}.yaml"
            wanted.add(path)
            text = golden_text(render(chart, case))
            if os.environ.get("UPDATE"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            with self.subTest(chart=chart, case=case):
                self.assertTrue(path.exists(), f"{path} is missing; run UPDATE=1 scripts/charts.sh")
                self.assertEqual(path.read_text(), text, "run UPDATE=1 scripts/charts.sh if it is meant to differ")
        for path in (HERE / "golden").rglob("*.yaml"):
            if os.environ.get("UPDATE") and path not in wanted:
                path.unlink()
            elif path not in wanted:
                self.fail(f"{path} belongs to no case")

    def test_helm_3_and_4_and_every_kubernetes_render_the_same(self):
        for chart, case in CASES:
            wanted = by_identity(render(chart, case))
            for major in HELMS:
                for kubernetes in KUBERNETES:
                    with self.subTest(chart=chart, case=case, helm=major, kubernetes=kubernetes):
                        self.assertEqual(by_identity(render(chart, case, major, kubernetes)), wanted)

    def test_schemas_of_kubernetes(self):
        own = {path.stem: json.loads(path.read_text()) for path in (HERE / "schemas").glob("*.json")}
        for chart, case, rendered in self.each():
            for document in rendered:
                group = document["apiVersion"].split("/")[0]
                if group in ("cert-manager.io", "monitoring.coreos.com"):
                    jsonschema.validate(document, own[document["kind"]])
                    continue
                for kubernetes in KUBERNETES:
                    kubernetes_validate.validate(document, kubernetes, strict=True)
            # What is injected is no object of its own: in a pod it is.
            for container, volumes, pod in sidecars(rendered):
                if pod is None:
                    pod = {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {"name": "pod"},
                        "spec": {"containers": [{"name": "app"}], "initContainers": [container], "volumes": volumes},
                    }
                    for kubernetes in KUBERNETES:
                        kubernetes_validate.validate(pod, kubernetes, strict=True)

    def test_a_schema_refuses_what_is_wrong(self):
        # The two checks above would pass if the validators took everything.
        [pod, _] = [d for d in documents(render("postern", "published")) if d["kind"] == "Pod"]
        for wrong in ({"resetPolicy": "Always"}, {"terminationGracePeriodSeconds": "soon"}):
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(merge(pod, {"spec": wrong}), "1.33", strict=True)

    def test_every_pod_keeps_to_restricted_pod_security(self):
        for chart, case, rendered in self.each():
            for document in rendered:
                for pod in pods(document):
                    self.restricted(pod, host_path=case == "shared-on-the-node")
            for container, _, _ in sidecars(rendered):
                self.restricted_container(container)
                self.assertEqual(container["restartPolicy"], "Always")

    def restricted(self, pod, host_path):
        spec = pod["spec"]
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            self.assertNotIn(key, spec)
        self.assertTrue(spec["securityContext"]["runAsNonRoot"])
        self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        allowed = {"emptyDir", "configMap", "secret", "downwardAPI", "persistentVolumeClaim", "projected"}
        for volume in spec["volumes"]:
            kinds = set(volume) - {"name"}
            self.assertEqual(len(kinds), 1, volume)
            self.assertTrue(kinds <= allowed | ({"hostPath"} if host_path else set()), volume)
        names = [volume["name"] for volume in spec["volumes"]]
        self.assertEqual(len(names), len(set(names)), "volumes have names of their own")
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            self.restricted_container(container)
            for mount in container["volumeMounts"]:
                if mount["name"] not in ("gcp", "next-policy"):
                    self.assertIn(mount["name"], names)

    def restricted_container(self, container):
        context = container["securityContext"]
        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
        self.assertFalse(context["allowPrivilegeEscalation"])
        self.assertTrue(context["readOnlyRootFilesystem"])
        self.assertGreater(context["runAsUser"], 0)
        resources = container["resources"]
        self.assertEqual(set(resources["requests"]), {"cpu", "memory"})
        self.assertEqual(set(resources["limits"]), {"memory"}, "a CPU limit throttles")

    def test_tokens_only_where_asked_for(self):
        for chart, case, rendered in self.each():
            for document in rendered:
                if document["kind"] == "ServiceAccount":
                    self.assertIs(document["automountServiceAccountToken"], False)
                for pod in pods(document):
                    self.assertIs(pod["spec"]["automountServiceAccountToken"], case == "deployment")
            for container, _, _ in sidecars(rendered):
                masked = any("serviceaccount" in mount["mountPath"] for mount in container["volumeMounts"])
                self.assertIs(masked, case != "deployment")

    def test_memory_and_disk_hold_two_bundles(self):
        for _, case, rendered in self.each():
            for container, volumes, _ in sidecars(rendered):
                bundle, cache = (amount(flag(container, f)) for f in ("max-bundle-bytes", "cache-max-bytes"))
                bundles = 3 if flag(container, "candidate") else 2
                if flag(container, "records"):
                    cache += amount(flag(container, "records-queue-bytes"))
                resources = container["resources"]
                if case != "shared-on-the-node":
                    self.assertGreaterEqual(amount(resources["limits"]["memory"]), bundles * bundle + cache + (32 << 20))
                if case != "deployment":
                    self.assertGreaterEqual(amount(resources["requests"]["memory"]), bundle + cache + (32 << 20))
                for volume in volumes:
                    if volume["name"] == "postern-state" and "emptyDir" in volume:
                        self.assertGreater(amount(volume["emptyDir"]["sizeLimit"]), 2 * bundle)
                        self.assertNotIn("medium", volume["emptyDir"])
                    if volume["name"] == "postern-records":
                        files = int(flag(container, "records-max-files")) * amount(flag(container, "records-max-bytes"))
                        self.assertGreater(amount(volume["emptyDir"]["sizeLimit"]), files)
        # The figures of the comment in values.yaml.
        [container] = [c for c, _, pod in sidecars(documents(render("postern", "published"))) if pod is None]
        self.assertEqual(
            (container["resources"]["limits"]["memory"], container["resources"]["requests"]["memory"]),
            ("224Mi", "160Mi"),
        )

    def test_the_grace_period_holds_the_drain(self):
        for chart, case, rendered in self.each():
            values = merge(
                yaml.safe_load((LIBRARY / "values.yaml").read_text()),
                yaml.safe_load(case_file(chart, case).read_text()).get("postern", {}),
            )
            for container, _, pod in sidecars(rendered):
                drain = sum(seconds(flag(container, f)) for f in ("drain-delay", "drain-grace"))
                if pod is None:
                    continue
                grace = pod["spec"]["terminationGracePeriodSeconds"]
                # After the drain, records and telemetry have three seconds each.
                if chart == "k8s-app":
                    self.assertGreaterEqual(grace, values["drain"]["applicationSeconds"] + drain + 6)
                else:
                    self.assertGreaterEqual(grace, drain + 6)
            config = injector_config(rendered)
            for profile in (config or {"profiles": {}})["profiles"].values():
                drain = sum(seconds(flag(profile["container"], f)) for f in ("drain-delay", "drain-grace"))
                self.assertGreaterEqual(profile["drainSeconds"], drain + 6)
            for document in rendered:
                if document["kind"] == "Deployment" and chart == "postern":
                    [container] = document["spec"]["template"]["spec"]["containers"]
                    drain = sum(seconds(flag(container, f)) for f in ("drain-delay", "drain-grace"))
                    grace = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                    self.assertGreater(grace, drain)

    def test_policy_first_application_after(self):
        for _, _, rendered in self.each():
            for container, _, pod in sidecars(rendered):
                self.assertEqual(container["startupProbe"]["httpGet"]["path"], "/readyz")
                self.assertEqual(container["readinessProbe"]["httpGet"]["path"], "/readyz")
                self.assertEqual(container["livenessProbe"]["httpGet"]["path"], "/livez")
                [port] = container["ports"]
                self.assertTrue(flag(container, "admin").endswith(f":{port['containerPort']}"))
                if pod:
                    self.assertEqual(pod["spec"]["initContainers"][0], container)

    def test_the_socket_is_shared(self):
        for _, _, rendered in self.each():
            for container, volumes, pod in sidecars(rendered):
                [volume] = [volume for volume in volumes if volume["name"] == "postern-socket"]
                self.assertEqual(volume["emptyDir"]["medium"], "Memory")
                [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "postern-socket"]
                path = flag(container, "uds")
                self.assertEqual(str(pathlib.PurePosixPath(path).parent), mount["mountPath"])
                if pod:
                    [application] = pod["spec"]["containers"]
                    groups = pod["spec"]["securityContext"]["supplementalGroups"]
                    env = {variable["name"]: variable.get("value") for variable in application["env"]}
                    [theirs] = [m for m in application["volumeMounts"] if m["name"] == "postern-socket"]
                    self.assertEqual(groups, [container["securityContext"]["runAsGroup"]])
                    self.assertEqual(env["POSTERN_CONNECT"], f"unix://{path}")
                    self.assertEqual(theirs, mount | {"readOnly": True})

    def test_what_is_injected_is_what_a_chart_includes(self):
        compared = 0
        for chart, _, rendered in self.each():
            config = injector_config(rendered)
            tests = [d for d in rendered if d["kind"] == "Pod" and "initContainers" in d["spec"]]
            if config is None or not tests:
                continue
            [pod] = tests
            default = config["profiles"]["default"]
            self.assertEqual(pod["spec"]["initContainers"], [default["container"]])
            self.assertEqual(pod["spec"]["volumes"], default["volumes"])
            self.assertEqual(pod["spec"]["containers"][0]["env"], default["applicationEnv"])
            self.assertEqual(pod["spec"]["containers"][0]["volumeMounts"], default["applicationVolumeMounts"])
            self.assertLessEqual(default["podSecurityContext"].items(), pod["spec"]["securityContext"].items())
            self.assertLessEqual(default.get("podAnnotations", {}).items(), pod["metadata"]["annotations"].items())
            self.assertEqual(pod["spec"]["terminationGracePeriodSeconds"], default["drainSeconds"])
            compared += 1
        self.assertGreater(compared, 1)

    def test_off_until_asked_for(self):
        kinds = sorted(document["kind"] for document in documents(render("postern", "published")))
        self.assertEqual(
            kinds,
            ["ConfigMap", "Deployment", "MutatingWebhookConfiguration", "Pod", "Pod", "Secret", "Service", "ServiceAccount"],
        )
        everything = {document["kind"] for document in documents(render("postern", "everything"))}
        self.assertLessEqual(
            {"PrometheusRule", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "ServiceMonitor", "CronJob", "Job", "Role",
             "RoleBinding", "Certificate", "Issuer"},
            everything,
        )  # fmt: skip

    def test_dashboards_are_whatever_is_there(self):
        with tempfile.TemporaryDirectory() as work:
            chart = pathlib.Path(work) / "postern"
            shutil.copytree(CHARTS["postern"], chart)
            (chart / "dashboards/DecisionsByReason.json").write_text('{"title": "{{ not a template }}", "panels": []}\n')
            there = {path.name for path in (chart / "dashboards").glob("*.json")}
            self.assertGreater(len(there), 3, "those of the project, and one more")
            for major in HELMS:
                text = helm(major, "template", "test", chart, "--values", case_file("postern", "everything")).stdout
                found = {}
                for document in documents(text):
                    if document["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
                        self.assertEqual(document["metadata"]["annotations"], {"grafana_folder": "Postern"})
                        found |= document["data"]
                        kubernetes_validate.validate(document, "1.33", strict=True)
                self.assertEqual(set(found), there)
                for name in there:
                    self.assertEqual(json.loads(found[name]), json.loads((chart / "dashboards" / name).read_text()))
                [rule] = [document for document in documents(text) if document["kind"] == "PrometheusRule"]
                self.assertEqual(rule["spec"], yaml.safe_load((ROOT / "dashboards/alerts.yaml").read_text()))
                self.assertEqual(json.loads(found["DecisionsByReason.json"])["title"], "{{ not a template }}")


def docker(*arguments, check=True):
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(map(str, arguments))}\n{done.stderr}")
    return done


@unittest.skipUnless(IMAGE, "POSTERN_IMAGE names no image")
class Containers(unittest.TestCase):
    """The example's pod as containers of the real image: users, groups, limits and mounts are those that are rendered."""

    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)
        self.work.chmod(0o755)
        self.tag = f"postern-charts-{os.getpid()}"

    def options(self, pod, container):
        """What the container's and the pod's security and mounts are for Docker."""
        context, resources = container["securityContext"], container["resources"]
        self.assertTrue(context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"])
        memory = str(amount(resources["limits"]["memory"]))
        user = str(context["runAsUser"])
        if "runAsGroup" in context:
            user += f":{context['runAsGroup']}"
        options = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={user}",
                   f"--memory={memory}", f"--memory-swap={memory}"]  # fmt: skip
        options += [f"--group-add={group}" for group in pod["spec"]["securityContext"]["supplementalGroups"]]
        options += [f"--env={v['name']}={v['value']}" for v in container.get("env", [])]
        for mount in container["volumeMounts"]:
            options.append(f"--volume={self.volumes[mount['name']]}:{mount['mountPath']}{':ro' * mount.get('readOnly', False)}")
        return options

    def test_the_example(self):
        rendered = documents(render("k8s-app", "job"))
        [policy] = [d for d in rendered if d["kind"] == "ConfigMap"]
        [pod] = [pod for d in rendered for pod in pods(d)]
        [sidecar], [client] = pod["spec"]["initContainers"], pod["spec"]["containers"]
        self.volumes = {}
        for volume in pod["spec"]["volumes"]:
            name = volume["name"]
            if "emptyDir" in volume:
                self.assertEqual(volume["emptyDir"]["medium"], "Memory")
                size = amount(volume["emptyDir"]["sizeLimit"])
                self.volumes[name] = f"{self.tag}-{name}"
                docker("volume", "create", "--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs",
                       f"--opt=o=size={size},mode=0777", self.volumes[name])  # fmt: skip
                self.addCleanup(docker, "volume", "rm", "--force", self.volumes[name], check=False)
            else:
                self.volumes[name] = self.work / name
                (self.work / name).mkdir()
                for file, text in policy["data"].items():
                    (self.work / name / file).write_text(text)

        name = f"{self.tag}-sidecar"
        self.addCleanup(docker, "rm", "--force", name, check=False)
        docker("run", "--detach", f"--name={name}", "--network=none", *self.options(pod, sidecar), IMAGE, *sidecar["args"])

        def run(container, arguments, options=()):
            return docker("run", "--rm", f"--network=container:{name}", *self.options(pod, container), *options, IMAGE,
                          *arguments, check=False)  # fmt: skip

        # A native sidecar's startup probe; there is no shell to ask /readyz with.
        for _ in range(100):
            if run(client, ["status", "--json"]).returncode == 0:
                break
            time.sleep(0.1)
        else:
            self.fail(docker("logs", name).stderr)
        answer = run(client, client["args"])
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertEqual(json.loads(answer.stdout)["decision"], "Allowed")
        # Without the group there is no answer.
        pod["spec"]["securityContext"]["supplementalGroups"] = []
        self.assertEqual(run(client, client["args"]).returncode, 1)
        docker("stop", f"--time={pod['spec']['terminationGracePeriodSeconds']}", name)
        state = json.loads(docker("inspect", name).stdout)[0]["State"]
        self.assertEqual((state["ExitCode"], state["OOMKilled"]), (0, False), docker("logs", name).stderr)


class Webhook(unittest.TestCase):
    def webhooks(self, case="published"):
        [found] = [d for d in documents(render("postern", case)) if d["kind"] == "MutatingWebhookConfiguration"]
        return found["webhooks"]

    def sent_by(self, namespace, labels, pod, case="published"):
        """Names of the webhooks that the API server would send a pod to."""
        labels = {"kubernetes.io/metadata.name": namespace} | labels
        sent = []
        for webhook in self.webhooks(case):
            if not all(self.matches(e, labels) for e in webhook["namespaceSelector"]["matchExpressions"]):
                continue
            environment = celpy.Environment()
            holds = True
            for condition in webhook["matchConditions"]:
                program = environment.program(environment.compile(condition["expression"]))
                holds &= bool(program.evaluate({"object": celpy.json_to_cel({"metadata": pod})}))
            if holds:
                sent.append(webhook["name"].split(".")[0])
        return sent

    @staticmethod
    def matches(expression, labels):
        value = labels.get(expression["key"])
        return {"In": value in expression.get("values", []), "NotIn": value not in expression.get("values", [])}[
            expression["operator"]
        ]

    def test_who_is_sent(self):
        key = "postern.dev/inject"
        nothing, other = {}, {"labels": {"app": "a"}, "annotations": {"b": "c"}}
        label = lambda word: {"labels": {key: word}}  # noqa: E731
        note = lambda word: {"annotations": {key: word}}  # noqa: E731
        both = lambda a, b: label(a) | note(b)  # noqa: E731
        asks = {key: "true"}
        for namespace, labels, pod, wanted in [
            ("shop", {}, nothing, []),
            ("shop", {}, other, []),
            ("shop", {}, label("true"), ["pods"]),
            ("shop", {}, note("true"), ["pods"]),
            ("shop", {}, label("false"), []),
            ("shop", {}, note("false"), []),
            # Misspelt, or at odds with itself: the injector says so.
            ("shop", {}, note("ture"), ["pods"]),
            ("shop", {}, both("false", "true"), ["pods"]),
            ("shop", {key: "false"}, label("true"), ["pods"]),
            ("shop", asks, nothing, ["namespaces"]),
            ("shop", asks, other, ["namespaces"]),
            ("shop", asks, label("true"), ["namespaces"]),
            ("shop", asks, label("false"), []),
            ("shop", asks, note("false"), []),
            ("shop", asks, both("true", "false"), ["namespaces"]),
            # Never the system's, nor its own, whatever is asked.
            ("kube-system", asks, label("true"), []),
            ("kube-public", asks, nothing, []),
            ("kube-node-lease", {}, label("true"), []),
            (NAMESPACE, asks, label("true"), []),
            (NAMESPACE, {}, note("true"), []),
        ]:
            with self.subTest(namespace=namespace, labels=labels, pod=pod):
                self.assertEqual(self.sent_by(namespace, labels, pod), wanted)

    def test_its_own_pods_are_never_sent(self):
        for chart, case in CASES:
            rendered = documents(render(chart, case))
            if not any(d["kind"] == "MutatingWebhookConfiguration" for d in rendered):
                continue
            for webhook in self.webhooks(case):
                [own] = [
                    e for e in webhook["namespaceSelector"]["matchExpressions"]
                    if e["key"] == "kubernetes.io/metadata.name"
                ]  # fmt: skip
                self.assertLessEqual({NAMESPACE, "kube-system"}, set(own["values"]))
                self.assertEqual(webhook["sideEffects"], "None")
                self.assertEqual(webhook["rules"][0]["resources"], ["pods"])

    def test_a_generated_certificate_is_believed(self):
        for major in HELMS:
            rendered = documents(render("postern", "published", major))
            [secret] = [d for d in rendered if d["kind"] == "Secret"]
            decoded = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
            [service] = [d for d in rendered if d["kind"] == "Service"]
            [webhooks] = [d["webhooks"] for d in rendered if d["kind"] == "MutatingWebhookConfiguration"]
            for webhook in webhooks:
                self.assertEqual(base64.b64decode(webhook["clientConfig"]["caBundle"]).decode(), decoded["ca.crt"])
                client = webhook["clientConfig"]["service"]
                self.assertEqual((client["name"], client["namespace"]), (service["metadata"]["name"], NAMESPACE))
                # As the API server does: it verifies the name of the service.
                handshake(decoded, f"{client['name']}.{client['namespace']}.svc")
            with self.assertRaises(ssl.SSLCertVerificationError):
                handshake(decoded, f"{client['name']}.elsewhere.svc")

    def test_an_upgrade_keeps_the_certificate(self):
        now = int(time.time())
        data = {"ca.crt": "S0VQVA==", "tls.crt": "S0VQVA==", "tls.key": "S0VQVA=="}
        for renew_at, host, kept in [
            (now + 86400, f"test-postern-injector.{NAMESPACE}.svc", True),
            (now - 86400, f"test-postern-injector.{NAMESPACE}.svc", False),
            (now + 86400, f"other.{NAMESPACE}.svc", False),
        ]:
            secret = {
                "apiVersion": "v1", "kind": "Secret", "data": data,
                "metadata": {
                    "name": "test-postern-injector-tls", "namespace": NAMESPACE,
                    "labels": {"app.kubernetes.io/managed-by": "Helm"},
                    "annotations": {
                        "postern.dev/host": host, "postern.dev/renew-at": str(renew_at),
                        "meta.helm.sh/release-name": "test", "meta.helm.sh/release-namespace": NAMESPACE,
                    },
                },
            }  # fmt: skip
            with ApiServer({f"/api/v1/namespaces/{NAMESPACE}/secrets/test-postern-injector-tls": secret}) as config:
                for major in HELMS:
                    with self.subTest(kept=kept, host=host, helm=major):
                        text = helm(
                            major, "template", "test", CHARTS["postern"], "--namespace", NAMESPACE, "--dry-run=server",
                            "--disable-openapi-validation", "--kubeconfig", config, "--values", case_file("postern", "published"),
                        ).stdout  # fmt: skip
                        rendered = documents(text)
                        [found] = [d for d in rendered if d["kind"] == "Secret"]
                        self.assertEqual(found["data"] == data, kept)
                        [webhooks] = [d["webhooks"] for d in rendered if d["kind"] == "MutatingWebhookConfiguration"]
                        bundle = base64.b64decode(webhooks[0]["clientConfig"]["caBundle"]).decode()
                        ca = base64.b64decode(found["data"]["ca.crt"]).decode()
                        # Beside a new authority the one before is believed, until the injector has its new certificate.
                        self.assertEqual(bundle, ca if kept else ca + "KEPT")


def handshake(files, host):
    """A TLS server with this certificate, and a client that believes this authority and wants this name."""
    with tempfile.TemporaryDirectory() as work:
        certificate, key = pathlib.Path(work) / "tls.crt", pathlib.Path(work) / "tls.key"
        certificate.write_text(files["tls.crt"])
        key.write_text(files["tls.key"])
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cadata=files["ca.crt"])
        here, there = socket.socketpair()

        def answer():
            try:
                server.wrap_socket(there, server_side=True).close()
            except (ssl.SSLError, OSError):
                there.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            client.wrap_socket(here, server_hostname=host).close()
        finally:
            here.close()
            thread.join()


class ApiServer:
    """As much of the Kubernetes API as Helm asks for before it installs: what kinds there are, and these objects."""

    def __init__(self, objects):
        def resources(version, *kinds):
            return {
                "kind": "APIResourceList",
                "groupVersion": version,
                "resources": [
                    {"name": name, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["get"]}
                    for name, kind, namespaced in kinds
                ],
            }

        groups = {
            "apps": resources("apps/v1", ("deployments", "Deployment", True)),
            "batch": resources("batch/v1", ("jobs", "Job", True), ("cronjobs", "CronJob", True)),
            "networking.k8s.io": resources("networking.k8s.io/v1", ("networkpolicies", "NetworkPolicy", True)),
            "admissionregistration.k8s.io": resources(
                "admissionregistration.k8s.io/v1",
                ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False),
            ),
        }
        versions = {name: {"groupVersion": f"{name}/v1", "version": "v1"} for name in groups}
        self.answers = objects | {
            "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/api/v1": resources(
                "v1", ("secrets", "Secret", True), ("configmaps", "ConfigMap", True), ("services", "Service", True),
                ("serviceaccounts", "ServiceAccount", True), ("pods", "Pod", True),
            ),
            "/apis": {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [
                    {"name": name, "versions": [version], "preferredVersion": version}
                    for name, version in versions.items()
                ],
            },
        }  # fmt: skip
        self.answers |= {f"/apis/{name}/v1": answer for name, answer in groups.items()}

    def __enter__(self):
        import http.server

        answers = self.answers

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer = answers.get(self.path.split("?")[0])
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
                body = json.dumps(answer or status).encode()
                self.send_response(200 if answer else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.work = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.work.name) / "config"
        url = f"http://127.0.0.1:{self.server.server_port}"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": url}}],
                    "users": [{"name": "c", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
                }
            )
        )  # fmt: skip
        return config

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.work.cleanup()


class Refused(unittest.TestCase):
    BASE = {"postern": "published", "k8s-app": "job"}

    def refusal(self, major, chart, values):
        base = yaml.safe_load(case_file(chart, self.BASE[chart]).read_text())
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(merge(base, values), file)
            file.flush()
            done = helm(major, "template", "test", CHARTS[chart], "--values", file.name, check=False)
        self.assertNotEqual(done.returncode, 0, f"helm {major} takes {values}")
        return done.stderr

    def test_wrong_values(self):
        cases = []
        for chart, by in yaml.safe_load((HERE / "refused.yaml").read_text()).items():
            for kind, wrong in by.items():
                cases += [(major, chart, kind, *one) for one in wrong for major in HELMS]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda one: self.refusal(one[0], one[1], one[4]), cases))
        for (major, chart, kind, says, values), message in zip(cases, results):
            with self.subTest(helm=major, chart=chart, values=values):
                by_schema = "values don't meet the specifications of the schema" in message
                self.assertEqual(by_schema, kind == "schema", message)
                self.assertIn(says, message)
        self.assertGreater(len(cases), 200)

    def test_all_problems_at_once(self):
        message = self.refusal("4", "postern", {"refresh": {"enabled": True}, "publish": {"enabled": True}})
        for words in ("refresh.enabled` needs the repository", "refresh.enabled` needs keys",
                      "publish.enabled` needs the repository", "publish.enabled` needs keys",
                      "publish.enabled` needs a policy"):  # fmt: skip
            self.assertIn(words, message)

    def test_old_kubernetes(self):
        for major in HELMS:
            for chart in CHARTS:
                done = helm(
                    major, "template", "test", CHARTS[chart], "--kube-version", "1.28.9",
                    "--values", case_file(chart, self.BASE[chart]), check=False,
                )  # fmt: skip
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(">=1.29.0-0", done.stderr)
                self.assertIn("1.28.9", done.stderr)
            # An application's chart that asks for no version of its own is told by the library.
            with tempfile.TemporaryDirectory() as work:
                chart = pathlib.Path(work) / "app"
                shutil.copytree(CHARTS["k8s-app"], chart)
                file = chart / "Chart.yaml"
                file.write_text(re.sub("(?m)^kubeVersion.*\n", "", file.read_text()))
                done = helm(major, "template", "test", chart, "--kube-version", "1.28.9", check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex(done.stderr, "Kubernetes is v?1.28.9; wanted 1.29 or newer")
                # A version of a cloud, with its suffix, is new enough.
                helm(major, "template", "test", chart, "--kube-version", "1.29.3-gke.100")

    def test_every_value_has_a_type_and_no_object_takes_unknown_keys(self):
        leaves = 0
        for chart in docs.CHARTS:
            schema = docs.schema(chart)
            values = yaml.safe_load((ROOT / chart / "values.yaml").read_text())
            if chart == "charts/postern":
                values["sidecar"] = yaml.safe_load((LIBRARY / "values.yaml").read_text())
            if chart == "examples/k8s-app":
                values["postern"] = yaml.safe_load((LIBRARY / "values.yaml").read_text())
            jsonschema.Draft7Validator.check_schema(schema)
            validator = jsonschema.Draft7Validator(schema)
            self.assertTrue(validator.is_valid(values), list(validator.iter_errors(values))[:1])
            for entry in docs.entries(chart):
                with self.subTest(chart=chart, value=entry.path):
                    holder = json.loads(json.dumps(values))
                    at = holder
                    for part in entry.path[:-1]:
                        at = at[part]
                    # Nothing takes a list of lists.
                    at[entry.path[-1]] = [[["wrong"]]]
                    self.assertFalse(validator.is_valid(holder))
                    if entry.branch:
                        at[entry.path[-1]] = values
                        for part in entry.path[:-1]:
                            pass
                        at[entry.path[-1]] = {**functools.reduce(lambda v, k: v[k], entry.path, values), "unknown": 1}
                        self.assertFalse(validator.is_valid(holder))
                    leaves += 1
        self.assertGreater(leaves, 150)


class Flags(unittest.TestCase):
    def test_every_flag_is_a_value(self):
        flags = set(docs.settings())
        self.assertGreater(len(flags), 20)
        offered = {flag for entry in docs.entries("charts/postern-sidecar") for flag in entry.flags}
        missing = sorted(flags - offered - set(NOT_OFFERED))
        self.assertEqual(
            missing, [],
            "flags of `postern serve` that charts/postern-sidecar/values.yaml does not offer: add a value with `@flag`, "
            "name it in the list of postern.sidecar, or give a reason in NOT_OFFERED",
        )  # fmt: skip
        self.assertEqual(sorted(offered - flags), [], "values whose flag `postern serve` does not have")
        self.assertEqual(sorted(set(NOT_OFFERED) & offered), [], "offered after all")
        self.assertEqual(sorted(set(NOT_OFFERED) - flags), [], "no flag any more")

    def test_every_flag_is_rendered_and_taken(self):
        used = set()
        for case in ("deployment", "directory", "cronjob", "job"):
            for container, _, _ in sidecars(documents(render("k8s-app", case))):
                for argument in container["args"][1:]:
                    name, value = re.fullmatch(r"--([-a-z]+)=(.*)", argument).groups()
                    self.assertTrue(value, argument)
                    used.add(name)
        self.assertEqual(used, set(docs.settings()) - set(NOT_OFFERED))

    @unittest.skipUnless(BINARY, "POSTERN_BIN says no binary")
    def test_the_binary_takes_what_is_rendered(self):
        # Paths of the pod do not exist here, so each start fails; but never for its command line or settings (2).
        with tempfile.TemporaryDirectory() as work:
            # The key of hashes is read with the settings.
            key = pathlib.Path(work) / "absent/etc/postern/records-key/hmac"
            key.parent.mkdir(parents=True)
            key.write_text("0123456789abcdef")
            for chart, case in CASES:
                for container, _, _ in sidecars(documents(render(chart, case))):
                    arguments = [
                        argument.replace("=/", f"={work}/absent/")
                        .replace("--admin=0.0.0.0:4771", "--admin=127.0.0.1:0")
                        .replace("--admin=[::]:9771", "--admin=127.0.0.1:0")
                        .replace("127.0.0.1:4770", "127.0.0.1:0").replace("[::1]:4770", "127.0.0.1:0")
                        for argument in container["args"]
                    ]  # fmt: skip
                    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=60)
                    with self.subTest(chart=chart, case=case):
                        self.assertEqual(done.returncode, 1, done.stderr)


@unittest.skipUnless(BINARY, "POSTERN_BIN says no binary")
class Running(unittest.TestCase):
    """What the charts render, run with the real binary: volumes are directories, and paths are moved below them."""

    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def postern(self, arguments, code=0):
        env = {key: value for key, value in os.environ.items() if not key.startswith("POSTERN_")}
        done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=120)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def moved(self, container):
        """Arguments with every mount of the container below the directory of its volume, and free ports."""
        arguments = container["args"]
        for mount in sorted(container["volumeMounts"], key=lambda mount: -len(mount["mountPath"])):
            (self.work / mount["name"]).mkdir(exist_ok=True)
            arguments = [
                re.sub(rf"(^|=){re.escape(mount['mountPath'])}(?=/|$)", rf"\g<1>{self.work / mount['name']}", argument)
                for argument in arguments
            ]
        return [re.sub(r"^--admin=.*", f"--admin=127.0.0.1:{self.port()}", argument) for argument in arguments]

    @staticmethod
    def port():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return listener.getsockname()[1]

    def start(self, arguments, binary=BINARY, **identity):
        log = (self.work / "log").open("w+")
        self.addCleanup(log.close)
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log, **identity)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        admin = next(a for a in arguments if a.startswith("--admin=")).split("=")[1]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                opener.open(f"http://{admin}/readyz", timeout=2).close()
                return process
            except OSError:
                time.sleep(0.1)
        log.seek(0)
        self.fail(f"{arguments} is not ready:\n{log.read()}")

    def test_the_example(self):
        rendered = documents(render("k8s-app", "job"))
        [policy] = [d for d in rendered if d["kind"] == "ConfigMap"]
        [pod] = [pod for d in rendered for pod in pods(d)]
        [sidecar], [client] = pod["spec"]["initContainers"], pod["spec"]["containers"]
        arguments = self.moved(sidecar)
        for name, text in policy["data"].items():
            (self.work / "postern-policy" / name).write_text(text)
        process = self.start(arguments)
        path = self.work / "postern-socket/postern.sock"
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)
        answer = json.loads(self.postern([*client["args"], "--connect", f"unix://{path}"]))
        self.assertEqual(answer["decision"], "Allowed", answer)
        refused = [argument.replace("blobs/read", "blobs/write") for argument in client["args"]]
        self.postern([*refused, "--connect", f"unix://{path}"], code=3)
        process.send_signal(signal.SIGTERM)
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        self.assertEqual(process.wait(timeout=grace), 0)

    @unittest.skipUnless(os.geteuid() == 0, "only root may become other users")
    def test_who_may_ask_over_the_socket(self):
        """With the users and groups that are rendered, and the permissions that an emptyDir has."""
        rendered = documents(render("k8s-app", "job"))
        [policy] = [d for d in rendered if d["kind"] == "ConfigMap"]
        [pod] = [pod for d in rendered for pod in pods(d)]
        [sidecar], [client] = pod["spec"]["initContainers"], pod["spec"]["containers"]
        arguments = self.moved(sidecar)
        for name, text in policy["data"].items():
            (self.work / "postern-policy" / name).write_text(text)
        self.work.chmod(0o755)
        (self.work / "postern-socket").chmod(0o777)
        # Where any user may run it.
        binary = self.work / "postern"
        shutil.copy(BINARY, binary)
        groups = pod["spec"]["securityContext"]["supplementalGroups"]
        context = sidecar["securityContext"]
        self.start(
            arguments, binary, user=context["runAsUser"], group=context["runAsGroup"], extra_groups=groups
        )  # fmt: skip
        uid = client["securityContext"]["runAsUser"]
        self.assertNotEqual(uid, context["runAsUser"])

        def ask(directory, groups):
            connect = f"unix://{directory}/postern.sock"
            command = [binary, *client["args"], "--connect", connect]
            identity = ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
            identity.append(f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups")
            return [*map(str, identity), *map(str, command)]

        there = self.work / "postern-socket"
        self.assertEqual(subprocess.run(ask(there, groups), capture_output=True).returncode, 0)
        # Another user that is not in the group: no answer at all.
        outsider = subprocess.run(ask(there, []), capture_output=True, text=True)
        self.assertEqual(outsider.returncode, 1, outsider.stdout)
        self.assertIn("ermission denied", outsider.stdout + outsider.stderr)

        # The application's mount is read-only: it can still connect, and cannot put another socket there.
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            self.skipTest("no namespace for mounts is to be had")
        mount = self.work / "mount"
        mount.mkdir()
        script = f"mount --bind {there} {mount} && mount -o remount,bind,ro {mount} && "
        asked = subprocess.run(
            ["unshare", "-m", "sh", "-c", script + 'exec "$@"', "-", *ask(mount, groups)], capture_output=True, text=True
        )
        self.assertEqual(asked.returncode, 0, asked.stderr)
        removed = subprocess.run(
            ["unshare", "-m", "sh", "-c", f"{script}rm {mount}/postern.sock"], capture_output=True, text=True
        )
        self.assertIn("Read-only file system", removed.stderr)

    def test_jobs_publish_and_refresh_and_the_sidecar_follows(self):
        keys, repository = self.work / "all-keys", self.work / "repository-root"
        self.postern(["repo", "init", "--at", repository, "--keys", keys])
        policy = self.work / "policy"
        shutil.copytree(CHARTS["k8s-app"] / "policy", policy)

        # The jobs, as rendered, with the repository in a directory.
        values = self.work / "values.yaml"
        values.write_text(
            json.dumps(
                {
                    "injector": {"enabled": True},
                    "sidecar": {
                        "policy": {
                            "source": str(repository),
                            "trustedRoot": {"inline": (keys / "root.json").read_text()},
                        }
                    },
                    "repository": {"at": str(repository)},
                    "publish": {"enabled": True, "keysSecret": "keys", "configMap": "policy"},
                    "refresh": {"enabled": True, "keysSecret": "keys"},
                }
            )
        )
        rendered = documents(helm("4", "template", "test", CHARTS["postern"], "--values", values).stdout)
        jobs = {d["kind"]: pods(d)[0]["spec"]["containers"][0] for d in rendered if d["kind"] in ("Job", "CronJob")}

        def run(container, keys):
            places = {"/etc/postern/keys": keys, "/etc/postern/policy": policy}
            arguments = container["args"]
            for path, place in places.items():
                arguments = [argument.replace(path, str(place)) for argument in arguments]
            return json.loads(self.postern(arguments))

        self.assertEqual(run(jobs["Job"], keys)["serial"], 2)
        # The next upgrade, with the same policy.
        self.assertIs(run(jobs["Job"], keys)["unchanged"], True)
        cron = self.work / "cron-keys"
        cron.mkdir()
        for name in ("root.json", "timestamp.pem"):
            shutil.copy(keys / name, cron)
        run(jobs["CronJob"], cron)

        # The sidecar that pods would get: its root of trust is in an annotation, which a volume shows as a file.
        default = injector_config(rendered)["profiles"]["default"]
        arguments = self.moved(default["container"])
        [volume] = [volume for volume in default["volumes"] if volume["name"] == "postern-trusted-root"]
        [item] = volume["downwardAPI"]["items"]
        annotation = re.fullmatch(r"metadata\.annotations\['(.*)'\]", item["fieldRef"]["fieldPath"])[1]
        (self.work / "postern-trusted-root" / item["path"]).write_text(default["podAnnotations"][annotation])
        self.start(arguments)
        # What `helm test` runs.
        [test] = [d for d in rendered if d["kind"] == "Pod" and d["metadata"]["name"].endswith("-sidecar")]
        path = self.work / "postern-socket/postern.sock"
        status = json.loads(self.postern([*test["spec"]["containers"][0]["args"], "--connect", f"unix://{path}"]))
        self.assertEqual(status["serial"] if "serial" in status else status["policy"]["serial"], 2, status)


@unittest.skipUnless(BINARY, "POSTERN_BIN says no binary")
class Injecting(unittest.TestCase):
    """The injector as the chart runs it: its arguments, its certificate, its configuration, its paths."""

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.work.cleanup)
        work = pathlib.Path(cls.work.name)
        values = yaml.safe_load(case_file("postern", "everything").read_text())
        values["injector"]["certificate"] = {"from": "generated"}
        # Let the pod of `helm test` in.
        values["networkPolicy"]["apiServer"] = []
        (work / "values.yaml").write_text(yaml.safe_dump(values))
        text = helm("4", "template", "test", CHARTS["postern"], "--namespace", NAMESPACE, "--values", work / "values.yaml").stdout
        cls.rendered = rendered = documents(text)
        [secret] = [d for d in rendered if d["kind"] == "Secret"]
        for name, data in secret["data"].items():
            (work / name).write_bytes(base64.b64decode(data))
        [config] = [d for d in rendered if d["kind"] == "ConfigMap" and "injector.json" in d["data"]]
        (work / "injector.json").write_text(config["data"]["injector.json"])
        [webhooks] = [d["webhooks"] for d in rendered if d["kind"] == "MutatingWebhookConfiguration"]
        cls.webhooks = {webhook["name"].split(".")[0]: webhook["clientConfig"] for webhook in webhooks}
        [container] = [
            container for d in rendered if d["kind"] == "Deployment" for container in d["spec"]["template"]["spec"]["containers"]
        ]
        cls.port, admin = Running.port(), Running.port()
        arguments = []
        for argument in container["args"]:
            for path in ("/etc/postern/tls", "/etc/postern/injector"):
                argument = argument.replace(path, str(work))
            argument = re.sub("^--listen=.*", f"--listen=127.0.0.1:{cls.port}", argument)
            argument = re.sub("^--admin=.*", f"--admin=127.0.0.1:{admin}", argument)
            arguments.append(re.sub("^--drain-delay=.*", "--drain-delay=0s", argument))
        cls.log = (work / "log").open("w+")
        cls.addClassCleanup(cls.log.close)
        cls.process = subprocess.Popen([BINARY, *arguments], stdout=cls.log, stderr=cls.log)
        cls.addClassCleanup(cls.process.wait)
        cls.addClassCleanup(cls.process.terminate)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(600):
            try:
                opener.open(f"http://127.0.0.1:{admin}/readyz", timeout=2).close()
                return
            except OSError:
                if cls.process.poll() is not None:
                    break
                time.sleep(0.1)
        cls.log.seek(0)
        raise AssertionError(f"the injector is not ready: {cls.log.read()}")

    def review(self, webhook, namespace, pod):
        """As the API server asks: by the name of the service, believing the bundle of the webhook."""
        client = self.webhooks[webhook]
        context = ssl.create_default_context(cadata=base64.b64decode(client["caBundle"]).decode())
        body = json.dumps(
            {
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "request": {
                    "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
                    "namespace": namespace, "object": pod,
                },
            }
        ).encode()  # fmt: skip
        host = f"{client['service']['name']}.{client['service']['namespace']}.svc"
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        with context.wrap_socket(raw, server_hostname=host) as stream:
            head = (
                f"POST {client['service']['path']}?timeout=5s HTTP/1.1\r\nHost: {host}:443\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            stream.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200"), answer)
        return json.loads(body)["response"]

    def test_what_helm_test_asks(self):
        """The pod that tests the webhook: the name of the Service leads here, and its port to that of the container."""
        [pod] = [d for d in self.rendered if d["kind"] == "Pod" and d["metadata"]["name"].endswith("-injector")]
        [container] = pod["spec"]["containers"]
        arguments = [argument.replace("/etc/postern/ca", self.work.name) for argument in container["args"]]
        [url] = [argument for argument in arguments if argument.startswith("--url=")]
        client = self.webhooks["pods"]
        host = f"{client['service']['name']}.{client['service']['namespace']}.svc"
        self.assertEqual(url, f"--url=https://{host}:443{client['service']['path']}")
        there = [a.replace(f"{host}:443", f"{host}:{self.port}") for a in arguments]
        hosts = pathlib.Path(self.work.name) / "hosts"
        hosts.write_text(f"127.0.0.1 {host} localhost\n")
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            self.skipTest("no namespace for mounts is to be had, so the name of the Service cannot be given")
        script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "-", BINARY, *there], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        elsewhere = [a.replace(host, "localhost") for a in there]
        done = subprocess.run([BINARY, *elsewhere], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("certificate", done.stderr)

    def test_pods_are_injected_and_valid(self):
        seen = {}
        for path in sorted((ROOT / "tests/cases/pods").glob("*.json")):
            case = json.loads(path.read_text())
            with self.subTest(case=path.stem):
                response = self.review(case["askedBy"], case["namespace"], case["pod"])
                self.assertEqual(response["allowed"], case["outcome"] != "refused", response)
                self.assertEqual("patch" in response, case["outcome"] == "injected", response)
                seen[case["outcome"]] = seen.get(case["outcome"], 0) + 1
                if case["outcome"] != "injected":
                    continue
                patch = json.loads(base64.b64decode(response["patch"]))
                pod = apply(case["pod"], patch)
                for kubernetes in KUBERNETES:
                    kubernetes_validate.validate(pod, kubernetes, strict=True)
                again = self.review(case["askedBy"], case["namespace"], pod)
                self.assertEqual((again["allowed"], "patch" in again), (True, False))
                # The same sidecar as a chart's pod has.
                config = json.loads((pathlib.Path(self.work.name) / "injector.json").read_text())
                profile = config["profiles"][case.get("profile", "default")]
                self.assertEqual(pod["spec"]["initContainers"][0], profile["container"])
        self.assertGreater(min(seen.values()), 3)
        self.assertEqual(len(seen), 3)


def apply(document, patch):
    """JSON Patch, as far as the injector uses it."""
    document = json.loads(json.dumps(document))
    for operation in patch:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at = document
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if isinstance(at, list) and operation["op"] == "add":
            at.insert(len(at) if last == "-" else int(last), operation["value"])
        elif isinstance(at, list):
            at[int(last)] = operation["value"]
        else:
            assert operation["op"] == "add" or last in at, operation
            at[last] = operation["value"]
    return document


@unittest.skipUnless(BINARY, "POSTERN_BIN says no binary")
class WalkThrough(unittest.TestCase):
    def test_the_commands_of_the_walk_through(self):
        text = (ROOT / "docs/kubernetes.md").read_text()
        blocks = re.findall(r"```sh\n# run\n(.*?)```", text, re.S)
        self.assertGreater(len(blocks), 5)
        for major in HELMS:
            with tempfile.TemporaryDirectory() as work:
                tools = pathlib.Path(work) / "tools"
                tools.mkdir()
                (tools / "postern").symlink_to(BINARY)
                (tools / "helm").symlink_to(ROOT / f".tools/helm{major}/helm")
                for name in ("charts", "examples"):
                    (pathlib.Path(work) / name).symlink_to(ROOT / name)
                env = {key: value for key, value in os.environ.items() if not key.startswith("POSTERN_")}
                env["PATH"] = f"{tools}:{ROOT / '.venv/bin'}:{env['PATH']}"
                output = ""
                for block in blocks:
                    done = subprocess.run(
                        ["bash", "-euo", "pipefail", "-c", block], cwd=work, env=env, capture_output=True, text=True
                    )
                    with self.subTest(helm=major, block=block):
                        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                    output += done.stdout
                # What the text promises of them.
                for words in ("the policy is valid", '"path": "/spec/initContainers"', "another resource group"):
                    self.assertIn(words, output)


class WalkThroughInACluster(unittest.TestCase):
    """The commands of the walk-through that need a cluster: as far as they can be asked without one."""

    def setUp(self):
        text = (ROOT / "docs/kubernetes.md").read_text()
        blocks = [block for block in re.findall(r"```sh\n(.*?)```", text, re.S) if not block.startswith("# run\n")]
        lines = "".join(blocks).replace("\\\n", " ").replace("REGISTRY", "registry.example.org").splitlines()
        self.commands = [shlex.split(line) for line in lines]
        self.assertGreater(len(self.commands), 10)

    def test_helm_takes_them_and_they_name_what_is_rendered(self):
        with tempfile.TemporaryDirectory() as work:
            keys = pathlib.Path(work)
            for name, content in [("root.json", '{"signed":{"_type":"root","version":1}}'), ("timestamp.pem", "key")]:
                (keys / name).write_text(content)
            for major in HELMS:
                self.ask(major, keys)

    def ask(self, major, keys):
        installed, rendered, programs, secrets = {}, {}, set(), set()
        for command in self.commands:
            program, *arguments = [argument.replace("keys/", f"{keys}/") for argument in command]
            programs.add(program)
            with self.subTest(helm=major, command=command):
                if program == "helm" and arguments[0] in ("install", "upgrade"):
                    name = arguments[1]
                    own = [a for a in arguments[2:] if a not in ("--create-namespace", "--reuse-values")]
                    # An upgrade that uses the values of before is asked with them.
                    installed[name] = installed.get(name, []) + (own if arguments[0] == "install" else own[1:])
                    rendered[name] = documents(helm(major, "template", name, *installed[name]).stdout)
                elif program == "helm":
                    self.assertEqual(arguments[0], "test")
                    hooks = [d["metadata"].get("annotations", {}).get("helm.sh/hook") for d in rendered[arguments[1]]]
                    self.assertEqual(hooks.count("test"), 2, "as the text says")
                elif program == "kubectl":
                    self.kubectl(major, arguments, rendered, secrets)
        self.assertEqual(programs, {"docker", "git", "helm", "just", "kubectl"})
        # What the upgrade is told to use is what was made before.
        used = {volume["secret"]["secretName"] for d in rendered["postern"] if d["kind"] == "CronJob"
                for pod in pods(d) for volume in pod["spec"]["volumes"] if "secret" in volume}  # fmt: skip
        self.assertEqual(used, secrets)

    def kubectl(self, major, arguments, rendered, secrets):
        namespace = arguments[arguments.index("--namespace") + 1] if "--namespace" in arguments else None
        domain = injector_config(rendered["postern"])["domain"]
        everything = [document for one in rendered.values() for document in one]
        if "create" in arguments:
            done = subprocess.run(
                [ROOT / f".tools/helm{major}/kubectl", *arguments, "--dry-run=client", "--output=json"],
                capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            made = json.loads(done.stdout)
            self.assertEqual((made["metadata"]["namespace"], set(made["data"])), (namespace, {"root.json", "timestamp.pem"}))
            secrets.add(made["metadata"]["name"])
        if "--patch" in arguments:
            patch = json.loads(arguments[arguments.index("--patch") + 1])
            self.assertEqual(patch["spec"]["template"]["metadata"]["labels"], {f"{domain}/inject": "true"})
        if "label" in arguments:
            self.assertEqual(arguments[-1], f"{domain}/inject=true")
        if "--selector" in arguments:
            labels = injector_config(rendered["postern"])["profiles"]["default"]["podLabels"]
            self.assertIn(arguments[arguments.index("--selector") + 1], [f"{key}={value}" for key, value in labels.items()])
        # `shop` is the reader's own.
        for kind, name in re.findall(r"\b(deployment|job)/([-\w]+)", " ".join(arguments)):
            if namespace == "shop":
                continue
            [found] = [d for d in everything if (d["kind"].lower(), d["metadata"]["name"]) == (kind, name)]
            if "--container" in arguments:
                [pod] = pods(found)
                names = [container["name"] for container in pod["spec"]["containers"]]
                self.assertIn(arguments[arguments.index("--container") + 1], names)


class Packages(unittest.TestCase):
    def test_packages_render_what_the_folders_do(self):
        for major in HELMS:
            with tempfile.TemporaryDirectory() as work:
                for path in [*CHARTS.values(), LIBRARY]:
                    helm(major, "package", path, "--destination", work)
                names = {path.name for path in pathlib.Path(work).iterdir()}
                self.assertEqual(names, {"postern-0.1.0.tgz", "postern-sidecar-0.1.0.tgz", "k8s-app-0.1.0.tgz"})
                for chart, case in CASES:
                    with self.subTest(helm=major, chart=chart, case=case):
                        text = helm(
                            major, "template", "test", f"{work}/{chart}-0.1.0.tgz", "--namespace", NAMESPACE,
                            "--kube-version", "1.37.0", "--values", case_file(chart, case),
                        ).stdout  # fmt: skip
                        self.assertEqual(by_identity(text), by_identity(render(chart, case)))

    def test_versions_are_one(self):
        version = re.search(r'(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text())[1]
        self.assertEqual(yaml.safe_load((LIBRARY / "values.yaml").read_text())["image"]["tag"], version)
        for path in [*CHARTS.values(), LIBRARY]:
            chart = yaml.safe_load((path / "Chart.yaml").read_text())
            self.assertEqual((chart["version"], chart["appVersion"]), (version, version), path)
            for dependency in chart.get("dependencies", []):
                self.assertEqual(dependency["version"], version)

    def test_readmes_and_schemas_are_what_the_values_say(self):
        for path, wanted in docs.outputs():
            with self.subTest(path=path):
                self.assertEqual(path.read_text(), wanted, "run UPDATE=1 scripts/charts.sh")


class Notes(unittest.TestCase):
    def test_notes_tell_the_next_command(self):
        for major in HELMS:
            for chart, case, commands in [
                ("postern", "published", ["rollout status deployment/test-postern-injector", "helm test test",
                                          "label namespace NAMESPACE postern.dev/inject=true"]),
                ("postern", "jobs-only", ["create job --from=cronjob/test-postern-refresh", "logs --selector"]),
                ("k8s-app", "job", ["wait --for=condition=complete", "logs job/test --container client"]),
                ("k8s-app", "cronjob", ["create job --from=cronjob/test"]),
                ("k8s-app", "deployment", ["rollout status deployment/test"]),
            ]:  # fmt: skip
                with ApiServer({}) as config:
                    done = helm(
                        major, "install", "test", CHARTS[chart], "--dry-run=client", "--disable-openapi-validation", "--namespace", NAMESPACE,
                        "--kubeconfig", config, "--values", case_file(chart, case),
                    )  # fmt: skip
                notes = done.stdout.split("NOTES:")[1]
                for command in commands:
                    with self.subTest(helm=major, chart=chart, case=case):
                        self.assertIn(command, notes)


if __name__ == "__main__":
    if not BINARY:
        print("POSTERN_BIN is not set: what is rendered is not run", file=sys.stderr)
    unittest.main(verbosity=2 if "-v" in sys.argv else 1)
