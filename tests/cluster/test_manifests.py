"""The manifests for Kubernetes against its published schemas, Ray's own schema, and what the server and Ray read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.__main__ import ENVIRONMENT
from server.core.settings import Settings, declarations
from tests.support.cluster import missing

pytestmark = pytest.mark.cluster

FOLDER = Path(__file__).parents[2] / "cluster" / "kubernetes"
PLAIN: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "plain.yaml").read_text("utf-8")))
RAY_SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "rayservice.yaml").read_text("utf-8"))
RELEASES = ("1.28", "1.33")


def pod_templates() -> list[dict[str, Any]]:
    """Those of the RayService, which KubeRay takes as they are."""
    config = RAY_SERVICE["spec"]["rayClusterConfig"]
    return [config["headGroupSpec"]["template"], *(group["template"] for group in config["workerGroupSpecs"])]


def ray_variables(template: dict[str, Any]) -> dict[str, Any]:
    (container,) = template["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_as_kubernetes_wants_it(release: str) -> None:
    try:
        import kubernetes_validate  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        missing("kubernetes-validate is not installed (make test-cluster)")
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **each} for each in pod_templates()]
    for manifest in (*PLAIN, *pods):
        kubernetes_validate.validate(manifest, release, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # the check can fail
        kubernetes_validate.validate({**pods[0], "spec": {"containers": [{"nom": "x"}]}}, release, strict=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, of pydantic
def test_ray_reads_its_part_and_the_application_its_arguments() -> None:
    try:
        from ray.serve.schema import ServeDeploySchema

        from cluster.app import Options
    except ImportError:
        missing("ray is not installed (make test-cluster)")
    config = ServeDeploySchema.model_validate(yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "cluster.app:application"
    assert Options(**application.args).max_replicas == 4


def test_variables_are_those_of_the_server_and_of_the_command() -> None:
    known = {declared.variable for declared in declarations()}
    (config,) = (each["data"] for each in PLAIN if each["kind"] == "ConfigMap")
    (deployment,) = (each for each in PLAIN if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    named = {*config, *(variable["name"] for variable in container["env"])}
    for template in pod_templates():
        variables = ray_variables(template)
        named |= variables.keys()
        assert ENVIRONMENT.items() <= variables.items()
        assert "RAY_AUTH_TOKEN" in variables
    assert {name for name in named if name.startswith("TESSERA_")} <= known


def test_pods_have_longer_to_leave_than_running_answers() -> None:
    (deployment,) = (each for each in PLAIN if each["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    answers_s = Settings.model_fields["shutdown_timeout_s"].default
    assert spec["terminationGracePeriodSeconds"] > answers_s + 5
    assert pod_templates()[1]["spec"]["terminationGracePeriodSeconds"] > answers_s
    assert spec["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/health"


def test_what_pods_name_is_there() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in PLAIN}
    (deployment,) = (each for each in PLAIN if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in names
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
    assert ("PersistentVolumeClaim", volumes["models"]["persistentVolumeClaim"]["claimName"]) in names
    for each in PLAIN:
        if each["kind"] in ("Service", "PodDisruptionBudget"):
            selector = each["spec"]["selector"]
            assert selector.get("matchLabels", selector) == pod["metadata"]["labels"]
        if each["kind"] == "HorizontalPodAutoscaler":
            target = each["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
