"""The command line: what is printed where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import jsonschema_rs
import pytest
import yaml
from click.testing import CliRunner

from hub.cli import COMMANDS, group, main

GOOD = "captures: {shop: {feed: {url: u}}}\n"
BAD = "captures: {shop: {feed: {urll: u}}}\n"


def hub(*arguments: str) -> tuple[int, str, str]:
    """Run a command as the shell would: exit code, output, errors."""
    runner = CliRunner()
    with runner.isolation() as (out, err, _):
        code = 0
        try:
            main(list(arguments))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        return code, out.getvalue().decode(), err.getvalue().decode()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_help_is_the_commands_own(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert (command.help or "").split("\n")[0] == COMMANDS[name]


def test_help_imports_no_command() -> None:
    code = "import sys; from hub.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in sys.modules if m.startswith(('hub.cli.', 'hub.config', 'msgspec', 'yaml'))])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_names_the_nearest() -> None:
    code, _, errors = hub("chekc")
    assert code == 2
    assert "Did you mean 'check'?" in errors


@pytest.mark.usefixtures("acme")
def test_lint_prints_the_mistakes_of_all_files_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    code, out, errors = hub("lint", str(tmp_path / "good.yaml"), str(tmp_path / "bad.yaml"), "/nowhere.yaml")
    assert code == 2
    assert [line.removeprefix(str(tmp_path)) for line in out.splitlines()] == [
        "/bad.yaml:1:19: captures.shop.feed: missing option 'url': Where the feed is.",
        "/bad.yaml:1:26: captures.shop.feed.urll: unknown option 'urll'; did you mean 'url'?",
        "/nowhere.yaml: cannot be read: No such file or directory",
    ]
    assert errors == "3 mistakes\n"
    assert hub("lint", str(tmp_path / "good.yaml")) == (0, "", "")


@pytest.mark.usefixtures("acme")
def test_lint_prints_for_programs_and_for_pull_requests(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("captures: {shop: {feed: {url: 5%, rate: '1,2:3'}}}\n")
    _, out, errors = hub("lint", "--format", "json", str(file))
    assert json.loads(out)[0] | {"message": ""} == {
        "file": str(file), "line": 1, "column": 41, "message": "", "severity": "error",
    }  # fmt: skip
    assert errors == ""
    _, out, _ = hub("lint", "--format", "github", str(file))
    assert out.startswith(f"::error file={file},line=1,col=41::captures.shop.feed.rate: ")


WARNED = """
captures: {shop: {generate: {mapping: 'root.id = @number.string() == 1'}}}
derivations:
  clear:
    from: shop/*
    mapping: |
      let unused = 1
      root.a = this.x || this.y && this.z
"""


def test_lint_shows_warnings_and_exits_with_0_unless_it_is_strict(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(WARNED)
    code, out, errors = hub("lint", str(file))
    assert (code, errors) == (0, "3 warnings\n")
    assert [line.removeprefix(str(file)) for line in out.splitlines()] == [
        ":2:50: warning: captures.shop.generate.mapping: string == number is always false",
        ":7:7: warning: derivations.clear.mapping.mapping: variable unused is never used",
        ":8:16: warning: derivations.clear.mapping.mapping: && and || bind equally and are evaluated from left to right: "
        "put parentheses where you mean them",
    ]
    assert hub("lint", "--strict", str(file))[0] == 1
    assert {found["severity"] for found in json.loads(hub("lint", "--format", "json", str(file))[1])} == {
        "warning"
    }
    github = hub("lint", "--format", "github", str(file))[1]
    assert github.startswith(f"::warning file={file},line=2,col=50::captures.shop")


def test_lint_counts_mistakes_and_warnings_apart(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(WARNED + "logs: {}\n")
    code, _, errors = hub("lint", "--strict", str(tmp_path / "c.yaml"))
    assert (code, errors) == (2, "1 mistake, 3 warnings\n")


@pytest.mark.usefixtures("acme")
def test_lint_accepts_unset_variables_on_request(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("captures: {shop: {feed: {url: '${ACME_NOPE}'}}}\n")
    assert hub("lint", str(file))[0] == 2
    assert hub("lint", "--unset-ok", str(file)) == (0, "", "")


@pytest.mark.usefixtures("acme")
def test_lint_reads_standard_input() -> None:
    result = CliRunner().invoke(group, ["lint", "-"], input=BAD)
    assert result.exit_code == 2
    assert result.stdout.startswith("-:1:19: ")


@pytest.mark.usefixtures("acme")
def test_list_names_every_connector_with_its_distribution() -> None:
    code, out, _ = hub("list", "--json")
    assert code == 0
    assert {
        "kind": "capture", "name": "feed", "distribution": "acme-connectors", "target": "acme_connectors:FeedCapture",
    } in json.loads(out)  # fmt: skip
    assert "  shelf                acme-connectors" in hub("list")[1].splitlines()


@pytest.mark.usefixtures("acme")
def test_check_says_what_fails_and_what_mends_it_without_the_secrets(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    login = "login: {user: bob, password: hunter2-hunter2}"
    file.write_text(f"captures:\n  a: {{feed: {{url: u}}}}\n  b: {{feed: {{url: v, mode: new, {login}}}}}\n")
    code, out, _ = hub("check", str(file))
    assert code == 1
    assert out.splitlines() == [
        "ok     a (feed): u is reached",
        "failed b (feed): v is not reached as ***",
        "       start the feed",
    ]
    code, out, _ = hub("check", "--json", str(file))
    assert (code, json.loads(out)[1]["findings"][0]["cure"]) == (1, "start the feed")
    assert "hunter2" not in out


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_config_with_mistakes_starts_nothing(tmp_path: Path, command: str) -> None:
    (tmp_path / "c.yaml").write_text(BAD)
    code, out, errors = hub(command, str(tmp_path / "c.yaml"))
    assert (code, out) == (2, "")
    assert len(errors.splitlines()) == 2


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("config", "valid"),
    [
        (GOOD, True),
        ("captures: {shop: {feed: {url: u, every: 5m, rate: '${RATE}', mode: '${MODE:all}'}}}", True),
        (GOOD + "derivations: {d: {from: shop/x, upper: name}}", True),
        (
            GOOD + "derivations: {d: {from: shop/x, processors: [{upper: {field: name}, on_error: skip}]}}",
            True,
        ),
        (GOOD + "materializations: {m: {shelf: {room: r}, bindings: [{from: a, board: b}]}}", True),
        (BAD, False),
        ("captures: {shop: {feed: {url: u}, radio: {}}}", False),
        ("captures: {shop: {}}", False),
        ("captures: {shop: {feed: {url: u, every: soon}}}", False),
        (GOOD + "derivations: {d: {from: shop/x}}", False),
        (GOOD + "materializations: {m: {shelf: {room: r}, bindings: [{from: a}]}}", False),
        (GOOD + "materializations: {m: {shelf: {room: r}, bindings: []}}", False),
        (GOOD + "logs: {}", False),
    ],
)
def test_the_schema_tells_configs_from_mistakes(config: str, valid: bool) -> None:
    schema = json.loads(hub("schema")[1])
    jsonschema_rs.meta.validate(schema)
    checker = jsonschema_rs.validator_for(schema)
    assert checker.is_valid(yaml.safe_load(config)) is valid


def test_the_package_itself_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hub", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("hub, version ")
