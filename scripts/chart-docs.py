#!/usr/bin/env python3
"""Writes values.schema.json and the table in README.md of each chart from the comments in its values.yaml.

    scripts/chart-docs.py            says what differs, and exits with 1
    scripts/chart-docs.py --write    writes it

The comment above a key is its description. `# @flag NAME` names the flag of `postern serve` that it sets, `# @schema
{…}` narrows what is accepted: JSON Schema in YAML's flow form. A key with values below it takes these keys and no other.
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHARTS = ["charts/postern-sidecar", "charts/postern", "examples/k8s-app"]
BEGIN, END = "<!-- values:begin -->", "<!-- values:end -->"

SIZE = "[0-9]+(B|KiB|MiB|GiB|kB|MB|GB)?"
DURATION = "([0-9]+(ms|s|m|min|h|d)|0)"
RULE = "(serve|read-only|deny)"
RULES = f"({RULE}|control={RULE},data={RULE}|data={RULE},control={RULE})"
NAME = "[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?"
SCHEDULE = "(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[^ ]+( +[^ ]+){4})"
QUANTITY = "[0-9]+(\\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?"


def text(pattern, **more):
    return {"type": "string", "pattern": f"^{pattern}$", **more}


def or_null(schema):
    return {"anyOf": [schema, {"type": "null"}, {"enum": [""]}]}


# What several keys share. Draft 7, which Helm 3 and 4 both read.
COMMON = {
    "optionalName": text(f"({NAME})?"),
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "unprivilegedPort": {"type": "integer", "minimum": 1024, "maximum": 65535},
    "size": text(SIZE),
    "optionalSize": or_null(text(SIZE)),
    "duration": text(DURATION),
    "optionalDuration": or_null(text(DURATION)),
    "lifetime": text("[1-9][0-9]*(h|d)"),
    "optionalRule": or_null(text(RULES)),
    "optionalBoolean": {"type": ["boolean", "null"]},
    "schedule": text(SCHEDULE),
    "optionalSchedule": text(f"({SCHEDULE})?"),
    "quantity": text(QUANTITY),
    "optionalQuantity": text(f"({QUANTITY})?"),
    "stringMap": {"type": "object", "additionalProperties": {"type": "string"}},
    "environment": {
        "type": "object",
        # Not `propertyNames`: Helm 4 tells of it at another place than it is.
        "patternProperties": {"^[A-Za-z_][A-Za-z0-9_]*$": {"type": ["string", "number", "boolean"]}},
        "additionalProperties": False,
    },
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key: {
                "type": "object",
                "additionalProperties": {"type": ["string", "number"], "pattern": f"^{QUANTITY}$"},
            }
            for key in ("requests", "limits")
        },
    },
    "labelExpression": {
        "type": "object",
        "additionalProperties": False,
        "required": ["key", "operator"],
        "properties": {
            "key": {"type": "string", "minLength": 1},
            "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": {"type": "array", "items": {"type": "string"}},
        },
    },
}


class Entry:
    """A key of values.yaml: where it is, its default, and what its comment says."""

    def __init__(self, path, default, comment, where):
        self.path, self.default = path, default
        words = []
        self.flags, self.schema = [], {}
        for line in comment:
            if line.startswith("@flag "):
                self.flags.append(line.removeprefix("@flag ").strip())
            elif line.startswith("@schema "):
                self.schema |= yaml.safe_load(line.removeprefix("@schema "))
            elif line.startswith("@"):
                sys.exit(f"{where}: `{line}`; wanted @flag or @schema")
            else:
                words.append(line)
        self.description = " ".join(word for word in words if word)
        if not self.description:
            sys.exit(f"{where}: `{'.'.join(path)}` has no comment that says what it is")

    @property
    def branch(self):
        """Whether its keys have entries of their own."""
        return isinstance(self.default, dict) and bool(self.default) and not self.schema


def entries(chart):
    """The keys of a chart's values.yaml in its order, parents before children."""
    path = ROOT / chart / "values.yaml"
    values = yaml.safe_load(path.read_text())
    found, comment, stack = [], [], []
    closed = None  # indentation of a key whose children are its own business
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.relative_to(ROOT)}:{number}"
        if not line.strip():
            comment = []
            continue
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("#"):
            comment.append(line.strip()[1:].strip())
            continue
        if closed is not None and indent > closed:
            comment = []
            continue
        closed = None
        key = re.match(r'\s*"?([-\w.]+)"?:', line)
        if not key:
            sys.exit(f"{where}: `{line.strip()}` is no key")
        del stack[indent // 2 :]
        stack.append(key[1])
        default = values
        for part in stack:
            default = default[part]
        entry = Entry(tuple(stack), default, comment, where)
        if not entry.branch:
            closed = indent
        found.append(entry)
        comment = []
    return found


def type_of(default):
    return {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}[type(default)]


def required(children):
    """What may not be taken away by `null`: all but what is empty by default."""
    return [child.path[-1] for child, _ in children if child.default not in (None, "", [], {})]


def schema_of(entry, children):
    schema = {"description": entry.description}
    if entry.branch:
        properties = {child.path[-1]: schema_of(child, grand) for child, grand in children}
        return schema | {
            "type": "object",
            "additionalProperties": False,
            "required": required(children),
            "properties": properties,
        }
    narrowed = dict(entry.schema)
    if "$ref" in narrowed:
        return schema | {"default": entry.default, "allOf": [{"$ref": narrowed.pop("$ref")}], **narrowed}
    if "enum" not in narrowed and "type" not in narrowed:
        narrowed["type"] = type_of(entry.default)
    return schema | {"default": entry.default, **narrowed}


def tree(found, below=()):
    """Entries below a path, each with its own children."""
    return [(e, tree(found, e.path)) for e in found if e.path[:-1] == below]


def without_required(schema):
    """The same for values of which only some are given."""
    if isinstance(schema, dict):
        return {k: without_required(v) for k, v in schema.items() if k != "required"}
    return schema


def schema(chart):
    found = entries(chart)
    top = tree(found)
    properties = {e.path[-1]: schema_of(e, children) for e, children in top}
    properties["global"] = {"description": "Values that Helm hands to every chart.", "type": "object"}
    definitions = {}
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"Values of the chart {chart.rsplit('/', 1)[1]}",
        "type": "object",
        "additionalProperties": False,
        "required": required(top),
        "properties": properties,
    }
    used = json.dumps(whole)
    if "#/definitions/sidecar" in used:
        library = schema("charts/postern-sidecar")
        part = {key: library[key] for key in ("type", "additionalProperties", "properties")}
        definitions["sidecar"] = {
            "description": "Values of the library chart postern-sidecar.",
            **without_required(part),
        }
        definitions |= library["definitions"]
    while True:
        used = json.dumps([whole, definitions])
        missing = [n for n in COMMON if f'"#/definitions/{n}"' in used and n not in definitions]
        if not missing:
            break
        definitions |= {n: COMMON[n] for n in missing}
    return whole | {"definitions": dict(sorted(definitions.items()))}


def settings():
    """The flags of `postern serve` with their defaults, from the table in the README that is generated from them."""
    table = (ROOT / "README.md").read_text().split("<!-- settings:begin -->")[1].split("<!-- settings:end -->")[0]
    rows = re.findall(r"^\| `([-a-z0-9]+)` \| `POSTERN_[A-Z0-9_]+` \| (?:`([^`]*)`)? *\|", table, re.M)
    return dict(rows)


def readme(chart):
    """README.md with the table between its marks made anew."""
    path = ROOT / chart / "README.md"
    old = path.read_text()
    if BEGIN not in old or END not in old:
        sys.exit(f"{path.relative_to(ROOT)}: wanted the marks {BEGIN} and {END}")
    flags = settings()
    rows = ["| value | default | flag | meaning |", "| --- | --- | --- | --- |"]
    for entry in entries(chart):
        default = "" if entry.branch else f"`{json.dumps(entry.default, ensure_ascii=False)}`"
        if entry.default is None:
            given = flags.get(entry.flags[0], "") if entry.flags else ""
            default = f"that of the flag: `{given}`" if given else ""
        if len(default) > 80:
            default = "see values.yaml"
        flag = ", ".join(f"`--{flag}`" for flag in entry.flags)
        words = entry.description.replace("|", "\\|")
        rows.append(f"| `{'.'.join(entry.path)}` | {default} | {flag} | {words} |")
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    return f"{before}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{after}"


def outputs():
    for chart in CHARTS:
        yield ROOT / chart / "values.schema.json", json.dumps(schema(chart), indent=2, ensure_ascii=False) + "\n"
        yield ROOT / chart / "README.md", readme(chart)


def main():
    write = sys.argv[1:] == ["--write"]
    if sys.argv[1:] and not write:
        sys.exit(__doc__)
    stale = []
    for path, wanted in outputs():
        if path.exists() and path.read_text() == wanted:
            continue
        if write:
            path.write_text(wanted)
        else:
            stale.append(str(path.relative_to(ROOT)))
    if stale:
        sys.exit(f"not as values.yaml says: {', '.join(stale)}; run UPDATE=1 scripts/charts.sh")


if __name__ == "__main__":
    main()
