"""An upgrade changes nothing that Kubernetes does not let change."""

import json
import os
import shutil

import chart
import pytest
import yaml
from chart import CASES, merged, render, values_of

# The fields of a StatefulSet that may change; everything else in its spec is immutable.
STATEFULSET_MUTABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}

# What every released version of the chart made immutable, by example. A change of a line here
# bricks the upgrades of everybody who has installed it.
RELEASED = chart.TESTS / "released.json"


def immutable(rendered):
    """What may never change of each object, by its kind and name."""
    found = {}
    for each in rendered:
        spec = each.get("spec", {})
        kept = None
        if each["kind"] == "StatefulSet":
            kept = {key: value for key, value in spec.items() if key not in STATEFULSET_MUTABLE}
        elif each["kind"] == "Deployment":
            kept = {"selector": spec["selector"]}
        elif each["kind"] == "Service":
            kept = {"clusterIP": spec.get("clusterIP"), "loadBalancerClass": spec.get("loadBalancerClass")}
        elif each["kind"] == "PersistentVolumeClaim":
            kept = spec
        if kept is not None:
            found[f"{each['kind']}/{each['metadata']['name']}"] = kept
    return found


@pytest.fixture
def next_version(tmp_path):
    """The same chart, of the next version and with another program."""
    copy = tmp_path / "selvage"
    shutil.copytree(chart.CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text())
    about["version"], about["appVersion"] = "9.8.7+build.5", "9.8.7"
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about))
    return copy


@pytest.mark.parametrize("case", CASES)
def test_another_version_of_the_chart_changes_nothing_immutable(case, next_version):
    before = render(values_of(case))
    after = render(values_of(case), chart=next_version, upgrade=True)
    assert immutable(before) == immutable(after)
    assert "9.8.7" in after.text, "the version shows somewhere, or this proves nothing"
    assert "9.8.7" not in json.dumps(immutable(after))


def test_values_that_people_change_change_nothing_immutable():
    before = render(values_of("single"))
    changes = {
        "commonLabels": {"team": "new"},
        "origin": {"replicas": 3, "podLabels": {"a": "b"}, "resources": {"limits": {"memory": "8Gi"}}},
        "edge": {"replicas": 4, "autoscaling": {"enabled": True}, "tls": {"enabled": True, "existingSecret": "x"}},
        "image": {"tag": "1.2.3"},
        "tracing": {"enabled": True},
        "jaeger": {"enabled": True},
    }
    after = immutable(render(merged(values_of("single"), changes), upgrade=True))
    for name, kept in immutable(before).items():
        assert after[name] == kept


def test_what_was_released_stays_as_it_was():
    found = {case: immutable(render(values_of(case))) for case in CASES}
    if os.environ.get("UPDATE"):
        RELEASED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(RELEASED.read_text()), "UPDATE=1 only before a first release"


def test_growing_restarts_no_origin():
    """Where the new ones are is read by origins with an empty disk alone."""
    before = render()
    after = render({"origin": {"replicas": 5}}, upgrade=True)
    assert before.origins()["spec"]["template"] == after.origins()["spec"]["template"]
    assert after.origins()["spec"]["replicas"] == 5
    old, new = (chart.toml(each.config("origin")) for each in (before, after))
    assert old["cluster.peers"] == new["cluster.peers"], "founders are founders"
    assert [each.split(".")[0] for each in new["cluster.join"]] == [f"demo-selvage-origin-{n}" for n in range(5)]


def test_a_changed_configuration_restarts_who_reads_it():
    def checksum(rendered, made):
        return made(rendered)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    before = render()
    after = render({"edge": {"config": {"play": {"coalesce": "40ms"}}}}, upgrade=True)
    assert checksum(before, chart.Rendered.edges) != checksum(after, chart.Rendered.edges)
    assert checksum(before, chart.Rendered.origins) == checksum(after, chart.Rendered.origins)
    after = render({"origin": {"config": {"publish_grace": "9s"}}}, upgrade=True)
    assert checksum(before, chart.Rendered.origins) != checksum(after, chart.Rendered.origins)


def test_shrinking_below_the_founders_is_no_installation():
    values = {"origin": {"replicas": 1, "remove": {"members": [3, 2]}}}
    rendered = render(values, upgrade=True)
    assert rendered.origins()["spec"]["replicas"] == 1
    assert "cluster.join" not in chart.toml(rendered.config("origin")), "there is nobody else"
    assert len(chart.toml(rendered.config("origin"))["cluster.peers"]) == 3
