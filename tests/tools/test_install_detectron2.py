"""The Detectron2 installer, on a tiny made-up source distribution and made-up installations."""

import hashlib
import importlib.util
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "install_detectron2.py"


@pytest.fixture
def tool() -> ModuleType:
    """The tool as a fresh module, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location("install_detectron2_under_test", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sdist(tmp_path: Path, tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source distribution of one module, pinned, with a table of one replacement."""
    source = tmp_path / "tiny-0.5" / "detectron2"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("import numpy as np\nINT = np.int\nLONG = np.int64\n")
    path = tmp_path / "tiny-0.5.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source.parent, "tiny-0.5")
    monkeypatch.setattr(tool, "SDIST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    table = (tool.Replacement("detectron2/__init__.py", "np.int", "int", 1),)
    monkeypatch.setattr(tool.apply_replacements, "__defaults__", (table,))
    return path


def fake_detectron2(folder: Path, init: str) -> Path:
    """Write a package named detectron2 with an empty ``modeling`` into ``folder``."""
    package = folder / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(init)
    (package / "modeling.py").write_text("")
    return package


def run_tool(path: Path | None, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the tool without the site-packages, so that only ``path`` can hold a Detectron2."""
    environment = {"PYTHONPATH": str(path)} if path else {}
    command = [sys.executable, "-S", str(TOOL), *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def assert_one_error_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("install_detectron2: error: ")
    for part in parts:
        assert part in line


class TestReplacements:
    def test_whole_words_only(self, tool: ModuleType, tmp_path: Path) -> None:
        before = "np.int, np.int64, np.integer, my_np.int, a.np.int, (np.int)\n"
        (tmp_path / "a.py").write_text(before)
        tool.apply_replacements(tmp_path, (tool.Replacement("a.py", "np.int", "int", 2),))
        after = "int, np.int64, np.integer, my_np.int, a.np.int, (int)\n"
        assert (tmp_path / "a.py").read_text() == after

    def test_text_is_literal_and_may_span_lines(self, tool: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text("f(\n  x.y,\n)\nf(\n  xxy,\n)\n")
        replacement = tool.Replacement("a.py", "f(\n  x.y,\n)\n", "g('\\1\\n')\n", 1)
        tool.apply_replacements(tmp_path, (replacement,))
        assert (tmp_path / "a.py").read_text() == "g('\\1\\n')\nf(\n  xxy,\n)\n"

    @pytest.mark.parametrize("expected", [0, 1, 3])
    def test_other_count_is_an_error(self, tool: ModuleType, tmp_path: Path, expected: int) -> None:
        (tmp_path / "a.py").write_text("np.int np.int")
        table = (tool.Replacement("a.py", "np.int", "int", expected),)
        with pytest.raises(
            tool.InstallError, match=rf"a\.py: expected 'np\.int' {expected} times, found it 2"
        ):
            tool.apply_replacements(tmp_path, table)
        assert (tmp_path / "a.py").read_text() == "np.int np.int"

    def test_missing_file_is_an_error(self, tool: ModuleType, tmp_path: Path) -> None:
        table = (tool.Replacement("gone.py", "np.int", "int", 1),)
        with pytest.raises(tool.InstallError, match=r"gone\.py: not in the source distribution"):
            tool.apply_replacements(tmp_path, table)


class TestPrepareSource:
    def test_unpacks_replaces_and_puts_the_stub(
        self, tool: ModuleType, sdist: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        root = tool.prepare_source(sdist, tmp_path / "out")
        assert root == tmp_path / "out" / "tiny-0.5"
        text = (root / "detectron2" / "__init__.py").read_text()
        assert text == "import numpy as np\nINT = int\nLONG = np.int64\n"
        assert (root / "detectron2" / "_C.py").read_text() == tool.STUB

    def test_wrong_hash_is_an_error_before_unpacking(
        self, tool: ModuleType, sdist: Path, tmp_path: Path
    ) -> None:
        with sdist.open("ab") as file:
            file.write(b"\0")
        (tmp_path / "out").mkdir()
        digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
        with pytest.raises(
            tool.InstallError, match=f"sha256 is {digest}, expected {tool.SDIST_SHA256}"
        ):
            tool.prepare_source(sdist, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())

    def test_mismatch_stops_the_build(
        self, tool: ModuleType, sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = (tool.Replacement("detectron2/__init__.py", "np.float", "float", 1),)
        monkeypatch.setattr(tool.apply_replacements, "__defaults__", (table,))
        (tmp_path / "out").mkdir()
        with pytest.raises(tool.InstallError, match="found it 0 times"):
            tool.prepare_source(sdist, tmp_path / "out")


class TestStub:
    @pytest.fixture
    def stub(self, tool: ModuleType, tmp_path: Path) -> ModuleType:
        (tmp_path / "_C.py").write_text(tool.STUB)
        spec = importlib.util.spec_from_file_location("detectron2._C", tmp_path / "_C.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_use_says_what_is_missing_and_who_has_it(self, stub: ModuleType) -> None:
        with pytest.raises(
            AttributeError, match=r"_C\.nms_rotated: .*lacks the compiled ops.*official Detectron2"
        ):
            stub.nms_rotated(None)

    def test_feature_tests_say_no(self, stub: ModuleType) -> None:
        assert not hasattr(stub, "COCOevalEvaluateImages")

    def test_answers_the_environment_report(self, stub: ModuleType) -> None:
        assert stub.has_cuda() is False
        assert "pure-Python" in stub.get_compiler_version()
        assert "pure-Python" in stub.get_cuda_version()


class TestCommandLine:
    @pytest.mark.parametrize("version", ["0.5", "0.6", "1.0.dev3"])
    def test_leaves_an_existing_detectron2_alone(self, tmp_path: Path, version: str) -> None:
        package = fake_detectron2(tmp_path, f"__version__ = {version!r}\n")
        before = sorted(package.iterdir())
        result = run_tool(tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"Detectron2 {version} is there, in {package}: nothing to do\n"
        assert [p for p in sorted(package.iterdir()) if p.name != "__pycache__"] == before

    def test_too_old_a_detectron2_is_an_error(self, tmp_path: Path) -> None:
        package = fake_detectron2(tmp_path, "__version__ = '0.4.1'\n")
        assert_one_error_line(run_tool(tmp_path), str(package), "0.4.1", "0.5 or newer")

    def test_broken_detectron2_is_not_overwritten(self, tmp_path: Path) -> None:
        package = fake_detectron2(tmp_path, "raise ImportError('undefined symbol')\n")
        result = run_tool(tmp_path)
        assert_one_error_line(result, str(package), "undefined symbol", "pip uninstall detectron2")

    def test_a_mere_folder_is_no_detectron2(self, tmp_path: Path) -> None:
        (tmp_path / "detectron2").mkdir()
        result = run_tool(tmp_path, "--sdist", "x.tar.gz")
        assert "No Detectron2 for" in result.stdout

    def test_names_what_the_build_needs_first(self) -> None:
        assert_one_error_line(run_tool(None), "needs torch, setuptools, wheel first")

    def test_missing_sdist(self, tmp_path: Path) -> None:
        for name in ("torch", "setuptools", "wheel"):
            (tmp_path / f"{name}.py").write_text("")
        result = run_tool(tmp_path, "--sdist", "nowhere.tar.gz")
        assert_one_error_line(result, "--sdist nowhere.tar.gz: no such file")

    def test_wrong_hash(self, tmp_path: Path) -> None:
        for name in ("torch", "setuptools", "wheel"):
            (tmp_path / f"{name}.py").write_text("")
        (tmp_path / "x.tar.gz").write_bytes(b"")
        result = run_tool(tmp_path, "--sdist", str(tmp_path / "x.tar.gz"))
        # The sha256 of nothing.
        assert_one_error_line(
            result, "x.tar.gz: sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4"
        )

    def test_old_python(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
        monkeypatch.setattr(sys, "argv", [str(TOOL)])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(TOOL), run_name="__main__")
        assert exit_info.value.code == 1
        assert "Python 3.10 or newer is needed" in capsys.readouterr().err


class TestPip:
    """pip itself is replaced: what the tool makes of its failures."""

    @pytest.fixture
    def failing_pip(
        self, tool: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> subprocess.CompletedProcess[str]:
        failure = subprocess.CompletedProcess([], 1, stdout="", stderr="")
        monkeypatch.setattr(tool.subprocess, "run", lambda *args, **kwargs: failure)
        return failure

    def test_no_network(self, tool, tmp_path, failing_pip) -> None:
        failing_pip.stderr = (
            "WARNING: Retrying (Retry(total=1)) after connection broken\n"
            "ERROR: Could not find a version that satisfies the requirement detectron2-cdo==0.5\n"
            "ERROR: No matching distribution found\n"
        )
        with pytest.raises(tool.InstallError) as error_info:
            tool.download_sdist(tmp_path)
        message = str(error_info.value)
        assert "\n" not in message
        assert "network connection" in message
        assert "Could not find a version" in message

    def test_hash_mismatch_of_the_download(self, tool, tmp_path, failing_pip) -> None:
        failing_pip.stderr = (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
            "    Expected sha256 a\n         Got        b\n"
        )
        with pytest.raises(tool.InstallError, match=f"not have the sha256 {tool.SDIST_SHA256}"):
            tool.download_sdist(tmp_path)

    def test_download_is_pinned_by_hash(self, tool, tmp_path, monkeypatch) -> None:
        commands = []

        def run(command, **kwargs):
            commands.append(command)
            (tmp_path / "detectron2_cdo-0.5.tar.gz").write_bytes(b"")
            return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

        monkeypatch.setattr(tool.subprocess, "run", run)
        assert tool.download_sdist(tmp_path).name == "detectron2_cdo-0.5.tar.gz"
        (command,) = commands
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--require-hashes" in command
        requirement = Path(command[command.index("-r") + 1]).read_text()
        assert requirement == f"detectron2-cdo==0.5 --hash=sha256:{tool.SDIST_SHA256}\n"
