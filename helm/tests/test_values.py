"""Values: documented, typed, and refused where they cannot work."""

import json

import chart
import jsonschema
import pytest
import readme
import yaml
from chart import CASES, merged, refusal, render, toml, values_of

VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())

# What people give beside it, so that the refusal is for the reason under test.
CERTIFICATES = {"origin": {"existingSecret": "o"}, "edge": {"existingSecret": "e"}}

REFUSED = [
    # By the schema.
    ({"origin": {"replicas": 2}}, "replicas"),
    ({"origin": {"replicas": 4}}, "replicas"),
    ({"origin": {"replicas": 6}}, "replicas"),
    ({"origin": {"replicas": 0}}, "replicas"),
    ({"origin": {"replicas": 9}}, "replicas"),
    ({"origin": {"founders": 2}}, "founders"),
    ({"orgin": {"replicas": 3}}, "orgin"),
    ({"edge": {"drain": {"second": 3}}}, "second"),
    ({"edge": {"ports": {"rtmp": 80}}}, "rtmp"),
    ({"edge": {"config": {"listen": {"rtmp": "0.0.0.0:1"}}}}, "listen"),
    ({"origin": {"config": {"cluster": {"peers": []}}}}, "cluster"),
    ({"edge": {"config": {"play.coalesce": "40ms"}}}, "play.coalesce"),
    ({"origin": {"remove": {"members": [0]}}}, "members"),
    ({"admin": {"token": "s3cret"}}, "token"),
    ({"tracing": {"endpoint": "collector:4317"}}, "endpoint"),
    ({"tracing": {"sample": 2}}, "sample"),
    ({"edge": {"maxUnavailable": "all"}}, "maxUnavailable"),
    # By the chart.
    ({"origin": {"replicas": 1}}, "origin.founders is 3"),
    ({"edge": {"tls": {"enabled": True}}}, "edge.tls.existingSecret"),
    ({"edge": {"tls": {"enabled": True, "certManager": {"enabled": True}}}}, "dnsNames"),
    ({"linkTLS": {"enabled": True}}, "linkTLS.origin.existingSecret"),
    ({"linkTLS": {"enabled": True, "origin": {"existingSecret": "x"}}}, "linkTLS.edge.existingSecret"),
    ({"linkTLS": {"enabled": True, "certManager": {"enabled": True}}}, "issuerRef.name"),
    ({"linkTLS": {"enabled": True, "certManager": {"enabled": True}} | CERTIFICATES}, "choose one"),
    ({"admin": {"enabled": False}, "edge": {"drain": {"preStop": "command"}}}, "needs admin.enabled"),
    ({"admin": {"port": 8080}}, "admin.port"),
    ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "networkPolicy.monitoringFrom"),
    ({"tracing": {"enabled": True}}, "tracing.endpoint"),
    ({"apps": {"configMaps": {"a": "b"}, "existingClaim": "c"}}, "choose one"),
    ({"edge": {"hostNetwork": True}}, "networkPolicy.nodeCIDRs"),
    ({"edge": {"autoscaling": {"enabled": True, "cpuPercent": 0}}}, "one of cpuPercent"),
    ({"edge": {"autoscaling": {"enabled": True, "minReplicas": 20}}}, "below minReplicas"),
    ({"edge": {"drain": {"preStopSeconds": 0}}}, "preStopSeconds"),
    ({"origin": {"remove": {"members": ["demo-selvage-origin-2"]}}}, "one of the 3 origins that stay"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[json.dumps(each[0]) for each in REFUSED])
def test_what_cannot_work_is_refused_by_its_name(values, said):
    assert said in refusal(values)


def test_odd_counts_of_origins_are_taken():
    for count in (1, 3, 5, 7):
        rendered = render({"origin": {"replicas": count, "founders": count}})
        assert rendered.origins()["spec"]["replicas"] == count


def leaves(schema, path=()):
    for key, inner in schema.get("properties", {}).items():
        if "properties" in inner:
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key)


def test_the_schema_has_exactly_the_values_that_are_there():
    def there(values, schema, path=()):
        for key, value in values.items():
            inner = schema["properties"][key]
            if "properties" in inner:
                yield from there(value, inner, (*path, key))
            else:
                yield (*path, key)

    # `global` is Helm's own.
    assert set(there(VALUES, SCHEMA)) == set(leaves(SCHEMA)) - {("global",)}


def test_the_schema_refuses_what_it_does_not_know_at_every_depth():
    def tables(schema):
        if "properties" in schema:
            yield schema
            for inner in schema["properties"].values():
                yield from tables(inner)

    assert all(table["additionalProperties"] is False for table in tables(SCHEMA))
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_every_value_is_documented():
    text = (chart.CHART / "values.yaml").read_text()
    said = readme.comments(text)
    silent = [".".join(path) for path, _, _, meaning in readme.rows(VALUES, SCHEMA, said) if not meaning]
    # What these hold is Kubernetes' own.
    silent = [path for path in silent if not path.startswith(("podSecurityContext", "containerSecurityContext"))]
    assert not silent


def test_the_table_in_the_readme_is_fresh():
    text = (chart.CHART / "README.md").read_text()
    assert text == readme.fresh(text), "run `helm/tests/run --readme`"


def test_every_value_changes_something():
    """A value that nothing reads is a promise that nobody keeps."""
    templates = "".join(path.read_text() for path in (chart.CHART / "templates").rglob("*") if path.is_file())
    unread = [".".join(path) for path in leaves(SCHEMA) if path[-1] not in templates]
    assert [each for each in unread if each != "global"] == []


def test_numbers_lists_and_tables_of_values_become_toml():
    config = {"limits": {"connections": 15000, "connect_time": "5s"}, "objects": {"read": ["/a", "/b"]}}
    lines = toml(render({"edge": {"config": config}}).config("edge"))
    assert lines["limits.connections"] == 15000 and isinstance(lines["limits.connections"], int)
    assert lines["limits.connect_time"] == "5s"
    assert lines["objects.read"] == ["/a", "/b"]
    import tomllib

    for case in CASES:
        for role in ("edge", "origin"):
            tomllib.loads(render(values_of(case)).config(role))
    strange = render({"log": {"filter": 'a"b\\c=<debug>'}}).config("edge")
    assert tomllib.loads(strange)["log"]["filter"] == 'a"b\\c=<debug>'


def test_what_the_chart_writes_wins_over_what_people_add():
    values = merged(values_of("tls"), {"edge": {"config": {"play": {"linger": "1s"}}}})
    lines = toml(render(values).config("edge"))
    assert lines["play.linger"] == "1s" and lines["tls.cert"] == "/etc/selvage/tls/tls.crt"


def test_what_an_image_may_not_have_yet_is_off_by_default_and_listed():
    """Defaults and examples use only what is in the program (test_program.py gives it to it);
    the README names each value that needs more."""
    text = (chart.CHART / "README.md").read_text()
    listed = text.split("## What the image must have")[1].split("## Values")[0]
    for case in ["defaults", *chart.EXAMPLES]:
        rendered = render(values_of(case))
        for role in ("edge", "origin"):
            keys = set(toml(rendered.config(role)))
            assert not keys & {"apps.dir"}
    assert "apps.dir" in listed
    for key in ("cluster.join", "cluster remove", "proxy_protocol", "selvage probe", "selvage drain", "admin.listen", "/metrics"):
        assert key not in listed, "the program has it"
