"""Devices that lack an operator or a number type: the step is done elsewhere, once with a note."""

import pytest
import torch
from lacking import DEVICE, LackingDevice, LackingType
from networks import make_model

from fmboost_core import fallback
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import collected_warnings, is_out_of_memory
from fmboost_core.fallback import is_unsupported, move, with_fallback
from fmboost_core.model import Model
from fmboost_core.networks.config import UNetConfig
from fmboost_core.sampling.upscaler import boost, upscale_image

CPU = torch.device("cpu")
# What PyTorch's builds for Apple devices lacked from 2.1 on, some of it up to 2.6.
APPLE = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "upsample_bicubic2d", "_upsample_nearest_exact2d")
# With all that a network can be conditioned on.
FULL = UNetConfig(
    base=32, multipliers=(1, 1), res_blocks=1, norm="channel", attention_rates=(), heads=1, head_width=8, classes=2,
    noise_level=True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "_found", {})


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 13, 18, generator=torch.Generator().manual_seed(3)) * 2 - 1


def flow_model() -> Model:
    return make_model(FULL, noise_steps=(100, 700))


def upscaled(
    image: torch.Tensor, codec: TinyVAE, device: torch.device, model: Model | None = None, **keywords: object
) -> torch.Tensor:
    """Twice as large, with the model and the codec on the device."""
    model = (model or flow_model()).to(device)
    common = {"nfe": 1, "noise_step": 400} | keywords
    large = upscale_image(image.to(device), model, codec.to(device), **common)
    assert large.device == device
    return large.cpu()


def test_without_apples_missing_operators_the_picture_is_the_same(image: torch.Tensor, codec: TinyVAE) -> None:
    expected = upscaled(image, codec, CPU)
    with collected_warnings() as notes, LackingDevice(APPLE) as device:
        twice = [upscaled(image, codec, DEVICE) for _ in range(2)]
    assert all(torch.equal(found, expected) for found in twice)
    assert notes == [
        f"{kind} resizing is not possible on meta in float32 (The operator 'aten::{name}.out' is not currently "
        "implemented for the MPS device), so the CPU does it instead."
        for kind, name in (("Antialiased bilinear", APPLE[0]), ("Bicubic", APPLE[2]))
    ]
    assert device.seen["convolution"] and device.seen["upsample_bilinear2d"]  # what it can do, it does


# Every device has these: copies, views, arithmetic of single positions, and what makes tensors.
BASIC = {
    "_to_copy", "add", "add_", "alias", "as_strided", "bmm", "cat", "clamp", "clone", "copy_", "detach", "div",
    "empty", "expand", "fill_", "full", "lift_fresh", "linspace", "mul", "new_empty", "permute", "reshape", "rsub",
    "select", "slice", "split", "sqrt", "stack", "sub", "t", "transpose", "unbind", "unsqueeze", "view",
    "_local_scalar_dense", "_unsafe_view", "zeros", "new_tensor", "squeeze", "split_with_sizes",
}  # fmt: skip


def test_whichever_operator_a_device_lacks_the_picture_is_the_same(image: torch.Tensor, codec: TinyVAE) -> None:
    """One at a time, each operator of the whole way from image to image and from latent to latent."""

    model = flow_model()

    def both(device: torch.device) -> list[torch.Tensor]:
        latent = torch.linspace(-1, 1, 4 * 9 * 6).view(1, 4, 9, 6).to(device)
        large = boost(latent, model.to(device), codec.to(device), scale=1.5, nfe=1, upsample="nearest")
        return [upscaled(image, codec, device, model), large.cpu()]

    expected = both(CPU)
    with LackingDevice() as device:
        both(DEVICE)
    tried = sorted(set(device.seen) - BASIC)
    assert len(tried) > 15
    for name in tried:
        fallback._found.clear()
        with collected_warnings() as notes, LackingDevice([name]):
            found = both(DEVICE)
        for ours, right in zip(found, expected, strict=True):
            assert torch.allclose(ours, right, atol=1e-5), name
        assert any(f"aten::{name}" in note for note in notes), name


def test_an_adaptive_solver_needs_no_double_precision(image: torch.Tensor, codec: TinyVAE) -> None:
    pytest.importorskip("torchdiffeq")
    expected = upscaled(image, codec, CPU, solver="bosh3", tolerance=0.1)
    with collected_warnings() as notes, LackingDevice() as device:
        found = upscaled(image, codec, DEVICE, solver="bosh3", tolerance=0.1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert len(notes) == 1 and "The solver bosh3 is not possible on meta" in notes[0]
    assert device.seen["convolution"] > 30  # the network stays on its device


def test_half_precision_is_widened_where_the_cpu_lacks_a_convolution(image: torch.Tensor, codec: TinyVAE) -> None:
    model, expected = flow_model(), upscaled(image, codec, CPU)
    with collected_warnings() as notes, LackingType("convolution", torch.float16):
        model.to(dtype=torch.float16)
        codec.half()
        found = upscale_image(image, model, codec, nfe=1, noise_step=400)
    assert (found - expected).abs().max() < 0.02  # the weights were rounded
    assert model.dtype == torch.float32 and found.dtype == torch.float32
    assert [note.split(" is not")[0] for note in notes] == ["Encoding", "The network", "Decoding"]
    assert all(note.endswith("so it is done in float32.") for note in notes)


def test_a_type_that_a_device_lacks_becomes_single_precision(codec: TinyVAE) -> None:
    with collected_warnings() as notes, LackingDevice(types=[torch.bfloat16]):
        model = make_model().to(DEVICE, torch.bfloat16)
        move(codec, DEVICE, torch.bfloat16)
        assert model.dtype == torch.float32 and model.device == DEVICE
        assert next(codec.parameters()).dtype == torch.float32
    assert len(notes) == 1 and "bfloat16" in notes[0] and notes[0].endswith("so it is done in float32.")


@pytest.mark.parametrize(
    "said",
    [
        "Could not run 'aten::nonzero' with arguments from the 'PrivateUse1' backend.",
        "The GPU device does not support Double (Float64) operations!",
        "Required aspect fp64 is not supported on the device",
        "BFloat16 is not supported on MPS",
        "MPS BFloat16 is only supported on MacOS 14 or newer",
        "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(handle)`",
        "\"addmm_impl_cpu_\" not implemented for 'Half'",
    ],
)
def test_what_devices_say_of_what_they_lack(said: str) -> None:
    assert is_unsupported(RuntimeError(said))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "MPS backend out of memory (MPS allocated: 5 GB)",
        "Could not allocate tensor with 536870912 bytes. There is not enough GPU video memory available!",
        "XPU out of memory, please use `empty_cache` to release all unoccupied cached memory.",
        "Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_is_another_matter(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said)) and not is_unsupported(RuntimeError(said))


def test_other_errors_are_raised_from_where_they_were() -> None:
    calls: list[torch.device] = []

    def wrong(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.device)
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    with LackingDevice(), pytest.raises(RuntimeError, match="must match"):
        with_fallback("a step", wrong, torch.zeros(3).to(DEVICE))
    assert calls == [DEVICE]


def test_what_the_cpu_cannot_do_either_is_its_own_error_without_a_note() -> None:
    def never(x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("nowhere")

    with collected_warnings() as notes, LackingDevice(), pytest.raises(NotImplementedError, match="nowhere"):
        with_fallback("a step", never, torch.zeros(3).to(DEVICE))
    assert not notes
