# Rules to train the bundled models again, from photographs and the tiny codecs (docs/models.md):
#
#     make -f fmboost_core/training/models.mk sdxl-x2 PHOTOS=photos SHARP=sharp GENERATED=generated DRAWINGS=drawings \
#         CODECS=taesd
#
# A stopped rule continues. Each takes hours of a CPU core; models that it starts from are trained first.

PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)
PHOTOS ?= photos
SHARP ?= sharp
GENERATED ?= generated
# What tools/draw_pictures.py draws.
DRAWINGS ?= drawings
CODECS ?= taesd
OUT ?= models
# Changes to all trainings, such as SET="--set loop.compile=true" where there is a compiler.
SET ?=

MODELS := sd15-x2 sd15-x2-fast sd15-x4 sdxl-x2

encode = $(PYTHON) -m fmboost_core encode $(PHOTOS) --bf16 --out $(basename $@)
train = $(PYTHON) -m fmboost_core train $(foreach set,$(filter %.done,$^),$(basename $(set))) $@
from = --set start.model=$(filter %.safetensors,$^)
decoded = $(train) --recipe decoded $(from)
cuts = $(PYTHON) -m fmboost_core encode --side 448 --no-mirror --out $(basename $@)
timidly := --set objective.texture=0.25 --set objective.critics=0.3 --set loop.rate=1e-4 --set loop.critics_rate=1.5e-4 \
    --set loop.decay=0
sd15 = --set objective.decoder=$(CODECS)/taesd
sdxl = --set card.family=sdxl --set objective.decoder=$(CODECS)/taesdxl
# Shares of the groups of guides: by the training codec and the built-in one; by what guides were encoded from.
own = {latent=0.7, image=0.08, "latent:builtin"=0.07, "image:builtin"=0.15}
kinds = --set data.shares.latent=0.8 --set data.shares.image=0.2

.PHONY: $(MODELS)
.DELETE_ON_ERROR:
.SECONDARY:
$(MODELS): %: $(OUT)/%.safetensors

# --- SD1.x and SD2.x

$(OUT)/x2.done:
	$(encode) --codec $(CODECS)/taesd
	touch $@

# Guides by the built-in codec, which the command line uses by default.
$(OUT)/x2-own.done:
	$(encode) --codec $(CODECS)/taesd --guide-codec builtin
	touch $@

$(OUT)/sd15-flow.safetensors: $(OUT)/x2.done $(OUT)/x2-own.done
	$(train) --set loop.samples=500_000 --set loop.decay=0.5 --set 'data.shares=$(own)' $(SET)

$(OUT)/sd15-first.safetensors: $(OUT)/sd15-flow.safetensors $(OUT)/x2.done $(OUT)/x2-own.done
	$(decoded) $(sd15) --set 'data.shares=$(own)' $(SET)

# Low-resolution latents as in a second stage, and as from a diffusion model.
$(OUT)/x2-boosted.done: $(OUT)/sd15-first.safetensors
	$(encode) --codec $(CODECS)/taesd --guides latent --boosted $< --no-mirror --limit 192
	touch $@

$(OUT)/x2-disturbed.done:
	$(encode) --codec $(CODECS)/taesd --guides latent --disturb --no-mirror --limit 192
	touch $@

mixed := {latent=0.38, "latent:boosted"=0.25, "latent:disturbed"=0.15, image=0.06, \
    "latent:builtin"=0.05, "image:builtin"=0.11}
counts := --set objective.texture=1.2 --set 'data.shares=$(mixed)'
all-x2 := $(addprefix $(OUT)/x2, .done -own.done -boosted.done -disturbed.done)
$(OUT)/sd15-second.safetensors: $(OUT)/sd15-first.safetensors $(all-x2)
	$(decoded) $(sd15) $(counts) $(SET)

# Conditioned on the noise level; a higher noise step gives more texture.
conditioned := --set objective.noise_steps=[100,700]
dial := $(conditioned) --set objective.octave=150
$(OUT)/sd15-x2.safetensors: $(OUT)/sd15-second.safetensors $(all-x2)
	$(decoded) $(sd15) $(counts) $(dial) $(SET)

# A longer training, then the same detail in one evaluation.
gently := $(dial) --set objective.latents=2 --set loop.rate=2e-4 --set loop.decay=0.6
$(OUT)/sd15-longer.safetensors: $(OUT)/sd15-x2.safetensors $(all-x2)
	$(decoded) $(sd15) $(counts) $(gently) --set loop.samples=4_000 $(SET)

in-one := --set objective.since=0 --set objective.texture=0.9 --set data.batch=8 --set loop.samples=6_000
$(OUT)/sd15-x2-fast.safetensors: $(OUT)/sd15-longer.safetensors $(all-x2)
	$(decoded) $(sd15) --set 'data.shares=$(mixed)' $(gently) $(in-one) $(SET)

$(OUT)/x4.done:
	$(encode) --codec $(CODECS)/taesd --scale 4 --guides latent --no-mirror --limit 448
	touch $@

$(OUT)/sd15-x4-flow.safetensors: $(OUT)/sd15-flow.safetensors $(OUT)/x4.done
	$(train) $(from) --set loop.samples=48_000 --set loop.decay=0.7 $(SET)

$(OUT)/sd15-x4-first.safetensors: $(OUT)/sd15-x4-flow.safetensors $(OUT)/x4.done
	$(decoded) $(sd15) --set objective.texture=1.6 --set loop.samples=10_400 $(SET)

$(OUT)/x4-disturbed.done:
	$(encode) --codec $(CODECS)/taesd --scale 4 --guides latent --disturb --no-mirror --limit 192
	touch $@

mixed-x4 := {latent=0.8, "latent:disturbed"=0.2}
x4 := --set objective.texture=2 --set objective.octave=200 --set loop.samples=14_000 --set loop.decay=0.6
$(OUT)/sd15-x4.safetensors: $(OUT)/sd15-x4-first.safetensors $(OUT)/x4.done $(OUT)/x4-disturbed.done
	$(decoded) $(sd15) --set 'data.shares=$(mixed-x4)' $(conditioned) $(x4) $(SET)

# --- SDXL

$(OUT)/xl.done:
	$(encode) --codec $(CODECS)/taesdxl
	touch $@

$(OUT)/sdxl-flow.safetensors: $(OUT)/sd15-flow.safetensors $(OUT)/xl.done
	$(train) $(from) $(kinds) --set card.family=sdxl --set loop.samples=270_000 --set loop.decay=0.6 $(SET)

$(OUT)/sdxl-first.safetensors: $(OUT)/sdxl-flow.safetensors $(OUT)/xl.done
	$(decoded) $(kinds) $(sdxl) --set objective.texture=0.7 --set loop.samples=9_600 $(SET)

$(OUT)/xl-boosted.done: $(OUT)/sdxl-first.safetensors
	$(encode) --codec $(CODECS)/taesdxl --guides latent --boosted $< --no-mirror --limit 192
	touch $@

$(OUT)/xl-disturbed.done:
	$(encode) --codec $(CODECS)/taesdxl --guides latent --disturb --no-mirror --limit 192
	touch $@

mixed-xl := {latent=0.45, "latent:boosted"=0.2, "latent:disturbed"=0.15, image=0.2}
all-xl := $(addprefix $(OUT)/xl, .done -boosted.done -disturbed.done)
decoded-xl = $(decoded) --set 'data.shares=$(mixed-xl)' $(sdxl) --set objective.lines=6.7 --set objective.mean=4
$(OUT)/sdxl-second.safetensors: $(OUT)/sdxl-first.safetensors $(all-xl)
	$(decoded-xl) --set objective.texture=0.4 --set loop.samples=9_600 $(SET)

# A wider network, a lower noise step, and a weight for coarse content.
wide := --set network.base=48 --set objective.noise_step=250 --set objective.texture=0.5 --set objective.coarse=0.8
$(OUT)/sdxl-third.safetensors: $(OUT)/sdxl-second.safetensors $(all-xl)
	$(decoded-xl) $(wide) --set loop.samples=13_000 --set loop.decay=0.6 $(SET)

# Features and critics, on pictures that are sharp at the pixel level (SHARP) and on generated ones (GENERATED).
# First with a weak, then with a stronger say of the critics.
$(OUT)/xl-sharp.done:
	$(cuts) $(SHARP) --codec $(CODECS)/taesdxl --limit 96
	touch $@

$(OUT)/xl-generated.done:
	$(cuts) $(GENERATED) --codec $(CODECS)/taesdxl --guides latent
	touch $@

$(OUT)/xl-rough.done:
	$(cuts) $(PHOTOS) --codec $(CODECS)/taesdxl --guides latent --disturb --reduce 1.5 --limit 60
	touch $@

sharp-xl := $(addprefix $(OUT)/xl-, sharp.done generated.done rough.done)
perceived-xl = $(train) --recipe perceived $(from) $(sdxl) --set network.base=48 --set objective.noise_step=250 \
    --set 'data.shares={latent=0.75, image=0.12, "latent:disturbed"=0.13}'
$(OUT)/sdxl-fourth.safetensors: $(OUT)/sdxl-third.safetensors $(sharp-xl)
	$(perceived-xl) $(timidly) --set loop.samples=4_000 $(SET)

$(OUT)/sdxl-fifth.safetensors: $(OUT)/sdxl-fourth.safetensors $(sharp-xl)
	$(perceived-xl) --set loop.warmup=40 --set loop.samples=6_500 $(SET)

# On a GPU: larger squares, crops and batches; guides by the built-in codec, and resized latents as a third kind of guide.
squares = $(PYTHON) -m fmboost_core encode --out $(basename $@) --codec $(CODECS)/taesdxl
$(OUT)/xl-large.done:
	$(squares) $(SHARP) --reduce 1.25 --side 832
	touch $@

$(OUT)/xl-drawn.done:
	$(squares) $(GENERATED) $(DRAWINGS) --side 768 --guides latent
	touch $@

$(OUT)/xl-dim.done:
	$(squares) $(SHARP) $(GENERATED) --reduce 2 --side 416 --no-mirror --guides latent --disturb
	touch $@

$(OUT)/xl-own.done:
	$(squares) $(SHARP) --reduce 2.5 --side 416 --no-mirror --guide-codec builtin
	touch $@

large-xl := $(addprefix $(OUT)/xl-, large.done drawn.done dim.done own.done)
resized-xl := {latent=0.47, image=0.08, "latent:disturbed"=0.13, resized=0.25, "resized:disturbed"=0.07}
all-kinds-xl := {latent=0.58, image=0.08, "latent:disturbed"=0.14, "latent:builtin"=0.05, "image:builtin"=0.07, resized=0.08}
on-gpu = --set network.classes=3 --set data.crop=32 --set objective.window=24 --set objective.mean=4 \
    --set objective.critics=1 --set loop.warmup=50
sixth := --set data.batch=64 --set loop.samples=19_712 --set loop.decay=0.4 --set loop.rate=3e-4 \
    --set loop.critics_rate=6e-4 --set 'data.shares=$(resized-xl)'
$(OUT)/sdxl-sixth.safetensors: $(OUT)/sdxl-fifth.safetensors $(large-xl)
	$(perceived-xl) $(on-gpu) $(sixth) $(SET)

last := --set data.batch=96 --set loop.samples=82_464 --set loop.decay=0.35 --set loop.rate=2.5e-4 \
    --set loop.critics_rate=5e-4 --set objective.features=4 --set objective.texture=0.6 \
    --set 'data.shares=$(all-kinds-xl)'
$(OUT)/sdxl-x2.safetensors: $(OUT)/sdxl-sixth.safetensors $(large-xl)
	$(perceived-xl) $(on-gpu) $(last) $(SET)
