"""The training loop: learning, exact resumption after an interrupt, and division of a step over processes."""

import math
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from networks import TINY, randomised
from torch import Tensor, nn

from fmboost_core.errors import CheckpointError, ConfigError, FileError, NonFiniteError
from fmboost_core.networks.unet import LatentUNet
from fmboost_core.sampling.schedule import alpha_bar
from fmboost_core.training.loop import FREE, Trainer, step_generator
from fmboost_core.training.losses.flow_matching import CouplingFlow
from fmboost_core.training.losses.objective import Examples
from fmboost_core.training.sections import LoopSection
from fmboost_core.training.start import freeze
from fmboost_core.training.task import conditioned

BATCH = 8
ROOT = Path(__file__).parents[1]


def draw(batch: int, generator: torch.Generator) -> Examples:
    """The high latent is 2 guide + 1."""
    guide = torch.randn(batch, 4, 4, 4, generator=generator)
    noise = torch.randn(batch, 2, 4, 4, 4, generator=generator)
    times = torch.rand(batch, generator=generator)
    signals = torch.full((batch,), alpha_bar(400))
    high, kinds = 2 * guide + 1, torch.zeros(batch, dtype=torch.long)
    return Examples(high, guide, kinds, signals, noise, times, times, high)


def loss(network: nn.Module, *parts: Tensor) -> Tensor:
    drawn = Examples(*parts)
    predict = conditioned(network, TINY, drawn.kind, drawn.alpha_bar)
    return CouplingFlow(alpha_bar(400)).loss(predict, drawn)


def make_trainer(random: bool = True, **changes: object) -> Trainer[LatentUNet]:
    torch.manual_seed(0)
    network = LatentUNet(TINY)
    if random:
        randomised(network)
    loop = LoopSection(**{"samples": 6 * BATCH, "warmup": 2, "bf16": False, **changes})
    facts = {f"loop.{name}": value for name, value in vars(loop).items()}
    return Trainer(network, draw, loss, loop, BATCH, facts=facts)


def state_of(trainer: Trainer[LatentUNet]) -> list[Tensor]:
    """What a checkpoint keeps: weights, EMA weights, and the optimiser's moments."""
    moments = [x for state in trainer.optimizer.state_dict()["state"].values() for x in state.values()]
    return [*trainer.network.parameters(), *trainer.average.parameters(), *moments]


def assert_equal(a: Trainer[LatentUNet], b: Trainer[LatentUNet]) -> None:
    assert a.step == b.step
    for x, y in zip(state_of(a), state_of(b), strict=True):
        assert torch.equal(x, y)


def gradients(**changes: object) -> tuple[float, Tensor]:
    trainer = make_trainer(**changes)
    value = trainer._gradients()
    return value, torch.cat([p.grad.flatten() for p in trainer.network.parameters()])


@contextmanager
def full_disk(room: int = 2000) -> Iterator[None]:
    """No file can grow beyond so many bytes: the system refuses it, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- learning


def test_the_loop_learns_the_gaussian_velocity() -> None:
    """x0 ~ N(0,1), x1 = x0 + 1: the straight path's velocity is 1 everywhere."""

    def shifted(batch: int, generator: torch.Generator) -> Examples:
        start = torch.randn(batch, 4, 4, 4, generator=generator)
        time = torch.rand(batch, generator=generator)
        noise = start[:, None].expand(-1, 2, -1, -1, -1)
        return Examples(start + 1, start, torch.zeros(batch), torch.ones(batch), noise, time, time, start + 1)

    torch.manual_seed(0)
    loop = LoopSection(samples=8 * 80, rate=3e-3, warmup=5, bf16=False)
    trainer = Trainer(LatentUNet(TINY), shifted, loss, loop, 8, facts={})
    losses = [trainer.train_step() for _ in range(trainer.steps)]
    assert losses[0] == pytest.approx(1) and sum(losses[-10:]) / 10 < 0.02
    x = torch.randn(1, 4, 4, 4)
    predict = conditioned(trainer.average, TINY, torch.zeros(1), torch.ones(1))
    assert predict(x, torch.tensor([0.3]), x).mean() == pytest.approx(1, abs=0.1)


def test_the_ema_weights_forget_the_start_and_then_keep_the_recipe_s_share() -> None:
    trainer = make_trainer(ema=0.5)
    name, average = "out.2.bias", [p.clone() for p in trainer.average.parameters()]
    for step in range(6):
        trainer.train_step()
        keep = min(0.5, (1 + step) / (10 + step))
        average = [keep * a + (1 - keep) * p for a, p in zip(average, trainer.network.parameters(), strict=True)]
    for a, b in zip(average, trainer.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert not torch.equal(trainer.average.state_dict()[name], trainer.network.state_dict()[name])


def test_a_step_uses_the_rate_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, used = make_trainer(rate=0.01, warmup=3, decay=0.5), []
    step = trainer.optimizer.step
    monkeypatch.setattr(
        trainer.optimizer, "step", lambda: (used.append(trainer.optimizer.param_groups[0]["lr"]), step())
    )
    for _ in range(6):
        trainer.train_step()
    assert used == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.02 / 3, 0.01 / 3])


def test_the_gradient_is_clipped_to_its_norm() -> None:
    """AdamW hides a gradient's length; what its first moment holds after a step is a tenth of the gradient."""
    for clip, longest in ((0.01, 0.01), (0.0, math.inf)):
        trainer = make_trainer(clip=clip)
        trainer.train_step()
        moments = [state["exp_avg"].flatten() for state in trainer.optimizer.state.values()]
        norm = float(10 * torch.cat(moments).norm())
        assert norm == pytest.approx(0.01, rel=1e-3) if clip else 0.1 < norm < longest


def test_frozen_parameters_stay() -> None:
    torch.manual_seed(0)
    network = randomised(LatentUNet(TINY))
    freeze(network, ["input_blocks.0", "time_embed"])
    before = {name: p.clone() for name, p in network.named_parameters()}
    trainer = Trainer(
        network, draw, loss, LoopSection(samples=3 * BATCH, warmup=0, weight_decay=0.1, bf16=False), BATCH, facts={}
    )
    for _ in range(3):
        trainer.train_step()
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith(("input_blocks.0", "time_embed")), name
        if not p.requires_grad:
            assert torch.equal(p, trainer.average.state_dict()[name])


def test_an_unknown_prefix_is_not_frozen_silently() -> None:
    with pytest.raises(ConfigError, match=r"start\.frozen: no parameter's name begins with 'encoder'; .*input_blocks"):
        freeze(LatentUNet(TINY), ["out", "encoder"])


def test_a_loss_that_is_no_number_is_a_sentence_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    path, trainer = tmp_path / "state", make_trainer()
    trainer.train_step()
    trainer.save(path)
    good = path.read_bytes()
    trainer.loss = lambda *parts: loss(*parts) * (math.nan if trainer.step == 3 else 1.0)
    with pytest.raises(NonFiniteError, match="The loss became nan at step 3"):
        list(trainer.run(path))
    assert path.read_bytes() == good


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path: Path) -> None:
    path, trainer = tmp_path / "state", make_trainer(clip=0.0)

    def broken(network: nn.Module, *parts: Tensor) -> Tensor:
        """A finite loss with an infinite gradient: the root of what is always 0."""
        return loss(network, *parts) + (0 * loss(network, *parts)).sqrt()

    trainer.loss = broken
    with pytest.raises(NonFiniteError, match="gradient's norm"):
        list(trainer.run(path))
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
    assert not path.exists()


# --- resuming


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"bf16": True}])
def test_killed_and_resumed_equals_uninterrupted(changes: dict[str, object], tmp_path: Path) -> None:
    whole = make_trainer(**changes)
    list(whole.run(tmp_path / "whole"))
    first = make_trainer(**changes)
    for step, _ in first.run(tmp_path / "cut"):
        if step == 2:
            break
    second = make_trainer(**changes)
    second.network.out[2].bias.data += 1  # fresh weights must not matter
    second.resume(tmp_path / "cut")
    assert second.step == 3
    list(second.run(tmp_path / "cut"))
    assert_equal(whole, second)


@pytest.mark.parametrize("place", ["loss", "before the step", "in the step", "in the average"])
def test_an_interrupt_anywhere_resumes_exactly(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, trainer, path = make_trainer(), make_trainer(), tmp_path / "state"
    list(whole.run(tmp_path / "whole"))

    def stop(*args: object) -> Tensor:
        raise KeyboardInterrupt

    def stop_halfway() -> None:
        next(trainer.network.parameters()).data.add_(1)
        raise KeyboardInterrupt

    for step, _ in trainer.run(path, every=-1.0):
        if step == 2:
            break
    trainer.step = 3
    if place == "loss":
        trainer.loss = stop
    elif place == "before the step":
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", stop)
    elif place == "in the step":
        monkeypatch.setattr(trainer.optimizer, "step", stop_halfway)
    else:
        monkeypatch.setattr(trainer, "_update_average", stop)
    with pytest.raises(KeyboardInterrupt):
        list(trainer.run(path, every=-1.0))
    monkeypatch.undo()
    trainer.loss = loss
    trainer.resume(path)  # the same trainer resumes as well as a new one
    assert trainer.step == 3
    list(trainer.run(path))
    assert_equal(whole, trainer)
    assert torch.load(path, weights_only=True)["step"] == 6


def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "state"
    list(make_trainer().run(path))
    with pytest.raises(CheckpointError, match=r"loop\.rate was 0\.001, is 0\.5, loop\.seed was 0, is 7"):
        make_trainer(rate=0.5, seed=7).resume(path)
    free = {"samples": 8 * BATCH, "accumulate": 2, "checkpointing": True, "compile": False, "graphs": True}
    assert {*(f"loop.{name}" for name in free), "start.kept"} == set(FREE)
    longer = make_trainer(**free)
    longer.resume(path)
    assert longer.step == 6 and longer.steps == 8
    list(longer.run(path))
    assert longer.step == 8


def test_a_setting_that_an_older_version_did_not_have_was_its_default(tmp_path: Path) -> None:
    """A newer version resumes an older one's training where its new settings are at their defaults."""
    older, newer, dial = make_trainer(), make_trainer(), make_trainer()
    older.save(tmp_path / "cut")
    newer.facts |= {"objective.noise_steps": []}
    newer.resume(tmp_path / "cut")
    dial.facts |= {"objective.noise_steps": [100, 600]}
    with pytest.raises(CheckpointError, match=r"objective\.noise_steps was \[\], is \[100, 600\]"):
        dial.resume(tmp_path / "cut")


def test_checkpoints_that_are_none_are_sentences(tmp_path: Path) -> None:
    path = tmp_path / "state"
    make_trainer().save(path)
    whole, trainer = path.read_bytes(), make_trainer()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"state cannot be resumed.*delete it"):
            trainer.resume(path)
    foreign: list[object] = [{}, [1, 2], torch.zeros(3), {"facts": 3, "step": 1}, {"facts": {}, "step": "x"}, "text"]
    for thing in foreign:
        torch.save(thing, path)
        with pytest.raises(CheckpointError, match="damaged or foreign"):
            trainer.resume(path)


def test_a_full_disk_is_a_sentence_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    path, trainer = tmp_path / "state", make_trainer()
    trainer.save(path)
    before = path.read_bytes()
    trainer.train_step()
    with full_disk(), pytest.raises(FileError, match=r"state cannot be written") as refused:
        trainer.save(path)
    assert "Errno None" not in str(refused.value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_every_step_draws_its_own() -> None:
    drawn = [torch.rand((), generator=step_generator(seed, step)).item() for seed in (0, 1) for step in range(50)]
    assert len(set(drawn)) == 100


# --- dividing a step


@pytest.mark.parametrize(
    "changes", [{"accumulate": 4}, {"checkpointing": True}, {"accumulate": 2, "checkpointing": True}]
)
def test_how_a_step_is_computed_does_not_change_its_gradients(changes: dict[str, object]) -> None:
    value, expected = gradients()
    other, found = gradients(**changes)
    assert other == pytest.approx(value, rel=1e-6)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_checkpointing_really_computes_twice() -> None:
    for checkpointing, times in ((False, 1), (True, 2)):
        trainer, calls = make_trainer(checkpointing=checkpointing), []
        inner = trainer.network.input_blocks[1][0]
        inner.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        trainer._gradients()
        assert len(calls) == times


def test_checkpointing_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loop\.checkpointing"):
        Trainer(nn.Linear(1, 1), draw, loss, LoopSection(checkpointing=True), BATCH, facts={})


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch must be a multiple of 3, .*loop\.accumulate = 3, but it is 8"):
        make_trainer(accumulate=3)


def test_a_launcher_s_own_accumulation_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients()[1]
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert torch.equal(gradients()[1], expected)


SCRIPT = """
import sys
import torch
from test_loop import make_trainer

out, accumulate = sys.argv[1], int(sys.argv[2])
trainer = make_trainer(accumulate=accumulate)
loss = trainer._gradients()
grads = torch.cat([p.grad.flatten() for p in trainer.network.parameters()])
trainer.optimizer.zero_grad()
losses = [loss for _, loss in trainer.run(out + ".state")]
weights = torch.cat([p.detach().flatten() for p in trainer.average.parameters()])
facts = (trainer.host.num_processes, trainer.host.process_index)
torch.save((facts, loss, grads, losses, weights), f"{out}.{trainer.host.process_index}")
"""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_processes_are_one_training(tmp_path: Path) -> None:
    """Real ones, over gloo, each with two parts of a step."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    launcher = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(out), "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **launcher, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    value, expected = gradients()
    whole = make_trainer()
    losses = [x for _, x in whole.run(tmp_path / "whole")]
    weights = torch.cat([p.flatten() for p in whole.average.parameters()])
    for rank in range(2):
        facts, loss, found, their_losses, their_weights = torch.load(f"{out}.{rank}", weights_only=True)
        assert facts == (2, rank)
        assert loss == pytest.approx(value, rel=1e-5) and their_losses == pytest.approx(losses, rel=1e-4)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (their_weights - weights).abs().max() < 1e-4
    resumed = make_trainer()
    resumed.resume(Path(f"{out}.state"))  # one process continues the training of two
    assert resumed.step == 6
