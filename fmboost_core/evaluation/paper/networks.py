"""Networks of the tables: trained by their recipes once, and kept in the work folder."""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError
from ...files.checkpoint import load_model
from ...model import Model
from ...training.data.latents import load_shards
from ...training.recipe import Recipe, load_recipe
from ...training.session import run_to_end
from ...training.train import finished, make_trainer, write
from .setup import AblationSetup
from .tables import COMMON, TRAININGS, Table


def recipe_for(name: str, work: Path, samples: int | None = None, compiled: bool = False) -> Recipe:
    """The recipe of one of `TRAININGS`. samples: instead of the table's."""
    training = TRAININGS[name]
    own = [change.format(cfm=(work / "cfm.safetensors").as_posix()) for change in training.changes]
    loop = [f"loop.samples={samples or training.samples}", f"loop.compile={str(compiled).lower()}"]
    return load_recipe("lite", [*COMMON, *own, *loop])


def trained(name: str, setup: AblationSetup) -> Model:
    """The network from the work folder; it is trained to its end first where that is left to do."""
    path, shards = setup.work / f"{name}.safetensors", setup.data / TRAININGS[name].shards
    if not path.exists():
        if "{cfm}" in "".join(TRAININGS[name].changes):
            trained("cfm", setup)
        recipe, latents = recipe_for(name, setup.work, setup.samples, setup.compiled), load_shards(shards)
        setup.report(f"Training {name}: {recipe.loop.samples} samples of {shards}.")
        trainer, _ = make_trainer(recipe, latents)
        run_to_end(trainer, path)
        write(finished(recipe, trainer.average, latents.scale, name), path)
    return load_model(path)


def trained_networks(table: Table, setup: AblationSetup) -> dict[str, Model]:
    """The table's networks by name, each once."""
    return {name: trained(name, setup) for name in dict.fromkeys(row.network for row in table.rows)}


def existing_network(name: str, work: Path) -> Model:
    """A network that a table has trained. Raises `ConfigError` where it is missing."""
    path = work / f"{name}.safetensors"
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist; the table objectives trains it: run fmboost ablate objectives first."
        )
    return load_model(path)
