"""The environment and --set over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configured import QUEUE, WORKER, mapped, problem, problems, settings


class TestEnvironment:
    def test_it_goes_over_the_file(self, tmp_path: Path) -> None:
        text = f"admin: {{listen: 127.0.0.1:1}}\n{mapped('BatchSize: 3')}"
        loaded = settings(
            tmp_path, text, {"BRIDGE_ADMIN__LISTEN": "127.0.0.1:2", "BRIDGE_MAPPINGS__orders__BatchSize": "5"}
        )
        assert (loaded.admin_port, loaded.mappings["orders"].batch_size) == (2, 5)

    @pytest.mark.parametrize(
        "variable",
        [
            "BRIDGE_MAPPINGS__ORDERS__BATCHSIZE",
            "BRIDGE_mappings__orders__batchsize",
            "BRIDGE_Mappings__Orders__BatchSize",
        ],
    )
    def test_case_does_not_matter(self, tmp_path: Path, variable: str) -> None:
        assert settings(tmp_path, mapped(), {variable: "5"}).mappings["orders"].batch_size == 5

    def test_nor_does_a_dash(self, tmp_path: Path) -> None:
        text = WORKER.replace("worker", "my-worker")
        assert (
            settings(tmp_path, text, {"BRIDGE_FUNCTIONS__MY_WORKER__TIMEOUT": "9"}).functions["my-worker"].timeout == 9
        )

    def test_names_that_differ_in_case_alone_need_their_own(self, tmp_path: Path) -> None:
        worker = WORKER.partition("worker: ")[2].rstrip("}\n")
        text = f"functions: {{one: {worker}}}, ONE: {worker}}}}}\n"
        loaded = settings(tmp_path, text, {"BRIDGE_FUNCTIONS__one__Timeout": "9"})
        assert (loaded.functions["one"].timeout, loaded.functions["ONE"].timeout) == (9, 3)
        found = problems(tmp_path, text, {"BRIDGE_FUNCTIONS__One__Timeout": "9"})
        assert found[0].startswith("BRIDGE_FUNCTIONS__One__Timeout: functions.One: Runtime is missing")

    @pytest.mark.parametrize(
        ("variable", "value", "field", "expected"),
        [
            ("BRIDGE_STATE", "memory:", "state", "memory:"),
            ("BRIDGE_SHUTDOWN_GRACE", "1.5", "shutdown_grace", 1.5),
            ("BRIDGE_MAX_BUFFERED_BYTES", "1GiB", "max_buffered_bytes", 1 << 30),
            ("BRIDGE_LOG", "{level: debug}", "log_level", "debug"),
            ("BRIDGE_LOG__LEVEL", "", "log_level", "info"),
            ("BRIDGE_ADMIN__LISTEN", "off", "admin_port", None),
            ("BRIDGE_ADMIN__TOKEN", "a:#{$x}", "admin_token", "a:#{$x}"),
            ("BRIDGE_ADMIN__TOKEN", "12", "admin_token", "12"),
            ("BRIDGE_ADMIN__TOKEN", "", "admin_token", None),
        ],
    )
    def test_values(self, tmp_path: Path, variable: str, value: str, field: str, expected: object) -> None:
        assert getattr(settings(tmp_path, mapped(), {variable: value}), field) == expected

    def test_flow_values(self, tmp_path: Path) -> None:
        filters = '{Filters: [{Pattern: {body: {a: [1]}}}, {Pattern: "{\\"body\\": {\\"a\\": [2]}}"}]}'
        environ = {
            "BRIDGE_MAPPINGS__orders__FilterCriteria": filters,
            "BRIDGE_MAPPINGS__orders__FunctionResponseTypes": "[ReportBatchItemFailures]",
        }
        mapping = settings(tmp_path, mapped(), environ).mappings["orders"]
        assert len(mapping.patterns) == 2
        assert mapping.partial

    def test_variables_of_handlers(self, tmp_path: Path) -> None:
        environ = {
            "BRIDGE_FUNCTIONS__worker__Environment__Variables__A_B": "x: {y",
            "BRIDGE_FUNCTIONS__worker__Environment__Variables__EMPTY": "",
        }
        assert settings(tmp_path, WORKER, environ).functions["worker"].environment == {"A_B": "x: {y", "EMPTY": ""}

    def test_it_may_make_what_the_file_has_not(self, tmp_path: Path) -> None:
        environ = {
            "BRIDGE_MAPPINGS__new__FunctionName": "worker",
            "BRIDGE_MAPPINGS__new__EventSourceArn": "arn:aws:sqs:eu-west-1:123456789012:new",
        }
        loaded = settings(tmp_path, WORKER, environ)
        assert loaded.mappings["new"].source_arn.resource == "new"

    def test_a_switched_off_admin_stays_off_with_a_token(self, tmp_path: Path) -> None:
        loaded = settings(tmp_path, f"admin: off\n{mapped()}", {"BRIDGE_ADMIN__TOKEN": "x"})
        assert (loaded.admin_port, loaded.admin_token) == (None, "x")

    @pytest.mark.parametrize(
        "variable",
        ["BRIDGE_PORT", "BRIDGE_SERVICE_HOST", "BRIDGE_PORT_9464_TCP", "BRIDGE_ADMIN_TOKEN", "BRIDGE_ADMIN",
         "BRIDGE_CONFIG", "BRIDGE_REQUIRE", "BRIDGES__X", "MY_BRIDGE_STATE"],
    )  # fmt: skip
    def test_variables_of_others_are_left_alone(self, tmp_path: Path, variable: str) -> None:
        assert settings(tmp_path, mapped(), {variable: "tcp://10.0.0.1:80"}).mappings

    @pytest.mark.parametrize(
        ("variable", "value", "expected"),
        [
            ("BRIDGE_ADMIN__LISTN", "x", 'admin.LISTN: unknown option; did you mean "listen"?'),
            ("BRIDGE_FOO__BAR", "x", "FOO: unknown option; known are: aws, "),
            (
                "BRIDGE_LOG__LEVEL__MORE",
                "x",
                "log.level: expected debug or info or warning or error, got options below it",
            ),
            (
                "BRIDGE_MAPPINGS__orders__BatchSize",
                "many",
                'mappings.orders.BatchSize: expected a whole number, got "many"',
            ),
            ("BRIDGE_MAPPINGS__orders__BatchSize", "20000", "mappings.orders.BatchSize: 20000 is more than 10000"),
            (
                "BRIDGE_MAPPINGS__orders__StartingPosition",
                "LATEST",
                "mappings.orders.StartingPosition: no option of SQS",
            ),
            ("BRIDGE_MAPPINGS__orders__FilterCriteria", "{", "mappings.orders.FilterCriteria: broken YAML: "),
            ("BRIDGE_LOG__LEVEL", "\udcff", "log.level: contains a NUL character, or bytes that are not UTF-8"),
            ("BRIDGE_SHUTDOWN_GRACE", "\udcff", "shutdown_grace: broken YAML: it is not valid Unicode text"),
        ],
    )
    def test_what_is_wrong_names_the_variable(self, tmp_path: Path, variable: str, value: str, expected: str) -> None:
        assert problem(tmp_path, mapped(), {variable: value}).startswith(f"{variable}: {expected}")

    def test_an_alias_in_the_file_is_not_written_through(self, tmp_path: Path) -> None:
        text = f"""{WORKER}mappings:
  a: {{FunctionName: worker, EventSourceArn: '{QUEUE}', aws: &aws {{profile: dev}}}}
  b: {{FunctionName: worker, EventSourceArn: '{QUEUE}2', aws: *aws}}
"""
        loaded = settings(tmp_path, text, {"BRIDGE_MAPPINGS__a__aws__profile": "other"})
        assert [mapping.aws.profile for mapping in loaded.mappings.values()] == ["other", "dev"]


class TestSets:
    def test_they_go_over_the_environment_and_the_later_over_the_earlier(self, tmp_path: Path) -> None:
        environ = {"BRIDGE_MAPPINGS__orders__BatchSize": "5"}
        sets = ["mappings.orders.BatchSize=6", "mappings.orders.BatchSize=7", "shutdown_grace=1"]
        loaded = settings(tmp_path, mapped("BatchSize: 4"), environ, sets)
        assert (loaded.mappings["orders"].batch_size, loaded.shutdown_grace) == (7, 1.0)

    @pytest.mark.parametrize(
        ("assignment", "field", "expected"),
        [
            ("admin=off", "admin_port", None),
            ("admin.listen=off", "admin_port", None),
            ("admin={listen: '[::1]:7'}", "admin_host", "::1"),
            ("admin.token=a=b", "admin_token", "a=b"),
            ("log.level=error", "log_level", "error"),
            ("log.level=", "log_level", "info"),
        ],
    )
    def test_values(self, tmp_path: Path, assignment: str, field: str, expected: object) -> None:
        assert getattr(settings(tmp_path, mapped(), {}, [assignment]), field) == expected

    @pytest.mark.parametrize(
        ("assignment", "expected"),
        [
            ("x", "--set x: expected path=value, such as mappings.orders.BatchSize=5"),
            ("=5", "--set : expected path=value"),
            ("mappings.orders.batchsize=5",
             '--set mappings.orders.batchsize: mappings.orders.batchsize: unknown option; did you mean "BatchSize"?'),
            ("admin.token=a b", "--set admin.token: admin.token: expected visible ASCII characters without spaces"),
            ("mappings.orders.BatchSize=[",
             "--set mappings.orders.BatchSize: mappings.orders.BatchSize: broken YAML: "),
            ("mappings.orders.FilterCriteria.Filters=[{Pattern: x}]",
             "--set mappings.orders.FilterCriteria.Filters: mappings.orders.FilterCriteria.Filters[0].Pattern: I"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_names_the_option(self, tmp_path: Path, assignment: str, expected: str) -> None:
        assert problem(tmp_path, mapped(), {}, [assignment]).startswith(expected)
