"""Alerts, dashboard and the adapter's rules: they ask for what there is, and alerts fire when they
should and only then."""

import json
import re
import shutil
import subprocess

import chart
import pytest
import yaml
from chart import render, values_of

MONITORING = chart.CHART / "monitoring"

# Figures of others: of Prometheus, and of the kubelet.
OTHERS = {"up", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}

# What the collector of processes in the crate `prometheus` shows.
PROCESS = {
    "process_cpu_seconds_total": "counter",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_threads": "gauge",
}

# Labels that a scrape adds.
TARGET = {"namespace", "service", "pod"}


def declared():
    """The figures that the sources declare: name -> (kind, labels)."""
    call = re.compile(
        r'\.\s*(counters?|gauges?|histograms?)\(\s*"(selvage_\w+)",\s*"(?:[^"\\]|\\.)*",?\s*(?:&\[([^\]]*)\])?',
        re.S,
    )
    single = re.compile(r'name: "(selvage_\w+)",\s*help: "(?:[^"\\]|\\.)*",\s*grows: (true|false)')
    found = {name: (kind, set()) for name, kind in PROCESS.items()}
    for folder in ("node", "edge", "origin"):
        for path in (chart.ROOT / folder / "src").rglob("*.rs"):
            for kind, name, labels in call.findall(path.read_text().split("#[cfg(test)]")[0]):
                found[name] = (kind.rstrip("s"), set(re.findall(r'"(\w+)"', labels)))
            for name, grows in single.findall(path.read_text().split("#[cfg(test)]")[0]):
                found[name] = ("counter" if grows == "true" else "gauge", {"vhost", "app", "instance", "stream"})
    return found


def dashboard():
    return json.loads((MONITORING / "dashboard.json").read_text())


def adapter():
    return yaml.safe_load((MONITORING / "adapter.yaml").read_text())["rules"]["custom"]


def expressions():
    """Every expression by where it is, as PromQL."""
    found = {}
    for group in render(values_of("everything")).one("PrometheusRule")["spec"]["groups"]:
        found |= {f"alert {rule['alert']}": rule["expr"] for rule in group["rules"]}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for rule in adapter():
        found[f"adapter {rule['name']['as']}"] = rule["metricsQuery"]
        found[f"adapter {rule['name']['as']} series"] = rule["seriesQuery"]
    blanks = {"$__rate_interval": "5m", "$namespace": "media", "$service": ".*"}
    blanks |= {"<<.LabelMatchers>>": 'namespace="media"', "<<.GroupBy>>": "pod"}
    for where, expression in found.items():
        for blank, filled in blanks.items():
            expression = expression.replace(blank, filled)
        found[where] = expression
    return found


def selectors(expression):
    """The figures of an expression, each with its matchers (label, how, value)."""
    named = re.findall(r"\b((?:selvage|process|kubelet)_\w+|up)\b(?:\s*\{([^}]*)\})?", re.sub(r'"[^"]*"', lambda m: m[0].replace("{", "").replace("}", ""), expression))
    return [(name, re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', inside)) for name, inside in named]


def bare(name, figures):
    """The figure that a series belongs to."""
    for end in ("_bucket", "_count", "_sum"):
        base = name.removesuffix(end)
        if base != name and figures.get(base, ("",))[0] == "histogram":
            return base
    return name


def test_the_sources_declare_figures_as_this_test_reads_them():
    figures = declared()
    assert figures["selvage_client_bytes_total"] == ("counter", {"protocol", "direction"})
    assert figures["selvage_raft_append_seconds"] == ("histogram", set())
    assert figures["selvage_stream_viewers"] == ("gauge", {"vhost", "app", "instance", "stream"})
    assert figures["selvage_rtmfp_introductions_total"] == ("counter", {"what"})
    assert figures["selvage_build_info"] == ("gauge", {"role", "id", "version"})
    named = set()
    for folder in ("edge", "origin"):
        for path in (chart.ROOT / folder / "src").rglob("*.rs"):
            named |= set(re.findall(r'"(selvage_\w+)"', path.read_text()))
    assert named <= set(figures)


@pytest.mark.parametrize("where", expressions())
def test_figures_and_their_labels_are_in_the_sources(where):
    figures, expression = declared(), expressions()[where]
    assert selectors(expression), "an expression without a figure"
    known = set(TARGET)
    for name, matchers in selectors(expression):
        if name in OTHERS:
            known |= {"persistentvolumeclaim"}
            continue
        base = bare(name, figures)
        assert base in figures, name
        kind, labels = figures[base]
        assert (kind == "histogram") is (base != name), f"{name} is a {kind}"
        known |= labels | ({"le"} if name.endswith("_bucket") else set())
        for label, _, _ in matchers:
            assert label in labels | TARGET, f"{name} has no label {label}"
        if base.endswith("_total") and "adapter" not in where:
            assert re.search(r"(rate|increase)\(\s*" + name, expression), f"{name} only grows"
    for labels in re.findall(r"\b(?:by|ignoring|on)\s*\(([^)]*)\)", expression):
        assert set(re.findall(r"\w+", labels)) <= known, labels


def test_legends_and_annotations_name_labels_that_are_left():
    """After `sum by (pod)` there is a pod and nothing else."""
    texts = []
    for panel in dashboard()["panels"]:
        texts += [(each["legendFormat"], each["expr"], r"\{\{(\w+)\}\}") for each in panel.get("targets", [])]
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            texts.append((" ".join(rule["annotations"].values()), rule["expr"], r"\$labels\.(\w+)"))
    figures = declared()
    for text, expression, pattern in texts:
        by = re.findall(r"\b(?:max|min|sum|count)(?: by \(([^)]*)\))? ?\(", expression)
        left = set(TARGET) | {"persistentvolumeclaim"}
        for name, _ in selectors(expression):
            left |= figures.get(bare(name, figures), ("", set()))[1]
        if by and not re.search(r"\band on", expression):
            left = set.intersection(*(set(re.findall(r"\w+", each)) for each in by))
        wanted = set(re.findall(pattern, text))
        assert wanted <= left, (text, expression)


def test_every_figure_of_the_program_is_shown():
    shown = {name for expression in expressions().values() for name, _ in selectors(expression)}
    figures = declared()
    assert set(figures) - {bare(name, figures) for name in shown} == set()


def test_the_dashboard_is_laid_out():
    panels = dashboard()["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Overview",
        "Edges",
        "Media delivery",
        "Origins and Raft",
        "Shared objects",
        "RTMFP introductions",
        "Process",
        "Streams, as many as monitoring.streams says",
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_the_scaler_asks_for_what_the_adapter_serves():
    served = {rule["name"]["as"] for rule in adapter()}
    values = {"edge": {"autoscaling": {"enabled": True, "cpuPercent": 0, "connections": 5, "egressBytes": 5}}}
    metrics = render(values).one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert {each["pods"]["metric"]["name"] for each in metrics} == served


def test_every_process_is_scraped_at_the_port_of_health():
    rendered = render(values_of("everything"))
    for role in ("edge", "origin"):
        monitor = rendered.one("ServiceMonitor", f"-{role}")["spec"]
        assert monitor["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "30s"}]
        chosen = [
            each
            for each in rendered.of("Service")
            if monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        ]
        (service,) = chosen
        assert "http" in [port["name"] for port in service["spec"]["ports"]]
        assert service["spec"]["clusterIP"] == "None"
        # The alerts know them by the names of these Services.
        alerts = json.dumps(rendered.one("PrometheusRule")["spec"])
        end = "http" if role == "edge" else "origin"
        assert service["metadata"]["name"].endswith(end)
        assert f'service=\\"{service["metadata"]["name"]}\\"' in alerts
    assert not render().of("Service", "-http"), "only where somebody scrapes"


def test_the_alerts_are_filled_in():
    spec = render(values_of("everything")).one("PrometheusRule")["spec"]
    assert not re.search("NAMESPACE|FULLNAME|MAJORITY|MEMORY", json.dumps(spec))
    assert "< 3" in spec["groups"][0]["rules"][0]["expr"], "five origins have a majority of three"
    for given, expected in (({"memory": "512Mi"}, "512 * 1048576"), ({"memory": 4000000000}, "4e+09 * 1"), ({"memory": None}, "Inf * 1"), ({"memory": "1.5G"}, "1.5 * 1000000000")):
        values = {"monitoring": {"prometheusRule": {"enabled": True}}, "origin": {"resources": {"limits": given}}}
        rules = render(values).one("PrometheusRule")["spec"]["groups"][2]["rules"]
        (memory,) = [rule["expr"] for rule in rules if rule["alert"] == "SelvageMemoryHigh"]
        assert f'-origin"}} > 0.9 * {expected}\n' in memory


def promtool(*words):
    command = shutil.which("promtool")
    assert command, "promtool is missing (Debian: prometheus)"
    return subprocess.run([command, *words], capture_output=True, text=True, check=False)


def test_promtool_takes_every_expression(tmp_path):
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(render(values_of("everything")).one("PrometheusRule")["spec"]))
    others = [each for where, each in expressions().items() if not where.startswith("alert")]
    rules = [{"record": f"x:{number}", "expr": each} for number, each in enumerate(others)]
    (tmp_path / "others.yaml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    for path in (MONITORING / "rules.yaml", tmp_path / "alerts.yaml", tmp_path / "others.yaml"):
        done = promtool("check", "rules", str(path))
        assert done.returncode == 0, done.stdout + done.stderr


# A release that is well: three origins, two edges, a sample each half minute for an hour.
ORIGIN = 'namespace="media",service="demo-selvage-origin",pod="demo-selvage-origin-'
EDGE = 'namespace="media",service="demo-selvage-edge-http",pod="edge-'
CLAIM = 'namespace="media",persistentvolumeclaim="data-demo-selvage-origin-0"'
GI = 1 << 30


def steady(value):
    return f"{value}+0x120"


def histogram(name, labels, fast, slow):
    """So many a sample are below 5 ms, so many take up to 2.5 s."""
    return {
        f'{name}_bucket{{{labels}",le="0.005"}}': f"0+{fast}x120",
        f'{name}_bucket{{{labels}",le="1"}}': f"0+{fast}x120",
        f'{name}_bucket{{{labels}",le="2.5"}}': f"0+{fast + slow}x120",
        f'{name}_bucket{{{labels}",le="+Inf"}}': f"0+{fast + slow}x120",
    }


def well():
    series = {}
    for pod in range(3):
        series |= {
            f'up{{{ORIGIN}{pod}"}}': steady(1),
            f'selvage_raft_leader_known{{{ORIGIN}{pod}"}}': steady(1),
            f'selvage_raft_member{{{ORIGIN}{pod}"}}': steady(1),
            f'selvage_raft_term{{{ORIGIN}{pod}"}}': steady(7),
            f'selvage_raft_follower_lag_entries{{{ORIGIN}{pod}"}}': steady(3 if pod == 0 else 0),
            f'selvage_origin_backlogs_shed_total{{{ORIGIN}{pod}"}}': steady(4),
            f'process_resident_memory_bytes{{{ORIGIN}{pod}"}}': steady(2 * GI),
            f'process_open_fds{{{ORIGIN}{pod}"}}': steady(50),
            f'process_max_fds{{{ORIGIN}{pod}"}}': steady(1000),
        }
        series |= histogram("selvage_raft_append_seconds", f"{ORIGIN}{pod}", 1000, 1)
    for pod in range(2):
        series |= {
            f'up{{{EDGE}{pod}"}}': steady(1),
            f'selvage_origins_reachable{{{EDGE}{pod}"}}': steady(3),
            f'selvage_connections_refused_total{{{EDGE}{pod}",reason="total"}}': steady(9),
            f'selvage_connections_refused_total{{{EDGE}{pod}",reason="address"}}': "0+3x120",
            f'process_resident_memory_bytes{{{EDGE}{pod}"}}': steady(3 * GI),
            f'process_open_fds{{{EDGE}{pod}"}}': steady(500),
            f'process_max_fds{{{EDGE}{pod}"}}': steady(1000),
        }
        series |= histogram("selvage_media_delivery_seconds", f"{EDGE}{pod}", 1000, 1)
        series |= histogram("selvage_object_request_seconds", f"{EDGE}{pod}", 1000, 1)
    series |= {
        f"kubelet_volume_stats_available_bytes{{{CLAIM}}}": steady(5 * GI),
        f"kubelet_volume_stats_capacity_bytes{{{CLAIM}}}": steady(10 * GI),
    }
    # Another release in the same namespace, in ruins, concerns nobody here.
    other = 'namespace="media",service="else-selvage-origin",pod="else-selvage-origin-0"'
    series |= {f"up{{{other}}}": steady(0), f"selvage_raft_leader_known{{{other}}}": steady(0)}
    return series


def broken(name, where, pod, after, before=None, more=""):
    """A series of a pod that changes at the 20th minute; without `before`, all its values."""
    return {f'{name}{{{where}{pod}"{more}}}': f"{before}+0x40 {after}+0x80" if before is not None else after}


def slow(name, labels):
    """From the 20th minute on, a tenth takes up to 2.5 s."""
    return {
        key: value.replace("x120", "x40 " + ("40000+900x80" if "0.005" in key or '"1"' in key else "40040+1001x80"))
        for key, value in histogram(name, labels, 1000, 1).items()
    }


# Each alert: what is wrong from the 20th minute on, minutes after which it is not said yet and
# after which it is, and the pods that it names.
ALERTS = {
    "SelvageOriginsWithoutMajority": (
        broken("up", ORIGIN, 0, 0, 1) | broken("up", ORIGIN, 1, 0, 1),
        (0.5, 3),
        {""},
    ),
    "SelvageNoLeader": (
        {key: value for pod in range(3) for key, value in broken("selvage_raft_leader_known", ORIGIN, pod, 0, 1).items()},
        (0.5, 3),
        {""},
    ),
    "SelvageOriginKnowsNoLeader": (broken("selvage_raft_leader_known", ORIGIN, 1, 0, 1), (1, 4), {"demo-selvage-origin-1"}),
    "SelvageOriginNotMember": (broken("selvage_raft_member", ORIGIN, 2, 0, 1), (4, 7), {"demo-selvage-origin-2"}),
    "SelvageLeaderChangesOften": (broken("selvage_raft_term", ORIGIN, 0, "7+0x40 8+1x80"), (1, 5), {""}),
    "SelvageLogSlow": (slow("selvage_raft_append_seconds", f"{ORIGIN}0"), (5, 17), {"demo-selvage-origin-0"}),
    "SelvageFollowerLags": (broken("selvage_raft_follower_lag_entries", ORIGIN, 0, 5000, 3), (4, 7), {""}),
    "SelvageOriginDown": (broken("up", ORIGIN, 2, 0, 1), (4, 7), {"demo-selvage-origin-2"}),
    "SelvageEdgeDown": (broken("up", EDGE, 1, 0, 1), (4, 7), {"edge-1"}),
    "SelvageEdgeWithoutOrigins": (broken("selvage_origins_reachable", EDGE, 1, 0, 3), (0.5, 3), {"edge-1"}),
    "SelvageEdgeFull": (
        broken("selvage_connections_refused_total", EDGE, 0, "9+0x40 10+1x80", more=',reason="total"'),
        (0.5, 4),
        {"edge-0"},
    ),
    "SelvageAddressRefused": (
        broken("selvage_connections_refused_total", EDGE, 0, "0+3x40 200+90x80", more=',reason="address"'),
        (5, 17),
        {"edge-0"},
    ),
    "SelvageBacklogsShed": (
        broken("selvage_origin_backlogs_shed_total", ORIGIN, 1, 5, 4),
        (-1, 2),
        {"demo-selvage-origin-1"},
    ),
    "SelvageMemoryHigh": (
        broken("process_resident_memory_bytes", ORIGIN, 1, 4 * GI - 1000, 2 * GI) | broken("process_resident_memory_bytes", EDGE, 0, 4 * GI, 3 * GI),
        (4, 7),
        {"demo-selvage-origin-1", "edge-0"},
    ),
    "SelvageFilesHigh": (broken("process_open_fds", EDGE, 0, 900, 500), (4, 7), {"edge-0"}),
    "SelvageDeliverySlow": (slow("selvage_media_delivery_seconds", f"{EDGE}1"), (4, 12), {"edge-1"}),
    "SelvageObjectRequestsSlow": (slow("selvage_object_request_seconds", f"{EDGE}1"), (4, 12), {"edge-1"}),
    "SelvageDiskFull": ({f"kubelet_volume_stats_available_bytes{{{CLAIM}}}": f"{5 * GI}+0x40 {GI // 2}+0x80"}, (4, 7), {""}),
}


def test_every_alert_fires_when_it_should_and_no_other_does(tmp_path):
    values = {"monitoring": {"prometheusRule": {"enabled": True}}}
    spec = render(values).one("PrometheusRule")["spec"]
    assert {rule["alert"] for group in spec["groups"] for rule in group["rules"]} == set(ALERTS)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    firing = 'count by (alertname, pod) (ALERTS{alertstate="firing"})'

    def test(name, wrong, moments):
        series = well()
        assert set(wrong) <= set(series), name
        return {
            "name": name,
            "interval": "30s",
            "input_series": [{"series": key, "values": str(value)} for key, value in (series | wrong).items()],
            "promql_expr_test": [
                {
                    "expr": firing,
                    "eval_time": f"{int((20 + minutes) * 60)}s",
                    "exp_samples": [
                        {"labels": f'{{alertname="{name}"' + (f',pod="{pod}"' if pod else "") + "}", "value": 1}
                        for pod in sorted(pods)
                    ],
                }
                for minutes, pods in moments
            ],
        }

    tests = [test("well", {}, [(0, set()), (39, set())])]
    tests += [test(name, wrong, [(early, set()), (late, pods)]) for name, (wrong, (early, late), pods) in ALERTS.items()]
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
    done = promtool("test", "rules", str(tmp_path / "tests.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_that_nothing_is_scraped_is_an_alert_too(tmp_path):
    values = {"monitoring": {"prometheusRule": {"enabled": True}}}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(render(values).one("PrometheusRule")["spec"]))
    whole = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [],
                "alert_rule_test": [
                    {
                        "eval_time": "5m",
                        "alertname": "SelvageOriginsWithoutMajority",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical"},
                                "exp_annotations": {
                                    "summary": "Fewer origins answer than a majority.",
                                    "description": "Streams that run go on. Nothing is written to shared objects and no name is granted to a publisher.",
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
    done = promtool("test", "rules", str(tmp_path / "tests.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
