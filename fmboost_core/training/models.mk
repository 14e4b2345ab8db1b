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
# The upscaler that teaches the 2x models, and that fmboost-image-x2 goes on from.
TEACHER ?= realesr-general-x4v3.pth
# The one that fmboost-latent-x2 goes on from.
X4PLUS ?= RealESRGAN_x4plus.pth
OUT ?= models
# Changes to all trainings, such as SET="--set loop.compile=true" where there is a compiler.
SET ?=

UPSCALE_MODELS := fmboost-image-x2 fmboost-latent-x2
MODELS := sd15-x2 sd15-x2-fast sd15-x2-direct sd15-x4 sdxl-x2 sdxl-x2-direct sdxl-x4 flux1-x2 flux1-x2-direct sd3-x2 sd3-x2-direct

encode = $(PYTHON) -m fmboost_core encode $(PHOTOS) --bf16 --out $(basename $@)
train = $(PYTHON) -m fmboost_core train $(foreach set,$(filter %.done,$^),$(basename $(set))) $@
from = --set start.model=$(filter %.safetensors,$^)
decoded = $(train) --recipe decoded $(from)
squares = $(PYTHON) -m fmboost_core encode --out $(basename $@) --codec $(CODECS)/$(1)
cuts = $(PYTHON) -m fmboost_core encode --side 448 --no-mirror --out $(basename $@)
timidly := --set objective.texture=0.25 --set objective.critics=0.3 --set loop.rate=1e-4 --set loop.critics_rate=1.5e-4 \
    --set loop.decay=0
sd15 = --set objective.decoder=$(CODECS)/taesd
sdxl = --set card.family=sdxl --set objective.decoder=$(CODECS)/taesdxl
flux1 = --set card.family=flux1 --set objective.decoder=$(CODECS)/taef1
sd3 = --set card.family=sd3 --set objective.decoder=$(CODECS)/taesd3
# Shares of the groups of guides: by the training codec and the built-in one; by what guides were encoded from.
own = {latent=0.7, image=0.08, "latent:builtin"=0.07, "image:builtin"=0.15}
kinds = --set data.shares.latent=0.8 --set data.shares.image=0.2

.PHONY: $(MODELS) $(UPSCALE_MODELS)
.DELETE_ON_ERROR:
.SECONDARY:
$(MODELS) $(UPSCALE_MODELS): %: $(OUT)/%.safetensors

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
$(OUT)/sd15-dial.safetensors: $(OUT)/sd15-second.safetensors $(all-x2)
	$(decoded) $(sd15) $(counts) $(dial) $(SET)

# A longer training, then the same detail in one evaluation.
gently := $(dial) --set objective.latents=2 --set loop.rate=2e-4 --set loop.decay=0.6
$(OUT)/sd15-longer.safetensors: $(OUT)/sd15-dial.safetensors $(all-x2)
	$(decoded) $(sd15) $(counts) $(gently) --set loop.samples=4_000 $(SET)

in-one := --set card.nfe=1 --set objective.since=0 --set objective.texture=0.9 --set data.batch=8 --set loop.samples=6_000
$(OUT)/sd15-x2-fast.safetensors: $(OUT)/sd15-longer.safetensors $(all-x2)
	$(decoded) $(sd15) --set 'data.shares=$(mixed)' $(gently) $(in-one) $(SET)

# Features and critics, on pictures that are sharp at the pixel level (SHARP) and on generated ones (GENERATED): begun with
# the narrow network, then widened, on a GPU, and refined.
$(OUT)/x2-sharp.done:
	$(cuts) $(SHARP) --codec $(CODECS)/taesd --limit 96
	touch $@

$(OUT)/x2-generated.done:
	$(cuts) $(GENERATED) --codec $(CODECS)/taesd --guides latent
	touch $@

$(OUT)/x2-rough.done:
	$(cuts) $(PHOTOS) --codec $(CODECS)/taesd --guides latent --disturb --reduce 1.5 --limit 60
	touch $@

$(OUT)/x2-sharp-own.done:
	$(cuts) $(SHARP) --codec $(CODECS)/taesd --reduce 2 --seed 1 --guide-codec builtin --limit 48
	touch $@

sharp-x2 := $(addprefix $(OUT)/x2-, sharp.done generated.done rough.done sharp-own.done)
mostly-latent := {latent=0.68, image=0.06, "latent:disturbed"=0.12, "latent:builtin"=0.05, "image:builtin"=0.09}
perceived-x2 = $(train) --recipe perceived $(from) $(sd15) $(dial)
$(OUT)/sd15-perceived.safetensors: $(OUT)/sd15-dial.safetensors $(sharp-x2)
	$(perceived-x2) --set 'data.shares=$(mostly-latent)' --set loop.samples=1_620 $(SET)

$(OUT)/x2-large.done:
	$(call squares,taesd) $(SHARP) --reduce 1.25 --side 832
	touch $@

$(OUT)/x2-drawn.done:
	$(call squares,taesd) $(GENERATED) --side 768 --guides latent
	touch $@

$(OUT)/x2-dim.done:
	$(call squares,taesd) $(SHARP) $(GENERATED) --reduce 2 --side 416 --no-mirror --guides latent --disturb
	touch $@

$(OUT)/x2-small-own.done:
	$(call squares,taesd) $(SHARP) --reduce 2.5 --side 416 --no-mirror --guide-codec builtin
	touch $@

large-x2 := $(addprefix $(OUT)/x2-, large.done drawn.done dim.done small-own.done)
resized-x2 := {latent=0.4, image=0.06, "latent:disturbed"=0.12, "latent:builtin"=0.06, "image:builtin"=0.09, \
    resized=0.2, "resized:disturbed"=0.07}
widened-x2 := --set network.base=48 --set network.classes=3 --set objective.mean=4 --set objective.critics=0.8
on-gpu-x2 := --set data.crop=32 --set objective.window=24 --set data.batch=64 --set loop.warmup=50 --set loop.decay=0.4 \
    --set loop.rate=3e-4 --set loop.critics_rate=6e-4 --set loop.samples=19_456 --set 'data.shares=$(resized-x2)'
$(OUT)/sd15-wide.safetensors: $(OUT)/sd15-perceived.safetensors $(large-x2)
	$(perceived-x2) $(widened-x2) $(on-gpu-x2) $(SET)

refined-x2 := --set objective.features=4 --set loop.rate=2e-4 --set loop.samples=6_500
$(OUT)/sd15-refined.safetensors: $(OUT)/sd15-wide.safetensors $(sharp-x2)
	$(perceived-x2) $(widened-x2) $(refined-x2) --set 'data.shares=$(mostly-latent)' $(SET)

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
$(OUT)/xl-large.done:
	$(call squares,taesdxl) $(SHARP) --reduce 1.25 --side 832
	touch $@

$(OUT)/xl-drawn.done:
	$(call squares,taesdxl) $(GENERATED) $(DRAWINGS) --side 768 --guides latent
	touch $@

$(OUT)/xl-dim.done:
	$(call squares,taesdxl) $(SHARP) $(GENERATED) --reduce 2 --side 416 --no-mirror --guides latent --disturb
	touch $@

$(OUT)/xl-own.done:
	$(call squares,taesdxl) $(SHARP) --reduce 2.5 --side 416 --no-mirror --guide-codec builtin
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

seventh := --set data.batch=96 --set loop.samples=82_464 --set loop.decay=0.35 --set loop.rate=2.5e-4 \
    --set loop.critics_rate=5e-4 --set objective.features=4 --set objective.texture=0.6 \
    --set 'data.shares=$(all-kinds-xl)'
$(OUT)/sdxl-seventh.safetensors: $(OUT)/sdxl-sixth.safetensors $(large-xl)
	$(perceived-xl) $(on-gpu) $(seventh) $(SET)

# --- The last runs of all: wider, without a border left out, with critics that see the guide, and without overshoot.
# On a GPU in 415 s for 2x and 108 s for 4x, two at a time, each step of 32 crops as one CUDA graph.

# Squares of all pictures, as clean as they get. $(1): codec; $(2): more options. The bundled files' run reduced the sharp ones by
# 1.4 and 1.9, the others by 1 and 1.5, and had the Unsplash photographs of PHOTOS too, reduced by 2.
all-squares = $(PYTHON) -m fmboost_core encode $(SHARP) $(GENERATED) $(DRAWINGS) --reduce 1.4 --side 512 --cuts 4 \
    --out $(basename $@) --codec $(CODECS)/$(1) $(2)

%-last.done:
	$(call all-squares,$(codec-of))
	touch $@

%-last-disturbed.done:
	$(call all-squares,$(codec-of),--guides latent --disturb)
	touch $@

%-last-own.done:
	$(call all-squares,$(codec-of),--guide-codec builtin)
	touch $@

$(OUT)/x2-last-boosted.done: $(OUT)/sd15-refined.safetensors
	$(call all-squares,taesd,--guides latent --boosted $<)
	touch $@

$(OUT)/xl-last-boosted.done: $(OUT)/sdxl-seventh.safetensors
	$(call all-squares,taesdxl,--guides latent --boosted $<)
	touch $@

$(OUT)/x2-%: codec-of := taesd
$(OUT)/xl-%: codec-of := taesdxl
$(OUT)/f1-%: codec-of := taef1
$(OUT)/s3-%: codec-of := taesd3

last-shares := {latent=0.5, "latent:disturbed"=0.13, "latent:boosted"=0.09, image=0.07, "latent:builtin"=0.05, \
    "image:builtin"=0.06, resized=0.1}
last-objective := --set objective.since=0 --set objective.informed=true --set objective.overshoot=2.5 \
    --set objective.features=5 --set objective.critics=0.6 --set objective.mean=4 --set objective.window=24
last-loop := --set data.crop=32 --set data.batch=32 --set loop.rate=2e-4 --set loop.critics_rate=4e-4 --set loop.ema=0.999 \
    --set loop.graphs=true
last = $(train) --recipe perceived $(from) --set network.base=64 --set network.classes=3 $(last-objective) $(last-loop)
last-sets = $(addprefix $(OUT)/$(1)-last, .done -disturbed.done -own.done -boosted.done)

# Then SDXL's on one CPU core, half an hour: critics with little say, for clean lines and flat areas. The bundled file went on
# from the mean of the weights before and after.
clean = $(train) --recipe perceived $(from) --set network.base=64 --set network.classes=3 --set objective.since=0 \
    --set objective.informed=true --set objective.overshoot=5 --set objective.error=2 --set objective.features=5 \
    --set objective.critics=0.12 --set objective.mean=4 --set objective.window=16 --set data.crop=24 --set data.batch=8 \
    --set loop.rate=1.5e-4 --set loop.critics_rate=4e-4 --set loop.warmup=10 --set loop.decay=0.6 --set loop.ema=0.98

last-sd15 = $(sd15) $(dial) --set objective.texture=0.1 --set objective.latents_texture=0.2
$(OUT)/sd15-last.safetensors: $(OUT)/sd15-refined.safetensors $(call last-sets,x2)
	$(last) $(last-sd15) --set 'data.shares=$(last-shares)' --set loop.samples=98_240 --set loop.decay=0.4 $(SET)

last-sdxl = $(sdxl) --set objective.noise_step=100 --set objective.texture=0 --set objective.latents_texture=0.25
$(OUT)/sdxl-last.safetensors: $(OUT)/sdxl-seventh.safetensors $(call last-sets,xl)
	$(last) $(last-sdxl) --set 'data.shares=$(last-shares)' --set loop.samples=118_400 --set loop.decay=0.4 $(SET)

kind-latent := --set data.shares.latent=1
$(OUT)/sdxl-clean.safetensors: $(OUT)/sdxl-last.safetensors $(OUT)/xl-last.done
	$(clean) $(last-sdxl) $(kind-latent) --set loop.samples=6_048 $(SET)

# 4x, from the 2x of the GPU.
%4-last.done:
	$(call all-squares,$(codec-of),--scale 4)
	touch $@

%4-last-disturbed.done:
	$(call all-squares,$(codec-of),--scale 4 --guides latent --disturb)
	touch $@

$(OUT)/x4-%: codec-of := taesd
$(OUT)/xl4-%: codec-of := taesdxl

shares-x4 := {latent=0.62, "latent:disturbed"=0.16, image=0.09, resized=0.13}
$(OUT)/sd15-x4.safetensors: $(OUT)/sd15-last.safetensors $(OUT)/x4-last.done $(OUT)/x4-last-disturbed.done
	$(last) $(last-sd15) --set 'data.shares=$(shares-x4)' --set loop.samples=27_520 --set loop.decay=0.5 $(SET)

$(OUT)/sdxl-x4.safetensors: $(OUT)/sdxl-last.safetensors $(OUT)/xl4-last.done $(OUT)/xl4-last-disturbed.done
	$(last) $(last-sdxl) --set 'data.shares=$(shares-x4)' --set loop.samples=33_280 --set loop.decay=0.5 $(SET)

# --- FLUX.1 and SD3: 16 channels. First the flow alone, from SDXL's weights with new first and last layers.

flow-16 = $(train) $(from) --set network.base=48 --set network.classes=3 --set objective.noise_step=200 --set data.batch=256 \
    --set loop.rate=8e-4 --set 'data.shares=$(flow-shares-16)'
flow-shares-16 := {latent=0.8, image=0.2}
$(OUT)/flux1-flow.safetensors: $(OUT)/sdxl-seventh.safetensors $(OUT)/f1-last.done
	$(flow-16) --set card.family=flux1 --set loop.samples=340_000 $(SET)

$(OUT)/sd3-flow.safetensors: $(OUT)/flux1-flow.safetensors $(OUT)/s3-last.done
	$(flow-16) --set card.family=sd3 --set loop.samples=110_000 $(SET)

perceived-16 = $(train) --recipe perceived $(from) --set network.base=48 --set objective.noise_step=200 $(on-gpu) \
    --set data.batch=64 --set objective.critics=0.7 --set 'data.shares=$(flow-shares-16)'
$(OUT)/flux1-perceived.safetensors: $(OUT)/flux1-flow.safetensors $(OUT)/f1-last.done
	$(perceived-16) $(flux1) --set loop.samples=42_000 $(SET)

$(OUT)/sd3-perceived.safetensors: $(OUT)/sd3-flow.safetensors $(OUT)/s3-last.done
	$(perceived-16) $(sd3) --set loop.samples=18_112 $(SET)

# Then as the others, with less say for the critics: 460 s of a GPU for both at once. Then 150 s for clean lines and flat areas.
faithful := --set objective.noise_step=100 --set objective.texture=0 --set objective.latents_texture=0.2
shares-16 := {latent=0.55, "latent:disturbed"=0.13, image=0.08, "latent:builtin"=0.05, "image:builtin"=0.05, resized=0.14}
last-16 = $(last) $(faithful) --set 'data.shares=$(shares-16)' --set loop.rate=2.5e-4 --set loop.decay=0.45 \
    --set objective.error=1.5 --set objective.overshoot=3
sets-16 = $(addprefix $(OUT)/$(1)-last, .done -disturbed.done -own.done)
$(OUT)/flux1-last.safetensors: $(OUT)/flux1-perceived.safetensors $(call sets-16,f1)
	$(last-16) $(flux1) --set objective.critics=0.4 --set loop.samples=100_704 $(SET)

$(OUT)/sd3-last.safetensors: $(OUT)/sd3-perceived.safetensors $(call sets-16,s3)
	$(last-16) $(sd3) --set objective.critics=0.3 --set loop.samples=100_768 $(SET)

clean-16 = $(last) $(faithful) --set 'data.shares=$(shares-16)' --set loop.rate=1.5e-4 --set loop.decay=0.7 --set loop.ema=0.998 \
    --set objective.error=2 --set objective.overshoot=5 --set objective.critics=0.12
$(OUT)/flux1-clean.safetensors: $(OUT)/flux1-last.safetensors $(call sets-16,f1)
	$(clean-16) $(flux1) --set loop.samples=32_992 $(SET)

$(OUT)/sd3-clean.safetensors: $(OUT)/sd3-last.safetensors $(call sets-16,s3)
	$(clean-16) $(sd3) --set loop.samples=31_936 $(SET)

# Last on one CPU core each, an hour: features have more say. The bundled files' runs began at the mean of the weights before and
# after the run for clean lines, and had 400 squares of 416 pixels.
final-16 = $(train) --recipe perceived $(from) --set network.base=64 --set network.classes=3 $(faithful) --set objective.since=0 \
    --set objective.informed=true --set objective.overshoot=4 --set objective.error=1.5 --set objective.features=8 \
    --set objective.critics=0.3 --set objective.mean=4 --set objective.window=16 --set data.crop=24 --set data.batch=8 \
    --set loop.rate=1.5e-4 --set loop.critics_rate=4e-4 --set loop.warmup=20 --set loop.decay=0.6 --set loop.ema=0.995 \
    --set 'data.shares={latent=0.75, "latent:disturbed"=0.13, resized=0.12}'
$(OUT)/flux1-final.safetensors: $(OUT)/flux1-clean.safetensors $(OUT)/f1-last.done $(OUT)/f1-last-disturbed.done
	$(final-16) $(flux1) --set loop.samples=6_768 $(SET)

$(OUT)/sd3-final.safetensors: $(OUT)/sd3-clean.safetensors $(OUT)/s3-last.done $(OUT)/s3-last-disturbed.done
	$(final-16) $(sd3) --set loop.samples=6_904 $(SET)

# --- The last runs of 2x: an upscaler makes the ground truth, and the critics take photographs for real; one evaluation. On a GPU
# in 460 s, all four families at once: first the latents alone, then decoded, then with more say for the critics. The bundled files'
# run had 1,920 squares of 416 pixels, the sharp ones reduced by 1.2 to 2, and 320 of them with disturbed latents.

%-taught.done:
	$(call all-squares,$(codec-of),--teacher $(TEACHER))
	touch $@

%-taught-disturbed.done:
	$(call all-squares,$(codec-of),--guides latent --disturb --teacher $(TEACHER))
	touch $@

taught-shares := {"latent:taught"=0.74, "latent:disturbed:taught"=0.1, "image:taught"=0.06, "resized:taught"=0.1}
taught = $(train) $(from) --set network.base=64 --set network.classes=3 --set card.nfe=1 --set data.crop=24 \
    --set 'data.shares=$(taught-shares)' --set loop.warmup=40 --set loop.decay=0.5 --set loop.graphs=true
taught-latents = $(taught) --recipe lite --set objective.start_share=1 --set data.batch=64 --set loop.rate=5e-4 \
    --set loop.ema=0.995 --set loop.samples=17_500
taught-images = $(taught) --recipe perceived --set objective.since=0 --set objective.steps=1 --set objective.informed=true \
    --set objective.texture=0 --set objective.latents_texture=0.2 --set objective.features=8 --set objective.overshoot=4 \
    --set objective.coarse=4 --set objective.mean=4 --set objective.window=18 --set data.batch=16 --set loop.rate=2e-4 \
    --set loop.critics_rate=4e-4 --set loop.ema=0.998
timid-critics := --set objective.error=8 --set objective.critics=0.1 --set loop.samples=24_000
real-critics := --set objective.error=4 --set objective.critics=0.5 --set objective.photos=true --set loop.samples=36_000

start-sd15 := --set objective.noise_step=400 --set 'objective.noise_steps=[100, 700]'
start-sdxl := --set card.family=sdxl --set objective.noise_step=100
start-flux1 := --set card.family=flux1 --set objective.noise_step=100
start-sd3 := --set card.family=sd3 --set objective.noise_step=100
# Of the finished files, by the choices of viewers.
strength-sd15 := 1.3
strength-sdxl := 1.15
strength-flux1 := 1.15
strength-sd3 := 1.15

# $(1): family; $(2): the name of its sets; $(3): the file that it goes on from.
define taught-by-an-upscaler
$(OUT)/$(1)-latents.safetensors: $(OUT)/$(3).safetensors $(OUT)/$(2)-taught.done $(OUT)/$(2)-taught-disturbed.done
	$$(taught-latents) $$(start-$(1)) $$(SET)

$(OUT)/$(1)-images.safetensors: $(OUT)/$(1)-latents.safetensors $(OUT)/$(2)-taught.done $(OUT)/$(2)-taught-disturbed.done
	$$(taught-images) $$(timid-critics) $$(start-$(1)) $$($(1)) $$(SET)

$(OUT)/$(1)-x2.safetensors: $(OUT)/$(1)-images.safetensors $(OUT)/$(2)-taught.done $(OUT)/$(2)-taught-disturbed.done
	$$(taught-images) $$(real-critics) $$(start-$(1)) $$($(1)) --set card.strength=$$(strength-$(1)) $$(SET)
endef
$(eval $(call taught-by-an-upscaler,sd15,x2,sd15-last))
$(eval $(call taught-by-an-upscaler,sdxl,xl,sdxl-clean))
$(eval $(call taught-by-an-upscaler,flux1,f1,flux1-final))
$(eval $(call taught-by-an-upscaler,sd3,s3,sd3-final))

# --- Fast guides: a guide network, begun with the layers of a tiny VAE, learns PSU's guide; then both it and a narrow flow after it learn,
# for one evaluation; then what the small latent shows has a say too; at last without noise, which had gone through the narrow flow. On a CPU
# core with bfloat16, two hours each. The bundled files' runs had 633 squares of 416 pixels, 128 of 352 pixels with disturbed latents,
# and 320 of PHOTOS of 320 pixels for the guide network alone and for the last run. With SD1.5 and SDXL, the first third of the run before the last
# had critics=0.3 and small=8.

fast-shares := --set 'data.shares={latent=0.88, "latent:disturbed"=0.12}'
sets-of = $(foreach set,$(filter %.done,$^),$(basename $(set)))
guide = $(PYTHON) -m fmboost_core train-guide $(sets-of) $@ --set data.crop=40 --set data.batch=8 --set loop.warmup=100 \
    --set loop.decay=0.6 --set loop.ema=0.998 --set loop.samples=20_000 $(fast-shares)
begun-with = --set start.model=$(word 1,$(filter %.safetensors,$^)) --set start.guide=$(lastword $(filter %.safetensors,$^))
fast = $(train) --recipe fast $(begun-with) $(fast-shares)
fast-latents := --set objective.name=cfm --set objective.start_share=1 --set objective.anchor=1 --set loop.rate=5e-4 --set loop.ema=0.99 \
    --set loop.samples=1_600
fast-images := --set objective.anchor=0.3 --set objective.critics=0.35 --set loop.samples=2_600
shown := --set objective.anchor=1 --set objective.critics=0.65 --set objective.small=6
fast-shown := $(shown) --set loop.samples=6_400
fast-quiet := $(shown) --set objective.noise_step=0 --set objective.coarse=8 --set objective.error=3 --set objective.mean=8 \
    --set loop.rate=2e-4 --set loop.ema=0.995

$(OUT)/sd15-guide.safetensors: $(OUT)/x2.done $(OUT)/x2-last.done $(OUT)/x2-last-disturbed.done
	$(guide) --set start.guide=$(CODECS)/taesd $(SET)

$(OUT)/sd15-fast-first.safetensors: $(OUT)/sd15-x2-fast.safetensors $(OUT)/sd15-guide.safetensors $(OUT)/x2-last.done \
    $(OUT)/x2-last-disturbed.done
	$(fast) $(sd15) $(dial) --set objective.noise_step=400 $(fast-images) $(SET)

$(OUT)/sd15-fast-shown.safetensors: $(OUT)/sd15-fast-first.safetensors $(OUT)/x2-last.done $(OUT)/x2-last-disturbed.done
	$(fast) $(sd15) $(dial) --set objective.noise_step=400 $(fast-shown) $(SET)

$(OUT)/sd15-x2-direct.safetensors: $(OUT)/sd15-fast-shown.safetensors $(OUT)/x2.done $(OUT)/x2-last.done $(OUT)/x2-last-disturbed.done
	$(fast) $(sd15) $(fast-quiet) --set loop.samples=8_000 --set card.strength=1.15 $(SET)

# The guides of the families with 16 channels also learned from 789 squares of PHOTOS, not 320.
$(OUT)/f1.done:
	$(encode) --codec $(CODECS)/taef1
	touch $@

$(OUT)/s3.done:
	$(encode) --codec $(CODECS)/taesd3
	touch $@

# $(1): family; $(2): the name of its sets; $(3): its tiny VAE; $(4): the flow that it goes on from, which began at another noise step or has
# other channels, so that it is trained on latents first; $(5): crops of that; $(6): crops without noise; $(7): the strength.
define without-the-vae
$(OUT)/$(1)-guide.safetensors: $(OUT)/$(2).done $(OUT)/$(2)-last.done $(OUT)/$(2)-last-disturbed.done
	$$(guide) --set card.family=$(1) --set start.guide=$(CODECS)/$(3) $$(SET)

$(OUT)/$(1)-nearer.safetensors: $(OUT)/$(4).safetensors $(OUT)/$(1)-guide.safetensors $(OUT)/$(2).done $(OUT)/$(2)-last.done \
    $(OUT)/$(2)-last-disturbed.done
	$$(fast) --set card.family=$(1) --set objective.noise_step=100 $$(fast-latents) --set loop.samples=$(5) $$(SET)

$(OUT)/$(1)-fast-first.safetensors: $(OUT)/$(1)-nearer.safetensors $(OUT)/$(2)-last.done $(OUT)/$(2)-last-disturbed.done
	$$(fast) $$($(1)) --set objective.noise_step=100 $$(fast-images) --set loop.samples=2_200 $$(SET)

$(OUT)/$(1)-fast-shown.safetensors: $(OUT)/$(1)-fast-first.safetensors $(OUT)/$(2)-last.done $(OUT)/$(2)-last-disturbed.done
	$$(fast) $$($(1)) --set objective.noise_step=100 $$(fast-shown) $$(SET)

$(OUT)/$(1)-x2-direct.safetensors: $(OUT)/$(1)-fast-shown.safetensors $(OUT)/$(2).done $(OUT)/$(2)-last.done $(OUT)/$(2)-last-disturbed.done
	$$(fast) $$($(1)) $$(fast-quiet) --set loop.samples=$(6) --set card.strength=$(7) $$(SET)
endef
$(eval $(call without-the-vae,sdxl,xl,taesdxl,sdxl-second,1_600,10_000,1.25))
$(eval $(call without-the-vae,flux1,f1,taef1,sdxl-fast-shown,3_200,10_000,1.0))
$(eval $(call without-the-vae,sd3,s3,taesd3,sdxl-fast-shown,3_200,8_000,1.0))

# --- The bundled upscale models: what the tiny codecs make of small pictures, enlarged as photographs are. The last runs took 3 minutes (image)
# and 7 (latent) of an NVIDIA H200, with 1,712 squares of 416 pixels by each codec; those before, from realesr-general-x4v3, an hour of two CPU
# cores, with 180 by each.

%-images.done:
	$(call all-squares,$(codec-of),--images)
	touch $@

image-sets := $(addprefix $(OUT)/,x2-images.done xl-images.done f1-images.done s3-images.done)
enlarging = $(PYTHON) -m fmboost_core train-upscale-model $(basename $(filter %.done,$^)) $@ \
    --set 'data.shares={latent=0.8, image=0.2}' --set card.license=bsd-3-clause
first-lines := --set start.kept=0.25 --set data.crop=16 --set objective.critics=0.7 --set loop.warmup=30 \
    --set loop.samples=7_600
$(OUT)/image-first.safetensors: $(image-sets)
	$(enlarging) --set start.model=$(TEACHER) $(first-lines) $(SET)

clean-lines := --set data.crop=16 --set objective.critics=0.2 --set objective.error=8 --set objective.overshoot=6 \
    --set loop.warmup=20 --set loop.decay=0.6 --set loop.ema=0.99 --set loop.samples=2_240
$(OUT)/image-second.safetensors: $(OUT)/image-first.safetensors $(image-sets)
	$(enlarging) $(from) $(clean-lines) $(SET)

halfway := --set objective.error=6 --set objective.overshoot=2 --set start.kept=0.5
image-lines := $(halfway) --set objective.critics=0.25 --set objective.sharpen=0.6 --set data.batch=32 --set loop.samples=192_832
$(OUT)/fmboost-image-x2.safetensors: $(OUT)/image-second.safetensors $(image-sets)
	$(enlarging) $(from) $(image-lines) $(SET)

latent-lines := $(halfway) --set objective.critics=0.3 --set objective.sharpen=0.5 --set data.batch=24 --set loop.samples=160_104
$(OUT)/fmboost-latent-x2.safetensors: $(image-sets)
	$(enlarging) --set start.model=$(X4PLUS) $(latent-lines) $(SET)
