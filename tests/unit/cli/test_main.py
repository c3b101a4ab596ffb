"""The command as a whole: its version, and errors that name the option."""

from __future__ import annotations

import errno
import time
from importlib.metadata import version
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.cli import main, options, serve
from vfio_user_xe.emulator.cli.errors import exit_code_of
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.cli.options import check_outputs
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import BootFailed, KernelError, MissingEnvironment, RootError
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, FunctionDescription
from vfio_user_xe.emulator.guest.served import ServedCardError
from vfio_user_xe.emulator.model.options import CardError
from vfio_user_xe.emulator.testing.lab import open_card
from vfio_user_xe.emulator.version import commit


def test_the_version_is_that_of_the_package_and_of_the_api() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    made_from = f" (commit {commit()})" if commit() else ""
    assert first.startswith(f"vfio-user-xe {version('vfio-user-xe')}{made_from}, ")
    assert first.endswith(f"plug-in API {API_VERSION[0]}.{API_VERSION[1]}")
    assert second.startswith("guest environment: ")


def test_the_cases_of_conformance_are_listed_without_a_server() -> None:
    result = CliRunner().invoke(app, ["conformance", "--list"])
    assert result.exit_code == 0
    assert "dma.file_io_reaches_a_file  [VFIO_USER_DMA_MAP]" in result.stdout


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        ("nosuch:-", '--trace nosuch:-: there is no trace category "nosuch" (allowed: all,'),
        ("mmio:/dev/null/f", "--trace mmio:/dev/null/f: /dev/null/f cannot be written"),
    ],
)
def test_a_wrong_trace_of_serve_names_the_option_and_what_is_wrong(
    trace: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = CliRunner().invoke(app, ["serve", "--model", "edu", "--socket-dir", str(tmp_path / "s"), "--trace", trace])
    assert result.exit_code == 2
    assert said in result.stderr + capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["conformance", "--case", "dma.*"], "name the server's socket by --socket, or give --list"),
        (["guest", "run", "--modules", "/tmp"], "--modules is for --kernel"),
        (["guest", "run", "--file", "tool"], "--file tool: want GUEST=HOST"),
        (["guest", "run", "--console", "/dev/null/c"], "--console /dev/null/c: cannot be written"),
        (["guest", "run", "--timeout", "-1"], "--timeout"),
        (["guest", "run", "--userland", "nosuch"], "there is no userland 'nosuch'"),
        (
            ["guest", "run", "--model", "edu", "--vfs", "0", "--kernel", "/nonexistent/k"],
            "kernel image /nonexistent/k: no such",
        ),
        (["scenario", "run", "--modules", "/tmp"], "--modules is for --kernel"),
        (["scenario", "run", "--junit", "/dev/null/j"], "--junit /dev/null/j: cannot be written: Not a directory"),
        (["scenario", "run", "--report", "/"], "--report /: cannot be written: Is a directory"),
        (["scenario", "run", "--consoles", "/dev/null/c"], "--consoles /dev/null/c: Not a directory"),
        (["igt", "run", "--igt", "/", "--modules", "/tmp"], "--modules is for --kernel"),
        (["igt", "run", "--igt", "/", "--junit", "/dev/null/j"], "--junit /dev/null/j: cannot be written"),
        (["suite", "run", "pyopencl", "--modules", "/tmp"], "--modules is for --kernel"),
        (["suite", "run", "pyopencl", "--junit", "/dev/null/j"], "--junit /dev/null/j: cannot be written"),
        (["conformance", "--socket", "/x", "--junit", "/dev/null/j"], "--junit /dev/null/j: cannot be written"),
        (["vram-map", "--socket-dir", "/x", "--png", "/dev/null/p"], "--png /dev/null/p: cannot be written"),
        (["qemu-args", "--socket-dir", "/x", "--memory", "foo"], "Invalid value for '--memory'"),
        (["vng-args", "--socket-dir", "/x", "--memory", "-5"], "Invalid value for '--memory'"),
        (["conformance", "--socket", "/x", "--timeout", "-1"], "--timeout"),
        (
            ["new", "device", "thing3", "--directory", "/etc/passwd"],
            "new device thing3: /etc/passwd/thing3: Not a directory",
        ),
        (["perfetto", "/nonexistent/t.jsonl"], "/nonexistent/t.jsonl: No such file or directory"),
        (["serve", "--socket-dir", "/x", "--ready-fd", "977"], "--ready-fd 977: no such descriptor is open"),
        (
            ["guest", "run", "--kernel", "/usr", "--", "true"],
            "kernel image /usr: is a folder; name arch/x86/boot/bzImage",
        ),
        (["guest", "run", "--kernel", "/dev/null", "--", "true"], "kernel image /dev/null: is no file"),
        (
            ["guest", "run", "--kernel", "6.18", "--modules", "/x", "--", "true"],
            "--modules /x is for an image of your own; the fetched kernel 6.18 has its modules",
        ),
        (["card", "/usr"], "/usr: is a folder, not a card file"),
        (["replay", "/nonexistent/r.gz"], "/nonexistent/r.gz: No such file or directory"),
        (
            ["control", "--socket-dir", "/x", "read", "address"],
            "address: want KEY=VALUE; 'control help command=read' shows",
        ),
    ],
)
def test_wrong_use_ends_with_2_before_anything_is_done(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert said in " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["status", "--socket-dir", "/nonexistent"],
            "vfio-user-xe: cannot connect to /nonexistent/control.sock: No such",
        ),
        (["qemu-args", "--socket-dir", "/nonexistent"], "no card is served in /nonexistent"),
    ],
)
def test_what_must_be_there_and_is_not_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr(options, "CARD_WAIT", 0)
    result = CliRunner().invoke(app, arguments)
    assert said in " ".join(result.stderr.split())
    assert result.exit_code == 1


def test_a_card_that_is_being_started_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    card = CardDescription("mine", "edu", [FunctionDescription("edu", "/run/edu.sock", 0, 0)])
    later = create_autospec(time)
    later.monotonic.return_value = 0.0
    later.sleep.side_effect = lambda seconds: card.write(tmp_path)
    monkeypatch.setattr(options, "time", later)
    assert options.served_cards([tmp_path]) == [card]
    assert f"waiting for a card in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["igt", "list", "--igt", "/nonexistent"], "/nonexistent holds no IGT test programs", 2),
        (
            ["guest", "run", "--kernel", "9.99"],
            "kernel 9.99 is not in the cache: vfio-user-xe guest fetch --kernel 9.99",
            1,
        ),
    ],
)
def test_what_an_environment_needs_besides_is_named(arguments: list[str], said: str, code: int) -> None:
    try:
        locate()
    except MissingEnvironment as missing:
        pytest.skip(str(missing))
    result = CliRunner().invoke(app, arguments)
    assert said in " ".join(result.stderr.split())
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServedCardError("the server ended with code 2", 2), 2),
        (ServedCardError("the server ended with code 1", 1), 1),
        (ServedCardError("the server was not ready within 30 s"), 1),
        (CardError("must be at least 1"), 2),
        (KernelError("no module nosuch"), 2),
        (RootError("neither a folder nor an image"), 2),
        (MissingEnvironment("no QEMU"), 1),
        (BootFailed("no answer"), 1),
    ],
)
def test_wrong_use_ends_with_2_and_a_failed_run_with_1(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code


def test_looking_whether_a_file_can_be_written_leaves_nothing_behind_and_harms_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("kept")
    check_outputs(junit=old, report=new, json=None)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert old.read_text() == "kept"


def test_a_card_answers_a_wrong_command_with_those_it_has() -> None:
    with open_card(["--model", "edu"]) as card:
        folder = str(card.folder)
        result = CliRunner().invoke(app, ["control", "--socket-dir", folder, "ledgre"])
        assert result.exit_code == 1
        assert result.stderr.startswith(
            'vfio-user-xe: there is no command "ledgre"; did you mean "ledger"?\nallowed: accesses, '
        )
        wrong = CliRunner().invoke(app, ["control", "--socket-dir", folder, "read", "function=edu"])
        assert wrong.stderr.endswith("allowed: function: str, space: str, address: int, length: int\n")
        # What the message itself lists is not told twice.
        twice = CliRunner().invoke(app, ["control", "--socket-dir", folder, "capabilities", "function=edw"])
        assert twice.stderr.count("edu") == 2


def test_a_socket_folder_whose_name_is_too_long_is_refused_before_it_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "between" / ("a" * 120)
    result = CliRunner().invoke(app, ["serve", "--model", "edu", "--socket-dir", str(folder)])
    assert result.exit_code == 1
    assert "choose a shorter --socket-dir" in result.stderr
    assert list(tmp_path.iterdir()) == []


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, BaseExceptionGroup("of trio", [ExceptionGroup("inner", [FULL])])])
def test_a_full_disk_is_told_in_a_line_whatever_was_being_written(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "find_plugins", create_autospec(main.find_plugins, side_effect=error))
    result = CliRunner().invoke(app, ["plugins", "list"])
    assert (result.exit_code, result.stderr) == (1, "vfio-user-xe: No space left on device\n")


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.EBADF, "Bad file descriptor")
    monkeypatch.setattr(main, "find_plugins", create_autospec(main.find_plugins, side_effect=error))
    assert CliRunner().invoke(app, ["plugins", "list"]).exception is error


@pytest.mark.parametrize("command", ["plug", "unplug"])
def test_a_guest_that_is_not_there_is_told_before_a_card_is_waited_for(command: str, tmp_path: Path) -> None:
    words = ["guest", command, "--qmp", str(tmp_path / "qmp"), "--socket-dir", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"vfio-user-xe: {tmp_path / 'qmp'}: No such file or directory; it is the socket of a running"
    )


RECORD = '{"time": 1.5, "category": "irq", "function": "pf", "event": "raise", "fields": {"vector": 0}}\n'


def test_a_trace_is_not_converted_into_itself(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(RECORD)
    (tmp_path / "link").symlink_to(trace)
    for target in (trace, tmp_path / "link"):
        result = CliRunner().invoke(app, ["perfetto", str(trace), str(target)])
        assert (result.exit_code, result.stderr) == (
            2,
            f"vfio-user-xe: {target} is the trace itself: name another file\n",
        )
    assert trace.read_text() == RECORD


@pytest.mark.parametrize(
    ("content", "said"), [("", "is empty: nothing was traced"), (RECORD + "no record\n", "line 2")]
)
def test_a_conversion_that_fails_leaves_what_was_there(content: str, said: str, tmp_path: Path) -> None:
    trace, out = tmp_path / "trace.jsonl", tmp_path / "out.json"
    trace.write_text(content)
    out.write_text("earlier")
    result = CliRunner().invoke(app, ["perfetto", str(trace), str(out)])
    assert result.exit_code == 2
    assert said in result.stderr
    assert out.read_text() == "earlier"
    assert sorted(tmp_path.iterdir()) == [out, trace]


def test_a_conversion_may_go_to_a_device(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(RECORD)
    assert CliRunner().invoke(app, ["perfetto", str(trace), "/dev/null"]).exit_code == 0
    assert Path("/dev/null").is_char_device()


def test_a_conversion_goes_through_a_link(tmp_path: Path) -> None:
    trace, out, link = tmp_path / "trace.jsonl", tmp_path / "out.json", tmp_path / "link"
    trace.write_text(RECORD)
    link.symlink_to(out)
    assert CliRunner().invoke(app, ["perfetto", str(trace), str(link)]).exit_code == 0
    assert link.is_symlink()
    assert "traceEvents" in out.read_text()


@pytest.mark.parametrize("name", ["trace.jsonl/x.json", "missing/x.json", f"{'x' * 260}.json"])
def test_a_target_that_cannot_be_is_named_as_it_was_written(name: str, tmp_path: Path) -> None:
    trace, target = tmp_path / "trace.jsonl", tmp_path / name
    trace.write_text(RECORD)
    result = CliRunner().invoke(app, ["perfetto", str(trace), str(target)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"vfio-user-xe: {target}: ")


def test_a_signal_before_a_command_begins_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        main, "end_as_ctrl_c_does", create_autospec(main.end_as_ctrl_c_does, side_effect=KeyboardInterrupt)
    )
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130


def test_too_few_descriptors_are_told_with_the_limit_to_raise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(serve, "Card", create_autospec(serve.Card, side_effect=full))
    result = CliRunner().invoke(app, ["serve", "--model", "edu", "--socket-dir", str(tmp_path / "s")])
    assert result.exit_code == 1
    assert "Too many open files: raise the limit of descriptors (ulimit -n)" in result.stderr
