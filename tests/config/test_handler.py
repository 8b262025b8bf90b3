"""The handler is looked for without running it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.configured import RUNTIME, problem, settings, warnings, write


def config(handler: str, options: str = "") -> str:
    return f"functions: {{worker: {{Runtime: {RUNTIME}, Handler: '{handler}', CodeUri: code, {options}}}}}\n"


@pytest.fixture(autouse=True)
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "pack").mkdir()
    (folder / "app.py").write_text("def handler(event, context): ...\n")
    (folder / "deep" / "er" / "my-app.py").write_text("async def handler(event, context): ...\n")
    (folder / "pack" / "__init__.py").write_text("from .inner import handler\n")
    return folder


def advice(folder: Path, handler: str, options: str = "") -> list[str]:
    return [line for line in warnings(folder, config(handler, options)) if "Handler" in line]


@pytest.mark.parametrize("handler", ["app.handler", "deep.er.my-app.handler", "deep/er/my-app.handler", "pack.handler"])
def test_files_and_packages(tmp_path: Path, handler: str) -> None:
    assert advice(tmp_path, handler) == []


@pytest.mark.parametrize(
    "handler", ["app", "app.", ".handler", "app.1x", "../app.handler", "a b.handler", "app..handler", "app:handler"]
)
def test_what_is_none(tmp_path: Path, handler: str) -> None:
    assert "is no handler; expected MODULE.FUNCTION, such as app.handler" in problem(tmp_path, config(handler))


def test_a_missing_file_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    found = problem(tmp_path, config("apps.handler"))
    assert found.startswith('bridge.yaml:1: functions.worker.Handler: "apps.handler": no such file ')
    assert found.endswith('apps.py; did you mean "app"?')


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    assert "no such file" in problem(tmp_path, config("nowhere.app.handler"))
    assert "no such file" in problem(tmp_path, config(f"{'x' * 300}.handler"))


def test_the_code_is_never_run(tmp_path: Path, code: Path) -> None:
    (code / "app.py").write_text("raise SystemExit(f'{open(__file__).read()}')\ndef handler(event, context): ...\n")
    assert advice(tmp_path, "app.handler") == []


def test_a_missing_attribute_is_advice_with_the_nearest(tmp_path: Path) -> None:
    (line,) = advice(tmp_path, "app.handlr")
    assert line.endswith('app.py has no handlr; every invocation will fail; did you mean "handler"?')


@pytest.mark.parametrize(
    "source",
    [
        "handler = lambda event, context: None",
        "handler: object = print",
        "first, (handler, *rest) = f()",
        "from x import handler",
        "from x import other as handler",
        "import handler.inner",
        "from x import *",
        "def __getattr__(name): ...",
        "class handler: ...",
        "if True:\n    def handler(e, c): ...",
        "try:\n    from a import handler\nexcept ImportError:\n    handler = None",
        "with x() as handler: ...",
        "for handler in []: ...",
        "(handler := 5)",
        'x = "\\d"\nhandler = x',
    ],
)
def test_whatever_binds_the_name_will_do(tmp_path: Path, code: Path, source: str) -> None:
    (code / "app.py").write_text(source)
    assert advice(tmp_path, "app.handler") == []


@pytest.mark.parametrize(
    "source", ["def f():\n    handler = 5", "class A:\n    handler = 5", "x = handler", "import x.handler"]
)
def test_what_binds_it_elsewhere_will_not(tmp_path: Path, code: Path, source: str) -> None:
    (code / "app.py").write_text(source)
    assert len(advice(tmp_path, "app.handler")) == 1


def test_broken_syntax_is_advice_under_our_interpreter_only(tmp_path: Path, code: Path) -> None:
    (code / "app.py").write_text("def handler(event, context)\n    pass\n")
    (line,) = advice(tmp_path, "app.handler")
    assert "app.py, line 1: expected ':'; every invocation will fail" in line
    assert advice(tmp_path, "app.handler", f"python: {sys.executable}") == []


@pytest.mark.parametrize("source", [b"\0", b"\xff\xfe", b"(" * 3000 + b")" * 3000])
def test_no_source_breaks_the_check(tmp_path: Path, code: Path, source: bytes) -> None:
    (code / "app.py").write_bytes(source)
    assert len(advice(tmp_path, "app.handler")) == 1


def test_a_compiled_module_will_do(tmp_path: Path, code: Path) -> None:
    (code / "fast.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    assert advice(tmp_path, "fast.handler") == []


def test_an_installed_wrapper_will_do(tmp_path: Path) -> None:
    assert advice(tmp_path, "msgspec.handler") == []
    venv = tmp_path / "venv"
    (venv / "lib" / "python3.12" / "site-packages" / "wrapper").mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to(sys.executable)
    assert advice(tmp_path, "wrapper.inner.handler", "python: venv/bin/python") == []
    assert "no such file" in problem(tmp_path, config("wrap.handler", "python: venv/bin/python"))


def test_a_path_of_its_own_is_trusted(tmp_path: Path) -> None:
    text = config("elsewhere.handler", "Environment: {Variables: {PYTHONPATH: /opt/python}}")
    write(tmp_path, text)
    assert settings(tmp_path, text).functions["worker"].handler == "elsewhere.handler"
