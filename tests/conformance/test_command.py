"""The command around the checks: choosing, listing, reporting."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Iterator, Optional

import pytest

from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.cli import main
from manuka.driver import CreateOptions, DriverError
from manuka.overlay2 import Overlay2
from manuka.toolkit.conform import GROUPS
from tests.conformance.faulty import KindsSwapped, PutNeverUnmounts
from tests.conformance.runs import ROOT, conform, needs_root, roomy_folder
from tests.guide.markdown import anchors, chapters
from tests.unit.wire import Running, running

DOCS = ROOT / "docs" / "conformance.md"


class NoRoom(Overlay2):
    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        raise DriverError(f"no room is left for layer {layer_id}")

    create_read_write = create


@pytest.fixture
def plugin() -> Iterator[Running]:
    with running(make_app(DriverInstance(Overlay2, None))) as plugin:
        yield plugin


@pytest.fixture
def faulty() -> Iterator[Running]:
    with running(make_app(DriverInstance(KindsSwapped, None))) as plugin:
        yield plugin


def test_every_group_is_a_module_and_every_module_a_group() -> None:
    modules = (ROOT / "manuka/toolkit/conformance").glob("check_*.py")
    assert {path.stem[len("check_") :] for path in modules} == set(GROUPS)


def test_the_list_names_each_check_with_its_rule() -> None:
    said = conform("--list", "--group", "whiteouts").said
    assert "a_whiteout_hides (needed)" in said
    assert "A whiteout hides what lower layers have of its name" in said
    assert "check_" not in said


def test_the_documents_table_of_rules_is_that_of_the_kit() -> None:
    rules = conform("--rules").said.strip()
    assert rules.startswith("### handshake\n")
    documented = DOCS.read_text(encoding="utf-8").partition("<!-- manuka conform --rules -->\n")[2]
    assert documented.strip() == rules, "renew it: see docs/conformance.md"


def test_the_list_can_be_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    assert conform("--list", "--group", "names", report=path).code == 0
    checks = json.loads(path.read_text(encoding="utf-8"))["checks"]
    assert {check["group"] for check in checks} == {"names"}
    kept = next(check for check in checks if check["check"] == "names_are_kept[long]")
    assert kept["rule"] == "Names are bytes, and are kept as they are."
    assert kept["weight"] == "needed"
    assert kept["see"] == ["docs/conformance.md#names-names-are-kept",
                           "docs/guide/2-calls.md#applydiff"]  # fmt: skip


def test_the_list_has_what_was_chosen_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    conform("--list", "--group", "names", "-k", "deleted and long", report=path)
    checks = json.loads(path.read_text(encoding="utf-8"))["checks"]
    assert [check["check"] for check in checks] == ["any_name_can_be_deleted[long]"]


def test_every_rule_links_to_a_place_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    conform("--list", report=path)
    rules = json.loads(path.read_text(encoding="utf-8"))["checks"]
    assert len(rules) > 400
    places = {
        f"docs/{chapter.relative_to(ROOT / 'docs')}": anchors(chapter)
        | set(re.findall(r'<a id="([^"]+)">', chapter.read_text(encoding="utf-8")))
        for chapter in (*chapters(), DOCS)
    }
    own = {}
    for rule in rules:
        for link in rule["see"]:
            page, _, place = link.partition("#")
            assert place in places[page], f"{rule['check']}: {link} leads nowhere"
        own.setdefault(rule["see"][0], set()).add((rule["group"], rule["rule"]))
    assert all(len(found) == 1 for found in own.values()), "rules share an anchor"


@needs_root
def test_a_choice_that_differs_fails_a_strict_run_only(tmp_path: Path) -> None:
    app = make_app(DriverInstance(PutNeverUnmounts, None))
    chosen = ("--group", "life", "-k", "last_put_unmounts or has_rows")
    with running(app) as plugin:
        arguments = (plugin.path, "--home", roomy_folder(), *chosen)
        lax = conform(*arguments)
        strict = conform(*arguments, "--strict", "--junit-xml", tmp_path / "junit.xml")
    assert lax.of("differs") == strict.of("differs") == ["the_last_put_unmounts"]
    assert (lax.code, strict.code) == (0, 1)
    assert "in 1 choice it differs\n" in lax.said
    assert "in 1 choice it differs, which --strict takes for a failure\n" in strict.said
    suite = xml.etree.ElementTree.parse(str(tmp_path / "junit.xml")).getroot().find("testsuite")
    assert suite is not None
    assert suite.attrib["failures"] == "1"


@needs_root
def test_a_flood_of_one_fault_is_told_once() -> None:
    app = make_app(DriverInstance(NoRoom, None))
    with running(app) as plugin:
        run = conform(
            plugin.path, "--home", roomy_folder(), "--group", "life", "--group", "content"
        )
    failed = sum(check["outcome"] == "failed" for check in run.checks)
    assert failed > 80
    assert run.said.count("no room is left for layer") < 10
    assert re.search(r"the same in \d\d+ more checks: \d+ in life, \d+ in content", run.said)
    assert f"{failed} checks of what an engine needs failed" in run.said


@pytest.mark.parametrize("option", ["--json", "--junit-xml"])
def test_a_report_that_cannot_be_written_is_told_before_the_run(
    option: str, tmp_path: Path
) -> None:
    with running(make_app(DriverInstance(Overlay2, None))) as plugin:
        for place in (tmp_path / "none" / "report", tmp_path):
            run = conform(plugin.path, "--group", "life", option, place, report=None)
            assert run.code == 1
            assert (
                run.said
                == f"manuka: no report can be written to {place}: name a file in a folder\n"
            )


@needs_root
def test_groups_and_words_choose_checks(plugin: Running) -> None:
    run = conform(plugin.path, "--home", roomy_folder(), "--group", "life", "-k", "removing",
                  "-m", "needed")  # fmt: skip
    assert run.code == 0
    assert run.of("passed") == ["removing_a_child_leaves_the_parent", "removing_twice_is_no_error"]


@needs_root
def test_the_first_failure_can_be_the_last(faulty: Running) -> None:
    run = conform(faulty.path, "--home", roomy_folder(), "--group", "changes", "-x")
    assert run.code == 1
    assert len(run.of("failed")) == 1
    assert sum(check["outcome"] == "failed" for check in run.checks) == 1


@needs_root
def test_a_failure_is_told_with_its_rule_and_what_was_wrong(faulty: Running) -> None:
    run = conform(faulty.path, "--home", roomy_folder(), "--group", "changes",
                  "-k", "tell_what_was_done and moved")  # fmt: skip
    assert "FAILED changes: changes tell what was done[moved]" in run.said
    assert "rule: Changes are the files added, modified and deleted" in run.said
    assert "guide: docs/guide/2-calls.md#changes" in run.said
    assert "'/d/z': 'added'" in run.said
    assert "see: docs/conformance.md#changes-changes-tell-what-was-done" in run.said
    assert "1 check of what an engine needs failed" in run.said


@needs_root
def test_reports_for_machines_have_every_check(faulty: Running, tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    run = conform(faulty.path, "--home", roomy_folder(), "--group", "changes",
                  "-k", "size or moved", "--junit-xml", report)  # fmt: skip
    suite = xml.etree.ElementTree.parse(str(report)).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) == len(run.checks)
    assert int(suite.attrib["failures"]) == len(run.of("failed")) == 1
    check = next(check for check in run.checks if check["outcome"] == "failed")
    assert check["weight"] == "needed"
    assert check["rule"].startswith("Changes are the files")
    assert check["source"] == "engine, daemon/graphdriver/graphtest"
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert check["reason"] in str(failure.text)
    assert "assert " not in str(failure.text)


@needs_root
def test_pytests_own_options_are_passed_on(plugin: Running) -> None:
    run = conform(plugin.path, "--home", roomy_folder(), "--group", "errors", "-k", "unknown",
                  "-v", "--pytest=-k get_of_an")  # fmt: skip
    assert run.of("passed") == ["get_of_an_unknown_layer_is_an_error"]
    assert "check_get_of_an_unknown_layer_is_an_error PASSED" in run.said


@needs_root
def test_the_home_is_gone_afterwards_unless_it_is_to_be_kept(
    plugin: Running, tmp_path: Path
) -> None:
    chosen = ("--group", "life", "-k", "what_was_written_stays")
    assert conform(plugin.path, "--home", tmp_path, *chosen).code == 0
    assert list(tmp_path.iterdir()) == []
    assert conform(plugin.path, "--home", tmp_path, "--keep", *chosen).code == 0
    assert [str(path.name) for path in tmp_path.glob("*/home")] == ["home"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the plugin's socket"),
        (["s", "--group", "frob"], "--group: there is no 'frob'; there are handshake, life"),
        (["s", "--opt", "x"], "--opt: expected KEY=VALUE, got 'x'"),
        (["s", "--opt", "a=b", "--no-init"], "--opt goes with Init"),
        (["--list", "--group", "ids", "-k", "nosuchword"], "no check goes by these options"),
        (["--list", "--junit-xml", "x.xml"], "--junit-xml is a report of a run"),
        (["s", "--pytest", "'unclosed"], "--pytest: No closing quotation"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    capsys: pytest.CaptureFixture, arguments: list[str], said: str
) -> None:
    run = conform(*arguments)
    assert run.code == 2, run.said
    assert re.search(rf"manuka: .*{re.escape(said)}", run.said)


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan", "inf"])
def test_a_limit_has_to_be_a_time(seconds: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["conform", "s", "--timeout", seconds])
    assert ended.value.code == 2
