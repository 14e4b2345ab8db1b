"""The command `doctor`: what it finds, what it misses, and its exit code."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lacking import LackingDevice, LackingType
from networks import make_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

import fmboost_core
from fmboost_core.cli import app
from fmboost_core.cli.examine import compute, installation
from fmboost_core.cli.examine.finding import Finding, guarded
from fmboost_core.cli.examine.installation import OPTIONAL, REQUIRED, host_of
from fmboost_core.cli.examine.weights import weights
from fmboost_core.files import locate
from fmboost_core.files.checkpoint import save_model

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def named(findings: Iterable[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.name == name]


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = app.main(["doctor", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


# --- the whole command


def test_a_whole_installation_has_no_problem(capsys) -> None:
    code, report = doctor(capsys, "--device", "cpu")
    assert code == 0 and report["ok"] is True and report["seconds"] > 0
    found = {finding["name"]: finding for finding in report["findings"]}
    assert fmboost_core.__version__ in found["fmboost"]["found"] and str(ROOT) in found["fmboost"]["found"]
    assert found["python"]["found"].startswith(platform.python_version())
    assert torch.__version__ in found["torch"]["found"]
    assert found["chosen"]["figures"] == {"device": "cpu"}
    assert found["float32"]["figures"]["seconds"] > 0
    assert found["upscale"]["found"].startswith("64x64 to 128x128 by flux1-x2 on cpu in ")
    assert found["weights"]["figures"]["models"] == sorted(
        locate.bundled_models(), key=lambda name: f"{name}.safetensors"
    )
    assert found["packages"]["figures"]["einops"][0].isdigit()


def test_the_table_has_a_line_for_each_finding(capsys, monkeypatch) -> None:
    """Each begins with the finding's state; what is to be done is at its end."""
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    assert app.main(["doctor"]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"All that is needed works\. \d+\.\d s\.", verdict)
    assert all(line.split()[0] in ("ok", "note") for line in lines)
    assert [
        line for line in lines if line.startswith("note     torchdiffeq ") and line.endswith("pip install torchdiffeq")
    ]
    assert sum(line.startswith("ok       upscale ") for line in lines) == 1


@pytest.mark.parametrize("package", ["torch", "tqdm", "einops"])
def test_it_runs_without_what_everything_needs(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom fmboost_core.cli import main\nsys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem ")]
    advice = "pytorch.org/get-started/locally" if package == "torch" else "pip install "
    assert [line for line in problems if package in line and advice in line]
    assert "problem" in done.stdout.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_device_that_is_not_there_is_a_problem_that_lists_the_others(capsys) -> None:
    code, report = doctor(capsys, "--device", "nonsense")
    assert code == 1 and report["ok"] is False
    (chosen,) = (finding for finding in report["findings"] if finding["name"] == "chosen")
    assert chosen["state"] == "problem" and "choose one of auto, cpu" in chosen["found"]
    assert not [finding for finding in report["findings"] if finding["name"] in ("float32", "upscale")]


def test_an_unexpected_error_of_a_check_is_a_problem_with_advice() -> None:
    def check() -> Iterable[Finding]:
        yield Finding("first", "found")
        raise OSError("the driver\nis gone")

    first, last = guarded("types", check, "check the driver")
    assert (first.name, last.state) == ("first", "problem")
    assert last.text == "OSError: the driver; check the driver"


# --- packages


@pytest.mark.parametrize("package", [*REQUIRED, *OPTIONAL], ids=lambda package: package.pip)
def test_a_missing_package_is_named_with_its_purpose(package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package.module, None)
    (finding,) = named(installation.installation(), package.pip)
    assert finding.text == f"missing, for {package.purpose}; pip install {package.pip}"
    assert finding.state == ("problem" if package in REQUIRED else "note")


def test_a_package_without_metadata_is_there(monkeypatch, tmp_path) -> None:
    (tmp_path / "torchdiffeq.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(installation.metadata, "version", _no_version)
    findings = list(installation.installation())
    assert "torchdiffeq of an unknown version" in named(findings, "optional")[0].found
    assert not named(findings, "torchdiffeq")


def _no_version(name: str) -> str:
    raise installation.metadata.PackageNotFoundError(name)


def test_the_required_packages_are_those_of_the_project() -> None:
    """Those that pip installs, but for torch, and the two whose lack has messages of its own."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w-]+)>=', re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)[1])
    assert {package.pip for package in REQUIRED} == {*listed} - {"torch", "torchdiffeq", "huggingface_hub"}


def test_a_folder_that_takes_no_files_is_noted(monkeypatch, tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (finding,) = named(installation.installation(), "folder")
    assert finding.state == "note" and finding.text.endswith("name outputs elsewhere")


# --- hosts


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A folder for FMBoost in a ComfyUI without a version."""
    (tmp_path / "ComfyUI/custom_nodes/fmboost").mkdir(parents=True)
    return tmp_path / "ComfyUI/custom_nodes/fmboost"


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    (tmp_path / "webui/extensions/fmboost").mkdir(parents=True)
    return tmp_path / "webui/extensions/fmboost"


@pytest.mark.parametrize(
    "version, state",
    [("0.3.64", "ok"), ("0.33.0", "ok"), ("1.0.0", "ok"), ("0.3.63", "problem"), ("0.2.99", "problem")],
)
def test_comfyui_is_known_by_its_version(comfyui: Path, version: str, state: str) -> None:
    text = f'# This file is made by ComfyUI.\n__version__ = "{version}"\nraise SystemExit\n'
    (comfyui.parents[1] / "comfyui_version.py").write_text(text)
    finding = host_of(comfyui)
    assert finding.state == state and finding.found.startswith(f"ComfyUI {version} in {comfyui.parents[1]}")
    assert ("update ComfyUI to 0.3.64 or newer" in finding.text) == (state == "problem")


def test_comfyui_without_a_version_is_noted(comfyui: Path) -> None:
    finding = host_of(comfyui)
    assert finding.state == "note" and finding.text.endswith("update ComfyUI to 0.3.64 or newer")


def test_the_oldest_comfyui_is_the_one_of_the_registry() -> None:
    assert f'requires-comfyui = ">={installation.OLDEST_COMFYUI}"' in (ROOT / "pyproject.toml").read_text(
        encoding="utf-8"
    )


def test_automatic1111_is_known_by_its_changelog_and_git(extension: Path) -> None:
    host = extension.parents[1]
    (host / "CHANGELOG.md").write_text("## 1.10.1\n\n### Bug Fixes:\n* x\n\n## 1.10.0\n")
    assert host_of(extension).found == f"AUTOMATIC1111 1.10.1 in {host}"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"], ["tag", "v1.10.1"]):
        subprocess.run(["git", "-C", host, *identity, *words], check=True)
    assert host_of(extension).found == f"AUTOMATIC1111 1.10.1 (v1.10.1) in {host}"


def test_forge_is_known_by_its_own_version(extension: Path) -> None:
    host = extension.parents[1]
    (host / "CHANGELOG.md").write_text("## 1.10.1\n")
    (host / "modules_forge").mkdir()
    (host / "modules_forge/forge_version.py").write_text("version = 'f2.0.1v1.10.1-previous'\n")
    assert host_of(extension).found == f"Forge f2.0.1v1.10.1-previous in {host}"


def test_a_web_ui_without_a_version_is_noted(extension: Path) -> None:
    assert (host_of(extension).state, "unknown version" in host_of(extension).found) == ("note", True)


@pytest.mark.parametrize("broken", ["no git", "git refuses"])
def test_a_host_without_git_still_has_its_version(comfyui: Path, monkeypatch, tmp_path, broken: str) -> None:
    (comfyui.parents[1] / "comfyui_version.py").write_text("__version__ = '0.33.0'")
    (comfyui.parents[1] / ".git").mkdir()
    if broken == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert host_of(comfyui).found == f"ComfyUI 0.33.0 in {comfyui.parents[1]}"


def test_elsewhere_there_is_no_host() -> None:
    assert host_of(Path("/usr/lib/python3/site-packages")).found.startswith("none")


def test_site_packages_are_called_an_installation(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(installation, "ROOT", tmp_path / "site-packages")
    assert named(installation.installation(), "fmboost")[0].found.endswith(f"installed in {tmp_path / 'site-packages'}")


# --- weights


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch) -> Path:
    """A folder of weights with the published list, two models and a codec, the other files of the list left out."""
    original = locate.BUNDLED_MODELS.parent
    files = ("models/flux1-x2.safetensors", "models/sd15-x2-fast.safetensors", "codecs/sd15.safetensors")
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((original / file).read_bytes())
    index = (original / "README.md").read_text(encoding="utf-8")
    kept = [line for line in index.splitlines() if not line.startswith("    ") or line.split()[-1] in files]
    (tmp_path / "README.md").write_text("\n".join(kept), encoding="utf-8")
    monkeypatch.setattr(locate, "BUNDLED_MODELS", tmp_path / "models")
    return tmp_path


def faults(state: str = "problem") -> list[str]:
    return [finding.text for finding in weights() if finding.state == state]


def test_whole_files_are_one_line(bundle: Path) -> None:
    assert not faults()
    assert faults("ok") == ["2 models whole: flux1-x2, sd15-x2-fast; 1 codec whole: sd15"]


def test_a_pointer_of_git_lfs_is_told_in_the_loaders_words(bundle: Path, capsys) -> None:
    """The command fails, and so does its own picture."""
    file = bundle / "models/flux1-x2.safetensors"
    file.write_text(POINTER)
    code, report = doctor(capsys, "--device", "cpu")
    problems = {f["name"]: f["found"] for f in report["findings"] if f["state"] == "problem"}
    assert code == 1 and set(problems) == {"weights", "upscale"}
    sentence = f"{file} is a Git LFS pointer instead of the weights, which `git lfs pull` fetches"
    assert problems == {"weights": sentence, "upscale": sentence}


def test_a_cut_file_and_a_missing_one(bundle: Path) -> None:
    cut = bundle / "codecs/sd15.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    (bundle / "models/sd15-x2-fast.safetensors").unlink()
    codec, model = faults()
    assert re.fullmatch(rf"{re.escape(str(cut))} is damaged or cut short \(.+\); copy or download it again", codec)
    assert "sd15-x2-fast.safetensors is missing; restore it" in model
    assert faults("ok") == ["1 model whole: flux1-x2"]


def test_a_changed_file_that_can_be_loaded_is_not_the_published_one(bundle: Path) -> None:
    path = bundle / "models/sd15-x2-fast.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 1}, path, metadata)
    assert [text for text in faults() if "can be loaded, but is not the published file; restore it" in text]


def test_a_model_that_is_in_no_list_only_needs_to_load(bundle: Path) -> None:
    save_model(make_model(), bundle / "models/sd15-x3.safetensors")
    assert not faults() and "sd15-x3" in faults("ok")[0]
    (bundle / "models/sd15-x3.safetensors").write_bytes(b"")
    assert faults() == [f"{bundle}/models/sd15-x3.safetensors is empty; copy or download it again"]


def test_no_weights_at_all(bundle: Path, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(locate, "BUNDLED_MODELS", tmp_path / "elsewhere" / "models")
    assert faults() == [f"no models in {tmp_path / 'elsewhere'}; install FMBoost again"]


# --- PyTorch and devices


def build() -> Finding:
    return next(compute.compute("cpu"))


def test_a_build_for_gpus_that_finds_none_is_noted(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(compute, "present_devices", lambda: ["auto", "cpu"])
    assert (build().state, "built for CUDA 12.8, but it finds no GPU" in build().found) == ("note", True)
    monkeypatch.setattr(compute, "present_devices", lambda: ["auto", "cpu", "cuda:0"])
    assert build().state == "ok"


def test_a_build_for_rocm_is_named(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "built for ROCm 6.4" in build().found


def test_a_build_for_cpus_beside_a_driver_of_nvidia_is_noted(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build().state == "ok"
    (tmp_path / "nvidia-smi").write_text("")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert build().state == "note" and "install a build for CUDA" in build().text


def test_an_old_pytorch_is_a_problem(monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.0.1+cu118")
    assert (build().state, build().found.endswith("which is too old")) == ("problem", True)


def test_a_gpu_that_is_listed_but_broken_is_a_problem(monkeypatch, capsys) -> None:
    """PyTorch for CPUs has no CUDA at all, which is what a broken driver comes to."""
    if torch.version.cuda or torch.version.hip:
        pytest.skip("this PyTorch can use GPUs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    facts = SimpleNamespace(name="NVIDIA Imaginary", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    code, report = doctor(capsys)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert code == 1 and found["device"]["found"] == "cuda:0: NVIDIA Imaginary, 8.0 GiB"
    assert found["chosen"]["found"] == "cuda, by auto"
    assert found["types"]["state"] == "problem" and found["types"]["advice"].endswith("--device cpu")
    assert found["upscale"]["state"] == "problem"


def test_an_apple_gpu_is_described(monkeypatch) -> None:
    monkeypatch.setattr(compute, "present_devices", lambda: ["auto", "cpu", "mps"])
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * 2**30, raising=False)
    cpu, gpu = compute._devices()
    assert gpu.found == "mps: Apple GPU, 12.0 GiB" and cpu.found.startswith("cpu: ")


def test_main_memory_is_unknown_without_sysconf(monkeypatch) -> None:
    monkeypatch.delattr(os, "sysconf", raising=False)
    (cpu, *_) = compute._devices()
    assert cpu.figures["bytes"] is None and "GiB" not in cpu.found


def test_a_device_that_computes_has_its_types_and_its_picture(capsys) -> None:
    """A device without bfloat16 and without an operator of the network, which the CPU then does."""
    with LackingDevice(missing=("silu",), types=(torch.float64, torch.bfloat16)):
        code, report = doctor(capsys, "--device", "meta")
    found = {finding["name"]: finding for finding in report["findings"]}
    assert code == 0, report
    assert found["bfloat16"]["state"] == "note" and found["bfloat16"]["found"] == "not there on meta"
    assert found["float16"]["figures"]["float32"] > 0
    notes = [f["found"] for f in report["findings"] if (f["name"], f["state"]) == ("upscale", "note")]
    assert any("the CPU does it instead" in note for note in notes)


def test_a_type_that_the_cpu_lacks(capsys) -> None:
    with LackingType("convolution", torch.float16):
        (finding,) = named(compute.number_types(CPU), "float16")
    assert finding.text == "not there on cpu; leave --dtype at float32"


class Wrong(TorchDispatchMode):
    """Convolutions in one type give what they are told to."""

    def __init__(self, dtype: torch.dtype, change: Any) -> None:
        super().__init__()
        self.dtype, self.change = dtype, change

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        named_so = func.overloadpacket.__name__ == "convolution" and args[0].dtype == self.dtype
        return self.change(result) if named_so else result


def fails(result: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda result: result * torch.nan, "gives wrong numbers on cpu"),
        (lambda result: result * 1.2, "gives wrong numbers on cpu"),
        (fails, "fails (cuDNN error: CUDNN_STATUS_EXECUTION_FAILED) on cpu"),
    ],
)
def test_a_type_that_does_not_work_is_noted(change, found) -> None:
    with Wrong(torch.bfloat16, change):
        (finding,) = named(compute.number_types(CPU), "bfloat16")
    assert (finding.found, finding.state, finding.advice) == (found, "note", "leave --dtype at float32")


def test_float32_that_does_not_work_is_a_problem() -> None:
    with Wrong(torch.float32, lambda result: result * torch.nan):
        findings = list(compute.compute("cpu"))
    assert [finding.state for finding in named(findings, "types")] == ["problem"]
    assert "gives NaN; check the driver" in named(findings, "types")[0].found
    assert named(findings, "upscale")[0].state == "problem"


def test_a_slow_type_is_noted(monkeypatch) -> None:
    seconds = {torch.float32: 0.01, torch.bfloat16: 0.1, torch.float16: 0.002}

    def timed(work: Any, device: torch.device) -> tuple[float, torch.Tensor]:
        result = work()
        return seconds[result.dtype], result.float()

    monkeypatch.setattr(compute, "_timed", timed)
    findings = list(compute.number_types(CPU))
    (slow,), (fast,) = named(findings, "bfloat16"), named(findings, "float16")
    assert slow.text == "a convolution in 100.0 ms, 10 times as long as in float32; leave --dtype at float32"
    assert (slow.state, fast.state) == ("note", "ok") and "0.2 times as long" in fast.found
