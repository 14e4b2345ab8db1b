"""Recipes: the bundled ones, changes of single fields, and the names in errors."""

import json
from pathlib import Path

import pytest
import torch

from fmboost_core.errors import ConfigError
from fmboost_core.networks.unet import LatentUNet
from fmboost_core.training.recipe import Recipe, load_recipe, recipe_of
from fmboost_core.training.recipes import recipe_names
from fmboost_core.training.sections import LoopSection

CHANGES = {  # what these recipes require
    "straighten": ["start.model=any.safetensors"],
    "decoded": ["start.model=any.safetensors", "objective.decoder=any"],
    "perceived": ["start.model=any.safetensors", "objective.decoder=any"],
    "fast": ["start.model=any.safetensors", "objective.decoder=any"],
}


@pytest.mark.parametrize("name", recipe_names())
def test_bundled_recipes_load_and_their_facts_are_json(name: str) -> None:
    recipe = load_recipe(name, CHANGES.get(name, []))
    facts = recipe.flat()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["data.batch"] == recipe.data.batch and facts["network.multipliers"] == list(recipe.network.multipliers)


def test_no_setting_that_checkpoints_store_was_renamed() -> None:
    """A renamed field would stop every training that is under way; a new one counts as its default."""
    stored = {
        "network": "channels base multipliers res_blocks norm attention_rates middle_attention heads head_width "
        "attention attention_layout classes noise_level",
        "data": "crop batch upsampling shares",
        "objective": "name noise_step noise_steps octave sigma_min start_share since teacher_steps decoder texture "
        "lines mean coarse latents window",
        "start": "model frozen",
        "loop": "samples rate warmup decay beta2 weight_decay clip ema seed bf16 accumulate checkpointing compile",
        "card": "family license trained_on",
    }
    names = {f"{section}.{name}" for section, fields in stored.items() for name in fields.split()}
    assert names <= set(Recipe().flat())


@pytest.mark.parametrize(
    ("name", "parameters", "batch", "crop"),
    [
        ("paper-faceshq", 113, 96, 64), ("paper-lhq", 306, 128, 64), ("paper-unsplash", 306, 768, 64),
        ("lite", 3.7, 16, 32),
    ],
)  # fmt: skip
def test_the_networks_have_the_sizes_of_the_paper_s_table_9(
    name: str, parameters: float, batch: int, crop: int
) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        network = LatentUNet(recipe.network)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, rel=0.01)
    assert (recipe.data.batch, recipe.data.crop, recipe.objective.name) == (batch, crop, "cfm")
    assert recipe.objective.noise_step == 400


def test_a_recipe_of_one_s_own_may_say_little(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[network]\nbase = 64\nmultipliers = [1, 2]\n[loop]\nrate = 1\n[data]\nshares = {latent = 1}\n")
    recipe = load_recipe(str(path))
    assert recipe.network.base == 64 and recipe.network.multipliers == (1, 2)
    assert recipe.loop.rate == 1.0 and isinstance(recipe.loop.rate, float)
    assert recipe.data.shares == {"latent": 1.0} and recipe.data.batch == Recipe().data.batch
    assert recipe_of({}, "nothing") == Recipe(network=recipe_of({}, "nothing").network)


def test_changes_are_of_single_fields() -> None:
    recipe = load_recipe(
        "lite",
        ["loop.rate=3e-4", "card.trained_on=my holiday, all of it", "data.shares={image=0.5}", "network.base=16",
         'start.frozen=["out", "input_blocks.0"]', " objective.name = fm ", "loop.bf16=false"],
    )  # fmt: skip
    assert recipe.loop.rate == 3e-4 and recipe.card.trained_on == "my holiday, all of it"
    assert recipe.data.shares == {"image": 0.5} and recipe.start.frozen == ("out", "input_blocks.0")
    assert recipe.objective.name == "fm" and recipe.loop.bf16 is False
    assert recipe.network.base == 16 and recipe.network.norm == "channel", "the rest of the preset stays"


def test_a_preset_may_be_chosen_and_changed() -> None:
    network = load_recipe("lite", ["network=paper-113m", "network.base=64"]).network
    assert network.base == 64 and network.multipliers == (1, 2, 3, 4) and network.norm == "group"


def test_a_network_that_learns_several_noise_steps_is_conditioned_on_the_noise_level() -> None:
    assert not load_recipe("lite", ["network.noise_level=true"]).network.noise_level
    recipe = load_recipe("lite", ["objective.noise_steps=[100, 600]"])
    assert recipe.network.noise_level and recipe.objective.noise_steps == (100, 600)


def test_a_baseline_has_one_start() -> None:
    with pytest.raises(ConfigError, match=r"objective\.noise_steps must be empty with 'dm'"):
        load_recipe("lite", ["objective.name=dm", "objective.noise_steps=[100, 600]"])


def test_a_family_brings_its_channels() -> None:
    assert load_recipe("lite", ["card.family=flux1"]).network.channels == 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("dta.crop=3", "no dta; .*there are card, data, loop"),
        ("data.corp=3", r"no data\.corp; .*batch, crop, part, shares"),
        ("network.bas=3", r"no network\.bas"),
        ("data.crop=3.5", r"data\.crop must be a whole number"),
        ("data.crop=true", r"data\.crop must be a whole number, but it is True"),
        ("loop.rate=fast", r"loop\.rate must be a number, but it is 'fast'"),
        ("loop.bf16=1", r"loop\.bf16 must be true or false"),
        ("card.license=3", r"card\.license must be text"),
        ("start.frozen=out", r"start\.frozen must be a list"),
        ("start.frozen=[1]", r"start\.frozen must be text"),
        ("data.shares=[1]", r"data\.shares must be a table"),
        ("data.shares.image=much", r"data\.shares\.image must be a number"),
        ("data=3", "data must be a table"),
        ("network.base=[3]", r"network\.base must be a whole number"),
        ("network.architecture=[1]", r"network\.architecture must be text"),
        ("network.architecture=gan", r"architecture 'gan' is not known"),
        ("network.base=-3", r"network\.base must be a whole number above 0"),
        ("network.norm=batch", r"network\.norm must be 'group' or 'channel'"),
        ("network=large", r"network must be paper-113m or .*'large'"),
        ("data.crop=0", r"data\.crop must be above 0"),
        ("data.batch=-1", r"data\.batch must be above 0"),
        ("data.upsampling=bicubic", r"data\.upsampling must be psu or fast or bilinear or nearest"),
        ("objective.name=gan", r"objective\.name must be cfm or"),
        ("objective.noise_step=1000", r"objective\.noise_step must be 0 to 999"),
        ("objective.noise_steps=[100]", r"objective\.noise_steps must be empty, or the least and the greatest"),
        ("objective.noise_steps=[500, 600]", r"objective\.noise_steps must be empty, or .* around noise_step"),
        ("objective.noise_steps=[100, 1000]", r"objective\.noise_steps"),
        ("objective.noise_steps=[600, 100]", r"objective\.noise_steps"),
        ("objective.octave=-1", r"objective\.octave must be 0 or above"),
        ("objective.sigma_min=1", r"objective\.sigma_min must be at least 0 and below 1"),
        ("objective.start_share=2", r"objective\.start_share"),
        ("objective.since=0.5", r"objective\.since must be between 0 and 0\.25"),
        ("objective.teacher_steps=0", r"objective\.teacher_steps"),
        ("objective.name=reflow", r"start\.model must be the trained model"),
        ("objective.name=decoded", r"objective\.decoder must be the codec to decode with"),
        ("objective.texture=-1", r"objective\.texture must be 0 or above"),
        ("objective.lines=inf", r"objective\.lines must be 0 or above and finite"),
        ("objective.coarse=-1", r"objective\.coarse must be 0 or above"),
        ("objective.latents=nan", r"objective\.latents must be 0 or above and finite"),
        ("objective.window=1", r"objective\.window must be 2 to 1024"),
        ("loop.samples=0", r"loop\.samples must be above 0"),
        ("loop.rate=nan", r"loop\.rate must be above 0"),
        ("loop.rate=inf", r"loop\.rate must be above 0 and finite"),
        ("loop.accumulate=0", r"loop\.accumulate"),
        ("loop.warmup=-1", r"loop\.warmup must be 0 or above"),
        ("loop.weight_decay=-1", r"loop\.weight_decay"),
        ("loop.clip=-1", r"loop\.clip"),
        ("loop.seed=-1", r"loop\.seed"),
        (f"loop.seed={10**30}", r"loop\.seed must be at least 0 and below"),
        ("loop.decay=1.5", r"loop\.decay must be between 0 and 1"),
        ("loop.ema=2", r"loop\.ema"),
        ("loop.beta2=1", r"loop\.beta2 must be below 1"),
        ("card.family=sd4", r"card\.family must be sd15 or"),
        ("crop", "A change must be SECTION.FIELD=VALUE, but it is 'crop'"),
        ("=3", "A change must be"),
        ("data.=3", "A change must be"),
        ("data.crop.side=3", "must be a table|whole number"),
    ],
)  # fmt: skip
def test_impossible_changes_name_the_field(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("lite", [change])


def test_a_missing_recipe_names_those_there_are(tmp_path: Path) -> None:
    for name in ("nowhere.toml", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"There is no recipe .*codec, decoded, fast, guide, lite, paper-faceshq"):
            load_recipe(name)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="There is no recipe"):
        load_recipe(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize("text", ["[data\ncrop = 3", "crop 3", "[data]\ncrop = 3\ncrop = 4", "[[data]]\ncrop = 3"])
def test_a_recipe_that_is_no_toml_is_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML|data must be a table"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_the_rate_rises_stays_and_falls() -> None:
    loop = LoopSection(rate=1.0, warmup=10, decay=0.3)
    rates = [loop.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:70] == [1.0] * 61
    assert rates[85] == pytest.approx(0.5) and rates[-1] == pytest.approx(1 / 30)
    assert LoopSection(rate=1.0, warmup=0, decay=0.0).rate_at(0, 1) == 1.0
